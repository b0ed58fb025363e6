"""Tables of transitions: in memory, or for data larger than memory as memory-mapped files.

Both are filled by the same pass over the datasets, which holds one episode at a time.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules import checks
from datamodules.edits import NO_EDIT, Edit, add_noise, kept_rows
from datamodules.episodes import Columns, EpisodeReader, column_layout, column_shape, row_bytes, write_rows
from datamodules.errors import DataError
from datamodules.sources import Source

FORMAT_VERSION = 2
DESCRIPTION_FILE = "table.json"
EPISODE_ROWS_FILE = "episode_rows.npy"
SCATTERED_ROWS = 512  # read at a time: each brings 64 KiB of its file into memory


@dataclass(frozen=True)
class Part:
    """Episodes to take from one dataset.

    Attributes:
        source: the dataset.
        episodes: indices in the dataset, sorted.
        first_number: what is added to an index so that no two datasets share an episode number.
        edit: what is left out of these episodes, or spoilt in them, on purpose.
    """

    source: Source
    episodes: tuple[int, ...]
    first_number: int
    edit: Edit = NO_EDIT


class Table:
    """Transitions, episode after episode, in the order of their parts.

    Attributes:
        lengths: rows of every episode, ``(episodes,)``.
        folder: of a table kept in files; ``None`` for one in memory.
    """

    def __init__(self, columns: Columns | None, lengths: NDArray[np.int64], folder: Path | None = None) -> None:
        self.lengths = lengths
        self.folder = folder
        self._columns = None if columns is None else {name: torch.from_numpy(v) for name, v in columns.items()}
        self._maps: list[mmap.mmap] = []

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def columns(self) -> dict[str, Tensor]:
        """The columns as tensors: ``observation, action, next_observation, terminated, truncated, episode, step``.

        Files are opened on the first call in each process.
        """
        if self._columns is None:
            assert self.folder is not None
            # "c" maps privately: nothing written to a tensor could ever reach the file.
            arrays = {
                path.stem: np.load(path, mmap_mode="c")
                for path in sorted(self.folder.glob("*.npy"))
                if path.name != EPISODE_ROWS_FILE
            }
            self._maps = [array._mmap for array in arrays.values()]
            _MAPPED.add(self)
            self._columns = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return self._columns

    def release(self) -> None:
        """Give back the memory that holds what was read of files; reading it again finds it in the system's cache.

        Nothing may have been written to the columns.
        """
        for each in self._maps:
            _release(each)

    def scattered(self, name: str, rows: Tensor) -> Tensor:
        """Rows of a column that lie apart, of which a table in files keeps nothing else in memory."""
        parts = []
        for some in rows.split(SCATTERED_ROWS):
            parts.append(self.columns()[name].index_select(0, some))
            self.release()
        return torch.cat(parts)

    def first_rows(self) -> Tensor:
        """Row of the first step of every episode, ``(episodes,)``."""
        return torch.from_numpy(np.cumsum(self.lengths) - self.lengths)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self.folder is not None:
            state["_columns"], state["_maps"] = None, []  # a worker opens the files itself
        return state


_MAPPED: weakref.WeakSet[Table] = weakref.WeakSet()  # tables whose files are open in this process


def any_table_is_mapped() -> bool:
    """Whether rows that lie apart should be read in portions, with :func:`release_mapped_tables` in between."""
    return len(_MAPPED) > 0


def release_mapped_tables() -> None:
    """:meth:`Table.release` of all, for between reads of :data:`SCATTERED_ROWS`."""
    for table in _MAPPED:
        table.release()


def default_cache_dir() -> Path:
    """``$OFFSIM_CACHE``, else ``offsim`` in the user's cache folder."""
    chosen = os.environ.get("OFFSIM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offsim"


def table_bytes(parts: Sequence[Part], rows: int) -> int:
    """Bytes of a table of the parts with that many rows."""
    return rows * row_bytes(parts[0].source.observation_size, parts[0].source.action_size) if parts else 0


def in_memory(parts: Sequence[Part], lengths: Sequence[Sequence[int]], out_of_bounds: str) -> Table:
    """Read the parts, whose episodes give so many rows, into memory."""
    rows = sum(map(sum, lengths))
    columns: Columns = {
        name: np.empty(column_shape(rows, width), dtype=kind) for name, (width, kind) in _layout(parts).items()
    }
    _warn(parts, lengths, _fill(columns, parts, out_of_bounds), out_of_bounds)
    return Table(columns, _flat(lengths))


def memory_mapped(
    parts: Sequence[Part], lengths: Sequence[Sequence[int]], out_of_bounds: str, cache_dir: Path
) -> Table:
    """Files of the parts, written unless they are there already.

    The folder's name is derived from everything that decides its content: each dataset's id, path, size and time of
    change, the episodes taken, their edits, and what happens to actions outside the bounds. It appears at once and
    complete, also when several processes write it.

    Raises:
        DataError: if the files cannot be written, with what to do.
    """
    folder = cache_dir / "tables" / _key(parts, out_of_bounds)
    flat = _flat(lengths)
    try:
        if not (folder / DESCRIPTION_FILE).is_file():
            _write(folder, parts, flat, out_of_bounds)
        outside = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))["outside"]
    except (OSError, ValueError, KeyError) as error:
        need = table_bytes(parts, int(flat.sum())) / 2**20
        raise DataError(
            f"cannot keep {need:.0f} MB of transitions in {folder} ({error}): set data.cache_dir to a folder with room "
            "that can be written, or raise data.memory_limit_mb to hold them in memory"
        ) from error
    _warn(parts, lengths, outside, out_of_bounds)
    return Table(None, flat, folder)


