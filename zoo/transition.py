"""The transition model p(s'|s,a): an ensemble of Gaussian perceptrons over normalised state differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from zoo.networks import EnsembleMLP
from zoo.normalizer import Normalizer


class TransitionModel(nn.Module):
    """Probabilistic ensemble (Chua et al. 2018, "Deep reinforcement learning in a handful of trials").

    Every member maps the standardised observation and action to a Gaussian over the standardised difference between
    the next observation and the observation. Shapes: ``E`` members, ``B`` rows, ``D`` observation features.

    Args:
        observation_size: D.
        action_size: number of action dimensions.
        members: E.
        hidden_sizes: widths of the hidden layers of each member.
        activation: name of the activation.
        residual: see ``EnsembleMLP``.
        log_variance_min: lower bound of the log-variance of a standardised difference.
        log_variance_max: upper bound.
    """

    log_variance_min: Tensor
    log_variance_max: Tensor
    observation_low: Tensor
    observation_high: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        members: int = 7,
        hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        activation: str = "silu",
        residual: bool = False,
        log_variance_min: float = -10.0,
        log_variance_max: float = 0.5,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "observation_size": int(observation_size),
            "action_size": int(action_size),
            "members": int(members),
            "hidden_sizes": [int(size) for size in hidden_sizes],
            "activation": activation,
            "residual": bool(residual),
            "log_variance_min": float(log_variance_min),
            "log_variance_max": float(log_variance_max),
        }
        self.members = members
        self.observation_size = observation_size
        self.action_size = action_size
        self.observation_normalizer = Normalizer(observation_size)
        self.action_normalizer = Normalizer(action_size)
        self.delta_normalizer = Normalizer(observation_size)
        sizes = [observation_size + action_size, *hidden_sizes, 2 * observation_size]
        self.network = EnsembleMLP(members, sizes, activation, residual)
        # Fixed, unlike in PETS: learned ones are pulled together, and where they meet all states have one variance
        self.register_buffer("log_variance_min", torch.full((observation_size,), log_variance_min))
        self.register_buffer("log_variance_max", torch.full((observation_size,), log_variance_max))
        # Predictions are kept inside this box; it is the range of the training data, widened by half its span.
        self.register_buffer("observation_low", torch.full((observation_size,), -torch.inf))
        self.register_buffer("observation_high", torch.full((observation_size,), torch.inf))

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor, widen: float = 0.5) -> None:
        """Adopt the range of the training observations, widened on both sides by ``widen`` times the span."""
        self.observation_low.copy_(low - widen * (high - low))
        self.observation_high.copy_(high + widen * (high - low))

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Predict with every member.

        Args:
            observation: ``(B, D)``, or ``(E, B, D)`` with rows of its own for each member.
            action: ``(B, A)`` or ``(E, B, A)``.

        Returns:
            Mean and log-variance of the standardised difference, each ``(E, B, D)``.
        """
        inputs = torch.cat([self.observation_normalizer(observation), self.action_normalizer(action)], dim=-1)
        if inputs.dim() == 2:
            inputs = inputs.expand(self.members, *inputs.shape)
        mean, log_variance = self.network(inputs).chunk(2, dim=-1)
        log_variance = self.log_variance_max - functional.softplus(self.log_variance_max - log_variance)
        log_variance = self.log_variance_min + functional.softplus(log_variance - self.log_variance_min)
        return mean, log_variance

    def deal(self, rows: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Random order in which :meth:`drawn` deals ``rows`` rows to the members, ``(E * ceil(rows / E),)``."""
        return torch.randperm(-(-rows // self.members) * self.members, generator=generator, device=device)

    def drawn(
        self,
        observation: Tensor,
        action: Tensor,
        generator: torch.Generator | None = None,
        order: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict each row with one member drawn for it, computing no other member's prediction.

        Rows are dealt to the members at random in blocks of equal size, so a row's member is uniform and no member
        works on more than ``ceil(B / E)`` rows.

        Args:
            observation: ``(B, D)``.
            action: ``(B, A)``.
            generator: source of the draw.
            order: the draw itself, from :meth:`deal`.

        Returns:
            Mean and log-variance of the standardised difference, each ``(B, D)``.
        """
        rows = observation.shape[0]
        if order is None:
            order = self.deal(rows, generator, observation.device)
        dealt = (order % rows).view(self.members, -1)
        mean, log_variance = self(observation[dealt], action[dealt])
        place = order.argsort()[:rows]
        return mean.flatten(0, 1)[place], log_variance.flatten(0, 1)[place]

    def of_members(self, observation: Tensor, action: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Predict each row with the member named for it, computing little else.

        Args:
            observation: ``(B, D)``.
            action: ``(B, A)``.
            members: ``(B,)``.

        Returns:
            Mean and log-variance of the standardised difference, each ``(B, D)``.
        """
        order = members.argsort(stable=True)
        counts = members.bincount(minlength=self.members)
        # Rows in a table with a line for each member; lines are filled up with copies of row 0
        within = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[members[order]]
        place = torch.empty_like(order)
        place[order] = members[order] * int(counts.max()) + within
        table = torch.zeros(self.members * int(counts.max()), dtype=torch.int64, device=order.device)
        table[place] = torch.arange(len(order), device=order.device)
        table = table.view(self.members, -1)
        mean, log_variance = self(observation[table], action[table])
        return mean.flatten(0, 1)[place], log_variance.flatten(0, 1)[place]

    def next_observation(self, observation: Tensor, standardized_delta: Tensor) -> Tensor:
        """Add a standardised difference to an observation, within the box: ``(..., D)``."""
        moved = observation + self.delta_normalizer.inverse(standardized_delta)
        return torch.minimum(torch.maximum(moved, self.observation_low), self.observation_high)

    def standardized_delta(self, observation: Tensor, next_observation: Tensor) -> Tensor:
        """The model's regression target, ``(..., D)``."""
        return self.delta_normalizer(next_observation - observation)
