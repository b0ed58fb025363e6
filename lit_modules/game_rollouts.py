"""Roll-outs of the game: short stretches in the current transition model, by a mixture of ways to act."""

from __future__ import annotations

from abc import ABC

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.method import Compute, Conversation, Method
from lit_modules.proposals import ActionProposal, RecordedActions
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

PER_STEP = ("recorded", "running", "uniform", "cloned_noise", "added_noise", "order", "noise")  # drawn, (H, ...)


class GameRollOuts(Method, ABC):
    """A method that takes H-step roll-outs, ``horizon``, in the transition model that it trains."""

    transition: TransitionModel
    termination: TerminationModel
    proposal: ActionProposal
    recorded: RecordedActions | None

    def draw_roll_outs(self, starts: TensorDict) -> dict[str, Tensor]:
        """Random numbers and recorded actions of H-step roll-outs.

        Args:
            starts: ``observation`` and global ``row`` of the states they start in, ``(B, ...)``.
        """
        count, horizon = len(starts), self.hparams["horizon"]
        assert self.recorded is not None
        recorded, running = self.recorded.following(starts["row"], horizon)
        orders = [self.transition.deal(count, self.random.generator, self.random.device) for _ in range(horizon)]
        return self.proposal.draw(horizon, count, self.random) | {
            "start": starts["observation"],
            "recorded": recorded,
            "running": running,
            "order": torch.stack(orders),
            "noise": self.random.normal(horizon, count, self.transition.observation_size),
        }

    def simulate(self, drawn: dict[str, Tensor]) -> Conversation:
        """Roll-outs in the current model; every row takes every step, and ``alive`` says which of them count.

        Args:
            drawn: what :meth:`draw_roll_outs` returned.

        Returns:
            ``observation``, ``action``, ``next_observation`` and ``alive`` of all steps, ``(H * B, ...)``.
        """
        observation = drawn["start"]
        alive = torch.ones_like(drawn["way"], dtype=torch.bool)
        steps: list[tuple[Tensor, ...]] = []
        for step in range(len(drawn["noise"])):
            at_step = {name: drawn[name][step] for name in PER_STEP}
            # Recorded actions last as long as their episode
            alive = alive & (at_step["running"] | (drawn["way"] != 0))
            action, following, ended = yield Compute("advance", (observation, drawn["way"], at_step))
            steps.append((observation, action, following, alive))
            alive = alive & ~ended
            observation = following
        names = ("observation", "action", "next_observation", "alive")
        return dict(zip(names, (torch.cat(column) for column in zip(*steps, strict=True)), strict=True))

    def advance(self, observation: Tensor, way: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """One step of roll-outs from ``observation`` ``(B, D)``: action, next observation, whether it ended them."""
        action = self.proposal.act(way, observation, drawn)
        following = self.sample(observation, action, drawn["order"], drawn["noise"])
        return action, following, self.termination(following)

    def sample(self, observation: Tensor, action: Tensor, order: Tensor, noise: Tensor) -> Tensor:
        """Next observations drawn from the model, differentiable in it (reparameterised)."""
        mean, log_variance = self.transition.drawn(observation, action, order=order)
        return self.transition.next_observation(observation, mean + (0.5 * log_variance).exp() * noise, noise)

    def roll_out(self, starts: TensorDict) -> TensorDict:
        """Roll-outs from given states: the transitions of rows that were still alive.

        Args:
            starts: ``observation`` and global ``row`` of the states they start in, ``(B, ...)``.

        Returns:
            observation, action and next_observation, ``(N, ...)``.
        """
        if self.random.device.type != self.device.type:  # the module was moved since, as for its export
            self.random.place(self.device)
        columns = self.run(self.simulate(self.draw_roll_outs(starts.to(self.device))))
        alive = columns.pop("alive")
        return TensorDict({name: column[alive] for name, column in columns.items()}, batch_size=[int(alive.sum())])
