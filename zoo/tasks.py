"""The facts of the real systems this project knows: one :class:`Task` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import torch
from torch import Tensor

TerminationRule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """What is known about a real system apart from any data.

    Attributes:
        name: short name used on the command line and in ids.
        environment_id: Gymnasium id of the real task.
        observation_names: names of the features with their units, for figures.
        environment_kwargs: arguments of ``gymnasium.make``.
        random_return: mean return of uniformly random actions.
        expert_return: mean return of a reference expert.
        returns_source: where the two returns come from.
        horizon: steps after which an episode is truncated.
        observation_size: number of observation features.
        action_size: number of action dimensions.
        termination: rule ``(B, observation) -> (B,) bool`` if one is known, else ``None``.
    """

    name: str
    environment_id: str
    random_return: float
    expert_return: float
    returns_source: str
    horizon: int
    observation_size: int
    action_size: int
    termination: TerminationRule | None = None
    observation_names: tuple[str, ...] = ()
    environment_kwargs: dict[str, Any] = field(default_factory=dict)

    def make(self, **kwargs: Any) -> gymnasium.Env:
        """The real environment. For evaluation and for collecting data; nothing that learns offline calls this."""
        return gymnasium.make(self.environment_id, **{**self.environment_kwargs, **kwargs})

    def normalized_return(self, value: float) -> float:
        """Return on a scale where random actions score 0 and the reference expert 100."""
        return 100.0 * (value - self.random_return) / (self.expert_return - self.random_return)


def hopper_terminated(observation: Tensor) -> Tensor:
    """Hopper-v5's rule: finite, torso above 0.7 m, tilt below 0.2 rad, everything else within +-100."""
    height, angle = observation[..., 0], observation[..., 1]
    within = (observation[..., 1:].abs() < 100.0).all(dim=-1)
    healthy = torch.isfinite(observation).all(dim=-1) & within & (height > 0.7) & (angle.abs() < 0.2)
    return ~healthy


TASKS: dict[str, Task] = {
    task.name: task
    for task in [
        Task(
            name="hopper",
            environment_id="Hopper-v5",
            random_return=17.6,
            expert_return=3727.0,
            returns_source="random: 100 episodes of uniform actions; expert: 20 episodes of a published policy",
            horizon=1000,
            observation_size=11,
            action_size=3,
            termination=hopper_terminated,
            observation_names=(
                "height (m)",
                "torso angle (rad)",
                "thigh angle (rad)",
                "leg angle (rad)",
                "foot angle (rad)",
                "forward velocity (m/s)",
                "vertical velocity (m/s)",
                "torso velocity (rad/s)",
                "thigh velocity (rad/s)",
                "leg velocity (rad/s)",
                "foot velocity (rad/s)",
            ),
        ),
    ]
}


def get_task(name: str) -> Task:
    """Look a task up by its short name.

    Raises:
        KeyError: naming the tasks that exist.
    """
    if name not in TASKS:
        raise KeyError(f"unknown task {name!r}: known tasks are {', '.join(sorted(TASKS))}")
    return TASKS[name]
