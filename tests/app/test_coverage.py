"""Distances from the data and uncertainty relative to the data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from app.coverage import Coverage
from zoo import Simulator
from zoo.uncertainty import MEASURES


def table(rows: int, seed: int, episodes: int = 4) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(rows, 11, generator=generator)
    return TensorDict(
        {
            "observation": observation,
            "action": torch.randn(rows, 3, generator=generator),
            "next": TensorDict({"observation": observation + 0.1}, batch_size=[rows]),
            "episode": torch.arange(rows) * episodes // rows,
        },
        batch_size=[rows],
    )


def data(**changes: Any) -> Any:
    tables = {
        "expert_train": table(50, 0),
        "diverse_train": table(300, 1),
        "expert_held_out": None,
        "diverse_held_out": table(40, 2),
        "release": lambda: None,
    }
    return SimpleNamespace(**(tables | changes))


def test_recorded_rows_are_at_no_distance_and_held_out_ones_at_one(simulator: Simulator) -> None:
    given = data()
    coverage = Coverage(simulator, given)
    assert coverage.distance(given.expert_train) == pytest.approx(0.0, abs=1e-2)
    assert coverage.distance(given.diverse_held_out) == pytest.approx(1.0)


def test_distance_is_measured_in_standard_deviations(simulator: Simulator) -> None:
    simulator.transition.observation_normalizer.set_statistics(torch.zeros(11), torch.full((11,), 5.0))
    simulator.transition.action_normalizer.set_statistics(torch.zeros(3), torch.full((3,), 2.0))
    single = table(1, 0)
    shifted = single.clone()
    shifted["observation"][:, 0] += 15.0  # three deviations
    shifted["action"][:, 0] += 8.0  # four
    held_out = single.clone()
    held_out["observation"][:, 5] += 5.0
    coverage = Coverage(simulator, data(expert_train=single, diverse_train=None, diverse_held_out=held_out))
    assert coverage.held_out_distance == pytest.approx(1.0, rel=1e-4)
    assert coverage.distance(shifted) == pytest.approx(5.0, rel=1e-4)


def test_without_held_out_rows_episodes_are_compared_with_one_another(simulator: Simulator) -> None:
    rows = table(2, 0, episodes=2)
    rows["action"] = torch.zeros(2, 3)
    rows["observation"] = torch.zeros(2, 11)
    rows["observation"][1, 0] = 3.0
    twice = torch.cat([rows[:1], rows[:1], rows[1:], rows[1:]])  # neighbours of the same episode do not count
    coverage = Coverage(simulator, data(expert_train=twice, diverse_train=None, diverse_held_out=None))
    assert coverage.held_out_distance == pytest.approx(3.0)
    alone = Coverage(simulator, data(expert_train=rows[:1], diverse_train=None, diverse_held_out=None))
    assert alone.held_out_distance is None and alone.distance(rows) is None


def test_uncertainties_are_in_units_of_their_median_on_the_data(simulator: Simulator) -> None:
    coverage = Coverage(simulator, data())
    rows = table(30, 5)
    means, log_variances = simulator.transition(rows["observation"], rows["action"])
    found = coverage.uncertainty(rows)
    assert set(found) == set(MEASURES)
    for name, measure in MEASURES.items():
        mean = float(measure(means, (0.5 * log_variances).exp()).mean())
        assert found[name] * coverage.uncertainty_units[name] == pytest.approx(mean, rel=1e-4)
    far = rows.clone()
    far["observation"] += 100.0
    assert coverage.uncertainty(far)["disagreement"] > 5.0 * found["disagreement"]
