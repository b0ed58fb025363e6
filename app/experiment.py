"""``offsim experiment``: grids of training runs from one YAML, restartable, with pages of their results."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path

from omegaconf import OmegaConf

from app.arguments import positive
from app.configuration import FULL
from app.data_quality import warn_of_worse_expert
from app.errors import UserError
from app.experiments.grid import Run, select
from app.experiments.processes import WorkerProcess, ended_by_signals
from app.experiments.reading import load_experiment
from app.experiments.schedule import STAGES_FOLDER, carry_out, plan
from app.experiments.state import State, state_of
from app.folder_lock import locked
from app.pipeline import make_data, say
from app.results.page import write_page
from datamodules import DataError

RESULTS = Path("docs") / "results"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``offsim experiment``."""
    parser.description = (
        "Train every run of an experiment, each as `offsim train` would, in OUT/TASK/VARIANT/demonstrationsN/seedS.\n"
        "Finished runs are kept, half-done ones continue, and stages that several runs have in common are trained\n"
        "once. At the end a page with tables and a figure is written into OUT."
    )
    parser.epilog = (
        "examples:\n"
        "  offsim experiment a --jobs 2\n"
        "  offsim experiment a --only task=hopper,seed=0 task=ant,variant=offsim\n"
        "  offsim experiment a --expert reference/{task}/expert-v0 --diverse reference/{task}/mixed-v0\n"
        "  offsim experiment a --list\n"
        "  offsim experiment a --page"
    )
    parser.add_argument("source", metavar="NAME_OR_FILE", help="an experiment that comes along, or a YAML file")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="folder of the runs (default: runs/experiments/NAME, apart by data and budget)",
    )
    parser.add_argument(
        "--only",
        metavar="KEY=VALUE,...",
        action="extend",
        nargs="+",
        default=[],
        help="runs of this task=, variant=, seed= and demonstrations= alone; several selections add up",
    )
    parser.add_argument("--expert", metavar="ID", help="Minari id of other demonstrations; {task} is the task's name")
    parser.add_argument("--diverse", metavar="ID", nargs="*", help="likewise of other data of mixed quality")
    parser.add_argument(
        "--budget",
        default=FULL,
        help="of every run, as for `offsim train`: small is about a third of the work (default: full)",
    )
    parser.add_argument("--jobs", metavar="N", type=positive, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--list", action="store_true", help="show every run and how far it is, and train nothing")
    parser.add_argument(
        "--page",
        metavar="DIR",
        nargs="?",
        type=Path,
        const=True,
        help="write the page from what is finished, and train nothing (default: docs/results in a checkout, else OUT)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry out ``offsim experiment``."""
    experiment = load_experiment(arguments.source, arguments.expert, arguments.diverse, arguments.budget)
    runs = select(experiment.runs, arguments.only)
    apart = _apart(arguments.expert, arguments.diverse, arguments.budget)
    out: Path = arguments.out or Path("runs") / "experiments" / f"{experiment.name}{apart}"
    write = partial(write_page, experiment, out, _command(arguments), apart)
    if arguments.list:
        _print_list(runs, out)
        return 0
    if arguments.page is not None:
        in_checkout = RESULTS.is_dir() and Path("pyproject.toml").is_file()
        usual = RESULTS if in_checkout else out
        say(str(write(usual if arguments.page is True else arguments.page)))
        return 0
    _refuse_other_settings(runs, out)
    _check_data(runs)
    warn_of_worse_experts(runs)
    with locked(out, "offsim experiment") as lock, ended_by_signals():
        failed = carry_out(plan(runs, out), arguments.jobs, lambda unit: WorkerProcess(unit, out, lock))
        _print_list(runs, out)
        say(f"page: {write(out)}")
    for unit in failed:
        say(f"FAILED: {unit.name}, see {unit.folder / 'log.txt'}")
    return 1 if failed else 0


def _apart(expert: str | None, diverse: list[str] | None, budget: str) -> str:
    """What sets other data and budgets apart in names of folders and files; empty for what the experiment says."""
    ids = [*([expert] if expert else []), *(diverse or [])]
    without = ["no-diverse"] if diverse == [] else []
    words = [re.sub(r"\W+", "-", name.replace("{task}", "")).strip("-") for name in ids]
    smaller = [] if budget == FULL else [budget]
    return "".join(f"-{word}" for word in [*words, *without, *smaller])


def _command(arguments: argparse.Namespace) -> str:
    """The command that makes these results, without what only says how."""
    words = ["offsim", "experiment", arguments.source]
    words += ["--expert", arguments.expert] if arguments.expert else []
    words += ["--diverse", *arguments.diverse] if arguments.diverse is not None else []
    words += ["--budget", arguments.budget] if arguments.budget != FULL else []
    return " ".join(words)


def _refuse_other_settings(runs: list[Run], out: Path) -> None:
    others = [run.name for run in runs if state_of(run, out, out / STAGES_FOLDER).kind == "other"]
    if others:
        raise UserError(
            f"{out} holds {len(others)} runs with other settings, such as {others[0]}: choose another --out, or move "
            "them away if they are not wanted"
        )


def _check_data(runs: list[Run]) -> None:
    """Refuse data that is missing or does not fit together, before the first run starts."""
    seen = set()
    for run in runs:
        for stage in run.configuration.stages:
            # Seeds choose other episodes of the same data
            key = (OmegaConf.to_yaml(run.configuration.data), OmegaConf.to_yaml(run.configuration[stage]), stage)
            if key not in seen:
                seen.add(key)
                try:
                    make_data(run.configuration, stage)
                except DataError as error:
                    raise UserError(f"{run.name}: {error}") from error


def warn_of_worse_experts(runs: list[Run]) -> None:
    """Say once of each choice of data if its demonstrations are the worse episodes."""
    chosen = {(str(data.expert), str(data.diverse)): data for data in (run.configuration.data for run in runs)}
    for data in chosen.values():
        if (warning := warn_of_worse_expert(data.expert, data.diverse)) is not None:
            say(warning)


def _print_list(runs: list[Run], out: Path) -> None:
    states = {run: state_of(run, out, out / STAGES_FOLDER) for run in runs}
    width = max(len(run.name) for run in runs)
    for run, state in states.items():
        say(f"{run.name:<{width}}  {state.kind:<8}{_figures(state)}")
    kinds = [state.kind for state in states.values()]
    say(", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) + f" of {len(runs)} runs in {out}")


def _figures(state: State) -> str:
    if state.metrics is None:
        return state.note
    last = state.metrics.get("policy") or state.metrics["behaviour_cloning"]
    share = state.metrics["share_of_expert"]
    shown = "" if share is None else f" ({share:.0%} of the expert)"
    return f"return {last['mean']:,.0f}{shown}, {state.metrics['wall_seconds'] / 60:.0f} minutes"
