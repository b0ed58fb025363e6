"""What the transition model learns from its own forecasts of several steps, besides single steps."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from tensordict import TensorDict
from torch import Tensor

from lit_modules.proposals import RecordedActions
from lit_modules.rows import bootstrap_weights, take
from zoo.transition import TransitionModel


class RecordedSteps(RecordedActions):
    """Looks up what was done, and seen, after a row in its episode, as far as each state is the one reached before."""

    def __init__(self, tables: list[TensorDict], device: torch.device | str = "cpu") -> None:
        super().__init__(tables, device, unbroken=True)
        self.next_observations = [table["next", "observation"].to(device) for table in tables]

    def after(self, row: Tensor, steps: int) -> dict[str, Tensor]:
        """The steps that come after those of rows, for the members that read these.

        Args:
            row: global row ids, ``(E, B)``, the block of member ``e`` in row ``e``.
            steps: S, how many.

        Returns:
            ``later_action`` ``(S, E, B, A)`` and ``later_observation``, which it led to, ``(S, E, B, D)``, any where
            the episode was over; ``later_weight``, how often the step occurs in the member's own bootstrap sample,
            0 where the episode was over, ``(S, E, B)``.
        """
        rows, running = self.rows_after(row, steps + 1)
        rows, running = rows[1:], running[1:]
        return {
            "later_action": take(self.actions, rows).to(row.device),
            "later_observation": take(self.next_observations, rows).to(row.device),
            "later_weight": (bootstrap_weights(rows, len(row)) * running).to(row.device),
        }


def forecast_loss(model: TransitionModel, forecast: Tensor, later: dict[str, Tensor]) -> Tensor:
    """Mean Huber loss of forecasts along recorded actions, each member's from its own mean predictions.

    Differentiated through all steps, so that a member learns what its errors grow to. The unit is the deviation of
    a step's change; beyond one the loss is linear, as errors of unstable systems grow without bound.

    Args:
        model: E members.
        forecast: their means of the state that the first action leads to, ``(E, B, D)``.
        later: what :meth:`RecordedSteps.after` returned for ``(E, B)`` rows.

    Returns:
        A scalar; 0 if no step counts.
    """
    total, count = forecast.new_zeros(()), forecast.new_zeros(())
    columns = (later["later_action"], later["later_observation"], later["later_weight"])
    for action, observation, weight in zip(*columns, strict=True):
        mean, _ = model(forecast, action)
        forecast = model.next_observation(forecast, mean, exogenous=model.exogenous_of(observation))
        error = (forecast - observation) / model.delta_normalizer.std
        loss = functional.huber_loss(error, torch.zeros_like(error), reduction="none").mean(dim=-1)
        total, count = total + (weight * loss).sum(), count + weight.sum()
    return total / count.clamp_min(1.0)
