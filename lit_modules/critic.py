"""The state-action value network, and TorchRL's SAC loss over a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as functional
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.objectives import SACLoss, SoftUpdate

from zoo.networks import activation as make_activation
from zoo.normalizer import Normalizer
from zoo.policy import Policy
from zoo.products import affine

# Weight (E, out, in) and bias (E, out) of each layer of E critics.
Layers = list[tuple[Tensor, Tensor]]


class QNetwork(nn.Module):
    """Q(s, a): ``(B, observation), (B, action) -> (B, 1)``, on standardised observations and actions within [-1, 1].

    Layer normalisation of the hidden layers bounds how far values extrapolate off the data (Ball et al. 2023,
    "Efficient online reinforcement learning with offline data").
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = True,
    ) -> None:
        super().__init__()
        sizes = [observation_size + action_size, *hidden_sizes, 1]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.layer_norm = layer_norm  # without scale and shift: the next layer has both
        self.activation = make_activation(activation)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        hidden = torch.cat([observation, action], dim=-1)
        for linear in self.linears[:-1]:
            hidden = linear(hidden)
            if self.layer_norm:
                hidden = functional.layer_norm(hidden, hidden.shape[-1:])
            hidden = self.activation(hidden)
        return self.linears[-1](hidden)

    def module(self) -> TensorDictModule:
        """The same network under TorchRL's keys."""
        return TensorDictModule(self, in_keys=["observation", "action"], out_keys=["state_action_value"])

    def layers(self, stacked: TensorDictBase) -> Layers:
        """Weights ``(E, out, in)`` and biases ``(E, out)`` per layer of ``E`` stacked parameter sets."""
        names = [str(index) for index in range(len(self.linears))]
        return [(stacked["linears", name, "weight"], stacked["linears", name, "bias"]) for name in names]

    def batched(self, layers: Layers, observation: Tensor, action: Tensor) -> Tensor:
        """Values of ``E`` parameter sets at once: ``(B, ...) -> (E, B)``.

        Equal to calling ``forward`` once per member; one batched product per layer instead of a ``vmap``.
        """
        hidden = torch.cat([observation, action], dim=-1)
        hidden = hidden.expand(layers[0][0].shape[0], *hidden.shape)
        for index, (weight, bias) in enumerate(layers):
            hidden = affine(hidden, weight.mT, bias.unsqueeze(1))
            if index < len(layers) - 1:
                if self.layer_norm:
                    hidden = functional.layer_norm(hidden, hidden.shape[-1:])
                hidden = self.activation(hidden)
        return hidden.squeeze(-1)


def flat(layers: Layers) -> list[Tensor]:
    """All tensors of layers in a list."""
    return [tensor for layer in layers for tensor in layer]


class BatchedCritics:
    """What the losses over critics share: their layers as stacked tensors, the bounds and the scale of what they see.

    A mixin for TorchRL's losses with ``qvalue_network``.
    """

    qvalue_network: Any
    qvalue_network_params: TensorDictBase
    target_qvalue_network_params: TensorDictBase
    value_low: Tensor
    value_high: Tensor
    normalizer: Normalizer
    action_centre: Tensor
    action_half_range: Tensor
    _layers: dict[str, Layers]

    def complete(self: Any, policy: Policy, gamma: float, value_range: tuple[float, float] | None) -> None:
        """What the constructors end with, see their arguments."""
        self.make_value_estimator(gamma=gamma)
        self.gamma = gamma
        # Tensors, not numbers: they differ between replicas that are trained together
        low, high = (-torch.inf, torch.inf) if value_range is None else value_range
        self.register_buffer("value_low", torch.tensor(float(low)), persistent=False)
        self.register_buffer("value_high", torch.tensor(float(high)), persistent=False)
        # Observations and actions are standardised for the critics here; the actor carries its own normaliser.
        self.normalizer = Normalizer(policy.observation_size)
        self.register_buffer("action_centre", 0.5 * (policy.action_high + policy.action_low), persistent=False)
        self.register_buffer("action_half_range", policy.half_range, persistent=False)

    @property
    def critic(self) -> QNetwork:
        """The critic's architecture; the values live in ``qvalue_network_params``."""
        return self.qvalue_network.module

    def values(self, layers: Layers, observation: Tensor, action: Tensor) -> Tensor:
        """The critics' values, ``(E, B)``, of observations and actions as they are, not standardised."""
        taken = (action - self.action_centre) / self.action_half_range
        values: Tensor = self.critic.batched(layers, self.normalizer(observation), taken)
        return values

    def smallest_value(self, layers: Layers, observation: Tensor, action: Tensor) -> Tensor:
        """The smallest of :meth:`values`, ``(B,)``."""
        return self.values(layers, observation, action).min(dim=0).values

    def critic_layers(self) -> Layers:
        """The critics' trained parameters."""
        return self._cached("critics", self.qvalue_network_params)

    def target_layers(self) -> Layers:
        """The target critics' parameters."""
        return self._cached("targets", self.target_qvalue_network_params)

    def _cached(self, name: str, parameters: TensorDictBase) -> Layers:
        """Looking parameters up in a TensorDict takes longer than a small product with them, so it is done once."""
        if name not in self._layers:
            self._layers[name] = self.critic.layers(parameters["module"])
        return self._layers[name]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        # Called when the module moves to another device or type, which replaces the tensors
        self._layers = {}
        return super()._apply(*args, **kwargs)  # type: ignore[misc]


