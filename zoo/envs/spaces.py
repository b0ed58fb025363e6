"""The spaces of a Simulator: those of the real task, so that a policy can change between the two."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Box

from zoo.simulator import Simulator

Space: TypeAlias = "Box[Any]"  # generic in newer Gymnasium alone


def observation_space(simulator: Simulator) -> Space:
    """Any observation of the right size; of the type of MuJoCo's, where the task is one of those."""
    return Box(-np.inf, np.inf, (simulator.observation_size,), np.float32 if simulator.task is None else np.float64)


def action_space(simulator: Simulator) -> Space:
    """The bounds of the real system's actions."""
    low, high = (np.array(bound, dtype=np.float32) for bound in (simulator.action_low, simulator.action_high))
    return Box(low, high, dtype=np.float32)
