"""Demonstrations that are copies of one another are told from others."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.diagnostics import distances_between_episodes
from lit_modules.narrow_demonstrations import (
    demonstrations_are_narrow,
    distance_between_demonstrations,
    warn_of_narrow_demonstrations,
)


def data(apart: float, episodes: int = 3) -> Any:
    """Episodes round one circle, ``apart`` from each other."""
    angle = torch.linspace(0.0, 12.0, 200)
    circle = torch.stack([angle.sin(), angle.cos(), torch.zeros(200)], dim=-1)
    states = torch.cat([circle + torch.tensor([0.0, 0.0, apart * index]) for index in range(episodes)])
    episode = torch.arange(episodes).repeat_interleave(200)
    table = TensorDict({"observation": states, "episode": episode}, batch_size=[len(states)])
    return SimpleNamespace(
        expert_train=table, statistics=SimpleNamespace(observation_std=torch.tensor([0.5, 0.5, 1.0]))
    )


def test_distances_are_those_to_other_episodes() -> None:
    table = data(0.25).expert_train
    found = distances_between_episodes(table["observation"], table["episode"], 50)
    assert found is not None and found.shape == (50,)
    torch.testing.assert_close(found, torch.full((50,), 0.25))
    assert distances_between_episodes(table["observation"], torch.zeros(600), 50) is None


def test_copies_of_one_gait_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="in the median a state is within 0.001 deviations of one of"):
        warn_of_narrow_demonstrations(data(0.001))


def test_they_are_as_far_apart_as_their_nearest_states() -> None:
    assert distance_between_demonstrations(data(0.25)) == pytest.approx(0.25)
    assert distance_between_demonstrations(data(0.0, episodes=1)) == math.inf
    assert demonstrations_are_narrow(data(0.001)) and not demonstrations_are_narrow(data(0.1))


@pytest.mark.parametrize("found", [data(0.1), data(0.0, episodes=1)])
def test_other_demonstrations_are_not(found: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_narrow_demonstrations(found)
