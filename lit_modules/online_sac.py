"""Soft actor-critic in the real environment: how the demonstrators behind this project's own data are trained.

This is the only module that learns from the real system. It exists for ``offsim collect``; no offline method
imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import lightning
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from tensordict import TensorDict
from torch import Tensor
from torch.utils.data import DataLoader
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from lit_modules.compilation import compiled
from lit_modules.critic import BatchedSACLoss, ForeachSoftUpdate, Layers, QNetwork, plain_rows
from zoo.episodes import policy_actions, run_episodes
from zoo.policy import Policy
from zoo.resumable import Resumable
from zoo.tasks import get_task

SEEDS_APART = 1_000_000  # episodes of a training count their seeds from this many times its own


class OnlineSAC(lightning.LightningModule):
    """SAC (Haarnoja et al. 2018) on several copies of a task that step together.

    One ``training_step`` is ``steps_per_iteration`` vector steps, each followed by ``updates_per_step`` updates.

    Args:
        task: name of the task.
        environments: copies of the task that step together.
        steps_per_iteration: vector steps per ``training_step``.
        updates_per_step: gradient updates after each vector step.
        warmup_steps: vector steps of uniform actions before the first update.
        buffer_size: transitions kept for replay.
        batch_size: transitions per update.
        hidden_sizes: widths of actor and critics.
        layer_norm: layer normalisation in the critics.
        learning_rate: Adam's rate for actor, critics and temperature.
        gamma: discount.
        tau: share of the critics mixed into their targets after each update.
        evaluate_every: iterations between evaluations, each of which keeps a snapshot of the policy.
        evaluation_episodes: deterministic episodes per evaluation.
        compile: whether the losses go through ``torch.compile``, see ``lit_modules.compilation``.
        snapshots: folder for the snapshots.
        seed: seed of environments and exploration.

    Raises:
        KeyError: if the task is unknown.
        ValueError: if the buffer does not hold equally many transitions of each copy, or ``compile`` is unknown.
    """

    def __init__(
        self,
        task: str,
        environments: int = 4,
        steps_per_iteration: int = 250,
        updates_per_step: int = 2,
        warmup_steps: int = 1250,
        buffer_size: int = 1_000_000,
        batch_size: int = 128,
        hidden_sizes: Sequence[int] = (256, 256),
        layer_norm: bool = True,
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        evaluate_every: int = 10,
        evaluation_episodes: int = 10,
        compile: str = "never",
        snapshots: str = "snapshots",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if buffer_size % environments:
            raise ValueError(f"buffer_size {buffer_size} is not a multiple of the {environments} environments")
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.task = get_task(task)
        self.environments = [Resumable(self.task.make()) for _ in range(environments)]
        space = self.environments[0].action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.policy = Policy(self.task.observation_size, space.low.tolist(), space.high.tolist(), hidden_sizes)
        critic = QNetwork(self.task.observation_size, self.task.action_size, hidden_sizes, layer_norm=layer_norm)
        self.loss = BatchedSACLoss(self.policy, critic, gamma=gamma, target_entropy=-float(self.task.action_size))
        self.target_update = ForeachSoftUpdate(self.loss, tau=tau)
        self._objective = compiled(self.objective, compile)
        self.replay = TensorDictReplayBuffer(storage=LazyTensorStorage(buffer_size), batch_size=batch_size)
        self.episodes_started = 0
        self.vector_steps = 0
        self.updates = 0
        self.evaluations: list[dict[str, float]] = []
        self.observations = self._restart()

    def _restart(self) -> np.ndarray:
        """Start a new episode in every copy; the observations, ``(environments, observation)``."""
        for index, environment in enumerate(self.environments):
            environment.action_space.seed(self.hparams["seed"] * SEEDS_APART + self.episodes_started + index)
        return np.stack([self._reset(environment) for environment in self.environments])

    def _reset(self, environment: Any) -> np.ndarray:
        observation, _ = environment.reset(seed=self.hparams["seed"] * SEEDS_APART + self.episodes_started)
        self.episodes_started += 1
        return np.asarray(observation, dtype=np.float32)

    def train_dataloader(self) -> DataLoader[int]:
        # A generator of its own: without, every start of an iteration draws from the one that a checkpoint restores
        return DataLoader(range(2**31), generator=torch.Generator())  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        if self.vector_steps == 0:
            # As loaders without a generator of their own did when the published data sets were made
            torch.empty((), dtype=torch.int64).random_()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.loss.parameters() if parameter.requires_grad]
        return torch.optim.Adam(parameters, lr=self.hparams["learning_rate"], fused=True)

    def training_step(self, batch: Any, batch_index: int) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        losses: dict[str, Tensor] = {}
        for _ in range(self.hparams["steps_per_iteration"]):
            self._step_environments()
            if self.vector_steps <= self.hparams["warmup_steps"]:
                continue
            for _ in range(self.hparams["updates_per_step"]):
                losses = self._update(optimizer.optimizer)
        optimizer.step()  # counts the iteration for Lightning; no gradients are left to apply
        self.log_dict({f"train/{name}": value.item() for name, value in losses.items()})
        if (self.global_step % self.hparams["evaluate_every"]) == 0:
            self._evaluate()

    def _step_environments(self) -> None:
        """Advance every copy by one action and store the transitions, copy by copy."""
        if self.vector_steps < self.hparams["warmup_steps"]:
            actions = np.stack([environment.action_space.sample() for environment in self.environments])
        else:
            actions = self.policy.act(torch.from_numpy(self.observations), deterministic=False).numpy()
        self.vector_steps += 1
        rows: dict[str, list[Any]] = {"next": [], "reward": [], "terminated": [], "truncated": []}
        before = self.observations.copy()
        for index, environment in enumerate(self.environments):
            observation, reward, terminated, truncated, _ = environment.step(actions[index])
            self.observations[index] = observation
            rows["next"].append(np.asarray(observation, dtype=np.float32))
            rows["reward"].append(float(reward))
            rows["terminated"].append(terminated)
            rows["truncated"].append(truncated)
            if terminated or truncated:
                self.observations[index] = self._reset(environment)
        count = len(self.environments)
        self.replay.extend(
            TensorDict(
                {
                    "observation": torch.from_numpy(before),
                    "action": torch.from_numpy(actions),
                    "next": {
                        "observation": torch.from_numpy(np.stack(rows["next"])),
                        "reward": torch.tensor(rows["reward"], dtype=torch.float32).unsqueeze(-1),
                        "terminated": torch.tensor(rows["terminated"]).unsqueeze(-1),
                        "truncated": torch.tensor(rows["truncated"]).unsqueeze(-1),
                    },
                },
                batch_size=[count],
            )
        )

    def _update(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        sampled = self.replay.sample()
        rows = plain_rows(sampled) | {"noise": torch.randn_like(sampled["action"])}
        total, losses = self._objective(rows, self.loss.critic_layers(), self.loss.target_layers())
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.target_update.step()
        self.updates += 1
        return losses

    def objective(self, rows: dict[str, Tensor], critics: Layers, targets: Layers) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that an update differentiates, and its parts, see ``BatchedSACLoss.losses``."""
        losses = self.loss.losses(rows, self.policy(rows["observation"]), critics, targets)
        total = losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]
        return total, {name: value.detach() for name, value in losses.items()}

    def _evaluate(self) -> None:
        episodes = run_episodes(
            self.task.make,
            policy_actions(self.policy),
            self.hparams["evaluation_episodes"],
            seed=10_000_000 + self.hparams["seed"],
        )
        mean = float(np.mean([episode.total_reward for episode in episodes]))
        snapshot = Path(self.hparams["snapshots"]) / f"{self.updates:08d}.safetensors"
        self.policy.save(snapshot)
        self.evaluations.append(
            {"updates": self.updates, "steps": self.vector_steps * len(self.environments), "return": mean}
        )
        self.log("evaluation/return", mean, prog_bar=True)
        self.print(f"updates {self.updates:>8}  steps {self.evaluations[-1]['steps']:>8}  return {mean:8.1f}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["online_sac"] = {
            # In the order they are stored in, which decides what is drawn; cloned, because a view would take the whole
            # buffer along
            "replay": self.replay[: len(self.replay)].exclude("index").clone().to_dict(),
            "replay_writer": self.replay.writer.state_dict(),
            "environments": [environment.state() for environment in self.environments],
            "episodes_started": self.episodes_started,
            "vector_steps": self.vector_steps,
            "updates": self.updates,
            "evaluations": self.evaluations,
            "torch_random_state": torch.get_rng_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["online_sac"]
        self.replay.extend(TensorDict(state["replay"]).auto_batch_size_(1))
        self.replay.writer.load_state_dict(state["replay_writer"])
        self.episodes_started = state["episodes_started"]
        self.vector_steps = state["vector_steps"]
        self.updates = state["updates"]
        self.evaluations = state["evaluations"]
        states = zip(self.environments, state["environments"], strict=True)
        self.observations = np.stack([environment.restore(each) for environment, each in states]).astype(np.float32)
        torch.set_rng_state(state["torch_random_state"])
