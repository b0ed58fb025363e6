r"""RAMBO: SAC against a transition model that learns to be bad for the policy, as far as the data allows.

.. math::
    L_T = \beta\,NLL(D) + \lambda\,E_{(s,a) \sim \pi\text{ in }T_\phi,\ s' \sim T_\phi}\Big[\log T_\phi(s'|s,a)\,
          \frac{A(s,a,s') - \bar A}{\operatorname{std} A}\Big], \qquad
    A = \kappa\,\tilde r(s,a,s') + \gamma V(s') - Q(s,a)

Next states that are worth more than the critics expected become less likely. Where data says what happens the
likelihood holds the model; elsewhere it turns against the policy, whose roll-outs are then pessimistic without a
measure of uncertainty. The Simulator that was given stays as it is: in it the policy is validated and joined.

Source: Rigter et al. 2022, "RAMBO-RL: robust adversarial model-based offline reinforcement learning" (arXiv
2204.12581). What else is chosen: docs/methods/model_based.md.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.critic import Layers
from lit_modules.likelihood import recorded_likelihood
from lit_modules.method import Conversation, Descend
from lit_modules.random_stream import RandomStream
from lit_modules.rows import blocks
from lit_modules.rows_per_update import refuse_too_few_for_members
from lit_modules.simulator_sac import SimulatorSAC
from zoo.simulator import Simulator


class SimulatorRAMBO(SimulatorSAC):
    """Train a policy by SAC in a Simulator whose transitions are trained against it.

    Args:
        simulator: file of the Simulator to begin with.
        transition_every: policy updates between steps of the model, which begin with those of the actor.
        adversarial_weight: lambda.
        likelihood_weight: beta.
        variance_weighting: power of the predicted variance that weighs the likelihood, see ``lit_modules.likelihood``.
        transition_learning_rate: Adam's rate for the model.
        transition_gradient_norm: norm to which larger gradients of it are scaled down; ``None`` leaves them.
        transition_weight_decay: decoupled weight decay of it.
        settings: arguments of ``SimulatorSAC``.
    """

    def __init__(
        self,
        simulator: str,
        transition_every: int = 10,
        adversarial_weight: float = 3e-4,
        likelihood_weight: float = 1.0,
        variance_weighting: float = 0.5,
        transition_learning_rate: float = 3e-4,
        transition_gradient_norm: float | None = 0.3,
        transition_weight_decay: float = 5e-5,
        **settings: Any,
    ) -> None:
        super().__init__(simulator, **settings)
        self._given = [copy.deepcopy(self.simulator)]  # in a list, and so no part of the module
        self.simulator.transition.network.requires_grad_(True)
        self.transition_random = RandomStream(torch.initial_seed(), "transition")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._given[0].to(self.trainer.strategy.root_device)
        if stage == "fit":
            refuse_too_few_for_members(self.simulator.transition.members, self.trainer.datamodule.streams["all"])  # type: ignore[attr-defined]
            self.place_random_numbers(self.transition_random)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        transition = torch.optim.AdamW(
            self.simulator.transition.network.parameters(),
            lr=self.hparams["transition_learning_rate"],
            weight_decay=self.hparams["transition_weight_decay"],
            fused=True,
        )
        return [super().configure_optimizers(), transition]

    @torch.no_grad()
    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """Also a block of recorded rows for each member, ``dealt_*`` ``(K, E, B, ...)``."""
        dealt = blocks([rows["all"]], self.simulator.transition.members)
        return super().draw(rows) | {f"dealt_{name}": column for name, column in dealt.items()}

    def update(self, inputs: dict[str, Tensor]) -> Conversation:
        """A step of the model, whenever it is its turn, then one of the policy."""
        names = [name for name in inputs if name.startswith("dealt_")]
        dealt = {name.removeprefix("dealt_"): inputs.pop(name) for name in names}
        logged: dict[str, Tensor] = {}
        if self.updates % self.hparams["transition_every"] == 0 and self.actor_rate() > 0:
            logged |= yield Descend(
                "transition_objective",
                (self._draw_acted(), dealt, self.loss.target_layers()),
                learning_rate=self.hparams["transition_learning_rate"],
                optimizer=1,
                gradient_norm="transition/gradient_norm",
                largest_norm=self.hparams["transition_gradient_norm"],
            )
        logged |= yield from super().update(inputs)
        return logged

    def _draw_acted(self) -> dict[str, Tensor]:
        """What the policy did in roll-outs, and the random numbers of what follows now, ``(B, ...)``."""
        model, random, count = self.simulator.transition, self.transition_random, self.hparams["batch_size"]
        rows = self.draw_acted(count, random)
        return {
            **{name: rows[name] for name in ("observation", "action", "uncertainty")},
            "order": model.deal(count, random.generator, random.device),
            "noise": random.normal(count, model.observation_size),
        }

    def transition_objective(
        self, acted: dict[str, Tensor], dealt: dict[str, Tensor], critics: Layers
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The likelihood of recorded transitions, and that of simulated ones by how good they are for the policy.

        Args:
            acted: what :meth:`_draw_acted` returned.
            dealt: recorded transitions, ``(E, B, ...)``.
            critics: the parameters of the critics that say what is good.
        """
        model, given = self.simulator.transition, self.hparams
        observation, action = acted["observation"], acted["action"]
        mean, log_variance = model.drawn(observation, action, order=acted["order"])
        with torch.no_grad():
            moved = mean + (0.5 * log_variance).exp() * acted["noise"]
            following = model.next_observation(observation, moved, acted["noise"])
            taken = {name: acted[name] for name in ("observation", "action", "uncertainty")}
            worth = self.worth(taken, following.unsqueeze(0), critics).squeeze(0)
            advantage = worth - self.loss.smallest_value(critics, observation, action)
            goodness = (advantage - advantage.mean()) / advantage.std().clamp_min(1e-6)
        likelihood = -0.5 * (log_variance + (moved - mean).square() * (-log_variance).exp()).sum(dim=-1)
        adversarial = (goodness * likelihood).mean()
        recorded = recorded_likelihood(model, dealt, given["variance_weighting"])
        loss = given["likelihood_weight"] * recorded.loss + given["adversarial_weight"] * adversarial
        return loss, {
            "transition/loss": loss.detach(),
            "transition/advantage": advantage.mean(),
            "transition/advantage_std": advantage.std(),
            **recorded.logged(),
        }

    @property
    def judging_simulator(self) -> Simulator:
        """The Simulator as it was given."""
        return self._given[0]

    def random_streams(self) -> dict[str, RandomStream]:
        return super().random_streams() | {"transition": self.transition_random}
