"""The `mixed` level of ``offsim collect``: roll-outs of policies of many qualities, all of them below the expert's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from app.collect_expert import Evaluation, Training
from zoo.episodes import Episode, noisy_actions, policy_actions, random_actions, run_steps, thin_episodes
from zoo.files import sha256
from zoo.policy import Policy
from zoo.tasks import Task

BEST = 2.0 / 3.0  # of the way from random actions' return to the expert's
QUALITIES = 9  # that the way is divided into; each is met by the first snapshot that got there
NOISES = (0.0, 0.1, 0.3)  # deviations of the noise on actions, in half action ranges
SEEDS_APART = 2_000  # of two qualities or noises


@dataclass(frozen=True)
class Mixture:
    """Random actions and some snapshots of a training, in the order of their return.

    Attributes:
        task: the task that they are of.
        snapshots: of the training, each another.
    """

    task: Task
    snapshots: tuple[Evaluation, ...]

    @classmethod
    def of(cls, training: Training, task: Task) -> Mixture:
        """The first snapshots that got a ninth of the way to the best of the mixture, two ninths, and so on."""
        shares = [BEST * (part + 1) / QUALITIES for part in range(QUALITIES)]
        reached = {found.updates: found for found in (training.part_way(s, task.random_return) for s in shares)}
        return cls(task, tuple(sorted(reached.values(), key=lambda each: each.mean_return)))

    @property
    def facts(self) -> dict[str, Any]:
        """What the recipe keeps of it."""
        return {
            "noises": list(NOISES),
            "snapshots": [
                {"updates": each.updates, "evaluation_return": each.mean_return, "policy_sha256": sha256(each.snapshot)}
                for each in self.snapshots
            ],
        }

    def describe(self) -> str:
        """Who acts, in words."""
        returns = ", ".join(f"{each.mean_return:.0f}" for each in self.snapshots)
        noises = ", ".join(f"{noise:g}" for noise in NOISES)
        return f"{len(self.snapshots)} snapshots (mean returns {returns}; noise of {noises} half action ranges)"

    def record(self, space: Box, steps: int, first_seed: int, report: Callable[[int], None]) -> list[Episode]:
        """Whole episodes of about ``steps`` steps together, as many steps of each quality and noise.

        Where episodes are long, some are left out again, evenly.
        """
        half_range = ((space.high - space.low) / 2).astype(np.float32)
        cast = [random_actions(space, first_seed)]
        for each in self.snapshots:
            act = policy_actions(Policy.load(each.snapshot))
            for noise in NOISES:
                seed = first_seed + SEEDS_APART * len(cast)
                cast.append(act if noise == 0.0 else noisy_actions(act, space, np.float32(noise) * half_range, seed))
        wanted = -(-steps // len(cast))
        episodes: list[Episode] = []
        for part, act in enumerate(cast):
            episodes += run_steps(self.task.make, act, wanted, first_seed + SEEDS_APART * part)
            report(round(steps * (part + 1) / len(cast)))
        longest = max(map(len, episodes))
        return thin_episodes(episodes, max(steps, longest))
