"""How an observation says which state a MuJoCo model is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Placement:
    """Observations of positions, less the first few, and then velocities: those of most of MuJoCo's tasks.

    Attributes:
        positions: how many the model has.
        hidden: how many of the first are left out: where in the world the body is.
    """

    positions: int
    hidden: int

    def state(self, observation: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions and velocities of an observation ``(D,)``, with 0 for what it leaves out."""
        seen = self.positions - self.hidden
        values = np.asarray(observation, dtype=np.float64)
        return np.concatenate([np.zeros(self.hidden), values[:seen]]), values[seen:].copy()
