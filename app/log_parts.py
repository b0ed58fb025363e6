"""Where the rows of an episode do not follow one another: gaps in time, and cells without a number."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import UserError
from app.log_files import Column, column, place

Rows = NDArray[np.intp]
Times = NDArray[np.float64]
GAP = 1.5  # times the usual interval between rows, beyond which rows are missing
DIGITS = re.compile(r"(19|20)\d{10}(\d{2})?")  # dates such as 202405011200 and 20240501120000
JITTER = 0.1  # share of it by which an interval may differ and nothing is said
FEW_GAPS = 0.1  # share of the intervals; with more of them a log has no steps of one length


def seconds(path: Path, columns: Mapping[str, Column], name: str, form: str | None = None) -> Times:
    """A column of times, ``(T,)``: dates in seconds, numbers as they are, both from the first one on.

    Args:
        path: of the file.
        columns: of it.
        name: of the column.
        form: how it writes dates, in the manner of ``datetime.strptime``.

    Raises:
        UserError: if a cell is not of that form; without one, if it is neither a number nor a date in the form of
            ISO 8601 or in digits, as 20240501120000.
    """
    values = column(path, columns, name)
    if values.ndim != 1 or values.dtype.kind not in "biufUM":
        raise UserError(f"{path}: {name} has to be a single column of times")
    if values.dtype.kind == "M":
        if np.isnat(values).any():
            raise UserError(f"{place(path, int(np.isnat(values).argmax()))}: {name} is missing")
        return np.asarray((values - values[0]).astype("timedelta64[ns]").astype(np.int64) * 1e-9, dtype=np.float64)
    texts = [str(value).strip() for value in values]
    if form is not None:
        return _from_first([_of_form(path, row, name, text, form) for row, text in enumerate(texts)])
    digits = all(DIGITS.fullmatch(text) for text in texts)  # one alone may be a number
    times = [_seconds(path, row, name, text, digits) for row, text in enumerate(texts)]
    return _from_first(times)


def _from_first(times: Sequence[int | float]) -> Times:
    return np.array([float(time - times[0]) for time in times], dtype=np.float64)


def _of_form(path: Path, row: int, name: str, text: str, form: str) -> float:
    try:
        return _since_epoch(datetime.strptime(text, form))
    except ValueError:
        raise UserError(f"{place(path, row)}: {name} is {text!r}, which is not of the form {form!r}") from None


def _seconds(path: Path, row: int, name: str, text: str, digits: bool) -> int | float:
    try:
        time: int | float = int(text) if text.lstrip("+-").isdecimal() else float(text)
        if not digits:
            if not math.isfinite(time):
                raise UserError(f"{place(path, row)}: {name} is not finite")
            return time
    except ValueError:
        pass
    try:
        date = datetime.strptime(text, "%Y%m%d%H%M%S"[: len(text) - 2]) if digits else datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{place(path, row)}: {name} is {text!r}, which is neither a number nor a time such as "
            "2024-05-01T12:00:00: say how it is written, such as --time-format '%d.%m.%Y %H:%M:%S'"
        ) from None
    return _since_epoch(date)


def _since_epoch(date: datetime) -> float:
    """Seconds; without a zone it is taken for universal time, in which no hour is skipped or repeated."""
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


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
            raise UserError(
                f"{place(path, second)}: it is of the same time as row {first + 1}: keep one of them, or write "
                "times as finely as rows follow one another, and with their zone where clocks are put back"
            )
    return ordered


def gaps(path: Path, intervals: Sequence[Times], usual: float) -> list[NDArray[np.bool_]]:
    """Whether each row of an episode but the last is followed after another time than the usual one, ``(T - 1,)``.

    Args:
        path: of the file.
        intervals: times from one row of each of its episodes to the next, ``(T - 1,)`` each.
        usual: time from one row to the next where none is missing.

    Raises:
        UserError: if intervals are of all lengths, so that a row is no step.
    """
    uneven = [(own > GAP * usual) | (own < usual / GAP) for own in intervals]
    every, others = np.concatenate(intervals), np.concatenate(uneven)
    if others.sum() > max(FEW_GAPS * len(every), 2) or others.sum() > 0.5 * len(every):
        raise UserError(
            f"{path}: {others.mean():.0%} of its rows follow one another after another time than the usual "
            f"{usual:.4g}, after {every.min():.4g} to {every.max():.4g}: a step has to be of one length, so bring all "
            "logs to equal intervals first (--resample)"
        )
    within = every[~others]
    apart = np.abs(within - usual) > JITTER * usual
    if apart.sum() > FEW_GAPS * len(within):
        warnings.warn(
            f"{path}: rows follow one another after {within.min():.4g} to {within.max():.4g}, usually {usual:.4g}; "
            "every step is taken for one of that length, so a simulator takes what differs for chance: bring logs to "
            "equal intervals first (--resample) if that is much",
            stacklevel=2,
        )
    return uneven


def whole_parts(rows: Rows, gap: NDArray[np.bool_], state: NDArray[np.bool_], action: NDArray[np.bool_]) -> list[Rows]:
    """The rows of an episode in parts within which each row follows the one before.

    Args:
        rows: in order, ``(T,)``.
        gap: whether something is missing between a row and the next, ``(T - 1,)``.
        state: whether each row's state is known, ``(T,)``; rows without one are in no part.
        action: whether its action is, ``(T,)``; a row without one ends its part.
    """
    ends = np.flatnonzero(gap | ~action[:-1] | ~state[1:]) + 1
    parts = zip(np.split(rows, ends), np.split(state, ends), strict=True)
    return [part[known] for part, known in parts if known.any()]
