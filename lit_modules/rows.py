"""Small helpers on transition rows shared by the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as functional
from tensordict import TensorDict
from torch import Tensor

from datamodules.cache import SCATTERED_ROWS, any_table_is_mapped, release_mapped_tables
from datamodules.errors import DataError
from lit_modules.random_stream import RandomStream

# Odd constants of a 32-bit integer hash (the finaliser of MurmurHash3).
_MULTIPLIERS = (0x85EBCA6B, 0xC2B2AE35)
_WORD = 0xFFFFFFFF


def require_streams(data: Any, names: Sequence[str]) -> None:
    """Refuse a data module that does not deliver the streams a method reads.

    Raises:
        DataError: naming what is missing and how to ask for it.
    """
    missing = [name for name in names if name not in data.streams]
    if missing:
        raise DataError(
            f"this method reads the data stream(s) {', '.join(missing)}, which `data.streams` does not list: "
            f"add e.g. `{missing[0]}: 256` there"
        )


def concatenate(parts: Sequence[TensorDict], dim: int = 0) -> TensorDict:
    """``torch.cat`` of TensorDicts, typed as what it returns."""
    return cast(TensorDict, torch.cat(list(parts), dim=dim))  # type: ignore[arg-type]


def take(tables: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Rows ``(...)`` of tables ``(N_i, D)`` as if they were one, ``(..., D)``; they are not joined for it, nor kept."""
    portion = SCATTERED_ROWS if any_table_is_mapped() else max(1, rows.numel())
    parts = []
    for some in rows.reshape(-1).split(portion):
        found, first = tables[0][some.clamp_max(len(tables[0]) - 1)], len(tables[0])
        for table in tables[1:]:
            found = torch.where((some >= first).unsqueeze(-1), table[(some - first).clamp(0, len(table) - 1)], found)
            first += len(table)
        release_mapped_tables()
        parts.append(found)
    return torch.cat(parts).view(*rows.shape, tables[0].shape[-1])


def follows(table: TensorDict, steps: int) -> Tensor:
    """Whether the row ``steps`` further down comes so many steps later in the same episode, ``(N - steps,)`` bool.

    Not so across the end of an episode, nor where rows in between were left out of the data.
    """
    count = len(table) - steps
    same = table["episode"][steps:] == table["episode"][:count]
    return same & (table["step"][steps:] - table["step"][:count] == steps)


def draw_starts(data: Any, count: int, expert_share: float, random: RandomStream) -> TensorDict:
    """Random recorded states to start roll-outs from: ``observation`` and global ``row``, ``(count, ...)``.

    Args:
        data: a data module.
        count: number of states.
        expert_share: share drawn from the demonstrations alone; the rest comes from all recorded rows.
        random: where the draws come from.
    """
    tables = [table["observation"] for table in (data.expert_train, data.diverse_train) if table is not None]
    from_expert, total = round(count * expert_share), sum(map(len, tables))
    rows = torch.cat([random.integers(len(tables[0]), from_expert), random.integers(total, count - from_expert)])
    rows = rows.to(tables[0].device)
    return TensorDict({"observation": take(tables, rows), "row": rows}, batch_size=[count])


def pick_alive(rollouts: dict[str, Tensor], uniform: Tensor) -> dict[str, Tensor]:
    """Random rows of roll-outs among those that count, without a shape that depends on how many do.

    Args:
        rollouts: columns ``(N, ...)``, of which ``alive`` is boolean.
        uniform: random numbers in [0, 1), ``(B,)``.

    Returns:
        The other columns, ``(B, ...)``.
    """
    alive = rollouts["alive"]
    first_alive = torch.argsort(alive.to(torch.uint8), descending=True, stable=True)
    # Rounding may take a number just below one to the count itself
    place = torch.minimum((uniform * alive.sum()).long(), alive.sum() - 1)
    rows = first_alive[place]
    return {name: column[rows] for name, column in rollouts.items() if name != "alive"}


def deal(alive: Tensor, uniform: Tensor, hands: int, cards: int) -> tuple[Tensor, Tensor]:
    """Deal the rows that count in random order to minibatches, as evenly as cards, in a shape that is always the same.

    Args:
        alive: which rows count, ``(N,)``, at least one.
        uniform: random numbers in [0, 1), ``(N,)``.
        hands: minibatches.
        cards: rows in each at most. If fewer count than that, the rest repeats a row; if more, some stay undealt.

    Returns:
        Rows ``(hands, cards)``, and which of them count and are no repetition.
    """
    order = torch.argsort(uniform + (~alive).float())
    counts = alive[order]
    missing = max(0, hands * cards - len(order))
    order, counts = functional.pad(order, (0, missing)), functional.pad(counts, (0, missing))
    order = torch.where(counts, order, order[0])
    return order[: hands * cards].view(cards, hands).T, counts[: hands * cards].view(cards, hands).T


def blocks(parts: Sequence[TensorDict], members: int) -> dict[str, Tensor]:
    """Recorded transitions for an ensemble: a block of rows of its own for each member.

    Args:
        parts: rows ``(..., N)`` each, of which every member gets an equal share; what is left over is left out.
        members: E.

    Returns:
        ``observation``, ``action``, ``next_observation``, bootstrap ``weight`` and ``row``, ``(..., E, B, ...)``.
    """
    place = parts[0].dim() - 1  # of the rows, behind any leading dimensions

    def dealt(*key: str) -> Tensor:
        columns = []
        for part in parts:
            share = part.shape[-1] // members
            column = part.get(key).narrow(place, 0, share * members)
            columns.append(column.unflatten(place, (members, share)))
        return torch.cat(columns, dim=place + 1)

    row = dealt("row")
    return {
        "observation": dealt("observation"),
        "action": dealt("action"),
        "next_observation": dealt("next", "observation"),
        "weight": bootstrap_weights(row, members),
        "row": row,
    }


def bootstrap_weights(row: Tensor, members: int) -> Tensor:
    """How often each transition occurs in the bootstrap sample of the member that reads it.

    A bootstrap draws N rows with replacement; a row then occurs Poisson(1) times (for large N). Drawing that count
    from a hash of row and member gives every member a sample of its own that stays the same for the whole training
    and needs no copy of the data.

    Args:
        row: global row ids, ``(..., E, B)``, the block of member ``e`` in row ``e``.
        members: E.

    Returns:
        Counts as floats, ``(..., E, B)``.
    """
    member = torch.arange(members, device=row.device).unsqueeze(-1)
    mixed = (row * members + member + 1) & _WORD
    for multiplier in _MULTIPLIERS:
        mixed = (mixed ^ (mixed >> 16)) & _WORD
        mixed = (mixed * multiplier) & _WORD
    mixed = mixed ^ (mixed >> 13)
    uniform = mixed.double() / (_WORD + 1.0)
    # Cumulative Poisson(1) probabilities: 0.368, 0.736, 0.920, 0.981, 0.996, 0.9994
    levels = torch.tensor([0.36787944, 0.73575888, 0.91969860, 0.98101184, 0.99634015, 0.99940582], device=row.device)
    return torch.bucketize(uniform, levels.double()).float()
