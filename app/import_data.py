"""``offsim import``: logs of one's own system, CSV tables or NumPy archives, as a Minari dataset."""

from __future__ import annotations

import argparse
import codecs
import re
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from numpy.typing import NDArray

from app.collect_record import (
    dataset_root,
    datasets_in,
    episode_buffer,
    new_dataset,
    recorded_bytes,
    refuse_unusable_id,
)
from app.data import check, print_findings
from app.data_checks.recording import read
from app.errors import UserError
from app.log_episodes import episodes_of, usual_interval
from app.log_files import ENCODING
from app.log_resampling import refuse_resampling, resampled, say_resampled
from app.places import refuse_unwritable_folder
from app.tables import MISSING, Layout, feature_names, read_log
from datamodules.sources import RECORDED_BY
from zoo.episodes import Episode

HARDLY = 0.05  # share of an action's bounds that logs go through, below which its bounds may be in another unit


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = (
        "Read logs and write a Minari dataset. A row holds a state and the action that was taken in it; the last\n"
        "row of an episode is its last state. Each file is an episode, unless --episode names the column that\n"
        "tells them apart. Good behaviour and other behaviour go into datasets of their own."
    )
    parser.epilog = (
        "examples:\n"
        "  offsim import logs/*.csv --id plant/good-v0 --observations level flow --actions valve\n"
        "  offsim import log.npz --id arm/good-v0 --observations states --actions torques --episode run"
    )
    # An option's number may be written -1e-3 as well, which argparse takes for an option itself
    parser._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help=".csv, .tsv or .npz")
    parser.add_argument("--id", required=True, metavar="ID", help="id of the dataset, such as plant/good-v0")
    parser.add_argument(
        "--observations", nargs="+", required=True, metavar="NAME", help="columns or arrays of the state"
    )
    parser.add_argument("--actions", nargs="+", required=True, metavar="NAME", help="columns or arrays of the action")
    parser.add_argument(
        "--next-observations", nargs="+", default=[], metavar="NAME", help="of the state that follows, if rows hold it"
    )
    parser.add_argument(
        "--exogenous",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of the observations those that are set from outside, as setpoints and disturbances are: the simulator "
        "does not foresee them, it takes them as recorded or as it is told",
    )
    parser.add_argument("--episode", metavar="NAME", help="column that tells episodes of one file apart")
    parser.add_argument(
        "--time",
        metavar="NAME",
        help="column of times, numbers or such as 2024-05-01T12:00:00: rows are taken in its order, and where some are "
        "left out an episode is split",
    )
    parser.add_argument(
        "--time-format",
        metavar="FORM",
        help="how that column writes dates, as Python's strptime has it, such as '%%d.%%m.%%Y %%H:%%M:%%S' or "
        "'%%m/%%d/%%Y %%I:%%M:%%S %%p'",
    )
    parser.add_argument(
        "--encoding",
        default=ENCODING,
        metavar="NAME",
        help=f"of tables that do not say it by their first bytes (default {ENCODING}; Windows often writes cp1252)",
    )
    parser.add_argument(
        "--resample",
        type=float,
        metavar="T",
        help="bring rows to equal intervals of T (seconds where times are dates, else the column's own unit): states "
        "by straight lines between rows, actions and whole numbers as they were last; needs --time",
    )
    parser.add_argument(
        "--missing",
        choices=MISSING,
        default=MISSING[0],
        help="states and actions that are empty or not finite: refuse them (default), or split the episode there",
    )
    parser.add_argument("--terminated", metavar="NAME", help="column that is not 0 where an episode ended for good")
    parser.add_argument("--reward", metavar="NAME", help="column kept for evaluation; no training reads it")
    parser.add_argument(
        "--action-low", nargs="+", type=float, metavar="X", help="lower bounds (default: the lowest seen)"
    )
    parser.add_argument("--action-high", nargs="+", type=float, metavar="X", help="upper bounds (default: the highest)")
    parser.add_argument("--dataset-root", metavar="DIR", help="folder of datasets (default: MINARI_DATASETS_PATH)")


