"""Endless draws: the same for the same seed, different between processes, every row of every chunk once per pass."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import DataError
from datamodules.cache import Part, Table, episode_lengths, in_memory, memory_mapped
from datamodules.sources import resolve
from datamodules.streams import Batch, Stream, TransitionLoader, TransitionStream, chunked_rows, random_rows


@pytest.fixture
def table(record: Any) -> Table:
    """64 rows in 8 episodes, in memory."""
    parts = [Part(resolve(record("test/set-v0", [8] * 8)), tuple(range(8)), 0)]
    return in_memory(parts, episode_lengths(parts), "keep")


def batches(
    table: Table, count: int, chunked: bool = False, workers: int = 0, first: int = 0, **settings: int
) -> list[Batch]:
    streams = {"expert": Stream(0, 24, 2, chunked), "all": Stream(0, 64, 4, chunked)}
    stream = TransitionStream(table, streams, updates=3, **settings)
    return list(itertools.islice(TransitionLoader(stream, workers, lambda: first), count))


def rows(found: list[Batch], name: str = "all") -> list[list[int]]:
    return [batch[name]["row"].flatten().tolist() for batch in found]


def test_a_batch_holds_the_rows_it_names(table: Table) -> None:
    (batch,) = batches(table, 1)
    columns = table.columns()
    assert list(batch) == ["expert", "all"]
    for name, size in (("expert", 2), ("all", 4)):
        drawn = batch[name]
        assert drawn.batch_size == torch.Size([3, size])
        row = drawn["row"]
        assert row.shape == (3, size)
        assert row.dtype == torch.int64
        assert torch.equal(drawn["observation"], columns["observation"][row])
        assert torch.equal(drawn["action"], columns["action"][row])
        assert torch.equal(drawn["next", "observation"], columns["next_observation"][row])
        for flag in ("terminated", "truncated"):
            assert torch.equal(drawn["next", flag], columns[flag][row])
            assert drawn["next", flag].shape == (3, size, 1)
            assert drawn["next", flag].dtype == torch.bool
    assert int(batch["expert"]["row"].max()) < 24


@pytest.mark.parametrize("chunked", [False, True])
def test_the_same_seed_gives_the_same_batches(table: Table, chunked: bool) -> None:
    first = rows(batches(table, 12, chunked, seed=3))
    assert first == rows(batches(table, 12, chunked, seed=3))
    assert first != rows(batches(table, 12, chunked, seed=4))


@pytest.mark.parametrize("chunked", [False, True])
def test_no_two_batches_or_streams_are_drawn_alike(table: Table, chunked: bool) -> None:
    found = rows(batches(table, 12, chunked))
    assert len({tuple(ids) for ids in found}) == 12


@pytest.mark.parametrize("chunked", [False, True])
def test_ranks_draw_differently(table: Table, chunked: bool) -> None:
    first, second = (rows(batches(table, 4, chunked, rank=rank, world_size=2)) for rank in (0, 1))
    assert all(one != other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_resumed_run_sees_the_batches_it_would_have_seen(table: Table, chunked: bool) -> None:
    whole = rows(batches(table, 20, chunked))
    assert rows(batches(table, 13, chunked, first=7)) == whole[7:]


def test_random_batches_do_not_depend_on_the_number_of_workers(table: Table) -> None:
    assert rows(batches(table, 6, workers=2, first=1)) == rows(batches(table, 6, first=1))


def test_drawing_leaves_the_global_generator_alone(table: Table) -> None:
    before = torch.get_rng_state()
    batches(table, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_row_is_drawn_equally_often() -> None:
    drawn = list(random_rows(Stream(0, 64, 1), 600, iter(range(40)), (0, 0, 0)))
    counts = np.bincount(torch.cat(drawn), minlength=64)
    expected = counts.sum() / 64
    assert ((counts - expected) ** 2 / expected).sum() < 110  # chi-squared with 63 degrees of freedom: p < 0.001


def test_ranks_and_workers_share_out_a_pass(record: Any, tmp_path: Any) -> None:
    parts = [Part(resolve(record("test/set-v0", [8] * 8)), tuple(range(8)), 0)]
    table = memory_mapped(parts, episode_lengths(parts), "keep", tmp_path)
    seen = []
    for rank in (0, 1):
        stream = TransitionStream(table, {"all": Stream(0, 64, 4, True)}, 1, rank=rank, world_size=2)
        found = list(itertools.islice(TransitionLoader(stream, 2, lambda: 0), 8))
        seen += [row for ids in rows(found) for row in ids]
        observed = torch.cat([batch["all"]["observation"].reshape(-1, 3) for batch in found])
        assert torch.equal(observed, table.columns()["observation"][torch.tensor(seen[-32:])])
    assert sorted(seen) == list(range(64))


def first_ids(wanted: int, total: int, shard: int, shards: int, size: int, together: int) -> list[int]:
    """The first ids of one shard, from rows 5 to 5 + total."""
    ids = chunked_rows(Stream(5, 5 + total, 1, True), 1, shard, shards, 0, 1, chunk_rows=size, together=together)
    return torch.cat(list(itertools.islice(ids, wanted))).tolist()


@settings(max_examples=30, deadline=None)
@given(shards=st.integers(1, 4), size=st.integers(1, 7), chunks=st.integers(1, 4), together=st.integers(1, 5))
def test_the_shards_of_a_pass_are_disjoint_and_complete(shards: int, size: int, chunks: int, together: int) -> None:
    each = size * chunks
    parts = [first_ids(each, each * shards, shard, shards, size, together) for shard in range(shards)]
    assert sorted(row for part in parts for row in part) == list(range(5, 5 + each * shards))


@settings(max_examples=30, deadline=None)
@given(total=st.integers(1, 60), size=st.integers(1, 20), together=st.integers(1, 5), passes=st.integers(1, 2))
def test_every_pass_holds_every_row_once(total: int, size: int, together: int, passes: int) -> None:
    drawn = first_ids(passes * total, total, 0, 1, size, together)
    assert sorted(drawn) == sorted(list(range(5, 5 + total)) * passes)


@settings(max_examples=30, deadline=None)
@given(skipped=st.integers(0, 60), count=st.integers(1, 9), shard=st.integers(0, 1))
def test_skipping_equals_throwing_away(skipped: int, count: int, shard: int) -> None:
    stream = Stream(0, 37, 1, True)
    whole = chunked_rows(stream, count, shard, 2, 0, seed=2, chunk_rows=5, together=2)
    skipping = chunked_rows(stream, count, shard, 2, skipped, seed=2, chunk_rows=5, together=2)
    for one, other in zip(itertools.islice(whole, skipped, skipped + 9), skipping, strict=False):
        assert torch.equal(one, other)


def test_fewer_rows_than_shards_is_refused() -> None:
    with pytest.raises(DataError, match="3 rows cannot be divided among 4"):
        next(chunked_rows(Stream(0, 3, 1, True), 1, 0, 4, 0, seed=0))
