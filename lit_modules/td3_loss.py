"""TorchRL's TD3 loss over a batch of critics."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.objectives import TD3Loss

from lit_modules.critic import BatchedCritics, Layers, QNetwork, plain_rows
from zoo.policy import Policy


class MeanAction(nn.Module):
    """A policy as the deterministic actor that it is evaluated as."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> Tensor:
        return self.policy.mean_action(observation)


class BatchedTD3Loss(BatchedCritics, TD3Loss):
    r"""TorchRL's ``TD3Loss`` with its two losses computed straight from tensors, as ``BatchedSACLoss`` does for SAC.

    .. math::
        y     &= r + \gamma\,[\text{not ended}]\,\min_i \bar Q_i(s', \bar\pi(s') + \epsilon), \qquad
                 \epsilon = \mathrm{clip}(\sigma\,n, -c, c),\; n \sim N(0, 1) \\
        L_Q   &= \sum_i E[(Q_i(s,a) - y)^2], \qquad L_\pi = -E[Q_1(s, \pi(s))]

    Same equations as the parent, which a test holds it to; the target policy is a Policy beside the trained one
    instead of parameters that are swapped into it. Source: Fujimoto et al. 2018, "Addressing function approximation
    error in actor-critic methods".
    """

    def __init__(
        self,
        policy: Policy,
        critic: QNetwork,
        gamma: float,
        smoothing_noise: float = 0.2,
        smoothing_clip: float = 0.5,
        value_range: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            policy: actor to train, by its mean action.
            critic: architecture of one critic.
            gamma: discount.
            smoothing_noise: deviation of the noise on the target policy's actions, in half action ranges.
            smoothing_clip: largest size of this noise, likewise.
            value_range: bounds that bootstrapped values are clipped to, if the rewards' bounds are known.
            kwargs: arguments of TorchRL's ``TD3Loss``.
        """
        self._layers: dict[str, Layers] = {}
        super().__init__(
            TensorDictModule(MeanAction(policy), in_keys=["observation"], out_keys=["action"]),
            critic.module(),
            bounds=(policy.action_low, policy.action_high),
            policy_noise=smoothing_noise * policy.half_range,
            noise_clip=smoothing_clip * policy.half_range,
            loss_function="l2",
            delay_actor=False,
            **kwargs,
        )
        self.complete(policy, gamma, value_range)
        self.smoothing_noise = smoothing_noise
        self.smoothing_clip = smoothing_clip
        self.target_policy = copy.deepcopy(policy).requires_grad_(False)

    @property
    def policy(self) -> Policy:
        """The trained policy; its parameters are the ones this loss optimises."""
        return self.actor_network.module.policy

    def smoothed_action(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Target policy's action with clipped noise, within the bounds, ``(B, A)``.

        Args:
            observation: ``(B, D)``.
            noise: standard normal numbers, ``(B, A)``.
        """
        policy = self.target_policy
        added = (self.smoothing_noise * noise).clamp(-self.smoothing_clip, self.smoothing_clip) * policy.half_range
        return (policy.mean_action(observation) + added).clamp(policy.action_low, policy.action_high)

    def critic_terms(self, rows: dict[str, Tensor], critics: Layers, targets: Layers) -> dict[str, Tensor]:
        """The critics' loss ``loss_qvalue`` and its ingredients.

        Args:
            rows: ``observation``, ``action``, ``next_observation`` ``(B, ...)``, ``reward`` and ``terminated``
                ``(B,)``, and standard normal ``next_noise`` ``(B, A)``.
            critics: the trained critics' parameters.
            targets: the target critics' parameters.
        """
        with torch.no_grad():
            next_action = self.smoothed_action(rows["next_observation"], rows["next_noise"])
            bootstrap = self.values(targets, rows["next_observation"], next_action).min(dim=0).values
            bootstrap = bootstrap.clamp(self.value_low, self.value_high)
            target = rows["reward"] + self.gamma * (1.0 - rows["terminated"]) * bootstrap
        values = self.values(critics, rows["observation"], rows["action"])
        return {
            "loss_qvalue": (values - target).square().mean(dim=-1).sum(),
            "value": values.detach().mean(),
            "value_std": values.detach().std(),
        }

    def actor_terms(self, observation: Tensor, proposed: Tensor, critics: Layers) -> dict[str, Tensor]:
        """The actor's loss ``loss_actor`` and its ingredients.

        Args:
            observation: ``(B, D)``.
            proposed: the trained policy's actions there, ``(B, A)``.
            critics: the trained critics' parameters; the first is the judge, and none is changed.
        """
        first = [(weight[:1].detach(), bias[:1].detach()) for weight, bias in critics]
        value = self.values(first, observation, proposed)[0]
        return {
            "loss_actor": -value.mean(),
            "proposed_value": value.detach().mean(),
            "proposed_size": value.detach().abs().mean(),
        }

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        rows = plain_rows(tensordict)
        critics = self.critic_layers()
        proposed = self.policy.mean_action(rows["observation"])
        return TensorDict(
            self.actor_terms(rows["observation"], proposed, critics)
            | self.critic_terms(rows, critics, self.target_layers())
        )
