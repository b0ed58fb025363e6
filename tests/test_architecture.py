"""The house rules that a reader relies on, checked on the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the top of the house to its foundation: a package may import itself and those to its right.
ORDER = ("app", "lit_modules", "datamodules", "zoo")

# The one module that learns from a real system, and the only ones that may use it.
ONLINE = "lit_modules.online_sac"
ONLINE_USERS = "app.collect"

# The tasks' own rewards, for experiments that show what a method could reach, and the only modules that may use them.
CONTROLS = ("app.true_reward", "app.controls", "app.fixed_policies")
CONTROL_USERS = ("app.diagnose", *CONTROLS)

# Doors to a real system. Spaces only describe shapes and bounds.
REAL_MODULES = ("gymnasium", "gym", "mujoco", "zoo.episodes", "torchrl.envs.libs")
HARMLESS_MODULES = ("gymnasium.spaces",)
REAL_CALLS = ("make", "make_vec", "recover_environment", "GymEnv", "GymWrapper")


def module_name(path: Path) -> str:
    """Dotted name of a source file relative to the repository."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def imports(source: str, name: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, wherever in it the import stands.

    ``from a import b`` counts as ``a.b``, since ``b`` may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if is_package else name.split(".")[:-1]
                package = package[: len(package) - (node.level - 1)]
                base = ".".join([*package, base] if base else package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def dotted(node: ast.expr) -> str | None:
    """``a.b.c`` for an expression that is just that."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return None if start is None else f"{start}.{node.attr}"
    return None


def within(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def upward_imports(source: str, name: str, is_package: bool = False) -> list[str]:
    """Imports of one module that point up the house."""
    above = ORDER[: ORDER.index(name.split(".")[0])]
    return [
        f"{name}:{line} imports {found}" for line, found in imports(source, name, is_package) if within(found, *above)
    ]


def online_imports(source: str, name: str, is_package: bool = False) -> list[str]:
    """Uses of the online learner in one module."""
    return [
        f"{name}:{line} imports {found}" for line, found in imports(source, name, is_package) if within(found, ONLINE)
    ]


def control_imports(source: str, name: str, is_package: bool = False) -> list[str]:
    """Uses of the tasks' own rewards in one module."""
    return [
        f"{name}:{line} imports {found}"
        for line, found in imports(source, name, is_package)
        if within(found, *CONTROLS)
    ]


def doors_to_reality(source: str, name: str, is_package: bool = False) -> list[str]:
    """Ways in which one module could reach a real environment."""
    found = [
        f"{name}:{line} imports {imported}"
        for line, imported in imports(source, name, is_package)
        if (within(imported, *REAL_MODULES) and not within(imported, *HARMLESS_MODULES))
        or imported.rsplit(".", 1)[-1] in REAL_CALLS
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
            if called in REAL_CALLS:
                found.append(f"{name}:{node.lineno} calls {called}")
        elif isinstance(node, ast.Attribute) and within(dotted(node) or "", "zoo.episodes"):
            found.append(f"{name}:{node.lineno} uses zoo.episodes")
    return found


@pytest.mark.parametrize("package", ORDER)
def test_every_package_exists(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_down_the_house(package: str) -> None:
    wrong = [
        line
        for path in modules(package)
        for line in upward_imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ORDER)
def test_no_package_imports_tests_or_benchmarks(package: str) -> None:
    wrong = [
        f"{module_name(path)}:{line} imports {found}"
        for path in modules(package)
        for line, found in imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
        if within(found, "tests", "benchmarks")
    ]
    assert not wrong, "\n".join(wrong)


def test_offline_code_cannot_reach_a_real_environment() -> None:
    wrong = [
        line
        for path in modules("lit_modules", "datamodules")
        if module_name(path) != ONLINE
        for line in doors_to_reality(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_collection_uses_the_online_learner() -> None:
    wrong = [
        line
        for path in modules(*ORDER)
        if not (path.parent == ROOT / "app" and path.name.startswith("collect")) and module_name(path) != ONLINE
        for line in online_imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_diagnosis_uses_the_tasks_own_rewards() -> None:
    """Training, evaluation and reports of methods cannot even come across one by accident."""
    wrong = [
        line
        for path in modules(*ORDER)
        if module_name(path) not in CONTROL_USERS
        for line in control_imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from app.true_reward import TrueReward", "app.pipeline"),
        ("def late():\n    from app import controls", "app.train"),
        ("from . import fixed_policies", "app.report"),
        ("import app.true_reward", "lit_modules.simulator_sac"),
    ],
)
def test_use_of_the_tasks_own_rewards_is_seen(source: str, name: str) -> None:
    assert control_imports(source, name)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import lit_modules", "zoo.simulator"),
        ("from datamodules.minari import load", "zoo.simulator"),
        ("from app import main", "datamodules.streams"),
        ("def late():\n    import app.main", "lit_modules.offsim"),
    ],
)
def test_an_upward_import_is_seen(source: str, name: str) -> None:
    assert upward_imports(source, name)


@pytest.mark.parametrize(
    "source", ["import zoo", "from datamodules import streams", "from . import critic", "import apple"]
)
def test_a_downward_import_is_let_through(source: str) -> None:
    assert not upward_imports(source, "lit_modules.offsim")


@pytest.mark.parametrize(
    "source",
    [
        "import gymnasium",
        "from gymnasium import make",
        "import gymnasium as harmless",
        "import mujoco",
        "from zoo.episodes import run_episodes",
        "from zoo import episodes",
        "import zoo\nzoo.episodes.run_episodes",
        "from zoo.tasks import get_task\nget_task('hopper').make()",
        "from torchrl.envs import GymEnv",
        "import torchrl\ntorchrl.envs.GymEnv('Hopper-v5')",
        "dataset.recover_environment()",
    ],
)
def test_a_door_to_reality_is_seen(source: str) -> None:
    assert doors_to_reality(source, "lit_modules.offsim")


@pytest.mark.parametrize(
    "source",
    [
        "from gymnasium import spaces",
        "from gymnasium.spaces import Box",
        "from zoo.tasks import get_task",
        "import torchrl",
    ],
)
def test_what_only_describes_reality_is_let_through(source: str) -> None:
    assert not doors_to_reality(source, "datamodules.streams")


@pytest.mark.parametrize(
    "source",
    ["from lit_modules.online_sac import OnlineSAC", "from lit_modules import online_sac", "from . import online_sac"],
)
def test_use_of_the_online_learner_is_seen(source: str) -> None:
    assert online_imports(source, "lit_modules.offsim")
