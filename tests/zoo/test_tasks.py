"""The facts of each task are those of its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.tasks import TASKS, get_task


@pytest.mark.parametrize("name", sorted(TASKS))
def test_sizes_and_names_fit_the_environment(name: str) -> None:
    task = get_task(name)
    environment = task.make()
    assert environment.observation_space.shape == (task.observation_size,) == (len(task.observation_names),)
    assert environment.action_space.shape == (task.action_size,)
    assert environment.spec is not None and environment.spec.max_episode_steps == task.horizon
    environment.close()
    assert len(set(task.observation_names)) == task.observation_size


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="hopper"):
        get_task("hoper")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_loading_a_task_is_quiet(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MuJoCo would print and log to the working folder what is outdated in Gymnasium's own model files."""
    monkeypatch.chdir(tmp_path)
    get_task(name).make().close()
    assert "deprecated" not in "".join(capfd.readouterr())
    assert not list(tmp_path.iterdir())
