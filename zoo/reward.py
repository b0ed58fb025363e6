"""The reward model r(s,a,s') and its scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.networks import input_gradient, mlp
from zoo.normalizer import Normalizer


class RewardModel(nn.Module):
    """Learned reward of a transition, with a scale of its own.

    A reward learned from demonstrations has no natural zero or unit. :meth:`raw` is what training shapes;
    :meth:`forward` is its affine image on which expert data has mean 1 and model roll-outs mean 0, and then clipped to
    ``[low, high]``: quantiles of the two, so that a policy gains nothing from places where the network extrapolates
    and every discounted return is known to lie within ``[low, high] / (1 - gamma)``. Where one of the two is skewed,
    its mean is not near its median, and what is left between the bounds is not near 1.

    Args:
        observation_size: number of observation features.
        action_size: number of action dimensions.
        hidden_sizes: widths of the hidden layers.
        activation: name of the activation.
        uses_next_observation: r(s,a,s') if true, r(s,a) if false.
    """

    offset: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int] = (256, 256, 256),
        activation: str = "silu",
        uses_next_observation: bool = True,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "observation_size": int(observation_size),
            "action_size": int(action_size),
            "hidden_sizes": [int(size) for size in hidden_sizes],
            "activation": activation,
            "uses_next_observation": bool(uses_next_observation),
        }
        self.uses_next_observation = uses_next_observation
        self.observation_normalizer = Normalizer(observation_size)
        self.action_normalizer = Normalizer(action_size)
        self.delta_normalizer = Normalizer(observation_size)
        inputs = observation_size * (2 if uses_next_observation else 1) + action_size
        self.network = mlp([inputs, *hidden_sizes, 1], activation)
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("low", torch.tensor(-torch.inf))
        self.register_buffer("high", torch.tensor(torch.inf))

    def features(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """The network's standardised input, ``(..., F)``."""
        parts = [self.observation_normalizer(observation), self.action_normalizer(action)]
        if self.uses_next_observation:
            parts.append(self.delta_normalizer(next_observation - observation))
        return torch.cat(parts, dim=-1)

    def raw(self, features: Tensor) -> Tensor:
        """Unscaled reward ``(...)`` of features ``(..., F)``."""
        return self.network(features).squeeze(-1)

    def raw_gradient(self, features: Tensor) -> Tensor:
        """Gradient of :meth:`raw` with respect to the features, ``(B, F)``."""
        return input_gradient(self.network, features)

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """Standardised, clipped reward ``(...)`` of transitions ``(..., D), (..., A), (..., D)``."""
        raw = self.raw(self.features(observation, action, next_observation))
        return ((raw - self.offset) / self.scale).clamp(self.low, self.high)

    @torch.no_grad()
    def standardize(
        self,
        expert_raw: Tensor,
        rollout_raw: Tensor,
        low_quantile: float = 0.5,
        high_quantile: float = 0.5,
        minimum_gap: float = 1e-3,
    ) -> None:
        """Set scale and bounds so that, before clipping, expert data has mean 1 and model roll-outs mean 0.

        Args:
            expert_raw: unscaled rewards of expert transitions, ``(N,)``.
            rollout_raw: unscaled rewards of model roll-outs, ``(M,)``.
            low_quantile: quantile of the roll-outs that becomes the lower bound. At the median, whatever is no better
                than an average roll-out earns about nothing: neither dying early nor surviving badly can pay.
            high_quantile: quantile of the expert transitions that becomes the upper bound. A discriminator rates some
                phases of the expert's motion far above others; without a bound near the middle of them, lingering in
                the best phase would pay more than doing what the expert does.
            minimum_gap: smallest difference of the means that is taken for a unit; below it the reward could not
                tell the two apart and dividing by the gap would only amplify noise.
        """
        self.offset.copy_(rollout_raw.mean())
        self.scale.copy_((expert_raw.mean() - rollout_raw.mean()).clamp_min(minimum_gap))
        self.low.copy_((rollout_raw.quantile(low_quantile) - self.offset) / self.scale)
        # A reward that was never trained may rate demonstrations below roll-outs: then it pays the same everywhere
        self.high.copy_(((expert_raw.quantile(high_quantile) - self.offset) / self.scale).clamp_min(self.low))
