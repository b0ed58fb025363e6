r"""OffSim's first stage: the game between a reward and a transition model.

The reward is the discriminator: up on expert transitions, down on model roll-outs. The transition model is the
generator: pulled to where the reward is high, held on the data by its likelihood, spread by an entropy term.

.. math::
    L_r      &= E_{T_\theta}[r(s,a,s')] - E_{D_E}[r(s,a,s')] + c_{gp}\,GP + c_{l2}\,E[r^2] + c_m L_{margin} \\
    L_{margin} &= E[\mathrm{ReLU}(m - (r(x_E) - r(x_D)))] \quad\text{(OffSim+, Eq. 8)} \\
    L_T      &= \beta\,NLL(D) - c_{adv}\,E_{s'\sim T_\theta}[r(s,a,s')] - \alpha\,H[T_\theta(.|s,a)]

Source: "OffSim: Offline Simulator for Model-based Offline Inverse Reinforcement Learning" (arXiv 2510.15495). What
the paper leaves open, and what is chosen here, is listed in docs/methods/offsim.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import lightning
import torch
import torch.nn.functional as functional
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import TensorBoardLogger
from tensordict import TensorDict
from torch import Tensor

from lit_modules import diagnostics
from lit_modules.proposals import ActionProposal, RecordedActions
from lit_modules.rows import bootstrap_weights, concatenate, draw_starts, gradient_norm, require_streams
from zoo.policy import Policy
from zoo.reward import RewardModel
from zoo.simulator import Simulator
from zoo.start_states import StartStates
from zoo.termination import LearnedTermination, RuleTermination, TerminationModel
from zoo.transition import TransitionModel

REWARD_ROWS = 2000  # rows behind each logged reward and histogram


class OffSim(lightning.LightningModule):
    """Train a Simulator from expert demonstrations and, for OffSim+, diverse data.

    One ``training_step`` is as many updates as the batch has leading rows. The first ``pretraining_updates`` fit
    the transition model by likelihood alone; then reward and transition steps alternate.

    Args:
        observation_size: number of observation features.
        action_low: lower action bounds.
        action_high: upper action bounds.
        task: name of a known task, for its termination rule; ``None`` for a system of one's own.
        termination: ``rule``, ``learned`` or ``none``.
        members: members of the transition ensemble.
        transition_hidden_sizes: widths of the hidden layers of each member.
        reward_hidden_sizes: widths of the hidden layers of the reward, three for a four-layer network.
        reward_uses_next_observation: r(s,a,s') if true, r(s,a) if false.
        uncertainty: measure that the Simulator reports, see ``zoo.uncertainty``.
        pretraining_updates: likelihood-only updates of the transition model before the game.
        horizon: steps H of the roll-outs.
        starts: roll-outs per reward step.
        expert_start_share: share of roll-outs that start in expert states; the rest start anywhere in the data.
        proposal: share of each way to pick the actions in roll-outs, see ``lit_modules.proposals``.
        proposal_noise: deviation of the noise on cloned actions, as a share of half the action range.
        cloned_policy: file of a behaviour-cloned policy, needed by the cloning proposals.
        reward_every: updates between reward steps.
        transition_every: updates between transition steps during the game.
        expert_share: share of expert rows in each member's batch, on top of those that "all" holds.
        likelihood_weight: weight beta of the likelihood.
        adversarial_weight: weight of the reward of the model's own transitions.
        entropy_weight: weight alpha of the entropy, per observation feature.
        gradient_penalty_weight: weight of the gradient penalty.
        gradient_penalty_target: norm of the reward's input gradient above which it is penalised.
        l2_weight: weight of the mean squared reward.
        margin_weight: weight of OffSim+'s margin term; 0 is plain OffSim.
        margin: m, how much more reward expert transitions should have than diverse ones, in unscaled reward.
        transition_learning_rate: Adam's rate for the ensemble at the start.
        transition_final_rate: share of that rate which is left, after a cosine decay, when the game begins.
        transition_weight_decay: decoupled weight decay of the ensemble.
        reward_learning_rate: Adam's rate for the reward.
        reward_average: decay of the running average of the reward's weights; the average is what is kept, since
            the last iterate of a game circles its solution.
        reward_low_quantile: quantile of the roll-outs' reward that becomes the reward's lower bound.
        reward_high_quantile: quantile of the expert's reward that becomes its upper bound.
    """

    updates: Tensor

    def __init__(
        self,
        observation_size: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        task: str | None = None,
        termination: str = "rule",
        members: int = 7,
        transition_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        reward_hidden_sizes: Sequence[int] = (256, 256, 256),
        reward_uses_next_observation: bool = True,
        uncertainty: str = "disagreement",
        pretraining_updates: int = 5000,
        horizon: int = 5,
        starts: int = 128,
        expert_start_share: float = 0.5,
        proposal: dict[str, float] | None = None,
        proposal_noise: float = 0.3,
        cloned_policy: str | None = None,
        reward_every: int = 1,
        transition_every: int = 1,
        expert_share: float = 0.125,
        likelihood_weight: float = 1.0,
        adversarial_weight: float = 0.01,
        entropy_weight: float = 0.01,
        gradient_penalty_weight: float = 10.0,
        gradient_penalty_target: float = 1.0,
        l2_weight: float = 1e-3,
        margin_weight: float = 0.0,
        margin: float = 1.0,
        transition_learning_rate: float = 1e-3,
        transition_final_rate: float = 0.1,
        transition_weight_decay: float = 5e-5,
        reward_learning_rate: float = 3e-4,
        reward_average: float = 0.999,
        reward_low_quantile: float = 0.5,
        reward_high_quantile: float = 0.5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        action_size = len(action_low)
        self.transition = TransitionModel(observation_size, action_size, members, transition_hidden_sizes)
        self.reward = RewardModel(
            observation_size,
            action_size,
            reward_hidden_sizes,
            uses_next_observation=reward_uses_next_observation,
        )
        self.averaged_reward = copy.deepcopy(self.reward).requires_grad_(False)
        self.termination = self._make_termination(termination, task, observation_size)
        self.cloned = Policy.load(cloned_policy).requires_grad_(False) if cloned_policy else None
        self.proposal = ActionProposal(
            proposal or {"dataset": 0.5, "cloning_noise": 0.25, "uniform": 0.25},
            torch.tensor(action_low),
            torch.tensor(action_high),
            self.cloned,
            proposal_noise,
        )
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.recorded: RecordedActions | None = None
        self.errors_before_game: dict[str, dict[str, Tensor]] = {}

    @staticmethod
    def _make_termination(kind: str, task: str | None, observation_size: int) -> TerminationModel:
        if kind == "rule":
            if task is None:
                raise ValueError("termination: rule needs a known task; use termination: learned for your own system")
            return RuleTermination(task)
        if kind == "learned":
            return LearnedTermination(observation_size)
        if kind == "none":
            return TerminationModel()
        raise ValueError(f"unknown termination {kind!r}: choose rule, learned or none")

    # ------------------------------------------------------------------------------------------------ preparation

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        tables = [table for table in (data.expert_train, data.diverse_train) if table is not None]
        self.recorded = RecordedActions(tables)
        if stage != "fit":
            return  # everything below is in the checkpoint
        require_streams(data, ["expert", "all"] + (["diverse"] if self.hparams["margin_weight"] > 0 else []))
        statistics = data.statistics
        for model in (self.transition, self.reward, self.averaged_reward):
            model.observation_normalizer.set_statistics(statistics.observation_mean, statistics.observation_std)
            model.action_normalizer.set_statistics(statistics.action_mean, statistics.action_std)
            model.delta_normalizer.set_statistics(statistics.delta_mean, statistics.delta_std)
        low = torch.stack([table["next", "observation"].min(dim=0).values for table in tables]).min(dim=0).values
        high = torch.stack([table["next", "observation"].max(dim=0).values for table in tables]).max(dim=0).values
        self.transition.set_range(low, high)
        if isinstance(self.termination, LearnedTermination):
            self.termination.normalizer.set_statistics(statistics.observation_mean, statistics.observation_std)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        transition = torch.optim.AdamW(
            [*self.transition.parameters(), *self.termination.parameters()],
            lr=self.hparams["transition_learning_rate"],
            weight_decay=self.hparams["transition_weight_decay"],
            fused=True,
        )
        reward = torch.optim.Adam(self.reward.parameters(), lr=self.hparams["reward_learning_rate"], fused=True)
        return [transition, reward]

    # --------------------------------------------------------------------------------------------------- the game

    def training_step(self, batch: dict[str, TensorDict], batch_index: int) -> None:
        transition_optimizer, reward_optimizer = cast(list[LightningOptimizer], self.optimizers())
        logged: dict[str, Tensor] = {}
        for index in range(batch["all"].shape[0]):
            rows = {name: stream[index] for name, stream in batch.items()}
            game = int(self.updates) >= self.hparams["pretraining_updates"]
            rollouts: TensorDict | None = None
            if int(self.updates) == self.hparams["pretraining_updates"]:
                self._measure_before_game()
            if game and int(self.updates) % self.hparams["reward_every"] == 0:
                rollouts = self.roll_out(self._starts(rows))
                loss, parts = self.reward_loss(rows, rollouts)
                self._step(reward_optimizer.optimizer, loss, self.reward.parameters(), parts, "reward")
                self._average_reward()
                logged.update(parts)
            if not game or int(self.updates) % self.hparams["transition_every"] == 0:
                self._decay_rate(transition_optimizer.optimizer)
                loss, parts = self.transition_loss(rows, rollouts)
                self._step(transition_optimizer.optimizer, loss, self.transition.parameters(), parts, "transition")
                logged.update(parts)
            self.updates += 1
        for optimizer in (transition_optimizer, reward_optimizer):
            optimizer.optimizer.zero_grad(set_to_none=True)
        transition_optimizer.step()  # counts this training step for Lightning; no gradient is left to apply
        self._refuse_divergence(logged)
        self.log_dict({f"train/{name}": value for name, value in logged.items()})
        self.log("updates", self.updates.float(), prog_bar=True)

    def _starts(self, rows: dict[str, TensorDict]) -> TensorDict:
        """Start states of the batch's roll-outs, ``(starts,)``."""
        count = self.hparams["starts"]
        from_expert = round(count * self.hparams["expert_start_share"])
        return concatenate([rows["expert"][:from_expert], rows["all"][: count - from_expert]])

    @torch.no_grad()
    def roll_out(self, starts: TensorDict) -> TensorDict:
        """Roll-outs of H steps in the current model.

        Args:
            starts: ``observation`` and global ``row`` of the states they start in, ``(B, ...)``.

        Returns:
            The transitions of rows that were still alive, ``(N, ...)``: observation, action, next observation.
        """
        count, horizon = len(starts), self.hparams["horizon"]
        observation, row = starts["observation"], starts["row"]
        way = self.proposal.deal(count, observation.device)
        alive = torch.ones(count, dtype=torch.bool, device=observation.device)
        steps = []
        for step in range(horizon):
            recorded, running = self.recorded.following(row, step)  # type: ignore[union-attr]
            alive = alive & (running.to(alive.device) | (way != 0))
            action = self.proposal.act(way, observation, recorded.to(observation))
            mean, log_variance = self.transition.drawn(observation, action)
            delta = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            following = self.transition.next_observation(observation, delta)
            steps.append(
                TensorDict(
                    {"observation": observation, "action": action, "next_observation": following, "alive": alive},
                    batch_size=[count],
                )
            )
            alive = alive & ~self.termination(following)
            observation = following
        stacked = concatenate(steps)
        return stacked[stacked["alive"]]

    def reward_loss(self, rows: dict[str, TensorDict], rollouts: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Expert up, roll-outs down, slopes bounded, size bounded, and the margin of OffSim+."""
        settings = self.hparams
        expert = rows["expert"]
        expert_features = self.reward.features(expert["observation"], expert["action"], expert["next", "observation"])
        rollout_features = self.reward.features(
            rollouts["observation"], rollouts["action"], rollouts["next_observation"]
        )
        # As many roll-out rows as expert rows, so that interpolates pair up
        rollout_features = rollout_features[torch.randint(len(rollout_features), (len(expert_features),))]
        expert_reward, rollout_reward = self.reward.raw(expert_features), self.reward.raw(rollout_features)
        penalty = self.gradient_penalty(expert_features, rollout_features)
        squared = 0.5 * (expert_reward.square().mean() + rollout_reward.square().mean())
        loss = rollout_reward.mean() - expert_reward.mean()
        loss = loss + settings["gradient_penalty_weight"] * penalty + settings["l2_weight"] * squared
        parts = {
            "reward/expert": expert_reward.detach().mean(),
            "reward/rollout": rollout_reward.detach().mean(),
            "reward/gradient_penalty": penalty.detach(),
            "reward/squared": squared.detach(),
        }
        if settings["margin_weight"] > 0:
            diverse = rows["diverse"][: len(expert)]
            features = self.reward.features(diverse["observation"], diverse["action"], diverse["next", "observation"])
            diverse_reward = self.reward.raw(features)
            margin = functional.relu(settings["margin"] - (expert_reward[: len(diverse)] - diverse_reward)).mean()
            loss = loss + settings["margin_weight"] * margin
            parts |= {"reward/margin": margin.detach(), "reward/diverse": diverse_reward.detach().mean()}
        parts["reward/loss"] = loss.detach()
        return loss, parts

    def gradient_penalty(self, expert_features: Tensor, rollout_features: Tensor) -> Tensor:
        """Squared excess of the input gradient's norm over the target, at interpolates (one-sided WGAN-GP)."""
        share = torch.rand(len(expert_features), 1, device=expert_features.device)
        between = (share * expert_features + (1 - share) * rollout_features).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.reward.raw(between).sum(), between, create_graph=True)
        excess = functional.relu(gradient.norm(dim=-1) - self.hparams["gradient_penalty_target"])
        return excess.square().mean()

    def transition_loss(
        self, rows: dict[str, TensorDict], rollouts: TensorDict | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Likelihood of the data, reward of the model's own transitions, entropy."""
        settings = self.hparams
        dealt = self._deal_to_members(rows)
        mean, log_variance = self.transition(dealt["observation"], dealt["action"])
        target = self.transition.standardized_delta(dealt["observation"], dealt["next", "observation"])
        weights = bootstrap_weights(dealt["row"], self.transition.members)
        error = (mean - target).square()
        likelihood = 0.5 * (log_variance + error * (-log_variance).exp()).mean(dim=-1)
        negative_log_likelihood = (weights * likelihood).sum() / weights.sum()
        # The learned bounds are pulled together, so that they do not run away (PETS)
        bounds = 0.01 * (self.transition.log_variance_max - self.transition.log_variance_min).mean()
        loss = settings["likelihood_weight"] * negative_log_likelihood + bounds
        parts = {
            "transition/negative_log_likelihood": negative_log_likelihood.detach(),
            "transition/squared_error": error.detach().mean(),
        }
        if settings["entropy_weight"] > 0 and rollouts is not None:
            # Entropy of a diagonal Gaussian per feature, up to a constant
            entropy = 0.5 * log_variance.mean()
            loss = loss - settings["entropy_weight"] * entropy
            parts["transition/entropy"] = entropy.detach()
        if settings["adversarial_weight"] > 0 and rollouts is not None:
            own_reward = self._reward_of_own_transitions(rollouts)
            loss = loss - settings["adversarial_weight"] * own_reward
            parts["transition/own_reward"] = own_reward.detach()
        if isinstance(self.termination, LearnedTermination):
            every = rows["all"]
            ended = every["next", "terminated"].squeeze(-1).float()
            classification = functional.binary_cross_entropy_with_logits(
                self.termination.logits(every["next", "observation"]), ended
            )
            loss = loss + classification
            parts["termination/loss"] = classification.detach()
        parts["transition/loss"] = loss.detach()
        return loss, parts

    def _deal_to_members(self, rows: dict[str, TensorDict]) -> TensorDict:
        """A block of rows of its own for each member, ``(E, B)``, with the configured share of expert rows."""
        members, share = self.transition.members, self.hparams["expert_share"]
        block = rows["all"].shape[0] // members
        from_expert = min(round(share * block), rows["expert"].shape[0] // members)
        dealt = [rows["all"][: (block - from_expert) * members].reshape(members, -1)]
        if from_expert > 0:
            dealt.append(rows["expert"][: from_expert * members].reshape(members, -1))
        return concatenate(dealt, dim=1)

    def _reward_of_own_transitions(self, rollouts: TensorDict, rows: int = 256) -> Tensor:
        """Mean reward of transitions resampled from the model, differentiable in the model (reparameterised)."""
        chosen = rollouts[torch.randint(len(rollouts), (rows,))]
        observation, action = chosen["observation"], chosen["action"]
        mean, log_variance = self.transition.drawn(observation, action)
        delta = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        following = self.transition.next_observation(observation, delta)
        return self.reward.raw(self.reward.features(observation, action, following)).mean()

    def _step(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Any, parts: dict[str, Tensor], name: str
    ) -> None:
        # The adversarial term reaches the reward's parameters too: each step clears its own gradients first.
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        parts[f"{name}/gradient_norm"] = gradient_norm(list(parameters))
        optimizer.step()

    def _decay_rate(self, optimizer: torch.optim.Optimizer) -> None:
        final = self.hparams["transition_final_rate"]
        done = min(1.0, int(self.updates) / max(1, self.hparams["pretraining_updates"]))
        share = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = share * self.hparams["transition_learning_rate"]

    @torch.no_grad()
    def _average_reward(self) -> None:
        share = 1.0 - self.hparams["reward_average"]
        averaged: list[Tensor] = list(self.averaged_reward.network.parameters())
        current: list[Tensor] = list(self.reward.network.parameters())
        torch._foreach_lerp_(averaged, current, share)

    def _refuse_divergence(self, logged: dict[str, Tensor]) -> None:
        names = [name for name in logged if name.endswith("loss")]
        if not torch.isfinite(torch.stack([logged[name] for name in names])).all():
            broken = [name for name in names if not bool(torch.isfinite(logged[name]))]
            raise FloatingPointError(
                f"{broken[0]} is not finite after {int(self.updates)} updates; the last checkpoint is still good. "
                "Lower the learning rates or the adversarial weight, or check the data with a smaller range."
            )

    # -------------------------------------------------------------------------------------------------- validation

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        rollouts = self.roll_out(draw_starts(data, self.hparams["starts"], self.hparams["expert_start_share"]))
        rollouts["next", "observation"] = rollouts.pop("next_observation")
        sources = {"expert": data.expert_train, "rollout": rollouts, **self._held_out(batch)}
        for label, table in sources.items():
            rows = diagnostics.spread(table, REWARD_ROWS)
            reward = self.averaged_reward(rows["observation"], rows["action"], rows["next", "observation"])
            self.log(f"validation/reward/{label}", reward.mean(), batch_size=len(rows))
            for logger in self.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_histogram(f"reward/{label}", reward, int(self.updates))
        for label, table in self._held_out(batch).items():
            errors = diagnostics.transition_errors(self.transition, table, self.hparams["horizon"])
            errors |= {f"{key}_before_game": value for key, value in self.errors_before_game.get(label, {}).items()}
            for key, value in errors.items():
                self.log(f"validation/{label}/{key}", value, batch_size=len(table))

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """The figures of validation, for ``offsim test``."""
        self.validation_step(batch, batch_index)

    def predict_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, TensorDict]:
        """For each held-out table the mean next observation and the unscaled reward of the recorded transition."""
        predictions = {}
        for label, rows in self._held_out(batch).items():
            mean, _ = self.transition(rows["observation"], rows["action"])
            predictions[label] = TensorDict(
                {
                    "observation": self.transition.next_observation(rows["observation"], mean.mean(dim=0)),
                    "reward": self.averaged_reward(rows["observation"], rows["action"], rows["next", "observation"]),
                },
                batch_size=[len(rows)],
            )
        return predictions

    @staticmethod
    def _held_out(batch: dict[str, Any]) -> dict[str, TensorDict]:
        return {name: table for name, table in batch.items() if table is not None}

    def _measure_before_game(self) -> None:
        """Keep the held-out errors of the model that likelihood alone has made, to compare the game's with."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        held_out = {"expert_held_out": data.expert_held_out, "diverse_held_out": data.diverse_held_out}
        self.errors_before_game = {
            label: diagnostics.transition_errors(self.transition, table, self.hparams["horizon"])
            for label, table in self._held_out(held_out).items()
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["errors_before_game"] = self.errors_before_game

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.errors_before_game = checkpoint["errors_before_game"]

    # ------------------------------------------------------------------------------------------------- what comes out

    @torch.no_grad()
    def export(self, data: Any, rows: int = 10_000) -> Simulator:
        """Assemble the Simulator: averaged reward on its own scale, uncertainty calibrated on the training data.

        Args:
            data: the data module the stage was trained on.
            rows: expert and roll-out transitions used to set the reward's scale.
        """
        hyper = self.hparams
        reward = copy.deepcopy(self.averaged_reward)
        simulator = Simulator(
            transition=copy.deepcopy(self.transition),
            reward=reward,
            termination=copy.deepcopy(self.termination),
            start_states=StartStates.of(data.initial_observations),
            action_low=[float(value) for value in hyper["action_low"]],
            action_high=[float(value) for value in hyper["action_high"]],
            uncertainty=hyper["uncertainty"],
            task=hyper["task"],
        )
        expert = data.expert_train
        expert = expert[torch.randint(len(expert), (min(rows, len(expert)),))]
        collected: list[TensorDict] = []
        while sum(len(part) for part in collected) < rows:
            collected.append(self.roll_out(draw_starts(data, hyper["starts"], hyper["expert_start_share"])))
        rollouts = concatenate(collected)
        reward.standardize(
            reward.raw(reward.features(expert["observation"], expert["action"], expert["next", "observation"])),
            reward.raw(reward.features(rollouts["observation"], rollouts["action"], rollouts["next_observation"])),
            low_quantile=hyper["reward_low_quantile"],
            high_quantile=hyper["reward_high_quantile"],
        )
        tables = [table for table in (data.expert_train, data.diverse_train) if table is not None]
        observations = torch.cat([table["observation"] for table in tables])
        actions = torch.cat([table["action"] for table in tables])
        kept = torch.randint(len(observations), (min(20_000, len(observations)),))
        simulator.calibrate_uncertainty(observations[kept], actions[kept])
        return simulator.eval().requires_grad_(False)
