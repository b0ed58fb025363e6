r"""Offline ML-IRL: SAC in a frozen world model, with a reward that is learned against the policy's own roll-outs.

.. math::
    \max_\phi\; E_{D_E}[r_\phi] - E_{\pi_\phi\text{ in }T}[r_\phi], \qquad
    \pi_\phi = \arg\max_\pi E_{\pi\text{ in }T}\Big[\sum_t \gamma^t\,(\tilde r_\phi + \alpha H[\pi])\Big]

The likelihood of the demonstrated actions under the policy that is optimal for a reward has this gradient: up where
the expert is, down where the policy is. Reward and policy steps alternate, so the reward is always about what the
policy still does wrong. Doubt fades it to an average one, see ``lit_modules.simulator_sac``.

Source: Zeng et al. 2023, "When demonstrations meet generative world models: a maximum likelihood framework for offline
inverse reinforcement learning" (arXiv 2302.07457). Gradient penalty, short roll-outs from recorded states and reward
steps on minibatches instead of whole trajectories are chosen here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.method import Conversation, Descend
from lit_modules.random_stream import RandomStream
from lit_modules.reward_loss import adversarial_loss
from lit_modules.simulator_sac import SimulatorSAC
from zoo.normalizer import adopt_statistics
from zoo.reward import RewardModel
from zoo.simulator import Simulator


class OfflineMLIRL(SimulatorSAC):
    """Train a policy and a reward in a Simulator whose own reward is not used.

    Args:
        simulator: file of a Simulator, the world model.
        reward_every: policy updates between reward steps.
        reward_hidden_sizes: widths of the reward's hidden layers.
        reward_uses_next_observation: r(s,a,s') if true, r(s,a) if false.
        reward_learning_rate: Adam's rate for the reward.
        reward_bound: largest distance of a reward from the mean reward of the policy's transitions.
        high_quantile: quantile of the demonstrations' reward above which nothing more is earned, measured along the
            way: what a simulator promises beyond the demonstrations is where it is wrong. ``None`` leaves it to the
            bound.
        end_quantile: quantile of the reward of the policy's transitions that an end is worth, for ever. Measured
            along the way, because a learned reward has no natural zero.
        level_average: decay of the running averages of that mean and of that quantile.
        gradient_penalty_weight: weight of the gradient penalty.
        gradient_penalty_target: norm of the reward's input gradient above which it is penalised.
        l2_weight: weight of the mean squared reward.
        settings: arguments of ``SimulatorSAC``.
    """

    learns_reward = True

    def __init__(
        self,
        simulator: str,
        reward_every: int = 10,
        reward_hidden_sizes: Sequence[int] = (256, 256),
        reward_uses_next_observation: bool = False,
        reward_learning_rate: float = 3e-4,
        reward_bound: float = 10.0,
        high_quantile: float | None = 0.5,
        end_quantile: float = 0.05,
        level_average: float = 0.99,
        gradient_penalty_weight: float = 10.0,
        gradient_penalty_target: float = 1.0,
        l2_weight: float = 1e-3,
        **settings: Any,
    ) -> None:
        super().__init__(simulator, **settings)
        given = self.simulator.reward
        learned = RewardModel(
            self.simulator.observation_size,
            self.simulator.action_size,
            reward_hidden_sizes,
            uses_next_observation=reward_uses_next_observation,
        )
        adopt_statistics(learned, given)
        learned.low.fill_(-reward_bound)
        learned.high.fill_(reward_bound)
        self.replace_reward(learned)
        self.end_value.zero_()  # measured along the way
        self.reward_random = RandomStream(torch.initial_seed(), "reward")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self.place_random_numbers(self.reward_random)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        parameters = self.simulator.reward.network.parameters()
        return [
            super().configure_optimizers(),
            torch.optim.Adam(parameters, lr=self.hparams["reward_learning_rate"], fused=True),
        ]

    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        return super().draw(rows) | {"expert_next_observation": rows["expert"]["next", "observation"]}

    def update(self, inputs: dict[str, Tensor]) -> Conversation:
        """A reward step, whenever it is its turn, then a policy step."""
        logged: dict[str, Tensor] = {}
        following = inputs.pop("expert_next_observation")
        if self.updates % self.hparams["reward_every"] == 0:
            expert = (inputs["expert_observation"], inputs["expert_action"], following)
            count = len(following)
            own = self.draw_acted(count, self.reward_random)
            rollout = self._in_expert_surroundings(own, expert)
            share = self.reward_random.uniform(count, 1)
            rate = self.hparams["reward_learning_rate"]
            logged |= yield Descend("reward_objective", (expert, rollout, share), learning_rate=rate, optimizer=1)
            self._follow_levels(logged)
        logged |= yield from super().update(inputs)
        return logged

    def _in_expert_surroundings(self, own: TensorDict, expert: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The policy's rows, set from outside as the demonstrations were, by which the reward may not tell them."""
        model = self.simulator.transition
        rollout = (own["observation"], own["action"], own["next", "observation"])
        if not self.simulator.exogenous:
            return rollout
        observation, following = (model.with_exogenous(rollout[at], model.exogenous_of(expert[at])) for at in (0, 2))
        return observation, rollout[1], following

    @property
    def doubtful_reward(self) -> Tensor:
        """That of an average transition of the policy, on which the reward is centred."""
        return torch.zeros_like(self.end_value)

    def _follow_levels(self, measured: dict[str, Tensor]) -> None:
        """Keep the reward centred on what the policy earns, ends at their level below it, and its bound above.

        A constant in the reward changes no policy, but critics need some ``1 / (tau * (1 - gamma))`` updates to learn
        what it adds up to.
        """
        share = 1.0 - self.hparams["level_average"] if self.updates > 0 else 1.0
        mean, end = measured["reward/rollout"], measured["reward/end"]
        self.simulator.reward.offset.lerp_(mean, share)
        lasting = self.hparams["reward_scale"] / (1.0 - self.hparams["gamma"])
        self.end_value.lerp_(lasting * (end - mean), share)
        if self.hparams["high_quantile"] is not None:
            # Not below the policy's mean, as before the reward has learned
            self.simulator.reward.high.lerp_(
                (measured["reward/high"] - mean).clamp(0.0, self.hparams["reward_bound"]), share
            )

    def reward_objective(
        self, expert: tuple[Tensor, ...], rollout: tuple[Tensor, ...], share: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Expert up, the policy's roll-outs down.

        Args:
            expert: observation, action and next observation of demonstrations, ``(N, ...)``.
            rollout: the same of the policy's roll-outs.
            share: of the first in each interpolate of the gradient penalty, ``(N, 1)``.
        """
        model, settings = self.simulator.reward, self.hparams
        loss, expert_reward, rollout_reward, parts = adversarial_loss(
            model,
            model.features(*expert),
            model.features(*rollout),
            share,
            settings["gradient_penalty_weight"],
            settings["gradient_penalty_target"],
            settings["l2_weight"],
        )
        end = rollout_reward.detach().quantile(settings["end_quantile"])
        parts |= {"reward/loss": loss.detach(), "reward/end": end}
        if settings["high_quantile"] is not None:
            parts["reward/high"] = expert_reward.detach().quantile(settings["high_quantile"])
        return loss, parts

    @torch.no_grad()
    def learned_simulator(self, data: Any, rows: int = 10_000) -> Simulator:
        """A copy of the Simulator with the reward as it is now, on the scale of ``RewardModel.standardize``.

        Args:
            data: the data module.
            rows: demonstrated and imagined transitions used to set the scale.
        """
        simulator = copy.deepcopy(self.simulator)
        model = simulator.reward

        def raw(table: TensorDict) -> Tensor:
            table = table.to(model.offset.device)
            return model.raw(model.features(table["observation"], table["action"], table["next", "observation"]))

        acted = self.acted_rows()
        spread = torch.linspace(0, len(acted) - 1, min(rows, len(acted)), device=acted.device).long()
        expert, rollout = raw(data.expert_train), raw(self.replay[acted[spread]])
        high = self.hparams["high_quantile"]
        model.standardize(expert, rollout, low_quantile=0.0, high_quantile=1.0 if high is None else high)
        end = rollout.quantile(self.hparams["end_quantile"])
        simulator.end_reward = float((end - model.offset) / model.scale)
        simulator.reward_learned = True
        return simulator.eval().requires_grad_(False)

    def random_streams(self) -> dict[str, RandomStream]:
        return super().random_streams() | {"reward": self.reward_random}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["end_value"] = self.end_value.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.end_value.copy_(checkpoint["end_value"])
