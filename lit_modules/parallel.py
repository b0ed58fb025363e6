"""A training in several processes: what they agree on, and what each of them has of its own.

Every process ("rank") draws rows and noise of its own and computes the gradients of the same networks on them; the
mean over all ranks is what every optimiser follows, so that networks stay equal. What a method logs, and what it tunes
by what it logs, is averaged in the same exchange.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor, distributed
from torch.utils._pytree import tree_map_only


class RankLost(RuntimeError):
    """Another process of this training has ended before its work was done; the message has been printed."""


def refuse_other_strategies(strategy: Strategy) -> None:
    """Refuse what shards networks or leaves gradients to its own devices.

    Raises:
        ValueError: naming the strategy.
    """
    if type(strategy) is not DDPStrategy:  # which others are based on
        raise ValueError(
            f"{type(strategy).__name__} cannot train this: its networks are small, and their gradients are averaged "
            "step by step; use --trainer.strategy ddp"
        )


def agree(gradients: Sequence[Tensor], parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace gradients by their means over all ranks, in place, and return the means of what is logged beside them."""
    means = averaged([*gradients, *parts.values()])
    torch._foreach_copy_(list(gradients), means[: len(gradients)])
    return dict(zip(parts, means[len(gradients) :], strict=True))


def averaged(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The means of tensors over all ranks, by one exchange; every rank calls this with tensors of the same shapes.

    Raises:
        RankLost: if a rank is gone.
    """
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    exchange(flat, distributed.ReduceOp.SUM)
    flat.div_(distributed.get_world_size())
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def exchange(tensor: Tensor, operation: Any) -> None:
    """Replace a tensor by the sum or the maximum of those of all ranks, in place.

    Raises:
        RankLost: if a rank is gone.
    """
    with _others_at_hand():
        distributed.all_reduce(tensor, operation)


@contextmanager
def _others_at_hand() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        message = (
            f"process {distributed.get_rank()} of {distributed.get_world_size()} waits in vain for the others: one of "
            f"them has ended, and the reason is in its own output ({error})"
        )
        # At once: Lightning kills the first process, within seconds and without a word, when another has ended
        print(f"offsim: {message}", file=sys.stderr, flush=True)
        raise RankLost(message) from error


def of_all_ranks(value: Any) -> list[Any]:
    """What each rank holds, on the rank that writes checkpoints; elsewhere this rank's alone.

    Args:
        value: tensors in any nesting; they come out on the CPU.
    """
    value = tree_map_only(Tensor, Tensor.cpu, value)
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return [value]
    first = distributed.get_rank() == 0
    values: list[Any] = [None] * distributed.get_world_size()
    with _others_at_hand():
        distributed.gather_object(value, values if first else None)
    return values if first else [value]
