"""Logs of a system as they come, CSV tables and NumPy archives, as episodes."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import UserError
from zoo.episodes import Episode

Column = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """Which columns of a log are what. A row holds a state and the action that was taken in it.

    The last row of an episode is its last state, whose action leads nowhere and is left out; with
    ``next_observations`` each row holds the state that follows as well, and its action counts.

    Attributes:
        observations: names of the features of a state.
        actions: names of the features of an action.
        next_observations: names of the features of the state that follows, if rows hold it.
        episode: name of the column that tells episodes of one file apart; without one a file is an episode.
        reward: name of a column of rewards; it is kept for evaluation, and no training reads it.
        terminated: name of a column that is not 0 where the row's last state ended the episode for good.
    """

    observations: Sequence[str]
    actions: Sequence[str]
    next_observations: Sequence[str] = ()
    episode: str | None = None
    reward: str | None = None
    terminated: str | None = None


def read_episodes(path: Path, layout: Layout) -> list[Episode]:
    """The episodes of one file, in the order of their first rows.

    Args:
        path: a table with a header (``.csv``, ``.tsv``) or arrays by name (``.npz``), where a name with two dimensions
            stands for all its columns.
        layout: what is what.

    Raises:
        UserError: naming file, column and row of what cannot be used.
    """
    columns = _read(path)
    _refuse_other_shapes(path, columns, layout)
    _refuse_unnamed_episodes(path, columns, layout)
    observations = _numbers(path, columns, layout.observations)
    actions = _numbers(path, columns, layout.actions)
    following = _numbers(path, columns, layout.next_observations) if layout.next_observations else None
    if following is not None and following.shape != observations.shape:
        raise UserError(
            f"{path}: states have {observations.shape[1]} features, the states that follow {following.shape[1]}: "
            "name the same ones in the same order"
        )
    rewards = _numbers(path, columns, [layout.reward])[:, 0] if layout.reward else np.zeros(len(observations))
    ends = _numbers(path, columns, [layout.terminated])[:, 0] != 0 if layout.terminated else rewards * 0 != 0
    names = _column(path, columns, layout.episode) if layout.episode else np.zeros(len(observations))
    found = []
    for name, rows in _runs(names):
        where = f"{path}, episode {name}" if layout.episode else str(path)
        if following is None and len(rows) < 2:
            raise UserError(
                f"{where}: one row is no step: an episode has at least two, a state and the one that follows"
            )
        steps = rows if following is not None else rows[:-1]
        if (ends[rows[:-1]]).any():
            row = int(rows[:-1][ends[rows[:-1]]][0])
            raise UserError(f"{where}: it ends in row {row + 1} and goes on: give what follows another {_told(layout)}")
        last = observations[rows[-1:]] if following is None else following[rows[-1:]]
        if following is not None and not np.array_equal(following[rows[:-1]], observations[rows[1:]]):
            broken = int(np.argmax((following[rows[:-1]] != observations[rows[1:]]).any(axis=1)))
            raise UserError(
                f"{where}: row {int(rows[broken]) + 2} does not begin where row {int(rows[broken]) + 1} ends: "
                f"give it another {_told(layout)}"
            )
        found.append(
            Episode(
                observations=np.concatenate([observations[steps], last]).astype(np.float32),
                actions=actions[steps].astype(np.float32),
                rewards=rewards[steps].astype(np.float64),
                terminated=bool(ends[rows[-1]]),
                truncated=not bool(ends[rows[-1]]),
            )
        )
    return found


def feature_names(path: Path, names: Sequence[str]) -> list[str]:
    """A name for every feature that columns of a file hold: those of a table are numbered, ``pose 0``, ``pose 1``."""
    columns = _read(path)
    found = []
    for name in names:
        width = columns[name].reshape(len(columns[name]), -1).shape[1]
        found += [name] if width == 1 else [f"{name} {index}" for index in range(width)]
    return found


def _refuse_other_shapes(path: Path, columns: Mapping[str, Column], layout: Layout) -> None:
    named = [*layout.observations, *layout.actions, *layout.next_observations]
    named += [name for name in (layout.episode, layout.reward, layout.terminated) if name is not None]
    lengths = {}
    for name in named:
        column = _column(path, columns, name)
        if column.ndim == 0 or len(column) == 0:
            raise UserError(f"{path}: {name} holds no rows")
        if name in (layout.episode, layout.reward, layout.terminated) and column.ndim != 1:
            raise UserError(f"{path}: {name} has to be a single column, and is of shape {column.shape}")
        lengths[name] = len(column)
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in lengths.items())
        raise UserError(f"{path}: the arrays differ in length: {told}")


def _refuse_unnamed_episodes(path: Path, columns: Mapping[str, Column], layout: Layout) -> None:
    if layout.episode is None:
        return
    names = columns[layout.episode]
    unnamed = np.array([str(name).strip().lower() in ("", "nan") for name in names])
    if unnamed.any():
        raise UserError(
            f"{path}, row {int(unnamed.argmax()) + 1}: {layout.episode} is empty: say which episode the row belongs to"
        )


def _told(layout: Layout) -> str:
    return f"value in column {layout.episode!r}" if layout.episode else "file, or name a column with --episode"


def _runs(names: Column) -> list[tuple[Any, NDArray[np.intp]]]:
    """Names and their rows, in the order of their first ones; rows of one name need not be next to each other."""
    _, first, which = np.unique([_same(name) for name in names], return_index=True, return_inverse=True)
    return [(names[first[index]], np.flatnonzero(which == index)) for index in np.argsort(first)]


def _same(name: Any) -> str:
    """A text that is the same for 0 and 0.0; all else that looks like a number, such as 1e2, may be a name."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(name))


