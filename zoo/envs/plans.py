"""Plans of what is set from outside in episodes: arrays, or a series for each of some names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def planned(series: Any, names: tuple[str, ...], rows: int, device: torch.device) -> Tensor:
    """A plan for each row of a batch of episodes, ``(B, T, d)``; NaN where nothing is planned.

    Args:
        series: ``(T, d)`` for all rows or ``(B, T, d)``; or a mapping of some of the names to ``(T,)`` or ``(B, T)``,
            of which shorter ones go on with their last value.
        names: of the d features that are set from outside.
        rows: B.
        device: where the plan is to be.

    Raises:
        ValueError: if it has another shape, names another feature or is infinite somewhere.
    """
    if isinstance(series, Mapping):
        return _by_names(series, names, rows, device)
    given = _numbers(series, "exogenous", device)
    shape = tuple(given.shape)
    if given.dim() == 2:
        given = given.expand(rows, -1, -1)
    if given.dim() != 3 or given.shape[0] != rows or given.shape[1] < 1 or given.shape[2] != len(names):
        raise ValueError(
            f"exogenous has the shape {shape}, where (T, {len(names)}) or ({rows}, T, {len(names)}) is expected: a row "
            f"for each step, from the first observation on, and a column for each of {', '.join(names)}"
        )
    return given


def _by_names(series: Mapping[Any, Any], names: tuple[str, ...], rows: int, device: torch.device) -> Tensor:
    columns: dict[str, Tensor] = {}
    for name, values in series.items():
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(names)}"
            raise ValueError(f"exogenous names {name!r}, which is not set from outside: {hint}")
        column = _numbers(values, f"exogenous[{name!r}]", device)
        if column.dim() not in (1, 2) or column.shape[-1] < 1 or (column.dim() == 2 and len(column) != rows):
            raise ValueError(
                f"exogenous[{name!r}] has the shape {tuple(column.shape)}, where (T,) or ({rows}, T) is expected"
            )
        columns[name] = column.expand(rows, -1)
    if not columns:
        raise ValueError(f"exogenous names nothing: give a series for some of {', '.join(names)}")
    steps = max(column.shape[1] for column in columns.values())
    plan = torch.full((rows, steps, len(names)), torch.nan, device=device)
    for name, column in columns.items():
        plan[..., names.index(name)] = torch.cat([column, column[:, -1:].expand(-1, steps - column.shape[1])], dim=1)
    return plan


def _numbers(values: Any, what: str, device: torch.device) -> Tensor:
    try:
        found = torch.as_tensor(values, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} is no array of numbers: {error}") from error
    if bool(found.isinf().any()):
        raise ValueError(f"{what} is not finite: NaN leaves a value as it was recorded")
    return found
