"""Episodes as rows of tensors, in a Simulator and in the real task alike, so that both are measured the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.surroundings import begin
from zoo import Simulator
from zoo.episodes import Array, Episode
from zoo.normalizer import refuse_other_width

Act = Callable[[Tensor], Tensor]  # observations (B, D) -> actions (B, A)
Reward = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RollOut:
    """``B`` episodes of at most ``H`` steps.

    Attributes:
        rows: ``(H, B)``: ``observation``, ``action`` and ``next: {observation}``.
        running: whether a row belongs to its episode, ``(H, B)`` bool; what follows an end does not.
        uncertainty: of each row, ``(H, B)``, in the Simulator's own measure; ``None`` in the real task.
    """

    rows: TensorDict
    running: Tensor
    uncertainty: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Steps of each episode, ``(B,)``."""
        return self.running.sum(dim=0)

    @torch.no_grad()
    def returns(self, reward: Reward, steps: int | None = None) -> Tensor:
        """Undiscounted return of each episode under a reward, over its first ``steps`` steps, ``(B,)``."""
        rows = self.rows[:steps]
        values = reward(rows["observation"], rows["action"], rows["next", "observation"])
        return (values * self.running[:steps]).sum(dim=0)

    def visited(self) -> TensorDict:
        """The rows of all episodes, step by step, ``(N,)``."""
        return self.rows[self.running]


def roll_out(
    simulator: Simulator, act: Act, episodes: int, horizon: int, seed: int = 0, surroundings: Tensor | None = None
) -> RollOut:
    """Episodes in a Simulator from its start states, until all have ended or ``horizon`` steps are over.

    The same random numbers as ``lit_modules.simulator_returns.simulator_returns`` with a generator of the same seed.
    """
    return roll_outs(simulator, [act], episodes, horizon, seed, surroundings)[0]


@torch.no_grad()
def roll_outs(
    simulator: Simulator,
    acts: Sequence[Act],
    episodes: int,
    horizon: int,
    seed: int = 0,
    surroundings: Tensor | None = None,
) -> list[RollOut]:
    """:func:`roll_out` of several, each with the same random numbers, in one batch, which saves some of the time.

    It ends when the last episode of all has. ``surroundings`` are those of ``lit_modules.surroundings.begin``.

    Raises:
        ValueError: if actions have another number of features.
    """
    generator, count = torch.Generator().manual_seed(seed), len(acts)
    observation = begin(simulator, episodes, generator, surroundings).repeat(count, 1)
    fixed = simulator.episode_members(episodes, generator)
    running = torch.ones(count * episodes, dtype=torch.bool)
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(horizon):
        action = torch.cat([act(own) for act, own in zip(acts, observation.chunk(count), strict=True)])
        refuse_other_width("actions", action, simulator.action_size)
        drawn, noise = simulator.draw(observation[:episodes], generator)
        members = (drawn if fixed is None else fixed).repeat(count)
        following, uncertainty = simulator.advance(observation, action, members, noise.repeat(count, 1))
        steps.append((observation, action, following, running, uncertainty))
        running = running & ~simulator.termination(following)
        if not bool(running.any()):
            break
        observation = following
    columns = (torch.stack(column).chunk(count, dim=1) for column in zip(*steps, strict=True))
    return [RollOut(_rows(*own[:3]), *own[3:]) for own in zip(*columns, strict=True)]


def recorded(episodes: Sequence[Episode]) -> RollOut:
    """Episodes of the real task in the same form; rows after an end repeat its last one."""
    longest = max(len(episode) for episode in episodes)

    def column(arrays: list[Array]) -> Tensor:
        padded = [np.pad(array, ((0, longest - len(array)), (0, 0)), mode="edge") for array in arrays]
        return torch.from_numpy(np.stack(padded, axis=1))

    rows = _rows(
        column([episode.observations[:-1] for episode in episodes]),
        column([episode.actions for episode in episodes]),
        column([episode.observations[1:] for episode in episodes]),
    )
    lengths = torch.tensor([len(episode) for episode in episodes])
    return RollOut(rows, torch.arange(longest).unsqueeze(-1) < lengths)


def on_tensors(act: Callable[[Array], Array]) -> Act:
    """An action function of ``zoo.episodes`` as one that acts in a Simulator."""
    return lambda observation: torch.from_numpy(act(observation.numpy()))


def concatenate(tables: Sequence[TensorDict]) -> TensorDict:
    """Rows of several tables in one, with what every transition has: observation, action, next observation."""
    parts = [_rows(table["observation"], table["action"], table["next", "observation"]) for table in tables]
    return cast(TensorDict, torch.cat(parts))  # type: ignore[arg-type]


def _rows(observation: Tensor, action: Tensor, following: Tensor) -> TensorDict:
    size = observation.shape[:-1]
    return TensorDict(
        {
            "observation": observation,
            "action": action,
            "next": TensorDict({"observation": following}, batch_size=size),
        },
        batch_size=size,
    )
