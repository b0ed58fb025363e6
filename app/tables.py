"""Logs of a system as they come, CSV tables and NumPy archives, as numbers by row."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import UserError
from app.log_files import ENCODING, Column, column, numbers, place, read_columns
from app.log_parts import Rows, Times, in_order, seconds

MISSING = ("refuse", "split")


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
        time: name of the column of times, in whose order the rows of an episode are taken. Where it leaves rows out,
            what follows is an episode of its own.
        reward: name of a column of rewards; it is kept for evaluation, and no training reads it.
        terminated: name of a column that is not 0 where the row's last state ended the episode for good.
        missing: what becomes of a state or an action that is empty or not finite: ``refuse`` it, or ``split`` the
            episode there.
        time_format: how times are written, see ``log_parts.seconds``.
        encoding: of tables, see ``log_files.read_columns``.
    """

    observations: Sequence[str]
    actions: Sequence[str]
    next_observations: Sequence[str] = ()
    episode: str | None = None
    time: str | None = None
    reward: str | None = None
    terminated: str | None = None
    missing: str = MISSING[0]
    time_format: str | None = None
    encoding: str = ENCODING


@dataclass(frozen=True)
class Log:
    """What one file holds, by row; not a number where a cell holds none.

    Attributes:
        path: of the file.
        layout: which of its columns are what.
        observations: ``(T, D)``.
        actions: ``(T, A)``.
        following: the states that follow, ``(T, D)``, if rows hold them.
        rewards: ``(T,)``.
        ends: ``(T,)`` bool.
        names: of its episodes.
        episodes: rows of each, in the order of time where times are told, else in that of the file.
        times: ``(T,)``, if they are told.
    """

    path: Path
    layout: Layout
    observations: NDArray[np.float64]
    actions: NDArray[np.float64]
    following: NDArray[np.float64] | None
    rewards: NDArray[np.float64]
    ends: NDArray[np.bool_]
    names: list[Any]
    episodes: list[Rows]
    times: Times | None

    @property
    def states(self) -> NDArray[np.bool_]:
        """Whether each row's state is known, and the one that follows where rows hold it, ``(T,)``."""
        known = finite(self.observations)
        return known if self.following is None else known & finite(self.following)

    @property
    def steps(self) -> NDArray[np.bool_]:
        """Whether each row is a step, whose action and reward count, ``(T,)``: the last one of an episode is a state.

        Rows that hold what follows are steps all.
        """
        steps = np.ones(len(self.actions), dtype=bool)
        steps[[rows[-1] for rows in self.episodes]] = self.following is not None
        return steps

    @property
    def intervals(self) -> list[Times]:
        """Times from one row of each episode to the next, ``(T - 1,)`` each; none if no times are told."""
        return [] if self.times is None else [np.diff(self.times[rows]) for rows in self.episodes]

    def where(self, episode: int) -> str:
        """Name of an episode, in words."""
        return f"{self.path}, episode {self.names[episode]}" if self.layout.episode else str(self.path)


def read_log(path: Path, layout: Layout) -> Log:
    """Read one file.

    Args:
        path: a table with a header (``.csv``, ``.tsv``) or arrays by name (``.npz``), where a name with two dimensions
            stands for all its columns.
        layout: what is what.

    Raises:
        UserError: naming file, column and row of what cannot be used.
    """
    columns = read_columns(path, layout.encoding)
    _refuse_other_shapes(path, columns, layout)
    _refuse_unnamed_episodes(path, columns, layout)
    split = layout.missing == "split"
    observations, actions = (numbers(path, columns, names, split) for names in (layout.observations, layout.actions))
    following = numbers(path, columns, layout.next_observations, split) if layout.next_observations else None
    if following is not None and following.shape != observations.shape:
        raise UserError(
            f"{path}: states have {observations.shape[1]} features, the states that follow {following.shape[1]}: "
            "name the same ones in the same order"
        )
    nothing = np.zeros((len(actions), 1))
    rewards = numbers(path, columns, [layout.reward]) if layout.reward else nothing
    ends = numbers(path, columns, [layout.terminated]) if layout.terminated else nothing
    names, episodes = _runs(column(path, columns, layout.episode) if layout.episode else nothing[:, 0])
    times = seconds(path, columns, layout.time, layout.time_format) if layout.time is not None else None
    if times is not None:
        episodes = in_order(path, times, episodes)
    ended = np.nan_to_num(ends[:, 0]) != 0
    log = Log(path, layout, observations, actions, following, rewards[:, 0], ended, names, episodes, times)
    _refuse_missing(log, columns, finite(ends))
    _warn_of_precision(log, columns)
    return log


