"""Mean and deviation of every feature, in one pass over a table of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Statistics:
    """Means and standard deviations (of the rows themselves, not of a sample), float32.

    Attributes:
        observation_mean: ``(observation,)``.
        observation_std: ``(observation,)``.
        action_mean: ``(action,)``.
        action_std: ``(action,)``.
        delta_mean: of the next observation minus the observation, ``(observation,)``.
        delta_std: the same's deviation, ``(observation,)``.
        next_observation_low: the least of each feature of the next observation, ``(observation,)``.
        next_observation_high: the largest, likewise.
    """

    observation_mean: Tensor
    observation_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    delta_mean: Tensor
    delta_std: Tensor
    next_observation_low: Tensor
    next_observation_high: Tensor


class _Moments:
    """Count, mean and sum of squared distances from the mean, merged block by block (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, block: Tensor) -> None:
        """Take in a block of rows ``(B, features)``."""
        count = self.count + len(block)
        mean = block.mean(dim=0)
        squares = (block - mean).square().sum(dim=0)
        distance = mean - self.mean
        self.squares = self.squares + squares + distance.square() * (self.count * len(block) / count)
        self.mean = self.mean + distance * (len(block) / count)
        self.count = count

    def std(self) -> Tensor:
        return (self.squares / self.count).sqrt()


def measure(*tables: TensorDict, after_block: Callable[[], None] = lambda: None) -> Statistics:
    """Statistics of the rows of all tables together.

    Args:
        tables: at least one row in all.
        after_block: called in between, such as to release the memory of what was read.
    """
    moments = {name: _Moments() for name in ("observation", "action", "delta")}
    features = tables[0]["observation"].shape[1]
    # Written to in place: small tensors kept from every block would lie between the large ones that the next block
    # needs again, and memory grow with the number of blocks
    low, high = torch.full((features,), torch.inf), torch.full((features,), -torch.inf)
    for block in _blocks(*tables):
        observation, following = block["observation"].double(), block["next", "observation"].double()
        moments["observation"].add(observation)
        moments["action"].add(block["action"].double())
        moments["delta"].add(following - observation)
        torch.minimum(low, block["next", "observation"].amin(dim=0), out=low)
        torch.maximum(high, block["next", "observation"].amax(dim=0), out=high)
        after_block()
    values = {f"{name}_mean": moment.mean.float() for name, moment in moments.items()}
    values |= {f"{name}_std": moment.std().float() for name, moment in moments.items()}
    return Statistics(**values, next_observation_low=low, next_observation_high=high)


def _blocks(*tables: TensorDict) -> Iterator[TensorDict]:
    for table in tables:
        for start in range(0, len(table), BLOCK_ROWS):
            yield table[start : start + BLOCK_ROWS]
