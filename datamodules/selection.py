"""Which episodes are trained on and which are held out; whole episodes only, and the same ones for the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Held-out demonstrations serve diagnostics only: a handful is enough.
HELD_OUT_DEMONSTRATIONS = 5

# Fewer episodes than this are all trained on.
FEWEST_TO_SPLIT = 5


@dataclass(frozen=True)
class Selection:
    """Numbers of episodes, each sorted; a set of datasets is numbered through in the order they are named."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]


def select_demonstrations(episodes: int, demonstrations: int | None, held_out_fraction: float, seed: int) -> Selection:
    """The first ``demonstrations`` of the seed's order are trained on, the next few are held out.

    If none are left over, one demonstration is held out when there are enough, unless ``held_out_fraction`` is 0; if
    all were asked for (``None``), that share of them, up to as many as are held out otherwise.
    """
    order = np.random.default_rng([seed, 0]).permutation(episodes).tolist()
    wanted = episodes if demonstrations is None else demonstrations
    train, held_out = order[:wanted], order[wanted : wanted + HELD_OUT_DEMONSTRATIONS]
    if not held_out and wanted >= FEWEST_TO_SPLIT and held_out_fraction > 0.0:
        share = 1 if demonstrations is not None else round(held_out_fraction * episodes)
        apart = min(max(1, share), HELD_OUT_DEMONSTRATIONS)
        train, held_out = train[:-apart], train[-apart:]
    return Selection(tuple(sorted(train)), tuple(sorted(held_out)))


def select_diverse(episodes: int, diverse_fraction: float, held_out_fraction: float, seed: int) -> Selection:
    """A share of the episodes is held out, and a share of the rest is trained on.

    The held-out episodes do not depend on ``diverse_fraction``, and a larger fraction adds to the episodes of a
    smaller one, so that runs on more and less data can be compared.
    """
    order = np.random.default_rng([seed, 1]).permutation(episodes).tolist()
    apart = round(held_out_fraction * episodes)
    if episodes < FEWEST_TO_SPLIT:
        apart = 0
    elif held_out_fraction > 0.0:
        apart = min(max(1, apart), episodes - 1)
    held_out, rest = order[:apart], order[apart:]
    return Selection(tuple(sorted(rest[: math.ceil(diverse_fraction * len(rest))])), tuple(sorted(held_out)))
