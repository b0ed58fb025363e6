"""The products of inputs and weights, by the faster of the two libraries that PyTorch has for them on a CPU.

PyTorch multiplies float32 matrices with MKL, which on AMD's processors leaves the 512-bit units idle; oneDNN, which
comes along with PyTorch too, uses them. Both compute in full single precision (docs/results/speed.md has figures).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LEAST_WORK = 2**20  # multiplications of a member's product below which calling oneDNN takes longer than it saves
LEAST_WIDTH = 16
ZEN_5 = 26  # AMD's family number: the first whose 512-bit units are as wide as that

_chosen: bool | None = None  # by `by_onednn`; None leaves it to the processor


def affine(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``inputs @ weight + bias`` of E members: ``(E, B, in), (E, in, out), (E, 1, out) -> (E, B, out)``."""
    if _pays(inputs, weight):
        product: Tensor = torch.ops.offsim.affine(inputs, weight, bias)
        return product
    return torch.baddbmm(bias, inputs, weight)


def product(inputs: Tensor, weight: Tensor) -> Tensor:
    """``inputs @ weight``: ``(B, in), (in, out) -> (B, out)``."""
    if _pays(inputs, weight):
        alone: Tensor = torch.ops.offsim.affine(inputs.unsqueeze(0), weight.unsqueeze(0), None)
        return alone.squeeze(0)
    return inputs @ weight


class Linear(nn.Linear):
    """PyTorch's, with :func:`affine` for tables of rows."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 2 and _pays(input, self.weight.mT):
            return affine(input.unsqueeze(0), self.weight.mT.unsqueeze(0), self.bias.view(1, 1, -1)).squeeze(0)
        return super().forward(input)


@contextmanager
def by_onednn(choice: bool) -> Iterator[None]:
    """Have oneDNN compute products, or have it compute none, whatever the processor; where it is missing, none."""
    global _chosen
    before, _chosen = _chosen, choice
    try:
        yield
    finally:
        _chosen = before


def _pays(inputs: Tensor, weight: Tensor) -> bool:
    """Whether a product is one that oneDNN computes sooner."""
    rows, fan_in, fan_out = inputs.shape[-2], weight.shape[-2], weight.shape[-1]
    return (
        _is_asked_for()  # first: an export for any number of rows cannot compare them
        and rows * fan_in * fan_out >= LEAST_WORK
        and min(rows, fan_in, fan_out) >= LEAST_WIDTH
        and inputs.device.type == "cpu"
        and inputs.dtype == torch.float32
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_asked_for() -> bool:
    if torch.get_float32_matmul_precision() != "highest":
        return False  # others are oneDNN's in any case
    return onednn_is_faster() if _chosen is None else _chosen and _has_onednn()


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies faster on this processor: a rule, not a measurement, as results are to repeat."""
    if not (_has_onednn() and torch.backends.mkl.is_available()):
        return False
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return False
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    family = facts.get("cpu family", "")
    known = facts.get("vendor_id") == "AuthenticAMD" and family.isdigit() and int(family) >= ZEN_5
    return known and "avx512f" in facts.get("flags", "").split()


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


# An operator of our own, opaque to torch.compile, whose own way with oneDNN's takes weights for constants.
_library = torch.library.Library("offsim", "DEF")
_library.define("affine(Tensor inputs, Tensor weight, Tensor? bias) -> Tensor")


def _by_members(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    multiply = torch.ops.mkldnn._linear_pointwise.default
    biases = [None] * len(weight) if bias is None else bias[:, 0].unbind()
    rows = zip(inputs.unbind(), weight.mT.unbind(), biases, strict=True)
    return torch.stack([multiply(each, matrix, added, "none", [], "") for each, matrix, added in rows])


def _shape(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return inputs.new_empty(inputs.shape[0], inputs.shape[1], weight.shape[2])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    inputs, weight = ctx.saved_tensors
    of_inputs, of_weight, of_bias = ctx.needs_input_grad
    affine = torch.ops.offsim.affine
    return (
        affine(gradient, weight.mT, None) if of_inputs else None,
        affine(inputs.mT, gradient, None) if of_weight else None,
        gradient.sum(dim=1, keepdim=True) if of_bias else None,
    )


def _batched(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor | None) -> tuple[Tensor, int]:
    """Many sets of members at once (``vmap``) are as many members more."""

    def folded(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None:
            return None
        sets = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return sets.flatten(0, 1)

    result: Tensor = torch.ops.offsim.affine(*(folded(*each) for each in zip(tensors, in_dims, strict=True)))
    return result.unflatten(0, (info.batch_size, -1)), 0


_library.impl("affine", _by_members, "CPU")
torch.library.register_fake("offsim::affine", _shape, lib=_library)
torch.library.register_autograd("offsim::affine", _gradients, setup_context=_keep, lib=_library)
torch.library.register_vmap("offsim::affine", _batched, lib=_library)
