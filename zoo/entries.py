"""Entries of the zoo: folders of files, with a list of them that shows whether one is what was published.

``entry.json`` names the entry and, for each of its files, size and SHA-256. Shipped entries are in ``zoo/weights``,
fetched ones in a folder of the user's: ``$OFFSIM_ZOO``, or ``offsim/zoo`` in the cache.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.files import ModelFileError, sha256
from zoo.ids import EntryId

MANIFEST = "entry.json"
FORMAT_VERSION = 1
SHIPPED = Path(__file__).parent / "weights"


def own_folder() -> Path:
    """Where fetched entries are kept; it may not exist."""
    given = os.environ.get("OFFSIM_ZOO")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "offsim" / "zoo"


def entries_in(root: Path) -> dict[EntryId, Path]:
    """The entries below a folder, in order, each with its own folder ``root/TASK/VARIANT-vN``."""
    found = {}
    for manifest in root.glob(f"*/*/{MANIFEST}"):
        try:
            entry = EntryId.parse(f"{manifest.parent.parent.name}/{manifest.parent.name}")
        except ValueError:
            continue  # no folder of ours
        if entry.version is not None:
            found[entry] = manifest.parent
    return dict(sorted(found.items()))


def entries() -> dict[EntryId, Path]:
    """The entries that are here; a shipped one goes before a fetched one of the same id."""
    try:
        own = entries_in(own_folder())
    except (OSError, RuntimeError):  # a folder that cannot be read, or a user without a home
        own = {}
    return dict(sorted((own | entries_in(SHIPPED)).items()))


def find_entry(text: str, there: Mapping[EntryId, Path] | None = None) -> tuple[EntryId, Path]:
    """An entry and its folder, by id; without a version the newest.

    Args:
        text: the id.
        there: where to look; by default what is here.

    Raises:
        ModelFileError: if there is none, naming what there is.
    """
    there = entries() if there is None else there
    try:
        wanted = EntryId.parse(text)
    except ValueError as error:
        raise ModelFileError(f"{text!r} is neither a file or folder nor an id: {error}") from None
    versions = [each for each in there if (each.task, each.variant) == (wanted.task, wanted.variant)]
    entry = wanted if wanted.version is not None else max(versions, default=wanted)
    if entry in there:
        return entry, there[entry]
    near = difflib.get_close_matches(text, [str(each) for each in there], n=3, cutoff=0.3)
    if Path(text).is_dir():
        raise ModelFileError(f"{text} is a folder and no entry of the zoo: `offsim report {text}` shows a run")
    hint = f"did you mean {' or '.join(near)}?" if near else f"it holds {', '.join(map(str, there)) or 'nothing yet'}"
    raise ModelFileError(f"no entry {text} in the zoo: {hint}")


def write_manifest(folder: Path, entry: EntryId) -> None:
    """List the files of an entry's folder, so that it becomes one."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }
    content = {"format": FORMAT_VERSION, "id": str(entry), "files": files}
    partial = folder / f".{MANIFEST}.{os.getpid()}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / MANIFEST)


def read_manifest(folder: Path, entry: EntryId) -> dict[str, dict[str, Any]]:
    """The files of an entry with their sizes and checksums.

    Raises:
        ModelFileError: if the list is damaged, newer than this version, or that of another entry.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, named, files = content["format"], content["id"], content["files"]
        listed = {
            str(name): {"bytes": int(each["bytes"]), "sha256": str(each["sha256"])} for name, each in files.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(
            f"{path} is no list of an entry's files, or it is damaged: fetch the entry again"
        ) from error
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in listed):
        raise ModelFileError(f"{path} names files outside of its folder: it is not to be trusted")
    if version != FORMAT_VERSION:
        raise ModelFileError(f"{path} has format {version}, this version reads {FORMAT_VERSION}: update offsim")
    if named != str(entry):
        raise ModelFileError(f"{path} is that of {named}, in the place of {entry}: fetch the entry again")
    return listed


def refuse_other_than_shipped(folder: Path, entry: EntryId) -> None:
    """Raise a ``ModelFileError`` if an entry of that id comes with offsim and is another: that one would be loaded."""
    shipped = SHIPPED / entry.task / entry.folder
    if shipped.is_dir() and read_manifest(shipped, entry) != read_manifest(folder, entry):
        raise ModelFileError(f"{entry} comes with offsim, and is another: choose an id of your own")


def verified(folder: Path, entry: EntryId, name: str) -> Path:
    """A file of an entry, which is what was published.

    Raises:
        ModelFileError: if it is not, or is not there.
    """
    listed = read_manifest(folder, entry)
    path = folder / name
    if name not in listed:
        raise ModelFileError(f"entry {entry} has no {name}: it holds {', '.join(sorted(listed))}")
    shipped = " (it comes with offsim: install that again)" if path.is_relative_to(SHIPPED) else ""
    if not path.is_file():
        raise ModelFileError(
            f"{path} is missing: fetch {entry} again with `offsim zoo pull {entry} --from PLACE`{shipped}"
        )
    if path.stat().st_size != listed[name]["bytes"] or sha256(path) != listed[name]["sha256"]:
        raise ModelFileError(
            f"{path} is not what was published as {entry}: it is damaged or was changed. Fetch it again with "
            f"`offsim zoo pull {entry} --from PLACE`{shipped}, or load the file by its path if you changed it yourself"
        )
    return path
