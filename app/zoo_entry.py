"""A finished run as an entry of the zoo."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.cards.page import CARD, CARD_FOLDER
from app.errors import UserError
from zoo import ModelFileError, load, load_policy
from zoo.ids import EntryId
from zoo.outputs import write_outputs
from zoo.tasks import TASKS

LARGEST = 6_000_000  # bytes: a clone of a repository with entries stays light
NEEDED = ("policy.safetensors", "config.yaml", "metrics.json")


def entry_of_run(run: Path, folder: Path, entry: EntryId) -> Path:
    """Copy what an entry holds from the folder of a run into an empty one.

    Args:
        run: of the run.
        folder: to fill.
        entry: under which id it will be published.

    Returns:
        ``folder``.

    Raises:
        UserError: if the run is not finished, was for another task, or is too large.
        ModelFileError: if a model of it cannot be read.
    """
    missing = [name for name in NEEDED if not (run / name).is_file()]
    if missing:
        raise UserError(f"{run} is no finished run of `offsim train`: it lacks {', '.join(missing)}")
    simulator, policy = load(run), load_policy(run)
    if simulator.task is not None and simulator.task != entry.task:
        raise UserError(f"{run} is for task {simulator.task}: name it {simulator.task}/{entry.folder}")
    if simulator.task is None and entry.task in TASKS:
        raise UserError(f"{run} is for a system of its own, and {entry.task} is another: choose another name")
    if not simulator.reward_learned:
        raise ModelFileError(f"the reward of the Simulator in {run} was never trained: no policy can be trained in it")
    folder.mkdir(parents=True)
    simulator.save(folder / "simulator.safetensors")
    write_outputs(folder, simulator, policy)
    for name in NEEDED:
        shutil.copyfile(run / name, folder / name)
    if (run / CARD).is_file():
        _, text = (run / CARD).read_text(encoding="utf-8").split("\n", 1)  # it was measured under the run's name
        (folder / CARD).write_text(f"# {entry}\n{text}", encoding="utf-8")
        if (run / CARD_FOLDER).is_dir():
            shutil.copytree(run / CARD_FOLDER, folder / CARD_FOLDER)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LARGEST:
        raise UserError(f"{run} would be an entry of {size / 1e6:.1f} MB, where {LARGEST / 1e6:.0f} MB are the most")
    return folder