def run(arguments: argparse.Namespace) -> int:
    """Read, write, and say what was found."""
    root = dataset_root(arguments.dataset_root)
    refuse_unwritable_folder(root)
    refuse_unusable_id(root, arguments.id)
    layout = Layout(**{field.name: getattr(arguments, field.name) for field in fields(Layout)})
    _refuse_impossible(layout)
    _refuse_repeated(arguments.files, layout)
    if arguments.resample is not None:
        refuse_resampling(arguments.resample, layout)
    logs = [read_log(path, layout) for path in arguments.files]
    if arguments.resample is not None:
        recorded, logs = logs, [resampled(log, arguments.resample) for log in logs]
        for before, after in zip(recorded, logs, strict=True):
            print(say_resampled(before.path, before, after))
        del recorded
    interval = usual_interval(logs)  # one for all, as steps are
    episodes = [episode for log in logs for episode in episodes_of(log, interval)]
    del logs
    if not episodes:
        raise UserError("no log has a row that follows another, so there is no step: give logs of two rows and more")
    _refuse_differing(episodes)
    features = {
        name: _feature_names(arguments.files[0], given, getattr(episodes[0], name).shape[1], layout.encoding)
        for name, given in (("observations", layout.observations), ("actions", layout.actions))
    }
    actions = np.concatenate([episode.actions for episode in episodes])
    seen = actions.min(axis=0), actions.max(axis=0)
    low = _bounds("--action-low", arguments.action_low, seen[0])
    high = _bounds("--action-high", arguments.action_high, seen[1])
    outside = np.flatnonzero((seen[0] < low) | (seen[1] > high))
    if len(outside):
        worst = int(outside[0])
        raise UserError(
            f"action {features['actions'][worst]} is between {seen[0][worst]:g} and {seen[1][worst]:g} in the logs, "
            f"beyond the bounds {low[worst]:g} and {high[worst]:g}: widen these, or repair the logs"
        )
    equal = np.flatnonzero(low >= high)
    if len(equal):
        raise UserError(
            f"action {features['actions'][int(equal[0])]} has the bounds {low[equal[0]]:g} and {high[equal[0]]:g}: "
            "one that never moves is no action; leave it out, or say what it could be with --action-low and "
            "--action-high"
        )
    used = (seen[1].astype(np.float64) - seen[0]) / (high.astype(np.float64) - low)
    box = gymnasium.spaces.Box(low, high, dtype=np.float32)
    exogenous = _exogenous(arguments.exogenous, features["observations"])
    write_dataset(root, arguments.id, episodes, box, features["observations"], features["actions"], exogenous)
    steps = sum(map(len, episodes))
    ends = sum(episode.terminated for episode in episodes)
    print(f"{arguments.id}: {len(episodes)} episodes, {steps} steps, {ends} ended for good, in {root}")
    print(
        f"{episodes[0].observations.shape[1]} observation features, {actions.shape[1]} actions between {low} and {high}"
    )
    if arguments.action_low is None or arguments.action_high is None:
        print("bounds of actions are what the logs show: say what is possible with --action-low and --action-high")
    for index in np.flatnonzero(used < HARDLY):
        print(f"action {features['actions'][int(index)]} uses {used[index]:.1%} of what is possible: same units?")
    with datasets_in(root):
        findings, _ = check(*read(arguments.id), task=None)
    print_findings(findings)
    if findings and root == dataset_root():  # where it looks
        print(f"`offsim data check {arguments.id}` says this again, and what it can repair")
    return 0


def write_dataset(
    root: Path,
    dataset_id: str,
    episodes: Sequence[Episode],
    actions: gymnasium.spaces.Box,
    observation_names: Sequence[str],
    action_names: Sequence[str],
    exogenous: Sequence[int] = (),
) -> None:
    """Write episodes of a system that Gymnasium does not know; a crash leaves no dataset behind."""
    size = episodes[0].observations.shape[1:]
    with new_dataset(root, dataset_id, recorded_bytes(episodes)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is not known of the data's author and environment
        minari.create_dataset_from_buffers(
            dataset_id,
            [episode_buffer(episode) for episode in episodes],
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, size, np.float32),
            action_space=actions,
            description="Imported with `offsim import`.",
            data_format="hdf5",
        )
        facts = {
            "observation_names": list(observation_names),
            "action_names": list(action_names),
            "exogenous": list(exogenous),
        }
        minari.load_dataset(dataset_id).storage.update_metadata({RECORDED_BY: facts})


def _refuse_impossible(layout: Layout) -> None:
    """Refuse an encoding that Python does not know, and a form of times without a column of times."""
    try:
        codecs.lookup(layout.encoding)
    except LookupError:
        raise UserError(
            f"--encoding {layout.encoding}: there is no such encoding; utf-8, cp1252 and utf-16 are some"
        ) from None
    if layout.time_format is not None and layout.time is None:
        raise UserError("--time-format says how times are written: name their column with --time as well")


def _refuse_repeated(files: Sequence[Path], layout: Layout) -> None:
    """Refuse files and columns that are named twice: what an action is copied from is then no state."""
    if (path := _twice([path.resolve() for path in files])) is not None:
        raise UserError(f"{path} is named twice: its episodes would be in the data twice")
    if (name := _twice([*layout.observations, *layout.actions, layout.episode])) is not None:
        raise UserError(
            f"{name} is named more than once among --observations, --actions and --episode: name each for what it is, "
            "once"
        )
    if (name := _twice(layout.next_observations)) is not None:
        raise UserError(f"{name} is named more than once in --next-observations")


def _twice(values: Sequence[Any]) -> Any:
    """The first value that is there more than once, ``None`` if none is."""
    return next((value for index, value in enumerate(values) if value in values[:index]), None)


def _feature_names(path: Path, names: Sequence[str], features: int, encoding: str) -> list[str]:
    return list(names) if len(names) == features else feature_names(path, names, encoding)


def _exogenous(given: Sequence[str], features: Sequence[str]) -> list[int]:
    """Numbers of the features that are set from outside, named as columns, or as features of an archive's arrays."""
    numbers = []
    for name in dict.fromkeys(given):
        if name not in features:
            raise UserError(
                f"--exogenous names {name}, which is none of the observations {', '.join(features)}: name it there as "
                "well, since the controller acts on it"
            )
        numbers.append(features.index(name))
    if len(numbers) == len(features):
        raise UserError("--exogenous names all observations: nothing is left for actions to move")
    return sorted(numbers)


def _refuse_differing(episodes: Sequence[Episode]) -> None:
    for name in ("observations", "actions"):
        sizes = {getattr(episode, name).shape[1] for episode in episodes}
        if len(sizes) > 1:
            raise UserError(f"files differ in their number of {name}: {', '.join(map(str, sorted(sizes)))}")


def _bounds(option: str, given: Sequence[float] | None, seen: NDArray[np.float32]) -> NDArray[np.float32]:
    if given is None:
        return seen
    if len(given) not in (1, len(seen)):
        raise UserError(f"{option} has {len(given)} numbers, where 1 or {len(seen)} are expected")
    if not np.isfinite(given).all():
        raise UserError(f"{option} has to be finite: say what the system can do")
    return np.broadcast_to(np.array(given, dtype=np.float32), seen.shape).copy()
