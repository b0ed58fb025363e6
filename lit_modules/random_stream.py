"""All random numbers of one training run, from one generator whose state is part of the checkpoint."""

from __future__ import annotations

import zlib

import numpy as np
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
        self.key = (seed, zlib.crc32(name.encode()))
        self.generator = self._started(torch.device("cpu"))

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def place(self, device: torch.device, rank: int = 0) -> None:
        """Start over on a device; every rank of a parallel run draws numbers of its own."""
        self.generator = self._started(device, rank)

    def _started(self, device: torch.device, rank: int = 0) -> torch.Generator:
        # Hashed, because generators on CPUs read the lower 32 bits of a seed alone
        seed = np.random.SeedSequence((*self.key, rank)).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))

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
        """Continue where :meth:`state` was taken.

        Raises:
            ValueError: if that was on another kind of device, whose generators differ.
        """
        if state.shape != self.generator.get_state().shape:
            raise ValueError(
                f"the checkpoint is of a training on another kind of device than {self.device.type}: continue it there"
            )
        self.generator.set_state(state.cpu())
