"""Controls: the policy stage of a run once more, in the same Simulator, with a reward that is right by definition.

With the task's own reward, what goes wrong is the simulator's doing or the learner's; with a constant reward nothing
is left but Q-learning itself. What comes out is no result of any method: it is marked in every file, methods refuse
to load it, and the Simulator with the other reward cannot be saved at all.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from app.checkpoints import last_checkpoint
from app.configuration import as_then
from app.critic_value import compare, recorded_belief
from app.errors import UserError
from app.evaluate import real_episodes, summarize_episodes
from app.finished_run import FinishedRun, policies_over_training
from app.pipeline import BATCHES_PER_STEP, check_updates, learned_filter, make_data, say
from app.rollouts import recorded, roll_out
from app.trainers import make_trainer
from app.true_reward import TrueReward, known_true_reward
from lit_modules.method import Method
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Policy

CONTROLS = {
    "true_reward": "the task's own reward",
    "constant_reward": "a reward of 1 on demonstrations and 0 elsewhere",
}
SIMULATED_EPISODES = 20


class ConstantReward(nn.Module):
    """1 on recorded demonstrations, 0 elsewhere (Reddy et al. 2020, "SQIL"); the interface of a learned reward.

    A row counts as recorded if its observation and action are those of a demonstration bit for bit. They are compared
    by a 64-bit hash; two different rows share one with a probability of about the number of demonstrations / 2^64.

    Args:
        observation: of the demonstrations, ``(N, D)``.
        action: of the demonstrations, ``(N, A)``.
    """

    low: Tensor
    high: Tensor
    multipliers: Tensor
    recorded: Tensor

    def __init__(self, observation: Tensor, action: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        size = observation.shape[-1] + action.shape[-1]
        multipliers = torch.randint(-(2**62), 2**62, (size,), generator=generator) * 2 + 1
        self.register_buffer("multipliers", multipliers, persistent=False)
        self.register_buffer("recorded", self._hash(observation, action).sort().values, persistent=False)
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(1.0))

    def _hash(self, observation: Tensor, action: Tensor) -> Tensor:
        words = torch.cat([observation, action], dim=-1).contiguous().view(torch.int32).long()
        mixed = words * self.multipliers
        return (mixed ^ (mixed >> 29)).sum(dim=-1)

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """Reward ``(...)`` of transitions ``(..., D), (..., A), (..., D)``."""
        keys = self._hash(observation, action)
        place = torch.searchsorted(self.recorded, keys).clamp(max=len(self.recorded) - 1)
        return (self.recorded[place] == keys).to(observation.dtype)


class ControlSAC(SimulatorSAC):
    """SAC in a Simulator whose reward was replaced; everything that it writes is marked as a control."""

    control = True

    def replace_reward(self, reward: nn.Module) -> None:
        super().replace_reward(reward)
        self.policy.control = self.averaged_policy.control = True


def train_controls(run: FinishedRun, updates: int, episodes: int) -> None:
    """Train and measure the controls of a run that are not there yet, under its folder ``controls``.

    Args:
        run: the run.
        updates: of each control.
        episodes: real episodes of each snapshot.

    Raises:
        UserError: if a control of other settings is there, the task's own reward is not known, or ``updates`` is none.
    """
    if known_true_reward(run.task) is None:
        raise UserError(f"no formula of the reward of task {run.task.name} is known: leave out --controls")
    check_updates("--updates", updates)
    settings = {name: control_settings(run, name, updates) for name in CONTROLS}
    for name, wanted in settings.items():
        _claim(run.folder / "controls" / name, wanted)
    for name, meaning in CONTROLS.items():
        folder = run.folder / "controls" / name
        if (folder / "control.json").exists():
            say(f"control with {meaning}: already there, {folder}")
            continue
        say(f"control with {meaning}: {updates} updates")
        learner = train_control(run, name, settings[name])
        curve = measure_control(run, name, learner, settings[name]["updates"], episodes)
        content = {"control": True, "name": name, "reward": meaning, "updates": settings[name]["updates"]}
        _write(folder / "control.json", {**content, "curve": curve})


def read_controls(folder: Path) -> dict[str, dict[str, Any]]:
    """The figures of the controls that a run's folder holds, by name."""
    files = {name: folder / "controls" / name / "control.json" for name in CONTROLS}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}


