"""Data made worse on purpose, to see what a method can bear: rows left out, and rows that teach nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


@dataclass(frozen=True)
class Edit:
    """What is done to each of some episodes as they are read.

    Attributes:
        keep_every: of every so many transitions of an episode the first is kept.
        noise_fraction: share of the kept transitions that become noise, see :func:`add_noise`.
        seed: decides which, and what becomes of them.
    """

    keep_every: int = 1
    noise_fraction: float = 0.0
    seed: int = 0


NO_EDIT = Edit()


def kept_rows(edit: Edit, steps: int) -> int:
    """Rows that an episode of so many steps gives."""
    return math.ceil(steps / edit.keep_every)


def add_noise(rows: Mapping[str, NDArray[Any]], edit: Edit, number: int, action_space: spaces.Box) -> None:
    """Turn a share of an episode's rows into noise, in place.

    A noisy row keeps its observation. Its action is uniform within the bounds, and what happened next is taken from a
    random row of the episode: that row's change of the observation, and whether it ended in a terminal state. Actions
    and outcomes then have nothing to do with the row, while the size of the changes, and so the scale on which all
    models learn, stays that of the data.

    Each row is noisy with probability ``noise_fraction``, by numbers that depend on the seed and the episode alone: the
    noisy rows of a smaller share are among those of a larger one, however many other episodes are read.

    Args:
        rows: columns of one episode, ``(T, ...)``.
        edit: the share, and the seed.
        number: of the episode.
        action_space: a bounded one.
    """
    if edit.noise_fraction == 0.0:
        return
    count = len(rows["step"])
    generator = np.random.default_rng([edit.seed, 2, number])
    noisy = generator.random(count) < edit.noise_fraction
    actions = generator.uniform(action_space.low, action_space.high, rows["action"].shape)
    donors = generator.integers(count, size=count)
    change = rows["next_observation"] - rows["observation"]
    rows["action"][noisy] = actions[noisy]
    rows["next_observation"][noisy] = (rows["observation"] + change[donors])[noisy]
    rows["terminated"][noisy] = rows["terminated"][donors][noisy]
