"""Endless batches of transitions.

What a batch holds depends on the seed, the rank and their number, and its own number, never on what was drawn before
it: a resumed run goes on with the very batches it would have seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.cache import Table
from datamodules.errors import DataError

Batch = dict[str, TensorDict]

# Blocks this long are read together from disk, and this many of them are shuffled together.
CHUNK_ROWS = 4096
CHUNKS_SHUFFLED_TOGETHER = 16


@dataclass(frozen=True)
class Stream:
    """Rows ``start`` to ``stop`` of a table, ``rows`` of them per update.

    ``chunked`` rows come in shuffled chunks instead of one by one: that keeps reads from disk together.
    """

    start: int
    stop: int
    rows: int
    chunked: bool = False


def random_rows(
    stream: Stream, updates: int, numbers: Iterator[int], key: tuple[int, ...], rank: int = 0, world_size: int = 1
) -> Iterator[Tensor]:
    """Uniform row ids for each batch number, ``(updates * rows,)`` int64, every batch from a generator of its own.

    Ranks have their shares of the same draw: together they see what one process of as many times the rows would.
    """
    share = slice(rank * stream.rows, (rank + 1) * stream.rows)
    for number in numbers:
        generator = _generator(*key, number)
        drawn = torch.randint(stream.start, stream.stop, (updates, world_size * stream.rows), generator=generator)
        yield drawn[:, share].flatten()


def chunked_rows(
    stream: Stream,
    count: int,
    shard: int,
    shards: int,
    skipped: int,
    seed: int,
    chunk_rows: int = CHUNK_ROWS,
    together: int = CHUNKS_SHUFFLED_TOGETHER,
) -> Iterator[Tensor]:
    """``count`` row ids at a time, ``(count,)`` int64, from this shard's chunks of each pass over the rows.

    In each pass every chunk belongs to exactly one shard.

    Args:
        stream: the rows.
        count: ids per batch.
        shard: which of the shards this is.
        shards: number of shards.
        skipped: batches to leave out at the beginning; costs next to nothing.
        seed: decides the order.
        chunk_rows: rows per chunk; fewer if there would be too few chunks for the shards.
        together: chunks whose rows are shuffled together.

    Raises:
        DataError: if there are fewer rows than shards.
    """
    total = stream.stop - stream.start
    if total < shards:
        raise DataError(f"{total} rows cannot be divided among {shards} processes and workers: use fewer of them")
    size = min(chunk_rows, total // shards)
    starts = np.arange(stream.start, stream.stop, size)
    stops = np.minimum(starts + size, stream.stop)
    waiting = torch.zeros(0, dtype=torch.long)
    to_skip = skipped * count
    for pass_number in itertools.count():
        order = np.random.default_rng([seed, pass_number]).permutation(len(starts))[shard::shards]
        for first in range(0, len(order), together):
            chosen = order[first : first + together]
            length = int((stops[chosen] - starts[chosen]).sum())
            if to_skip >= length:
                to_skip -= length
                continue
            ids = torch.cat([torch.arange(starts[index], stops[index]) for index in chosen])
            shuffled = ids[torch.randperm(length, generator=_generator(seed, pass_number, shard, first))]
            waiting = torch.cat([waiting, shuffled[to_skip:]])
            to_skip = 0
            while len(waiting) >= count:
                yield waiting[:count]
                waiting = waiting[count:]


class TransitionStream(IterableDataset[Batch]):
    """Endless batches from a table: for every stream a TensorDict of batch size ``[updates, rows]``.

    Args:
        table: all training rows.
        streams: what to draw, by name.
        updates: leading size of a batch.
        seed: decides all draws.
        rank: which of the processes this is; each draws differently.
        world_size: number of processes.
    """

    def __init__(
        self,
        table: Table,
        streams: Mapping[str, Stream],
        updates: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.table = table
        self.streams = dict(streams)
        self.updates = updates
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.first_batch = 0

    def __iter__(self) -> Iterator[Batch]:
        """Batches number ``first_batch`` and on; of several workers each yields its share, in turn."""
        information = get_worker_info()
        workers, worker = (information.num_workers, information.id) if information is not None else (1, 0)
        first = self.first_batch + worker
        columns = self.table.columns()
        rows = {
            name: self._rows(index, stream, first, workers) for index, (name, stream) in enumerate(self.streams.items())
        }
        freely = max((each.stop - each.start for each in self.streams.values() if not each.chunked), default=0)
        release = freely <= CHUNK_ROWS * CHUNKS_SHUFFLED_TOGETHER  # a longer part stays in memory, to be drawn from
        while True:
            yield {
                name: gather(columns, next(rows[name]), (self.updates, stream.rows))
                for name, stream in self.streams.items()
            }
            if release:
                self.table.release()

    def _rows(self, index: int, stream: Stream, first: int, workers: int) -> Iterator[Tensor]:
        if not stream.chunked:
            numbers, key = itertools.count(first, workers), (self.seed, 0, index)
            return random_rows(stream, self.updates, numbers, key, self.rank, self.world_size)
        count = self.updates * stream.rows
        # Batch b comes from shard b mod workers, also after resuming at any b.
        shard = self.rank * workers + first % workers
        return chunked_rows(stream, count, shard, self.world_size * workers, first // workers, self.seed)


class TransitionLoader(DataLoader[Batch]):
    """Loader that goes on where training stands, at a new epoch and after resuming.

    Args:
        stream: the batches.
        workers: processes that prepare them; 0 prepares them in this one.
        batches_done: number of batches that were trained on so far, asked at the start of every iteration.
    """

    dataset: TransitionStream

    def __init__(self, stream: TransitionStream, workers: int, batches_done: Callable[[], int]) -> None:
        # A generator of its own: a loader without one draws from the global generator whenever it is iterated.
        super().__init__(stream, batch_size=None, num_workers=workers, collate_fn=identity, generator=torch.Generator())
        self._batches_done = batches_done

    def __iter__(self) -> Any:
        self.dataset.first_batch = self._batches_done()
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning's own count of batches is all that resuming needs. Tells Lightning that we resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def identity(batch: Any) -> Any:
    """Batches are made whole; the default collation mistakes a TensorDict for a dict."""
    return batch


def gather(columns: Mapping[str, Tensor], row: Tensor, shape: tuple[int, ...]) -> TensorDict:
    """Rows of a table as a batch of the given shape, which has ``len(row)`` elements, without episode and step."""

    def column(name: str) -> Tensor:
        return columns[name].index_select(0, row).view(*shape, -1)

    following = {
        "observation": column("next_observation"),
        "terminated": column("terminated"),
        "truncated": column("truncated"),
    }
    return TensorDict(
        {
            "observation": column("observation"),
            "action": column("action"),
            "next": TensorDict(following, batch_size=shape),
            "row": row.view(shape),
        },
        batch_size=shape,
    )


def _generator(*key: int) -> torch.Generator:
    """Generator whose numbers depend on all of the key; neighbouring keys are unrelated."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
