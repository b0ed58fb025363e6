"""Logs of a system as they come, CSV tables and NumPy archives, as episodes."""

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
from app.log_files import Column, column, numbers, place, read_columns
from app.log_parts import Rows, gaps, in_order, seconds, usual_interval, whole_parts
from zoo.episodes import Episode

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
    """

    observations: Sequence[str]
    actions: Sequence[str]
    next_observations: Sequence[str] = ()
    episode: str | None = None
    time: str | None = None
    reward: str | None = None
    terminated: str | None = None
    missing: str = MISSING[0]


@dataclass(frozen=True)
class _Table:
    """The numbers of a file, by row; not a number where there is none."""

    observations: NDArray[np.float64]
    actions: NDArray[np.float64]
    following: NDArray[np.float64] | None
    rewards: NDArray[np.float64]
    ends: NDArray[np.bool_]


def read_episodes(path: Path, layout: Layout, interval: float | None = None) -> list[Episode]:
    """The episodes of one file, in the order of their first rows.

    Args:
        path: a table with a header (``.csv``, ``.tsv``) or arrays by name (``.npz``), where a name with two dimensions
            stands for all its columns.
        layout: what is what.
        interval: time from one row to the next; ``None``: what is usual in this file.

    Raises:
        UserError: naming file, column and row of what cannot be used.
    """
    columns = read_columns(path)
    _refuse_other_shapes(path, columns, layout)
    _refuse_unnamed_episodes(path, columns, layout)
    table = _table(path, columns, layout)
    names, episodes = _runs(column(path, columns, layout.episode) if layout.episode else np.zeros(len(table.actions)))
    apart = [np.zeros(len(rows) - 1, dtype=bool) for rows in episodes]
    if layout.time is not None:
        times = seconds(path, columns, layout.time)
        episodes = in_order(path, times, episodes)
        apart = gaps(path, times, episodes, usual_interval(times, episodes) if interval is None else interval)
    alone = table.following is not None  # a row that holds what follows is a step alone
    steps = np.ones(len(table.actions), dtype=bool)
    steps[[rows[-1] for rows in episodes]] = alone  # of the others the last row is none
    _refuse_missing(path, columns, layout, steps)
    state, action = _known(table.observations), _known(table.actions)
    if table.following is not None:
        state = action = state & action & _known(table.following)
    found: list[Episode] = []
    for name, rows, gap in zip(names, episodes, apart, strict=True):
        where = f"{path}, episode {name}" if layout.episode else str(path)
        if len(rows) == 1 and not alone:
            raise UserError(
                f"{where}: one row is no step: an episode has at least two, a state and the one that follows"
            )
        _refuse_steps_after_the_end(where, table, rows, layout)
        parts = [part for part in whole_parts(rows, gap, state[rows], action[rows]) if alone or len(part) > 1]
        if not parts:
            raise UserError(f"{where}: none of its rows follows another: leave it out, or repair it")
        found += [_episode(where, table, part, layout) for part in parts]
    if len(found) > len(episodes):
        warnings.warn(
            f"{path}: rows or numbers are missing, and what follows is an episode of its own: {len(found)} episodes, "
            f"where it has {len(episodes)}",
            stacklevel=2,
        )
    return found


def interval_of(path: Path, layout: Layout) -> float | None:
    """The usual time from one row of a file to the next, ``None`` if none is told."""
    if layout.time is None:
        return None
    columns = read_columns(path)
    _refuse_other_shapes(path, columns, layout)
    times = seconds(path, columns, layout.time)
    names = column(path, columns, layout.episode) if layout.episode else np.zeros(len(times))
    usual = usual_interval(times, in_order(path, times, _runs(names)[1]))
    return usual if np.isfinite(usual) else None


def _table(path: Path, columns: Mapping[str, Column], layout: Layout) -> _Table:
    observations = numbers(path, columns, layout.observations)
    following = numbers(path, columns, layout.next_observations) if layout.next_observations else None
    if following is not None and following.shape != observations.shape:
        raise UserError(
            f"{path}: states have {observations.shape[1]} features, the states that follow {following.shape[1]}: "
            "name the same ones in the same order"
        )
    rewards = numbers(path, columns, [layout.reward])[:, 0] if layout.reward else np.zeros(len(observations))
    ends = numbers(path, columns, [layout.terminated])[:, 0] if layout.terminated else np.zeros(len(observations))
    return _Table(observations, numbers(path, columns, layout.actions), following, rewards, ends != 0)


def _known(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether all features of each row are finite in what is recorded, ``(T,)``."""
    with np.errstate(over="ignore"):
        return np.asarray(np.isfinite(values.astype(np.float32)).all(axis=1))


