"""Simulators of random weights that move, doubt and end episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zoo import Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import RuleTermination, TerminationModel
from zoo.transition import TransitionModel

Make = Callable[..., Simulator]


@pytest.fixture
def make() -> Make:
    """A Hopper of random weights that falls after some steps; settings are those of a Simulator."""

    def build(**settings: object) -> Simulator:
        torch.manual_seed(0)
        transition = TransitionModel(11, 3, members=4, hidden_sizes=(16, 16), log_variance_max=-1.0)
        transition.delta_normalizer.std.fill_(0.1)
        starts = StartStates.of(torch.tensor([[1.25] + [0.0] * 10]) + 0.01 * torch.randn(8, 11))
        known = settings.get("task", "hopper") == "hopper"
        ends = RuleTermination("hopper") if known else TerminationModel()
        given = {"task": "hopper", **settings}
        built = Simulator(transition, RewardModel(11, 3, (8,)), ends, starts, [-1.0] * 3, [1.0] * 3, **given)
        built.calibrate_uncertainty(starts.observations, torch.zeros(8, 3))
        return built.eval().requires_grad_(False)

    return build


@pytest.fixture
def path(make: Make, tmp_path: Path) -> Path:
    """The file of such a Simulator."""
    make().save(tmp_path / "simulator.safetensors")
    return tmp_path / "simulator.safetensors"
