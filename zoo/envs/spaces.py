"""The spaces of a Simulator: those of the real task, so that a policy can change between the two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from gymnasium.spaces import Box

from zoo.envs.names import exogenous_names, observation_names
from zoo.simulator import Simulator

if TYPE_CHECKING:
    from zoo.envs.episodes import Episodes

Space: TypeAlias = "Box[Any]"  # generic in newer Gymnasium alone


def observation_space(simulator: Simulator) -> Space:
    """Any observation of the right size; of the type of MuJoCo's, where the task is one of those."""
    return Box(-np.inf, np.inf, (simulator.observation_size,), np.float32 if simulator.task is None else np.float64)


def action_space(simulator: Simulator) -> Space:
    """The bounds of the real system's actions."""
    low, high = (np.array(bound, dtype=np.float32) for bound in (simulator.action_low, simulator.action_high))
    return Box(low, high, dtype=np.float32)


class Named:
    """An environment whose features have names."""

    episodes: Episodes

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Of the features of an observation, as the task or the data has them; none if they are not known."""
        return observation_names(self.episodes.simulator)

    @property
    def exogenous_names(self) -> tuple[str, ...]:
        """Of the features that are set from outside, in the order of ``reset(options={"exogenous": ...})``."""
        return exogenous_names(self.episodes.simulator)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Of those of an action, likewise."""
        return self.episodes.simulator.action_names
