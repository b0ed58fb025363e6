"""Building blocks: a plain multi-layer perceptron, and a batch of them evaluated in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.products import Linear, affine, product

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


def _relu(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.relu(), (x > 0).to(x)


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    share = x.sigmoid()
    value = x * share
    return value, share + value * (1.0 - share)


def _tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    value = x.tanh()
    return value, 1.0 - value.square()


def _elu(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.elu(x), x.clamp_max(0.0).exp()


def _gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    below = 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))
    return x * below, below + x * (-0.5 * x * x).exp() / math.sqrt(2.0 * math.pi)


# Value and derivative of each activation, for `input_gradient`.
VALUE_AND_SLOPE: dict[type[nn.Module], Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    nn.ReLU: _relu,
    nn.SiLU: _silu,
    nn.Tanh: _tanh,
    nn.ELU: _elu,
    nn.GELU: _gelu,
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
        layers.append(Linear(fan_in, fan_out))
        if index < len(sizes) - 2:
            if layer_norm:
                layers.append(nn.LayerNorm(fan_out))
            layers.append(activation(activation_name))
    return nn.Sequential(*layers)


def input_gradient(network: nn.Sequential, inputs: Tensor) -> Tensor:
    """Gradient of a scalar perceptron of :func:`mlp` with respect to its input, ``(B, in) -> (B, in)``.

    Written out layer by layer, so that a loss on it is differentiated by an ordinary backward pass: no graph of a
    graph, which can be neither compiled nor batched.
    """
    slopes, hidden = [], inputs
    for layer in list(network)[:-1]:
        if isinstance(layer, nn.Linear):
            hidden = layer(hidden)
        else:
            hidden, slope = VALUE_AND_SLOPE[type(layer)](hidden)
            slopes.append(slope)
    linears = [layer for layer in network if isinstance(layer, nn.Linear)]
    gradient = linears[-1].weight.expand(len(inputs), -1)
    for layer, slope in zip(reversed(linears[:-1]), reversed(slopes), strict=True):
        gradient = product(gradient * slope, layer.weight)
    return gradient


class EnsembleLinear(nn.Module):
    """``members`` independent linear layers: ``(E, B, in) -> (E, B, out)``."""

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
        return affine(inputs, self.weight, self.bias)

    def extra_repr(self) -> str:
        members, fan_in, fan_out = self.weight.shape
        return f"members={members}, in={fan_in}, out={fan_out}"


class EnsembleMLP(nn.Module):
    """``members`` independent perceptrons of the same shape: ``(E, B, in) -> (E, B, out)``.

    Args:
        members: E.
        sizes: widths from input to output.
        activation_name: one of ``ACTIVATIONS``.
        residual: add to each hidden layer what it was computed from, where that is as wide (He et al. 2016, "Deep
            residual learning for image recognition").
    """

    def __init__(
        self, members: int, sizes: Sequence[int], activation_name: str = "silu", residual: bool = False
    ) -> None:
        super().__init__()
        self.members = members
        self.residual = residual
        self.layers = nn.ModuleList(EnsembleLinear(members, fan_in, fan_out) for fan_in, fan_out in pairwise(sizes))
        self.activation = activation(activation_name)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for layer in self.layers[:-1]:
            following = self.activation(layer(hidden))
            hidden = following + hidden if self.residual and following.shape == hidden.shape else following
        return self.layers[-1](hidden)
