"""The policy every method trains: a tanh-Gaussian actor that takes raw observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy.typing as npt
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from zoo.files import MISDESCRIBED, ModelFileError, load_state, read_model, write_model
from zoo.networks import EnsembleLinear, EnsembleMLP, mlp
from zoo.normalizer import Normalizer, refuse_other_width

if TYPE_CHECKING:
    from torchrl.modules import ProbabilisticActor, TanhNormal

# Recorded actions may lie on the bound, where the density of a squashed Gaussian is infinite.
BOUND_MARGIN = 1e-3
LOG_STD_BOUNDS = (-5.0, 2.0)


class Policy(nn.Module):
    """Tanh-Gaussian actor with its observation normaliser inside.

    Args:
        observation_size: number of observation features.
        action_low: lower action bounds, one per action dimension.
        action_high: upper action bounds.
        hidden_sizes: widths of the hidden layers.
        activation: name of the activation.
        log_std_min: lower bound of the logarithm of the Gaussian's deviation before squashing.
        log_std_max: upper bound.
        members: networks of these sizes whose outputs are averaged. Off the demonstrations, cloned networks err each in
            its own way, and their average less than each.
    """

    action_low: Tensor
    action_high: Tensor
    control = False
    """Whether it is a control (``zoo.files``), which its file then says."""

    def __init__(
        self,
        observation_size: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        hidden_sizes: Sequence[int] = (256, 256),
        activation: str = "relu",
        log_std_min: float = LOG_STD_BOUNDS[0],
        log_std_max: float = LOG_STD_BOUNDS[1],
        members: int = 1,
    ) -> None:
        super().__init__()
        if members < 1:
            raise ValueError(f"a policy has at least one member, not {members}")
        self.config: dict[str, Any] = {
            "observation_size": int(observation_size),
            "action_low": [float(value) for value in action_low],
            "action_high": [float(value) for value in action_high],
            "hidden_sizes": [int(size) for size in hidden_sizes],
            "activation": activation,
            "log_std_min": float(log_std_min),
            "log_std_max": float(log_std_max),
            "members": int(members),
        }
        action_size = len(action_low)
        self.normalizer = Normalizer(observation_size)
        sizes = [observation_size, *hidden_sizes, 2 * action_size]
        self.members = members
        self.network: nn.Module = mlp(sizes, activation) if members == 1 else EnsembleMLP(members, sizes, activation)
        self.log_std_min = log_std_min
        self.log_std_max = log_std_max
        self.register_buffer("action_low", torch.tensor(action_low, dtype=torch.float32))
        self.register_buffer("action_high", torch.tensor(action_high, dtype=torch.float32))

    @property
    def observation_size(self) -> int:
        return int(self.config["observation_size"])

    @property
    def action_size(self) -> int:
        return len(self.config["action_low"])

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of the Gaussian before squashing, each ``(..., action_size)``."""
        outputs = self._outputs(observation)
        return self._gaussian(outputs if self.members == 1 else outputs.mean(dim=0))

    def of_members(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` of each member on its own, ``(E, ..., action_size)``, to train them apart."""
        outputs = self._outputs(observation)
        return self._gaussian(outputs.unsqueeze(0) if self.members == 1 else outputs)

    def _outputs(self, observation: Tensor) -> Tensor:
        inputs = self.normalizer(observation)
        if self.members == 1:
            outputs: Tensor = self.network(inputs)
            return outputs
        rows = inputs.reshape(-1, inputs.shape[-1])
        outputs = self.network(rows.expand(self.members, *rows.shape))
        return outputs.view(self.members, *inputs.shape[:-1], -1)

    def _gaussian(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        location, raw = outputs.chunk(2, dim=-1)
        # A smooth map onto the allowed range keeps gradients alive at both ends.
        half_range = 0.5 * (self.log_std_max - self.log_std_min)
        log_std = self.log_std_min + half_range * (torch.tanh(raw) + 1.0)
        return location, log_std.exp()

    @property
    def half_range(self) -> Tensor:
        """Half the width of the bounds of each action dimension, ``(action_size,)``."""
        return 0.5 * (self.action_high - self.action_low)

    def squared_distance(self, action: Tensor, other: Tensor) -> Tensor:
        """Of two actions ``(..., action_size)``, in half action ranges and summed over dimensions, ``(...)``."""
        return ((action - other) / self.half_range).square().sum(dim=-1)

    @torch.no_grad()
    def set_deviation(self, deviation: float) -> None:
        """Give the Gaussian before squashing the same deviation in every state, from which training may move it.

        Args:
            deviation: the nearest that the bounds of this policy allow is taken; a policy whose deviation was fixed
                gets those that policies have by default.
        """
        if self.log_std_min == self.log_std_max:  # fixed before
            self.log_std_min, self.log_std_max = LOG_STD_BOUNDS
            self.config |= {"log_std_min": self.log_std_min, "log_std_max": self.log_std_max}
        log_std = math.log(deviation) if deviation > 0.0 else self.log_std_min
        share = (log_std - self.log_std_min) / (self.log_std_max - self.log_std_min)
        inside = min(max(share, BOUND_MARGIN), 1.0 - BOUND_MARGIN)  # on a bound no gradient would be left
        if isinstance(self.network, EnsembleMLP):
            final = cast(EnsembleLinear, self.network.layers[-1])
            weight, bias = final.weight.mT, final.bias[:, 0]
        else:
            last = cast(nn.Linear, cast(nn.Sequential, self.network)[-1])
            weight, bias = last.weight, last.bias
        weight[..., self.action_size :, :] = 0.0
        bias[..., self.action_size :] = math.atanh(2.0 * inside - 1.0)

    def fix_deviation(self, deviation: float) -> None:
        """Give the Gaussian before squashing this deviation in every state for good: no training moves it.

        Args:
            deviation: above 0.

        Raises:
            ValueError: if it is not.
        """
        if deviation <= 0:
            raise ValueError(f"deviation must be above 0, and is {deviation}: choose a small one, such as 0.01")
        self.log_std_min = self.log_std_max = math.log(deviation)
        self.config |= {"log_std_min": self.log_std_min, "log_std_max": self.log_std_max}

    def distribution(self, observation: Tensor) -> TanhNormal:
        """Distribution over actions within the bounds."""
        from torchrl.modules import TanhNormal  # here, as in :meth:`actor`

        location, scale = self(observation)
        return TanhNormal(location, scale, low=self.action_low, high=self.action_high)

    def squash(self, raw: Tensor) -> Tensor:
        """Map unbounded numbers ``(..., action_size)`` into the action bounds."""
        centre = 0.5 * (self.action_high + self.action_low)
        return centre + self.half_range * torch.tanh(raw)

    def mean_action(self, observation: Tensor) -> Tensor:
        """Squashed location: the action a deterministic evaluation takes, ``(..., action_size)``."""
        location, _ = self(observation)
        return self.squash(location)

    @torch.no_grad()
    def act(
        self,
        observation: Tensor | npt.NDArray[Any],
        deterministic: bool = True,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Actions for raw observations ``(..., observation_size)``, without gradients.

        Args:
            observation: ``(..., observation_size)``, of any precision, as environments give them.
            deterministic: take the mean action instead of a sample.
            generator: source of a sample's noise.
            noise: a sample's standard normal noise ``(..., action_size)``, drawn elsewhere.

        Raises:
            ValueError: if they have another number of features.
        """
        known = self.action_low
        observation = torch.as_tensor(observation, dtype=known.dtype, device=known.device)
        refuse_other_width("observations", observation, self.observation_size)
        location, scale = self(observation)
        if deterministic:
            return self.squash(location)
        if noise is None:
            noise = torch.randn(location.shape, generator=generator, device=location.device, dtype=location.dtype)
        return self.squash(location + scale * noise)

    @torch.no_grad()
    def act_and_spread(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean actions ``(..., action_size)``, and how far the members' are from their mean, ``(...)``.

        The latter is their root-mean-square deviation in half action ranges; 0 if there is one member.
        """
        locations, _ = self.of_members(observation)
        members = self.squash(locations) / self.half_range
        spread = (members - members.mean(dim=0)).square().mean(dim=(0, -1)).sqrt()
        return self.squash(locations.mean(dim=0)), spread

    def sample(self, observation: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reparameterised action ``(..., action_size)`` and its log-density ``(...)``."""
        location, scale = self(observation)
        return self.reparameterize(location, scale, torch.randn_like(location) if noise is None else noise)

    def reparameterize(self, location: Tensor, scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`sample` from what :meth:`forward` returned and standard normal noise, all ``(..., action_size)``."""
        raw = location + scale * noise
        log_density = -0.5 * (noise.square() + math.log(2.0 * math.pi)) - scale.log()
        return self.squash(raw), (log_density - self._log_slope(raw)).sum(dim=-1)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-density of recorded actions, ``(...)``; actions on a bound count as just inside it."""
        location, scale = self(observation)
        return self.log_density(location, scale, action)

    def log_density(self, location: Tensor, scale: Tensor, action: Tensor) -> Tensor:
        """:meth:`log_prob` from what :meth:`forward` returned."""
        share = ((action - self.action_low) / (self.action_high - self.action_low)).clamp(
            BOUND_MARGIN, 1.0 - BOUND_MARGIN
        )
        raw = torch.atanh(2.0 * share - 1.0)
        log_density = -0.5 * (((raw - location) / scale).square() + math.log(2.0 * math.pi)) - scale.log()
        return (log_density - self._log_slope(raw)).sum(dim=-1)

    def _log_slope(self, raw: Tensor) -> Tensor:
        """Logarithm of the derivative of :meth:`squash`, written so that it neither over- nor underflows."""
        return 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw)) + self.half_range.log()

    def actor(self) -> ProbabilisticActor:
        """The same parameters as a TorchRL actor (keys ``observation`` -> ``action``) for TorchRL's losses."""
        # Here, because they take longer to import than all else that a Simulator needs
        from tensordict.nn import TensorDictModule
        from torchrl.modules import ProbabilisticActor, TanhNormal

        return ProbabilisticActor(
            TensorDictModule(self, in_keys=["observation"], out_keys=["loc", "scale"]),
            in_keys=["loc", "scale"],
            distribution_class=TanhNormal,
            distribution_kwargs={"low": self.action_low, "high": self.action_high},
            return_log_prob=False,
        )

    def save(self, path: str | Path, half: bool = False) -> None:
        """Write architecture, normaliser and weights to one safetensors file; ``half``: matrices in half precision."""
        write_model(path, "policy", self.config, self.state_dict(), self.control, half)

    @classmethod
    def load(cls, path: str | Path, control: bool = False) -> Policy:
        """Read a policy that :meth:`save` wrote.

        Args:
            path: its file.
            control: read a control instead of a method's result.

        Raises:
            ModelFileError: if the file is missing, damaged, of another kind, or a control where none is asked for.
        """
        config, tensors = read_model(path, "policy", control)
        try:
            policy = cls(**config)
        except MISDESCRIBED as error:
            raise ModelFileError(f"{path}: its header does not describe a policy: {error}") from error
        load_state(policy, tensors, path)
        policy.control = control
        return policy.eval()


FREE = ("members", "log_std_min", "log_std_max")  # in which policies that are joined may differ


@torch.no_grad()
def joined(first: Policy, second: Policy) -> Policy:
    """The average of all networks of two policies, each counting alike, with the deviation's bounds of the first.

    Raises:
        ValueError: if they differ in more than their weights, their number of members and these bounds.
    """
    for name, value in first.config.items():
        if name not in FREE and second.config[name] != value:
            raise ValueError(f"policies with a {name} of {value} and of {second.config[name]} cannot be joined")
    for (name, mine), yours in zip(first.normalizer.named_buffers(), second.normalizer.buffers(), strict=True):
        if not torch.equal(mine, yours.to(mine.device)):
            raise ValueError(f"policies that see observations with another {name} cannot be joined")
    policy = Policy(**{**first.config, "members": first.members + second.members})
    policy.normalizer.load_state_dict(first.normalizer.state_dict())
    for into, ours, theirs in zip(_layers(policy), _layers(first), _layers(second), strict=True):
        for tensor, one, other in zip(into, ours, theirs, strict=True):
            tensor.copy_(torch.cat([one.to(tensor.device), other.to(tensor.device)]))
    policy.control = first.control or second.control
    return policy.to(first.action_low.device).eval().requires_grad_(False)


@torch.no_grad()
def separated(policy: Policy, second: Policy) -> Policy | None:
    """The first of two policies that :func:`joined` made one; ``None`` if ``second`` is no part of it."""
    own = policy.members - second.members
    same = all(second.config[name] == value for name, value in policy.config.items() if name not in FREE)
    if own < 1 or not same:
        return None
    for ours, theirs in zip(_layers(policy), _layers(second), strict=True):
        if not all(torch.equal(whole[own:], part.to(whole.device)) for whole, part in zip(ours, theirs, strict=True)):
            return None
    first = Policy(**{**policy.config, "members": own}).to(policy.action_low.device)
    first.normalizer.load_state_dict(policy.normalizer.state_dict())
    for into, parts in zip(_layers(first), _layers(policy), strict=True):
        for tensor, part in zip(into, parts, strict=True):
            tensor.copy_(part[:own])
    first.control = policy.control
    return first.eval().requires_grad_(False)


def _layers(policy: Policy) -> list[tuple[Tensor, Tensor]]:
    """Weights ``(E, in, out)`` and biases ``(E, 1, out)``."""
    if isinstance(policy.network, EnsembleMLP):
        return [(layer.weight, layer.bias) for layer in cast(list[EnsembleLinear], list(policy.network.layers))]
    linear = [layer for layer in cast(nn.Sequential, policy.network) if isinstance(layer, nn.Linear)]
    return [(layer.weight.T.unsqueeze(0), layer.bias.view(1, 1, -1)) for layer in linear]
