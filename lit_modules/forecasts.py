"""What the transition model learns from its own forecasts of several steps, besides single steps."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from tensordict import TensorDict
from torch import Tensor

from lit_modules.proposals import RecordedActions
from lit_modules.rows import take
from zoo.transition import TransitionModel


class RecordedSteps(RecordedActions):
    """Looks up what was done, and seen, after a row in its episode."""

    def __init__(self, tables: list[TensorDict], device: torch.device | str = "cpu") -> None:
        super().__init__(tables, device)
        self.next_observations = [table["next", "observation"].to(device) for table in tables]

    def after(self, row: Tensor, steps: int) -> dict[str, Tensor]:
        """The ``steps`` steps after the one of each row.

        Args:
            row: global row ids, ``(...)``.
            steps: K.

        Returns:
            ``later_action`` ``(K, ..., A)`` and ``later_observation``, which followed it, ``(K, ..., D)``, any where
            the episode was over; ``running``, whether it was not, ``(K, ...)``, as numbers.
        """
        rows, running = self.rows_after(row, steps + 1)
        rows = rows[1:]
        return {
            "later_action": take(self.actions, rows).to(row.device),
            "later_observation": take(self.next_observations, rows).to(row.device),
            "running": running[1:].to(row.device).float(),
        }


def forecast_loss(model: TransitionModel, forecast: Tensor, later: dict[str, Tensor], weight: Tensor) -> Tensor:
    """Huber loss of forecasts along recorded actions, each member's from its own mean predictions.

    Differentiated through all steps, so that a member learns what its errors grow to. The unit is the deviation of
    a step's change; beyond one the loss is linear, as errors of unstable systems grow without bound.

    Args:
        model: E members.
        forecast: their means of the state that the first action leads to, ``(E, B, D)``.
        later: what :meth:`RecordedSteps.after` returned for ``(E, B)`` rows.
        weight: how much each row counts for the member that reads it, ``(E, B)``.
    """
    total, count = forecast.new_zeros(()), forecast.new_zeros(())
    for action, observation, running in zip(
        later["later_action"], later["later_observation"], later["running"], strict=True
    ):
        mean, _ = model(forecast, action)
        forecast = model.next_observation(forecast, mean)
        error = (forecast - observation) / model.delta_normalizer.std
        counts = weight * running
        total = (
            total + (counts * functional.huber_loss(error, torch.zeros_like(error), reduction="none").mean(-1)).sum()
        )
        count = count + counts.sum()
    return total / count.clamp_min(1.0)
