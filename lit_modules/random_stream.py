"""All random numbers of one training run, from one generator whose state is part of the checkpoint."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


class RandomStream:
    """Draws of a training stage.

    Methods draw here and compute elsewhere, so that what they compute can be compiled, captured as a graph, or done
    for many seeds at once with the numbers each seed would have drawn alone.

    Args:
        seed: seed of the run.
        name: what draws; streams of other names are independent of it.
    """

    def __init__(self, seed: int, name: str) -> None:
        self.seed = (seed * 0x1_0000_0000 + zlib.crc32(name.encode())) % 2**63
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def place(self, device: torch.device, rank: int = 0) -> None:
        """Start over on a device; every rank of a parallel run draws numbers of its own."""
        self.generator = torch.Generator(device).manual_seed((self.seed + rank) % 2**63)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high)."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def state(self) -> Tensor:
        """What :meth:`restore` continues from."""
        return self.generator.get_state()

    def restore(self, state: Tensor) -> None:
        """Continue where :meth:`state` was taken."""
        self.generator.set_state(state.cpu())
