"""Policies of many qualities, to see whether a Simulator tells the good from the bad."""

from __future__ import annotations

import gymnasium
import numpy as np

from zoo import Policy
from zoo.episodes import ActionFunction, Array, noisy_actions, policy_actions, random_actions
from zoo.tasks import Task

POLICY, RANDOM = "policy", "random actions"
NOISES = (0.1, 0.2, 0.4, 0.8)  # deviation of the noise on the policy's actions, in half action ranges
FORCES = (0.25, 0.5, 0.75, 0.9)  # shares of the policy's actions that are taken


def contenders(policy: Policy, task: Task, seed: int) -> dict[str, ActionFunction]:
    """A policy, what is left of it with noise or with less force, and random actions, by name."""
    space = task.make().action_space
    assert isinstance(space, gymnasium.spaces.Box)
    act = policy_actions(policy)
    found = {POLICY: act}
    for noise in NOISES:
        deviation = (0.5 * noise * (space.high - space.low)).astype(np.float32)
        found[f"noise {noise:g}"] = noisy_actions(act, space, deviation, seed)
    for force in FORCES:
        found[f"{force:.0%} of its force"] = _weaker(act, force)
    return found | {RANDOM: random_actions(space, seed)}


def _weaker(act: ActionFunction, force: float) -> ActionFunction:
    def weaker(observations: Array) -> Array:
        return (force * act(observations)).astype(np.float32)

    return weaker
