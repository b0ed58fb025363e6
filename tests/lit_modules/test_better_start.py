"""Policies and demonstrations judged by what they earn in the Simulator."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_modules.better_start import judge_demonstrations, judge_start
from lit_modules.simulator_returns import simulator_returns
from zoo import Policy, Simulator
from zoo.termination import TerminationModel


class EndsBeyond(TerminationModel):
    """Terminal where a point has left its line."""

    def forward(self, next_observation: torch.Tensor) -> torch.Tensor:
        return next_observation[..., 0].abs() > 1.2


def ending_simulator(steering: Any, constant: float, end_reward: float | None = None) -> Simulator:
    """The point's Simulator, in which episodes end, with a constant added to the reward."""
    simulator = Simulator.load(steering.path)
    simulator.termination, simulator.end_reward = EndsBeyond(), end_reward
    simulator.reward.offset.sub_(constant)
    simulator.reward.low.add_(constant), simulator.reward.high.add_(constant)
    return simulator


def always(action: float) -> Policy:
    policy = Policy(1, [-1.0], [1.0], (2,)).eval()
    for parameter in policy.network.parameters():
        parameter.data.zero_()
    policy.network[-1].bias.data[0] = action
    return policy


@pytest.mark.parametrize("constant", [-3.0, 3.0])
def test_a_constant_in_the_reward_changes_no_judgement(steering: Any, constant: float) -> None:
    demonstrations = steering.episode(50)
    for policy in (always(0.0), always(9.0)):
        judged = judge_start(ending_simulator(steering, 0.0), policy, "it", 20)
        moved = judge_start(ending_simulator(steering, constant), policy, "it", 20)
        assert moved == pytest.approx(judged, rel=1e-4)
    shown = judge_demonstrations(ending_simulator(steering, 0.0), demonstrations)
    assert judge_demonstrations(ending_simulator(steering, constant), demonstrations) == pytest.approx(shown, rel=1e-4)


def test_where_every_step_pays_the_same_nothing_is_earned(steering: Any) -> None:
    """So that rounding decides nothing."""
    simulator = ending_simulator(steering, 0.0)
    for bound in (simulator.reward.low, simulator.reward.high):
        bound.fill_(13.4871)
    assert judge_start(simulator, always(0.1), "it", 20)["it_return"] == 0.0
    assert judge_demonstrations(simulator, steering.episode(50)) == 0.0


def test_lasting_earns_more_than_ending_whatever_ending_was_subtracted(steering: Any) -> None:
    """Counted from another zero, a policy that ends soon would be the better one."""
    simulator = ending_simulator(steering, -3.0)
    returns = simulator_returns(simulator, [always(0.0), always(9.0)], 20, 100, torch.Generator().manual_seed(0))
    lasting, ending = returns
    assert ending["length"] < 10.0 < lasting["length"] == 100.0
    assert lasting["return"] < ending["return"] < 0.0 < ending["earned"] < lasting["earned"]
    assert lasting["earned"] == pytest.approx(lasting["return"] + 4.0 * 100, rel=1e-5)  # the lower bound is -4


def test_what_ending_is_worth_may_be_another_reward_than_the_lowest(steering: Any) -> None:
    simulator = ending_simulator(steering, 0.0, end_reward=0.25)
    (figures,) = simulator_returns(simulator, [always(0.0)], 20, 100, torch.Generator().manual_seed(0))
    assert figures["earned"] == pytest.approx(figures["return"] - 25.0, rel=1e-4)
