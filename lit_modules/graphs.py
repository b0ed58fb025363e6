"""CUDA graphs: a step of training replayed as one launch instead of hundreds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from tensordict.nn import CudaGraphModule
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

WARMUP = 3  # calls before a graph is captured; optimisers create their state in the first


class Graphs:
    """Functions of tensors captured on their third call and replayed from then on.

    A function may change tensors that outlive it, such as parameters and their optimiser's moments, as long as these
    are always the same tensors. Whatever else it reads has to be among its arguments, because a graph repeats what it
    did, not what Python would do. Without a GPU every call just runs the function.

    Args:
        constants: tensors that are the same in every call, such as parameters; they are not copied.
    """

    def __init__(self, constants: Iterable[Tensor]) -> None:
        self.constants = {id(tensor) for tensor in constants}
        self.captured: dict[Any, CudaGraphModule] = {}

    def __call__(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """``function(*arguments)``; ``name`` tells functions apart."""
        leaves, structure = tree_flatten(arguments)
        changing = [
            index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and id(leaf) not in self.constants
        ]
        shapes = tuple((tuple(leaves[index].shape), leaves[index].dtype) for index in changing)
        key = (name, structure, shapes)
        if key not in self.captured:

            def of_changing(*tensors: Tensor) -> Any:
                filled = list(leaves)
                for index, tensor in zip(changing, tensors, strict=True):
                    filled[index] = tensor
                return function(*tree_unflatten(filled, structure))

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it says so where there is no GPU
                self.captured[key] = CudaGraphModule(of_changing, warmup=WARMUP)
        return self.captured[key](*(leaves[index] for index in changing))


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let an Adam step inside a graph: its counters and rates become tensors on the device."""
    for group in optimizer.param_groups:
        group["capturable"] = device.type == "cuda"
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
