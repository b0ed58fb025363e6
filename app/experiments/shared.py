"""Stages that several runs have in common, trained once in a folder of their own.

What a stage learns is decided by the settings that it and the stages before it read. Two runs in which these agree
would train the same thing twice; here both take it from ``stages/TASK-seedS-STAGE-KEY``, where KEY is a hash of those
settings.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from app.experiments.grid import settings_key
from app.run_folder import finished_stages, note_stage

NAMES = ("behaviour_cloning", "simulator")  # stages that can be shared, in their order
COMMON = ("task", "seed", "accelerator", "devices", "data")  # what every stage reads
NOT_COPIED = ("*.ckpt",)  # resuming happens where a stage is trained


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
        return finished_stages(self.folder).get(self.name)


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
        settings = {key: plain[key] for key in (*COMMON, *names[:count])} | {"stages": names[:count]}
        folder = root / f"{settings['task']}-seed{settings['seed']}-{name}-{settings_key(settings)}"
        stages.append(SharedStage(name, folder, settings))
    return stages


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
    note_stage(folder, stage.name, seconds, shared=stage.folder.name)


def _model(folder: Path, stage: str) -> Path:
    return folder / f"{stage}.safetensors"
