"""``offsim diagnose``: is it the simulator, the reward or the learner? Measured on a finished run, after training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.arguments import positive
from app.controls import CONTROLS, read_controls, train_controls
from app.errors import UserError
from app.evaluate import load_policy, refuse_misfit
from app.finished_run import FinishedRun
from app.fixed_policies import compare_fixed_policies, load_policies
from app.over_training import diagnose_training
from app.pipeline import finished_run, say
from app.places import refuse_unwritable_file
from app.report import write_report
from app.run_folder import configuration_of
from datamodules import DataError
from zoo.files import ModelFileError

NEEDED = ("config.yaml", "metrics.json", "behaviour_cloning.safetensors", "simulator.safetensors", "policy.safetensors")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``offsim diagnose``."""
    parser.description = (
        "Put the simulator and the real task side by side for every snapshot of a run's policy and for fixed\n"
        "policies, and say which of three things is wrong: the simulator where the policy goes, the learned reward,\n"
        "or the learner. Writes diagnose.json into the run's folder and the section Diagnosis into its report.\n"
        "docs/diagnose.md explains every figure and the thresholds of the verdict."
    )
    parser.epilog = "example: offsim diagnose runs/hopper-seed0 --controls --updates 5000"
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="folder of a finished run of `offsim train`")
    parser.add_argument(
        "--episodes", type=positive, default=10, metavar="N", help="real episodes of each policy (default: 10)"
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also train in the same simulator with " + " and with ".join(CONTROLS.values()) + "; takes time",
    )
    parser.add_argument(
        "--updates", type=positive, metavar="N", help="updates of each control (default: those of the run's policy)"
    )
    parser.add_argument(
        "--policies", type=Path, nargs="+", default=[], metavar="FILE", help="policies to compare with the fixed ones"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the figures here and leave diagnose.json and the report alone"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and write."""
    if arguments.updates is not None and not arguments.controls:
        raise UserError("--updates says how long to train controls: add --controls, or leave it out")
    path = arguments.out or arguments.run_dir / "diagnose.json"
    try:
        found = open_run(arguments.run_dir)
        refuse_unwritable_file(path)
        given = load_policies(found, arguments.policies)
        if arguments.controls:
            train_controls(found, arguments.updates or found.updates, arguments.episodes)
        say(f"fixed policies, {arguments.episodes} real episodes each")
        fixed = compare_fixed_policies(found, arguments.episodes, given)
        say(f"policies over training, {arguments.episodes} real episodes each")
        result = diagnose_training(found, arguments.episodes)
    except (DataError, ModelFileError) as error:
        raise UserError(str(error)) from error
    result |= {"episodes": arguments.episodes, "fixed_policies": fixed, "controls": read_controls(found.folder)}
    print_diagnosis(result)
    path.write_text(json.dumps(result, indent=1))
    say(f"figures: {path}")
    if arguments.out is None:
        say(f"report: {write_report(found.folder)}")
    return 0


def open_run(folder: Path) -> FinishedRun:
    """A finished run by its folder.

    Raises:
        UserError: saying what is missing there.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        seeds = sorted(path.name for path in folder.glob("seed*") if (path / "config.yaml").is_file())
        advice = "give the folder of a finished run, or repeat its `offsim train` command to finish it"
        if seeds:
            advice = f"it holds the runs of several seeds, give one of them, such as {folder / seeds[0]}"
        raise UserError(f"{folder} has no {missing[0]}: {advice}")
    configuration = configuration_of(folder, ["policy"])
    if configuration.task is None:
        raise UserError(
            f"{folder} is a run for a system that is no known task: there is no real task to put beside its simulator. "
            f"`offsim zoo evaluate {folder}` measures it against the logs that its training held out, and writes a card"
        )
    if "method" not in configuration.policy:
        configuration.policy.method = "SimulatorSAC"  # runs of before there was a choice
    try:
        found = finished_run(configuration, folder)
    except ValueError as error:  # of a method that is given another system's Simulator
        raise UserError(f"{folder}: {error}") from error
    for path in (found.cloned_policy, folder / "policy.safetensors"):
        refuse_misfit(found.simulator, load_policy(path), str(folder))
    return found


# ------------------------------------------------------------------------------------------------------------ printing

# Columns of the printed table: heading in two lines, key in a row of the figures over training
COLUMNS = {
    "|update": "update",
    "return in|simulator": "simulator_return",
    "same, in|reality": "real_learned_return",
    "measured|return": "real_return",
    "length in|simulator": "simulator_length",
    "length in|reality": "real_length",
    "distance,|simulator": "simulator_distance",
    "distance,|reality": "real_distance",
    "discounted|return": "simulator_discounted_return",
    "critic's|value": "value",
}


def print_diagnosis(result: Mapping[str, Any]) -> None:
    """The tables and the verdict, for a terminal."""
    present = {title: key for title, key in COLUMNS.items() if any(key in row for row in result["over_training"])}
    say("")
    for line in zip(*(title.split("|") for title in present), strict=True):
        say("".join(f"{words:>12}" for words in line))
    for row in result["over_training"]:
        say("".join(f"{_cell(row.get(key)):>12}" for key in present.values()))
    fixed = result["fixed_policies"]
    for label, correlations in fixed["rank_correlation"].items():
        values = ", ".join(
            f"{_cell(value)} after {steps}" for value, steps in zip(correlations, fixed["horizons"], strict=True)
        )
        say(f"rank correlation of {len(fixed['policies'])} fixed policies, {label} reward, steps: {values}")
    for name, control in result["controls"].items():
        last = control["curve"][-1]
        say(
            f"control with {CONTROLS[name]}: after {last['update']} updates simulator "
            f"{_cell(last['simulator_return'])}, real {_cell(last['real_return'])} (the task's own reward)"
        )
    for note in result["notes"]:
        say(f"note: {note}")
    say(f"\nverdict: {result['verdict']['kind']}. {result['verdict']['reason']}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
