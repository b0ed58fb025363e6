"""A training in several processes: what they agree on, and what each of them has of its own.

Every process ("rank") draws rows and noise of its own and computes the gradients of the same networks on them; the
mean over all ranks is what every optimiser follows, so that networks stay equal. What a method logs, and what it tunes
by what it logs, is averaged in the same exchange.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor, distributed
from torch.utils._pytree import tree_map_only


def tell_of_lost_process(error: BaseException) -> bool:
    """Whether an exchange with the other processes failed, as it does when one has ended early; if so, print it once.

    Lightning exchanges what it likes between our own exchanges, so any of them may be the one that fails.
    """
    if not (isinstance(error, RuntimeError) and distributed.is_available() and distributed.is_initialized()):
        return False
    innermost = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if not innermost.is_relative_to(Path(distributed.__file__).parent):
        return False
    message = (
        f"process {distributed.get_rank()} of {distributed.get_world_size()} waits in vain for the others: one of "
        f"them has ended, and the reason is in its own output ({error})"
    )
    if message not in getattr(error, "__notes__", []):
        error.add_note(message)
        print(f"offsim: {message}", file=sys.stderr, flush=True)
    return True


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
    """The means of tensors over all ranks, by one exchange; every rank calls this with tensors of the same shapes."""
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    distributed.all_reduce(flat)
    flat.div_(distributed.get_world_size())
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


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
    distributed.gather_object(value, values if first else None)
    return values if first else [value]
