"""The formulas of the tasks' own rewards against the environments, and the scale that controls use them on."""

from __future__ import annotations

import copy

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from app.errors import UserError
from app.true_reward import FORMULAS, TrueReward, known_true_reward
from zoo.tasks import TASKS, get_task

# Root mean squared error of a step under random actions, in the environment's unit; measured: 0.006, 0.13, 0.02, 0.13.
# On recorded data the errors are those that app/true_reward.py states.
TOLERANCE = {"hopper": 0.01, "halfcheetah": 0.16, "walker2d": 0.03, "ant": 0.16}
SPEEDS = {"hopper": 3.0, "halfcheetah": 8.0, "walker2d": 3.0, "ant": 3.0}


def transitions(name: str, moving: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """Observation, action, next observation and the environment's reward of random actions.

    Episodes from the usual starts, or ten steps at a time from states that are set to move forwards.
    """
    environment = get_task(name).make()
    inner = environment.unwrapped
    assert isinstance(environment.action_space, gymnasium.spaces.Box)
    space = environment.action_space
    random = np.random.default_rng(0)
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = []
    observation, _ = environment.reset(seed=0)
    while len(rows) < 300:
        if moving and len(rows) % 10 == 0:
            position, velocity = inner.init_qpos.copy(), inner.init_qvel.copy()
            velocity[0] += random.uniform(0.5, 1.0) * SPEEDS[name]
            velocity[-3:] += random.normal(0.0, 1.0, 3)
            inner.set_state(position, velocity)
            observation = inner._get_obs()
        action = random.uniform(space.low, space.high).astype(np.float32)
        following, reward, terminated, truncated, _ = environment.step(action)
        rows.append((observation, action, following, float(reward)))
        observation = environment.reset()[0] if terminated or truncated else following
    environment.close()
    *columns, rewards = (np.stack(column) for column in zip(*rows, strict=True))
    before, action, after = (torch.from_numpy(column).float() for column in columns)
    return before, action, after, rewards


def test_formulas_are_of_tasks() -> None:
    assert set(FORMULAS) < set(TASKS)


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formula_is_the_environments_reward(name: str, moving: bool) -> None:
    before, action, after, rewards = transitions(name, moving)
    ours = TrueReward(name)(before, action, after).numpy()
    error = ours - rewards
    assert np.sqrt(np.mean(error**2)) < TOLERANCE[name]
    assert abs(error.mean()) < 0.3 * TOLERANCE[name]
    assert np.std(rewards) > 2.0 * np.std(error) and np.corrcoef(ours, rewards)[0, 1] > 0.95
    if moving:
        assert rewards.mean() > 0.3 * SPEEDS[name]


@pytest.mark.parametrize("name", ["hopper", "walker2d", "ant"])
def test_no_bonus_in_states_that_end_an_episode(name: str) -> None:
    size, actions = TASKS[name].observation_size, TASKS[name].action_size
    healthy = torch.zeros(1, size)
    healthy[:, 0] = {"hopper": 1.25, "walker2d": 1.25, "ant": 0.75}[name]
    fallen = torch.zeros(1, size)
    rest = torch.zeros(1, actions)
    assert float(TrueReward(name)(healthy, rest, healthy)) == 1.0
    assert float(TrueReward(name)(healthy, rest, fallen)) == 0.0


def test_a_reward_by_hand() -> None:
    before, after = torch.zeros(2, 17), torch.zeros(2, 17)
    before[:, 8], after[:, 8] = 1.0, 4.0
    reward = TrueReward("halfcheetah")(before, torch.full((2, 6), 0.5), after)
    torch.testing.assert_close(reward, torch.full((2,), 1.0 / 3.0 + 8.0 / 3.0 - 0.1 * 6 * 0.25))


def table(speeds: list[float]) -> TensorDict:
    """HalfCheetah rows that move at these speeds."""
    observation = torch.zeros(len(speeds), 17)
    observation[:, 8] = torch.tensor(speeds)
    return TensorDict(
        {
            "observation": observation,
            "action": torch.zeros(len(speeds), 6),
            "next": TensorDict({"observation": observation.clone()}, batch_size=[len(speeds)]),
        },
        batch_size=[len(speeds)],
    )


def test_controls_use_the_scale_of_a_learned_reward() -> None:
    expert, diverse = table([2.0, 6.0]), table([-2.0, 1.0])
    reward = TrueReward.like_learned(get_task("halfcheetah"), expert, diverse)
    rows = expert["observation"], expert["action"], expert["next", "observation"]
    torch.testing.assert_close(reward(*rows), torch.tensor([0.5, 1.5]))
    assert (float(reward.low), float(reward.high)) == (-0.5, 1.5)
    beyond = copy.deepcopy(expert["observation"])
    beyond[:, 8] = 100.0
    torch.testing.assert_close(reward(beyond, expert["action"], beyond), torch.tensor([1.5, 1.5]))
    assert float(TrueReward.like_learned(get_task("halfcheetah"), expert, None).low) == 0.0


def test_demonstrations_that_earn_nothing_give_no_scale() -> None:
    with pytest.raises(UserError, match="leave out --controls"):
        TrueReward.like_learned(get_task("halfcheetah"), table([-1.0, 1.0]), None)


def test_a_task_without_a_formula_has_none() -> None:
    unknown = copy.copy(get_task("hopper"))
    object.__setattr__(unknown, "name", "juggler")
    assert known_true_reward(unknown) is None
