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
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from tensordict import TensorDict
from torch import Tensor

from datamodules.statistics import Statistics
from lit_modules import diagnostics
from lit_modules.forecasts import RecordedSteps, forecast_loss
from lit_modules.game_rollouts import GameRollOuts
from lit_modules.game_validation import REWARD_ROWS, held_out, log_game, predictions
from lit_modules.likelihood import recorded_likelihood
from lit_modules.margin import ADAPTIVE, adaptive_margins, margin_loss, reward_spread, source_margins
from lit_modules.method import Conversation, Descend, Follow, cosine_decay
from lit_modules.narrow_demonstrations import warn_of_narrow_demonstrations
from lit_modules.noise_calibration import CALIBRATED
from lit_modules.proposals import ActionProposal, RecordedActions
from lit_modules.ranges import refuse_outside
from lit_modules.reward_loss import adversarial_loss
from lit_modules.rows import (
    blocks,
    concatenate,
    draw_starts,
    pick_alive,
    require_streams,
)
from lit_modules.rows_per_update import refuse_too_few_for_game, refuse_too_few_for_members
from lit_modules.simulator_export import export_simulator
from lit_modules.spaces import refuse_other_task
from lit_modules.surroundings import in_expert_surroundings
from lit_modules.tuned_weight import TUNED, Tuning
from zoo.exogenous import CAPACITY
from zoo.policy import Policy
from zoo.reward import RewardModel
from zoo.simulator import Simulator, refuse_unknown_aggregation
from zoo.termination import LearnedTermination, RuleTermination, TerminationModel
from zoo.transition import TransitionModel
from zoo.uncertainty import measure

ENTROPY_TUNING = Tuning(start=1e-2, low=1e-4, high=0.9)  # at 1 the optimal variance is infinite
SLOWEST = 1e-4  # of an observation's deviation that the unit of its changes is at least
OWN_ROWS = 256  # transitions in the adversarial term of one update
# What nothing reads before the game: trainings that differ in these alone have their likelihood-only updates in common
GAME_SETTINGS = (
    "horizon",
    "starts",
    "expert_start_share",
    "proposal",
    "proposal_noise",
    "reward_every",
    "transition_every",
    "adversarial_weight",
    "entropy_weight",
    "entropy_gain",
    "entropy_learning_rate",
    "gradient_penalty_weight",
    "gradient_penalty_target",
    "l2_weight",
    "margin_weight",
    "margin",
    "reward_learning_rate",
    "reward_average",
    "uncertainty",
    "noise_scale",
    "aggregation",
    "reward_low_quantile",
    "reward_high_quantile",
)


