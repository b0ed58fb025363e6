"""Where entries of the zoo come from and go to: a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from zoo.entries import (
    MANIFEST,
    entries_in,
    find_entry,
    own_folder,
    read_manifest,
    refuse_other_than_shipped,
    verified,
    write_manifest,
)
from zoo.files import ModelFileError
from zoo.ids import EntryId

HUB = "hf://"  # opens the name of a repository: hf://OWNER/NAME


class Source(Protocol):
    """A place that holds entries."""

    def entries(self) -> list[EntryId]:
        """What it holds, in order."""

    def fetch(self, entry: EntryId, folder: Path) -> None:
        """Copy the files of an entry into a folder that is made."""

    def store(self, folder: Path, entry: EntryId) -> None:
        """Take over a folder as an entry that was not there before."""


class Folder:
    """A folder of entries, ``root/TASK/VARIANT-vN``; it is made when something is published to it.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def entries(self) -> list[EntryId]:
        return list(entries_in(self.root))

    def fetch(self, entry: EntryId, folder: Path) -> None:
        _copy(self.root / entry.task / entry.folder, folder)

    def store(self, folder: Path, entry: EntryId) -> None:
        target = self.root / entry.task / entry.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
            _copy(folder, Path(scratch) / "new")
            if target.exists():
                raise ModelFileError(f"{target} exists and is no entry: publish to another folder, or move it away")
            os.rename(Path(scratch) / "new", target)  # fails if another has come in between


class Hub:
    """A repository of the Hugging Face Hub, with the same folders in it.

    Args:
        repository: ``OWNER/NAME``.

    Raises:
        ModelFileError: if the package that reaches it is not installed; of the methods, if it cannot be reached.
    """

    def __init__(self, repository: str) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise ModelFileError("the Hugging Face Hub needs a package more: pip install 'offsim[hub]'") from None
        self.repository = repository
        self.hub: Any = huggingface_hub

    def __str__(self) -> str:
        return HUB + self.repository

    def entries(self) -> list[EntryId]:
        missing = self.hub.errors.RepositoryNotFoundError
        try:
            names = self._ask(lambda: self.hub.HfApi().list_repo_files(self.repository))
        except ModelFileError as error:
            if isinstance(error.__cause__, missing):
                return []  # the first entry makes it
            raise
        found = []
        for folder in (Path(name).parent for name in names if Path(name).name == MANIFEST):
            try:
                found.append(EntryId.parse(folder.as_posix()))
            except ValueError:
                continue
        return sorted(entry for entry in found if entry.version is not None)

    def fetch(self, entry: EntryId, folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            patterns = [f"{entry}/*"]
            self._ask(lambda: self.hub.snapshot_download(self.repository, allow_patterns=patterns, local_dir=scratch))
            _copy(Path(scratch) / entry.task / entry.folder, folder)

    def store(self, folder: Path, entry: EntryId) -> None:
        self._ask(lambda: self.hub.HfApi().create_repo(self.repository, exist_ok=True))
        self._ask(
            lambda: self.hub.HfApi().upload_folder(
                repo_id=self.repository, folder_path=folder, path_in_repo=str(entry), commit_message=f"Add {entry}"
            )
        )

    def _ask(self, question: Any) -> Any:
        try:
            return question()
        except Exception as error:  # whatever the network and the hub raise
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise ModelFileError(
                f"cannot reach {self} ({first[0]}): check the network, the name, and for private ones "
                "`huggingface-cli login`. What is here already works offline: `offsim zoo list`"
            ) from error


def source(text: str) -> Source:
    """The place that a text names: ``hf://OWNER/NAME``, or the path of a folder.

    Raises:
        ModelFileError: if it is neither.
    """
    if text.startswith(HUB):
        return Hub(text.removeprefix(HUB))
    if ":" in text.split("/")[0]:
        raise ModelFileError(f"{text!r} is no place: write {HUB}OWNER/NAME, or the path of a folder")
    return Folder(Path(text))


def refuse_missing(place: Source) -> None:
    """Raise a ``ModelFileError`` if a place that is to be read is no folder that exists."""
    if isinstance(place, Folder) and not place.root.is_dir():
        raise ModelFileError(f"there is no folder {place}: check the path, or write {HUB}OWNER/NAME")


def pull(text: str, place: Source, root: Path | None = None) -> tuple[EntryId, Path]:
    """Fetch an entry, whole and verified or not at all.

    Args:
        text: its id; without a version the newest.
        place: where it is.
        root: folder of entries to put it into; by default the user's own.

    Returns:
        The entry and its folder, which is replaced if it was there.

    Raises:
        ModelFileError: if it is not there, or what comes is not what was published, or is another than that which
            comes with offsim under this id.
    """
    refuse_missing(place)
    entry, _ = find_entry(text, {each: Path() for each in place.entries()})
    target = (root or own_folder()) / entry.task / entry.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
        folder = Path(scratch) / "new"
        place.fetch(entry, folder)
        verify(folder, entry)
        refuse_other_than_shipped(folder, entry)
        if target.exists():
            os.replace(target, Path(scratch) / "old")
        os.replace(folder, target)
    return entry, target


def push(folder: Path, entry: EntryId, place: Source) -> None:
    """Publish a folder as an entry.

    Raises:
        ModelFileError: if there, or with offsim, is an entry of that id: a published one never changes.
        ValueError: if the id has no version.
    """
    if entry.version is None:
        raise ValueError(f"{entry} has no version: publish it as {entry}-v0")
    there = place.entries()
    if entry in there:
        newest = max(each.version or 0 for each in there if (each.task, each.variant) == (entry.task, entry.variant))
        raise ModelFileError(
            f"{place} has an entry {entry}, and a published one never changes: publish this one as "
            f"{EntryId(entry.task, entry.variant, newest + 1)}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / entry.folder
        _copy(folder, copy)
        write_manifest(copy, entry)
        refuse_other_than_shipped(copy, entry)
        place.store(copy, entry)


def verify(folder: Path, entry: EntryId) -> None:
    """Make sure that an entry's folder holds what was published and nothing else.

    Raises:
        ModelFileError: if it does not.
    """
    listed = read_manifest(folder, entry)
    for name in listed:
        verified(folder, entry, name)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if added := sorted(found - {*listed, MANIFEST}):
        raise ModelFileError(f"{folder} holds {added[0]}, which was not published as {entry}: it is not to be trusted")


def _copy(folder: Path, target: Path) -> None:
    try:
        shutil.copytree(folder, target)
    except shutil.Error as error:
        raise ModelFileError(f"cannot copy {folder}: {error.args[0][0][2]}") from error
