"""Which rows of a long table to look at, where some will do."""

from __future__ import annotations

import torch
from torch import Tensor


def evenly_spaced(length: int, count: int) -> Tensor:
    """Up to ``count`` of the rows 0 to ``length - 1``, first and last among them, ``(min(count, length),)`` int64.

    In whole numbers: rows of tables with more than 2^24 of them have no float32 of their own.
    """
    count = min(count, length)
    return torch.arange(count) * (length - 1) // max(1, count - 1)
