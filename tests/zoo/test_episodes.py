"""Episodes: acting, and cutting a replay back into them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from zoo.episodes import (
    Episode,
    interleaved_episodes,
    noisy_actions,
    policy_actions,
    random_actions,
    reproduces,
    run_episodes,
    run_steps,
    thin_episodes,
)
from zoo.policy import Policy
from zoo.tasks import get_task

HOPPER = get_task("hopper")


def make_policy() -> Policy:
    """A policy that falls at different times from different starts."""
    torch.manual_seed(0)
    policy = Policy(11, [-1.0] * 3, [1.0] * 3, hidden_sizes=(64, 64)).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2.0)
    return policy


def action_space() -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)


def episode_of(length: int, terminated: bool = True) -> Episode:
    return Episode(
        observations=np.zeros((length + 1, 2), dtype=np.float32),
        actions=np.zeros((length, 1), dtype=np.float32),
        rewards=np.ones(length),
        terminated=terminated,
        truncated=not terminated,
    )


@pytest.mark.parametrize("parallel", [2, 5, 16])
def test_how_many_run_together_changes_no_deterministic_episode(parallel: int) -> None:
    alone = run_episodes(HOPPER.make, policy_actions(make_policy()), 5, seed=3, parallel=1)
    together = run_episodes(HOPPER.make, policy_actions(make_policy()), 5, seed=3, parallel=parallel)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.observations, other.observations)
        assert np.array_equal(one.actions, other.actions)
        assert np.array_equal(one.rewards, other.rewards)
        assert one.seed == other.seed


def test_a_row_gets_the_same_action_in_any_company() -> None:
    act = policy_actions(make_policy())
    observations = np.random.default_rng(0).normal(size=(40, 11)).astype(np.float32)
    everything = act(observations)
    for count in (1, 7, 16, 17):
        assert np.array_equal(act(observations[:count]), everything[:count])


def test_the_last_observation_is_kept_and_a_time_limit_is_no_terminal() -> None:
    def make() -> gymnasium.Env[Any, Any]:
        return gymnasium.make("Hopper-v5", max_episode_steps=5)

    (episode,) = run_episodes(make, random_actions(action_space(), 0), 1, seed=0)
    assert episode.observations.shape == (6, 11) and episode.actions.shape == (5, 3) and len(episode) == 5
    assert episode.truncated and not episode.terminated


def test_recorded_actions_reproduce_an_episode_and_changed_ones_do_not() -> None:
    act = noisy_actions(random_actions(action_space(), 0), action_space(), 0.1, 0)
    (episode,) = run_episodes(HOPPER.make, act, 1, seed=11)
    assert episode.terminated and reproduces(HOPPER.make, episode)
    episode.actions[0] = -episode.actions[0]
    assert not reproduces(HOPPER.make, episode)
    with pytest.raises(ValueError, match="seed"):
        reproduces(HOPPER.make, episode_of(3))


def test_noise_has_the_asked_spread_and_stays_within_the_bounds() -> None:
    def still(observations: np.ndarray) -> np.ndarray:
        return np.zeros((len(observations), 3), dtype=np.float32)

    rows = np.zeros((20_000, 11), dtype=np.float32)
    small = noisy_actions(still, action_space(), 0.1, 0)(rows)
    assert small.dtype == np.float32 and small.std() == pytest.approx(0.1, rel=0.02)
    large = noisy_actions(still, action_space(), 5.0, 0)(rows)
    assert large.min() == -1.0 and large.max() == 1.0


def test_steps_are_reached_by_whole_episodes_and_no_more_than_needed() -> None:
    told: list[int] = []
    episodes = run_steps(HOPPER.make, random_actions(action_space(), 0), 300, seed=0, parallel=4, progress=told.append)
    lengths = [len(episode) for episode in episodes]
    assert sum(lengths) >= 300 > sum(lengths[:-1])
    assert [episode.seed for episode in episodes] == list(range(len(episodes)))
    assert told[-1] == 300
    assert all(episode.terminated or episode.truncated for episode in episodes)


def interleave(plans: list[list[tuple[int, str]]], rows: int) -> dict[str, np.ndarray]:
    """Rows of environments that step in turn; observation is (environment, episode, step), so that joins show."""
    columns: dict[str, list[Any]] = {name: [] for name in ("observation", "next", "terminated", "truncated")}
    place = [(0, 0)] * len(plans)
    for row in range(rows):
        environment = row % len(plans)
        episode, step = place[environment]
        length, ending = plans[environment][episode]
        columns["observation"].append((environment, episode, step))
        columns["next"].append((environment, episode, step + 1))
        ends = step + 1 == length
        columns["terminated"].append(ends and ending == "terminated")
        columns["truncated"].append(ends and ending == "truncated")
        place[environment] = (episode + 1, 0) if ends else (episode, step + 1)
    return {
        "observation": np.array(columns["observation"], dtype=np.float32),
        "action": np.arange(rows, dtype=np.float32)[:, None],
        "next_observation": np.array(columns["next"], dtype=np.float32),
        "reward": np.arange(rows, dtype=np.float32),
        "terminated": np.array(columns["terminated"]),
        "truncated": np.array(columns["truncated"]),
    }


def test_interleaved_rows_become_the_episodes_they_came_from() -> None:
    plans = [[(3, "terminated"), (2, "truncated"), (9, "")], [(1, "terminated"), (9, "")], [(6, "truncated"), (1, "")]]
    rows = interleave(plans, 18)
    episodes = interleaved_episodes(**rows, environments=3)
    found = [(tuple(episode.observations[0][:2].astype(int)), len(episode)) for episode in episodes]
    assert found == [((1, 0), 1), ((0, 0), 3), ((0, 1), 2), ((0, 2), 1), ((1, 1), 5), ((2, 0), 6)]
    assert {episode.seed for episode in episodes} == {None}
    seeded = interleaved_episodes(**rows, environments=3, first_seed=70)
    assert [episode.seed for episode in seeded] == [71, 70, 74, 75, 73, 72]  # begun: three at first, then as others end
    assert sum(len(episode) for episode in episodes) == 18
    for episode in episodes:
        environment, number = episode.observations[0][:2].astype(int)
        assert (episode.observations[:, :2] == (environment, number)).all()  # joins nothing
        assert np.array_equal(episode.observations[:, 2], np.arange(len(episode) + 1))  # skips nothing
        assert ((episode.actions[:, 0] % 3) == environment).all()
        assert np.array_equal(episode.actions[:, 0], episode.rewards)
        length, ending = plans[environment][number]
        whole = len(episode) == length
        assert episode.terminated == (whole and ending == "terminated")
        assert episode.truncated == (not episode.terminated)
    assert [episode.actions[-1, 0] for episode in episodes] == sorted(episode.actions[-1, 0] for episode in episodes)


def test_rows_that_do_not_follow_one_another_are_refused() -> None:
    rows = interleave([[(9, "")], [(9, "")]], 10)
    rows["observation"][6] += 1.0
    with pytest.raises(ValueError, match="row 6 does not continue row 4"):
        interleaved_episodes(**rows, environments=2)
    rows["truncated"][4] = True  # unless an episode ended there, as when a training was interrupted
    assert len(interleaved_episodes(**rows, environments=2)) == 3


def test_thinning_keeps_whole_evenly_spaced_episodes() -> None:
    episodes = [episode_of(10) for _ in range(21)]
    for index, episode in enumerate(episodes):
        episode.rewards[:] = index
    kept = [int(episode.rewards[0]) for episode in thin_episodes(episodes, 55)]
    assert kept == [0, 5, 10, 15, 20]
    assert thin_episodes(episodes, 210) == episodes
    with pytest.raises(ValueError):
        thin_episodes(episodes, 9)
