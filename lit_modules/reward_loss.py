r"""How a reward is told apart demonstrations from roll-outs: the loss that OffSim and Offline ML-IRL share.

.. math::
    L_r = E_{\text{roll-outs}}[r] - E_{D_E}[r] + c_{gp}\,GP + c_{l2}\,E[r^2]
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from zoo.reward import RewardModel


def adversarial_loss(
    model: RewardModel,
    expert: Tensor,
    rollout: Tensor,
    share: Tensor,
    gradient_penalty_weight: float,
    gradient_penalty_target: float,
    l2_weight: float,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Expert up, roll-outs down, slopes bounded, size bounded.

    Args:
        model: the reward.
        expert: features of demonstrated transitions, ``(N, F)``.
        rollout: features of transitions of roll-outs, ``(N, F)``.
        share: of the first in each interpolate of the gradient penalty, ``(N, 1)``.
        gradient_penalty_weight: c_gp.
        gradient_penalty_target: norm of the input gradient above which it is penalised.
        l2_weight: c_l2.

    Returns:
        The loss; the unscaled rewards of demonstrations and of roll-outs, ``(N,)`` each; the parts, to be logged.
    """
    expert_reward, rollout_reward = model.raw(torch.cat([expert, rollout])).chunk(2)
    penalty = gradient_penalty(model, share * expert + (1 - share) * rollout, gradient_penalty_target)
    squared = 0.5 * (expert_reward.square().mean() + rollout_reward.square().mean())
    loss = rollout_reward.mean() - expert_reward.mean() + gradient_penalty_weight * penalty + l2_weight * squared
    return (
        loss,
        expert_reward,
        rollout_reward,
        {
            "reward/expert": expert_reward.detach().mean(),
            "reward/rollout": rollout_reward.detach().mean(),
            "reward/gradient_penalty": penalty.detach(),
            "reward/squared": squared.detach(),
        },
    )


def gradient_penalty(model: RewardModel, features: Tensor, target: float) -> Tensor:
    """Mean squared excess of the input gradient's norm over the target (one-sided WGAN-GP), at ``(N, F)``."""
    return functional.relu(model.raw_gradient(features).norm(dim=-1) - target).square().mean()
