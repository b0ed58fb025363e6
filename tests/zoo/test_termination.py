"""The tasks' rules against the real environment on real states, and their two-sided bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.tasks import get_task, hopper_terminated


@pytest.mark.parametrize(
    ("name", "ends"),
    [("hopper", 20), ("walker2d", 20), ("ant", 1), ("halfcheetah", 0), ("inverted_pendulum", 20), ("reacher", 0)],
)
def test_rules_agree_with_the_environment_on_real_states(name: str, ends: int) -> None:
    task = get_task(name)
    assert task.termination is not None
    environment = task.make(max_episode_steps=200)
    environment.action_space.seed(0)
    observations, terminations = [], []
    for episode in range(20):
        environment.reset(seed=episode)
        done = False
        while not done:
            observation, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
            done = terminated or truncated
            observations.append(observation)
            terminations.append(terminated)
    environment.close()
    rule = task.termination(torch.as_tensor(np.asarray(observations, dtype=np.float32)))
    assert rule.tolist() == terminations
    assert sum(terminations) >= ends and len(terminations) > 80


@pytest.mark.parametrize(
    ("name", "height", "terminal"),
    [
        ("walker2d", 0.79, True),
        ("walker2d", 1.2, False),
        ("walker2d", 2.01, True),
        ("ant", 0.19, True),
        ("ant", 0.75, False),
        ("ant", 1.01, True),
        ("ant", float("nan"), True),
        ("walker2d", float("nan"), True),
        ("halfcheetah", -5.0, False),
    ],
)
def test_heights_that_end_an_episode(name: str, height: float, terminal: bool) -> None:
    task = get_task(name)
    observation = torch.zeros(1, task.observation_size)
    observation[0, 0] = height
    assert task.termination is not None
    assert task.termination(observation).tolist() == [terminal]


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
