"""Logs at other times than a step's, brought to equal intervals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.errors import UserError
from app.log_parts import Rows, Times, whole_parts
from app.tables import Layout, Log, finite

BREAK = 3.0  # times the longer of both intervals, beyond which nothing is known between two rows
ROUNDING = 1e-6  # of an interval, by which times may miss the last step


def refuse_resampling(interval: float, layout: Layout) -> None:
    """Refuse what cannot be brought to other times.

    Raises:
        UserError: naming it.
    """
    if not (math.isfinite(interval) and interval > 0):
        raise UserError(
            f"--resample is {interval}: give the time of a step, above 0, in seconds or the column's own unit"
        )
    for given, name in ((layout.next_observations, "--next-observations"), (layout.reward, "--reward")):
        if given:
            raise UserError(f"--resample and {name} do not go together: bring such logs to equal intervals yourself")
    if layout.time is None:
        raise UserError("--resample needs to know when rows were recorded: name the column of times with --time")


def resampled(log: Log, interval: float) -> Log:
    """A log whose rows follow one another after equal times, from the first row of each episode on.

    States between two rows lie on the straight line from the one to the other, but features that hold whole numbers
    alone, such as those of switches, are what they were last, as actions are. What is between rows that are far apart,
    or that lack a number, is not made up: what follows is an episode of its own.

    Args:
        log: with times.
        interval: between rows, in the unit of the times.
    """
    assert log.times is not None
    states, actions = log.states, finite(log.actions)
    parts: list[tuple[Times, Rows, int]] = []
    for index, (rows, intervals) in enumerate(zip(log.episodes, log.intervals, strict=True)):
        usual = max(interval, float(np.median(intervals))) if len(intervals) else interval
        for part in whole_parts(rows, intervals > BREAK * usual, states[rows], actions[rows]):
            first, last = log.times[part[0]], log.times[part[-1]]
            steps = math.floor((last - first) / interval + ROUNDING)
            parts.append((first + interval * np.arange(steps + 1), part, index))
    if not parts:
        raise UserError(f"{log.path}: no row has a whole state and action: leave it out, or repair it")
    parts = [each for each in parts if len(each[0]) > 1] or parts  # of a single row nothing follows
    known = log.observations[states]
    switches = (known == np.round(known)).all(axis=0)
    observations, held, ends = [], [], []
    for times, part, _ in parts:
        last = np.searchsorted(log.times[part], times + ROUNDING * interval, side="right") - 1
        lines = [np.interp(times, log.times[part], feature) for feature in log.observations[part].T]
        observations.append(np.where(switches, log.observations[part][last], np.stack(lines, axis=1)))
        held.append(log.actions[part][last])
        ends.append(np.append(np.zeros(len(times) - 1, dtype=bool), log.ends[part[-1]]))
    counts = np.cumsum([0, *(len(times) for times, _, _ in parts)])
    return replace(
        log,
        observations=np.concatenate(observations),
        actions=np.concatenate(held),
        rewards=np.zeros(counts[-1]),
        ends=np.concatenate(ends),
        names=[log.names[index] for _, _, index in parts],
        episodes=[np.arange(start, end) for start, end in itertools.pairwise(counts)],
        times=np.concatenate([times for times, _, _ in parts]),
    )


def say_resampled(path: Path, before: Log, after: Log) -> str:
    """How many rows and episodes a file had, and has."""
    rows = f"{len(before.actions):,} rows at their times are {len(after.actions):,} at equal ones"
    more = f", in {len(after.episodes)} episodes" if len(after.episodes) != len(before.episodes) else ""
    return f"{path}: {rows}{more}"
