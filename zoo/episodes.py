"""Episodes of a policy in a real environment, for evaluation and for recording data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from zoo.policy import Policy

Array = NDArray[np.float32]
ActionFunction = Callable[[Array], Array]

# Matrix products round differently for different numbers of rows, and a gait amplifies the last bit within seconds.
# Batches padded to a multiple of this give every row the same action whatever its company.
BATCH_ROWS = 16


@dataclass
class Episode:
    """One recorded episode of ``T`` steps.

    Attributes:
        observations: ``(T + 1, observation)``, the last observation included.
        actions: ``(T, action)``.
        rewards: ``(T,)``.
        terminated: whether the last step was terminal.
        truncated: whether the time limit ended the episode.
        seed: seed the environment was reset with, if that is known.
    """

    observations: Array
    actions: Array
    rewards: NDArray[np.float64]
    terminated: bool
    truncated: bool
    seed: int | None = None

    @property
    def total_reward(self) -> float:
        return float(self.rewards.sum())

    def __len__(self) -> int:
        return len(self.rewards)


def content_hash(episodes: Sequence[Episode]) -> str:
    """SHA-256 of what episodes hold, whatever file they are kept in; seeds do not count."""
    digest = hashlib.sha256()
    for episode in episodes:
        ends = np.array([episode.terminated, episode.truncated])
        for array in (episode.observations, episode.actions, episode.rewards, ends):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def policy_actions(
    policy: Policy, deterministic: bool = True, generator: torch.Generator | None = None
) -> ActionFunction:
    """Batched NumPy action function ``(N, observation) -> (N, action)`` of a policy, on whatever device that is."""
    device = next(policy.parameters()).device

    def act(observations: Array) -> Array:
        count = len(observations)
        padded = np.zeros((math.ceil(count / BATCH_ROWS) * BATCH_ROWS, observations.shape[1]), dtype=np.float32)
        padded[:count] = observations
        actions = policy.act(torch.from_numpy(padded).to(device), deterministic=deterministic, generator=generator)
        return actions[:count].cpu().numpy()

    return act


def noisy_actions(
    act: ActionFunction, action_space: gymnasium.spaces.Box, std: float | Array, seed: int
) -> ActionFunction:
    """Actions of ``act`` plus Gaussian noise of deviation ``std`` in the action's own unit, kept within the bounds."""
    generator = np.random.default_rng(seed)

    def noisy(observations: Array) -> Array:
        actions = act(observations)
        noise = generator.normal(0.0, std, actions.shape)
        return np.clip(actions + noise, action_space.low, action_space.high).astype(np.float32)

    return noisy


def random_actions(action_space: gymnasium.spaces.Box, seed: int) -> ActionFunction:
    """Uniform actions within the bounds."""
    generator = np.random.default_rng(seed)

    def act(observations: Array) -> Array:
        size = (len(observations), *action_space.shape)
        return generator.uniform(action_space.low, action_space.high, size).astype(np.float32)

    return act


