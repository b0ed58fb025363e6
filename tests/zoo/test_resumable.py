"""Real environments go on in another process where they were left, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.resumable import Resumable
from zoo.tasks import TASKS, get_task


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_restored_environment_goes_on_as_the_one_it_was_taken_from(name: str, steps: int, tmp_path: Path) -> None:
    one, other = (Resumable(get_task(name).make()) for _ in range(2))
    one.action_space.seed(3)
    left, _ = one.reset(seed=5)
    for _ in range(steps):
        left, *_ = one.step(0.1 * one.action_space.sample())
    torch.save(one.state(), tmp_path / "state")
    assert np.array_equal(other.restore(torch.load(tmp_path / "state", weights_only=True)), left)
    for _ in range(1000):
        actions = [environment.action_space.sample() for environment in (one, other)]
        assert np.array_equal(*actions)
        (observed, *told), (observed_too, *told_too) = one.step(actions[0]), other.step(actions[1])
        assert np.array_equal(observed, observed_too)
        assert told[:3] == told_too[:3]
        if told[1] or told[2]:
            return
    raise AssertionError("the episode never ended: its time limit was not restored")


def test_a_time_limit_counts_the_steps_of_both(tmp_path: Path) -> None:
    one, other = (Resumable(get_task("halfcheetah").make()) for _ in range(2))
    one.reset(seed=0)
    rest = np.zeros(6, dtype=np.float32)
    for _ in range(990):
        one.step(rest)
    other.restore(one.state())
    assert [other.step(rest)[3] for _ in range(10)] == [False] * 9 + [True]
