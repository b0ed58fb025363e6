"""A result page: Markdown, the rows it is made of as JSON, and its figures."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from app.configuration import flat
from app.errors import UserError
from app.experiments.goals import Goal
from app.experiments.grid import Experiment, Run
from app.results import ablation, figures, headline, simulators
from app.results.aggregate import Aggregate, judge
from app.results.evidence import Evidence, gather
from app.results.rows import SAME_AS, first_histograms
from app.results.tables import counted, format_number, hours, percent, table
from app.run_folder import write_whole

KINDS: dict[str, ModuleType] = {"headline": headline, "ablation": ablation, "simulator": simulators}
MARK = "<!-- Written by `offsim experiment`: change the experiment, not this file. -->"


def write_page(experiment: Experiment, out: Path, command: str, apart: str, folder: Path) -> Path:
    """Write ``FILE.md``, ``FILE.json`` and ``FILE*.png`` from what is finished of an experiment.

    Runs that an earlier page of the same name knows and that are not in the folder, because they were carried out
    elsewhere, stay on the page as long as their settings are those of today. So do runs of other pages in that folder
    that the experiment names (``also``).

    Args:
        experiment: what was asked for.
        out: its folder.
        command: what makes these results.
        apart: what other data or another budget adds to the names of pages; empty for what the experiment says.
        folder: where they go.

    Returns:
        The Markdown file.

    Raises:
        UserError: if there is a page of that name that was not written here.
    """
    file = f"{experiment.file}{apart}"
    path = folder / f"{file}.md"
    if path.exists() and not path.read_text(encoding="utf-8").startswith(MARK):
        raise UserError(f"{path} was not written by this command: choose another --page, or another `file` in the YAML")
    pages = [file, *(f"{other}{apart}" for other in experiment.also)]
    evidence = gather(experiment, out, [folder / f"{page}.json" for page in pages])
    folder.mkdir(parents=True, exist_ok=True)
    kind = KINDS[experiment.page]
    images = []
    if evidence.rows:
        for suffix, figure in kind.drawn(evidence).items():
            images.append(f"{file}{suffix}.png")
            figures.save(figure, folder / images[-1])
    parts = [
        MARK,
        f"# {experiment.title}",
        experiment.question,
        _facts(evidence, command),
        _goals(evidence),
        *(f"![{experiment.title}]({name})" for name in images),
        *kind.sections(evidence),
        _variants(experiment),
        _unfinished(evidence),
    ]
    write_whole(folder / f"{file}.json", json.dumps(first_histograms(evidence.rows), indent=1) + "\n")
    write_whole(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def _facts(evidence: Evidence, command: str) -> str:
    """Command, how much of it is finished, cost, data and versions."""
    found = evidence.origins()
    lines = [f"`{command}`, written by the same with `--page`.", ""]
    lines.append(f"- finished: {len(found)} of {len(evidence.states)} runs")
    lines.append(f"- cost of these: {hours(evidence.seconds())} of computing, stages that runs share counted once")
    for base, replaced in evidence.experiment.replaced.items():
        lines.append(f"- budget {evidence.experiment.budget}, which sets {', '.join(_words(replaced))} in `{base}`")
    used = {(row["role"], row["id"], row["sha256"]) for origin in found for row in origin["data"]}
    lines += [f"- {role} data: `{name}`, SHA-256 {sha[:12]}" for role, name, sha in sorted(used, reverse=True)]
    versions = sorted(
        {f"{name} {each[name]}" for each in (o["versions"] for o in found) for name in ("offsim", "torch")}
    )
    lines += [f"- with {', '.join(versions)}"] if versions else []
    devices = Counter(origin.get("trained_on") or "not recorded" for origin in found if SAME_AS not in origin)
    if set(devices) - {"CPU", "not recorded"}:
        named = [f"{name} ({counted(count, 'run')})" for name, count in devices.items()]
        lines.append(f"- trained on: {', '.join(named)}")
    return "\n".join(lines)


def _goals(evidence: Evidence) -> str:
    goals = evidence.experiment.goals
    if not goals:
        return ""
    judged = [(goal, *each) for goal in goals for each in judge(goal, evidence.results)]
    begun = [_goal_row(*each) for each in judged if each[1].finished]
    parts = [table(["goal", "task", "demonstrations", "found", "outcome", "seeds"], begun)] if begun else []
    if len(begun) < len(judged):
        parts.append(f"Of {len(judged)} goals {len(judged) - len(begun)} are about runs of which none is finished.")
    return "\n\n".join(["## Goals", *parts])


def _goal_row(goal: Goal, result: Aggregate, share: float, wanted: float) -> list[str]:
    statistic = goal.statistic.replace("_", " ")
    target = f"not below {goal.not_below}" if goal.not_below else f"at least {percent(goal.share_of_expert or 0.0)}"
    if math.isnan(share) or math.isnan(wanted):
        outcome = "open"
    else:
        outcome = "met" if share >= wanted else f"missed by {percent(wanted - share).removesuffix('%')} points"
    seeds = f"{result.finished} of {result.planned}"
    words = f"{statistic} of {goal.variant} {target}"
    return [words, result.task, format_number(result.demonstrations), percent(share), outcome, seeds]


def _variants(experiment: Experiment) -> str:
    rows = [[name, ", ".join(_words(settings)) or "nothing"] for name, settings in experiment.variants.items()]
    return "## What each variant changes\n\n" + table(["variant", "settings"], rows)


def _words(settings: dict[str, Any]) -> list[str]:
    """``{a: {b: 1}} -> ['`a.b: 1`']``."""
    return [f"`{key}: {json.dumps(value)}`" for key, value in flat(settings).items()]


def _unfinished(evidence: Evidence) -> str:
    """Which runs failed, and which are not there yet."""
    parts = []
    failed = [f"- {run.name}: {state.note}" for run, state in evidence.states.items() if state.kind == "failed"]
    if failed:
        parts.append("## Failed runs\n\n" + "\n".join(failed))
    other = {run: state for run, state in evidence.states.items() if state.kind not in ("done", "kept", "failed")}
    if other:
        begun = [f"- {run.name}: {state.note}" for run, state in other.items() if state.note]
        missing = _by_variant([run for run, state in other.items() if not state.note])
        parts.append(f"## Missing: {len(other)} of {len(evidence.states)} runs\n\n" + "\n".join([*begun, *missing]))
    return "\n\n".join(parts)


def _by_variant(runs: list[Run]) -> list[str]:
    """A line for each number of demonstrations and variant: ``- offsim, 10 demonstrations: ant (seed 0, 1)``."""
    seeds: dict[tuple[int, str], dict[str, list[str]]] = {}
    for run in runs:
        seeds.setdefault((run.demonstrations, run.variant), {}).setdefault(run.task, []).append(str(run.seed))
    return [
        f"- {variant}, {counted(count, 'demonstration')}: "
        + ", ".join(f"{task} (seed {', '.join(own)})" for task, own in tasks.items())
        for (count, variant), tasks in seeds.items()
    ]
