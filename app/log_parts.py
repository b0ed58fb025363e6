"""Where the rows of an episode do not follow one another: gaps in time, and cells without a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import UserError
from app.log_files import Column, column, place

Rows = NDArray[np.intp]
Times = NDArray[np.float64]
GAP = 1.5  # times the usual interval between rows, beyond which rows are missing
FEW_GAPS = 0.1  # share of the intervals; with more of them a log has no steps of one length


def seconds(path: Path, columns: Mapping[str, Column], name: str) -> Times:
    """A column of times, ``(T,)``: numbers as they are, dates in seconds.

    Raises:
        UserError: if a cell is neither a number nor a date in the form of ISO 8601.
    """
    values = column(path, columns, name)
    if values.ndim != 1 or values.dtype.kind not in "biufUM":
        raise UserError(f"{path}: {name} has to be a single column of times")
    if values.dtype.kind == "M":
        return np.asarray(values.astype("datetime64[us]").astype(np.int64) * 1e-6, dtype=np.float64)
    return np.array([_seconds(path, row, name, value) for row, value in enumerate(values)], dtype=np.float64)


def _seconds(path: Path, row: int, name: str, value: Any) -> float:
    try:
        time = float(value)
    except ValueError:
        try:
            date = datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise UserError(
                f"{place(path, row)}: {name} is {str(value)!r}, which is neither a number nor a time such as "
                "2024-05-01T12:00:00"
            ) from None
        # Without a zone it is taken for universal time, in which no hour is skipped or repeated
        time = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not np.isfinite(time):
        raise UserError(f"{place(path, row)}: {name} is not finite")
    return time


def in_order(path: Path, times: Times, episodes: Sequence[Rows]) -> list[Rows]:
    """The rows of each episode in the order of time.

    Raises:
        UserError: if two rows of one are of the same time.
    """
    ordered = [rows[np.argsort(times[rows], kind="stable")] for rows in episodes]
    for rows in ordered:
        same = np.flatnonzero(np.diff(times[rows]) == 0.0)
        if len(same):
            first, second = int(rows[same[0]]), int(rows[same[0] + 1])
            raise UserError(f"{place(path, second)}: it is of the same time as row {first + 1}: keep one of them")
    return ordered


def usual_interval(times: Times, episodes: Sequence[Rows]) -> float:
    """Median time from one row of an episode to the next; NaN if no episode has two."""
    every = np.concatenate([np.diff(times[rows]) for rows in episodes])
    return float(np.median(every)) if len(every) else math.nan


def gaps(path: Path, times: Times, episodes: Sequence[Rows], usual: float) -> list[NDArray[np.bool_]]:
    """Whether rows are missing after each row of an episode but the last, ``(T - 1,)``.

    Args:
        path: of the file.
        times: of all its rows.
        episodes: rows of each, in the order of time.
        usual: time from one row to the next where none is missing.

    Raises:
        UserError: if intervals are of all lengths, so that a row is no step.
    """
    intervals = [np.diff(times[rows]) for rows in episodes]
    every = np.concatenate(intervals)
    uneven = (every > GAP * usual) | (every < usual / GAP)
    if uneven.sum() > max(FEW_GAPS * len(every), 2):
        raise UserError(
            f"{path}: {uneven.mean():.0%} of its rows follow one another after another time than the usual "
            f"{usual:.4g}, after {every.min():.4g} to {every.max():.4g}: a step has to be of one length, so bring all "
            "logs to equal intervals first"
        )
    return [own > GAP * usual for own in intervals]


def whole_parts(rows: Rows, gap: NDArray[np.bool_], state: NDArray[np.bool_], action: NDArray[np.bool_]) -> list[Rows]:
    """The rows of an episode in parts within which each row follows the one before.

    Args:
        rows: in order, ``(T,)``.
        gap: whether something is missing between a row and the next, ``(T - 1,)``.
        state: whether each row's state is known, ``(T,)``; rows without one are in no part.
        action: whether its action is, ``(T,)``; a row without one ends its part.
    """
    broken = gap | ~action[:-1] | ~state[1:]
    part = np.concatenate([[0], np.cumsum(broken)])
    return [rows[(part == number) & state] for number in np.unique(part[state])]
