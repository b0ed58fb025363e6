"""Where roll-outs begin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.row_random import Randomness, integers
from zoo.spacing import evenly_spaced

SOURCES = ("initial", "demonstrations", "data")


class StartStates(nn.Module):
    """A stored sample of start observations, ``(N, D)``.

    Args:
        count: N, how many observations are stored.
        observation_size: D.
        source: what they are, in words: ``initial`` (first observations of episodes), ``demonstrations`` (any of
            theirs) or ``data`` (any observation).
    """

    observations: Tensor

    def __init__(self, count: int, observation_size: int, source: str = "initial") -> None:
        super().__init__()
        if source not in SOURCES:
            raise ValueError(f"unknown source of start states {source!r}: choose one of {', '.join(SOURCES)}")
        self.config: dict[str, Any] = {
            "count": int(count),
            "observation_size": int(observation_size),
            "source": source,
        }
        self.register_buffer("observations", torch.zeros(count, observation_size))

    @classmethod
    def of(cls, observations: Tensor, source: str = "initial", limit: int = 10_000) -> StartStates:
        """Keep up to ``limit`` evenly spaced rows of ``observations``."""
        kept = observations[evenly_spaced(len(observations), limit)]
        states = cls(len(kept), kept.shape[-1], source)
        states.observations.copy_(kept)
        return states

    def forward(self, count: int, generator: Randomness = None) -> Tensor:
        """Draw ``count`` observations with replacement."""
        return self.observations[integers(len(self.observations), count, generator, self.observations.device)]
