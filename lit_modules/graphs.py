"""CUDA graphs: a step of training replayed as one launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

WARMUP = 3  # calls before a graph is captured; optimisers create their state in the first


class Graphs:
    """Functions of tensors captured after their third call and replayed from then on.

    A function may change tensors that outlive it, such as parameters and their optimiser's moments, as long as these
    are always the same tensors. Whatever else it reads has to be among its arguments, because a graph repeats what it
    did, not what Python would do: it reads no number off a tensor, draws none, and has no branch that depends on one.
    On another device than a GPU every call just runs the function.

    Args:
        constants: tensors that are the same in every call, such as parameters; they are not copied.
    """

    def __init__(self, constants: Iterable[Tensor]) -> None:
        self.constants = {id(tensor) for tensor in constants}
        self.captured: dict[Any, Graph] = {}

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

            self.captured[key] = Graph(name, of_changing)
        return self.captured[key]([leaves[index] for index in changing])


class Graph:
    """One function of tensors, and its graph once that is captured.

    What TensorDict's ``CudaGraphModule`` does, without making the host wait for the device at every call.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self.calls = 0
        self.graph: Any = None
        self.inputs: list[Tensor] = []
        self.output: Any = None

    def __call__(self, tensors: list[Tensor]) -> Any:
        if all(tensor.device.type != "cuda" for tensor in tensors):
            return self.function(*tensors)
        if self.calls < WARMUP:
            self.calls += 1
            return self._aside(tensors)
        if self.graph is None:
            self._capture(tensors)
        else:
            torch._foreach_copy_(self.inputs, tensors, non_blocking=True)
        self.graph.replay()
        return tree_map(lambda each: each.clone() if isinstance(each, Tensor) else each, self.output)

    def _aside(self, tensors: list[Tensor]) -> Any:
        """Run the function as it is, on a stream of its own: first calls set up what a capture has to find."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            output = self.function(*tensors)
        here.wait_stream(aside)
        return output

    def _capture(self, tensors: list[Tensor]) -> None:
        if any(tensor.device.type != "cuda" or tensor.requires_grad for tensor in tensors):
            raise RuntimeError(
                f"`{self.name}` is given a tensor that is not on the GPU, or one that requires a gradient"
            )
        self.inputs = [tensor.clone() for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.output = self.function(*self.inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RuntimeError(
                f"`{self.name}` was not captured as a CUDA graph, as functions that read numbers off tensors, draw "
                f"them or pick rows by a mask never are (accelerator cpu needs no graph): {error}"
            ) from error
        self.graph = graph


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let an Adam step inside a graph: its counters and rates become tensors on the device."""
    for group in optimizer.param_groups:
        group["capturable"] = device.type == "cuda"
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
    # PyTorch warns of steps outside a graph, of which Lightning's count of training steps needs one, without gradients
    optimizer._warned_capturable_if_run_uncaptured = True  # type: ignore[attr-defined]
