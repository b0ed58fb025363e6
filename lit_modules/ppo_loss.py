"""TorchRL's clipped PPO loss over the rows that count, and generalised advantages of roll-outs that end early."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value.functional import generalized_advantage_estimate

from zoo.normalizer import Normalizer
from zoo.policy import Policy


class TensorPPOLoss(ClipPPOLoss):
    r"""TorchRL's ``ClipPPOLoss`` computed straight from tensors, over the rows of a minibatch that count.

    .. math::
        L = -E[\min(\rho A, \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon) A)] + E[(V(s) - \hat V)^2]
            - c_H\,E[-\log\pi(a'|s)], \qquad \rho = \pi(a|s) / \pi_{old}(a|s)

    Same equations as the parent, which a test holds it to. Actions are taken before squashing, where the densities of
    an action at its bound still differ; in the ratio the slope of the squashing cancels. Source: Schulman et al. 2017,
    "Proximal policy optimization algorithms".

    Args:
        policy: actor to train.
        value: V(s), ``(B, observation) -> (B, 1)``, on observations that are already standardised.
        clip: epsilon.
        entropy_weight: weight of the entropy, which is estimated from one action per row.
        normalize_advantages: standardise them within each minibatch.
        value_range: bounds of every value, if the rewards' bounds are known.
        kwargs: arguments of TorchRL's ``ClipPPOLoss``.
    """

    value_low: Tensor
    value_high: Tensor

    def __init__(
        self,
        policy: Policy,
        value: nn.Module,
        clip: float = 0.2,
        entropy_weight: float = 0.0,
        normalize_advantages: bool = True,
        value_range: tuple[float, float] = (-torch.inf, torch.inf),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy.actor(),
            TensorDictModule(value, in_keys=["observation"], out_keys=["state_value"]),
            clip_epsilon=clip,
            entropy_coeff=entropy_weight,
            normalize_advantage=normalize_advantages,
            loss_critic_type="l2",
            **kwargs,
        )
        # Tensors, not numbers: they differ between replicas that are trained together
        self.register_buffer("value_low", torch.tensor(float(value_range[0])), persistent=False)
        self.register_buffer("value_high", torch.tensor(float(value_range[1])), persistent=False)
        # Observations are standardised for the value here; the actor carries its own normaliser.
        self.normalizer = Normalizer(policy.observation_size)

    @property
    def policy(self) -> Policy:
        """The trained policy; its parameters are the ones this loss optimises."""
        return self.actor_network.module[0].module

    def value(self, observation: Tensor) -> Tensor:
        """V(s) of raw observations, ``(..., D) -> (...)``."""
        return self.critic_network.module(self.normalizer(observation)).squeeze(-1)

    def bounded_value(self, observation: Tensor) -> Tensor:
        """V(s) as far as the rewards allow it, ``(..., D) -> (...)``."""
        return self.value(observation).clamp(self.value_low, self.value_high)

    def losses(
        self, rows: dict[str, Tensor], proposal: tuple[Tensor, Tensor], counts: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """The three losses and their ingredients, without drawing a random number.

        Args:
            rows: ``observation`` ``(B, D)``; ``raw``, the actions before squashing, ``(B, A)``; ``log_density`` of the
                actions under the policy that took them, ``advantage`` and ``value_target`` ``(B,)``.
            proposal: what the actor returned for ``observation``: location and scale, ``(B, A)``.
            counts: which rows count, ``(B,)`` boolean; the others have to be finite.
            noise: standard normal numbers ``(B, A)`` for the entropy.
        """
        count = counts.sum()
        weight = counts.float() / count.clamp_min(1)
        policy, (location, scale) = self.policy, proposal
        _, log_density = policy.reparameterize(location, scale, (rows["raw"] - location) / scale)
        # Rows that do not count are repetitions: neither their density nor its gradient may overflow
        log_ratio = torch.where(counts, log_density - rows["log_density"], 0.0)
        advantage = rows["advantage"]
        if self.normalize_advantage:
            advantage = advantage - (weight * advantage).sum()
            variance = (weight * advantage.square()).sum() * count / (count - 1).clamp_min(1)
            advantage = advantage / variance.sqrt().clamp_min(1e-6)
        clipped = log_ratio.clamp((-self.clip_epsilon).log1p(), self.clip_epsilon.log1p())
        gain = torch.minimum(log_ratio.exp() * advantage, clipped.exp() * advantage)
        entropy = -(weight * policy.reparameterize(location, scale, noise)[1]).sum()
        value = self.value(rows["observation"])
        return {
            "loss_objective": -(weight * gain).sum(),
            "loss_entropy": -self.entropy_coeff * entropy,
            "loss_critic": (weight * (value - rows["value_target"]).square()).sum(),
            "entropy": entropy.detach(),
            "kl_approx": -(weight * log_ratio.detach()).sum(),
            "clip_fraction": (weight * (clipped != log_ratio)).sum(),
            "value": (weight * value.detach()).sum(),
        }

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        action, policy = tensordict["action"], self.policy
        share = (action - policy.action_low) / (policy.action_high - policy.action_low)
        rows = {
            "observation": tensordict["observation"],
            "raw": torch.atanh(2.0 * share - 1.0),
            "log_density": tensordict[self.tensor_keys.sample_log_prob],
            "advantage": tensordict["advantage"].squeeze(-1),
            "value_target": tensordict["value_target"].squeeze(-1),
        }
        counts = torch.ones_like(rows["log_density"], dtype=torch.bool)
        return TensorDict(self.losses(rows, policy(rows["observation"]), counts, torch.randn_like(action)))


def advantages(
    reward: Tensor, values: Tensor, ended: Tensor, alive: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantages (Schulman et al. 2016) of roll-outs of H steps from B states, by TorchRL.

    An end, terminal or untrusted, leaves nothing to come but what the reward already holds; the last step is merely
    the last that is looked at, and what is to come is the value of the state it leads to.

    Args:
        reward: ``(H, B)``, the value of an end included.
        values: of the states, and of those that the last step leads to, ``(H + 1, B)``.
        ended: whether the step ends its roll-out, ``(H, B)``.
        alive: whether the step happens at all; what follows an end does not, ``(H, B)``.
        gamma: discount.
        gae_lambda: lambda, weight of longer returns.

    Returns:
        Advantages and the values that V is fitted to, ``(H, B)``; zero where a step does not happen.
    """
    stopped = ended | ~alive
    done = stopped.clone()
    done[-1] = True
    # Selected, not multiplied: what comes after an end need not be finite
    reward, value = (torch.where(alive, each, 0.0) for each in (reward, values[:-1]))
    following = torch.where(stopped, 0.0, values[1:])
    found = generalized_advantage_estimate(
        gamma, gae_lambda, *(each.T.unsqueeze(-1) for each in (value, following, reward, done, stopped))
    )
    advantage, target = (each.squeeze(-1).T for each in found)
    return torch.where(alive, advantage, 0.0), torch.where(alive, target, 0.0)
