"""Learners of other projects train in a Simulator as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import clients
from zoo import Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import RuleTermination
from zoo.transition import TransitionModel


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A Simulator of Hopper with random weights."""
    torch.manual_seed(0)
    transition = TransitionModel(11, 3, members=2, hidden_sizes=(8,), log_variance_max=-3.0)
    transition.delta_normalizer.std.fill_(0.1)
    parts = (transition, RewardModel(11, 3, (8,)), RuleTermination("hopper"))
    starts = StartStates.of(torch.tensor([[1.25] + [0.0] * 10]))
    shown = StartStates.of(torch.tensor([[1.25] + [0.1] * 10]), "demonstrations")
    built = Simulator(*parts, starts, [-1.0] * 3, [1.0] * 3, task="hopper", demonstrated_states=shown)
    built.save(tmp_path / "simulator.safetensors")
    return str(tmp_path)


@pytest.mark.parametrize("client", list(clients.CLIENTS))
def test_a_client_trains_in_a_simulator_and_acts_in_the_real_task(path: str, client: str, tmp_path: Path) -> None:
    options = {"penalty": 0.1, "fading": 0.1, "demonstrated_starts": 0.5, "pushes": 0.1, "aggregation": "fixed_member"}
    found = clients.measure(path, client, steps=150, seed=0, episodes=2, out=tmp_path / "found.json", **options)
    assert found["task"] == "hopper" and len(found["real_returns"]) == 2
    assert np.isfinite(found["real_mean"]) and np.isfinite(found["simulator_mean"])
    assert 1 <= found["simulator_length"] <= 1000
    assert (tmp_path / "found.zip").exists() == client.startswith("sb3")
