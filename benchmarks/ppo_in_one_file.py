"""PPO in one file, in the manner of CleanRL: what a researcher's own script does with a Simulator.

Nothing here is offsim's: environments come from ``gymnasium.make_vec``, wrappers from Gymnasium (Schulman et al. 2017,
"Proximal policy optimization algorithms"; Huang et al. 2022, "The 37 implementation details of PPO").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Normal

Array = NDArray[Any]

NUM_ENVS = 64
NUM_STEPS = 64
EPOCHS, MINIBATCHES = 10, 16
GAMMA, GAE_LAMBDA = 0.99, 0.95
CLIP, VALUE_WEIGHT, GRADIENT_NORM = 0.2, 0.5, 0.5
LEARNING_RATE = 3e-4


def layer(inputs: int, outputs: int, gain: float = 2.0**0.5) -> nn.Linear:
    """A linear layer with orthogonal weights."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made


class Agent(nn.Module):
    """Gaussian actor and critic."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(layer(observation_size, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.actor = nn.Sequential(
            layer(observation_size, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, action_size, 0.01)
        )
        self.log_std = nn.Parameter(torch.zeros(action_size))

    def act(self, observation: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Action, its log-density, the entropy and the value."""
        choices = Normal(self.actor(observation), self.log_std.exp())
        chosen = choices.sample() if action is None else action
        density, entropy = choices.log_prob(chosen).sum(-1), choices.entropy().sum(-1)
        return chosen, density, entropy, self.critic(observation).squeeze(-1)


def train(environment_id: str, steps: int, seed: int = 0, **kwargs: Any) -> Callable[[Array], Array]:
    """Train for so many steps of all environments together; returns observations ``(N, D)`` to actions ``(N, A)``."""
    torch.manual_seed(seed)
    raw = gymnasium.make_vec(environment_id, num_envs=NUM_ENVS, **kwargs)
    normalized = gymnasium.wrappers.vector.NormalizeObservation(gymnasium.wrappers.vector.ClipAction(raw))
    envs: Any = gymnasium.wrappers.vector.RecordEpisodeStatistics(normalized)
    size, action_size = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    agent = Agent(size, action_size)
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE, eps=1e-5)

    def tensor(values: Array) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32)

    observations = torch.zeros(NUM_STEPS, NUM_ENVS, size)
    actions = torch.zeros(NUM_STEPS, NUM_ENVS, action_size)
    densities, rewards, ends, values = torch.zeros(4, NUM_STEPS, NUM_ENVS)
    current, ended = tensor(envs.reset(seed=seed)[0]), torch.zeros(NUM_ENVS)
    iterations = max(1, steps // (NUM_STEPS * NUM_ENVS))
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1.0 - iteration / iterations)
        for step in range(NUM_STEPS):
            observations[step], ends[step] = current, ended
            with torch.no_grad():
                actions[step], densities[step], _, values[step] = agent.act(current)
            following, reward, terminated, truncated, _ = envs.step(actions[step].numpy())
            rewards[step], current, ended = tensor(reward), tensor(following), tensor(terminated | truncated)

        with torch.no_grad():
            advantages, last = torch.zeros_like(rewards), torch.zeros(NUM_ENVS)
            value, goes_on = agent.act(current)[3], 1.0 - ended
            for step in reversed(range(NUM_STEPS)):
                error = rewards[step] + GAMMA * value * goes_on - values[step]
                advantages[step] = last = error + GAMMA * GAE_LAMBDA * goes_on * last
                value, goes_on = values[step], 1.0 - ends[step]
            targets = advantages + values

        columns = [each.flatten(0, 1) for each in (observations, actions, densities, advantages, targets)]
        # After an end comes a step that only begins the next episode, whatever the action
        steps_taken = torch.nonzero(ends.flatten() == 0).squeeze(-1)
        for _ in range(EPOCHS):
            for rows in steps_taken[torch.randperm(len(steps_taken))].chunk(MINIBATCHES):
                observation, action, density, advantage, target = (column[rows] for column in columns)
                _, new_density, _, new_value = agent.act(observation, action)
                ratio = (new_density - density).exp()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
                loss = VALUE_WEIGHT * 0.5 * (new_value - target).square().mean() - gain
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), GRADIENT_NORM)
                optimizer.step()
    envs.close()
    mean, deviation = normalized.obs_rms.mean, np.sqrt(normalized.obs_rms.var + normalized.epsilon)

    def act(observation: Array) -> Array:
        with torch.no_grad():
            chosen = agent.actor(tensor((observation - mean) / deviation)).numpy()
        return np.clip(chosen, raw.single_action_space.low, raw.single_action_space.high)  # type: ignore[attr-defined]

    return act
