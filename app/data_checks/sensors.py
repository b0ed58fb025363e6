"""What features do from episode to episode and from row to row that no system does, but its sensors and loggers do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from app.data_checks.finding import NOTE, Finding
from app.data_checks.recording import Array, Recorded, Transitions
from datamodules.sources import Source

APART = 1.0  # gap between what a feature is in some episodes and in all others, in the wider of both ranges
LARGER = 20.0  # how many times as large the least of some episodes has to be as the largest of all others
UNITS = (57.3, 60.0, 100.0, 1e3, 3600.0, 1e6)  # degrees, minutes, per cent, milli or kilo, hours, micro or mega
NEAR = 1.25  # times what a feature is larger by may differ from these
MOVING = 0.9  # share of the steps at which a feature changes that is called always
STILL = 20  # steps without a change, of a feature that always changes, after which its sensor seems to hang
GOES_ON = 0.3  # share of their usual changes that other features have meanwhile
JUMP = 5.0  # size of a change, in what 95% of the changes of its feature stay below; of most features at once


def sensors(source: Source, episodes: Sequence[Recorded], rows: Transitions) -> list[Finding]:
    """Notes on units, hanging sensors and jumps.

    Episodes of one system overlap in what its features are: in the recorded sets of the four walkers there is no gap,
    sizes of neighbours differ by 14 times at most (actions; observations by 5), and no step moves most features by more
    than 2.2 times what 95% of their changes stay below.

    Args:
        source: the dataset.
        episodes: its whole ones.
        rows: their steps.
    """
    return [*_units(source, episodes), *_hanging(source, episodes), *_jumps(rows)]


def _units(source: Source, episodes: Sequence[Recorded]) -> Iterator[Finding]:
    for kind in ("observation", "action"):
        low, high = _ranges([getattr(episode, f"{kind}s") for episode in episodes])
        for feature in np.flatnonzero((high > low).mean(axis=0) > 0.5):  # others are settings of an episode
            text = _apart(low[:, feature], high[:, feature]) or _larger(low[:, feature], high[:, feature])
            if text:
                yield Finding("other units", NOTE, f"{kind} feature {source.feature(kind, int(feature))} {text}")


def _ranges(tables: Sequence[Array]) -> tuple[Array, Array]:
    """Least and largest value of each feature in each episode, ``(E, D)`` each."""
    return np.array([table.min(axis=0) for table in tables]), np.array([table.max(axis=0) for table in tables])


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
    if gap[below - 1] <= APART * widest:
        return None
    first, second = f"{low[0]:.4g} to {high[below - 1]:.4g}", f"{low[below]:.4g} to {high[-1]:.4g}"
    return (
        f"is {first} in {_episodes(below)} and {second} in {len(low) - below} more: another unit, or another "
        "operating point?"
    )


def _larger(low: Array, high: Array) -> str | None:
    """Whether a feature is so many times as large in some episodes as in all others as units are; as :func:`_apart`."""
    size = np.sort(np.maximum(np.abs(low), np.abs(high)))
    size = size[size > 0.0]
    ratio = size[1:] / size[:-1]
    if not len(ratio) or ratio.max() < LARGER:
        return None
    below = int(ratio.argmax()) + 1
    times = float(np.median(size[below:]) / np.median(size[:below]))
    alike = max(size[below - 1] / size[0], size[-1] / size[below]) < ratio[below - 1]
    smallest, largest = size[0] / NEAR, size[below - 1] * NEAR
    units = [
        each
        for each in UNITS
        # A few episodes need not be of the usual size; in their own unit they are of one that others have
        if 1.0 / NEAR < times / each < NEAR or (smallest < size[below] / each and size[-1] / each < largest)
    ]
    unit = min(units, key=lambda each: abs(np.log(times / each)), default=None)
    if unit is None or not alike:
        return None
    return (
        f"is {times:.3g} times as large in {_episodes(len(size) - below)} as in {below} more: a unit of which "
        f"{unit:g} make one?"
    )


def _episodes(count: int) -> str:
    return f"{count} episode{'s' if count > 1 else ''}"


def _hanging(source: Source, episodes: Sequence[Recorded]) -> Iterator[Finding]:
    """Features that always move and then do not for a while, though others go on as usual."""
    changes = [np.abs(np.diff(episode.observations, axis=0)) for episode in episodes]
    # Of an upper quartile of episodes, as a sensor may hang in every second one
    moving = np.quantile([(change != 0.0).mean(axis=0) for change in changes], 0.75, axis=0) >= MOVING
    usual = np.quantile([change.mean(axis=0) for change in changes], 0.75, axis=0)
    low, high = _ranges([episode.observations for episode in episodes])
    least, largest = low.min(axis=0), high.max(axis=0)
    hung: dict[str, list[tuple[int, int, int]]] = {}
    for feature in np.flatnonzero(moving):
        others = moving & (np.arange(len(moving)) != feature)
        found = []
        for episode, change in zip(episodes, changes, strict=True):
            start, length = _longest_run(change[:, feature] == 0.0)
            if length < STILL or not others.any():
                continue
            gone_on = np.median(change[start : start + length].mean(axis=0)[others] / usual[others])
            at_limit = episode.observations[start, feature] in (least[feature], largest[feature])
            if gone_on > GOES_ON and not at_limit:  # else all came to rest, or it measures no more than this
                found.append((length, episode.number, start))
        if 0 < len(found) <= max(1, 0.5 * len(episodes)):  # what is usual is no fault
            hung[source.feature("observation", int(feature))] = found
    if hung:
        places = [place for found in hung.values() for place in found]
        length, number, start = max(places)
        yield Finding(
            "sensors that hang",
            NOTE,
            f"observation feature {', '.join(hung)} changes at nearly every step, but stands still in "
            f"{len({number for _, number, _ in places})} of {len(episodes)} episodes while others move, for {length} "
            f"steps in episode {number}, step {start}: did a sensor hang?",
        )


def _longest_run(still: Array) -> tuple[int, int]:
    """Where the longest run of true values starts, and how long it is."""
    edges = np.flatnonzero(np.concatenate([[True], ~still, [True]]))
    longest = int(np.diff(edges).argmax())
    return int(edges[longest]), int(np.diff(edges)[longest]) - 1


def _jumps(rows: Transitions) -> Iterator[Finding]:
    """Steps at which most features change as never else: something is missing there, or another episode begins.

    One or two may do so by themselves, at a new setting or where an angle begins anew, so of fewer than three nothing
    is said. Fast systems come as far in a few ordinary steps, and show no jump.
    """
    change = np.abs(rows.following - rows.observation)
    usual = np.quantile(change, 0.95, axis=0)
    moving = usual > 0.0
    if moving.sum() < 3:
        return
    jumps = np.flatnonzero((change[:, moving] > JUMP * usual[moving]).mean(axis=1) > 0.5)
    if len(jumps):
        yield Finding(
            "jumps",
            NOTE,
            f"at {len(jumps):,} of {len(rows):,} steps most features change by more than {JUMP:g} times what they "
            f"usually change by at most, first in {rows.where(int(jumps[0]))}: are rows missing there, or does another "
            "episode begin?",
        )
