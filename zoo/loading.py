"""Finding models: by id in the zoo, or by the path of a file or of a run's folder."""

from __future__ import annotations

import difflib
from pathlib import Path

from zoo.files import ModelFileError
from zoo.ids import EntryId
from zoo.policy import Policy
from zoo.simulator import Simulator

WEIGHTS = Path(__file__).parent / "weights"  # a folder for each entry: TASK/VARIANT-vN
Loadable = Simulator | str | Path


def entries() -> list[EntryId]:
    """The entries that are here, in order."""
    found = [
        EntryId.parse(f"{path.parent.parent.name}/{path.parent.name}")
        for path in WEIGHTS.glob("*/*/simulator.safetensors")
    ]
    return sorted(found)


def load(name: Loadable) -> Simulator:
    """A Simulator.

    Args:
        name: an id of the zoo such as ``hopper/expert-v0``, or without a version for the newest; the path of a
            Simulator's file; that of the folder of an entry or a run, whose last Simulator is meant; or the Simulator
            itself.

    Raises:
        ModelFileError: if there is none, or its file is damaged.
    """
    return name if isinstance(name, Simulator) else Simulator.load(_file(name, "simulator"))


def load_policy(name: str | Path) -> Policy:
    """The policy that was trained in an entry's Simulator; named as in :func:`load`.

    Raises:
        ModelFileError: if there is none, or its file is damaged.
    """
    return Policy.load(_file(name, "policy"))


def entry_folder(text: str) -> Path:
    """The folder of an entry.

    Raises:
        ModelFileError: if there is none, naming what there is.
    """
    there = entries()
    try:
        wanted = EntryId.parse(text)
    except ValueError as error:
        raise ModelFileError(f"{text!r} is neither a file or folder nor an id: {error}") from None
    versions = [each for each in there if (each.task, each.variant) == (wanted.task, wanted.variant)]
    if wanted in versions:
        return WEIGHTS / wanted.task / wanted.folder
    if wanted.version is None and versions:
        return WEIGHTS / wanted.task / versions[-1].folder
    near = difflib.get_close_matches(text, [str(each) for each in there], n=3, cutoff=0.3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it holds {', '.join(map(str, there)) or 'nothing yet'}"
    raise ModelFileError(f"no entry {text} in the zoo: {hint}")


def _file(name: str | Path, kind: str) -> Path:
    path = Path(name)
    if path.is_dir():
        learned = path / "policy_simulator.safetensors"  # Offline ML-IRL learns the reward along with the policy
        return learned if kind == "simulator" and learned.exists() else path / f"{kind}.safetensors"
    if isinstance(name, Path) or path.suffix or path.exists():
        return path
    return entry_folder(name) / f"{kind}.safetensors"
