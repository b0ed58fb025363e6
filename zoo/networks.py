"""Building blocks: a plain multi-layer perceptron, and a batch of them evaluated in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


def activation(name: str) -> nn.Module:
    """Return a new activation module for one of the names in ``ACTIVATIONS``."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: choose one of {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]()


def mlp(sizes: Sequence[int], activation_name: str = "relu", layer_norm: bool = False) -> nn.Sequential:
    """Multi-layer perceptron with a linear last layer.

    Args:
        sizes: widths from input to output, so ``len(sizes) - 1`` linear layers.
        activation_name: one of ``ACTIVATIONS``.
        layer_norm: normalise every hidden layer before its activation.
    """
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(fan_in, fan_out))
        if index < len(sizes) - 2:
            if layer_norm:
                layers.append(nn.LayerNorm(fan_out))
            layers.append(activation(activation_name))
    return nn.Sequential(*layers)


class EnsembleLinear(nn.Module):
    """``members`` independent linear layers: ``(E, B, in) -> (E, B, out)`` in one ``baddbmm``."""

    def __init__(self, members: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(members, 1, fan_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal with deviation ``1 / (2 sqrt(in))``, the usual start of ensemble dynamics (PETS)."""
        nn.init.trunc_normal_(self.weight, std=1.0 / (2.0 * math.sqrt(self.weight.shape[1])))
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)

    def extra_repr(self) -> str:
        members, fan_in, fan_out = self.weight.shape
        return f"members={members}, in={fan_in}, out={fan_out}"


class EnsembleMLP(nn.Module):
    """``members`` independent perceptrons of the same shape: ``(E, B, in) -> (E, B, out)``."""

    def __init__(self, members: int, sizes: Sequence[int], activation_name: str = "silu") -> None:
        super().__init__()
        self.members = members
        self.layers = nn.ModuleList(EnsembleLinear(members, fan_in, fan_out) for fan_in, fan_out in pairwise(sizes))
        self.activation = activation(activation_name)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for layer in self.layers[:-1]:
            hidden = self.activation(layer(hidden))
        return self.layers[-1](hidden)
