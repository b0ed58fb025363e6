"""Episodes of a Minari file as flat transition rows.

Only observations, actions and flags are ever read from the file: rewards stay unread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.sources import Source

Columns = dict[str, NDArray[Any]]
FIELDS = ("observations", "actions", "terminations", "truncations")


@dataclass(frozen=True)
class Episode:
    """One episode of ``T`` steps.

    Attributes:
        observations: ``(T + 1, observation)`` float32, the last observation included.
        actions: ``(T, action)`` float32.
        terminations: ``(T,)`` bool.
        truncations: ``(T,)`` bool.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.actions)


def column_layout(observation_size: int, action_size: int) -> dict[str, tuple[int, np.dtype[Any]]]:
    """Width and type of every column of a table of transitions."""
    single, flag, integer = np.dtype(np.float32), np.dtype(np.bool_), np.dtype(np.int64)
    return {
        "observation": (observation_size, single),
        "action": (action_size, single),
        "next_observation": (observation_size, single),
        "terminated": (1, flag),
        "truncated": (1, flag),
        "episode": (0, integer),
        "step": (0, integer),
    }


def row_bytes(observation_size: int, action_size: int) -> int:
    """Bytes that one transition takes."""
    return sum(max(1, width) * kind.itemsize for width, kind in column_layout(observation_size, action_size).values())


def column_shape(rows: int, width: int) -> tuple[int, ...]:
    """``(rows, width)``, or ``(rows,)`` for a width of 0."""
    return (rows, width) if width else (rows,)


def write_rows(
    columns: Mapping[str, NDArray[Any]], start: int, episode: Episode, number: int, keep_every: int = 1
) -> int:
    """Write the transitions of one episode, from row ``start`` on; the row after the last one is returned.

    ``terminated`` is as recorded. ``truncated`` is as recorded, and also marks the last step of an episode whose
    recording merely stops, so that the end of every episode can be seen in its rows.

    Of every ``keep_every`` transitions the first is written, each with its own next observation and its ``step`` as
    recorded: rows of one episode follow each other in time only where ``step`` grows by one.
    """
    truncations = episode.truncations.copy()
    truncations[-1] |= not episode.terminations[-1]
    steps = np.arange(0, len(episode), keep_every)
    stop = start + len(steps)
    columns["observation"][start:stop] = episode.observations[steps]
    columns["action"][start:stop] = episode.actions[steps]
    columns["next_observation"][start:stop] = episode.observations[steps + 1]
    columns["terminated"][start:stop, 0] = episode.terminations[steps]
    columns["truncated"][start:stop, 0] = truncations[steps]
    columns["episode"][start:stop] = number
    columns["step"][start:stop] = steps
    return stop


class EpisodeReader:
    """An open Minari file; use it as a context manager.

    Raises:
        DataError: if the file cannot be opened, or lacks what the metadata promises.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            self.file = h5py.File(source.file, "r")
        except OSError as error:
            raise DataError(
                f"dataset {source.id}: cannot open {source.file} ({error}); download or record it again"
            ) from error

    def __enter__(self) -> EpisodeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def lengths(self, episodes: Sequence[int]) -> list[int]:
        """Number of steps of each of the episodes, without reading them."""
        return [len(self._field(self._group(index), index, "actions")) for index in episodes]

    def ended(self, episodes: Sequence[int]) -> list[bool]:
        """Whether the last step of each of the episodes is recorded as terminal, without reading the others."""
        flags = (self._field(self._group(index), index, "terminations") for index in episodes)
        return [bool(len(each) and each[-1]) for each in flags]

    def read(self, episodes: Sequence[int]) -> Iterator[tuple[int, Episode]]:
        """Number and content of each of the episodes, one at a time.

        Raises:
            DataError: if an episode is missing or cannot be read.
        """
        for index in episodes:
            group = self._group(index)
            observations, actions, terminations, truncations = (self._values(group, index, name) for name in FIELDS)
            # Values beyond single precision become infinite here, and are refused as such.
            with np.errstate(over="ignore"):
                yield (
                    index,
                    Episode(
                        observations=observations.astype(np.float32, copy=False),
                        actions=actions.astype(np.float32, copy=False),
                        terminations=terminations.astype(np.bool_, copy=False),
                        truncations=truncations.astype(np.bool_, copy=False),
                    ),
                )

    def _group(self, index: int) -> Any:
        try:
            return self.file[f"episode_{index}"]
        except KeyError as error:
            raise DataError(
                f"dataset {self.source.id}: no episode {index} in {self.source.file}, though its metadata promises "
                f"{self.source.episodes} episodes; the file is incomplete, download or record it again"
            ) from error

    def _field(self, group: Any, index: int, name: str) -> Any:
        field = group.get(name)
        if isinstance(field, h5py.Dataset) and field.ndim > 0:
            return field
        raise DataError(
            f"dataset {self.source.id}: episode {index} has no array {name!r} in {self.source.file}; the file is "
            "incomplete or of another kind, download or record it again"
        )

    def _values(self, group: Any, index: int, name: str) -> NDArray[Any]:
        try:
            return np.asarray(self._field(group, index, name)[()])
        except OSError as error:
            raise DataError(
                f"dataset {self.source.id}: {name} of episode {index} cannot be read ({error}); the file "
                f"{self.source.file} is damaged, download or record it again"
            ) from error
