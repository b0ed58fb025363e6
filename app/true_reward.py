"""The tasks' own rewards, computed from what an observation shows: for controls and their evaluation, nothing else.

No method may see what is in here. It lies in ``app``, which methods, data modules and the zoo cannot import; within
``app`` only the modules of ``offsim diagnose`` do, and a test keeps it so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from app.errors import UserError
from app.rollouts import concatenate
from zoo.tasks import Task, TerminationRule, get_task


@dataclass(frozen=True)
class Formula:
    """Forward speed, plus a bonus for staying healthy, less effort; in the environment's own unit, per step.

    The environment takes the speed from the hidden position ``x``, over a step of several sub-steps; observed are the
    speeds before and after it.

    Attributes:
        velocity: feature that holds the forward speed, in m/s.
        later: weight of the speed after the step; that of the one before is ``1 - later``.
        control_cost: weight of the squared action.
        healthy: bonus in states that do not end an episode.
    """

    velocity: int
    later: float
    control_cost: float
    healthy: float

    def __call__(self, rule: TerminationRule | None, observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Reward ``(...)`` of transitions ``(..., D), (..., A), (..., D)``."""
        before, after = observation[..., self.velocity], following[..., self.velocity]
        speed = (1.0 - self.later) * before + self.later * after
        reward = speed - self.control_cost * action.square().sum(dim=-1)
        if self.healthy and rule is not None:
            reward = reward + self.healthy * (~rule(following)).to(reward.dtype)
        return reward


# Gymnasium 1.x, environments v5 with the arguments of zoo.tasks. Root mean squared errors per step were measured on
# the recorded rewards of an expert and of mixed data (100,000 steps): hopper 0.010 and 0.005, walker2d 0.020 and
# 0.014, ant 0.099 and 0.061, halfcheetah 0.30 and 0.14; mean errors are below 0.1, 0.01, 0.2 and 0.5% of the
# expert's reward. A semi-implicit Euler integrator moves HalfCheetah by the speeds at the *ends* of its five
# sub-steps, hence two thirds; the others are integrated by Runge-Kutta, where the mean of both is much the best
# (the speed before, or after, alone has six times its error). Ant's cost of contact forces, 0.007 a step for the
# expert, is left out: zoo.tasks does not show the forces.
FORMULAS: dict[str, Formula] = {
    "hopper": Formula(velocity=5, later=0.5, control_cost=1e-3, healthy=1.0),
    "halfcheetah": Formula(velocity=8, later=2.0 / 3.0, control_cost=0.1, healthy=0.0),
    "walker2d": Formula(velocity=8, later=0.5, control_cost=1e-3, healthy=1.0),
    "ant": Formula(velocity=13, later=0.5, control_cost=0.5, healthy=1.0),
}


class TrueReward(nn.Module):
    """A task's own reward with the interface of a learned one: ``low``, ``high``, and a call on transitions.

    Args:
        task: name of a task with a formula.
        unit: what counts as 1.
        low: lower bound, in that unit.
        high: upper bound.

    Raises:
        KeyError: if no formula is known.
    """

    low: Tensor
    high: Tensor

    def __init__(self, task: str, unit: float = 1.0, low: float = -torch.inf, high: float = torch.inf) -> None:
        super().__init__()
        self.formula = FORMULAS[task]
        self.rule = get_task(task).termination
        self.unit = unit
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """Reward ``(...)`` of transitions ``(..., D), (..., A), (..., D)``."""
        reward = self.formula(self.rule, observation, action, next_observation)
        return (reward / self.unit).clamp(self.low, self.high)

    @classmethod
    def like_learned(cls, task: Task, expert: TensorDict, diverse: TensorDict | None) -> TrueReward:
        """On the scale of a learned reward, for which a method's settings are made.

        The expert's mean is 1, zero stays the task's own, and it is bounded by the range of the recorded rows (zero
        included below), as a learned reward is bounded by quantiles of its data.

        Raises:
            UserError: if the demonstrations earn nothing, which leaves no unit.
        """
        plain = cls(task.name)
        values = [
            plain(rows["observation"], rows["action"], rows["next", "observation"])
            for table in (expert, diverse)
            if table is not None
            for rows in [concatenate([table])]
        ]
        unit = float(values[0].mean())
        if unit <= 0.0:
            raise UserError(
                f"the demonstrations earn {unit:.3g} per step in the task's own reward, which gives it no scale: "
                "leave out --controls, or give demonstrations of the task"
            )
        low = min(0.0, *(float(value.min()) for value in values))
        high = max(float(value.max()) for value in values)
        return cls(task.name, unit, low / unit, high / unit)


def known_true_reward(task: Task) -> TrueReward | None:
    """The plain formula of a task, ``None`` if there is none."""
    return TrueReward(task.name) if task.name in FORMULAS else None
