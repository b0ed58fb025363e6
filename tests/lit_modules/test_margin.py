"""The margin of OffSim+: fixed, per data set, adaptive."""

from __future__ import annotations

import pytest
import torch

from lit_modules.margin import adaptive_margins, margin_loss, reward_spread, source_margins
from lit_modules.offsim import OffSim


def test_margin_loss_by_hand() -> None:
    loss = margin_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0]), torch.tensor([2.0, 1.0]))
    assert float(loss) == pytest.approx((1.5 + 0.0) / 2)


def test_spread_does_not_count_the_gap_between_expert_and_roll_outs() -> None:
    expert, rollout = torch.tensor([0.0, 2.0], requires_grad=True), torch.tensor([0.0, 4.0])
    spread = reward_spread(expert, rollout)
    assert float(spread) == pytest.approx(((2.0 + 8.0) / 2) ** 0.5)
    torch.testing.assert_close(reward_spread(expert + 100.0, rollout), spread)
    assert not spread.requires_grad  # or the loss would shrink the spread instead of keeping the margin


def test_every_data_set_has_its_margin() -> None:
    source = torch.tensor([0, 1, 1, 0])
    assert source_margins(0.5, source).tolist() == [0.5] * 4
    assert source_margins([0.25, 2.0], source).tolist() == [0.25, 2.0, 2.0, 0.25]
    with pytest.raises(ValueError, match="3 values for 2 diverse data sets"):
        source_margins([1.0, 2.0, 3.0], source)


def test_adaptive_margin_is_the_slope_times_the_distance_beyond_the_usual_one() -> None:
    # Two demonstrations on a line, 1 apart from each other; neighbours in time do not count as near
    steps = torch.arange(3).repeat(2)
    episode = torch.tensor([0, 0, 0, 1, 1, 1])
    expert = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
    diverse = torch.tensor([[0.0, 0.0], [0.0, -0.5], [0.0, -3.0], [5.2, 1.0]])
    margins, usual = adaptive_margins(expert, episode, steps, diverse, slope=2.0)
    assert usual == pytest.approx(1.0)
    assert margins.tolist() == pytest.approx([0.0, 0.0, 2.0 * (3.0 - 1.0), 2.0 * (5.0 - 1.0)], abs=1e-4)


def test_a_reward_of_that_slope_keeps_the_adaptive_margin() -> None:
    torch.manual_seed(0)
    expert, diverse = torch.randn(40, 3), 2.0 + torch.randn(60, 3)
    margins, _ = adaptive_margins(expert, torch.arange(40), torch.zeros(40), diverse, slope=1.0)
    reward = -torch.cdist(diverse, expert).amin(dim=1)
    pairs = margins - (torch.zeros(40, 1) - reward)
    assert float(pairs.max()) <= 0.0 and float(margins.min()) >= 0.0


def test_single_demonstration_shorter_than_a_stride_subtracts_nothing() -> None:
    expert = torch.arange(4.0).unsqueeze(-1)
    margins, usual = adaptive_margins(expert, torch.zeros(4), torch.arange(4), torch.tensor([[-2.0]]), slope=1.0)
    assert usual == 0.0 and margins.tolist() == [2.0]


def test_unknown_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown margin 'wide'"):
        OffSim(3, [-1.0], [1.0], termination="none", proposal={"dataset": 1.0}, margin="wide")