def plain_rows(tensordict: TensorDictBase) -> dict[str, Tensor]:
    """Transitions under TorchRL's keys as the losses here take them, with noise ``next_noise`` for the next action."""
    following = tensordict["next"]
    return {
        "observation": tensordict["observation"],
        "action": tensordict["action"],
        "reward": following["reward"].squeeze(-1),
        "next_observation": following["observation"],
        "terminated": following["terminated"].squeeze(-1).float(),
        "next_noise": torch.randn_like(tensordict["action"]),
    }


class ForeachSoftUpdate(SoftUpdate):
    """TorchRL's ``SoftUpdate`` of the critics of a loss of this module, all parameters in one call."""

    @torch.no_grad()
    def step(self) -> None:
        loss: BatchedCritics = self.loss_module
        torch._foreach_lerp_(flat(loss.target_layers()), flat(loss.critic_layers()), 1.0 - self.eps)


class BatchedSACLoss(BatchedCritics, SACLoss):
    """TorchRL's ``SACLoss`` with its three losses computed straight from tensors.

    Same equations (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications"), parameters and state
    dict as the parent; a test holds the two equal. The parent's ``vmap`` over critics becomes one batched product
    per layer (:meth:`QNetwork.batched`), and no parameters are swapped in and out of modules, which together take
    more than half of the parent's time on a CPU.
    """

    def __init__(
        self,
        policy: Policy,
        critic: QNetwork,
        gamma: float,
        value_range: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            policy: actor to train.
            critic: architecture of one critic.
            gamma: discount.
            value_range: bounds that bootstrapped values are clipped to, if the rewards' bounds are known.
            kwargs: arguments of TorchRL's ``SACLoss``.
        """
        self._layers: dict[str, Layers] = {}
        super().__init__(policy.actor(), critic.module(), loss_function="l2", **kwargs)
        self.complete(policy, gamma, value_range)
        # The parent makes this buffer on first use; a checkpoint then holds a key that a fresh module lacks.
        self._wanted_entropy = float(self.target_entropy)

    @property
    def policy(self) -> Policy:
        """The trained policy; its parameters are the ones this loss optimises."""
        return self.actor_network.module[0].module

    def losses(
        self, rows: dict[str, Tensor], proposal: tuple[Tensor, Tensor], critics: Layers, targets: Layers
    ) -> dict[str, Tensor]:
        """The three losses and their ingredients, without drawing a random number.

        Args:
            rows: ``observation``, ``action``, ``next_observation`` ``(B, ...)``, ``reward`` and ``terminated``
                ``(B,)``, and standard normal ``noise`` and ``next_noise`` ``(B, A)`` for the sampled actions.
            proposal: what the actor returned for ``observation``: location and scale, ``(B, A)``.
            critics: the trained critics' parameters.
            targets: the target critics' parameters.
        """
        log_alpha = self.log_alpha
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            next_action, next_log_prob = self.policy.sample(rows["next_observation"], rows["next_noise"])
            next_values = self.smallest_value(targets, rows["next_observation"], next_action)
            bootstrap = next_values - alpha * next_log_prob
            bootstrap = bootstrap.clamp(self.value_low, self.value_high)
            target = rows["reward"] + self.gamma * (1.0 - rows["terminated"]) * bootstrap
        values = self.values(critics, rows["observation"], rows["action"])
        loss_qvalue, parts = self.critic_loss(values, target)

        proposed, log_prob = self.policy.reparameterize(*proposal, rows["noise"])
        frozen = [(weight.detach(), bias.detach()) for weight, bias in critics]
        proposed_value = self.smallest_value(frozen, rows["observation"], proposed)
        return {
            "loss_actor": (alpha * log_prob - proposed_value).mean(),
            "loss_qvalue": loss_qvalue,
            "loss_alpha": (-log_alpha * (log_prob.detach() + self._wanted_entropy)).mean(),
            "alpha": alpha,
            "entropy": -log_prob.detach().mean(),
            "value": values.detach().mean(),
            "value_std": values.detach().std(),
            "proposed_value": proposed_value.detach().mean(),
            **parts,
        }

    def critic_loss(self, values: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The critics' loss, of their values ``(E, B)`` and targets ``(B,)``, and what else is to be logged of it."""
        return (values - target).square().mean(dim=-1).sum(), {}

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        rows = plain_rows(tensordict) | {"noise": torch.randn_like(tensordict["action"])}
        proposal = self.policy(rows["observation"])
        return TensorDict(self.losses(rows, proposal, self.critic_layers(), self.target_layers()))
