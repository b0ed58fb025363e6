"""Forecasts of several steps against values computed by hand."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from lit_modules.forecasts import RecordedSteps, forecast_loss
from lit_modules.proposals import RecordedActions
from lit_modules.rows import bootstrap_weights
from zoo.transition import TransitionModel


def table(*lengths: int) -> TensorDict:
    """Episodes on a line, in which row ``n`` starts at ``n``, acts ``n`` and leads to ``n + 1``."""
    count = sum(lengths)
    row = torch.arange(count).float().unsqueeze(-1)
    return TensorDict(
        {
            "observation": row,
            "action": row,
            "next": {"observation": row + 1.0},
            "episode": torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)]),
            "step": torch.cat([torch.arange(length) for length in lengths]),
        },
        batch_size=[count],
    )


def linear(*gains: float) -> TransitionModel:
    """Members that add ``gain * (observation + action)``."""
    model = TransitionModel(1, 1, members=len(gains), hidden_sizes=())
    with torch.no_grad():
        layer = model.network.layers[0]
        layer.weight.zero_()  # type: ignore[operator, union-attr]
        layer.bias.zero_()  # type: ignore[operator, union-attr]
        for member, gain in enumerate(gains):
            layer.weight[member, :, 0] = gain  # type: ignore[index, union-attr]
    return model


def test_steps_after_a_row_end_with_its_episode() -> None:
    steps = RecordedSteps([table(4, 2), table(3)])
    rows = torch.tensor([[0, 2], [4, 6]])
    later = steps.after(rows, 2)
    assert later["later_action"].shape == later["later_observation"].shape == (2, 2, 2, 1)
    assert later["later_action"][0].flatten().tolist() == [1.0, 3.0, 5.0, 1.0]
    assert later["later_observation"][1, 0, 0].tolist() == [3.0]
    assert later["later_observation"][1, 1, 1].tolist() == [3.0]  # of row 2 of the second table
    running = torch.tensor([[[True, True], [True, True]], [[True, False], [False, True]]])
    after = rows + torch.tensor([1, 2]).view(2, 1, 1)
    # Each member learns from the steps of its own bootstrap sample alone, as it does from single steps
    assert torch.equal(later["later_weight"], torch.where(running, bootstrap_weights(after, 2), 0.0))


def test_steps_from_another_state_than_was_reached_are_not_followed() -> None:
    broken = table(5)
    broken["observation"][2] = 7.0  # as where a row was turned into noise
    _, running = RecordedSteps([broken]).rows_after(torch.arange(5), 3)
    assert running.tolist() == [[True] * 5, [True, False, True, True, False], [False, False, True, False, False]]
    _, running = RecordedActions([broken]).rows_after(torch.arange(5), 3)
    assert running[1].tolist() == [True] * 4 + [False]


def test_the_loss_is_that_of_each_members_own_path() -> None:
    model = linear(0.5, 1.0)
    first = torch.tensor([[[1.0]], [[2.0]]])  # where the first action has led each member
    later = {
        "later_action": torch.tensor([[[[1.0]], [[1.0]]], [[[0.0]], [[0.0]]]]),
        "later_observation": torch.tensor([[[[2.5]], [[5.5]]], [[[3.0]], [[9.0]]]]),
        "later_weight": torch.tensor([[[1.0], [1.0]], [[1.0], [0.0]]]),
    }
    # First member: 1 -> 1 + 0.5 (1 + 1) = 2 -> 3, second: 2 -> 2 + 1 (2 + 1) = 5 -> 10, whose episode is over by then
    wanted = 0.5 * (2.0 - 2.5) ** 2 + 0.5 * (5.0 - 5.5) ** 2 + 0.5 * (3.0 - 3.0) ** 2
    loss = forecast_loss(model, first, later)
    assert loss.item() == pytest.approx(wanted / 3)
    later["later_weight"] *= torch.tensor([[0.0], [2.0]])
    assert forecast_loss(model, first, later).item() == pytest.approx(0.5 * (5.0 - 5.5) ** 2)


def test_beyond_a_deviation_the_loss_is_linear_and_its_unit_that_of_a_change() -> None:
    model = linear(0.0)
    later = {
        "later_action": torch.zeros(1, 1, 1, 1),
        "later_observation": torch.full((1, 1, 1, 1), 3.0),
        "later_weight": torch.ones(1, 1, 1),
    }
    assert forecast_loss(model, torch.zeros(1, 1, 1), later).item() == pytest.approx(3.0 - 0.5)
    model.delta_normalizer.set_statistics(torch.zeros(1), torch.full((1,), 6.0))
    assert forecast_loss(model, torch.zeros(1, 1, 1), later).item() == pytest.approx(0.5 * 0.5**2)


def test_gradients_reach_through_all_steps() -> None:
    model = linear(0.5)
    first = torch.ones(1, 1, 1, requires_grad=True)
    later = {
        "later_action": torch.zeros(2, 1, 1, 1),
        "later_observation": torch.tensor([1.5, 2.0]).view(2, 1, 1, 1),
        "later_weight": torch.tensor([0.0, 1.0]).view(2, 1, 1),
    }
    forecast_loss(model, first, later).backward()
    # 1 -> 1.5 -> 2.25, whose error of 0.25 goes back through two steps of slope 1.5
    assert first.grad is not None and float(first.grad) == pytest.approx(0.25 * 1.5**2)


def test_nothing_after_the_last_rows_is_no_loss() -> None:
    later = RecordedSteps([table(1)]).after(torch.zeros(1, 1, dtype=torch.long), 2)
    loss = forecast_loss(linear(0.5), torch.zeros(1, 1, 1), later)
    assert loss.item() == 0.0