def control_settings(run: FinishedRun, name: str, updates: int) -> dict[str, Any]:
    """All that a control depends on, as plain data: what is written beside it and compared when it is repeated."""
    methods = [each for each in SimulatorSAC.__mro__ if issubclass(each, Method)]
    known = {name for method in methods for name in inspect.signature(method).parameters}
    given = OmegaConf.to_container(as_then(run.configuration.copy()).policy.model)
    assert isinstance(given, dict)
    return {
        "control": True,
        "name": name,
        "seed": int(run.configuration.seed),
        "updates": updates,
        "snapshot_every": max(1, updates // int(run.configuration.evaluation.curve_points)),
        # Another method has settings of its own beside those that it shares with SAC
        "model": {str(key): value for key, value in given.items() if key in known},
    }


def train_control(run: FinishedRun, name: str, settings: dict[str, Any]) -> ControlSAC:
    """Train one control in its folder, from its last checkpoint if it was interrupted."""
    folder = run.folder / "controls" / name
    data = make_data(run.configuration, "policy")
    data.setup("fit")
    lightning.seed_everything(settings["seed"], verbose=False)
    learner = ControlSAC(
        simulator=str(run.folder / "simulator.safetensors"),
        cloned_policy=str(run.cloned_policy),
        snapshot_every=settings["snapshot_every"],
        snapshots=str(folder / "snapshots"),
        **settings["model"],
        **learned_filter(run.configuration, run.folder),
    )
    if name == "constant_reward":
        reward: nn.Module = ConstantReward(data.expert_train["observation"], data.expert_train["action"])
    else:
        reward = TrueReward.like_learned(run.task, data.expert_train, data.diverse_train)
    learner.replace_reward(reward)
    trainer = make_trainer(
        folder,
        settings["updates"] // BATCHES_PER_STEP,
        accelerator=run.configuration.get("accelerator", "auto"),
        devices=1,  # also where the run itself had several
    )
    trainer.fit(learner, datamodule=data, ckpt_path=last_checkpoint(folder))
    learner.cpu()
    learner.finished_policy(data).save(folder / "policy.safetensors")
    return learner


def measure_control(
    run: FinishedRun, name: str, learner: ControlSAC, updates: int, episodes: int
) -> list[dict[str, Any]]:
    """For the cloned start and every snapshot: the true return in the Simulator and in the real task.

    ``value`` and ``simulator_discounted_return`` are in the unit of the control's own reward.
    """
    folder = run.folder / "controls" / name
    plain = known_true_reward(run.task)
    assert plain is not None
    last = folder / "policy.safetensors"
    curve = []
    for update, path in policies_over_training(run.cloned_policy, folder / "snapshots", last, updates).items():
        policy = Policy.load(path, control=path != run.cloned_policy)
        simulated = roll_out(run.simulator, policy.act, SIMULATED_EPISODES, run.task.horizon)
        real = real_episodes(policy, run.task, episodes, run.seed)
        summary = summarize_episodes(real, run.seed)
        row: dict[str, Any] = {
            "update": update,
            "simulator_return": float(simulated.returns(plain).mean()),
            "simulator_length": float(simulated.lengths.float().mean()),
            "real_return": summary["mean"],
            "real_ci95": summary["ci95"],
            "real_length": sum(summary["lengths"]) / len(real),
            "real_formula_return": float(recorded(real).returns(plain).mean()),
        }
        belief = recorded_belief(folder / "snapshots" / f"{update:08d}.safetensors")
        if belief is not None:
            row |= compare(learner, policy, belief)
        curve.append(row)
        say(
            f"  update {update:>7}: simulator {row['simulator_return']:7.1f}, real {row['real_return']:7.1f} "
            "(the task's own reward)"
        )
    return curve


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / "control.yaml"
    text = OmegaConf.to_yaml(OmegaConf.create(settings))
    if path.exists() and path.read_text() != text:
        raise UserError(
            f"{folder} holds a control with other settings ({path.name} has them): move it away to train another, "
            "or give the same --updates"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write(path: Path, content: dict[str, Any]) -> None:
    """All of it or nothing: that the file is there means that the control is done."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)
