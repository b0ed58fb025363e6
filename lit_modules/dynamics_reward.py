r"""MOREC's first stage: a reward for transitions that are like the real system's.

A discriminator :math:`D = \sigma(l)` tells recorded transitions from those that a transition model makes of the same
observations and actions. The model starts as the Simulator's own and learns to be taken for the real system, as an
imitator of demonstrations would; likelihood keeps it on the data.

.. math::
    L_D      &= -E_{D}[\log D(s,a,s')] - E_{(s,a) \sim D,\, s' \sim T_\theta}[\log(1 - D(s,a,s'))] + c_{gp}\,GP \\
    L_\theta &= \beta\,NLL(D) - c_{adv}\,E_{(s,a) \sim D,\, s' \sim T_\theta}[\log D(s,a,s')]

What comes out is the average of the discriminator's snapshots along the way (``zoo.dynamics_reward``): it has met many
models, and not the last one alone. The Simulator stays as it is; training in it takes the dynamics reward for a filter
(``lit_modules.simulator_policy``). Source: Luo et al. 2023, "Reward-Consistent Dynamics Models are Strongly
Generalizable for Offline Reinforcement Learning" (arXiv 2310.05422), whose training code is not public: what is chosen
here, and why, is in docs/methods/morec.md.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from tensordict import TensorDict
from torch import Tensor

from datamodules.errors import DataError
from lit_modules.diagnostics import spread
from lit_modules.likelihood import recorded_likelihood
from lit_modules.method import Conversation, Descend, Method
from lit_modules.random_stream import RandomStream
from lit_modules.ranges import refuse_outside
from lit_modules.rows import blocks, concatenate, require_streams
from lit_modules.rows_per_update import refuse_too_few_for_members
from lit_modules.spaces import refuse_other_spaces
from zoo.dynamics_reward import DynamicsReward
from zoo.networks import input_gradient, mlp
from zoo.normalizer import adopt_statistics
from zoo.simulator import Simulator

ACTIVATION = "silu"
SCALE_ROWS = 10_000  # recorded rows that the logits' bounds are measured on


class DynamicsRewardGame(Method):
    """Learn a dynamics reward from everything recorded, and a Simulator.

    Args:
        observation_size: number of observation features.
        action_low: lower action bounds.
        action_high: upper action bounds.
        simulator: file of the Simulator whose transitions are to be judged.
        hidden_sizes: widths of the discriminator's hidden layers.
        snapshots: M, how many of the last snapshots are averaged.
        kept_every: updates between snapshots.
        batch_size: recorded transitions per discriminator step, and as many of the model's.
        transition_every: discriminator steps between steps of the model.
        gradient_penalty_weight: weight of the penalty on the slope of the discriminator's logit.
        gradient_penalty_target: norm of its input gradient above which it is penalised; a discriminator that may be
            as steep as it likes tells the two apart by what their errors have to do with least.
        likelihood_weight: beta, weight of the likelihood.
        variance_weighting: power of the predicted variance that weighs its terms, see ``lit_modules.likelihood``.
        adversarial_weight: c_adv, how much the model learns to be taken for the real system; at 0 it stays as it is.
        discriminator_learning_rate: Adam's rate for the discriminator.
        transition_learning_rate: Adam's rate for the model, which is trained already.
        transition_gradient_norm: norm to which larger gradients of it are scaled down; ``None`` leaves them.
        transition_weight_decay: decoupled weight decay of it.
    """

    remedy = "Lower the learning rates or the adversarial weight."

    def __init__(
        self,
        observation_size: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        simulator: str,
        hidden_sizes: Sequence[int] = (256, 256, 256),
        snapshots: int = 10,
        kept_every: int = 400,
        batch_size: int = 256,
        transition_every: int = 4,
        gradient_penalty_weight: float = 1.0,
        gradient_penalty_target: float = 3.0,
        likelihood_weight: float = 1.0,
        variance_weighting: float = 0.5,
        adversarial_weight: float = 0.0,
        discriminator_learning_rate: float = 1e-3,
        transition_learning_rate: float = 1e-4,
        transition_gradient_norm: float | None = 0.3,
        transition_weight_decay: float = 5e-5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        refuse_outside(self.hparams)
        learned = Simulator.load(simulator)
        refuse_other_spaces(learned, observation_size, action_low, action_high)
        self.judged = [learned.transition]  # in a list, and so no part of the module
        self.transition = copy.deepcopy(learned.transition).train().requires_grad_(True)
        self.kept = DynamicsReward(
            observation_size, len(action_low), snapshots, hidden_sizes, ACTIVATION
        ).requires_grad_(False)
        adopt_statistics(self.kept, learned.transition)
        self.discriminator = mlp([2 * observation_size + len(action_low), *hidden_sizes, 1], ACTIVATION)

    def setup(self, stage: str) -> None:
        self.place_random_numbers(self.random)
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        require_streams(data, ["all"])
        rows, wanted = data.streams["all"], self.hparams["batch_size"]
        refuse_too_few_for_members(self.transition.members, rows)
        if wanted > rows:
            raise DataError(f"batch_size is {wanted}, and {rows} rows of all data are read per update: read more")

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        given = self.hparams
        discriminator = torch.optim.Adam(
            self.discriminator.parameters(), lr=given["discriminator_learning_rate"], fused=True
        )
        transition = torch.optim.AdamW(
            self.transition.parameters(),
            lr=given["transition_learning_rate"],
            weight_decay=given["transition_weight_decay"],
            fused=True,
        )
        return [discriminator, transition]

    # --------------------------------------------------------------------------------------------------- the game

    def converse(self, batch: dict[str, TensorDict]) -> Conversation:
        given = self.hparams
        logged: dict[str, Tensor] = {}
        for index in range(batch["all"].shape[0]):
            drawn = self.draw(batch["all"][index][: given["batch_size"]], self.random)
            logged |= yield Descend(
                "discriminator_objective", (drawn,), learning_rate=given["discriminator_learning_rate"]
            )
            if given["adversarial_weight"] > 0 and self.updates % given["transition_every"] == 0:
                logged |= yield Descend(
                    "transition_objective",
                    (drawn, self.deal(batch["all"][index])),
                    learning_rate=given["transition_learning_rate"],
                    optimizer=1,
                    gradient_norm="transition/gradient_norm",
                    largest_norm=given["transition_gradient_norm"],
                )
            self.updates += 1
            if self.updates % given["kept_every"] == 0:
                self._keep(self.updates // given["kept_every"] - 1)
        return logged

    def draw(self, rows: TensorDict, random: RandomStream) -> dict[str, Tensor]:
        """Recorded transitions ``(B, ...)``, and the random numbers of the model's own in their place."""
        count = len(rows)
        return {
            "observation": rows["observation"],
            "action": rows["action"],
            "next_observation": rows["next", "observation"],
            "order": self.transition.deal(count, random.generator, random.device),
            "noise": random.normal(count, self.transition.observation_size),
            "share": random.uniform(count, 1),
        }

    def deal(self, rows: TensorDict) -> dict[str, Tensor]:
        """A block of recorded rows for each member of the model, ``(E, B, ...)``."""
        return blocks([rows], self.transition.members)

    def sample(self, drawn: dict[str, Tensor]) -> Tensor:
        """What the model makes of recorded observations and actions ``(B, ...)``, differentiable in it."""
        mean, log_variance = self.transition.drawn(drawn["observation"], drawn["action"], order=drawn["order"])
        moved = mean + (0.5 * log_variance).exp() * drawn["noise"]
        return self.transition.next_observation(drawn["observation"], moved, drawn["noise"])

    def discriminator_objective(self, drawn: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Recorded transitions up, the model's down, slopes bounded."""
        settings, given = self.hparams, (drawn["observation"], drawn["action"])
        with torch.no_grad():
            following = self.sample(drawn)
        recorded = self.kept.features(*given, drawn["next_observation"])
        simulated = self.kept.features(*given, following)
        of_recorded, of_simulated = self.discriminator(torch.cat([recorded, simulated])).squeeze(-1).chunk(2)
        loss = functional.softplus(-of_recorded).mean() + functional.softplus(of_simulated).mean()
        between = drawn["share"] * recorded + (1.0 - drawn["share"]) * simulated
        steepness = input_gradient(self.discriminator, between).norm(dim=-1)
        penalty = functional.relu(steepness - settings["gradient_penalty_target"]).square().mean()
        loss = loss + settings["gradient_penalty_weight"] * penalty
        right = 0.5 * ((of_recorded > 0).float().mean() + (of_simulated < 0).float().mean())
        return loss, {
            "discriminator/loss": loss.detach(),
            "discriminator/recorded": of_recorded.detach().mean(),
            "discriminator/simulated": of_simulated.detach().mean(),
            "discriminator/right": right,
            "discriminator/gradient_penalty": penalty.detach(),
        }

    def transition_objective(
        self, drawn: dict[str, Tensor], dealt: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The model's own transitions taken for recorded ones, and its likelihood."""
        given = self.hparams
        features = self.kept.features(drawn["observation"], drawn["action"], self.sample(drawn))
        deception = functional.softplus(-self.discriminator(features)).mean()
        likelihood = recorded_likelihood(self.transition, dealt, given["variance_weighting"])
        loss = given["likelihood_weight"] * likelihood.loss + given["adversarial_weight"] * deception
        return loss, {
            "transition/loss": loss.detach(),
            "transition/deception": deception.detach(),
            **likelihood.logged(),
        }

    def _keep(self, number: int) -> None:
        """Take a snapshot of the discriminator, in the place of the oldest."""
        self._copy_to(self.kept, number % self.kept.network.members)

    @torch.no_grad()
    def _copy_to(self, snapshots: DynamicsReward, place: int) -> None:
        """Make the discriminator as it is one of the snapshots."""
        linear = [layer for layer in self.discriminator if isinstance(layer, torch.nn.Linear)]
        for layer, now in zip(snapshots.network.layers, linear, strict=True):
            layer.get_parameter("weight")[place].copy_(now.weight.mT)
            layer.get_parameter("bias")[place].copy_(now.bias)

    # -------------------------------------------------------------------------------------------------- validation

    @torch.no_grad()
    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Share of held-out transitions, recorded and the model's, that the discriminator tells apart."""
        random = RandomStream(0, "validation")  # that of the training goes on as if there were no validation
        random.place(self.device)
        for name, table in batch.items():
            _, figures = self.discriminator_objective(self.draw(table, random))
            for figure in ("discriminator/loss", "discriminator/right"):
                self.log(f"validation/{name}/{figure}", figures[figure], batch_size=len(table), sync_dist=True)

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """The figures of validation, for ``offsim test``."""
        self.validation_step(batch, batch_index)

    @torch.no_grad()
    def predict_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Tensor]:
        """The discriminator's logit ``(N,)`` of each transition of a held-out table."""
        return {
            name: self.discriminator(
                self.kept.features(table["observation"], table["action"], table["next", "observation"])
            ).squeeze(-1)
            for name, table in batch.items()
        }

    # ------------------------------------------------------------------------------------------------- what comes out

    @torch.no_grad()
    def export(self, data: Any) -> DynamicsReward:
        """The dynamics reward: the snapshots that there are, their logits bounded on the training data.

        Before the first of them it is the discriminator as it is, and untrained without such bounds.

        Args:
            data: the data module that it was trained on.
        """
        taken = min(self.updates // self.hparams["kept_every"], self.hparams["snapshots"])
        learned = DynamicsReward(**self.kept.config | {"snapshots": max(1, taken)})
        adopt_statistics(learned, self.kept)
        if taken == 0:
            self._copy_to(learned, 0)
        for ours, theirs in zip(learned.network.parameters(), self.kept.network.parameters(), strict=True):
            ours[:taken].copy_(theirs[:taken])
        if self.updates == 0:
            return learned
        tables = [table for table in (data.expert_train, data.diverse_train) if table is not None]
        whole = sum(map(len, tables))
        rows = concatenate([spread(table, SCALE_ROWS * len(table) // whole + 1) for table in tables])
        observation, action = rows["observation"], rows["action"]
        random, model = torch.Generator().manual_seed(0), self.judged[0]
        mean, log_variance = model.drawn(observation, action, random)
        noise = torch.randn(mean.shape, generator=random)
        following = model.next_observation(observation, mean + (0.5 * log_variance).exp() * noise, noise)
        recorded = learned.features(observation, action, rows["next", "observation"])
        learned.set_scale(recorded, learned.features(observation, action, following))
        data.release()
        return learned.eval().requires_grad_(False)
