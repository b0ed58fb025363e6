"""Recorded returns warn of demonstrations that are worse than the other data."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from app.data_quality import warn_of_worse_expert
from app.evaluate import recorded_returns
from datamodules import DataError


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    for name, reward in (("good", 2.0), ("bad", 1.0), ("silent", 0.0)):
        episode = EpisodeBuffer(
            observations=np.zeros((4, 1), dtype=np.float32),  # type: ignore[arg-type]
            actions=np.zeros((3, 1), dtype=np.float32),  # type: ignore[arg-type]
            rewards=np.full(3, reward),  # type: ignore[arg-type]
            terminations=np.zeros(3, dtype=bool),  # type: ignore[arg-type]
            truncations=np.array([False, False, True]),  # type: ignore[arg-type]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(
                f"test/{name}-v0", [episode], observation_space=space, action_space=space
            )


@pytest.mark.usefixtures("record")
def test_worse_demonstrations_are_pointed_out() -> None:
    warning = warn_of_worse_expert("test/bad-v0", ["test/silent-v0", "test/good-v0"])
    assert warning is not None and "test/good-v0 return 6.0 on average, those of the expert data 3.0" in warning


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("expert, diverse", [("good", "bad"), ("silent", "good"), ("good", "silent")])
def test_better_demonstrations_and_data_without_rewards_are_not(expert: str, diverse: str) -> None:
    assert warn_of_worse_expert(f"test/{expert}-v0", [f"test/{diverse}-v0"]) is None


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("damage", ["cut", "empty", "no rewards"])
def test_data_that_cannot_be_read_is_named(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "test" / "good-v0" / "data" / "main_data.hdf5"
    if damage == "no rewards":
        with h5py.File(file, "a") as data:
            del data["episode_0"]["rewards"]
    else:
        file.write_bytes(file.read_bytes()[:3000] if damage == "cut" else b"")
    with pytest.raises(
        DataError, match=r"recorded returns of test/good-v0 cannot be read .*: `offsim data check test/"
    ):
        warn_of_worse_expert("test/bad-v0", ["test/good-v0"])


@pytest.mark.usefixtures("record")
def test_returns_of_several_sets_are_those_of_all_their_episodes() -> None:
    assert recorded_returns("test/good-v0")["returns"] == [6.0]
    assert recorded_returns(["test/good-v0", "test/bad-v0"])["returns"] == [6.0, 3.0]
