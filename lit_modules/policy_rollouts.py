"""Roll-outs of the policy in the frozen Simulator."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch import Tensor

from lit_modules.method import Method
from lit_modules.rows import draw_starts
from zoo.dynamics_reward import DynamicsReward
from zoo.policy import Policy
from zoo.simulator import Simulator


class PolicyRollOuts(Method, ABC):
    """A method that takes H-step roll-outs, ``horizon``, of its policy in a Simulator."""

    simulator: Simulator
    policy: Policy
    cut: Tensor  # uncertainty above which a roll-out ends
    dynamics_reward: DynamicsReward | None  # below whose ``dynamics_threshold`` one ends as well

    def draw_roll_outs(self, candidates: int = 1) -> tuple[Tensor, ...]:
        """Start states and random numbers of the next roll-outs, for :meth:`simulate`."""
        count, horizon = self.hparams["starts"], self.hparams["horizon"]
        moved = (count,) if candidates == 1 else (candidates, count)
        return (
            self.draw_start_states(count),
            self.random.normal(horizon, count, self.policy.action_size),
            self._draw_members(horizon, *moved),
            self.random.normal(horizon, *moved, self.policy.observation_size),
        )

    def draw_start_states(self, count: int) -> Tensor:
        """Where roll-outs begin: expert states, initial states of episodes, any recorded state, ``(count, D)``."""
        share = self.hparams["expert_start_share"]
        initial = round(count * self.hparams["initial_start_share"])
        recorded = count - initial
        expert_share = min(1.0, count * share / recorded) if recorded > 0 else 0.0
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        states = draw_starts(data, recorded, expert_share, self.random)["observation"].to(self.device)
        if initial == 0:
            return states
        first = self.simulator.start_states.observations
        return torch.cat([states, first[self.random.integers(len(first), initial)]])

    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions ``(B, A)`` that roll-outs take, from standard normal noise of this shape."""
        return self.policy.act(observation, deterministic=False, noise=noise)

    def _draw_members(self, horizon: int, *shape: int) -> Tensor:
        """The member that moves each roll-out at each step, ``(H, *shape)``, of which the last are the roll-outs."""
        members = self.simulator.transition.members
        if (self.hparams["aggregation"] or self.simulator.aggregation) == "fixed_member":
            # The same for all candidates, which then differ in their noise alone
            return self.random.integers(members, shape[-1]).expand(horizon, *shape)
        return self.random.integers(members, horizon, *shape)

    def simulate(
        self, observation: Tensor, action_noise: Tensor, members: Tensor, step_noise: Tensor, *judges: Any
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Roll-outs of H steps from B states; every row takes every step, and ``alive`` says which of them count.

        Args:
            observation: start states, ``(B, D)``.
            action_noise: ``(H, B, A)``.
            members: member that moves each row, ``(H, B)``; or ``(H, C, B)``, C candidates for the next state.
            step_noise: ``(H, B, D)`` or ``(H, C, B, D)``.
            judges: what :meth:`choose` needs to choose among candidates.

        Returns:
            Columns ``(H, B, ...)``: observation, action, uncertainty, next_observation, ended, and dynamics_reward if
            there is one; and alive ``(H, B)``.
        """
        running = torch.ones_like(observation[:, 0], dtype=torch.bool)
        steps: list[dict[str, Tensor]] = []
        for step in range(len(members)):
            action = self.explore(observation, action_noise[step])
            following, uncertainty = self.simulator.advance(
                observation, action, members[step], step_noise[step], self.hparams["noise_scale"]
            )
            if following.dim() == 3:
                following = self.choose(step, observation, action, following, *judges)
            ended = self.simulator.termination(following) | (uncertainty > self.cut)
            taken = {"observation": observation, "action": action, "uncertainty": uncertainty}
            if self.dynamics_reward is not None:
                taken["dynamics_reward"] = self.dynamics_reward(observation, action, following)
                ended = ended | (taken["dynamics_reward"] < self.hparams["dynamics_threshold"])
            steps.append({**taken, "next_observation": following, "ended": ended, "alive": running})
            running = running & ~ended
            observation = following
        columns = {name: torch.stack([each[name] for each in steps]) for name in steps[0]}
        return columns, columns.pop("alive")

    def choose(self, step: int, observation: Tensor, action: Tensor, following: Tensor, *judges: Any) -> Tensor:
        """The next states ``(B, D)`` that roll-outs take at a step among candidates ``(C, B, D)``."""
        raise NotImplementedError
