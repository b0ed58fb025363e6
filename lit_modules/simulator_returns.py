"""What policies return in a Simulator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_modules.surroundings import begin
from zoo.policy import Policy
from zoo.simulator import Simulator
from zoo.tasks import get_task


@torch.no_grad()
def simulator_returns(
    simulator: Simulator,
    policies: Sequence[Policy],
    episodes: int,
    horizon: int,
    generator: torch.Generator,
    surroundings: Tensor | None = None,
) -> list[dict[str, float]]:
    """Deterministic policies in the Simulator, each from the same of its start states.

    Args:
        simulator: where.
        policies: that are compared.
        episodes: of each.
        horizon: steps after which they are truncated.
        generator: source of randomness.
        surroundings: see ``surroundings.begin``.

    Returns:
        For each policy ``return``: mean sum of standardised rewards (an expert that never ends scores about
        ``horizon``); ``earned``: of that what is above ending (``Simulator.end_worth``), by which policies are
        compared, since a learned reward has no zero of its own; ``length``: mean steps until the end;
        ``uncertainty``: mean uncertainty on the way.
    """
    count = len(policies)
    observation = begin(simulator, episodes, generator, surroundings).repeat(count, 1)
    members = simulator.episode_members(count * episodes, generator)
    alive = torch.ones(count * episodes, device=observation.device)
    total, earned, length, doubt = (torch.zeros_like(alive) for _ in range(4))
    end_worth = simulator.end_worth()
    for _ in range(horizon):
        rows = observation.chunk(count)
        action = torch.cat([policy.act(own) for policy, own in zip(policies, rows, strict=True)])
        following, reward, terminated, info = simulator.step(observation, action, generator, members=members)
        total += alive * reward
        earned += alive * (reward - end_worth)  # step by step, so that what earns nothing earns exactly that
        length += alive
        doubt += alive * info["uncertainty"]
        alive = alive * (~terminated).float()
        if not bool(alive.any()):
            break
        observation = following
    figures = {"return": total, "earned": earned, "length": length, "uncertainty": doubt / length}
    means = {name: value.reshape(count, episodes).mean(dim=1).tolist() for name, value in figures.items()}
    return [{name: value[each] for name, value in means.items()} for each in range(count)]


def longest_episode(simulator: Simulator) -> float:
    """Steps after which the system's own episodes end at the latest: the task's, or the longest demonstration's."""
    if simulator.task is not None:
        return get_task(simulator.task).horizon
    return simulator.horizon or math.inf
