"""The spaces of a Simulator: those of the real task, so that a policy can change between the two."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Box

from zoo.simulator import Simulator
from zoo.tasks import TASKS

Space: TypeAlias = "Box[Any]"  # generic in newer Gymnasium alone


def observation_space(simulator: Simulator) -> Space:
    """Any observation of the right size; of the type of MuJoCo's, where the task is one of those."""
    return Box(-np.inf, np.inf, (simulator.observation_size,), np.float32 if simulator.task is None else np.float64)


def action_space(simulator: Simulator) -> Space:
    """The bounds of the real system's actions."""
    low, high = (np.array(bound, dtype=np.float32) for bound in (simulator.action_low, simulator.action_high))
    return Box(low, high, dtype=np.float32)


def observation_names(simulator: Simulator) -> tuple[str, ...]:
    """Names of the features of an observation, as the task or the data has them; none if they are not known."""
    if simulator.observation_names or simulator.task not in TASKS:
        return simulator.observation_names
    return TASKS[simulator.task].observation_names
