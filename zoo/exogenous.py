"""What is set from outside and no model foresees: setpoints, measured disturbances, prices, the weather."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CAPACITY = 100_000  # recorded steps at most
SPREAD = 1.5  # weights of features lie between 1 and this, so that hardly two states of several have one key
FEW = 20  # distinct values that a setpoint, a flag or another kind of level has at most
APART = 4  # equal values of a series are told apart by less than this part of the smallest step between its values


class RecordedChanges(nn.Module):
    """Exogenous features change as they were recorded to.

    Where the present values were recorded, all of them at one time, what followed them follows again; where they were
    recorded many times, as those of a setpoint are, it is what followed one of these times, drawn at random. So a
    series whose values do not repeat goes on as it was recorded, and a setpoint changes as often, and to what, it
    changed in the record. Where they were not recorded together, as when one of them is told otherwise, each feature
    goes on by itself likewise: from what is nearest to it, by the change that followed.

    The next values depend on the present ones alone, as those of a Markov process do. A temperature that is written
    with two digits has each value on every day, and would wander from one day to another, and from the evening to the
    morning: so equal values of what has more than ``FEW`` are kept a little apart, some last bits of theirs, and those
    that follow a recorded one tell which of them it was. Flags and setpoints stay what they are.

    Args:
        features: d, how many they are.
    """

    last: Tensor
    weights: Tensor
    apart: Tensor
    keys: Tensor
    values: Tensor
    following: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("last", torch.tensor(-1))  # place of the last record
        # A record of all features has its place along one direction of the standardised ones; d records of one each
        self.register_buffer("weights", torch.ones(features, dtype=torch.float64))
        self.register_buffer("apart", torch.zeros(features, dtype=torch.float64))  # how far equal values are at most
        self.register_buffer("keys", torch.full((CAPACITY,), torch.inf, dtype=torch.float64))
        self.register_buffer("values", torch.zeros(CAPACITY, features))
        self.register_buffer("following", torch.zeros(CAPACITY, features))
        for feature in range(features):  # apart, so that each lies in one piece where models of seeds are stacked
            self.register_buffer(f"values_{feature}", torch.full((CAPACITY,), torch.inf))
            self.register_buffer(f"following_{feature}", torch.zeros(CAPACITY))

    @torch.no_grad()
    def adopt(self, values: Tensor, following: Tensor) -> None:
        """Keep recorded values ``(N, d)`` and those of the step after, the first ``CAPACITY`` of them.

        Raises:
            ValueError: if there are none.
        """
        if len(values) == 0:
            raise ValueError("no step is recorded, so nothing says how exogenous features change")
        values, following = (each[:CAPACITY].to(self.values) for each in (values, following))
        count = len(values)
        values, following = self._told_apart(values, following)
        deviation = values.double().std(dim=0, correction=0)
        spread = torch.rand(self.features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        weights = (1.0 + (SPREAD - 1.0) * spread.to(deviation)) / torch.where(deviation > 0, deviation, 1.0)
        self.weights.copy_(weights)
        self.last.fill_(count - 1)
        # What is behind the records is infinite, where nothing finds it
        self.keys.fill_(torch.inf)
        order = self.key(values).argsort(stable=True)
        self.values[:count], self.following[:count] = values[order], following[order]
        self.keys[:count] = self.key(self.values[:count])
        for feature in range(self.features):
            order = values[:, feature].argsort(stable=True)
            own_values, own_following = self._single(feature)
            own_values.fill_(torch.inf)
            own_values[:count], own_following[:count] = values[order, feature], following[order, feature]

    def _told_apart(self, values: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """Records whose equal values differ in their last bits, the same where one is what follows another."""
        goes_on = (following[:-1] == values[1:]).all(dim=-1)
        columns = [_separated(column) for column in values.unbind(dim=-1)]
        apart = torch.stack([told for told, _ in columns], dim=-1)
        self.apart.copy_(torch.tensor([furthest for _, furthest in columns], dtype=torch.float64))
        following = following.clone()
        following[:-1] = torch.where(goes_on.unsqueeze(-1), apart[1:], following[:-1])
        return apart, following

    def _single(self, feature: int) -> tuple[Tensor, Tensor]:
        """Sorted values of one feature and those of the step after, ``(CAPACITY,)`` each."""
        return self.get_buffer(f"values_{feature}"), self.get_buffer(f"following_{feature}")

    def _records(self) -> list[str]:
        """Names of the buffers whose rows are records."""
        return [name for name, buffer in self.named_buffers() if len(buffer.shape) and len(buffer) == CAPACITY]

    @property
    def count(self) -> int:
        """How many steps are kept."""
        return int(self.last) + 1

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """PyTorch's, without the room that is left: files hold what was recorded."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._records():
            destination[prefix + name] = destination[prefix + name][: self.count].clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """PyTorch's, with the room that files leave out: models of several seeds are stacked, so all have one size."""
        for name in self._records():
            found = state_dict.get(prefix + name)
            if found is not None and found.dim() > 0 and len(found) <= CAPACITY:  # PyTorch refuses others
                room = found.new_zeros(CAPACITY - len(found), *found.shape[1:])
                room.fill_(torch.inf if name == "keys" or name.startswith("values_") else 0.0)
                state_dict[prefix + name] = torch.cat([found, room])
        super()._load_from_state_dict(state_dict, prefix, *others)

    def key(self, values: Tensor) -> Tensor:
        """Where values ``(..., d)`` have their place among the records of all features, ``(...)``."""
        return (values.double() * self.weights).sum(dim=-1)

    def forward(self, values: Tensor, share: Tensor) -> Tensor:
        """The values of the next step, ``(..., d)``.

        Args:
            values: present ones, ``(..., d)``.
            share: which of equal records to take, uniform from 0 to 1, ``(..., d)``: the first for all features
                together, each for a feature by itself.
        """
        taken = _nearest(self.keys, self.last, self.key(values), share[..., 0], (self.weights * self.apart).sum())
        together = ((self.values[taken].double() - values.double()).abs() <= self.apart).all(dim=-1, keepdim=True)
        single = [self._alone(feature, values[..., feature], share[..., feature]) for feature in range(self.features)]
        return torch.where(together, self.following[taken], torch.stack(single, dim=-1))

    def _alone(self, feature: int, value: Tensor, share: Tensor) -> Tensor:
        """The next value of one feature, ``(...)``."""
        own_values, own_following = self._single(feature)
        taken = _nearest(own_values, self.last, value, share, self.apart[feature].to(value))
        recorded, following = own_values[taken], own_following[taken]
        # To the last bit as recorded where the present value is, so that the step after finds its place as well
        same = (value.double() - recorded.double()).abs() <= self.apart[feature]
        return torch.where(same, following, value + (following - recorded))


