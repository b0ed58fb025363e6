"""``offsim report``: one self-contained HTML page about a run, from the files in its folder and nothing else."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app import figures
from app.cloned_start import in_words
from app.errors import UserError
from app.figures import Evaluation
from app.report_curves import draw_learning_curves
from app.report_diagnosis import DIAGNOSIS, Diagnosis, read_diagnosis
from app.report_diagnostics import draw_diagnostics
from app.report_numbers import MISSING, duration, format_number, number, numbers, percent
from app.report_plots import Plots

NOT_JOINED = "policy, not joined"  # what was learned in the Simulator, without the cloned networks beside it
CONTENDERS = {
    "expert": "expert",
    "behaviour_cloning": "behaviour cloning",
    "weighted_cloning": "weighted cloning",
    "policy": "policy",
}
STAGES = {
    "simulator": "simulator",
    "policy": "policy",
    "behaviour_cloning": "behaviour cloning",
    "weighted_cloning": "weighted cloning",
    "dynamics_reward": "dynamics reward",
}
DISCOUNTED = ("value", "simulator_discounted_return")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``offsim report``."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="folder of a finished run, holding metrics.json")


def run(arguments: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    print(write_report(arguments.run_dir))
    return 0


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run's folder.

    Reads ``metrics.json`` (required), ``diagnose.json``, ``diagnostics.json``, ``config.yaml`` and the
    ``metrics.csv`` of each stage.

    Raises:
        UserError: where ``metrics.json`` is missing or is not what a run writes.
    """
    metrics = _read_metrics(run_dir / "metrics.json")
    evaluations = {key: _evaluation(metrics[key], label) for key, label in CONTENDERS.items() if key in metrics}
    alone = {"policy_alone": _evaluation(metrics["policy_alone"], NOT_JOINED)} if "policy_alone" in metrics else {}
    plots = Plots()
    _draw_result(plots, metrics, evaluations)
    diagnosis = _draw_diagnosis(plots, run_dir / "diagnose.json")
    draw_diagnostics(plots, run_dir / "diagnostics.json")
    for stage, name in STAGES.items():
        draw_learning_curves(plots, run_dir / stage / "metrics.csv", name)
    config = run_dir / "config.yaml"
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=format_number, margin=_margin, percent=percent, duration=duration)
    page = environment.get_template("report.html.j2").render(
        metrics=metrics,
        evaluations=evaluations,
        measured=evaluations | alone,
        shares={key: _share(key, evaluations | alone, metrics) for key in evaluations | alone},
        comparison=_comparison(evaluations),
        start=in_words(metrics),
        plots=plots,
        notes=plots.notes,
        sections=_sections(plots, diagnosis),
        diagnosis=diagnosis,
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None,
        missing=MISSING,
    )
    path = run_dir / "report.html"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        unfinished.write_text(page, encoding="utf-8", errors="replace")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _read_metrics(path: Path) -> dict[str, Any]:
    """Read ``metrics.json`` and check the shape of what the page is built on."""
    advice = "give the folder of a finished run, as `offsim train` writes it"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): {advice}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): run the evaluation again, or {advice}") from error
    if not isinstance(metrics, dict) or not isinstance(metrics.get("task"), str):
        raise UserError(f'{path} does not describe a run, it has no "task": {advice}')
    shapes: dict[str, type] = {"data": list, "curve": list, "versions": dict, "stages": dict}
    shapes.update(dict.fromkeys([*CONTENDERS, "policy_alone", "weighted_start", "cloned_start"], dict))
    present = {key: value for key, value in metrics.items() if value is not None}
    for key, shape in shapes.items():
        value = present.get(key, shape())
        rows = value if isinstance(value, list) else []
        if not isinstance(value, shape) or not all(isinstance(row, dict) for row in rows):
            wanted = "a list of objects" if shape is list else "an object"
            raise UserError(f'"{key}" in {path} is not {wanted}: run the evaluation again, or {advice}')
    empty: dict[str, Any] = {"data": [], "curve": [], "versions": {}, "stages": {}, "wall_seconds": None, "seed": None}
    return empty | present