def episode_lengths(parts: Sequence[Part]) -> list[list[int]]:
    """Rows that every episode of every part gives."""
    lengths = []
    for part in parts:
        with EpisodeReader(part.source) as reader:
            lengths.append([kept_rows(part.edit, steps) for steps in reader.lengths(part.episodes)])
    return lengths


def _layout(parts: Sequence[Part]) -> dict[str, tuple[int, np.dtype[Any]]]:
    return column_layout(parts[0].source.observation_size, parts[0].source.action_size)


def _flat(lengths: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([length for part in lengths for length in part], dtype=np.int64)


def _fill(
    columns: Mapping[str, NDArray[Any]],
    parts: Sequence[Part],
    out_of_bounds: str,
    after_episode: Callable[[], None] = lambda: None,
) -> list[int]:
    """Write all episodes, checked, into the columns; number of rows of each part with actions outside the bounds."""
    row = 0
    outside = []
    for part in parts:
        low, high = part.source.action_space.low, part.source.action_space.high
        outside.append(0)
        with EpisodeReader(part.source) as reader:
            for index, episode in reader.read(part.episodes):
                checks.check_episode(part.source, index, episode)
                outside[-1] += checks.outside_bounds(part.source, episode.actions)
                if out_of_bounds == "clip":
                    np.clip(episode.actions, low, high, out=episode.actions)
                first, number = row, part.first_number + index
                row = write_rows(columns, first, episode, number, part.edit.keep_every)
                written = {name: column[first:row] for name, column in columns.items()}
                add_noise(written, part.edit, number, part.source.action_space)
                after_episode()
    return outside


def _warn(parts: Sequence[Part], lengths: Sequence[Sequence[int]], outside: Sequence[int], out_of_bounds: str) -> None:
    for part, length, count in zip(parts, lengths, outside, strict=True):
        checks.warn_outside_bounds(part.source.id, count, sum(length), out_of_bounds)


def _key(parts: Sequence[Part], out_of_bounds: str) -> str:
    content = [
        FORMAT_VERSION,
        out_of_bounds,
        [[part.source.fingerprint(), part.episodes, part.first_number, astuple(part.edit)] for part in parts],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _write(folder: Path, parts: Sequence[Part], lengths: NDArray[np.int64], out_of_bounds: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        rows = int(lengths.sum())
        columns: Columns = {}
        for name, (width, kind) in _layout(parts).items():
            path = partial / f"{name}.npy"
            columns[name] = np.lib.format.open_memmap(path, "w+", dtype=kind, shape=column_shape(rows, width))
            _reserve(path)
        maps: list[mmap.mmap] = [column._mmap for column in columns.values()]  # type: ignore[attr-defined]

        def release() -> None:
            for each in maps:
                _release(each)

        outside = _fill(columns, parts, out_of_bounds, release)
        for column in columns.values():
            column.flush()  # type: ignore[attr-defined]
        del columns
        description = {"datasets": [part.source.id for part in parts], "rows": rows, "outside": outside}
        (partial / DESCRIPTION_FILE).write_text(json.dumps(description), encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:
            # Another process was faster; what it wrote is the same.
            if not (folder / DESCRIPTION_FILE).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _release(pages: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _reserve(path: Path) -> None:
    """Claim a file's blocks: writing to a mapped file on a full disk would kill the process instead of raising."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
