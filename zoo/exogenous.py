"""What is set from outside and no model foresees: setpoints, measured disturbances, prices, the weather."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CAPACITY = 100_000  # recorded steps at most
SPREAD = 1.5  # weights of features lie between 1 and this, so that hardly two states of several have one key


class RecordedChanges(nn.Module):
    """Exogenous features change as they were recorded to.

    A step looks for the recorded values that are nearest to the present ones, and takes the change that followed
    them; where the same values were recorded many times, as those of a setpoint, it takes one of these times at random.
    So a series whose values do not repeat goes on as it was recorded, and a setpoint changes as often, and to what, it
    changed in the record. The next values depend on the present ones alone: they belong to the state of a Markov
    process like all else.

    Args:
        features: d, how many they are.
    """

    weights: Tensor
    keys: Tensor
    values: Tensor
    following: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        # Nearest is meant along one direction of the standardised features, in which every record has its place
        self.register_buffer("weights", torch.ones(features, dtype=torch.float64))
        self.register_buffer("keys", torch.full((CAPACITY,), torch.inf, dtype=torch.float64))
        self.register_buffer("values", torch.zeros(CAPACITY, features))
        self.register_buffer("following", torch.zeros(CAPACITY, features))

    @torch.no_grad()
    def adopt(self, values: Tensor, following: Tensor) -> None:
        """Keep recorded values ``(N, d)`` and those of the step after, the first ``CAPACITY`` of them.

        Raises:
            ValueError: if there are none.
        """
        if len(values) == 0:
            raise ValueError("no step is recorded, so nothing says how exogenous features change")
        values, following = (each[:CAPACITY].to(self.values) for each in (values, following))
        count, features = values.shape
        deviation = values.double().std(dim=0, correction=0)
        spread = 1.0 + (SPREAD - 1.0) * torch.rand(features, generator=torch.Generator().manual_seed(0)).double()
        self.weights.copy_(spread.to(deviation) / torch.where(deviation > 0, deviation, 1.0))
        order = self.key(values).argsort(stable=True)
        self.values[:count], self.following[:count] = values[order], following[order]
        self.keys.fill_(torch.inf)  # behind what is recorded, where nothing finds it
        self.keys[:count] = self.key(self.values[:count])

    def key(self, values: Tensor) -> Tensor:
        """Where values ``(..., d)`` have their place among the records, ``(...)``."""
        return (values.double() * self.weights).sum(dim=-1)

    def forward(self, values: Tensor, share: Tensor) -> Tensor:
        """The values of the next step, ``(..., d)``.

        Args:
            values: present ones, ``(..., d)``.
            share: which of equal records to take, uniform from 0 to 1, ``(...)``.
        """
        key = self.key(values)
        last = self.keys.isfinite().sum() - 1
        above = torch.minimum(torch.searchsorted(self.keys, key), last)
        below = (above - 1).clamp_min(0)
        nearest = torch.where((key - self.keys[below]) < (self.keys[above] - key), self.keys[below], self.keys[above])
        first = torch.searchsorted(self.keys, nearest)
        count = torch.searchsorted(self.keys, nearest, right=True) - first
        taken = first + torch.minimum((share * count).long(), count - 1)
        recorded, following = self.values[taken], self.following[taken]
        # To the last bit as recorded where the present values are, so that the step after finds its place as well
        return torch.where(values == recorded, following, values + (following - recorded))
