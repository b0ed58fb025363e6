"""What a reward may not tell demonstrations by: the surroundings in which they were recorded."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from zoo.transition import TransitionModel


def in_expert_surroundings(model: TransitionModel, rows: TensorDict, expert: TensorDict) -> TensorDict:
    """Rows whose exogenous features are those of expert rows, one after the other, now and after the step.

    What is set from outside tells where an expert was watched, and not what it does: a reward that could tell
    demonstrations by it would pay for the season that they were recorded in.

    Args:
        model: knows which features are exogenous; where none is, rows stay what they are.
        rows: with ``observation`` and, if they hold it, ``next: {observation}``, ``(N, ...)``.
        expert: rows of the demonstrations, ``(M, ...)``.
    """
    if not model.exogenous:
        return rows
    taken = expert[torch.arange(len(rows), device=expert.device) % len(expert)]
    rows = rows.clone()
    for key in ("observation", ("next", "observation")):
        if key in rows.keys(True):
            rows[key] = model.with_exogenous(rows[key], model.exogenous_of(taken[key]).to(rows[key]))
    return rows
