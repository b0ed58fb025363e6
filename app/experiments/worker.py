"""One piece of an experiment in a process of its own: ``python -m app.experiments.worker FOLDER STAGES``.

FOLDER holds the ``config.yaml`` of a run, or of a shared stage if it lies in STAGES, the folder of all of those.
"""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from app.allocator import keep_freed_memory
from app.errors import Interrupted, UserError
from app.experiments.shared import continue_from, pretraining_of, shared_stages_of, take_over
from app.notices import set_up_warnings
from app.pipeline import finish
from app.run_data import keep_to_data
from app.run_folder import finished_stages
from app.spared_cloning import spared
from app.train import train_stage
from app.trainers import several
from datamodules import DataError


def work(folder: Path, stages: Path) -> None:
    """Do what is left to do in a folder: take over shared stages, train the others, and evaluate a run.

    Raises:
        RuntimeError: if a shared stage before this one is not finished.
    """
    configuration = OmegaConf.load(folder / "config.yaml")
    assert isinstance(configuration, DictConfig)
    if several(configuration.devices):
        raise UserError("an experiment trains each of its runs on one device: leave devices at 1, and see --jobs")
    keep_to_data(configuration, folder)
    shared = shared_stages_of(configuration, stages)
    if folder.parent == stages:
        own = shared.pop()  # what this folder is for
        before = pretraining_of(own, stages)
        if before is not None and before.seconds() is not None:
            continue_from(before, folder)
    for stage in shared:
        if stage.name not in finished_stages(folder):
            take_over(stage, folder)
    for name in configuration.stages:
        if name not in finished_stages(folder) and not spared(configuration, folder, name):
            train_stage(configuration, folder, name)
    if folder.parent != stages:
        finish(configuration, folder)


def main() -> int:
    """Carry out the command line; returns the exit status."""
    set_up_warnings()
    keep_freed_memory()
    try:
        work(Path(sys.argv[1]), Path(sys.argv[2]))
    except (UserError, DataError) as error:
        print(f"offsim: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(f"offsim: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
