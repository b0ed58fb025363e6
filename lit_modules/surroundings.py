"""The surroundings in which demonstrations were recorded: what a reward may not tell them by, nor a comparison."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from zoo.row_random import Randomness, integers
from zoo.simulator import Simulator
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


def surroundings_of(simulator: Simulator, demonstrations: TensorDict) -> Tensor | None:
    """What was set from outside when demonstrations began, ``(M, d)``; ``None`` where nothing is set from outside.

    Args:
        simulator: knows which features are exogenous.
        demonstrations: their transitions, ``(N,)``, with ``step``.
    """
    if not simulator.exogenous:
        return None
    first = demonstrations["step"].reshape(-1) == 0
    return simulator.transition.exogenous_of(demonstrations["observation"][first if bool(first.any()) else ~first])


def begin(
    simulator: Simulator, episodes: int, generator: Randomness = None, surroundings: Tensor | None = None
) -> Tensor:
    """Observations ``(B, D)`` in which episodes of a Simulator begin, in one of the surroundings if some are given.

    What a policy earns in other surroundings than the demonstrations had is no share of what these earn.
    """
    observation = simulator.reset(episodes, generator)
    if surroundings is None:
        return observation
    taken = integers(len(surroundings), episodes, generator, observation.device)
    return simulator.transition.with_exogenous(observation, surroundings.to(observation)[taken])
