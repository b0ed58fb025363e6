"""Random numbers of many episodes at once, of which each depends on nothing but its own seed.

A generator with a state gives row 3 other numbers when row 2 is there or not. Here a number is a function of the
episode's seed, its count, the draw and the feature (Philox 4x32-10, Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"): an episode is the same alone, in a batch of thousands, and on any device but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WORD = 0xFFFFFFFF  # the lowest 32 bits
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key from round to round
ROUNDS = 10
WORDS = 4  # per block


def philox(counter: Sequence[Any], key: Sequence[Any]) -> list[Any]:
    """One block of 128 random bits: four tensors, or NumPy arrays, of 32-bit numbers held in int64.

    Args:
        counter: four tensors or arrays of 32-bit numbers held in int64, of shapes that can be broadcast.
        key: two more.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # The products wrap around at 64 bits, which leaves all of their bits right
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (second >> 32) & WORD ^ c1 ^ k0, second & WORD, (first >> 32) & WORD ^ c3 ^ k1, first & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return [c0, c1, c2, c3]


class RowRandom:
    """Random numbers of ``B`` rows, each with a seed of its own; takes the place of a ``torch.Generator``.

    Args:
        seeds: of the rows, ``(B,)``, integers of up to 63 bits.
        device: where numbers are to be made.
    """

    def __init__(self, seeds: Sequence[int] | Tensor, device: torch.device | str = "cpu") -> None:
        self.seeds, self.episode, self.draw = torch.zeros(3, len(seeds), dtype=torch.int64, device=device)
        self.reseed(seeds, torch.ones(len(seeds), dtype=torch.bool, device=device))

    def reseed(self, seeds: Sequence[int] | Tensor, rows: Tensor) -> None:
        """Begin anew, with these ``seeds`` ``(B,)``, in those rows where ``rows`` ``(B,)`` holds."""
        given = torch.as_tensor(seeds, dtype=torch.int64, device=self.seeds.device)
        if bool((given < 0).any()):
            raise ValueError(f"a seed is at least 0, and one is {int(given.min())}")
        self.seeds = torch.where(rows, given, self.seeds)
        self.episode, self.draw = torch.where(rows, 0, self.episode), torch.where(rows, 0, self.draw)

    def to(self, device: torch.device | str) -> RowRandom:
        """Make numbers elsewhere, the same but for rounding."""
        self.seeds, self.episode, self.draw = (each.to(device) for each in (self.seeds, self.episode, self.draw))
        return self

    def begin_episode(self, rows: Tensor) -> None:
        """Go on to the next episode in those rows where ``rows`` ``(B,)`` holds."""
        self.episode += rows
        self.draw = torch.where(rows, 0, self.draw)

    def integers(self, high: int) -> Tensor:
        """One integer per row, 0 to ``high - 1``, ``(B,)``."""
        return (self._words(1)[0][:, 0] * high) >> 32

    def normal(self, size: int) -> Tensor:
        """Standard normal numbers, ``(B, size)`` (Box and Muller 1958)."""
        words = [((each.to(torch.float64) + 0.5) / 2.0**32).to(torch.float32) for each in self._words(size)]
        radius = [(-2.0 * each.log()).sqrt() for each in words[:2]]
        angle = [2.0 * math.pi * each for each in words[2:]]
        parts = [part for r, a in zip(radius, angle, strict=True) for part in (r * a.cos(), r * a.sin())]
        return torch.cat(parts, dim=-1)[:, :size]

    def _words(self, size: int) -> list[Tensor]:
        """At least ``size`` 32-bit numbers per row, four times ``(B, blocks)``; a draw of its own at each call."""
        blocks = torch.arange(-(-size // WORDS), device=self.seeds.device)
        columns = [blocks, *(each.unsqueeze(-1) for each in (self.seeds, self.episode, self.draw))]
        self.draw = self.draw + 1
        if self.seeds.device.type == "cpu":  # a tenth of the time, where there are few rows
            return [torch.from_numpy(each) for each in _blocks(*(column.numpy() for column in columns))]
        return _blocks(*columns)


def _blocks(block: Any, seed: Any, episode: Any, draw: Any) -> list[Any]:
    return philox((block, draw, episode, 0 * draw), (seed & WORD, seed >> 32))


Randomness = torch.Generator | RowRandom | None


def integers(high: int, rows: int, random: Randomness, device: torch.device) -> Tensor:
    """One integer per row, 0 to ``high - 1``, ``(rows,)``."""
    if isinstance(random, RowRandom):
        if len(random.seeds) != rows:
            raise ValueError(f"random numbers of {len(random.seeds)} rows were given for {rows} rows")
        return random.integers(high)
    return torch.randint(high, (rows,), generator=random, device=device)


def normal_like(rows: Tensor, random: Randomness) -> Tensor:
    """Standard normal numbers of the shape of ``rows`` ``(B, D)``."""
    if isinstance(random, RowRandom):
        return random.normal(rows.shape[-1]).to(rows.dtype)
    return torch.randn(rows.shape, generator=random, device=rows.device, dtype=rows.dtype)
