"""What every learner of the policy stage shares: the frozen Simulator, what is paid in it, what comes out, validation.

The real system appears only as recorded rows; their reward is the learned one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.behaviour_cloning import cloning_loss, refuse_unknown_form
from lit_modules.cloned_start import ClonedStart
from lit_modules.hold import ALWAYS, KNOWN, LET_GO
from lit_modules.parallel import averaged
from lit_modules.ranges import refuse_outside
from lit_modules.rows import require_streams
from lit_modules.spaces import refuse_other_spaces
from lit_modules.tuned_weight import TUNED, Tuning
from zoo.dynamics_reward import DynamicsReward
from zoo.policy import Policy
from zoo.simulator import BY_ONE_MEMBER, Simulator

PENALTY, FADING = "penalty", "fading"
EXPLODED = 100.0  # times what rewards can add up to; what doubt and entropy add stays far below
PENALTY_TUNING = Tuning(start=0.3, low=1e-3, high=30.0)


class SimulatorPolicy(ClonedStart):
    """A policy trained inside a frozen Simulator; how it learns is the subclass's.

    Args:
        simulator: file of a Simulator.
        observation_size: number of observation features of the data, compared with the Simulator's if given.
        action_low: lower action bounds of the data, likewise.
        action_high: upper action bounds of the data, likewise.
        cloned_policy: file of a behaviour-cloned policy to start from; ``None`` starts from scratch.
        hidden_sizes: widths of the critics, and of the actor if it starts from scratch.
        horizon: steps of a roll-out.
        starts: roll-outs per refresh.
        expert_start_share: share of roll-outs that start in expert states.
        initial_start_share: share that starts where episodes begin; the rest start anywhere in the data.
        noise_scale: share of the predicted deviation that roll-outs draw; ``None`` as much as the Simulator does of its
            own. A policy that has met more than is likely falls less often.
        aggregation: ``random_member``: at each step of a roll-out another member moves it; ``fixed_member``: the same
            at all of them, so that the policy has to master what each takes for the system, errors and all; ``None``:
            as the Simulator does of its own.
        gamma: discount.
        reward_scale: kappa, multiplies the Simulator's reward (expert mean 1), so that values are of order
            ``kappa / (1 - gamma)``.
        uncertainty_weight: lambda_u, what a unit of uncertainty costs, in units of the median uncertainty on the data;
            ``tuned`` raises it while roll-outs are more uncertain than ``uncertainty_budget``, and lowers it otherwise.
        uncertainty_form: ``penalty``: it is taken off the reward, without end; ``fading``: what a transition pays
            beyond an average one fades as ``exp(-lambda_u U)``, so that good is believed where it is known, bad
            everywhere, and being sure where nothing is earned is worth nothing.
        uncertainty_tolerance: uncertainty that costs nothing, in the same units.
        uncertainty_budget: mean uncertainty of roll-outs that a tuned weight aims at, in the same units.
        uncertainty_rate: how fast it is tuned: share of its size per unit of excess, at each refresh.
        uncertainty_cut: level of the data's uncertainty quantile above which a roll-out ends as if it had died
            (Kidambi et al. 2020, MOReL); ``None`` never ends it.
        dynamics_reward: file of a dynamics reward (``lit_modules.dynamics_reward``) of that Simulator, which is then a
            filter of what roll-outs learn from; ``None``: there is none.
        dynamics_threshold: dynamics reward below which a transition is taken for an error of the model, and ends its
            roll-out as if it had died; the least that there is is 0.31, so that 0 ends none.
        dynamics_temperature: kappa, by which learners from a replay buffer choose among ``candidates``: with a chance
            of ``exp(r_D / kappa)``; at 0 the one of the highest dynamics reward.
        cloning_weight: lambda, weight of the regulariser towards demonstrated actions.
        cloning_form: ``mse`` or ``log_likelihood``.
        decay_updates: updates over which the actor's rate falls to ``actor_final_rate`` (cosine); ``None`` keeps it.
        critic_share: share of these at first in which the actor waits, and the critics learn what the cloned policy is
            worth: from critics that know nothing it learns to leave what was cloned.
        actor_final_rate: share of the actor's rate that is left then.
        policy_average: decay of the running average of the actor's weights, which is the policy that comes out.
        join_cloned: that policy is averaged, network by network, with the cloned one it started from, if that one has
            at least this share of its return in the Simulator; ``None`` never joins them. What a policy has learned
            where the simulator is wrong the cloned one has not; but one that fails spoils what the policy has learned.
        loosen_below: share of the demonstrations' learned return (of their length, where the reward is yet to be
            learned) below which the cloned policy fails in the Simulator, and is let go of: what holds the learner to
            it is loosened, learners from a replay buffer leave out pushes and the choice among next states, and the
            two policies are joined only if that returns more there. ``None`` never lets go.
        let_go: of which cloned policies: ``failing``, no others; ``known``, any, where the Simulator can know what is
            beside the demonstrations, that is with diverse data, demonstrations that do not repeat one another, and a
            reward of its own; ``always``, any.
        let_go_updates: with ``known``, training that has fewer (``decay_updates``) lets go of failing ones alone: it
            only begins to replace what was cloned.
        loosened_hold: share of the holds' weights that is left then.
        judged_episodes: episodes in the Simulator by which that is judged.
        snapshot_every: updates between snapshots of that policy; 0 keeps none.
        snapshots: folder for the snapshots.
        validation_episodes: episodes in the Simulator per validation.
        validation_horizon: steps after which such an episode is truncated, if the task's, or the longest
            demonstration's, is not shorter: what comes after it is in no data.
        compile: whether the losses go through ``torch.compile``: ``never``, ``always``, or ``auto`` if there
            is a C++ compiler. It takes half a minute at first, and less when it finds the last run's work in its cache.
    """

    streams: ClassVar[tuple[str, ...]] = ("expert", "all")  # of the data, that an update reads

    loss: Any  # the subclass's, with the ``normalizer`` of what its critics see

    # Buffers, not numbers: they differ between replicas that are trained together
    end_reward: Tensor
    end_value: Tensor
    cut: Tensor
    uncertainty_unit: Tensor
    uncertainty_weight: Tensor

    remedy = "Lower the learning rates or reward_scale."

    def __init__(
        self,
        simulator: str,
        observation_size: int | None = None,
        action_low: Sequence[float] | None = None,
        action_high: Sequence[float] | None = None,
        cloned_policy: str | None = None,
        hidden_sizes: Sequence[int] = (256, 256),
        horizon: int = 50,
        starts: int = 400,
        expert_start_share: float = 0.5,
        initial_start_share: float = 0.0,
        noise_scale: float | None = 1.0,
        aggregation: str | None = None,
        gamma: float = 0.99,
        reward_scale: float = 0.1,
        uncertainty_weight: float | str = 0.5,
        uncertainty_form: str = "fading",
        uncertainty_tolerance: float = 1.0,
        uncertainty_budget: float = 1.0,
        uncertainty_rate: float = 0.1,
        uncertainty_cut: float | None = None,
        dynamics_reward: str | None = None,
        dynamics_threshold: float = 0.0,
        dynamics_temperature: float = 0.1,
        cloning_weight: float = 500.0,
        cloning_form: str = "mse",
        decay_updates: int | None = None,
        critic_share: float = 0.15,
        actor_final_rate: float = 0.1,
        policy_average: float = 0.999,
        join_cloned: float | None = 0.5,
        loosen_below: float | None = 0.8,
        let_go: str = KNOWN,
        let_go_updates: int = 20_000,
        loosened_hold: float = 0.01,
        judged_episodes: int = 100,
        snapshot_every: int = 0,
        snapshots: str = "snapshots",
        validation_episodes: int = 20,
        validation_horizon: int = 1000,
        compile: str = "never",
    ) -> None:
        super().__init__()
        if expert_start_share + initial_start_share > 1.0:
            raise ValueError(
                f"expert_start_share {expert_start_share} and initial_start_share {initial_start_share} are shares of "
                "the same roll-outs: together they may not exceed 1"
            )
        if isinstance(uncertainty_weight, str) and uncertainty_weight != TUNED:
            raise ValueError(f"uncertainty_weight is {uncertainty_weight!r}: give a number, or {TUNED}")
        if uncertainty_form not in (PENALTY, FADING):
            raise ValueError(f"unknown uncertainty_form {uncertainty_form!r}: choose {PENALTY} or {FADING}")
        if let_go not in LET_GO:
            raise ValueError(f"unknown let_go {let_go!r}: choose {', '.join(LET_GO)}")
        if let_go == ALWAYS and loosen_below is None:
            raise ValueError(f"let_go is {ALWAYS}, and loosen_below null, which lets go of none: give it a number")
        if aggregation not in (None, *BY_ONE_MEMBER):
            raise ValueError(f"unknown aggregation {aggregation!r}: choose {' or '.join(BY_ONE_MEMBER)}, or null")
        # Of the subclasses' constructors as well
        self.save_hyperparameters()
        refuse_outside(self.hparams)
        refuse_unknown_form(cloning_form)
        self.simulator = Simulator.load(simulator)
        if not (self.simulator.reward_learned or self.learns_reward or self.control):
            raise ValueError(
                "the reward of the simulator was never trained: give its stage more updates than its "
                "pretraining_updates, or choose the method OfflineMLIRL, which learns a reward of its own"
            )
        if aggregation is not None and self.simulator.aggregation == "mean":
            raise ValueError(
                f"the simulator is moved by the mean of its members, so no single one can move roll-outs: leave "
                f"aggregation {aggregation} out, or give the simulator another aggregation"
            )
        refuse_other_spaces(self.simulator, observation_size, action_low, action_high)
        self.dynamics_reward = self._load_dynamics_reward()
        self.policy = self._starting_policy(cloned_policy, hidden_sizes)
        self.averaged_policy = copy.deepcopy(self.policy).requires_grad_(False)
        self.keep_cloned(None if cloned_policy is None else copy.deepcopy(self.averaged_policy))
        self.register_buffer("end_reward", torch.zeros(()), persistent=False)
        self.register_buffer("end_value", torch.zeros(()), persistent=False)
        self.price_ends()
        cut = torch.inf if uncertainty_cut is None else self.simulator.uncertainty_quantile(uncertainty_cut)
        self.register_buffer("cut", torch.tensor(cut), persistent=False)
        unit = self.simulator.uncertainty_quantile(0.5) or 1.0  # a single member never disagrees
        self.register_buffer("uncertainty_unit", torch.tensor(unit), persistent=False)
        self.register_buffer("uncertainty_weight", PENALTY_TUNING.initial(uncertainty_weight), persistent=False)

    def _load_dynamics_reward(self) -> DynamicsReward | None:
        if self.hparams["dynamics_reward"] is None:
            return None
        loaded = DynamicsReward.load(self.hparams["dynamics_reward"])
        sizes = (loaded.observation_size, loaded.action_size)
        if sizes != (self.simulator.observation_size, self.simulator.action_size):
            raise ValueError(
                f"the dynamics reward is of {sizes[0]} observation and {sizes[1]} action features, and the simulator "
                f"has {self.simulator.observation_size} and {self.simulator.action_size}: name the one learned for it"
            )
        return loaded

    def price_ends(self) -> None:
        """Have ending pay what it is worth in the Simulator, for ever.

        As a rule that is the reward's lower bound, so nothing is worse than ending: an all-positive reward cannot pay
        for survival alone, nor an all-negative one for dying, whatever constant is added to it.
        """
        self.end_reward.fill_(self.simulator.end_worth())
        self.end_value.copy_(self.end_reward * self.hparams["reward_scale"] / (1.0 - self.hparams["gamma"]))

    @property
    def value_range(self) -> tuple[float, float]:
        """What every sum of discounted rewards is known to lie between, because rewards are clipped."""
        largest_sum = self.hparams["reward_scale"] / (1.0 - self.hparams["gamma"])
        reward = self.simulator.reward
        return largest_sum * float(reward.low), largest_sum * float(reward.high)

    @property
    def critic_range(self) -> tuple[float, float]:
        """What critics are bounded by: as rewards are, but without a lower bound where a penalty is taken off them."""
        low, high = self.value_range
        return (-math.inf if self.penalised else low), high

    @property
    def penalised(self) -> bool:
        """Whether critics are told less than what rewards add up to."""
        return bool(self.hparams["uncertainty_form"] == PENALTY and self.hparams["uncertainty_weight"] != 0.0)

    def refuse_divergence(self, logged: dict[str, Tensor]) -> None:
        """Also where critics promise what no rewards add up to, long before that is not finite."""
        super().refuse_divergence(logged)
        largest = max(map(abs, self.value_range))
        if "value" in logged and abs(float(logged["value"])) > EXPLODED * largest:
            raise self.divergence(f"the critics expect {float(logged['value']):.3g}, rewards add up to {largest:.3g},")

    def _starting_policy(self, cloned_policy: str | None, hidden_sizes: Sequence[int]) -> Policy:
        if cloned_policy is not None:
            policy = Policy.load(cloned_policy)
            policy.network.requires_grad_(True)
            return policy.train()
        simulator = self.simulator
        policy = Policy(simulator.observation_size, simulator.action_low, simulator.action_high, hidden_sizes)
        policy.normalizer.load_state_dict(simulator.transition.observation_normalizer.state_dict())
        return policy

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        require_streams(self.trainer.datamodule, self.streams)  # type: ignore[attr-defined]
        self.loss.normalizer.load_state_dict(self.simulator.transition.observation_normalizer.state_dict())
        self.place_random_numbers(self.random)

    # ----------------------------------------------------------------------------------------------- in the Simulator

    def heed_roll_outs(self, columns: dict[str, Tensor], alive: Tensor, **others: Tensor) -> dict[str, Tensor]:
        """Tune the penalty to the roll-outs that :meth:`simulate` returned; what is logged of them, with others."""
        uncertainty = columns["uncertainty"][alive]
        figures = {
            "rollout/mean_length": alive.sum() / alive.shape[1],
            "rollout/untrusted": (uncertainty > self.cut).float().mean(),
            "rollout/uncertainty": uncertainty.mean(),
            **{f"rollout/{name}": value for name, value in others.items()},
        }
        if self.dynamics_reward is not None:
            rewards = columns["dynamics_reward"][alive]
            figures["rollout/dynamics_reward"] = rewards.mean()
            figures["rollout/implausible"] = (rewards < self.hparams["dynamics_threshold"]).float().mean()
        if self.parallel:
            figures = dict(zip(figures, averaged(list(figures.values())), strict=True))
        if self.hparams["uncertainty_weight"] == TUNED:
            excess = figures["rollout/uncertainty"] / self.uncertainty_unit - self.hparams["uncertainty_budget"]
            PENALTY_TUNING.follow(self.uncertainty_weight, self.hparams["uncertainty_rate"] * excess)
        return {**figures, "rollout/uncertainty_weight": self.uncertainty_weight.clone()}

    @property
    def doubtful_reward(self) -> Tensor:
        """What fading rewards fade to: what ending pays, which earns nothing."""
        return self.end_reward

    @torch.no_grad()
    def batch_reward(self, inputs: dict[str, Tensor]) -> Tensor:
        """What each transition pays, ``(B,)``: scaled learned reward, less doubt, and the value of ends."""
        given = self.hparams
        reward = self.simulator.reward(inputs["observation"], inputs["action"], inputs["next_observation"])
        excess = (inputs["uncertainty"] / self.uncertainty_unit - given["uncertainty_tolerance"]).clamp_min(0.0)
        cost = self.uncertainty_weight * excess
        if given["uncertainty_form"] == FADING:
            level = self.doubtful_reward
            reward = torch.minimum(reward, level + (reward - level) * (-cost).exp())
        else:
            reward = reward - cost
        return given["reward_scale"] * reward + given["gamma"] * self.end_value * inputs["terminated"]

    def propose(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """The actor on a batch and on the demonstrations that it is held to, in one forward pass.

        Args:
            inputs: ``observation`` ``(B, D)``; ``expert_observation`` and ``expert_action`` ``(N, ...)``.

        Returns:
            Location and scale on the batch, ``(B, A)``, and the regulariser L_cloning, ``None`` without a weight.
        """
        observation = inputs["observation"]
        if not self.hparams["cloning_weight"] > 0:
            return (*self.policy(observation), None)
        size = observation.shape[0]
        location, scale = self.policy(torch.cat([observation, inputs["expert_observation"]]))
        cloning = cloning_loss(
            self.policy, location[size:], scale[size:], inputs["expert_action"], self.hparams["cloning_form"]
        )
        return location[:size], scale[:size], cloning

    def add_cloning(
        self, total: Tensor, logged: dict[str, Tensor], cloning: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss and what is logged of it, with the regulariser that :meth:`propose` returned."""
        if cloning is None:
            return total, logged
        return total + self.hparams["cloning_weight"] * self.hold * cloning, {**logged, "cloning": cloning.detach()}

    def actor_rate(self) -> float:
        """The actor's learning rate now."""
        given = self.hparams
        if given["decay_updates"] is not None and self.updates < given["critic_share"] * given["decay_updates"]:
            return 0.0
        return self.decayed_rate(given["actor_learning_rate"], given["decay_updates"], given["actor_final_rate"])

    def unlearned_until(self, updates: int) -> str:
        waiting = self.hparams["critic_share"] * (self.hparams["decay_updates"] or 0)
        return "" if updates > waiting else ", before the actor has begun to learn (critic_share)"

    def _keep_snapshot(self) -> Path | None:
        """Save what would come out now, when it is time; its file."""
        every = self.hparams["snapshot_every"]
        if every == 0 or self.updates % every != 0 or not self.trainer.is_global_zero:
            return None
        file = Path(self.hparams["snapshots"]) / f"{self.updates:08d}.safetensors"
        self.finished_policy(self.trainer.datamodule).save(file)  # type: ignore[attr-defined]
        return file

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["uncertainty_weight"] = self.uncertainty_weight.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.uncertainty_weight.copy_(checkpoint["uncertainty_weight"])

    # ---------------------------------------------------------------------------------------------------- validation

    @torch.no_grad()
    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        policy = self.finished_policy(self.trainer.datamodule)  # type: ignore[attr-defined]
        for name, value in self.returns_in(self.judging_simulator, policy)[0].items():
            self.log(f"validation/{name}", value, batch_size=1, sync_dist=True)

    def test_step(self, batch: dict[str, TensorDict], batch_index: int) -> None:
        """The figures of validation, for ``offsim test``."""
        self.validation_step(batch, batch_index)

    def predict_step(self, batch: dict[str, TensorDict], batch_index: int) -> dict[str, Tensor]:
        """The policy's actions ``(N, A)`` on each held-out table."""
        policy = self.finished_policy(self.trainer.datamodule)  # type: ignore[attr-defined]
        return {name: policy.act(table["observation"]) for name, table in batch.items()}
