"""Learning from a replay buffer that roll-outs in the frozen Simulator fill."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as functional
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from lit_modules.critic import QNetwork
from lit_modules.method import Compute, Conversation
from lit_modules.random_stream import RandomStream
from lit_modules.rows_per_update import recorded_rows, refuse_too_few_for_policy, simulated_rows
from lit_modules.simulator_policy import SimulatorPolicy
from zoo.policy import Policy

PUSH = 1e3  # noise that takes any action to its bound
SMALLEST = 1e-12  # of uniform numbers whose logarithm is taken
AGREEMENT, DOUBT = "agreement", "doubt"


class ReplayLearner(SimulatorPolicy):
    """An off-policy learner: roll-outs now and then, and between them updates on replayed and recorded transitions.

    Args:
        simulator: file of a Simulator.
        critics: critics in the ensemble; the smallest value counts.
        layer_norm: layer normalisation in the critics.
        replayed_start_share: share of roll-outs that go on from simulated states of the replay buffer, so that what
            happens long after a recorded state is seen without longer roll-outs. The other shares of starts are shares
            of the rest.
        push_share: share of roll-outs in which, at some time, each action is thrown to one of its bounds at random, for
            ``push_steps`` steps: a stumble that the model can follow, from which the policy learns to recover. Its own
            stumbles are too rare to learn from.
        push_steps: steps of such a push.
        candidates: next states drawn at each step of a roll-out, of which the one that the critics value least is
            taken; 1 takes the Simulator as it is. Where members agree and are sure, candidates are alike; where they
            do not, the policy cannot count on the one that suits it. An adversary that needs no training, in the
            place of one that changes the model (Rigter et al. 2022, "RAMBO-RL"). With a ``dynamics_reward`` that
            chooses instead, of all of them also where the cloned policy is let go of.
        refresh_every: updates between refreshes of the replay buffer.
        buffer_size: simulated transitions kept; the oldest are dropped.
        batch_size: transitions per update.
        real_share: share of recorded transitions in each batch, half of them from the demonstrations.
        anchor_weight: weight of the squared distance from the cloned policy's action, if there is one, in half action
            ranges, times how much that one is to be held on to in a state (``anchor_form``).
        anchor_form: ``agreement``: where the cloned policy's networks agree, which is beside the demonstrations, where
            it is right and a simulator's small errors decide whether a gait is stable; the policy improves where
            each of them does something else. One network alone is not held on to. ``doubt``: in simulated states, times
            the Simulator's uncertainty there in medians of the data's.
        anchor_tolerance: how far these networks may be apart to agree: the hold falls to 1/e where their actions'
            root-mean-square deviation from their mean is this many half action ranges.
        tau: share of the critics mixed into their targets after each update.
        actor_learning_rate: Adam's rate for the actor.
        critic_learning_rate: Adam's rate for the critics.
        settings: arguments of ``SimulatorPolicy``.
    """

    def __init__(
        self,
        simulator: str,
        critics: int = 2,
        layer_norm: bool = True,
        replayed_start_share: float = 0.0,
        push_share: float = 0.25,
        push_steps: int = 3,
        candidates: int = 2,
        refresh_every: int = 500,
        buffer_size: int = 100_000,
        batch_size: int = 256,
        real_share: float = 0.5,
        anchor_weight: float = 500.0,
        anchor_form: str = AGREEMENT,
        anchor_tolerance: float = 0.1,
        tau: float = 0.005,
        actor_learning_rate: float = 1e-4,
        critic_learning_rate: float = 3e-4,
        **settings: Any,
    ) -> None:
        super().__init__(simulator, **settings)
        if anchor_form not in (AGREEMENT, DOUBT):
            raise ValueError(f"unknown anchor_form {anchor_form!r}: choose {AGREEMENT} or {DOUBT}")
        self.anchor = self._load_anchor()
        self.replay_random = RandomStream(torch.initial_seed(), "replay")
        self._make_replay()

    def _load_anchor(self) -> Policy | None:
        """The cloned policy, if there is one to hold on to: a single network always agrees with itself."""
        given = self.hparams
        if given["anchor_weight"] == 0.0 or given["cloned_policy"] is None:
            return None
        anchor = Policy.load(given["cloned_policy"]).requires_grad_(False)
        return anchor if anchor.members > 1 or given["anchor_form"] == DOUBT else None

    @property
    def simulated_rows(self) -> int:
        """Simulated transitions in a batch, its first rows."""
        return simulated_rows(self.hparams["batch_size"], self.hparams["real_share"])

    def make_critic(self) -> QNetwork:
        """One critic of the ensemble."""
        return QNetwork(
            self.policy.observation_size,
            self.policy.action_size,
            self.hparams["hidden_sizes"],
            layer_norm=self.hparams["layer_norm"],
        )

    def _make_replay(self) -> None:
        self.replay = TensorDictReplayBuffer(
            storage=LazyTensorStorage(self.hparams["buffer_size"], device=self.random.device)
        )
        # Apart from the noise, so that neither depends on how many updates are drawn for at once
        self.replay.set_rng(self.replay_random.generator)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        streams = self.trainer.datamodule.streams  # type: ignore[attr-defined]
        refuse_too_few_for_policy(
            self.hparams["batch_size"], self.hparams["real_share"], streams["expert"], streams["all"]
        )
        # The same memory as the networks', so that no transition crosses to the host and back
        self.place_random_numbers(self.replay_random)
        self._make_replay()

    # ------------------------------------------------------------------------------------------------------ training

    def converse(self, batch: dict[str, TensorDict]) -> Conversation:
        logged = self.judge_cloned()
        count, first, every = batch["all"].shape[0], 0, self.hparams["refresh_every"]
        while first < count:
            if self.updates % every == 0 or len(self.replay) == 0:
                logged.update((yield from self.roll_out()))
            last = min(count, first + every - self.updates % every)
            inputs = self.draw({name: stream[first:last] for name, stream in batch.items()})
            for index in range(last - first):
                logged.update((yield from self.update({name: rows[index] for name, rows in inputs.items()})))
                self.updates += 1
                self._keep_snapshot()
            first = last
        return logged

    def draw_start_states(self, count: int) -> Tensor:
        replayed = min(round(count * self.hparams["replayed_start_share"]), len(self.replay))
        states = super().draw_start_states(count - replayed)
        if replayed == 0:
            return states
        rows = self.replay[self.random.integers(len(self.replay), replayed)]
        return torch.cat([states, rows["observation"]])

    def replace_reward(self, reward: Any) -> None:
        """Train on another reward, with the bounds of values and the worth of ends that follow from its bounds."""
        self.simulator.reward, self.simulator.end_reward = reward, None
        self.price_ends()
        low, high = self.critic_range
        self.loss.value_low.fill_(low)
        self.loss.value_high.fill_(high)

    def draw_roll_outs(self, candidates: int = 1) -> tuple[Tensor, ...]:
        starts, action_noise, members, step_noise = super().draw_roll_outs(candidates)
        if self.hparams["push_share"] > 0.0:
            steps, count, _ = action_noise.shape
            length = min(self.hparams["push_steps"], steps)
            first = self.random.integers(steps - length + 1, count)
            since = torch.arange(steps, device=first.device).unsqueeze(1) - first
            pushed = self.random.uniform(count) < (0.0 if self.loosened else self.hparams["push_share"])
            during = pushed & (since >= 0) & (since < length)
            action_noise = torch.where(during.unsqueeze(-1), PUSH * action_noise.sign(), action_noise)
        if self.loosened and candidates > 1 and self.dynamics_reward is None:
            # All the same, and not fewer: seeds that are trained together have tensors of one shape
            members, step_noise = members[:, :1].expand_as(members), step_noise[:, :1].expand_as(step_noise)
        return starts, action_noise, members, step_noise

    def choose(self, step: int, observation: Tensor, action: Tensor, following: Tensor, *judges: Any) -> Tensor:
        """The candidate that the critics value least, or one that the dynamics reward takes, if there is one."""
        _, count, size = following.shape
        (judge,) = judges
        if self.dynamics_reward is None:
            chosen = self._least_valued(observation, action, following, judge)
        else:
            chosen = self._plausible(observation, action, following, judge[step])
        return following.gather(0, chosen.view(1, count, 1).expand(1, count, size)).squeeze(0)

    def _least_valued(self, observation: Tensor, action: Tensor, following: Tensor, critics: Any) -> Tensor:
        """Which of candidates ``(C, B, D)`` is :meth:`worth` least, ``(B,)``."""
        sure = torch.zeros_like(observation[:, 0])  # doubt is the same for all candidates of a row
        inputs = {"observation": observation, "action": action, "uncertainty": sure}
        return self.worth(inputs, following, critics).argmin(dim=0)

    def worth(self, inputs: dict[str, Tensor], following: Tensor, critics: Any) -> Tensor:
        """``r(s, a, s') + gamma * min_e Q_e(s', pi(s'))`` of each of several next states, ``(C, B)``.

        Ends have their own value.

        Args:
            inputs: ``observation``, ``action`` ``(B, ...)`` and ``uncertainty`` ``(B,)``.
            following: the next states, ``(C, B, D)``.
            critics: the parameters of the critics that are asked.
        """
        candidates, count, _ = following.shape
        reached = following.flatten(0, 1)
        ended = self.simulator.termination(reached)
        repeated = {name: column.repeat(candidates, *[1] * (column.dim() - 1)) for name, column in inputs.items()}
        paid = self.batch_reward({**repeated, "next_observation": reached, "terminated": ended.float()})
        values = self.loss.smallest_value(critics, reached, self.policy.act(reached))
        return (paid + self.hparams["gamma"] * values * (~ended).float()).view(candidates, count)

    def _plausible(self, observation: Tensor, action: Tensor, following: Tensor, chance: Tensor) -> Tensor:
        """Which of candidates ``(C, B, D)`` the dynamics reward takes, ``(B,)``, by uniform numbers ``(C, B)``."""
        assert self.dynamics_reward is not None
        candidates, count, _ = following.shape
        given = observation.repeat(candidates, 1), action.repeat(candidates, 1)
        rewards = self.dynamics_reward(*given, following.flatten(0, 1)).view(candidates, count)
        # The largest after noise of Gumbel's distribution has the chances of a softmax
        return (rewards - self.hparams["dynamics_temperature"] * (-chance.log()).log()).argmax(dim=0)

    def _draw_judges(self, candidates: int) -> tuple[Any, ...]:
        """What :meth:`choose` needs: the critics, or random numbers ``(H, C, B)`` where a dynamics reward chooses."""
        if candidates == 1:
            return ()
        if self.dynamics_reward is None:
            return (self.loss.critic_layers(),)
        return (self.random.uniform(self.hparams["horizon"], candidates, self.hparams["starts"]).clamp_min(SMALLEST),)

    def roll_out(self) -> Conversation:
        """Fill the replay buffer with roll-outs of the current policy; nothing is stored after an end."""
        candidates = self.hparams["candidates"]
        drawn = self.draw_roll_outs(candidates)
        judges = self._draw_judges(candidates)
        columns, alive = yield Compute("simulate", (*drawn, *judges))
        columns["pushed"] = drawn[1].abs().amax(dim=-1) >= PUSH
        figures = self.heed_roll_outs(columns, alive)
        stored = {name: column[alive] for name, column in columns.items() if name != "dynamics_reward"}
        following = {"observation": stored.pop("next_observation"), "terminated": stored.pop("ended").unsqueeze(-1)}
        self.replay.extend(TensorDict({**stored, "next": following}, batch_size=[len(stored["observation"])]))
        return figures

    def acted_rows(self) -> Tensor:
        """Places in the replay buffer of what the policy did by itself, without pushes, ``(N,)``."""
        pushed = self.replay[: len(self.replay)]["pushed"]
        if bool(pushed.all()):
            return torch.arange(len(pushed), device=pushed.device)
        return (~pushed).nonzero().squeeze(-1)

    def draw_acted(self, count: int, random: RandomStream) -> TensorDict:
        """So many of these transitions, ``(count,)``."""
        acted = self.acted_rows()
        return cast(TensorDict, self.replay[acted[random.integers(len(acted), count)]])

    @torch.no_grad()
    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """What the next ``K`` updates consume: simulated and recorded transitions.

        Args:
            rows: recorded transitions, ``expert`` and ``all``, ``(K, N)``.

        Returns:
            ``observation``, ``action``, ``next_observation``, ``terminated`` and ``uncertainty`` ``(K, B, ...)``;
            ``expert_observation`` and ``expert_action`` ``(K, N, ...)``; with an anchor, what it does in these
            observations, ``anchor_action`` ``(K, B, A)``.
        """
        expert, other = rows["expert"], rows["all"]
        updates, size = expert.shape[0], self.hparams["batch_size"]
        from_expert, from_all = recorded_rows(size, self.hparams["real_share"], expert.shape[1])
        real = from_expert + from_all
        parts = [expert[:, :from_expert], other[:, :from_all]]
        if real < size:
            parts.insert(0, self.replay.sample(updates * (size - real)).reshape(updates, size - real))

        def mixed(*key: str) -> Tensor:
            return torch.cat([part.get(key) for part in parts], dim=1)

        observation, action = mixed("observation"), mixed("action")
        # Recorded transitions happened, so there is nothing to doubt about them
        uncertainty = parts[0]["uncertainty"] if real < size else action.new_zeros(updates, 0)
        return {
            "observation": observation,
            "action": action,
            "next_observation": mixed("next", "observation"),
            "terminated": mixed("next", "terminated").squeeze(-1).float(),
            "uncertainty": functional.pad(uncertainty, (0, real)),
            "expert_observation": expert["observation"],
            "expert_action": expert["action"],
            **self._anchored(observation),
        }

    def _anchored(self, observation: Tensor) -> dict[str, Tensor]:
        """What the anchor does, ``(K, B, A)``, and how much that is to be held on to, ``(K, B)``."""
        if self.anchor is None:
            return {}
        action, spread = self.anchor.act_and_spread(observation)
        if self.hparams["anchor_form"] == DOUBT:
            return {"anchor_action": action}
        return {"anchor_action": action, "anchor_hold": (-(spread / self.hparams["anchor_tolerance"]).square()).exp()}

    def regularize(
        self,
        total: Tensor,
        logged: dict[str, Tensor],
        inputs: dict[str, Tensor],
        proposed: tuple[Tensor, Tensor | None],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss of the actor and what is logged of it, with what holds it: demonstrations, and the anchor.

        Args:
            total: the loss, a scalar.
            logged: what is logged of it.
            inputs: those of the update.
            proposed: the actor's location on the batch, ``(B, A)``, and its L_cloning, both of :meth:`propose`.
        """
        location, cloning = proposed
        total, logged = self.add_cloning(total, logged, cloning)
        if self.anchor is None:
            return total, logged
        distance = self.policy.squared_distance(self.policy.squash(location), inputs["anchor_action"])
        doubt = self.hparams["anchor_form"] == DOUBT
        hold = inputs["uncertainty"] / self.uncertainty_unit if doubt else inputs["anchor_hold"]
        anchor = (hold * distance).mean()
        return total + self.hparams["anchor_weight"] * self.hold * anchor, {**logged, "anchor": anchor.detach()}

    def update(self, inputs: dict[str, Tensor]) -> Conversation:
        """One update on the inputs of one."""
        raise NotImplementedError

    def random_streams(self) -> dict[str, RandomStream]:
        return super().random_streams() | {"replay": self.replay_random}

    def rank_state(self) -> dict[str, Any]:
        # Cloned, because a slice of the storage would be saved with the whole storage behind it
        stored = self.replay[: len(self.replay)].exclude("index").clone()
        writer = self.replay.writer.state_dict()  # where a full buffer is overwritten next
        return super().rank_state() | {"replay": stored.to_dict(), "replay_writer": writer}

    def restore_rank_state(self, state: dict[str, Any]) -> None:
        super().restore_rank_state(state)
        self.replay.extend(TensorDict(state["replay"]).auto_batch_size_(1))
        self.replay.writer.load_state_dict(state["replay_writer"])