def _separated(values: Tensor) -> tuple[Tensor, float]:
    """A series ``(N,)`` whose equal values differ in their last bits, and how far any is from what it was.

    None does where there are few distinct ones, or no room between them.
    """
    distinct, which, counts = values.unique(return_inverse=True, return_counts=True)
    if len(distinct) <= FEW or int(counts.max()) == 1:
        return values, 0.0
    largest = values.abs().max()
    bit = 2.0 * float(torch.nextafter(largest, torch.tensor(torch.inf).to(values)) - largest)
    room = int(float(distinct.diff().min()) / APART / bit)  # steps of that size on either side
    if room < 1:
        return values, 0.0
    order = which.argsort(stable=True)
    first = counts.cumsum(0) - counts
    number = torch.empty_like(which)  # among those that are equal, in the order of their records
    number[order] = torch.arange(len(values), device=values.device) - first[which[order]]
    # Never none at all: a value as it was recorded is to be any of them
    steps = torch.where(number % 2 == 0, 1, -1) * (1 + (number // 2) % room)
    steps = torch.where(counts[which] > 1, steps, 0)
    told = (values.double() + bit * steps).to(values)
    return told, float((told.double() - values.double()).abs().max()) + 0.5 * bit  # for what rounding takes


def _nearest(records: Tensor, last: Tensor, key: Tensor, share: Tensor, apart: Tensor) -> Tensor:
    """Places of the records nearest to keys ``(...)``, of equal ones that which a share of 0 to 1 says.

    Args:
        records: sorted, infinite behind the last, ``(C,)``.
        last: place of the last, ``()``.
        key: what is looked for, ``(...)``.
        share: ``(...)``.
        apart: how far records are at most from what is equal to them, ``()``.
    """
    above = torch.minimum(torch.searchsorted(records, key.contiguous()), last)
    below = (above - 1).clamp_min(0)
    nearest = torch.where((key - records[below]) < (records[above] - key), records[below], records[above])
    distance = (nearest - key).abs()
    # A record itself, or of those that are equal to the key any, or what is nearest
    among = (distance > 0) & (distance <= apart)
    centre, half = torch.where(among, key, nearest), torch.where(among, apart, 0.0)
    first = torch.searchsorted(records, centre - half)
    count = torch.searchsorted(records, centre + half, right=True) - first
    return first + torch.minimum((share * count).long(), count - 1)