def run_episodes(
    make_environment: Callable[[], gymnasium.Env],
    act: ActionFunction,
    episodes: int,
    seed: int,
    parallel: int = 10,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Run whole episodes and return them in the order of their seeds ``seed, seed + 1, ...``.

    ``parallel`` environments advance together so that one call of ``act`` serves them all; how many run at a time
    does not change an episode of a deterministic policy.
    """
    finished: dict[int, Episode] = {}
    environments = [make_environment() for _ in range(min(parallel, episodes))]
    try:
        waiting = list(range(episodes))
        running: dict[int, tuple[gymnasium.Env, list[Array], list[Array], list[float]]] = {}
        free = list(environments)
        while waiting or running:
            while free and waiting:
                index, environment = waiting.pop(0), free.pop()
                first, _ = environment.reset(seed=seed + index)
                running[index] = (environment, [np.asarray(first, dtype=np.float32)], [], [])
            order = list(running)
            actions = act(np.stack([running[index][1][-1] for index in order]))
            for index, action in zip(order, actions, strict=True):
                environment, observations, taken, rewards = running[index]
                observation, reward, terminated, truncated, _ = environment.step(action)
                observations.append(np.asarray(observation, dtype=np.float32))
                taken.append(np.asarray(action, dtype=np.float32))
                rewards.append(float(reward))
                if terminated or truncated:
                    finished[index] = Episode(
                        observations=np.stack(observations),
                        actions=np.stack(taken),
                        rewards=np.asarray(rewards),
                        terminated=bool(terminated),
                        truncated=bool(truncated),
                        seed=seed + index,
                    )
                    free.append(environment)
                    del running[index]
                    if progress is not None:
                        progress(len(finished))
    finally:
        for environment in environments:
            environment.close()
    return [finished[index] for index in range(episodes)]


def run_steps(
    make_environment: Callable[[], gymnasium.Env],
    act: ActionFunction,
    steps: int,
    seed: int,
    parallel: int = 10,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Run whole episodes until they hold at least ``steps`` steps together; the last one may go beyond.

    ``progress`` is told the number of steps so far.
    """
    episodes: list[Episode] = []
    total = 0
    while total < steps:
        mean_length = total / len(episodes) if episodes else float(steps)
        count = min(100, max(parallel, math.ceil((steps - total) / mean_length)))
        episodes += run_episodes(make_environment, act, count, seed + len(episodes), parallel)
        total = sum(len(episode) for episode in episodes)
        if progress is not None:
            progress(min(total, steps))
    while total - len(episodes[-1]) >= steps:
        total -= len(episodes.pop())
    return episodes


def run_again(make_environment: Callable[[], gymnasium.Env], seed: int, actions: Array) -> Episode:
    """The episode of recorded actions from a recorded seed: of their length, unless it ends before.

    An episode that is still running after the last action is neither terminated nor truncated.

    Args:
        make_environment: makes the environment they were recorded in.
        seed: what it was reset with.
        actions: ``(T, action)``.
    """
    environment = make_environment()
    try:
        first, _ = environment.reset(seed=seed)
        observations, rewards = [np.asarray(first, dtype=np.float32)], []
        terminated = truncated = False
        for action in actions:
            observation, reward, terminated, truncated, _ = environment.step(action)
            observations.append(np.asarray(observation, dtype=np.float32))
            rewards.append(float(reward))
            if terminated or truncated:
                break
    finally:
        environment.close()
    taken = actions[: len(rewards)]
    return Episode(np.stack(observations), taken, np.asarray(rewards), bool(terminated), bool(truncated), seed)


def reproduces(make_environment: Callable[[], gymnasium.Env], episode: Episode) -> bool:
    """Whether the recorded actions, taken from the recorded seed, give the same observations, rewards and ending.

    Rewards may have been recorded in single precision, and an episode may have been cut before it ended.

    Raises:
        ValueError: if the episode's seed is not known.
    """
    if episode.seed is None:
        raise ValueError("an episode without a seed cannot be run again")
    again = run_again(make_environment, episode.seed, episode.actions)
    if len(again) != len(episode) or not np.array_equal(again.observations, episode.observations):
        return False
    same = (again.rewards == episode.rewards) | (again.rewards.astype(np.float32) == episode.rewards)
    return bool(same.all()) and again.terminated == episode.terminated and again.truncated <= episode.truncated


def interleaved_episodes(
    observation: Array,
    action: Array,
    next_observation: Array,
    reward: NDArray[np.floating],
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    environments: int,
    first_seed: int | None = None,
) -> list[Episode]:
    """Cut the rows of environments that stepped in turn into the episodes they came from, in the order of ending.

    Row ``i`` belongs to environment ``i mod environments``. Arrays have ``M`` rows: ``(M, observation)``,
    ``(M, action)``, ``(M, observation)``, and ``(M,)`` for the last three. Episodes still running at the last row
    are returned as truncated there. Seeds count from ``first_seed`` in the order in which episodes were begun, those of
    one step in the order of their environments; without it they are not known.

    Raises:
        ValueError: if an environment's rows do not follow one another although no episode ended between them.
    """
    ended: list[tuple[int, Episode]] = []
    begun: list[tuple[int, Episode]] = []
    for index in range(environments):
        rows = np.arange(index, len(reward), environments)
        if len(rows) == 0:
            continue
        done = terminated[rows] | truncated[rows]
        joined = (next_observation[rows[:-1]] == observation[rows[1:]]).all(axis=-1)
        broken = np.flatnonzero(~joined & ~done[:-1])
        if len(broken):
            raise ValueError(f"row {rows[broken[0] + 1]} does not continue row {rows[broken[0]]}")
        ends = np.flatnonzero(done)
        if not done[-1]:
            ends = np.append(ends, len(rows) - 1)
        start = 0
        for end in ends.tolist():
            part = rows[start : end + 1]
            last = int(part[-1])
            episode = Episode(
                observations=np.concatenate([observation[part], next_observation[last : last + 1]]),
                actions=action[part],
                rewards=reward[part].astype(np.float64),
                terminated=bool(terminated[last]),
                truncated=bool(truncated[last] or not terminated[last]),
            )
            ended.append((last, episode))
            begun.append((int(part[0]), episode))
            start = end + 1
    if first_seed is not None:
        for count, (_, episode) in enumerate(sorted(begun, key=lambda item: item[0])):
            episode.seed = first_seed + count
    return [episode for _, episode in sorted(ended, key=lambda item: item[0])]


def thin_episodes(episodes: Sequence[Episode], steps: int) -> list[Episode]:
    """As many evenly spaced whole episodes as fit in ``steps`` steps.

    Raises:
        ValueError: if not even one episode fits.
    """
    lengths = np.array([len(episode) for episode in episodes])
    for count in range(len(episodes), 0, -1):
        chosen = np.linspace(0, len(episodes) - 1, count).round().astype(int)
        if lengths[chosen].sum() <= steps:
            return [episodes[index] for index in chosen]
    raise ValueError(f"not one of the chosen episodes is as short as {steps} steps")
