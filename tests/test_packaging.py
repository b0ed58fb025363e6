"""The files around the code agree with each other. Nothing here installs or builds."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def constraints() -> dict[str, Version]:
    """Canonical name -> exact version, as constraints.txt fixes them."""
    fixed = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            fixed[canonicalize_name(name)] = Version(version)
    return fixed


def requirements() -> list[Requirement]:
    """Everything that the project and its extras ask for directly."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    texts = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in extra)]
    return [found for found in map(Requirement, texts) if found.name != "offsim"]  # an extra may name another


def test_version_strings_agree() -> None:
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == version
    for package in ("app", "lit_modules", "datamodules", "zoo"):
        text = (ROOT / package / "__init__.py").read_text(encoding="utf-8")
        stated = re.search(r'^__version__\s*=\s*"([^"]+)"', text, re.MULTILINE)
        assert stated is None or stated[1] == version, package


def test_installed_version_is_the_source_version() -> None:
    try:
        installed = metadata.version("offsim")
    except metadata.PackageNotFoundError:
        pytest.skip("offsim is not installed here")
    assert installed == PROJECT["project"]["version"]


def test_changelog_has_a_place_for_the_next_change() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_fix_plain_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    fixed = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in fixed)
    assert fixed == sorted(fixed)
    assert not [line for line in fixed if line.startswith(("nvidia", "triton", "offsim"))]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_constraints_satisfy_every_range(requirement: Requirement) -> None:
    fixed = constraints()
    name = canonicalize_name(requirement.name)
    assert name in fixed, f"{name} is missing from constraints.txt"
    assert requirement.specifier.contains(fixed[name]), f"{fixed[name]} is outside of {requirement}"


def test_every_package_with_code_is_shipped() -> None:
    included = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for package in ("app", "lit_modules", "datamodules", "zoo", "configs"):
        assert package in included
        folders = {path.parent for path in (ROOT / package).rglob("*.py")}
        assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def entry_points() -> list[str]:
    groups = PROJECT["project"].get("entry-points", {}).values()
    return [*PROJECT["project"]["scripts"].values(), *(target for group in groups for target in group.values())]


@pytest.mark.parametrize("target", entry_points())
def test_entry_points_name_a_function_that_exists(target: str) -> None:
    module, function = target.split(":")
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_configuration_parses(path: Path) -> None:
    configuration = OmegaConf.load(path)
    assert OmegaConf.is_dict(configuration) and configuration, f"{path.name} holds no settings"


def test_configurations_are_shipped() -> None:
    """A file that the package-data pattern misses would be there for developers and absent for users."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["configs"]
    shipped = {path for pattern in patterns for path in (ROOT / "configs").glob(pattern)}
    extra = {path for path in (ROOT / "configs").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in extra if path.suffix != ".py"} <= shipped
