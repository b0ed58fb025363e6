"""How an observation says which state a MuJoCo model is in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Placement:
    """Observations of positions, less the first few, and then velocities: those of most of MuJoCo's tasks.

    Attributes:
        positions: how many the model has.
        hidden: how many of the first are left out: where in the world the body is.
        velocity_limit: observed velocities are cut off at this size.
    """

    positions: int
    hidden: int
    velocity_limit: float = math.inf

    def state(self, observation: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions and velocities of an observation ``(D,)``, with 0 for what it leaves out."""
        seen = self.positions - self.hidden
        values = np.asarray(observation, dtype=np.float64)
        return np.concatenate([np.zeros(self.hidden), values[:seen]]), values[seen:].copy()

    def complete(self, observations: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of the observations ``(N, D)`` say what velocities there are, and not only that they are large."""
        velocities = observations[:, self.positions - self.hidden :]
        return np.asarray((np.abs(velocities) < self.velocity_limit).all(axis=1))


class ReacherPlacement(Placement):
    """Reacher observes its two joints as cosines and sines, and where the target is, which does not move."""

    def __init__(self) -> None:
        super().__init__(positions=4, hidden=0)

    def state(self, observation: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values = np.asarray(observation, dtype=np.float64)
        angles, target = np.arctan2(values[2:4], values[:2]), values[4:6]
        return np.concatenate([angles, target]), np.concatenate([values[6:8], np.zeros(2)])