def _read(path: Path) -> Mapping[str, Column]:
    kind = path.suffix.lower()
    if kind == ".npz":
        return _read_archive(path)
    if kind not in (".csv", ".tsv"):
        raise UserError(f"{path} is no .csv, .tsv or .npz file: write the log as one of these")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t" if kind == ".tsv" else ","))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    while rows and not rows[-1]:  # many loggers end with an empty line
        rows.pop()
    header, rows = (rows[0], rows[1:]) if rows else ([], [])
    names = [name.strip() for name in header]
    if len(rows) < 1 or not all(names) or len(set(names)) != len(names):
        raise UserError(f"{path} is no table: its first line has to name every column once, and rows have to follow")
    for index, row in enumerate(rows):
        if len(row) != len(names):
            raise UserError(f"{path}, row {index + 1}: it has {len(row)} cells, where the header names {len(names)}")
    return {name: np.array([row[index].strip() for row in rows]) for index, name in enumerate(names)}


def _read_archive(path: Path) -> Mapping[str, Column]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except Exception as error:  # a damaged archive has zipfile, zlib and NumPy raise many kinds
        raise UserError(f"cannot read {path}: {error or type(error).__name__}") from error


def _column(path: Path, columns: Mapping[str, Column], name: str) -> Column:
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(columns)}"
        raise UserError(f"{path} has no {name!r}: {hint}")
    return columns[name]


def _numbers(path: Path, columns: Mapping[str, Column], names: Sequence[str]) -> NDArray[np.float64]:
    """Columns as finite numbers, ``(T, features)``."""
    parts = []
    for name in names:
        values = _column(path, columns, name)
        if values.ndim not in (1, 2) or values.dtype.kind not in "biufU":
            raise UserError(f"{path}: {name} is no column of real numbers, nor a table of them")
        try:
            numbers = values.astype(np.float64).reshape(len(values), -1)
        except ValueError:
            row = next(index for index, cell in enumerate(values) if not _is_number(cell))
            raise UserError(f"{path}, row {row + 1}: {name} is {str(values[row])!r}, which is no number") from None
        with np.errstate(over="ignore"):
            stored = numbers.astype(np.float32)  # what is recorded
        if not np.isfinite(stored).all():
            row = int(np.argmin(np.isfinite(stored).all(axis=1)))
            raise UserError(f"{path}, row {row + 1}: {name} is not finite: leave the row out, or repair it")
        parts.append(numbers)
    return np.concatenate(parts, axis=1)


def _is_number(cells: Any) -> bool:
    try:
        np.asarray(cells).astype(np.float64)
    except ValueError:
        return False
    return True
