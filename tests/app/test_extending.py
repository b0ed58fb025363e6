"""What docs/extending.md shows works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from app import main as command
from zoo import Policy, get_task, tasks
from zoo.tasks import Task, register_installed_tasks, register_task

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's programs as one module."""
    programs = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "mylab.py").write_text("\n".join(programs))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    import mylab  # type: ignore[import-not-found]

    yield mylab
    del sys.modules["mylab"]


def test_methods_of_ones_own_train(mylab: Any, fit_words: Callable[..., list[str]], tmp_path: Path) -> None:
    for name, more in (("HuberCloning", ["--model.delta=0.05"]), ("LinearCloning", [])):
        folder, exported = tmp_path / name, tmp_path / f"{name}.safetensors"
        words = [word for word in fit_words(folder, 1) if name == "HuberCloning" or "hidden_sizes" not in word]
        words[2:2] = [f"--model=mylab.{name}"]
        words += [
            *more,
            "--trainer.max_steps=4",
            "--trainer.val_check_interval=2",
            f"--trainer.callbacks.init_args.path={exported}",
        ]
        assert command.main(words) == 0
        assert Policy.load(exported).observation_size == 11
        if more:
            saved = torch.load(max(folder.rglob("*.ckpt")), weights_only=True)
            assert saved["hyper_parameters"]["_class_path"] == "mylab.HuberCloning"
            assert saved["hyper_parameters"]["delta"] == 0.05
            assert command.main([*words, "--trainer.max_steps=6", "--ckpt_path=last"]) == 0


def test_a_learner_of_ones_own_is_a_stage_of_a_run(
    mylab: Any, finished: Path, tiny_overrides: list[str], data_root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))
    words = ["train", "hopper", "--expert=tiny/hopper/expert-v0", "--diverse=tiny/hopper/other-v0", *tiny_overrides]
    words += ["--demonstrations=3"]
    words += ["--policy.method=mylab.SparingTD3", f"--stages-of={finished}", "--evaluation.episodes=1"]
    assert command.main([*words, "--policy.model.effort=0.7", f"--out={tmp_path / 'run'}"]) == 0
    saved = torch.load(tmp_path / "run" / "policy" / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["effort"] == 0.7
    assert saved["hyper_parameters"]["exploration_noise"] == 0.1  # TD3's settings, not those of SAC
    assert "train/effort" in (tmp_path / "run" / "policy" / "metrics.csv").read_text()
    assert command.main([*words, "--policy.model.efort=0.7", f"--out={tmp_path / 'other'}"]) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SimulatorSAK", "did you mean SimulatorSAC"),
        ("mylab.Nothing", "has no attribute 'Nothing'"),
        ("nolab.Learner", "No module named 'nolab'"),
        ("mylab.HuberCloning", "is no learner in a Simulator"),
        ("pathlib.Path", "is no learner in a Simulator"),
    ],
)
def test_what_is_no_learner_is_refused_before_any_work(
    mylab: Any, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "hopper", f"--policy.method={name}", f"--out={tmp_path / 'run'}"]
    assert command.main(words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_method_that_leaves_nothing_is_refused_before_it_trains(
    mylab: Any, fit_words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (tmp_path / "mylab.py").read_text()
    (tmp_path / "mylab.py").write_text(source.replace("def export(", "def other("))
    words = [word for word in fit_words(tmp_path / "run", 1) if "hidden_sizes" not in word]
    words[2:2] = ["--model=mylab.LinearCloning"]
    del sys.modules["mylab"]
    assert command.main([*words, "--trainer.max_steps=3"]) == 2
    assert "LinearCloning says nowhere what its training leaves" in capsys.readouterr().err
    import mylab  # noqa: F401 - the fixture takes it away again

    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_a_task_of_ones_own_is_known(mylab: Any) -> None:
    assert get_task("swimmer") is mylab.SWIMMER
    register_task(mylab.SWIMMER)  # once more changes nothing
    other = Task(**{**vars(mylab.SWIMMER), "horizon": 7})
    with pytest.raises(ValueError, match="there is a task 'swimmer' already"):
        register_task(other)


def test_tasks_of_installed_packages_are_known(mylab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del tasks.TASKS["swimmer"]
    found = [
        EntryPoint("swimmer", "mylab:SWIMMER", "offsim.tasks"),
        EntryPoint("broken", "mylab:NONE", "offsim.tasks"),
        EntryPoint("policy", "mylab:Policy", "offsim.tasks"),
    ]
    monkeypatch.setattr(tasks, "entry_points", lambda group: found if group == "offsim.tasks" else [])
    with pytest.warns(UserWarning) as warned:
        register_installed_tasks.__wrapped__()
    assert get_task("swimmer") is mylab.SWIMMER
    said = [str(each.message) for each in warned]
    assert len(said) == 2 and "task 'broken' of an installed package is left out" in said[0]
    assert "is a type, no zoo.tasks.Task" in said[1]


def test_the_command_knows_tasks_of_installed_packages(mylab: Any, tmp_path: Path) -> None:
    """In a process of its own, with a package that imports all parts of this project."""
    described = tmp_path / "mylab-0.1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 0.1\n")
    (described / "entry_points.txt").write_text("[offsim.tasks]\nswimmer = mylab:SWIMMER\n")
    places = os.pathsep.join([str(tmp_path), str(PAGE.parents[1])])
    words = [sys.executable, "-m", "app", "train", "own", "--task", "swimmer", "--expert", "tiny/none-v0"]
    found = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, cwd=tmp_path
    )
    assert "no dataset 'tiny/none-v0'" in found.stderr and "swimmer" not in found.stderr
