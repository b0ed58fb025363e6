"""The transition model p(s'|s,a): an ensemble of Gaussian perceptrons over normalised state differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from zoo.exogenous import RecordedChanges
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
        exogenous: numbers of the features that are set from outside, as setpoints and disturbances are. Members read
            them and predict no change of them: they change as recorded, see ``zoo.exogenous``, or as one says.
    """

    log_variance_min: Tensor
    log_variance_max: Tensor
    observation_low: Tensor
    observation_high: Tensor
    outside: Tensor

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
        exogenous: Sequence[int] = (),
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
        self.recorded_changes: RecordedChanges | None = None
        self.exogenous: tuple[int, ...] = ()
        self.set_exogenous(exogenous)

    def set_exogenous(self, features: Sequence[int]) -> None:
        """Say which features are set from outside, before anything is learned.

        Raises:
            ValueError: if they are no features, or all of them.
        """
        refuse_no_features(features, self.observation_size)
        self.exogenous = tuple(int(feature) for feature in features)
        if not self.exogenous:
            return
        self.config["exogenous"] = list(
            self.exogenous
        )  # where there are none, versions of before read the file as well
        device = self.observation_low.device
        outside = torch.tensor([feature in self.exogenous for feature in range(self.observation_size)], device=device)
        self.register_buffer("outside", outside, persistent=False)
        self.recorded_changes = RecordedChanges(len(self.exogenous)).to(device)

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
        if self.exogenous:  # what is set from outside is not foreseen
            mean, log_variance = (
                mean.masked_fill(self.outside, 0.0),
                torch.where(self.outside, self.log_variance_min, log_variance),
            )
        return mean, log_variance

    @property
    def foreseen(self) -> list[int]:
        """Numbers of the features that are predicted: all that are not exogenous."""
        return [feature for feature in range(self.observation_size) if feature not in self.exogenous]

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

    def next_observation(
        self,
        observation: Tensor,
        standardized_delta: Tensor,
        noise: Tensor | None = None,
        exogenous: Tensor | None = None,
    ) -> Tensor:
        """Add a standardised difference to an observation, within the box: ``(..., D)``.

        Args:
            observation: ``(..., D)``.
            standardized_delta: ``(..., D)``; there may be several, in dimensions before those of the observations.
            noise: standard normal, as the difference; what it holds for exogenous features decides which of their
                recorded changes is taken, of several the first. ``None`` for the one in the middle.
            exogenous: next values of exogenous features, ``(..., d)``, in place of recorded changes.
        """
        moved = observation + self.delta_normalizer.inverse(standardized_delta)
        moved = torch.minimum(torch.maximum(moved, self.observation_low), self.observation_high)
        if self.recorded_changes is None:
            return moved
        if exogenous is None:
            exogenous = self.draw_exogenous(observation, noise)
        return self.with_exogenous(moved, exogenous)

    def with_exogenous(self, observation: Tensor, exogenous: Tensor) -> Tensor:
        """Observations ``(..., D)`` with other values of exogenous features, ``(..., d)``."""
        exogenous = exogenous.expand(*observation.shape[:-1], -1)
        parts, done = [], 0
        for place in sorted(self.exogenous):
            index = self.exogenous.index(place)
            parts += [observation[..., done:place], exogenous[..., index : index + 1]]
            done = place + 1
        return torch.cat([*parts, observation[..., done:]], dim=-1)

    def draw_exogenous(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """The next values of exogenous features as they were recorded to change, ``(..., d)``.

        Args:
            observation: ``(..., D)``.
            noise: as for :meth:`next_observation`.

        Raises:
            ValueError: if there are no exogenous features.
        """
        if self.recorded_changes is None:
            raise ValueError("no feature of this model is set from outside")
        present = self.exogenous_of(observation)
        if noise is None:
            share = torch.full_like(present, 0.5)
        else:
            while noise.dim() > observation.dim():  # several differences, one world around them
                noise = noise[0]
            share = torch.special.ndtr(self.exogenous_of(noise))
        return self.recorded_changes(present, share)

    def exogenous_of(self, observation: Tensor) -> Tensor:
        """The exogenous features of observations ``(..., D)``, ``(..., d)``, of which there may be none."""
        if not self.exogenous:
            return observation[..., :0]
        return torch.cat([observation[..., place : place + 1] for place in self.exogenous], dim=-1)

    def standardized_delta(self, observation: Tensor, next_observation: Tensor) -> Tensor:
        """The model's regression target, ``(..., D)``; 0 for what is set from outside."""
        delta = self.delta_normalizer(next_observation - observation)
        return delta.masked_fill(self.outside, 0.0) if self.exogenous else delta


def refuse_no_features(exogenous: Sequence[int], observation_size: int) -> None:
    """Refuse numbers that are no features, or leave none to learn.

    Raises:
        ValueError: saying which.
    """
    wrong = [feature for feature in exogenous if not 0 <= feature < observation_size]
    if wrong or len(set(exogenous)) != len(exogenous):
        raise ValueError(
            f"exogenous features {list(exogenous)} are not some of the {observation_size} features, once each"
        )
    if len(exogenous) == observation_size:
        raise ValueError("all features are set from outside: nothing is left for actions to move")
