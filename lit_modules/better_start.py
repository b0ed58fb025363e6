"""Which of two cloned policies a learner had better start from, as far as the Simulator can say.

Where the policy that was cloned from demonstrations alone fails, it is where no data is, and nothing that the Simulator
promises there is known. One that was cloned from other data as well is nearer to it. Learned reward is no judge between
the two: it pays what looks like the demonstrations. When an episode ends is known better, by a rule or from data.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lit_modules.hold import hold_of
from lit_modules.simulator_returns import simulator_returns
from zoo.policy import Policy
from zoo.simulator import Simulator
from zoo.tasks import get_task


def compare_starts(simulator: Simulator, cloned: Policy, weighted: Policy, episodes: int) -> dict[str, float]:
    """What the two do in the same episodes in the Simulator, as long as the system's own may be.

    Args:
        simulator: where.
        cloned: policy cloned from demonstrations.
        weighted: policy cloned from other data as well.
        episodes: how many.

    Returns:
        ``cloned_return``, the learned return, and for both, as in ``cloned_length``, the mean steps until the end.
    """
    device = simulator.reward.low.device
    figures = simulator_returns(
        simulator,
        [policy.to(device) for policy in (cloned, weighted)],
        episodes,
        longest_episode(simulator),
        torch.Generator(device).manual_seed(0),
    )
    return {
        "cloned_return": figures[0]["return"],
        "cloned_length": figures[0]["length"],
        "weighted_length": figures[1]["length"],
    }


def weighted_is_better(
    figures: Mapping[str, float], demonstrated: float, start_below: float | None, length_at_least: float
) -> bool:
    """Whether the weighted policy is the better start: the cloned one fails, and it does not end much earlier.

    Args:
        figures: those of :func:`compare_starts`.
        demonstrated: learned return of the demonstrations.
        start_below: share of that below which the cloned policy fails; ``None``: the weighted one in any case.
        length_at_least: share of the cloned policy's length that the weighted one's has to be.
    """
    if start_below is None:
        return True
    fails = hold_of(figures["cloned_return"], demonstrated, start_below, 0.0) == 0.0
    return fails and figures["weighted_length"] >= length_at_least * figures["cloned_length"]


def longest_episode(simulator: Simulator, limit: int = 1000) -> int:
    """Steps after which an episode is truncated: the task's, or those of the longest demonstration, or ``limit``."""
    own = get_task(simulator.task).horizon if simulator.task is not None else simulator.horizon
    return limit if own is None else min(limit, own)
