"""True rewards are found for the right rows, and only compared with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import minari
import pytest
import torch

from app.recorded_rewards import recorded_rewards, reward_rank_correlation
from datamodules import TransitionDataModule
from datamodules.sources import resolve

IDS = ("tiny/hopper/expert-v0", "tiny/hopper/other-v0")


@pytest.fixture
def data(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> TransitionDataModule:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))
    module = TransitionDataModule(IDS[0], 3, [IDS[1]], seed=1, expert_keep_every=2)
    module.setup()
    return module


def test_every_row_gets_the_reward_that_was_recorded_with_it(data: TransitionDataModule) -> None:
    recorded = {}
    for name in IDS:
        for episode in minari.MinariDataset(resolve(name).folder).iterate_episodes():
            for observation, reward in zip(episode.observations, episode.rewards, strict=False):
                recorded[observation.astype("float32").tobytes()] = float(reward)
    for table in (data.expert_train, data.expert_held_out, data.diverse_train, data.diverse_held_out):
        assert table is not None and len(table) > 5
        expected = [recorded[row.numpy().tobytes()] for row in table["observation"]]
        assert recorded_rewards(data, table).tolist() == expected


def test_rank_correlation_of_rewards(data: TransitionDataModule) -> None:
    def learned(direction: float) -> Any:
        """A reward that is a monotone function of the true one, or constant."""
        tables = [table for table in (data.expert_held_out, data.diverse_held_out) if table is not None]
        known = {len(table): torch.as_tensor(recorded_rewards(data, table)) for table in tables}
        return SimpleNamespace(
            features=lambda observation, action, following: observation,
            raw=lambda features: direction * known[len(features)].exp(),
        )

    assert reward_rank_correlation(learned(2.0), data) == pytest.approx({"expert": 1.0, "diverse": 1.0})
    assert reward_rank_correlation(learned(-1.0), data) == pytest.approx({"expert": -1.0, "diverse": -1.0})
    assert reward_rank_correlation(learned(0.0), data) == {"expert": None, "diverse": None}
    data.diverse_held_out = None
    assert reward_rank_correlation(learned(1.0), data)["diverse"] is None
