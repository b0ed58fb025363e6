"""Loading models: by id from the zoo, or by the path of a file or of a run's folder."""

from __future__ import annotations

from pathlib import Path

from zoo.entries import entries, find_entry, verified
from zoo.files import ModelFileError
from zoo.ids import PATTERN, EntryId
from zoo.policy import Policy
from zoo.simulator import Simulator
from zoo.tasks import TASKS, is_known

Loadable = Simulator | str | Path


def load(name: Loadable) -> Simulator:
    """A Simulator.

    Args:
        name: an id of the zoo such as ``hopper/expert-v0``, or without a version for the newest; the path of a
            Simulator's file; that of the folder of a run, whose last Simulator is meant; or the Simulator itself.

    Raises:
        ModelFileError: if there is none, its file is damaged, or an entry is not what was published.
    """
    if isinstance(name, Simulator):
        return name
    simulator = Simulator.load(_file(name, "simulator"))
    _refuse_misfit(name, simulator.task, simulator.observation_size, simulator.action_size)
    return simulator


def load_policy(name: str | Path) -> Policy:
    """The policy that was trained in an entry's Simulator; named as in :func:`load`, and with its errors."""
    return Policy.load(_file(name, "policy"))


def named(name: Loadable | None) -> Loadable:
    """What an environment is made of.

    Raises:
        ValueError: if it was not said.
    """
    if name is None:
        raise ValueError('no Simulator was named: say simulator="RUN_DIR", the path of its file, or an id of the zoo')
    return name


def located(name: str | Path) -> Path | EntryId:
    """What a name means: an entry, or a path.

    A text that is the id of an entry which is here means that entry, whatever is on the disk; ``./task/variant-v0`` is
    a path.

    Raises:
        ModelFileError: if it can mean neither.
    """
    path = Path(name)
    if isinstance(name, str) and PATTERN.fullmatch(name):
        entry = EntryId.parse(name)
        return entry if entry in entries() or not path.exists() else path
    if isinstance(name, Path) or path.suffix or path.exists():
        return path
    raise ModelFileError(f"{name!r} is neither a file or folder nor an id such as hopper/expert-v0")


def entry_or_path(name: str | Path) -> tuple[EntryId | None, Path]:
    """An entry and its folder, or ``None`` and the path that a name is.

    Raises:
        ModelFileError: if it is neither a path nor the id of an entry that is here.
    """
    found = located(name)
    if not isinstance(found, EntryId):
        return None, found
    try:
        return find_entry(str(found))
    except ModelFileError as error:
        raise ModelFileError(f"there is no file or folder {name} here, and {error}") from None


def _file(name: str | Path, kind: str) -> Path:
    entry, found = entry_or_path(name)
    if entry is not None:
        return verified(found, entry, f"{kind}.safetensors")
    if found.is_dir():
        learned = found / "policy_simulator.safetensors"  # Offline ML-IRL learns the reward along with the policy
        return learned if kind == "simulator" and learned.exists() else found / f"{kind}.safetensors"
    return found


def _refuse_misfit(name: str | Path, task: str | None, observation_size: int, action_size: int) -> None:
    """Raise unless the sizes are those of the task, where that is known."""
    if task is None:
        return
    if not isinstance(task, str) or not is_known(task):
        raise ModelFileError(f"{name} is for task {task!r}, which this version does not know: update offsim")
    wanted = (TASKS[task].observation_size, TASKS[task].action_size)
    if (observation_size, action_size) != wanted:
        raise ModelFileError(
            f"{name} observes {observation_size} and acts with {action_size} numbers, where task {task} has "
            f"{wanted[0]} and {wanted[1]}: it was made for another version of that task"
        )
