"""Which of two cloned policies a learner had better start from, as far as the Simulator can say.

Where the policy that was cloned from demonstrations alone fails, it is where no data is, and little is known of what
the Simulator promises there. One that was cloned from other data as well is nearer to it. But a learner goes where
reward is, and what no demonstration looks like earns nothing, whatever it is worth: only one that earns something is a
start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from lightning.pytorch.loggers import Logger
from tensordict import TensorDict
from torch import Tensor

from lit_modules.hold import demonstrated_return, hold_of
from lit_modules.simulator_returns import longest_episode, simulator_returns
from zoo.policy import Policy
from zoo.simulator import Simulator

MOST_STEPS = 1000  # of an episode that is judged, however long the system's own are


def judge_start(
    simulator: Simulator, policy: Policy, name: str, episodes: int, surroundings: Tensor | None = None
) -> dict[str, float]:
    """What a policy does in the Simulator, always in the same episodes, as long as the system's own may be.

    Args:
        simulator: where.
        policy: that is judged.
        name: of it, which begins those of the figures.
        episodes: how many.
        surroundings: see ``surroundings.begin``.

    Returns:
        ``NAME_return`` and ``NAME_length``, the learned return above what ending is worth, and the mean steps until
        the end.
    """
    device = simulator.reward.low.device
    generator = torch.Generator(device).manual_seed(0)
    (figures,) = simulator_returns(
        simulator, [policy.to(device)], episodes, judged_steps(simulator), generator, surroundings
    )
    return {f"{name}_return": figures["earned"], f"{name}_length": figures["length"]}


def judge_demonstrations(simulator: Simulator, demonstrations: TensorDict) -> float:
    """The same of demonstrations ``(N,)``, of as many steps: their learned return above what ending is worth."""
    return demonstrated_return(simulator.reward, demonstrations, judged_steps(simulator), simulator.end_worth())


def cloned_fails(figures: Mapping[str, float], demonstrated: float, start_below: float) -> bool:
    """Whether the policy that was cloned from demonstrations alone fails in the Simulator.

    Args:
        figures: those of :func:`judge_start` of it, ``cloned``.
        demonstrated: learned return of the demonstrations.
        start_below: share of that below which it does.
    """
    return hold_of(figures["cloned_return"], demonstrated, start_below, 0.0) == 0.0


def weighted_is_better(
    figures: Mapping[str, float], demonstrated: float, start_below: float | None, return_at_least: float
) -> bool:
    """Whether the weighted policy is the better start: the cloned one fails, and it earns something itself.

    Args:
        figures: those of :func:`judge_start` of both, ``cloned`` and ``weighted``.
        demonstrated: learned return of the demonstrations.
        start_below: share of that below which the cloned policy fails; ``None``: the weighted one in any case.
        return_at_least: share of the cloned policy's return that the weighted one has to have.
    """
    if start_below is None:
        return True
    earns = figures["weighted_return"] > max(0.0, return_at_least * figures["cloned_return"])
    return cloned_fails(figures, demonstrated, start_below) and earns


def log_start(loggers: Iterable[Logger], figures: Mapping[str, float], updates: int) -> None:
    """Log what was judged, and which start was taken, as the last of a stage's log."""
    for logger in loggers:
        logger.log_metrics({f"start/{name}": value for name, value in figures.items()}, updates)
        logger.save()


def judged_steps(simulator: Simulator) -> int:
    """Steps after which an episode in the Simulator is truncated: those of the system's longest, or ``MOST_STEPS``."""
    return int(min(MOST_STEPS, longest_episode(simulator)))
