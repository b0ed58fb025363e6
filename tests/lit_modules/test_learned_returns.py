"""What recorded rows lead to in learned reward, against values computed by hand, and what they weigh for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.learned_returns import learned_returns, return_weights
from zoo import Simulator


def recorded(reached: list[float], episode: list[int], step: list[int], terminated: list[bool]) -> TensorDict:
    """Rows that reach states whose reward is ``1 - |s'|``."""
    count = len(reached)
    following = torch.tensor(reached).unsqueeze(1)
    return TensorDict(
        {
            "observation": torch.zeros(count, 1),
            "action": torch.zeros(count, 1),
            "episode": torch.tensor(episode),
            "step": torch.tensor(step),
            "next": {"observation": following, "terminated": torch.tensor(terminated).unsqueeze(1)},
        },
        batch_size=[count],
    )


@pytest.fixture
def simulator(steering: Any) -> Simulator:
    return Simulator.load(steering.path)  # whose end is worth -1 a step


def test_returns_are_discounted_means_of_what_follows(simulator: Simulator) -> None:
    table = recorded([0.0, 0.5, 1.0, 0.0, 1.0], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [False, False, True, False, False])
    died = [0.5 * 0.0 + 0.5 * -1.0]  # at the third row, which pays 0
    died = [0.5 * 0.5 + 0.5 * died[0], *died]
    died = [0.5 * 1.0 + 0.5 * died[0], *died]
    cut = [0.5 * 0.0 + 0.5 * 0.5]  # goes on at the average of its two rows
    cut = [0.5 * 1.0 + 0.5 * cut[0], *cut]
    assert learned_returns(simulator, table, 0.5).tolist() == pytest.approx([*died, *cut])


def test_with_a_discount_of_zero_they_are_the_reward(simulator: Simulator) -> None:
    table = recorded([0.0, 0.25, 1.0], [0, 0, 0], [0, 1, 2], [False, False, True])
    assert learned_returns(simulator, table, 0.0).tolist() == pytest.approx([1.0, 0.75, 0.0])


def test_rows_that_were_left_out_end_a_piece(simulator: Simulator) -> None:
    whole = recorded([0.0, 0.5], [0, 0], [0, 1], [False, False])
    gap = recorded([0.0, 0.5], [0, 0], [0, 2], [False, False])
    assert learned_returns(simulator, whole, 0.5).tolist() == pytest.approx([0.5 + 0.5 * 0.625, 0.25 + 0.5 * 0.75])
    assert learned_returns(simulator, gap, 0.5).tolist() == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e4])
def test_a_share_of_the_rows_counts_effectively_whatever_the_unit(share: float, unit: float) -> None:
    returns = unit * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    weights = return_weights(returns, share)
    assert float(weights.sum() ** 2 / weights.square().sum()) == pytest.approx(share * 5000, rel=1e-3)
    assert float(weights.max()) == 1.0
    order = returns.argsort()
    assert bool((weights[order].diff() >= 0.0).all())


def test_rows_that_lead_to_the_same_weigh_the_same() -> None:
    assert return_weights(torch.full((7,), 3.0), 0.1).tolist() == [1.0] * 7
    assert return_weights(torch.tensor([0.0, 1.0]), 1.0).tolist() == [1.0, 1.0]


def test_more_rows_than_the_share_that_lead_to_the_most_share_the_weight() -> None:
    weights = return_weights(torch.tensor([0.0] * 5 + [1.0] * 5), 0.1)
    assert weights[5:].tolist() == [1.0] * 5 and float(weights[:5].max()) < 1e-6
