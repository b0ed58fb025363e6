"""What features do from episode to episode and from row to row that no system does, but its sensors and loggers do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from app.data_checks.finding import NOTE, Finding
from app.data_checks.recording import Array, Recorded, Transitions
from datamodules.sources import Source

APART = 1.0  # gap between what a feature is in some episodes and in all others, in the wider of both ranges
LARGER = 30.0  # how many times as large a feature is in some episodes as in all others
MOVING = 0.9  # share of the steps at which a feature changes that is called always
STILL = 20  # steps without a change, of a feature that always changes, after which its sensor seems to hang
GOES_ON = 0.3  # share of their usual changes that other features have meanwhile
JUMP = 5.0  # size of a change, in what 95% of the changes of its feature stay below; of most features at once


def sensors(source: Source, episodes: Sequence[Recorded], rows: Transitions) -> list[Finding]:
    """Notes on units, hanging sensors and jumps.

    Episodes of one system overlap in every feature: of the recorded MuJoCo data sets the largest gap is none, the
    largest ratio 14 (of actions; 5 of observations), and no step moves most features by more than 2.2 times what 95%
    of the changes stay below.

    Args:
        source: the dataset.
        episodes: its whole ones.
        rows: their steps.
    """
    return [*_units(source, episodes), *_hanging(source, episodes), *_jumps(rows)]


def _units(source: Source, episodes: Sequence[Recorded]) -> Iterator[Finding]:
    for kind in ("observation", "action"):
        tables = [getattr(episode, f"{kind}s") for episode in episodes]
        low, high = (np.array([reduced(table, axis=0) for table in tables]) for reduced in (np.min, np.max))
        for feature in range(low.shape[1]):
            text = _apart(low[:, feature], high[:, feature]) or _larger(low[:, feature], high[:, feature])
            if text:
                name = source.feature(kind, feature)
                yield Finding("other units", NOTE, f"{kind} feature {name} {text}: another unit, or another sensor?")


def _apart(low: Array, high: Array) -> str | None:
    """Whether a feature has one range in some episodes, and another, far from it, in all others.

    Args:
        low: least value in each episode, ``(E,)``.
        high: largest one, ``(E,)``.
    """
    order = np.argsort(low)
    low, high = low[order], np.maximum.accumulate(high[order])
    gap = low[1:] - high[:-1]
    if not len(gap):
        return None
    below = int(gap.argmax()) + 1  # so many episodes
    widest = max(high[below - 1] - low[0], high[-1] - low[below])
    if gap[below - 1] <= APART * widest or gap[below - 1] <= 0.0 or widest == 0.0:
        return None  # what is still in each episode may be a setting
    first, second = f"{low[0]:.4g} to {high[below - 1]:.4g}", f"{low[below]:.4g} to {high[-1]:.4g}"
    return f"is {first} in {below} episodes and {second} in {len(low) - below} more"


def _larger(low: Array, high: Array) -> str | None:
    """Whether a feature is many times as large in some episodes as in all others; arguments as in :func:`_apart`."""
    size = np.sort(np.maximum(np.abs(low), np.abs(high)))
    size = size[size > 0.0]
    ratio = size[1:] / size[:-1]
    if not len(ratio) or ratio.max() < LARGER:
        return None
    below = int(ratio.argmax()) + 1
    return (
        f"is at most {size[below - 1]:.4g} in {below} episodes and {size[below]:.4g} or more in {len(size) - below}, "
        "but never between"
    )


def _hanging(source: Source, episodes: Sequence[Recorded]) -> Iterator[Finding]:
    """Features that always move and then do not for a while, though others go on as usual."""
    changes = [np.abs(np.diff(episode.observations, axis=0)) for episode in episodes]
    # Of an upper quartile of episodes, as a sensor may hang in every second one
    moving = np.quantile([(change != 0.0).mean(axis=0) for change in changes], 0.75, axis=0) >= MOVING
    usual = np.quantile([change.mean(axis=0) for change in changes], 0.75, axis=0)
    limits = [
        reduced([reduced(each.observations, axis=0) for each in episodes], axis=0) for reduced in (np.min, np.max)
    ]
    features, hung = [], []
    for feature in np.flatnonzero(moving):
        others = moving & (np.arange(len(moving)) != feature)
        for episode, change in zip(episodes, changes, strict=True):
            start, length = _longest_run(change[:, feature] == 0.0)
            if length < STILL or not others.any():
                continue
            gone_on = np.median(change[start : start + length].mean(axis=0)[others] / usual[others])
            at_limit = episode.observations[start, feature] in (limits[0][feature], limits[1][feature])
            if gone_on > GOES_ON and not at_limit:  # else all came to rest, or it measures no more than this
                features.append(source.feature("observation", int(feature)))
                hung.append((length, episode.number, start))
    if hung:
        length, number, start = max(hung)
        yield Finding(
            "sensors that hang",
            NOTE,
            f"observation feature {', '.join(dict.fromkeys(features))} changes at nearly every step, but stands still "
            f"in {len({episode for _, episode, _ in hung})} of {len(episodes)} episodes while others move, for "
            f"{length} steps in episode {number}, step {start}: did a sensor hang?",
        )


def _longest_run(still: Array) -> tuple[int, int]:
    """Where the longest run of true values starts, and how long it is."""
    edges = np.flatnonzero(np.concatenate([[True], ~still, [True]]))
    longest = int(np.diff(edges).argmax())
    return int(edges[longest]), int(np.diff(edges)[longest]) - 1


def _jumps(rows: Transitions) -> Iterator[Finding]:
    """Steps at which most features change as never else: something is missing there, or another episode begins."""
    change = np.abs(rows.following - rows.observation)
    usual = np.quantile(change, 0.95, axis=0)
    moving = usual > 0.0
    if not moving.any():
        return
    jumps = np.flatnonzero(np.median(change[:, moving] / usual[moving], axis=1) > JUMP)
    if len(jumps):
        yield Finding(
            "jumps",
            NOTE,
            f"at {len(jumps):,} of {len(rows):,} steps most features change by more than {JUMP:g} times what they "
            f"usually change by at most, first in {rows.where(int(jumps[0]))}: are rows missing there, or does another "
            "episode begin?",
        )
