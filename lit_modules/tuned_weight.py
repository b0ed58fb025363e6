"""Weights of a loss or a reward that are either given or tuned along the way, factor by factor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TUNED = "tuned"


@dataclass(frozen=True)
class Tuning:
    """Where a tuned weight starts and between which sizes it stays."""

    start: float
    low: float
    high: float

    def initial(self, given: float | str) -> Tensor:
        """The weight at the start of training, a scalar, for a number or ``tuned``."""
        return torch.tensor(self.start if given == TUNED else float(given))

    def follow(self, weight: Tensor, step: Tensor) -> None:
        """Change a weight in place by the factor ``exp(step)``."""
        weight.mul_(step.exp()).clamp_(self.low, self.high)
