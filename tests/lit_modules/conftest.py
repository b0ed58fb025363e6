"""A Simulator that is known exactly, to train policies in whose best behaviour is known as well."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from zoo import Policy, Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

STEP = 0.5  # how far an action of 1 moves the point


class Steering:
    """A point on a line, ``s' = s + a / 2`` with reward ``1 - |s'|``: the best action is ``-2 s`` within its bounds.

    Made of the project's own models with weights set by hand, so that it has a file like every Simulator.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "steering.safetensors"
        transition = TransitionModel(1, 1, members=2, hidden_sizes=())
        reward = RewardModel(1, 1, (2,), activation="relu")
        with torch.no_grad():
            layer: Any = transition.network.layers[0]  # from (s, a) to mean and log-variance
            layer.weight.copy_(torch.tensor([[0.0, 0.0], [STEP, 0.0]]).expand(2, 2, 2))
            layer.bias.copy_(torch.tensor([0.0, -30.0]).expand(2, 1, 2))
            first, last = (reward.network[index] for index in (0, 2))  # from (s, a, s' - s)
            first.weight.copy_(torch.tensor([[1.0, 0.0, 1.0], [-1.0, 0.0, -1.0]]))
            first.bias.zero_()
            last.weight.fill_(-1.0)
            last.bias.fill_(1.0)
            reward.low.fill_(-1.0)
            reward.high.fill_(1.0)
        simulator = Simulator(
            transition, reward, TerminationModel(), StartStates.of(self.states(50)), [-1.0], [1.0], noise_scale=0.0
        )
        simulator.calibrate_uncertainty(self.states(100), self.states(100))
        simulator.save(self.path)

    @staticmethod
    def states(*rows: int) -> torch.Tensor:
        return 2.0 * torch.rand(*rows, 1) - 1.0

    def table(self, *rows: int) -> TensorDict:
        """Transitions of random actions."""
        observation, action = self.states(*rows), self.states(*rows)
        following = {
            "observation": observation + STEP * action,
            "terminated": torch.zeros(*rows, 1, dtype=torch.bool),
        }
        return TensorDict({"observation": observation, "action": action, "next": following}, batch_size=list(rows))

    def episode(self, steps: int) -> TensorDict:
        """Demonstrations of one episode."""
        table = self.table(steps)
        table["episode"], table["step"] = torch.zeros(steps, dtype=torch.long), torch.arange(steps)
        return table

    def learner(self, method: type, **settings: Any) -> Any:
        """A small module of a method, with data, that trains without a Trainer."""
        sizes: dict[str, Any] = {
            "hidden_sizes": (32, 32),
            "horizon": 5,
            "starts": 50,
            "cloning_weight": 0.0,
            "noise_scale": None,
            "loosen_below": None,
            "let_go": "failing",
        }
        module = method(str(self.path), **{**sizes, "uncertainty_cut": None, "gamma": 0.9, **settings})
        data = SimpleNamespace(
            expert_train=self.episode(50), diverse_train=self.table(50), streams={"expert": 8, "all": 8}
        )
        module._trainer = SimpleNamespace(datamodule=data, is_global_zero=True)
        made = module.configure_optimizers()
        optimizers = [SimpleNamespace(optimizer=each) for each in (made if isinstance(made, list) else [made])]
        module.optimizers = lambda: optimizers
        module.manual_backward = lambda loss, **given: loss.backward(**given)
        return module

    def train(self, module: Any, updates: int, rows: int = 64) -> dict[str, torch.Tensor]:
        """Carry out updates; what was logged last."""
        return module.run(module.converse({name: self.table(updates, rows) for name in ("expert", "all")}))

    def train_interrupted(
        self, method: type, batch: dict[str, TensorDict], first: int, through_a_file: Any, **settings: Any
    ) -> tuple[Any, Any]:
        """A learner trained on a batch ``(K, N)`` in one go, and one that goes on from its checkpoint after some.

        Args:
            method: its class.
            batch: the rows of all updates.
            first: updates before the checkpoint.
            through_a_file: the fixture ``saved_checkpoint``.
            settings: of the learners.
        """
        whole, resumed = (self.learner(method, **settings) for _ in range(2))
        resumed._trainer = whole._trainer
        whole.run(whole.converse({name: rows[:first] for name, rows in batch.items()}))
        resumed.on_load_checkpoint(through_a_file(whole))
        resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
        for one, other in zip(resumed.optimizers(), whole.optimizers(), strict=True):
            one.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))
        for module in (whole, resumed):
            module.run(module.converse({name: rows[first:] for name, rows in batch.items()}))
        return whole, resumed

    def distance_from_best(self, module: Any) -> float:
        """Mean distance of the policy's actions from the best ones."""
        observation = torch.linspace(-1.0, 1.0, 101).unsqueeze(-1)
        best = (-observation / STEP).clamp(-1.0, 1.0)
        return float((module.policy.act(observation) - best).abs().mean())


@pytest.fixture
def steering(tmp_path: Path) -> Steering:
    return Steering(tmp_path)


@pytest.fixture
def cloned_policy(tmp_path: Path) -> str:
    torch.manual_seed(3)
    Policy(1, [-1.0], [1.0], (8,)).save(tmp_path / "cloned.safetensors")
    return str(tmp_path / "cloned.safetensors")


@pytest.fixture
def saved_checkpoint(tmp_path: Path) -> Callable[[Any], dict[str, Any]]:
    """What a module adds to a checkpoint, written to a file and read back as Lightning does."""

    def through_a_file(module: Any) -> dict[str, Any]:
        checkpoint: dict[str, Any] = {}
        module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, tmp_path / "part.ckpt")
        return torch.load(tmp_path / "part.ckpt", weights_only=True)

    return through_a_file
