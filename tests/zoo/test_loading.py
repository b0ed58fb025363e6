"""Finding models by id and by path."""

from __future__ import annotations

import shutil
from pathlib import Path

import gymnasium
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo import ModelFileError, Policy, Simulator, entries, load, load_policy, registration
from zoo.ids import EntryId
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of three small entries."""
    root = tmp_path / "weights"
    for name in ("hopper/expert-v0", "hopper/expert-v2", "arm/mixed-v0"):
        size = 2 + int(name.endswith("v2"))
        transition = TransitionModel(size, 1, members=2, hidden_sizes=(4,))
        starts = StartStates.of(torch.zeros(1, size))
        parts = (transition, RewardModel(size, 1, (4,)), TerminationModel(), starts)
        built = Simulator(*parts, [-1.0], [1.0], horizon=7 if name.startswith("arm") else None)
        built.save(root / name / "simulator.safetensors")
        Policy(size, [-1.0], [1.0], (4,)).save(root / name / "policy.safetensors")
        entries.write_manifest(root / name, EntryId.parse(name))
    (root / "broken" / "draft-v0").mkdir(parents=True)  # holds nothing
    monkeypatch.setattr(entries, "SHIPPED", root)
    monkeypatch.setenv("OFFSIM_ZOO", str(tmp_path / "own"))
    return root


@given(task=NAMES, variant=NAMES, version=st.none() | st.integers(0, 99))
def test_ids_are_read_as_they_are_written(task: str, variant: str, version: int | None) -> None:
    entry = EntryId(task, variant, version)
    assert EntryId.parse(str(entry)) == entry


@pytest.mark.parametrize("text", ["hopper", "hopper/", "/expert-v0", "a/b/c-v0", "hopper/expert v0", "../x/y-v0", ""])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no id of the zoo: write it as task/variant-vN"):
        EntryId.parse(text)


def test_an_entry_is_loaded_by_its_id_and_without_a_version_the_newest(weights: Path) -> None:
    assert load("hopper/expert-v0").observation_size == 2
    assert load("hopper/expert").observation_size == 3
    assert load_policy("hopper/expert-v2").config["observation_size"] == 3
    assert [str(entry) for entry in entries.entries()] == ["arm/mixed-v0", "hopper/expert-v0", "hopper/expert-v2"]


def test_files_folders_and_simulators_are_taken_as_they_are(weights: Path) -> None:
    folder = weights / "hopper" / "expert-v2"
    for name in (folder, str(folder), folder / "simulator.safetensors", str(folder / "simulator.safetensors")):
        assert load(name).observation_size == 3
    simulator = load(folder)
    assert load(simulator) is simulator
    shutil.copy(weights / "arm/mixed-v0/simulator.safetensors", folder / "policy_simulator.safetensors")
    assert load(folder).observation_size == 2  # learned beside the policy, after the other


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hopper/expart-v0", "no entry hopper/expart-v0 in the zoo: did you mean hopper/expert-v0"),
        ("hopper/expert-v1", "no entry hopper/expert-v1 in the zoo: did you mean hopper/expert"),
        ("zzz/qqq-v7", "it holds arm/mixed-v0, hopper/expert-v0, hopper/expert-v2"),
        ("hopper", "'hopper' is neither a file or folder nor an id such as"),
        ("somewhere/simulator.safetensors", "no simulator file at somewhere/simulator.safetensors: check the path"),
    ],
)
def test_what_is_not_there_is_named(weights: Path, name: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        load(name)


def test_an_empty_zoo_says_so(weights: Path) -> None:
    shutil.rmtree(weights)
    with pytest.raises(ModelFileError, match="no entry hopper/expert-v0 in the zoo: it holds nothing yet"):
        load("hopper/expert-v0")


def test_entries_become_environments_with_the_horizon_of_their_task(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(gymnasium.registry):
        if name.startswith("OffSim/"):
            monkeypatch.delitem(gymnasium.registry, name)
    registration.register_environments()
    registration.register_environments()  # knows what is there
    names = sorted(name for name in gymnasium.registry if name.startswith("OffSim/"))
    try:
        assert names == [
            "OffSim/Simulator-v0",
            "OffSim/arm-mixed-v0",
            "OffSim/hopper-expert-v0",
            "OffSim/hopper-expert-v2",
        ]
        assert gymnasium.spec("OffSim/hopper-expert-v0").max_episode_steps == 1000
        assert gymnasium.spec("OffSim/arm-mixed-v0").max_episode_steps is None
        for settings, steps in (({}, 7), ({"max_episode_steps": 3}, 3)):  # its longest demonstration, or as told
            environment = gymnasium.make("OffSim/arm-mixed-v0", **settings)
            environment.reset(seed=0)
            ends = [environment.step(environment.action_space.sample())[3] for _ in range(steps)]
            assert ends == [False] * (steps - 1) + [True]
        many = gymnasium.make_vec("OffSim/hopper-expert-v2", num_envs=4)
        assert many.reset(seed=0)[0].shape == (4, 3)
    finally:
        for name in names[1:]:
            gymnasium.registry.pop(name)