def _evaluation(fields: Mapping[str, Any], label: str) -> Evaluation:
    low, high = [*numbers(fields.get("ci95")), math.nan, math.nan][:2]
    returns, lengths = numbers(fields.get("returns")), numbers(fields.get("lengths"))
    episodes = number(fields.get("episodes", len(returns) or None))
    mean, std = number(fields.get("mean")), number(fields.get("std"))
    return Evaluation(label, mean, std, (float(low), float(high)), episodes, returns, lengths)


def _share(key: str, evaluations: Mapping[str, Evaluation], metrics: Mapping[str, Any]) -> float:
    """Share of the expert's return; meaningless, hence NaN, where the expert's return is not positive."""
    recorded = number(metrics.get("share_of_expert"))
    if key == "policy" and math.isfinite(recorded):
        return recorded
    expert = evaluations["expert"].mean if "expert" in evaluations else math.nan
    return evaluations[key].mean / expert if expert > 0 else math.nan


def _comparison(evaluations: Mapping[str, Evaluation]) -> str:
    """How the policy stands against behaviour cloning, in words."""
    if not {"policy", "behaviour_cloning"} <= evaluations.keys():
        return ""
    policy, cloning = evaluations["policy"].interval, evaluations["behaviour_cloning"].interval
    if policy[0] > cloning[1]:
        return "The policy is better than behaviour cloning: their 95% intervals do not overlap."
    if policy[1] < cloning[0]:
        return "The policy is worse than behaviour cloning: their 95% intervals do not overlap."
    if all(map(math.isfinite, (*policy, *cloning))):
        return "These episodes do not separate the policy from behaviour cloning: their 95% intervals overlap."
    return ""


def _draw_result(plots: Plots, metrics: Mapping[str, Any], evaluations: Mapping[str, Evaluation]) -> None:
    expert, cloning = (
        evaluations[key].mean if key in evaluations else math.nan for key in ("expert", "behaviour_cloning")
    )
    if evaluations:
        caption = (
            "Each dot is one episode in the real task, the upright stroke is the mean and the grey bar its 95% "
            "interval: look for stray dots on the left, which are episodes that failed early."
        )
        make = partial(figures.episode_returns, list(evaluations.values()))
        plots.draw("Result", "Returns of every episode", caption, "the returns in metrics.json", make)
    if metrics["curve"]:
        rows = metrics["curve"]
        names = ("update", "real_return", "simulator_return", "real_learned_return", *DISCOUNTED)
        curve = {name: np.array([number(row.get(name)) for row in rows]) for name in names}
        bounds = [[*numbers(row.get("real_ci95")), math.nan, math.nan][:2] for row in rows]
        curve["real_low"], curve["real_high"] = np.array(bounds, dtype=np.float64).T
        caption = (
            "The policy learns from the simulator alone, so the thing to fear is a simulator return that climbs away "
            "while the real return stalls or falls, which means that the policy is exploiting the simulator's errors; "
            "a learned reward has a unit of its own, hence the panels."
        )
        title = "What the simulator promised and what the real task paid"
        make = partial(figures.return_curves, curve, expert, cloning)
        plots.draw("Result", title, caption, "the curve in metrics.json", make)


def _draw_diagnosis(plots: Plots, path: Path) -> Diagnosis | None:
    """Draw what ``diagnose.json`` holds, if there is one; the tables go with what is returned."""
    if not path.is_file():
        return None
    try:
        diagnosis = read_diagnosis(path)
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        plots.notes.append(f"The diagnosis is left out, because {path.name} could not be read: {error}.")
        return None
    for title, caption, make in diagnosis.figures:
        plots.draw(DIAGNOSIS, title, caption, path.name, make)
    return diagnosis


def _sections(plots: Plots, diagnosis: Diagnosis | None) -> list[str]:
    """Titles of the page's sections in their order."""
    found = dict.fromkeys(plot.section for plot in plots)
    if diagnosis is not None and DIAGNOSIS not in found:
        found = {**({"Result": None} if "Result" in found else {}), DIAGNOSIS: None, **found}
    return list(found)


def _margin(evaluation: Evaluation) -> str:
    """Half the width of the 95% interval, with no more decimals than the mean has."""
    half = (evaluation.interval[1] - evaluation.interval[0]) / 2
    return format_number(round(half) if math.isfinite(half) and abs(evaluation.mean) >= 100 else half)
