"""Evenly spaced rows stay inside tables of any length."""

from __future__ import annotations

import pytest

from zoo.spacing import evenly_spaced


@pytest.mark.parametrize("length", [2**24 + 3, 18_000_000, 10**11])
def test_rows_of_long_tables_lie_inside_and_evenly(length: int) -> None:
    rows = evenly_spaced(length, 5)
    assert rows[0] == 0 and rows[-1] == length - 1
    steps = rows.diff()
    assert int(steps.max() - steps.min()) <= 1


@pytest.mark.parametrize(("length", "count", "rows"), [(3, 9, [0, 1, 2]), (9, 1, [0]), (5, 3, [0, 2, 4]), (0, 4, [])])
def test_short_tables(length: int, count: int, rows: list[int]) -> None:
    assert evenly_spaced(length, count).tolist() == rows