def _refuse_missing(path: Path, columns: Mapping[str, Column], layout: Layout, steps: NDArray[np.bool_]) -> None:
    """Refuse cells without a finite number where one is needed and no episode is to be split.

    Args:
        path: of the file.
        columns: its columns.
        layout: what is what.
        steps: whether each row is a step, whose action and reward count, ``(T,)``.
    """
    split = layout.missing == "split"
    advice = "repair it, or have the episode split there with --missing split"
    everywhere = np.ones_like(steps)
    states, actions = (*layout.observations, *layout.next_observations), layout.actions
    needed = [] if split else [(name, advice, everywhere) for name in states]
    needed += [] if split else [(name, advice, steps) for name in actions]
    needed += [(layout.terminated, "repair it", everywhere)] if layout.terminated else []
    needed += [(layout.reward, "repair it", steps)] if layout.reward else []
    for name, told, where in needed:
        values = numbers(path, columns, [name])
        missing = ~_known(values) & where
        if missing.any():
            row = int(missing.argmax())
            what = "missing" if np.isnan(values[row]).any() else "not finite"
            raise UserError(f"{place(path, row)}: {name} is {what}: {told}")


def _refuse_steps_after_the_end(where: str, table: _Table, rows: Rows, layout: Layout) -> None:
    if table.ends[rows[:-1]].any():
        row = int(rows[:-1][table.ends[rows[:-1]]][0])
        raise UserError(f"{where}: it ends in row {row + 1} and goes on: give what follows another {_told(layout)}")


def _episode(where: str, table: _Table, rows: Rows, layout: Layout) -> Episode:
    """Rows that follow one another, as an episode."""
    following = table.following
    steps = rows if following is not None else rows[:-1]
    last = table.observations[rows[-1:]] if following is None else following[rows[-1:]]
    if following is not None and not np.array_equal(following[rows[:-1]], table.observations[rows[1:]]):
        broken = int(np.argmax((following[rows[:-1]] != table.observations[rows[1:]]).any(axis=1)))
        raise UserError(
            f"{where}: row {int(rows[broken + 1]) + 1} does not begin where row {int(rows[broken]) + 1} ends: "
            f"give it another {_told(layout)}"
        )
    terminated = bool(table.ends[rows[-1]])
    return Episode(
        observations=np.concatenate([table.observations[steps], last]).astype(np.float32),
        actions=table.actions[steps].astype(np.float32),
        rewards=table.rewards[steps].astype(np.float64),
        terminated=terminated,
        truncated=not terminated,
    )


def feature_names(path: Path, names: Sequence[str]) -> list[str]:
    """A name for every feature that columns of a file hold: those of a table are numbered, ``pose 0``, ``pose 1``."""
    columns = read_columns(path)
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


def _told(layout: Layout) -> str:
    return f"value in column {layout.episode!r}" if layout.episode else "file, or name a column with --episode"


def _runs(names: Column) -> tuple[list[Any], list[Rows]]:
    """Names and their rows, in the order of their first ones; rows of one name need not be next to each other."""
    _, first, which = np.unique([_same(name) for name in names], return_index=True, return_inverse=True)
    order = np.argsort(first)
    return [names[first[index]] for index in order], [np.flatnonzero(which == index) for index in order]


def _same(name: Any) -> str:
    """A text that is the same for 0 and 0.0; all else that looks like a number, such as 1e2, may be a name."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(name))