class OffSim(GameRollOuts):
    """Train a Simulator from expert demonstrations and, for OffSim+, diverse data.

    The first ``pretraining_updates`` fit
    the transition model by likelihood alone; then reward and transition steps alternate.

    Args:
        observation_size: number of observation features.
        action_low: lower action bounds.
        action_high: upper action bounds.
        task: name of a known task, for its termination rule; ``None`` for a system of one's own.
        termination: ``rule``, ``learned`` or ``none``.
        members: members of the transition ensemble.
        transition_hidden_sizes: widths of the hidden layers of each member.
        transition_residual: whether each of them is added to the one before it; about as good as twice the updates.
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
        variance_weighting: power of the predicted variance, 0 to 1, that weighs each term of likelihood and entropy
            (Seitzer et al. 2022, "On the pitfalls of heteroscedastic uncertainty estimation"); 0 is plain likelihood.
        adversarial_weight: weight of the reward of the model's own transitions.
        entropy_weight: weight alpha of the entropy, per observation feature; ``tuned`` adapts it during the game.
        entropy_gain: with a tuned weight, how much more entropy per feature the model is to have, in nats, than
            likelihood alone gave it.
        entropy_learning_rate: speed of that adaptation.
        gradient_penalty_weight: weight of the gradient penalty.
        gradient_penalty_target: norm of the reward's input gradient above which it is penalised.
        l2_weight: weight of the mean squared reward.
        margin_weight: weight of OffSim+'s margin term; 0 is plain OffSim.
        margin: m, how much more reward expert transitions should have than diverse ones: a multiple of the reward's
            own spread, one for each diverse data set, or ``adaptive``; see ``lit_modules.margin``.
        transition_learning_rate: Adam's rate for the ensemble at the start.
        transition_warmup: updates over which that rate is reached.
        transition_final_rate: share of that rate which is left, after a cosine decay, when the game begins.
        transition_gradient_norm: norm to which larger gradients of the ensemble are scaled down; ``None`` leaves them.
            One row of which a member was too sure would otherwise undo what that member has learned.
        transition_weight_decay: decoupled weight decay of the ensemble.
        forecast_updates: how many of the updates before the game, the last of them, learn from forecasts of several
            steps as well, see ``lit_modules.forecasts``; 0 for none.
        forecast_steps: steps of these forecasts.
        forecast_weight: weight of their mean loss beside the likelihood.
        forecast_learning_rate: Adam's rate for the ensemble when they begin; it falls by a cosine to the final rate.
        reward_learning_rate: Adam's rate for the reward.
        reward_average: decay of the running average of the reward's weights; the average is what is kept, since
            the last iterate of a game circles its solution.
        noise_scale: share of the predicted deviation that the finished Simulator draws, see ``zoo.simulator``;
            ``calibrated`` takes what forecasts recorded episodes best, see ``lit_modules.noise_calibration``.
        aggregation: who moves an episode of the finished Simulator, see ``zoo.simulator``.
        reward_low_quantile: quantile of the roll-outs' reward that becomes the reward's lower bound.
        reward_high_quantile: quantile of the expert's reward that becomes its upper bound.
        compile: whether roll-outs and losses go through ``torch.compile``: ``never``, ``always``, or ``auto`` if there
            is a C++ compiler. It takes a minute at first, and less when it finds the last run's work in its cache.
        exogenous: numbers of the observation features that are set from outside, see ``zoo.exogenous``; ``None`` for
            those that the data names.
    """

    entropy_weight: Tensor
    target_entropy: Tensor

    remedy = "Lower the learning rates or the adversarial weight, or check the data with a smaller range."

    def __init__(
        self,
        observation_size: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        task: str | None = None,
        termination: str = "rule",
        members: int = 7,
        transition_hidden_sizes: Sequence[int] = (200, 200, 200, 200),
        transition_residual: bool = True,
        reward_hidden_sizes: Sequence[int] = (256, 256, 256),
        reward_uses_next_observation: bool = True,
        uncertainty: str = "disagreement",
        pretraining_updates: int = 10_000,
        horizon: int = 5,
        starts: int = 128,
        expert_start_share: float = 0.5,
        proposal: dict[str, float] | None = None,
        proposal_noise: float = 0.3,
        cloned_policy: str | None = None,
        reward_every: int = 1,
        transition_every: int = 4,
        expert_share: float = 0.125,
        likelihood_weight: float = 1.0,
        variance_weighting: float = 0.5,
        adversarial_weight: float = 0.01,
        entropy_weight: float | str = 0.01,
        entropy_gain: float = 0.0,
        entropy_learning_rate: float = 1e-2,
        gradient_penalty_weight: float = 10.0,
        gradient_penalty_target: float = 1.0,
        l2_weight: float = 1e-3,
        margin_weight: float = 0.0,
        margin: float | list[float] | str = 1.0,
        transition_learning_rate: float = 1e-2,
        transition_warmup: int = 200,
        transition_final_rate: float = 0.02,
        transition_gradient_norm: float | None = 0.3,
        transition_weight_decay: float = 5e-5,
        forecast_updates: int = 0,
        forecast_steps: int = 5,
        forecast_weight: float = 1.0,
        forecast_learning_rate: float = 2e-3,
        reward_learning_rate: float = 3e-4,
        reward_average: float = 0.999,
        noise_scale: float | str = CALIBRATED,
        aggregation: str = "random_member",
        reward_low_quantile: float = 0.5,
        reward_high_quantile: float = 0.5,
        compile: str = "never",
        exogenous: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        refuse_outside(self.hparams)
        measure(uncertainty)
        action_size = len(action_low)
        self.transition = TransitionModel(
            observation_size,
            action_size,
            members,
            transition_hidden_sizes,
            residual=transition_residual,
            exogenous=exogenous or (),
        )
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
        if isinstance(entropy_weight, str) and entropy_weight != TUNED:
            raise ValueError(f"unknown entropy_weight {entropy_weight!r}: choose a number or {TUNED}")
        # Tensors, not numbers: they differ between replicas that are trained together
        self.register_buffer("entropy_weight", ENTROPY_TUNING.initial(entropy_weight), persistent=False)
        self.register_buffer("target_entropy", torch.tensor(0.0), persistent=False)
        self.recorded: RecordedActions | None = None
        self.row_margins: Tensor | None = None
        refuse_unknown_aggregation(aggregation)
        if isinstance(noise_scale, str) and noise_scale != CALIBRATED:
            raise ValueError(f"unknown noise_scale {noise_scale!r}: choose a number or {CALIBRATED}")
        if forecast_updates > 0 and forecast_steps < 2:
            raise ValueError(f"forecast_steps is {forecast_steps}: a forecast of several steps has at least 2")
        if forecast_updates > pretraining_updates:
            raise ValueError(
                f"forecast_updates is {forecast_updates}: it counts updates before the game, of which there are "
                f"{pretraining_updates} (pretraining_updates)"
            )
        if isinstance(margin, str) and margin != ADAPTIVE:
            raise ValueError(
                f"unknown margin {margin!r}: choose a number, one for each diverse data set, or {ADAPTIVE}"
            )
        self.errors_before_game: dict[str, dict[str, Tensor]] = {}
        self.compile_functions(compile, "advance", "reward_objective", "transition_objective")

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
        if self.hparams["exogenous"] is None:
            said: Sequence[int] = getattr(data, "exogenous", ())
            self.transition.set_exogenous(said)
            self.hparams["exogenous"] = list(said)
        tables = [table for table in (data.expert_train, data.diverse_train) if table is not None]
        look_up = RecordedSteps if stage == "fit" and self.hparams["forecast_updates"] > 0 else RecordedActions
        self.recorded = look_up(tables, self.trainer.strategy.root_device)
        self.place_random_numbers(self.random)
        if stage != "fit":
            return  # everything below is in the checkpoint
        refuse_other_task(self.hparams["task"], data)
        require_streams(data, ["expert", "all"] + (["diverse"] if self.hparams["margin_weight"] > 0 else []))
        given, streams = self.hparams, data.streams
        refuse_too_few_for_members(given["members"], streams["all"])
        steps = self.trainer.max_steps  # -1: without end
        if steps < 0 or steps * data.batches_per_step > given["pretraining_updates"]:  # there will be a game
            refuse_too_few_for_game(given["starts"], given["expert_start_share"], streams["expert"], streams["all"])
        self.set_statistics(data.statistics)
        self.transition.set_range(data.statistics.next_observation_low, data.statistics.next_observation_high)
        if self.transition.recorded_changes is not None:
            changes = [
                [self.transition.exogenous_of(table[key][:CAPACITY]) for table in tables]
                for key in ("observation", ("next", "observation"))
            ]
            self.transition.recorded_changes.adopt(*(torch.cat(each) for each in changes))
        warn_of_narrow_demonstrations(data)
        if self.hparams["margin_weight"] > 0:
            self.row_margins = self._margins(data).to(self.random.device)
        data.release()

    def set_statistics(self, statistics: Statistics) -> None:
        """Standardise what the networks read and predict by the statistics of the training data."""
        # What stays the same within an episode, such as a goal, would else be given changes of the size of one unit
        delta_std = torch.maximum(statistics.delta_std, SLOWEST * statistics.observation_std)
        for model in (self.transition, self.reward, self.averaged_reward):
            model.observation_normalizer.set_statistics(statistics.observation_mean, statistics.observation_std)
            model.action_normalizer.set_statistics(statistics.action_mean, statistics.action_std)
            model.delta_normalizer.set_statistics(statistics.delta_mean, delta_std)
        if isinstance(self.termination, LearnedTermination):
            self.termination.normalizer.set_statistics(statistics.observation_mean, statistics.observation_std)

    def _margins(self, data: Any) -> Tensor:
        """The margin asked of each training row, ``(N,)``; none is asked of the demonstrations, which come first."""
        margin, expert, diverse = self.hparams["margin"], data.expert_train, data.diverse_train
        if margin != ADAPTIVE:
            return torch.cat([torch.zeros(len(expert)), source_margins(margin, data.diverse_source)])

        def features(table: TensorDict) -> Tensor:
            return self.reward.features(table["observation"], table["action"], table["next", "observation"]).cpu()

        slope = self.hparams["gradient_penalty_target"]
        surrounded = in_expert_surroundings(self.transition, diverse, expert)
        margins, _ = adaptive_margins(features(expert), expert["episode"], expert["step"], features(surrounded), slope)
        return torch.cat([torch.zeros(len(expert)), margins])

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

    def converse(self, batch: dict[str, TensorDict]) -> Conversation:
        logged: dict[str, Tensor] = {}
        dealt = self.deal(batch)
        rows = dealt.pop("row")  # only look-ups read it, and no function of tensors is to be made for it
        for index in range(batch["all"].shape[0]):
            game = self.updates >= self.hparams["pretraining_updates"]
            if self.updates == self.hparams["pretraining_updates"]:
                self._measure_before_game()
            rewarded = game and self.updates % self.hparams["reward_every"] == 0
            moved = not game or self.updates % self.hparams["transition_every"] == 0
            drawn: dict[str, Tensor] | None = None
            rollouts: dict[str, Tensor] | None = None
            if game and (rewarded or moved):
                drawn = self.draw({name: stream[index] for name, stream in batch.items()})
                rollouts = yield from self.simulate(drawn)
            if rewarded:
                parts = yield Descend(
                    "reward_objective",
                    (drawn, rollouts),
                    learning_rate=self.hparams["reward_learning_rate"],
                    optimizer=1,
                    gradient_norm="reward/gradient_norm",
                )
                logged.update(parts)
                average, current = self.averaged_reward.network.parameters(), self.reward.network.parameters()
                yield Follow(list(average), list(current), 1.0 - self.hparams["reward_average"])
            if moved:
                inputs = {name: column[index] for name, column in dealt.items()}
                if self._forecasting():
                    assert isinstance(self.recorded, RecordedSteps)
                    inputs |= self.recorded.after(rows[index], self.hparams["forecast_steps"] - 1)
                parts = yield Descend(
                    "transition_objective",
                    (inputs, drawn, rollouts),
                    learning_rate=self._transition_rate(),
                    gradient_norm="transition/gradient_norm",
                    largest_norm=self.hparams["transition_gradient_norm"],
                )
                logged.update(parts)
                if game and self.hparams["entropy_weight"] == TUNED:
                    self._tune_entropy(parts["transition/entropy"])
            self.updates += 1
        return logged

    def _tune_entropy(self, entropy: Tensor) -> None:
        """Raise alpha while the entropy is below its target, lower it above (Haarnoja et al. 2018, for the model)."""
        step = self.hparams["entropy_learning_rate"] * (self.target_entropy - entropy)
        ENTROPY_TUNING.follow(self.entropy_weight, step)

    def deal(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """Recorded rows for the transition model: a block of its own for each member, with its share of expert rows.

        Args:
            rows: streams ``expert`` and ``all``, ``(K, N)``.

        Returns:
            ``observation``, ``action``, ``next_observation``, bootstrap ``weight`` and ``row``, ``(K, E, B, ...)``;
            with a learned termination also ``reached`` and ``ended``, ``(K, N, ...)``.
        """
        members, expert, every = self.transition.members, rows["expert"], rows["all"]
        block = every.shape[1] // members
        from_expert = min(round(self.hparams["expert_share"] * block), expert.shape[1] // members)
        parts = [every[:, : (block - from_expert) * members], expert[:, : from_expert * members]]
        result = blocks(parts, members)
        if isinstance(self.termination, LearnedTermination):
            result["reached"] = every["next", "observation"]
            result["ended"] = every["next", "terminated"].squeeze(-1).float()
        return result

    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """What one round of the game consumes: recorded rows, and every random number.

        Args:
            rows: streams ``expert`` and ``all``, and ``diverse`` for the margin, ``(N,)``.

        Returns:
            What :meth:`draw_roll_outs` returns; ``expert_*`` and ``diverse_*`` columns; ``pick`` and ``share`` for
            the reward's loss; ``own_pick``, ``own_order`` and ``own_noise`` for the transition model's.
        """
        expert = rows["expert"]
        count = self.hparams["starts"]
        from_expert = round(count * self.hparams["expert_start_share"])
        starts = concatenate([expert[:from_expert], rows["all"][: count - from_expert]])
        drawn = self.draw_roll_outs(in_expert_surroundings(self.transition, starts, expert))
        streams = {"expert": expert}
        if self.hparams["margin_weight"] > 0:
            streams["diverse"] = in_expert_surroundings(self.transition, rows["diverse"][: len(expert)], expert)
        for name, stream in streams.items():
            drawn[f"{name}_observation"] = stream["observation"]
            drawn[f"{name}_action"] = stream["action"]
            drawn[f"{name}_next_observation"] = stream["next", "observation"]
        if self.hparams["margin_weight"] > 0:
            assert self.row_margins is not None
            drawn["margin"] = self.row_margins[rows["diverse"]["row"][: len(expert)]]
        return drawn | {
            "pick": self.random.uniform(len(expert)),
            "share": self.random.uniform(len(expert), 1),
            "own_pick": self.random.uniform(OWN_ROWS),
            "own_order": self.transition.deal(OWN_ROWS, self.random.generator, self.random.device),
            "own_noise": self.random.normal(OWN_ROWS, self.transition.observation_size),
        }

    def draw_starts(self, data: Any) -> TensorDict:
        """Recorded states as those that roll-outs of the game start in, ``observation`` and ``row``, ``(B, ...)``."""
        starts = draw_starts(data, self.hparams["starts"], self.hparams["expert_start_share"], self.random)
        if not self.transition.exogenous:
            return starts
        expert = data.expert_train
        drawn = expert[self.random.integers(len(expert), len(starts)).to(expert.device)]
        return in_expert_surroundings(self.transition, starts, drawn)

    def reward_objective(
        self, drawn: dict[str, Tensor], rollouts: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Expert up, roll-outs down, slopes bounded, size bounded, and the margin of OffSim+.

        Args:
            drawn: what :meth:`draw` returned.
            rollouts: what :meth:`simulate` returned.
        """
        settings = self.hparams
        expert_features = self.reward.features(
            drawn["expert_observation"], drawn["expert_action"], drawn["expert_next_observation"]
        )
        # As many roll-out rows as expert rows, so that interpolates pair up
        picked = pick_alive(rollouts, drawn["pick"])
        rollout_features = self.reward.features(picked["observation"], picked["action"], picked["next_observation"])
        loss, expert_reward, rollout_reward, parts = adversarial_loss(
            self.reward,
            expert_features,
            rollout_features,
            drawn["share"],
            settings["gradient_penalty_weight"],
            settings["gradient_penalty_target"],
            settings["l2_weight"],
        )
        if settings["margin_weight"] > 0:
            features = self.reward.features(
                drawn["diverse_observation"], drawn["diverse_action"], drawn["diverse_next_observation"]
            )
            diverse_reward = self.reward.raw(features)
            # Adaptive margins are in reward, the others in multiples of its spread
            unit = 1.0 if settings["margin"] == ADAPTIVE else reward_spread(expert_reward, rollout_reward)
            margin = unit * drawn["margin"]
            shortfall = margin_loss(expert_reward[: len(diverse_reward)], diverse_reward, margin)
            loss = loss + settings["margin_weight"] * shortfall
            parts |= {
                "reward/margin": margin.mean(),
                "reward/margin_shortfall": shortfall.detach(),
                "reward/diverse": diverse_reward.detach().mean(),
            }
        parts["reward/loss"] = loss.detach()
        return loss, parts

    def transition_objective(
        self,
        inputs: dict[str, Tensor],
        drawn: dict[str, Tensor] | None = None,
        rollouts: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Likelihood of the data, and in the game the reward of the model's own transitions and entropy.

        Args:
            inputs: what :meth:`deal` returned for one update; with forecasts also what comes after its rows.
            drawn: what :meth:`draw` returned; ``None`` before the game.
            rollouts: what :meth:`simulate` returned; ``None`` before the game.
        """
        settings = self.hparams
        likelihood = recorded_likelihood(self.transition, inputs, settings["variance_weighting"])
        loss, parts = settings["likelihood_weight"] * likelihood.loss, likelihood.logged()
        if "later_action" in inputs:
            first = self.transition.next_observation(
                inputs["observation"],
                likelihood.mean,
                exogenous=self.transition.exogenous_of(inputs["next_observation"]),
            )
            forecasts = forecast_loss(self.transition, first, inputs)
            loss = loss + settings["forecast_weight"] * forecasts
            parts["transition/forecasts"] = forecasts.detach()
        if drawn is not None and rollouts is not None:
            if settings["entropy_weight"] != 0:
                # Entropy of a diagonal Gaussian per feature, up to a constant; in the likelihood's own unit
                entropy = 0.5 * likelihood.log_variance.mean()
                loss = loss - self.entropy_weight * (0.5 * likelihood.weighting * likelihood.log_variance).mean()
                parts |= {"transition/entropy": entropy.detach(), "transition/entropy_weight": self.entropy_weight}
            if settings["adversarial_weight"] > 0:
                own_reward = self._reward_of_own_transitions(drawn, rollouts)
                loss = loss - settings["adversarial_weight"] * own_reward
                parts["transition/own_reward"] = own_reward.detach()
        if isinstance(self.termination, LearnedTermination):
            classification = functional.binary_cross_entropy_with_logits(
                self.termination.logits(inputs["reached"]), inputs["ended"]
            )
            loss = loss + classification
            parts["termination/loss"] = classification.detach()
        parts["transition/loss"] = loss.detach()
        return loss, parts

    def _reward_of_own_transitions(self, drawn: dict[str, Tensor], rollouts: dict[str, Tensor]) -> Tensor:
        """Mean reward of transitions resampled from the model, differentiable in the model."""
        picked = pick_alive(rollouts, drawn["own_pick"])
        observation, action = picked["observation"], picked["action"]
        following = self.sample(observation, action, drawn["own_order"], drawn["own_noise"])
        return self.reward.raw(self.reward.features(observation, action, following)).mean()

    def _forecasting(self) -> bool:
        """Whether this update learns from forecasts of several steps as well."""
        last, count = self.hparams["pretraining_updates"], self.hparams["forecast_updates"]
        return bool(last - count <= self.updates < last)

    def _transition_rate(self) -> float:
        """Learning rate of the transition model now."""
        settings = self.hparams
        start, final = settings["transition_learning_rate"], settings["transition_final_rate"]
        alone = settings["pretraining_updates"] - settings["forecast_updates"]
        share = cosine_decay(self.updates / max(1, alone), final)
        if self._forecasting():  # from a rate of its own down to the same final one
            own = settings["forecast_learning_rate"] / start
            share = own * cosine_decay((self.updates - alone) / settings["forecast_updates"], min(1.0, final / own))
        share *= min(1.0, (self.updates + 1) / max(1, settings["transition_warmup"]))
        return float(share * start)

    # -------------------------------------------------------------------------------------------------- validation

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        log_game(self, batch)

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """The figures of validation, for ``offsim test``."""
        log_game(self, batch)

    def predict_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, TensorDict]:
        """For each held-out table the mean next observation and the unscaled reward of the recorded transition."""
        return predictions(self, batch)

    def _measure_before_game(self) -> None:
        """Keep the held-out errors and the entropy of the model that likelihood alone has made."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        tables = {"expert_held_out": data.expert_held_out, "diverse_held_out": data.diverse_held_out}
        self.errors_before_game = {
            label: diagnostics.transition_errors(self.transition, table.to(self.device), self.hparams["horizon"])
            for label, table in held_out(tables).items()
        }
        recorded = [table for table in (data.expert_train, data.diverse_train) if table is not None]
        whole = sum(len(table) for table in recorded)
        rows = concatenate([diagnostics.spread(each, REWARD_ROWS * len(each) // whole + 1) for each in recorded])
        with torch.no_grad():
            _, log_variance = self.transition(rows["observation"].to(self.device), rows["action"].to(self.device))
        self.target_entropy.copy_(0.5 * log_variance.mean() + self.hparams["entropy_gain"])
        data.release()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["errors_before_game"] = self.errors_before_game
        checkpoint["entropy"] = [self.entropy_weight.clone(), self.target_entropy.clone()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.errors_before_game = checkpoint["errors_before_game"]
        if self.updates <= self.hparams["pretraining_updates"]:
            return  # another training may have left it, with another weight
        for kept, saved in zip((self.entropy_weight, self.target_entropy), checkpoint["entropy"], strict=True):
            kept.copy_(saved)

    # ------------------------------------------------------------------------------------------------- what comes out

    def export(self, data: Any, rows: int = 10_000) -> Simulator:
        """The Simulator that was learned, see :func:`lit_modules.simulator_export.export_simulator`."""
        return export_simulator(self, data, rows)
