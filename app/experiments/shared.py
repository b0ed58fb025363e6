"""Stages that several runs have in common, trained once in a folder of their own.

What a stage learns is decided by the settings that it and the stages before it read. Two runs in which these agree
would train the same thing twice; here both take it from ``stages/TASK-seedS-STAGE-KEY``, where KEY is a hash of those
settings. Simulators that differ only in their game have the updates before it in common: these are a stage as well,
``pretraining``, whose checkpoint the games continue.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from app.checkpoints import LAST
from app.configuration import comparable
from app.experiments.grid import settings_key
from app.run_folder import devices, finished_stages, note_stage, shared_stages
from lit_modules.offsim import GAME_SETTINGS

# Stages that can be shared, in their order
NAMES = ("behaviour_cloning", "simulator", "weighted_cloning", "dynamics_reward")
COMMON = ("task", "seed", "accelerator", "devices", "matmul_precision", "data")  # what every stage reads
NOT_COPIED = ("*.ckpt",)  # resuming happens where a stage is trained
PRETRAINING = "pretraining"  # the simulator stage up to its game
CHECKPOINT = Path("simulator") / LAST


@dataclass(frozen=True)
class SharedStage:
    """A stage of one or several runs.

    Attributes:
        name: of the stage.
        folder: where it is trained.
        settings: what decides its outcome, as much of a run's configuration as training it needs.
    """

    name: str
    folder: Path
    settings: dict[str, Any]

    @property
    def configuration(self) -> DictConfig:
        """The settings as a configuration."""
        configuration = OmegaConf.create(self.settings)
        assert isinstance(configuration, DictConfig)
        return configuration

    def seconds(self) -> float | None:
        """How long its training took; ``None`` while it is not done."""
        return finished_stages(self.folder).get("simulator" if self.name == PRETRAINING else self.name)


def shared_stages_of(configuration: DictConfig, root: Path) -> list[SharedStage]:
    """The stages of a run that can be shared, in their order.

    Args:
        configuration: of a run, or of a shared stage itself.
        root: folder of all shared stages.
    """
    plain = OmegaConf.to_container(configuration)
    assert isinstance(plain, dict)
    names = [name for name in NAMES if name in plain["stages"]]
    stages = []
    for count, name in enumerate(names, start=1):
        settings = {key: plain[key] for key in (*COMMON, *names[:count]) if key in plain} | {"stages": names[:count]}
        stages.append(_stage(name, settings, root))
    return stages


def pretraining_of(stage: SharedStage, root: Path) -> SharedStage | None:
    """What a simulator stage does before its game, as a stage; ``None`` for other stages, or if there is no game."""
    if stage.name != "simulator":
        return None
    simulator = stage.settings["simulator"]
    model, updates = simulator["model"], simulator["model"]["pretraining_updates"]
    if not 0 < updates < simulator["updates"]:
        return None
    before = {key: value for key, value in model.items() if key not in GAME_SETTINGS}
    # Which data is read depends on whether there is a margin at all
    before["margin_weight"] = float(model["margin_weight"] > 0)
    settings = stage.settings | {"simulator": simulator | {"updates": updates, "model": before}}
    return _stage(PRETRAINING, settings, root)


def continue_from(pretraining: SharedStage, folder: Path) -> None:
    """Have the simulator stage in ``folder`` begin where a finished pretraining has ended, unless it has begun."""
    seconds = pretraining.seconds()
    assert seconds is not None
    if not (folder / CHECKPOINT).exists():
        (folder / CHECKPOINT).parent.mkdir(exist_ok=True)
        device = devices(pretraining.folder).get("simulator")
        note_stage(folder, PRETRAINING, seconds, shared=pretraining.folder.name, device=device)
        copied = folder / CHECKPOINT.with_suffix(".copied")
        shutil.copyfile(pretraining.folder / CHECKPOINT, copied)
        copied.rename(folder / CHECKPOINT)  # a copy that was interrupted is no checkpoint


def take_over(stage: SharedStage, folder: Path) -> None:
    """Copy what a finished stage left, its checkpoints apart, into the folder of a run, and note it there as done."""
    seconds = stage.seconds()
    if seconds is None:
        raise RuntimeError(f"{stage.folder} is not finished")
    shutil.copytree(
        stage.folder / stage.name,
        folder / stage.name,
        ignore=shutil.ignore_patterns(*NOT_COPIED),
        dirs_exist_ok=True,
    )
    shutil.copyfile(_model(stage.folder, stage.name), _model(folder, stage.name))
    # Last, so that a copy that was interrupted is made again
    if PRETRAINING in (noted := finished_stages(stage.folder)):
        own = shared_stages(stage.folder)[PRETRAINING]
        note_stage(folder, PRETRAINING, noted[PRETRAINING], own, devices(stage.folder).get(PRETRAINING))
    note_stage(folder, stage.name, seconds, stage.folder.name, devices(stage.folder).get(stage.name))


def _model(folder: Path, stage: str) -> Path:
    return folder / f"{stage}.safetensors"


def _stage(name: str, settings: dict[str, Any], root: Path) -> SharedStage:
    return SharedStage(
        name, root / f"{settings['task']}-seed{settings['seed']}-{name}-{settings_key(comparable(settings))}", settings
    )
