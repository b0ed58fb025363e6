"""Data made worse on purpose: what is changed, and what is left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from datamodules import DataError, TransitionDataModule


def make(**settings: Any) -> TransitionDataModule:
    data = TransitionDataModule("test/expert-v0", 5, ["test/other-v0"], seed=3, **settings)
    data.setup()
    return data


@pytest.fixture
def recorded(record: Any) -> None:
    record("test/expert-v0", [5, 6, 7, 8, 9, 10])
    record("test/other-v0", [30] * 10, first_number=100)


def test_every_so_many_transitions_of_the_training_demonstrations_are_kept_whole(recorded: None) -> None:
    whole, thinned = make(), make(expert_keep_every=3)
    kept = whole.expert_train["step"] % 3 == 0
    for key in ("observation", "action", ("next", "observation"), ("next", "truncated"), "episode", "step"):
        assert torch.equal(thinned.expert_train[key], whole.expert_train[key][kept]), key
    # The observation's second feature is the step: what comes next is still the very next one
    assert torch.equal(thinned.expert_train["next", "observation"][:, 1], thinned.expert_train["step"] + 1.0)
    assert thinned.expert_held_out is not None and whole.expert_held_out is not None
    assert torch.equal(thinned.expert_held_out["step"], whole.expert_held_out["step"])
    assert thinned.facts()[0]["rows"] == int(kept.sum())
    assert torch.equal(thinned.initial_observations, whole.initial_observations)


def noisy_rows(data: TransitionDataModule, clean: TransitionDataModule) -> torch.Tensor:
    assert data.diverse_train is not None and clean.diverse_train is not None
    return (data.diverse_train["action"] != clean.diverse_train["action"]).any(dim=-1)


def test_a_share_of_the_diverse_training_rows_becomes_noise(recorded: None) -> None:
    clean, some, more = make(), make(noise_fraction=0.3), make(noise_fraction=0.6)
    assert some.diverse_train is not None and clean.diverse_train is not None and clean.diverse_held_out is not None
    noisy = noisy_rows(some, clean)
    assert 0.2 < noisy.float().mean() < 0.4  # of 270 rows
    assert bool((noisy_rows(more, clean) | ~noisy).all())  # more noise spoils the same rows and others
    assert torch.equal(some.diverse_train["observation"], clean.diverse_train["observation"])
    following = some.diverse_train["next", "observation"]
    assert torch.equal(following[~noisy], clean.diverse_train["next", "observation"][~noisy])
    # The third feature is random: its change is that of another row of the same episode
    change = (following - some.diverse_train["observation"])[:, 2]
    given = (clean.diverse_train["next", "observation"] - clean.diverse_train["observation"])[:, 2]
    for episode in clean.diverse_train["episode"].unique():
        rows = clean.diverse_train["episode"] == episode
        distance = (change[rows & noisy].unsqueeze(1) - given[rows]).abs().min(dim=1).values
        assert float(distance.max()) < 1e-5
    assert float((change[noisy] - given[noisy]).abs().median()) > 0.1
    # Demonstrations and what is held out stay as they were
    assert torch.equal(some.expert_train["action"], clean.expert_train["action"])
    assert some.diverse_held_out is not None
    assert torch.equal(some.diverse_held_out["action"], clean.diverse_held_out["action"])


def test_noise_depends_on_the_seed_and_the_episode_alone(recorded: None) -> None:
    assert torch.equal(
        make(noise_fraction=0.5).diverse_train["action"], make(noise_fraction=0.5).diverse_train["action"]
    )
    whole, half = make(noise_fraction=0.5), make(noise_fraction=0.5, diverse_fraction=0.5)
    assert whole.diverse_train is not None and half.diverse_train is not None
    assert len(half.diverse_train) == 150  # five of the nine episodes that are not held out
    among = torch.isin(whole.diverse_train["episode"], half.diverse_train["episode"].unique())
    assert torch.equal(half.diverse_train["action"], whole.diverse_train["action"][among])
    other = TransitionDataModule("test/expert-v0", 5, ["test/other-v0"], seed=4, noise_fraction=0.5)
    other.setup()
    assert other.diverse_train is not None
    assert not torch.equal(other.diverse_train["action"], whole.diverse_train["action"])


def test_files_hold_what_memory_would(recorded: None, tmp_path: Path) -> None:
    edits = {"noise_fraction": 0.5, "expert_keep_every": 2}
    memory, files = make(**edits), make(**edits, memory_limit_mb=0, cache_dir=str(tmp_path / "files"))
    clean = make(memory_limit_mb=0, cache_dir=str(tmp_path / "files"))
    assert memory.diverse_train is not None and files.diverse_train is not None and clean.diverse_train is not None
    assert len(clean.expert_train) > len(files.expert_train)
    for ours, theirs in ((memory.expert_train, files.expert_train), (memory.diverse_train, files.diverse_train)):
        assert bool((ours == theirs).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_fraction": 1.5}, "share from 0 to 1"),
        ({"expert_keep_every": 0}, "whole number from 1"),
        ({"noise_fraction": 0.1, "diverse": []}, "noise in diverse data, but there is none"),
    ],
)
def test_edits_are_checked(recorded: None, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TransitionDataModule(**{"expert": "test/expert-v0", "diverse": ["test/other-v0"], **settings})


def test_actions_need_bounds(record: Any) -> None:
    unbounded = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    for first_number, name in enumerate(("a", "b")):
        record(f"test/{name}-v0", [4, 4], action_space=unbounded, first_number=first_number)
    with pytest.raises(DataError, match="test/a-v0 have no bounds, and a policy needs them"):
        TransitionDataModule("test/a-v0", diverse=["test/b-v0"])


def test_actions_need_room(record: Any) -> None:
    narrow = spaces.Box(np.array([-1.0, 0.5], np.float32), np.array([1.0, 0.5], np.float32))
    for first_number, name in enumerate(("a", "b")):
        record(f"test/{name}-v0", [4, 4], action_space=narrow, first_number=first_number)
    with pytest.raises(DataError, match=r"action 1 of dataset test/a-v0 has the bounds 0\.5 and 0\.5"):
        TransitionDataModule("test/a-v0", diverse=["test/b-v0"])
