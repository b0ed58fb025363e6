r"""OffSim's second stage: SAC on roll-outs of a frozen Simulator.

.. math::
    y      &= \kappa\,(r(s,a,s') - \lambda_u U(s,a)) + \gamma\,[\text{not ended}]\,(\min_i \bar Q_i(s',a') -
              \alpha\log\pi(a'|s')) + \gamma\,[\text{ended}]\,V_{end} \\
    L_\pi  &= E[\alpha\log\pi(a|s) - \min_i Q_i(s,a)] + \lambda\,L_{cloning}(D_E)

The real system appears only as recorded rows; their reward is the learned one. Source: arXiv 2510.15495, stage 2;
SAC: Haarnoja et al. 2018. Choices where the paper is silent: docs/methods/offsim.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from lit_modules.behaviour_cloning import cloning_loss
from lit_modules.critic import BatchedSACLoss, ForeachSoftUpdate, Layers, QNetwork, flat
from lit_modules.method import Compute, Conversation, Descend, Follow, Method
from lit_modules.random_stream import RandomStream
from lit_modules.rows import draw_starts, require_streams
from zoo.policy import Policy
from zoo.simulator import Simulator


class SimulatorSAC(Method):
    """Train a policy inside a frozen Simulator.

    Args:
        simulator: file of a Simulator.
        observation_size: number of observation features of the data, compared with the Simulator's if given.
        action_low: lower action bounds of the data, likewise.
        action_high: upper action bounds of the data, likewise.
        cloned_policy: file of a behaviour-cloned policy to start from; ``None`` starts from scratch.
        hidden_sizes: widths of the critics, and of the actor if it starts from scratch.
        critics: critics in the ensemble; the smallest value counts.
        layer_norm: layer normalisation in the critics.
        horizon: steps of a roll-out.
        starts: roll-outs per refresh.
        expert_start_share: share of roll-outs that start in expert states; the rest start anywhere in the data.
        refresh_every: updates between refreshes of the replay buffer.
        buffer_size: simulated transitions kept; the oldest are dropped.
        batch_size: transitions per update.
        real_share: share of recorded transitions in each batch, half of them from the demonstrations.
        gamma: discount.
        tau: share of the critics mixed into their targets after each update.
        actor_learning_rate: Adam's rate for the actor.
        critic_learning_rate: Adam's rate for the critics.
        temperature: SAC's alpha; its start if it is tuned.
        target_entropy: entropy to tune the temperature to; ``None`` keeps the temperature fixed. A cloned policy is
            nearly deterministic, and tuning then raises the temperature without bound.
        reward_scale: kappa, multiplies the Simulator's reward (expert mean 1), so that values are of order
            ``kappa / (1 - gamma)``.
        uncertainty_weight: penalty per unit of uncertainty, in units of the median uncertainty on the data.
        uncertainty_cut: level of the data's uncertainty quantile above which a roll-out ends as if it had died
            (Kidambi et al. 2020, MOReL); ``None`` never ends it.
        cloning_weight: lambda, weight of the regulariser towards demonstrated actions.
        cloning_form: ``mse`` or ``log_likelihood``.
        policy_average: decay of the running average of the actor's weights, which is the policy that comes out.
        snapshot_every: updates between snapshots of that policy; 0 keeps none.
        snapshots: folder for the snapshots; beside each a JSON file with what the critics think of it.
        validation_episodes: episodes in the Simulator per validation.
        validation_horizon: steps after which such an episode is truncated.
        compile: whether the losses go through ``torch.compile``: ``never``, ``always``, or ``auto`` if there
            is a C++ compiler. It takes half a minute at first, and less when it finds the last run's work in its cache.
    """

    # Buffers, not numbers: they differ between replicas that are trained together
    end_value: Tensor
    cut: Tensor
    uncertainty_unit: Tensor

    remedy = "Lower the learning rates or reward_scale."

    def __init__(
        self,
        simulator: str,
        observation_size: int | None = None,
        action_low: Sequence[float] | None = None,
        action_high: Sequence[float] | None = None,
        cloned_policy: str | None = None,
        hidden_sizes: Sequence[int] = (256, 256),
        critics: int = 2,
        layer_norm: bool = True,
        horizon: int = 30,
        starts: int = 200,
        expert_start_share: float = 0.5,
        refresh_every: int = 250,
        buffer_size: int = 100_000,
        batch_size: int = 256,
        real_share: float = 0.5,
        gamma: float = 0.99,
        tau: float = 0.005,
        actor_learning_rate: float = 1e-4,
        critic_learning_rate: float = 3e-4,
        temperature: float = 0.01,
        target_entropy: float | None = None,
        reward_scale: float = 0.1,
        uncertainty_weight: float = 0.0,
        uncertainty_cut: float | None = 0.99,
        cloning_weight: float = 20.0,
        cloning_form: str = "mse",
        policy_average: float = 0.999,
        snapshot_every: int = 0,
        snapshots: str = "snapshots",
        validation_episodes: int = 20,
        validation_horizon: int = 1000,
        compile: str = "never",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.simulator = Simulator.load(simulator)
        self._refuse_other_spaces(observation_size, action_low, action_high)
        self.policy = self._starting_policy(cloned_policy, hidden_sizes)
        self.averaged_policy = copy.deepcopy(self.policy).requires_grad_(False)
        # Rewards are clipped, so every value is known to lie between these two.
        largest_sum = reward_scale / (1.0 - gamma)
        low, high = (largest_sum * float(bound) for bound in (self.simulator.reward.low, self.simulator.reward.high))
        # Nothing is worse than ending: an all-positive reward cannot pay for survival alone, nor an all-negative
        # one for dying, whatever constant is added to it.
        self.register_buffer("end_value", torch.tensor(low), persistent=False)
        critic = QNetwork(self.policy.observation_size, self.policy.action_size, hidden_sizes, layer_norm=layer_norm)
        self.loss = BatchedSACLoss(
            self.policy,
            critic,
            gamma=gamma,
            value_range=(low, high),
            num_qvalue_nets=critics,
            alpha_init=temperature,
            fixed_alpha=target_entropy is None,
            target_entropy=-float(self.policy.action_size) if target_entropy is None else target_entropy,
        )
        self.target_update = ForeachSoftUpdate(self.loss, tau=tau)
        self.replay_random = RandomStream(torch.initial_seed(), "replay")
        self._make_replay()
        cut = torch.inf if uncertainty_cut is None else self.simulator.uncertainty_quantile(uncertainty_cut)
        self.register_buffer("cut", torch.tensor(cut), persistent=False)
        unit = self.simulator.uncertainty_quantile(0.5)
        self.register_buffer("uncertainty_unit", torch.tensor(unit), persistent=False)
        self.compile_functions(compile, "objective")

    def _make_replay(self) -> None:
        self.replay = TensorDictReplayBuffer(
            storage=LazyTensorStorage(self.hparams["buffer_size"], device=self.random.device)
        )
        # Apart from the noise, so that neither depends on how many updates are drawn for at once
        self.replay.set_rng(self.replay_random.generator)

    def _refuse_other_spaces(
        self, observation_size: int | None, action_low: Sequence[float] | None, action_high: Sequence[float] | None
    ) -> None:
        simulator = self.simulator
        for name, given, known in (
            ("observation size", observation_size, simulator.observation_size),
            ("lower action bounds", action_low and list(action_low), simulator.action_low),
            ("upper action bounds", action_high and list(action_high), simulator.action_high),
        ):
            if given is not None and given != known:
                raise ValueError(
                    f"the data's {name} {given} differ from the simulator's {known}: "
                    "use the data that the simulator was trained on"
                )

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
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        require_streams(data, ["expert", "all"])
        self.loss.normalizer.load_state_dict(self.simulator.transition.observation_normalizer.state_dict())
        # The same memory as the networks', so that no transition crosses to the host and back
        self.place_random_numbers(self.random, self.replay_random)
        self._make_replay()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [
            {"params": list(self.policy.network.parameters()), "lr": self.hparams["actor_learning_rate"]},
            {
                "params": [p for p in self.loss.qvalue_network_params.parameters() if p.requires_grad],
                "lr": self.hparams["critic_learning_rate"],
            },
        ]
        if self.hparams["target_entropy"] is not None:
            groups.append({"params": [self.loss.log_alpha], "lr": self.hparams["actor_learning_rate"]})
        return torch.optim.Adam(groups, fused=True)

    # ------------------------------------------------------------------------------------------------------ training

    def converse(self, batch: dict[str, TensorDict]) -> Conversation:
        logged: dict[str, Tensor] = {}
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

    def roll_out(self) -> Conversation:
        """Fill the replay buffer with roll-outs of the current policy; nothing is stored after an end."""
        count, horizon = self.hparams["starts"], self.hparams["horizon"]
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        starts = draw_starts(data, count, self.hparams["expert_start_share"], self.random)
        columns, alive = yield Compute(
            "simulate",
            (
                starts["observation"].to(self.device),
                self.random.normal(horizon, count, self.policy.action_size),
                self.random.integers(self.simulator.transition.members, horizon, count),
                self.random.normal(horizon, count, self.policy.observation_size),
            ),
        )
        stored = {name: column[alive] for name, column in columns.items()}
        following = {"observation": stored.pop("next_observation"), "terminated": stored.pop("ended").unsqueeze(-1)}
        self.replay.extend(TensorDict({**stored, "next": following}, batch_size=[len(stored["observation"])]))
        untrusted = (columns["uncertainty"] > self.cut)[alive]
        return {
            "rollout/mean_length": alive.sum() / count,
            "rollout/untrusted": untrusted.float().mean(),
            "rollout/uncertainty": stored["uncertainty"].mean(),
        }

    def simulate(
        self, observation: Tensor, action_noise: Tensor, members: Tensor, step_noise: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Roll-outs of H steps from B states; every row takes every step, and ``alive`` says which of them count.

        Args:
            observation: start states, ``(B, D)``.
            action_noise: ``(H, B, A)``.
            members: member that moves each row, ``(H, B)``.
            step_noise: ``(H, B, D)``.

        Returns:
            Columns ``(H, B, ...)``: observation, action, uncertainty, next_observation, ended; and alive ``(H, B)``.
        """
        running = torch.ones_like(observation[:, 0], dtype=torch.bool)
        steps: list[tuple[Tensor, ...]] = []
        for step in range(len(members)):
            action = self.policy.act(observation, deterministic=False, noise=action_noise[step])
            following, uncertainty = self.simulator.advance(observation, action, members[step], step_noise[step])
            ended = self.simulator.termination(following) | (uncertainty > self.cut)
            steps.append((observation, action, uncertainty, following, ended, running))
            running = running & ~ended
            observation = following
        *columns, alive = (torch.stack(column) for column in zip(*steps, strict=True))
        names = ("observation", "action", "uncertainty", "next_observation", "ended")
        return dict(zip(names, columns, strict=True)), alive

    @torch.no_grad()
    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """What the next ``K`` updates consume: simulated and recorded transitions, and the noise of sampled actions.

        Args:
            rows: recorded transitions, ``expert`` and ``all``, ``(K, N)``.

        Returns:
            ``observation``, ``action``, ``next_observation``, ``terminated``, ``uncertainty``, ``noise`` and
            ``next_noise`` ``(K, B, ...)``; ``expert_observation`` and ``expert_action`` ``(K, N, ...)``.
        """
        expert, other = rows["expert"], rows["all"]
        updates, size = expert.shape[0], self.hparams["batch_size"]
        real = round(self.hparams["real_share"] * size)
        from_expert = min(real // 2, expert.shape[1])
        parts = [expert[:, :from_expert], other[:, : real - from_expert]]
        if real < size:
            parts.insert(0, self.replay.sample(updates * (size - real)).reshape(updates, size - real))

        def mixed(*key: str) -> Tensor:
            return torch.cat([part.get(key) for part in parts], dim=1)

        action = mixed("action")
        noise = self.random.normal(updates, 2, *action.shape[1:])
        # Recorded transitions happened, so there is nothing to doubt about them
        uncertainty = parts[0]["uncertainty"] if real < size else action.new_zeros(updates, 0)
        return {
            "observation": mixed("observation"),
            "action": action,
            "next_observation": mixed("next", "observation"),
            "terminated": mixed("next", "terminated").squeeze(-1).float(),
            "uncertainty": functional.pad(uncertainty, (0, real)),
            "noise": noise[:, 0],
            "next_noise": noise[:, 1],
            "expert_observation": expert["observation"],
            "expert_action": expert["action"],
        }

    def update(self, inputs: dict[str, Tensor]) -> Conversation:
        """One step of critics, actor, targets and running average on the inputs of one update."""
        critics, targets = self.loss.critic_layers(), self.loss.target_layers()
        logged = yield Descend("objective", (inputs, critics, targets))
        yield Follow(flat(targets), flat(critics), 1.0 - self.target_update.eps)
        average = list(self.averaged_policy.network.parameters())
        yield Follow(average, list(self.policy.network.parameters()), 1.0 - self.hparams["policy_average"])
        return dict(logged)

    def objective(
        self, inputs: dict[str, Tensor], critics: Layers, targets: Layers
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that an update differentiates, and its parts; see the module's equations."""
        settings = self.hparams
        reward = self.batch_reward(inputs)
        size = reward.shape[0]
        cloning_weight = settings["cloning_weight"]
        # One forward pass of the actor for the batch and the demonstrations it is held to
        held = [inputs["expert_observation"]] if cloning_weight > 0 else []
        location, scale = self.policy(torch.cat([inputs["observation"], *held]))
        losses = self.loss.losses({**inputs, "reward": reward}, (location[:size], scale[:size]), critics, targets)
        total = losses["loss_actor"] + losses["loss_qvalue"]
        loss_alpha = losses.pop("loss_alpha")
        if settings["target_entropy"] is not None:
            total = total + loss_alpha
        logged = {name: value.detach() for name, value in losses.items()} | {"reward": reward.mean()}
        if cloning_weight > 0:
            cloning = cloning_loss(
                self.policy, location[size:], scale[size:], inputs["expert_action"], settings["cloning_form"]
            )
            total = total + cloning_weight * cloning
            logged["cloning"] = cloning.detach()
        return total, logged

    @torch.no_grad()
    def batch_reward(self, inputs: dict[str, Tensor]) -> Tensor:
        """What SAC is paid for each transition, ``(B,)``: scaled learned reward, less doubt, and the value of ends."""
        reward = self.simulator.reward(inputs["observation"], inputs["action"], inputs["next_observation"])
        penalty = inputs["uncertainty"] * (self.hparams["uncertainty_weight"] / self.uncertainty_unit)
        return self.hparams["reward_scale"] * (reward - penalty) + (
            self.loss.gamma * self.end_value * inputs["terminated"]
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        # Cloned, because a slice of the storage would be saved with the whole storage behind it
        stored = self.replay[: len(self.replay)].exclude("index").clone()
        checkpoint["replay"] = stored.to_dict()
        checkpoint["replay_random_state"] = self.replay_random.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.replay.extend(TensorDict(checkpoint["replay"]).auto_batch_size_(1))
        self.replay_random.restore(checkpoint["replay_random_state"])

    def _keep_snapshot(self) -> None:
        every = self.hparams["snapshot_every"]
        if every > 0 and self.updates % every == 0 and self.trainer.is_global_zero:
            file = Path(self.hparams["snapshots"]) / f"{self.updates:08d}.safetensors"
            self.averaged_policy.save(file)
            temperature = float(self.loss.log_alpha.detach().exp())
            belief = {"update": self.updates, "value": self.start_value(), "temperature": temperature}
            file.with_suffix(".json").write_text(json.dumps(belief))

    @torch.no_grad()
    def start_value(self) -> float:
        """Smallest critic's value of the averaged policy's action, mean over the Simulator's start states.

        In units of ``reward_scale`` times the reward.
        """
        observation = self.simulator.start_states.observations
        action = self.averaged_policy.act(observation)
        values = self.loss.critic.batched(self.loss.critic_layers(), self.loss.normalizer(observation), action)
        return float(values.min(dim=0).values.mean())

    # ---------------------------------------------------------------------------------------------------- validation

    @torch.no_grad()
    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        generator = torch.Generator(self.device).manual_seed(0)
        for name, value in simulator_return(
            self.simulator,
            self.averaged_policy,
            self.hparams["validation_episodes"],
            self.hparams["validation_horizon"],
            generator,
        ).items():
            self.log(f"validation/{name}", value, batch_size=1)

    def test_step(self, batch: dict[str, TensorDict], batch_index: int) -> None:
        """The figures of validation, for ``offsim test``."""
        self.validation_step(batch, batch_index)

    def predict_step(self, batch: dict[str, TensorDict], batch_index: int) -> dict[str, Tensor]:
        """The policy's actions ``(N, A)`` on each held-out table."""
        return {name: self.averaged_policy.act(table["observation"]) for name, table in batch.items()}


@torch.no_grad()
def simulator_return(
    simulator: Simulator, policy: Policy, episodes: int, horizon: int, generator: torch.Generator
) -> dict[str, float]:
    """Deterministic policy in the Simulator from its start states.

    Returns:
        ``return``: mean sum of standardised rewards (an expert that never ends scores about ``horizon``);
        ``length``: mean steps until the end; ``uncertainty``: mean uncertainty on the way.
    """
    observation = simulator.reset(episodes, generator)
    alive = torch.ones(episodes, device=observation.device)
    total, length, doubt = torch.zeros_like(alive), torch.zeros_like(alive), torch.zeros_like(alive)
    for _ in range(horizon):
        action = policy.act(observation)
        following, reward, terminated, info = simulator.step(observation, action, generator)
        total += alive * reward
        length += alive
        doubt += alive * info["uncertainty"]
        alive = alive * (~terminated).float()
        if not bool(alive.any()):
            break
        observation = following
    return {
        "return": float(total.mean()),
        "length": float(length.mean()),
        "uncertainty": float((doubt / length).mean()),
    }
