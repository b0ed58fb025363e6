"""Episodes of logs: rows that follow one another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.errors import UserError
from app.log_parts import Rows, gaps, whole_parts
from app.tables import Layout, Log, finite, read_log
from zoo.episodes import Episode

ENOUGH = 5  # intervals of a log that its own usual one is known from
SAME = 0.05  # share by which that may differ from the one of all logs


def read_episodes(path: Path, layout: Layout) -> list[Episode]:
    """The episodes of one file, see :func:`episodes_of`."""
    log = read_log(path, layout)
    found = episodes_of(log, usual_interval([log]))
    if not found:
        raise UserError(f"{path}: none of its rows follows another: repair it")
    return found


def usual_interval(logs: Sequence[Log]) -> float:
    """Median time from one row of an episode to the next, over all logs; NaN if no times are told.

    Raises:
        UserError: naming a log whose own is another.
    """
    every = [np.concatenate([np.zeros(0), *log.intervals]) for log in logs]
    intervals = np.concatenate([np.zeros(0), *every])
    if not len(intervals):
        return math.nan
    usual = float(np.median(intervals))
    known = [(float(np.median(own)), log.path) for log, own in zip(logs, every, strict=True) if len(own) >= ENOUGH]
    shortest, longest = min(known, default=(usual, None)), max(known, default=(usual, None))
    if longest[0] - shortest[0] > SAME * usual:
        raise UserError(
            f"{longest[1]}: its rows follow one another after {longest[0]:.4g}, those of {shortest[1]} after "
            f"{shortest[0]:.4g}: a step has to be of one length, so bring all logs to equal intervals first "
            "(--resample)"
        )
    return usual


def episodes_of(log: Log, interval: float) -> list[Episode]:
    """The episodes of one log, in the order of their first rows.

    Args:
        log: as it was read.
        interval: time from one row to the next, see :func:`usual_interval`.

    Returns:
        Them; none, with a warning, if no row follows another.

    Raises:
        UserError: naming what cannot be used.
    """
    least = 1 if log.following is not None else 2
    states, actions = log.states, finite(log.actions)
    if log.following is not None:
        states = actions = states & actions
    apart = [np.zeros(len(rows) - 1, dtype=bool) for rows in log.episodes]
    if log.times is not None:
        apart = gaps(log.path, log.intervals, interval)
    found: list[Episode] = []
    used = 0
    for index, (rows, gap) in enumerate(zip(log.episodes, apart, strict=True)):
        if len(rows) < least and log.layout.episode:
            raise UserError(
                f"{log.where(index)}: one row is no step: an episode has at least two, a state and the one that follows"
            )
        _refuse_steps_after_the_end(log, index)
        parts = [part for part in whole_parts(rows, gap, states[rows], actions[rows]) if len(part) >= least]
        found += [_episode(log, index, part) for part in parts]
        used += sum(map(len, parts))
    if not found:
        warnings.warn(
            f"{log.path} is left out: none of its rows follows another, and a step takes a state and the one after it",
            stacklevel=2,
        )
        return []
    _tell_of_missing(log, found, used)
    return found


def _tell_of_missing(log: Log, found: Sequence[Episode], used: int) -> None:
    """Warn if episodes are split, or rows are in none."""
    told = []
    if len(found) != len(log.episodes):
        told.append(f"what follows is an episode of its own, {len(found)} instead of {len(log.episodes)}")
    if used < len(log.actions):
        told.append(f"{len(log.actions) - used} of {len(log.actions)} rows are in no episode")
    lost = int(log.ends.sum()) - sum(episode.terminated for episode in found)
    if lost:
        told.append(f"ends for good that are lost with them: {lost}")
    if told:
        warnings.warn(f"{log.path}: rows or numbers are missing: {'; '.join(told)}", stacklevel=2)


def _refuse_steps_after_the_end(log: Log, index: int) -> None:
    rows = log.episodes[index]
    ended = rows[:-1][log.ends[rows[:-1]]]
    if len(ended):
        raise UserError(
            f"{log.where(index)}: it ends in row {int(ended[0]) + 1} and goes on: give what follows another "
            f"{_told(log.layout)}"
        )


def _episode(log: Log, index: int, rows: Rows) -> Episode:
    """Rows that follow one another, as an episode."""
    following = log.following
    steps = rows if following is not None else rows[:-1]
    last = log.observations[rows[-1:]] if following is None else following[rows[-1:]]
    if following is not None and not np.array_equal(following[rows[:-1]], log.observations[rows[1:]]):
        broken = int(np.argmax((following[rows[:-1]] != log.observations[rows[1:]]).any(axis=1)))
        raise UserError(
            f"{log.where(index)}: row {int(rows[broken + 1]) + 1} does not begin where row {int(rows[broken]) + 1} "
            f"ends: give it another {_told(log.layout)}"
        )
    terminated = bool(log.ends[rows[-1]])
    return Episode(
        observations=np.concatenate([log.observations[steps], last]).astype(np.float32),
        actions=log.actions[steps].astype(np.float32),
        rewards=log.rewards[steps].astype(np.float64),
        terminated=terminated,
        truncated=not terminated,
    )


def _told(layout: Layout) -> str:
    return f"value in column {layout.episode!r}" if layout.episode else "file, or name a column with --episode"
