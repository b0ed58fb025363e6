"""Rows taken from several tables, and rows of roll-outs dealt to minibatches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from datamodules.cache import Table
from lit_modules.diagnostics import spread
from lit_modules.rows import deal, take


@pytest.mark.parametrize("mapped", [False, True])
def test_rows_are_taken_from_several_tables_as_from_one(mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_modules.rows.any_table_is_mapped", lambda: mapped)
    monkeypatch.setattr("lit_modules.rows.SCATTERED_ROWS", 4)  # read at a time
    tables = [torch.randn(length, 3) for length in (4, 1, 7)]
    rows = torch.tensor([[0, 11, 3], [4, 5, 10]])
    assert torch.equal(take(tables, rows), torch.cat(tables)[rows])
    assert take(tables, rows[:0]).shape == (0, 3, 3)


def test_scattered_rows_of_a_file_leave_nothing_of_it_in_memory(
    tmp_path: Path, resident: Callable[[Path], int]
) -> None:
    path, length = tmp_path / "observation.npy", 2**20
    np.save(path, np.arange(length, dtype=np.float32)[:, None])
    table = Table(None, np.array([length]), tmp_path)
    rows = TensorDict(dict(table.columns()), [length])
    assert spread(rows, 2000)["observation"][-1] == length - 1 and resident(path) == 0
    assert take([rows["observation"]], torch.tensor([7, 2**19])).tolist() == [[7], [2**19]] and resident(path) == 0


def test_every_row_that_counts_is_dealt_once_and_evenly() -> None:
    alive = torch.rand(100) < 0.4
    rows, counts = deal(alive, torch.rand(100), hands=5, cards=20)
    assert rows.shape == counts.shape == (5, 20)
    assert sorted(rows[counts].tolist()) == alive.nonzero().squeeze(-1).tolist()
    assert int(counts.sum(dim=1).max() - counts.sum(dim=1).min()) <= 1
    assert bool(alive[rows].all())  # what fills the shape is a row that exists


def test_no_more_is_dealt_than_there_is_room_for() -> None:
    rows, counts = deal(torch.ones(100, dtype=torch.bool), torch.rand(100), hands=5, cards=4)
    assert bool(counts.all()) and len(set(rows.flatten().tolist())) == 20


def test_a_shape_larger_than_the_table_is_filled() -> None:
    rows, counts = deal(torch.tensor([False, True, True]), torch.rand(3), hands=2, cards=4)
    assert rows.shape == (2, 4) and sorted(rows[counts].tolist()) == [1, 2]


def test_the_order_is_random() -> None:
    alive = torch.ones(50, dtype=torch.bool)
    one, other = (deal(alive, torch.rand(50), 1, 50)[0] for _ in range(2))
    assert not torch.equal(one, other)
