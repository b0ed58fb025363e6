"""``offsim zoo``: list, show, fetch, publish, measure and export pretrained Simulators and their policies."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from app.arguments import find_task, positive, seed
from app.cards.limits import limits
from app.cards.measure import measure
from app.cards.page import CARD, CARD_FOLDER, VIDEO, write_card, write_recorded_card
from app.cards.recorded import held_out_by_training, measure_recorded, recordings_of
from app.cards.recorded_limits import recorded_limits
from app.cards.video import write_video
from app.errors import UserError
from app.evaluate import refuse_misfit
from app.own_system import evaluation_command
from app.places import refuse_unwritable_file, refuse_unwritable_folder
from app.zoo_entry import as_published, entry_of_run, kept, origin_of, refuse_other_task
from app.zoo_export import export_policy
from datamodules import DataError
from zoo import ModelFileError, load, load_policy
from zoo.entries import entries, find_entry, own_folder, read_manifest, verified
from zoo.ids import EntryId
from zoo.loading import entry_or_path
from zoo.sources import pull, push, refuse_missing, source, verify

PLACE = "a folder of entries, or hf://OWNER/NAME for a repository of the Hugging Face Hub"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = (
        "An entry of the zoo is a Simulator, the policy that was trained in it, and a card that says how far to\n"
        "trust them. Its id is task/variant-vN; a published one never changes.\n"
        "Entries are shipped with offsim or fetched into $OFFSIM_ZOO (default: offsim/zoo in the cache)."
    )
    parser.epilog = (
        "examples:\n"
        "  offsim zoo pull hopper/expert-v0 --from hf://OWNER/NAME\n"
        "  offsim zoo push runs/hopper-seed0 --as hopper/mine-v0 --to shared/zoo"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="entries that are here, or at another place")
    listing.add_argument("--from", dest="place", metavar="PLACE", help=PLACE)

    show = actions.add_parser("show", help="the card and the files of an entry")
    show.add_argument("id", metavar="ID")

    fetch = actions.add_parser("pull", help="fetch an entry, verified")
    fetch.add_argument("id", metavar="ID", help="without -vN the newest version")
    fetch.add_argument("--from", dest="place", metavar="PLACE", required=True, help=PLACE)

    publish = actions.add_parser("push", help="publish an entry, or a finished run as one")
    publish.add_argument("what", metavar="ID_OR_RUN_DIR")
    publish.add_argument("--as", dest="id", metavar="ID", help="id to publish it under, needed for a run")
    publish.add_argument("--to", dest="place", metavar="PLACE", required=True, help=PLACE)

    measure_it = actions.add_parser(
        "evaluate", help="measure an entry or a run against the real task or recorded episodes, and write a card"
    )
    measure_it.add_argument("what", metavar="ID_OR_RUN_DIR")
    measure_it.add_argument(
        "--data",
        nargs="+",
        metavar="ID",
        help="measure against recorded episodes, such as logs of the policy at work, instead of the real task "
        "(default for systems of your own: what the training held out)",
    )
    measure_it.add_argument(
        "--episodes", type=positive, default=10, metavar="N", help="real episodes of each policy (default: 10)"
    )
    measure_it.add_argument("--seed", type=seed, default=5000, metavar="S", help="of the first one (default: 5000)")
    measure_it.add_argument("--no-video", action="store_true", help="for machines that cannot draw")
    measure_it.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the card (default: of the run; card-TASK-VARIANT-vN of an id)",
    )

    export = actions.add_parser("export", help="write a policy as ONNX, and check that it acts the same")
    export.add_argument("what", metavar="ID_OR_PATH", help="an id, a folder of a run, or a policy's file")
    export.add_argument("--to", dest="file", metavar="FILE", type=Path, required=True, help="such as policy.onnx")


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    try:
        ACTIONS[arguments.action](arguments)
    except (DataError, ModelFileError) as error:
        raise UserError(str(error)) from error
    except BrokenPipeError:  # of who reads the output, and no file
        raise
    except OSError as error:
        raise UserError(f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}") from error
    return 0


def list_entries(arguments: argparse.Namespace) -> None:
    """One line for each entry."""
    if arguments.place is not None:
        place = source(arguments.place)
        refuse_missing(place)
        print("\n".join(str(entry) for entry in place.entries()) or f"{place} holds no entries")
        return
    here = entries()
    for entry, folder in here.items():
        try:
            size = f"{sum(each['bytes'] for each in read_manifest(folder, entry).values()) / 1e6:.1f} MB"
        except ModelFileError:
            size = "damaged"
        origin = "fetched" if folder.is_relative_to(own_folder()) else "shipped"
        print(f"{entry!s:32} {size:>9}  {origin}  gymnasium.make('zoo:{entry.environment}')")
    if not here:
        print("no entries yet: fetch one with `offsim zoo pull ID --from PLACE`")


def show_entry(arguments: argparse.Namespace) -> None:
    """The card, then the files."""
    entry, folder = find_entry(arguments.id)
    listed = read_manifest(folder, entry)
    if CARD in listed:
        print(verified(folder, entry, CARD).read_text(encoding="utf-8").rstrip(), end="\n\n")
    print(f"{entry}, in {folder}:")
    for name, file in listed.items():
        print(f"  {name:32} {file['bytes']:>12,} bytes  sha256 {file['sha256'][:16]}...")


def pull_entry(arguments: argparse.Namespace) -> None:
    """Fetch, and say where it is now."""
    entry, folder = pull(arguments.id, source(arguments.place))
    print(f"{entry} is in {folder}: zoo.load({str(entry)!r})")


def push_entry(arguments: argparse.Namespace) -> None:
    """Publish an entry as it is, or a run's results under an id."""
    place = source(arguments.place)
    found, folder = entry_or_path(arguments.what)
    if found is not None:
        verify(folder, found)
        entry = found if arguments.id is None else _id(arguments.id)
        refuse_other_task(load(arguments.what), entry, str(found))
        push(folder, entry, place)
    else:
        if arguments.id is None:
            raise UserError("a run has no id: name one with --as task/variant-v0")
        entry = _id(arguments.id)
        with TemporaryDirectory() as scratch:
            made = entry_of_run(folder, Path(scratch) / "entry", entry)
            if not (made / CARD).is_file():
                print(
                    f"{folder} has no card, which would say how far to trust {entry}: before pushing, "
                    f"`{evaluation_command(folder, origin_of(folder))}` writes one"
                )
            push(made, entry, place)
    print(f"published as {entry} at {place}")