def _warn_of_precision(log: Log, columns: Mapping[str, Column]) -> None:
    """Say so where single precision, in which datasets hold states, cannot tell a feature's steps apart."""
    position = 0
    for name in log.layout.observations:
        width = columns[name].reshape(len(columns[name]), -1).shape[1]
        values = log.observations[:, position : position + width]
        position += width
        largest = np.nanmax(np.abs(values), initial=0.0)
        changes = np.abs(np.diff(values, axis=0))
        usual = np.median(changes[changes > 0.0]) if (changes > 0.0).any() else np.inf
        with np.errstate(over="ignore"):
            told_apart = float(np.spacing(np.float32(largest)))
        if usual < 4.0 * told_apart:
            warnings.warn(
                f"{log.path}: {name} changes by {usual:.3g} from row to row and is as large as {largest:.3g}, where "
                f"single precision tells {told_apart:.3g} apart: take its first value off, or leave it out",
                stacklevel=2,
            )


def finite(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether all features of each row, ``(T, D)``, are finite in what is recorded, ``(T,)``."""
    with np.errstate(over="ignore"):
        return np.asarray(np.isfinite(values.astype(np.float32)).all(axis=1))


def _refuse_missing(log: Log, columns: Mapping[str, Column], end_told: NDArray[np.bool_]) -> None:
    """Refuse cells without a finite number where one is needed: all of them, if no episode is to be split."""
    layout, states, steps = log.layout, log.states, log.steps
    if layout.missing == "split":
        steps = steps & states & finite(log.actions)  # others are no steps
    else:
        advice = "repair it, or have the episode split there with --missing split"
        _refuse_rows(log, columns, (*layout.observations, *layout.next_observations), ~states, advice)
        _refuse_rows(log, columns, layout.actions, steps & ~finite(log.actions), advice)
        states = np.ones_like(states)
    if layout.reward is not None:
        _refuse_rows(log, columns, [layout.reward], steps & ~finite(log.rewards[:, np.newaxis]), "repair it")
    if layout.terminated is not None:
        _refuse_rows(log, columns, [layout.terminated], states & ~end_told, "repair it")


def _refuse_rows(
    log: Log, columns: Mapping[str, Column], names: Sequence[str], missing: NDArray[np.bool_], advice: str
) -> None:
    if not missing.any():
        return
    row = int(missing.argmax())
    values = {name: numbers(log.path, columns, [name])[row : row + 1] for name in names}
    name = next(name for name in names if not finite(values[name])[0])
    what = "missing" if np.isnan(values[name]).any() else "not finite"
    raise UserError(f"{place(log.path, row)}: {name} is {what}: {advice}")


def feature_names(path: Path, names: Sequence[str], encoding: str = ENCODING) -> list[str]:
    """A name for every feature that columns of a file hold: those of a table are numbered, ``pose 0``, ``pose 1``."""
    columns = read_columns(path, encoding)
    found = []
    for name in names:
        width = columns[name].reshape(len(columns[name]), -1).shape[1]
        found += [name] if width == 1 else [f"{name} {index}" for index in range(width)]
    return found


def _refuse_other_shapes(path: Path, columns: Mapping[str, Column], layout: Layout) -> None:
    named = [*layout.observations, *layout.actions, *layout.next_observations]
    single = [name for name in (layout.episode, layout.time, layout.reward, layout.terminated) if name is not None]
    named += single
    lengths = {}
    for name in named:
        values = column(path, columns, name)
        if values.ndim == 0 or len(values) == 0:
            raise UserError(f"{path}: {name} holds no rows")
        if name in single and values.ndim != 1:
            raise UserError(f"{path}: {name} has to be a single column, and is of shape {values.shape}")
        lengths[name] = len(values)
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
            f"{place(path, int(unnamed.argmax()))}: {layout.episode} is empty: say which episode the row belongs to"
        )


def _runs(names: Column) -> tuple[list[Any], list[Rows]]:
    """Names and their rows, in the order of their first ones; rows of one name need not be next to each other."""
    _, first, which = np.unique([_same(name) for name in names], return_index=True, return_inverse=True)
    order = np.argsort(first)
    return [names[first[index]] for index in order], [np.flatnonzero(which == index) for index in order]


def _same(name: Any) -> str:
    """A text that is the same for 0 and 0.0; all else that looks like a number, such as 1e2, may be a name."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(name))
