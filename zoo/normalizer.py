"""Standardisation that travels inside the saved model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDING = 1e-6  # of a constant feature's mean that its deviation may come to in single precision
SMALLEST = 1e-10  # deviation of a feature whose mean is 0; signals in SI units may be small


def refuse_other_width(name: str, values: Tensor, size: int) -> None:
    """Raise a ``ValueError`` unless ``values`` are ``(..., size)``; one number would be taken for every feature."""
    if values.shape[-1:] != (size,):
        raise ValueError(f"{name} have the shape {tuple(values.shape)}, where the last of it has to be {size}")


class Normalizer(nn.Module):
    """``(x - mean) / std`` per feature, with the statistics kept as buffers.

    Features that never vary in the data, but for rounding, get a standard deviation of 1, so that they stay constant
    instead of being blown up.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Adopt statistics of the training rows, both of shape ``(size,)``."""
        self.mean.copy_(mean)
        varies = std > (ROUNDING * mean.abs()).clamp_min(SMALLEST)
        self.std.copy_(torch.where(varies, std, torch.ones_like(std)))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        return values * self.std + self.mean


def adopt_statistics(model: nn.Module, other: nn.Module) -> None:
    """Have a model of transitions standardise observations, actions and their changes as another one does."""
    for name in ("observation_normalizer", "action_normalizer", "delta_normalizer"):
        model.get_submodule(name).load_state_dict(other.get_submodule(name).state_dict())