def evaluate_entry(arguments: argparse.Namespace) -> None:
    """Measure, write the card, and print what it says of trust."""
    entry, folder = entry_or_path(arguments.what)
    if entry is not None:
        title, out = str(entry), arguments.out or Path(f"card-{entry.task}-{entry.folder}")
        verify(folder, entry)
    else:
        title, out = folder.resolve().name, arguments.out or folder
    simulator, policy = load(arguments.what), load_policy(arguments.what)
    refuse_misfit(simulator, policy, arguments.what)
    precision = kept(simulator, policy)
    if entry is None:
        simulator, policy, precision = as_published(simulator, policy)
    origin = origin_of(folder)
    refuse_unwritable_folder(out / CARD_FOLDER)
    if arguments.data or simulator.task is None:
        recordings = recordings_of(arguments.data, origin) if arguments.data else held_out_by_training(folder, origin)
        found = measure_recorded(simulator, policy, recordings, arguments.seed)
        (out / CARD_FOLDER / VIDEO).unlink(missing_ok=True)  # of an earlier card
        _told(write_recorded_card(out, title, found, origin, precision), recorded_limits(found))
        return
    task = find_task(simulator.task)
    found = measure(simulator, policy, task, arguments.episodes, arguments.seed)
    video = out / CARD_FOLDER / VIDEO
    video.unlink(missing_ok=True)  # of an earlier card
    if not arguments.no_video:
        try:
            write_video(video, simulator, policy, arguments.seed)
        except (RuntimeError, ValueError) as error:
            print(f"offsim: no video: {error}", file=sys.stderr)
    _told(write_card(out, title, task, found, origin, precision), limits(found))


def _told(card: Path, sentences: list[str]) -> None:
    print("\n".join(f"- {sentence}" for sentence in sentences))
    print(f"wrote {card}")


def export_entry(arguments: argparse.Namespace) -> None:
    """Write the ONNX file, and say how close it is."""
    refuse_unwritable_file(arguments.file)
    try:
        simulator = load(arguments.what)
    except ModelFileError:  # a policy alone
        simulator = None
    worst = export_policy(load_policy(arguments.what), arguments.file, simulator)
    print(f"{arguments.file}: observation (N, D) to action (N, A), float32; within {worst:.1e} of half an action range")


def _id(text: str) -> EntryId:
    try:
        entry = EntryId.parse(text)
    except ValueError as error:
        raise UserError(str(error)) from error
    if entry.version is None:
        raise UserError(f"{entry} has no version: publish it as {entry}-v0")
    return entry


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "list": list_entries,
    "show": show_entry,
    "pull": pull_entry,
    "push": push_entry,
    "evaluate": evaluate_entry,
    "export": export_entry,
}
