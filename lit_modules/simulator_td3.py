r"""TD3 on roll-outs of a frozen Simulator: a deterministic policy, held to the demonstrations.

.. math::
    y      &= \kappa\,\tilde r(s,a,s') + \gamma\,[\text{not ended}]\,\min_i \bar Q_i(s',\bar\pi(s') +
              \epsilon) + \gamma\,[\text{ended}]\,V_{end} \\
    L_\pi  &= -E[Q_1(s,\pi(s))] / z + \lambda\,L_{cloning}(D_E)

Source: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods"; for the regulariser
and :math:`z = E|Q_1(s,\pi(s))|`, Fujimoto and Gu 2021, "A minimalist approach to offline reinforcement learning".
What differs from them: docs/methods/learners.md.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.critic import Layers, flat
from lit_modules.method import Conversation, Descend, Follow
from lit_modules.replay_learner import ReplayLearner
from lit_modules.td3_loss import BatchedTD3Loss


class SimulatorTD3(ReplayLearner):
    """Train a deterministic policy inside a frozen Simulator.

    The policy file holds a tanh-Gaussian as every other; its mean is what was trained, its deviation that of the
    exploration noise.

    Args:
        simulator: file of a Simulator.
        actor_every: updates of the critics per update of the actor and of all targets.
        exploration_noise: deviation of the noise on actions in roll-outs, in half action ranges.
        smoothing_noise: deviation of the noise on the target policy's actions, likewise.
        smoothing_clip: largest size of that noise, likewise.
        normalize_values: divide the values in the actor's loss by their mean size in the batch (z above), which
            makes ``cloning_weight`` independent of the scale of values; z is 1 without it.
        settings: arguments of ``ReplayLearner`` and ``SimulatorPolicy``.
    """

    def __init__(
        self,
        simulator: str,
        actor_every: int = 2,
        exploration_noise: float = 0.1,
        smoothing_noise: float = 0.2,
        smoothing_clip: float = 0.5,
        normalize_values: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(simulator, **settings)
        given = self.hparams
        for policy in (self.policy, self.averaged_policy):
            policy.set_deviation(exploration_noise)
        self.loss = BatchedTD3Loss(
            self.policy,
            self.make_critic(),
            gamma=given["gamma"],
            smoothing_noise=smoothing_noise,
            smoothing_clip=smoothing_clip,
            value_range=self.critic_range,
            num_qvalue_nets=given["critics"],
        )
        self.compile_functions(given["compile"], "critic_objective", "actor_objective")

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        critics = [p for p in self.loss.qvalue_network_params.parameters() if p.requires_grad]
        actor = list(self.policy.network.parameters())
        return [
            torch.optim.Adam(critics, lr=self.hparams["critic_learning_rate"], fused=True),
            torch.optim.Adam(actor, lr=self.hparams["actor_learning_rate"], fused=True),
        ]

    def explore(self, observation: Tensor, noise: Tensor) -> Tensor:
        low, high = self.policy.action_low, self.policy.action_high
        spread = self.hparams["exploration_noise"] * 0.5 * (high - low)
        return (self.policy.mean_action(observation) + spread * noise).clamp(low, high)

    @torch.no_grad()
    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """Transitions, and the noise that smooths the target policy: ``next_noise`` ``(K, B, A)``."""
        inputs = super().draw(rows)
        return inputs | {"next_noise": self.random.normal(*inputs["action"].shape)}

    def update(self, inputs: dict[str, Tensor]) -> Conversation:
        """One step of the critics and, whenever it is their turn, of actor and targets."""
        critics, targets = self.loss.critic_layers(), self.loss.target_layers()
        rate = self.hparams["critic_learning_rate"]
        logged = dict((yield Descend("critic_objective", (inputs, critics, targets), learning_rate=rate)))
        actor = list(self.policy.network.parameters())
        if (self.updates + 1) % self.hparams["actor_every"] == 0:
            logged |= yield Descend("actor_objective", (inputs, critics), learning_rate=self.actor_rate(), optimizer=1)
            yield Follow(flat(targets), flat(critics), self.hparams["tau"])
            yield Follow(list(self.loss.target_policy.network.parameters()), actor, self.hparams["tau"])
        yield Follow(list(self.averaged_policy.network.parameters()), actor, 1.0 - self.hparams["policy_average"])
        return logged

    def critic_objective(
        self, inputs: dict[str, Tensor], critics: Layers, targets: Layers
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critics' loss, and what is logged of it."""
        reward = self.batch_reward(inputs)
        terms = self.loss.critic_terms({**inputs, "reward": reward}, critics, targets)
        return terms["loss_qvalue"], {name: value.detach() for name, value in terms.items()} | {"reward": reward.mean()}

    def actor_objective(self, inputs: dict[str, Tensor], critics: Layers) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's loss with its regulariser, and what is logged of it."""
        location, _, cloning = self.propose(inputs)
        terms = self.loss.actor_terms(inputs["observation"], self.policy.squash(location), critics)
        total = terms["loss_actor"]
        if self.hparams["normalize_values"]:
            total = total / terms["proposed_size"].clamp_min(1e-6)
        logged = {name: value.detach() for name, value in terms.items() if name != "proposed_size"}
        return self.regularize(total, logged, inputs, (location, cloning))
