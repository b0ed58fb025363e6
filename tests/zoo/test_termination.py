"""Hopper's rule against the real environment on real states, and its two-sided bounds."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from zoo.tasks import get_task, hopper_terminated


def test_hopper_rule_agrees_with_the_environment_on_real_states() -> None:
    environment = gymnasium.make("Hopper-v5")
    environment.action_space.seed(0)
    agreed, ends = 0, 0
    for episode in range(20):
        environment.reset(seed=episode)
        done = False
        while not done:
            observation, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
            done = terminated or truncated
            rule = bool(hopper_terminated(torch.as_tensor(np.asarray(observation, dtype=np.float32)).unsqueeze(0)))
            agreed += rule == terminated
            ends += terminated
            assert rule == terminated, observation
    environment.close()
    assert agreed > 200 and ends == 20


@pytest.mark.parametrize(
    ("change", "terminal"),
    [
        ({}, False),
        ({0: 0.69}, True),
        ({0: 0.71}, False),
        ({1: 0.21}, True),
        ({1: -0.21}, True),
        ({5: 101.0}, True),
        ({5: -101.0}, True),
        ({5: -99.0}, False),
        ({7: float("nan")}, True),
    ],
)
def test_hopper_rule_is_two_sided(change: dict[int, float], terminal: bool) -> None:
    observation = torch.zeros(1, 11)
    observation[0, 0] = 1.25
    for index, value in change.items():
        observation[0, index] = value
    assert bool(hopper_terminated(observation)) is terminal


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="hopper"):
        get_task("hoper")
