r"""OffSim's second stage: SAC on roll-outs of a frozen Simulator.

.. math::
    y      &= \kappa\,\tilde r(s,a,s') + \gamma\,[\text{not ended}]\,(\min_i \bar Q_i(s',a') -
              \alpha\log\pi(a'|s')) + \gamma\,[\text{ended}]\,V_{end} \\
    \tilde r &= \min(r,\ r_0 + (r - r_0)\,e^{-\lambda_u \max(0,\,U(s,a) - u_0)}) \quad\text{or}\quad
              r - \lambda_u \max(0,\,U(s,a) - u_0) \\
    L_\pi  &= E[\alpha\log\pi(a|s) - \min_i Q_i(s,a)] + \lambda\,L_{cloning}(D_E)

Doubt U fades the reward to r_0, that of an average roll-out, or is taken off it (``uncertainty_form``). Without
entropy, which is the default, alpha is 0. The real system appears only as recorded rows; their reward is the learned
one. Source: arXiv 2510.15495, stage 2; SAC: Haarnoja et al. 2018. Choices where the paper is silent:
docs/methods/offsim.md.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.critic import BatchedSACLoss, ForeachSoftUpdate, Layers, flat
from lit_modules.method import Conversation, Descend, Follow
from lit_modules.replay_learner import ReplayLearner

NO_TEMPERATURE = 1e-12  # its logarithm is kept


class SimulatorSAC(ReplayLearner):
    """Train a policy inside a frozen Simulator.

    Args:
        simulator: file of a Simulator.
        temperature: SAC's alpha, 0 for no entropy; its start if it is tuned.
        target_entropy: entropy to tune the temperature to; ``None`` keeps the temperature fixed. A cloned policy is
            nearly deterministic, and tuning then raises the temperature without bound.
        deviation: fixed deviation of the Gaussian before squashing, with which roll-outs explore; ``None`` learns it,
            from the cloned policy's, which squared errors never trained.
        value_unit: deviation of the critics' values over a batch, to which the actor's loss is brought before the holds
            of ``cloning_weight`` and ``anchor_weight`` are added, so that these hold alike whatever the reward's size
            (as Fujimoto & Gu 2021, "TD3+BC", by the values' size); ``None`` takes values as they are.
        settings: arguments of ``ReplayLearner`` and ``SimulatorPolicy``.
    """

    loss_type = BatchedSACLoss

    def __init__(
        self,
        simulator: str,
        temperature: float = 0.0,
        target_entropy: float | None = None,
        deviation: float | None = 0.1,
        value_unit: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(simulator, **settings)
        given = self.hparams
        if target_entropy is not None and temperature == 0.0:
            raise ValueError("target_entropy tunes the temperature, factor by factor: start it above 0, as at 0.01")
        if deviation is not None:
            for policy in (self.policy, self.averaged_policy):
                policy.fix_deviation(deviation)
        self.loss = self.loss_type(
            self.policy,
            self.make_critic(),
            gamma=given["gamma"],
            value_range=self.critic_range,
            num_qvalue_nets=given["critics"],
            alpha_init=max(temperature, NO_TEMPERATURE),
            fixed_alpha=target_entropy is None,
            target_entropy=-float(self.policy.action_size) if target_entropy is None else target_entropy,
        )
        self.target_update = ForeachSoftUpdate(self.loss, tau=given["tau"])
        self.compile_functions(given["compile"], "objective")

    @property
    def critic_range(self) -> tuple[float, float]:
        """None with entropy, which is added to the values."""
        return super().critic_range if self.hparams["temperature"] == 0.0 else (-math.inf, math.inf)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [
            list(self.policy.network.parameters()),
            [p for p in self.loss.qvalue_network_params.parameters() if p.requires_grad],
        ]
        if self.hparams["target_entropy"] is not None:
            trained.append([self.loss.log_alpha])
        groups = [{"params": params, "lr": rate} for params, rate in zip(trained, self.learning_rates(), strict=True)]
        return torch.optim.Adam(groups, fused=True)

    def learning_rates(self) -> list[float]:
        """The rates now of actor and critics, and of the temperature if it is tuned."""
        rates = [self.actor_rate(), self.hparams["critic_learning_rate"]]
        return rates if self.hparams["target_entropy"] is None else [*rates, self.hparams["actor_learning_rate"]]

    @torch.no_grad()
    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """Transitions, and the noise of sampled actions: ``noise`` and ``next_noise`` ``(K, B, A)``."""
        inputs = super().draw(rows)
        updates, *shape = inputs["action"].shape
        noise = self.random.normal(updates, 2, *shape)
        return inputs | {"noise": noise[:, 0], "next_noise": noise[:, 1]}

    def update(self, inputs: dict[str, Tensor]) -> Conversation:
        """One step of critics, actor, targets and running average on the inputs of one update."""
        critics, targets = self.loss.critic_layers(), self.loss.target_layers()
        logged = yield Descend("objective", (inputs, critics, targets), learning_rate=self.learning_rates())
        yield Follow(flat(targets), flat(critics), 1.0 - self.target_update.eps)
        average = list(self.averaged_policy.network.parameters())
        yield Follow(average, list(self.policy.network.parameters()), 1.0 - self.hparams["policy_average"])
        return dict(logged)

    def objective(
        self, inputs: dict[str, Tensor], critics: Layers, targets: Layers
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that an update differentiates, and its parts; see the module's equations."""
        reward, paid = self.critics_reward(inputs, targets)
        location, scale, cloning = self.propose(inputs)
        losses = self.loss.losses({**inputs, "reward": reward}, (location, scale), critics, targets)
        actor = losses["loss_actor"]
        if self.hparams["value_unit"] is not None:
            actor = actor * self.hparams["value_unit"] / losses["value_std"].clamp_min(1e-6)
        total = actor + losses["loss_qvalue"]
        loss_alpha = losses.pop("loss_alpha")
        if self.hparams["target_entropy"] is not None:
            total = total + loss_alpha
        logged = {name: value.detach() for name, value in losses.items()} | {"reward": reward.mean(), **paid}
        return self.regularize(total, logged, inputs, (location, cloning))

    def critics_reward(self, inputs: dict[str, Tensor], targets: Layers) -> tuple[Tensor, dict[str, Tensor]]:
        """What the critics are told that each transition pays, ``(B,)``, and what is logged of it.

        Args:
            inputs: of one update.
            targets: the target critics' parameters, which a penalty may ask.
        """
        return self.batch_reward(inputs), {}

    def _keep_snapshot(self) -> Path | None:
        """Also what the critics think of the policy, in a JSON file beside it."""
        file = super()._keep_snapshot()
        if file is not None:
            belief = {
                "update": self.updates,
                "value": self.start_value(),
                "temperature": float(self.loss.log_alpha.detach().exp()),
                "uncertainty_weight": float(self.uncertainty_weight),
            }
            file.with_suffix(".json").write_text(json.dumps(belief))
        return file

    @torch.no_grad()
    def start_value(self) -> float:
        """Smallest critic's value of the finished policy's action, mean over the Simulator's start states.

        In units of ``reward_scale`` times the reward.
        """
        observation = self.simulator.start_states.observations
        action = self.finished_policy(self.trainer.datamodule).act(observation)  # type: ignore[attr-defined]
        return float(self.loss.smallest_value(self.loss.critic_layers(), observation, action).mean())
