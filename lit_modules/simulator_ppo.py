r"""PPO on roll-outs of a frozen Simulator: on-policy, held to the demonstrations.

.. math::
    \delta_t &= \kappa\,\tilde r_t + \gamma\,[\text{ended}_t]\,V_{end} +
                \gamma\,[\text{not ended}_t]\,V(s_{t+1}) - V(s_t), \qquad
    A_t = \sum_k (\gamma\lambda_{GAE})^k\,\delta_{t+k} \\
    L        &= -E[\min(\rho A, \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon) A)] + E[(V - \hat V)^2] - c_H\,H[\pi]
                + \lambda\,L_{cloning}(D_E)

Source: Schulman et al. 2017, "Proximal policy optimization algorithms"; advantages: Schulman et al. 2016,
"High-dimensional continuous control using generalized advantage estimation". Choices: docs/methods/learners.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.method import Compute, Conversation, Descend, Follow
from lit_modules.ppo_loss import TensorPPOLoss, advantages
from lit_modules.rows import deal
from lit_modules.simulator_policy import SimulatorPolicy
from zoo.networks import mlp


class SimulatorPPO(SimulatorPolicy):
    """Train a policy inside a frozen Simulator on its own roll-outs alone.

    An update is a step of the optimiser on one minibatch. ``epochs * minibatches`` of them follow each batch of
    roll-outs.

    Args:
        simulator: file of a Simulator.
        horizon: steps of a roll-out; what is beyond is worth what the value network says.
        starts: roll-outs per batch.
        epochs: how often a batch of roll-outs is gone through.
        minibatches: minibatches per epoch; the steps that happened are dealt to them evenly.
        batch_size: steps in a minibatch at most. Where fewer happened, the minibatches are smaller.
        layer_norm: layer normalisation in the value network.
        gae_lambda: lambda of the generalised advantages.
        clip: epsilon, how far the ratio of densities may go from 1 and still pay.
        entropy_weight: weight of the policy's entropy.
        normalize_advantages: standardise advantages within each minibatch.
        target_kl: approximate divergence from the policy that rolled out above which new roll-outs are made early;
            ``None`` never does.
        deviation: deviation of the Gaussian before squashing that training starts with; ``None`` keeps the cloned
            policy's.
        actor_learning_rate: Adam's rate for the actor.
        critic_share: as for every ``SimulatorPolicy``, and so are ``actor_final_rate``, ``cloning_weight`` and all that
            begins with ``uncertainty``.
        critic_learning_rate: Adam's rate for the value network.
        settings: arguments of ``SimulatorPolicy``.
    """

    streams: ClassVar[tuple[str, ...]] = ("expert",)

    def __init__(
        self,
        simulator: str,
        horizon: int = 250,
        starts: int = 64,
        epochs: int = 5,
        minibatches: int = 16,
        batch_size: int = 256,
        layer_norm: bool = True,
        gae_lambda: float = 0.95,
        clip: float = 0.2,
        entropy_weight: float = 0.0,
        normalize_advantages: bool = True,
        target_kl: float | None = None,
        deviation: float | None = None,
        actor_learning_rate: float = 1e-4,
        critic_share: float = 0.0,
        actor_final_rate: float = 1.0,
        critic_learning_rate: float = 3e-4,
        uncertainty_weight: float | str = 0.0,
        uncertainty_form: str = "penalty",
        uncertainty_tolerance: float = 0.0,
        uncertainty_cut: float | None = 0.99,
        cloning_weight: float = 1.0,
        loosen_below: float | None = None,
        **settings: Any,
    ) -> None:
        # Other defaults than those of learners from a buffer: its advantages have deviation 1 whatever values are
        super().__init__(
            simulator,
            horizon=horizon,
            starts=starts,
            critic_share=critic_share,
            actor_final_rate=actor_final_rate,
            uncertainty_weight=uncertainty_weight,
            uncertainty_form=uncertainty_form,
            uncertainty_tolerance=uncertainty_tolerance,
            uncertainty_cut=uncertainty_cut,
            cloning_weight=cloning_weight,
            loosen_below=loosen_below,
            **settings,
        )
        if deviation is not None:
            for policy in (self.policy, self.averaged_policy):
                policy.set_deviation(deviation)
        sizes = [self.policy.observation_size, *self.hparams["hidden_sizes"], 1]
        self.value = mlp(sizes, layer_norm=layer_norm)
        self.loss = TensorPPOLoss(
            self.policy,
            self.value,
            clip=clip,
            entropy_weight=entropy_weight,
            normalize_advantages=normalize_advantages,
            value_range=self.critic_range,
        )
        # The current batch of roll-outs (N, ...), the minibatches dealt from it and how many of them are done
        self.table: dict[str, Tensor] = {}
        self.hands: tuple[Tensor, Tensor] | None = None
        self.played = 0
        self.compile_functions(self.hparams["compile"], "objective")

    @classmethod
    def refuse_lock_step(cls, settings: Mapping[str, Any]) -> None:
        if settings.get("target_kl") is not None:
            raise ValueError(
                "seeds cannot be trained together with target_kl, because each would stop an epoch when its own "
                "policy has moved far enough: set it to null, or train one seed at a time"
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [
            {"params": list(self.policy.network.parameters()), "lr": self.hparams["actor_learning_rate"]},
            {"params": list(self.value.parameters()), "lr": self.hparams["critic_learning_rate"]},
        ]
        return torch.optim.Adam(groups, fused=True)

    # ------------------------------------------------------------------------------------------------------ training

    def converse(self, batch: dict[str, TensorDict]) -> Conversation:
        logged = self.judge_cloned()
        for expert in batch["expert"].unbind(0):
            if self.hands is None or self.played == len(self.hands[0]):
                logged.update((yield from self.roll_out()))
            logged.update((yield from self.update(expert)))
            self.updates += 1
            self._keep_snapshot()
        return logged

    def roll_out(self) -> Conversation:
        """Roll-outs of the current policy, their advantages, and the minibatches of all epochs over them."""
        draws = self.draw_roll_outs()
        columns, alive = yield Compute("simulate", draws)
        action_noise = draws[1]
        assessed = yield Compute("assess", (columns, action_noise))
        ended = columns["ended"]
        advantage, target = advantages(
            assessed["reward"],
            assessed["values"],
            ended,
            alive,
            self.hparams["gamma"],
            self.hparams["gae_lambda"],
        )
        table = {
            "observation": columns["observation"],
            "raw": assessed["raw"],
            "log_density": assessed["log_density"],
            "advantage": advantage,
            "value_target": target,
        }
        self.table = {name: column.flatten(0, 1) for name, column in table.items()}
        count, cards = self.hparams["minibatches"], self.hparams["batch_size"]
        dealt = [
            deal(alive.flatten(), self.random.uniform(alive.numel()), count, cards)
            for _ in range(self.hparams["epochs"])
        ]
        self.hands = (torch.cat([rows for rows, _ in dealt]), torch.cat([counts for _, counts in dealt]))
        self.played = 0
        share_ended = (ended & alive).any(dim=0).float().mean()
        return self.heed_roll_outs(columns, alive, reward=assessed["reward"][alive].mean(), ended=share_ended)

    def assess(self, columns: dict[str, Tensor], action_noise: Tensor) -> dict[str, Tensor]:
        """What advantages are made of, for roll-outs ``(H, B, ...)`` as :meth:`simulate` returned them.

        Args:
            columns: the roll-outs.
            action_noise: the noise that they took, ``(H, B, A)``.

        Returns:
            ``raw``, the actions before squashing, ``(H, B, A)``; their ``log_density`` and the ``reward`` ``(H, B)``;
            and ``values`` of the states and of those that the last step leads to, ``(H + 1, B)``.
        """
        observation = columns["observation"]
        location, scale = self.policy(observation)
        _, log_density = self.policy.reparameterize(location, scale, action_noise)
        paid = {name: columns[name] for name in ("observation", "action", "next_observation", "uncertainty")}
        states = torch.cat([observation, columns["next_observation"][-1:]])
        return {
            "raw": location + scale * action_noise,
            "log_density": log_density,
            "reward": self.batch_reward({**paid, "terminated": columns["ended"].float()}),
            "values": self.loss.bounded_value(states),
        }

    def update(self, expert: TensorDict) -> Conversation:
        """One step of actor and value network on the next minibatch and on demonstrations ``(N,)``."""
        assert self.hands is not None
        rows, counts = (each[self.played] for each in self.hands)
        self.played += 1
        inputs = {name: column[rows] for name, column in self.table.items()}
        inputs |= {f"expert_{name}": expert[name] for name in ("observation", "action")}
        noise = self.random.normal(*inputs["raw"].shape)
        rates = (self.actor_rate(), self.hparams["critic_learning_rate"])
        logged = dict((yield Descend("objective", (inputs, counts, noise), learning_rate=rates)))
        average = list(self.averaged_policy.network.parameters())
        yield Follow(average, list(self.policy.network.parameters()), 1.0 - self.hparams["policy_average"])
        target_kl = self.hparams["target_kl"]
        if target_kl is not None and float(logged["kl_approx"]) > target_kl:
            self.played = len(self.hands[0])
        return logged

    def objective(self, inputs: dict[str, Tensor], counts: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that an update differentiates, and its parts; see the module's equations."""
        location, scale, cloning = self.propose(inputs)
        losses = self.loss.losses(inputs, (location, scale), counts, noise)
        total = losses["loss_objective"] + losses["loss_entropy"] + losses["loss_critic"]
        logged = {name: value.detach() for name, value in losses.items()}
        return self.add_cloning(total, logged, cloning)

    # --------------------------------------------------------------------------------------------------- checkpoints

    def rank_state(self) -> dict[str, Any]:
        state = super().rank_state()
        if self.hands is None:
            return state
        rows, counts = self.hands
        # Cloned, because a part of a larger tensor would be saved with all of it
        table = {name: column.clone() for name, column in self.table.items()}
        hands = {"rows": rows.clone(), "counts": counts.clone(), "played": self.played}
        return state | {"rollouts": {"table": table, **hands}}

    def restore_rank_state(self, state: dict[str, Any]) -> None:
        super().restore_rank_state(state)
        if "rollouts" not in state:
            return
        saved, device = state["rollouts"], self.random.device
        self.table = {name: column.to(device) for name, column in saved["table"].items()}
        self.hands = (saved["rows"].to(device), saved["counts"].to(device))
        self.played = saved["played"]
