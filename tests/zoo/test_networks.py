"""Perceptrons and batches of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.networks import EnsembleMLP


def applied(layer: Any, member: int, inputs: Tensor) -> Tensor:
    """One layer of one member, written out."""
    return inputs @ layer.weight[member] + layer.bias[member]


@pytest.mark.parametrize("residual", [False, True])
def test_hidden_layers_are_added_to_what_they_were_computed_from_if_asked(residual: bool) -> None:
    torch.manual_seed(0)
    network = EnsembleMLP(3, [5, 8, 8, 4, 2], "silu", residual=residual)
    inputs = torch.randn(3, 7, 5)
    first, second, third, last = network.layers
    silu = torch.nn.functional.silu
    for member in range(3):
        one = silu(applied(first, member, inputs[member]))
        two = silu(applied(second, member, one)) + (one if residual else 0.0)
        three = silu(applied(third, member, two))  # narrower, so there is nothing to add
        torch.testing.assert_close(network(inputs)[member], applied(last, member, three))
