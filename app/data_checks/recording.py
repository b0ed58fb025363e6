"""A whole dataset as it was recorded, rewards included. Nothing that trains imports this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from app.errors import UserError
from datamodules.errors import DataError
from datamodules.sources import Source, resolve

Array = NDArray[Any]


@dataclass(frozen=True)
class Recorded:
    """One episode of ``T`` steps, whatever is wrong with it.

    Attributes:
        number: of the episode in its dataset.
        observations: ``(T + 1, observation)``.
        actions: ``(T, action)``.
        rewards: ``(T,)``.
        terminations: ``(T,)`` bool.
        truncations: ``(T,)`` bool.
        seed: the environment was reset with, if that is known.
    """

    number: int
    observations: Array
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def content(self) -> bytes:
        """What copies of an episode have in common."""
        return self.observations.tobytes() + self.actions.tobytes()

    def steps(self, first: int, stop: int) -> Recorded:
        """The transitions from ``first`` to before ``stop``, as an episode; cut at its end, it counts as truncated."""
        truncations = self.truncations[first:stop].copy()
        if stop < len(self) and stop > first:
            truncations[-1] = not self.terminations[stop - 1]
        return replace(
            self,
            observations=self.observations[first : stop + 1],
            actions=self.actions[first:stop],
            rewards=self.rewards[first:stop],
            terminations=self.terminations[first:stop],
            truncations=truncations,
            seed=self.seed if first == 0 else None,
        )


@dataclass(frozen=True)
class Transitions:
    """Steps of several episodes, one below the other: ``N`` rows.

    Attributes:
        observation: ``(N, observation)``.
        action: ``(N, action)``.
        following: the next observation, ``(N, observation)``.
        reward: ``(N,)``.
        terminated: ``(N,)`` bool.
        truncated: ``(N,)`` bool.
        episode: number of each row's episode, ``(N,)``.
        step: of each row in its episode, ``(N,)``.
        length: of each row's episode, ``(N,)``.
    """

    observation: Array
    action: Array
    following: Array
    reward: Array
    terminated: Array
    truncated: Array
    episode: Array
    step: Array
    length: Array

    def __len__(self) -> int:
        return len(self.step)

    def where(self, row: int) -> str:
        """Which episode and step a row is, in words."""
        return f"episode {self.episode[row]}, step {self.step[row]}"


def read(dataset_id: str) -> tuple[Source, list[Recorded]]:
    """Every episode of a dataset on this machine.

    Raises:
        UserError: if there is none, or its file cannot be read.
    """
    try:
        source = resolve(dataset_id)
    except DataError as error:
        raise UserError(str(error)) from error
    try:
        with h5py.File(source.file, "r") as file:
            return source, [_episode(file, number) for number in range(source.episodes)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"dataset {dataset_id}: {source.file} cannot be read ({error}); download or record it again"
        ) from error


def transitions(episodes: Sequence[Recorded]) -> Transitions:
    """All steps of episodes that are whole (``statistical.broken_episodes`` says which)."""

    def column(arrays: list[Array]) -> Array:
        return np.concatenate(arrays)

    return Transitions(
        observation=column([episode.observations[:-1] for episode in episodes]),
        action=column([episode.actions for episode in episodes]),
        following=column([episode.observations[1:] for episode in episodes]),
        reward=column([episode.rewards for episode in episodes]),
        terminated=column([episode.terminations for episode in episodes]),
        truncated=column([episode.truncations for episode in episodes]),
        episode=column([np.full(len(episode), episode.number) for episode in episodes]),
        step=column([np.arange(len(episode)) for episode in episodes]),
        length=column([np.full(len(episode), len(episode)) for episode in episodes]),
    )


def _episode(file: h5py.File, number: int) -> Recorded:
    group = file[f"episode_{number}"]
    seed = group.attrs.get("seed")
    return Recorded(
        number=number,
        observations=np.asarray(group["observations"][()], dtype=np.float64),
        actions=np.asarray(group["actions"][()], dtype=np.float64),
        rewards=np.asarray(group["rewards"][()], dtype=np.float64),
        terminations=np.asarray(group["terminations"][()], dtype=bool),
        truncations=np.asarray(group["truncations"][()], dtype=bool),
        seed=None if seed is None else int(np.asarray(seed).item()),
    )
