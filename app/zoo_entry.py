"""A finished run as an entry of the zoo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from app.cards.page import CARD, CARD_FOLDER
from app.errors import UserError
from app.evaluate import refuse_misfit
from zoo import ModelFileError, load, load_policy
from zoo.ids import EntryId
from zoo.outputs import write_outputs
from zoo.policy import Policy
from zoo.precision import EQUAL, differences, in_half_precision, is_in_half_precision
from zoo.simulator import Simulator
from zoo.tasks import TASKS

LARGEST = 6_000_000  # bytes: a clone of a repository with entries stays light
COPIED = ("config.yaml", "metrics.json")
FIGURES = ("task", "seed", "data", "versions", "wall_seconds")  # of metrics.json, that cards and users read
NEEDED = ("policy.safetensors", *COPIED)
HALF = "Weight matrices are kept in half precision."
FULL = "Weights are kept in full precision."
UNITS = {  # of zoo.precision.differences
    "action": "actions by {:.1e} half ranges",
    "next_observation": "next states by {:.1e} standardised differences",
    "reward": "rewards by {:.1e} of the demonstrations'",
    "uncertainty": "uncertainty by {:.1e} medians",
    "end": "ends by {:.1e}",
}


def origin_of(folder: Path) -> dict[str, Any]:
    """The ``metrics.json`` of a run or entry.

    Raises:
        UserError: if it does not say what a card tells of where a Simulator comes from.
    """
    path = folder / "metrics.json"
    try:
        origin = dict(json.loads(path.read_text(encoding="utf-8")))
        missing = [name for name in FIGURES if name not in origin]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        if not all({"id", "sha256"} <= set(each) for each in origin["data"]):
            raise ValueError("its data has no ids and checksums")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}): a card says where a Simulator comes from") from error
    return origin


def refuse_other_task(simulator: Simulator, entry: EntryId, what: str) -> None:
    """Raise a ``UserError`` if an id names another task than its Simulator was made for."""
    if simulator.task is not None and simulator.task != entry.task:
        raise UserError(f"{what} is for task {simulator.task}: name it {simulator.task}/{entry.folder}")
    if simulator.task is None and entry.task in TASKS:
        raise UserError(f"{what} is for a system of its own, and {entry.task} is another: choose another name")


def kept(simulator: Simulator, policy: Policy) -> str:
    """In which precision the models of an entry are, in a sentence for the card."""
    return HALF if is_in_half_precision(simulator, policy) else FULL


def as_published(simulator: Simulator, policy: Policy) -> tuple[Simulator, Policy, str]:
    """The models of a run as an entry will hold them: in half precision, if that changes nothing that matters.

    Returns:
        Both models, and what that changes, in a sentence for the card.
    """
    halves = in_half_precision(simulator, policy)
    changes = differences(simulator, policy, *halves)
    figures = ", ".join(UNITS[name].format(value) for name, value in changes.items())
    if any(value > EQUAL[name] for name, value in changes.items()):
        return simulator, policy, f"{FULL} Half of it would change {figures}."
    return *halves, f"{HALF} Where the policy goes, that changes {figures}."


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
    origin_of(run)
    simulator, policy = load(run), load_policy(run)
    refuse_misfit(simulator, policy, str(run))
    refuse_other_task(simulator, entry, str(run))
    if not simulator.reward_learned:
        raise ModelFileError(f"the reward of the Simulator in {run} was never trained: no policy can be trained in it")
    folder.mkdir(parents=True)
    simulator, policy, _ = as_published(simulator, policy)
    half = is_in_half_precision(simulator, policy)
    simulator.save(folder / "simulator.safetensors", half)
    policy.save(folder / "policy.safetensors", half)
    write_outputs(folder, simulator, policy)
    for name in COPIED:
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
