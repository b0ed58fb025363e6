"""The training behind ``offsim collect``: an online expert in a run folder that an interrupted command continues."""

from __future__ import annotations

import inspect
import json
import logging
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from app.checkpoints import LAST, WholeCheckpointIO
from app.errors import UserError
from app.interruption import SaveWhenInterrupted
from app.progress import training_progress
from lit_modules.compilation import CHOICES
from lit_modules.online_sac import SEEDS_APART, OnlineSAC
from zoo.episodes import Episode, interleaved_episodes

RUN_SETTINGS = ("iterations", "checkpoint_every")  # the rest are OnlineSAC's
MAY_CHANGE = ("iterations", "compile")  # while a training goes on


@dataclass(frozen=True)
class Evaluation:
    """One evaluation during training.

    Attributes:
        updates: gradient updates before it.
        steps: transitions seen before it.
        mean_return: mean return of its deterministic episodes.
        snapshot: the policy it evaluated.
    """

    updates: int
    steps: int
    mean_return: float
    snapshot: Path


class Training:
    """What a training left in its run folder.

    Args:
        folder: run folder, holding ``last.ckpt`` and ``snapshots``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _checkpoint(self) -> dict[str, Any]:
        # mapped, so that the evaluations are read without the replay beside them
        path = self.folder / LAST
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            state = checkpoint["online_sac"]
            _ = self._listed(state), int(state["updates"]), int(checkpoint["global_step"])
            _ = checkpoint["hyper_parameters"]
        # What a damaged file makes torch's reader stumble over depends on where the damage is
        except Exception as error:
            raise UserError(
                f"{path} is not a checkpoint of this command, or it is damaged: remove it to train from the start"
            ) from error
        return checkpoint

    @property
    def iterations(self) -> int:
        """Iterations done; 0 before the first checkpoint."""
        return int(self._checkpoint["global_step"]) if (self.folder / LAST).exists() else 0

    @property
    def can_continue(self) -> bool:
        """Whether the checkpoint holds the environments, as those of older versions do not."""
        return "environments" in self._checkpoint["online_sac"]

    @property
    def updates(self) -> int:
        return int(self._checkpoint["online_sac"]["updates"])

    @property
    def evaluations(self) -> list[Evaluation]:
        """Every evaluation, oldest first."""
        return self._listed(self._checkpoint["online_sac"])

    def _listed(self, state: dict[str, Any]) -> list[Evaluation]:
        return [
            Evaluation(
                updates=int(entry["updates"]),
                steps=int(entry["steps"]),
                mean_return=float(entry["return"]),
                snapshot=self.folder / "snapshots" / f"{int(entry['updates']):08d}.safetensors",
            )
            for entry in state["evaluations"]
        ]

    def expert(self) -> Evaluation:
        """The best evaluation of the whole training."""
        if not self.evaluations:
            raise UserError(
                f"the training in {self.folder} ended before its first evaluation: use more --iterations, or a "
                "smaller evaluate_every"
            )
        return max(self.evaluations, key=lambda evaluation: evaluation.mean_return)

    def part_way(self, share: float, random_return: float) -> Evaluation:
        """The first evaluation that went this share of the way from random actions' return to the expert's.

        Where the worst evaluation was below random actions, the way is from there: returns may be negative.
        """
        start = min(random_return, *(evaluation.mean_return for evaluation in self.evaluations))
        wanted = start + share * (self.expert().mean_return - start)
        return next(evaluation for evaluation in self.evaluations if evaluation.mean_return >= wanted)

    def episodes(self, steps: int) -> list[Episode]:
        """The episodes of the first ``steps`` transitions of the training; those running then end there, truncated."""
        state, settings = self._checkpoint["online_sac"], self._checkpoint["hyper_parameters"]
        seen = int(state["vector_steps"]) * int(settings["environments"])
        replay = state["replay"]
        if seen > len(replay["action"]):
            raise UserError(
                f"of the {seen} transitions of this training only the last {len(replay['action'])} were kept: the "
                "replay data set needs a training with a larger buffer_size"
            )
        return interleaved_episodes(
            replay["observation"][:steps].numpy(),
            replay["action"][:steps].numpy(),
            replay["next"]["observation"][:steps].numpy(),
            replay["next"]["reward"][:steps, 0].numpy(),
            replay["next"]["terminated"][:steps, 0].numpy(),
            replay["next"]["truncated"][:steps, 0].numpy(),
            int(settings["environments"]),
            first_seed=int(settings["seed"]) * SEEDS_APART,
        )


def read_settings(task: str, path: str | None = None) -> dict[str, Any]:
    """Settings of a training: those that ship for a task, or another YAML file.

    Raises:
        UserError: if there is no such file, or it has an unknown name or a value of the wrong type.
    """
    source = Path(path) if path else files("configs").joinpath("collect", f"{task}.yaml")
    if not source.is_file():
        raise UserError(
            f"no settings file at {path}"
            if path
            else f"no settings ship for training an expert of {task}: name a file with --config"
        )
    try:
        read = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{source} is not a YAML file: {error}") from error
    if not isinstance(read, dict):
        raise UserError(f"{source} has to hold one setting per line, as `name: value`")
    parameters = inspect.signature(OnlineSAC).parameters
    defaults: dict[str, Any] = {"iterations": 1000, "checkpoint_every": 50}
    defaults |= {name: parameters[name].default for name in parameters if name not in ("task", "snapshots", "seed")}
    for name, value in read.items():
        if name not in defaults:
            raise UserError(f"{source}: unknown setting {name!r}; known are {', '.join(defaults)}")
        if not _fits(value, defaults[name]):
            raise UserError(
                f"{source}: {name} is {value!r}, where a value like {_plain(defaults[name])!r} was expected"
            )
    return {name: _plain(read.get(name, default)) for name, default in defaults.items()}


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list) and bool(value) and all(_fits(item, 1) for item in value)
    if isinstance(default, str):  # `compile` alone
        return value in CHOICES
    if isinstance(default, bool):
        return isinstance(value, bool)
    kinds = (int, float) if isinstance(default, float) else int
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def claim_folder(folder: Path, task: str, seed: int, settings: dict[str, Any], run: str) -> None:
    """Reserve a new run folder for these settings, or make sure that an existing one was started with them.

    The number of iterations may change, as more of them continue the same training, and so may ``compile``, which
    earlier versions did not have.

    Raises:
        UserError: if the folder belongs to another run or holds other files.
    """
    written = {"task": task, "seed": seed} | {name: settings[name] for name in settings if name not in MAY_CHANGE}
    file = folder / "run.json"
    if file.exists():
        found = json.loads(file.read_text())["settings"]
        differing = sorted(name for name in written | found if written.get(name) != found.get(name))
        if differing:
            raise UserError(
                f"{folder} holds a run with another {', '.join(differing)}: choose another folder with --out, or "
                "repeat that run's command to continue it"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds no run of this command: choose another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "run.json.partial"
    partial.write_text(json.dumps({"run": run, "settings": written}, indent=1) + "\n")
    os.replace(partial, file)


def run_name(folder: Path) -> str | None:
    """The unique name of the run in a folder, ``None`` if there is none yet."""
    file = folder / "run.json"
    return str(json.loads(file.read_text())["run"]) if file.exists() else None


def train_expert(task: str, seed: int, settings: dict[str, Any], folder: Path) -> Training:
    """Train in ``folder`` until ``settings['iterations']``, from its last checkpoint if it has one.

    Raises:
        UserError: if the settings do not go together.
    """
    done, wanted = Training(folder).iterations, settings["iterations"]
    if done >= wanted:
        print(f"training: all {done} iterations were done before", flush=True)
        return _noted(Training(folder))
    if done and not Training(folder).can_continue:
        raise UserError(f"an older version of offsim wrote {folder / LAST}, and only that version can continue it")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning", "torchrl"):
        logging.getLogger(name).setLevel(logging.WARNING)
    lightning.seed_everything(seed, verbose=False)
    agent = {name: value for name, value in settings.items() if name not in RUN_SETTINGS}
    try:
        module = OnlineSAC(task, snapshots=str(folder / "snapshots"), seed=seed, **agent)
    except ValueError as error:
        raise UserError(str(error)) from error
    start = f"from iteration {done}" if done else "from the start"
    print(f"training: {wanted} iterations, {start}; stopped, the same command continues it", flush=True)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=wanted,
        logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
        log_every_n_steps=1,
        callbacks=[
            ModelCheckpoint(
                dirpath=folder,
                save_last=True,
                save_top_k=0,
                every_n_train_steps=settings["checkpoint_every"],
                enable_version_counter=False,
            ),
            *training_progress("training"),
            SaveWhenInterrupted(),
        ],
        plugins=[WholeCheckpointIO(), LightningEnvironment()],  # whatever a scheduler's variables say
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # The module steps its optimizers itself and restores its own data, so these do not apply to it.
        for message in (
            ".*pre-optimization state.*",
            ".*dataloader is not resumable.*",
            ".*num_workers.*",
            ".*LeafSpec.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(module, ckpt_path=str(folder / LAST) if done else None, weights_only=True)
    trainer.save_checkpoint(folder / LAST)
    for environment in module.environments:
        environment.close()
    return _noted(Training(folder))


def _noted(training: Training) -> Training:
    """A training with its evaluations in a file beside it."""
    evaluations = [
        {"updates": entry.updates, "steps": entry.steps, "return": entry.mean_return} for entry in training.evaluations
    ]
    (training.folder / "evaluations.json").write_text(json.dumps(evaluations, indent=1) + "\n")
    return training
