"""``offsim data``: what is wrong with a dataset, before anyone trains on it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from app.arguments import find_task
from app.collect_record import dataset_root
from app.data_checks.copy import write_copy
from app.data_checks.finding import FAULT, Finding
from app.data_checks.recording import Recorded, read, transitions
from app.data_checks.repair import repaired
from app.data_checks.replay import ends, replayed
from app.data_checks.statistical import CLOCK, broken_episodes, statistical
from app.data_checks.without_clock import without_clock
from app.errors import UserError
from app.places import refuse_unwritable_file, refuse_unwritable_folder
from datamodules.sources import Source
from zoo.tasks import TASKS, Task

FAULTS_FOUND = 1  # exit status


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = "Find out what is wrong with a dataset before training on it."
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="report faults; exits with 1 if there are any",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Check shapes, numbers that are not finite, steps after the end, actions outside their bounds or shifted\n"
            "by a step, clocks among the observations, copies, time limits taken for ends, other units in some of the\n"
            "episodes, sensors that hang, and jumps. If the task is known, recorded transitions are made again in\n"
            "MuJoCo, and recorded ends and rewards are compared with its own."
        ),
        epilog=(
            "examples:\n"
            "  offsim data check mujoco/hopper/expert-v0\n"
            "  offsim data check plant/good-v0 --fix plant/good-v1 --json report.json"
        ),
    )
    check.add_argument("id", metavar="ID", help="Minari id of the dataset")
    check.add_argument("--task", metavar="TASK", help="real task to compare with (default: that of the recording)")
    check.add_argument("--fix", metavar="NEW_ID", help="write a repaired copy under this id, and keep the original")
    check.add_argument(
        "--suspected",
        action="store_true",
        help="with --fix: repair what is only suspected as well, a note such as shifted actions without a task",
    )
    check.add_argument("--json", metavar="FILE", type=Path, help="write the findings into a file as well")
    check.add_argument("--dataset-root", metavar="DIR", help="folder for the copy (default: MINARI_DATASETS_PATH)")


def run(arguments: argparse.Namespace) -> int:
    """Check, report, repair; the exit status says whether the dataset that was asked for has faults."""
    if arguments.suspected and arguments.fix is None:
        raise UserError("--suspected says what to repair: add --fix NEW_ID, or leave it out")
    if arguments.json is not None:
        refuse_unwritable_file(arguments.json)
    if arguments.fix is not None:
        refuse_unwritable_folder(dataset_root(arguments.dataset_root))
    source, episodes = read(arguments.id)
    task = find_task(arguments.task) if arguments.task is not None else _task_of(source)
    findings, lines = check(source, episodes, task)
    size = f"{source.observation_size} observation features, {source.action_size} actions"
    beside = f", compared with {task.environment_id}" if task else ""
    print(f"{source.id}: {source.episodes:,} episodes, {source.steps:,} steps, {size}{beside}")
    for line in lines:
        print(line)
    print_findings(findings)
    faults = sum(finding.level == FAULT for finding in findings)
    print(f"{faults} faults, {len(findings) - faults} notes")
    if arguments.json is not None:
        report = {"id": source.id, "task": task and task.name, "findings": [asdict(finding) for finding in findings]}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if arguments.fix is not None:
        _fix(arguments, source, episodes, findings, task)
    elif any(finding.remedy for finding in findings):
        certain = any(finding.remedy and finding.level == FAULT for finding in findings)
        how = "--fix NEW_ID" if certain else "--fix NEW_ID --suspected"
        print(f"`offsim data check {source.id} {how}` writes a repaired copy")
    return FAULTS_FOUND if faults else 0


def print_findings(findings: Sequence[Finding]) -> None:
    """A line for each, faults first."""
    for finding in sorted(findings, key=lambda finding: finding.level != FAULT):
        print(f"{finding.level}: {finding.name}: {finding.text}")


def check(source: Source, episodes: list[Recorded], task: Task | None) -> tuple[list[Finding], list[str]]:
    """Everything that is found, and lines that report the replay.

    Args:
        source: the dataset.
        episodes: all of it.
        task: the real task, if one is known.
    """
    findings, whole = broken_episodes(source, episodes)
    if not whole:
        return findings, []
    rows = transitions(whole)
    findings += statistical(source, whole, rows)
    if task is None:
        return findings, ["no real task is known of it: nothing was replayed"]
    if source.observation_size == task.observation_size:
        findings = [finding for finding in findings if finding.name != CLOCK]  # the task has that feature too
    rows = without_clock(rows, findings)
    if rows.observation.shape[1] != task.observation_size or rows.action.shape[1] != task.action_size:
        text = (
            f"{task.environment_id} has {task.observation_size} observation features and {task.action_size} actions "
            f"here, the dataset {rows.observation.shape[1]} and {rows.action.shape[1]}: it cannot be replayed"
        )
        return [*findings, Finding("other spaces", FAULT, text)], []
    found = ends(task, rows)
    lines: list[str] = []
    if task.placement is not None:
        more, lines = replayed(task, source.environment_id, rows)
        found += more
        # The real task knows better than a forecast
        findings = [finding for finding in findings if finding.name != "shifted actions"]
    known = {finding.name for finding in found}
    return [*(finding for finding in findings if finding.name not in known), *found], lines


def _task_of(source: Source) -> Task | None:
    return next((task for task in TASKS.values() if task.environment_id == source.environment_id), None)


def _fix(
    arguments: argparse.Namespace,
    source: Source,
    episodes: list[Recorded],
    findings: list[Finding],
    task: Task | None,
) -> None:
    suspected = [finding.name for finding in findings if finding.remedy and finding.level != FAULT]
    if suspected and not arguments.suspected:
        print(f"left as it is, since it is only suspected: {', '.join(suspected)} (--suspected repairs that as well)")
        findings = [finding for finding in findings if finding.level == FAULT]
    if not any(finding.remedy for finding in findings):
        print(f"nothing to repair: {arguments.fix} was not written")
        return
    result = repaired(episodes, findings, source, task)
    if not result:
        raise UserError(f"nothing of {source.id} is left after the repairs: record it again")
    repairs = [finding.name for finding in findings if finding.remedy]
    clock = next((finding.detail for finding in findings if finding.remedy == CLOCK), None)
    root = dataset_root(arguments.dataset_root)
    write_copy(root, arguments.fix, source, result, repairs, clock)
    steps = sum(map(len, result))
    print(f"{arguments.fix}: {len(result):,} episodes, {steps:,} steps, in {root}; repaired: {', '.join(repairs)}")
