"""``offsim report``: one self-contained HTML page about a run, from the files in its folder and nothing else."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from app import figures
from app.errors import UserError
from app.figures import Evaluation, Numbers
from app.report_diagnosis import DIAGNOSIS, Diagnosis, read_diagnosis

HELP = "write one self-contained HTML page about a run: result, curves, histograms, roll-outs, data, configuration"

CONTENDERS = {"expert": "expert", "behaviour_cloning": "behaviour cloning", "policy": "policy"}
STAGES = {"simulator": "simulator", "policy": "policy", "behaviour_cloning": "behaviour cloning"}
DISCOUNTED = ("value", "simulator_discounted_return")
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Plot:
    """A figure on the page, with the one sentence that says how to read it."""

    section: str
    title: str
    caption: str
    svg: Markup
    half: bool
    """Whether two of them fit side by side."""


class _Plots(list[Plot]):
    """The page's figures. One that cannot be drawn becomes a note: a report must survive an odd file."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def draw(self, section: str, title: str, caption: str, source: str, make: Callable[[], Figure]) -> None:
        try:
            figure = make()
            svg = figures.to_svg(figure, f"figure-{len(self)}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = str(error) if isinstance(error, ValueError) else "it does not have the expected shape"
            reason = f"it has no {error}" if isinstance(error, KeyError) else reason
            self.notes.append(
                f"\N{LEFT DOUBLE QUOTATION MARK}{title}\N{RIGHT DOUBLE QUOTATION MARK} is left out, "
                f"because {source} could not be drawn: {reason}."
            )
        else:
            self.append(Plot(section, title, caption, Markup(svg), half=figure.get_figwidth() <= figures.HALF))


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
    plots = _Plots()
    _draw_result(plots, metrics, evaluations)
    diagnosis = _draw_diagnosis(plots, run_dir / "diagnose.json")
    _draw_diagnostics(plots, run_dir / "diagnostics.json")
    for stage, name in STAGES.items():
        _draw_learning_curves(plots, run_dir / stage / "metrics.csv", name)
    config = run_dir / "config.yaml"
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=format_number, margin=_margin, percent=_percent, duration=_duration)
    page = environment.get_template("report.html.j2").render(
        metrics=metrics,
        evaluations=evaluations,
        shares={key: _share(key, evaluations, metrics) for key in evaluations},
        comparison=_comparison(evaluations),
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


def format_number(value: object) -> str:
    """Thousands separated, four significant digits below that, a dash for what is no finite number."""
    amount = _number(value)
    if not math.isfinite(amount):
        return MISSING
    text = f"{amount:,.0f}" if abs(amount) >= 1000 else f"{amount:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


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
    shapes.update(dict.fromkeys(CONTENDERS, dict))
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
    low, high = [*_numbers(fields.get("ci95")), math.nan, math.nan][:2]
    returns, lengths = _numbers(fields.get("returns")), _numbers(fields.get("lengths"))
    episodes = _number(fields.get("episodes", len(returns) or None))
    mean, std = _number(fields.get("mean")), _number(fields.get("std"))
    return Evaluation(label, mean, std, (float(low), float(high)), episodes, returns, lengths)


def _share(key: str, evaluations: Mapping[str, Evaluation], metrics: Mapping[str, Any]) -> float:
    """Share of the expert's return; meaningless, hence NaN, where the expert's return is not positive."""
    recorded = _number(metrics.get("share_of_expert"))
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


def _draw_result(plots: _Plots, metrics: Mapping[str, Any], evaluations: Mapping[str, Evaluation]) -> None:
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
        curve = {name: np.array([_number(row.get(name)) for row in rows]) for name in names}
        bounds = [[*_numbers(row.get("real_ci95")), math.nan, math.nan][:2] for row in rows]
        curve["real_low"], curve["real_high"] = np.array(bounds, dtype=np.float64).T
        caption = (
            "The policy learns from the simulator alone, so the thing to fear is a simulator return that climbs away "
            "while the real return stalls or falls, which means that the policy is exploiting the simulator's errors; "
            "a learned reward has a unit of its own, hence the panels."
        )
        title = "What the simulator promised and what the real task paid"
        make = partial(figures.return_curves, curve, expert, cloning)
        plots.draw("Result", title, caption, "the curve in metrics.json", make)


def _draw_diagnosis(plots: _Plots, path: Path) -> Diagnosis | None:
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


def _sections(plots: _Plots, diagnosis: Diagnosis | None) -> list[str]:
    """Titles of the page's sections in their order."""
    found = dict.fromkeys(plot.section for plot in plots)
    if diagnosis is not None and DIAGNOSIS not in found:
        found = {**({"Result": None} if "Result" in found else {}), DIAGNOSIS: None, **found}
    return list(found)


def _draw_diagnostics(plots: _Plots, path: Path) -> None:
    """Draw whichever parts of ``diagnostics.json`` there are."""
    if not path.is_file():
        return
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        present = {key: value for key, value in parts.items() if value}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        plots.notes.append(f"The diagnostics are left out, because {path.name} could not be read: {error}.")
        return
    for key, (section, title, caption, make) in DIAGNOSTICS.items():
        if key == "open_loop" and isinstance(present.get(key), list):
            for index, episode in enumerate(present[key]):
                named = episode if isinstance(episode, dict) else {}
                name = f"{title}: {named.get('label', '')} episode {named.get('episode', index)}"
                plots.draw(section, name, caption, f"{key} in {path.name}", partial(make, episode))
        elif key in present:
            plots.draw(section, title, caption, f"{key} in {path.name}", partial(make, present[key]))


def _error_by_step(part: Mapping[str, Any]) -> Figure:
    baseline = part.get("baseline") or {}
    name = str(baseline.get("label", "baseline"))
    baselines = {f"{label}, {name}": values for label, values in _groups(baseline.get("normalized_error", {})).items()}
    return figures.error_by_step(_numbers(part["steps"]), _groups(part["normalized_error"]), baselines)


def _calibration(part: Mapping[str, Any]) -> Figure:
    return figures.calibration(_numbers(part["nominal"]), _groups(part["observed"]))


def _open_loop(part: Mapping[str, Any]) -> Figure:
    names = [str(name) for name in part["names"]]
    return figures.open_loop(names, _table(part["real"]), _table(part["simulated"]))


def _uncertainty(part: Mapping[str, Any]) -> Figure:
    return figures.histograms(_groups(part), "uncertainty of the ensemble")


def _rewards(part: Mapping[str, Any]) -> Figure:
    return figures.histograms(_groups(part), "learned reward of a transition")


# Part of diagnostics.json -> section, title, how to read it, and what draws it; in the order of the page.
DIAGNOSTICS: dict[str, tuple[str, str, str, Callable[[Mapping[str, Any]], Figure]]] = {
    "open_loop_error": (
        "The simulator",
        "How far a roll-out can be trusted",
        "Errors grow while the simulator replays recorded actions without seeing the real state again: compare each "
        "line with its dashed baseline, and trust nothing above 1, where guessing an average state does as well.",
        _error_by_step,
    ),
    "calibration": (
        "The simulator",
        "Does it know what it does not know?",
        "How often the truth fell inside the simulator's intervals: below the diagonal it is surer of itself than it "
        "should be, above it is more careful than it needs to be.",
        _calibration,
    ),
    "open_loop": (
        "The simulator",
        "Open loop",
        "A recorded episode and the simulator under the same actions from the same start, for features from the best "
        "to the worst tracked, with the error in standard deviations of the episode.",
        _open_loop,
    ),
    "uncertainty": (
        "The simulator",
        "Where the simulator is unsure",
        "Where the policy's row lies to the right of the expert's outline, the policy has gone to places that the "
        "data does not cover and the simulator's word counts for less; dashed lines are medians.",
        _uncertainty,
    ),
    "reward_histograms": (
        "The learned reward",
        "Reward by kind of transition",
        "A reward that learned what the expert wants is as high on held-out expert data as on the expert's own (green "
        "outline), and lower on diverse data and roll-outs; dashed lines are medians.",
        _rewards,
    ),
}


def _draw_learning_curves(plots: _Plots, path: Path, stage: str) -> None:
    """Draw the log of one stage, metrics of the same prefix, such as ``train/``, next to each other."""
    if not path.is_file():
        return
    source = f"{path.parent.name}/{path.name}"
    try:
        series = _read_log(path)
    except (OSError, ValueError, csv.Error) as error:
        plots.notes.append(f"The learning curves of {source} are left out: {error}.")
        return
    xlabel = _count_in_updates(series)
    prefixes = list(dict.fromkeys(name.rpartition("/")[0] for name in series))
    ordered = {name: series[name] for name in sorted(series, key=lambda name: prefixes.index(name.rpartition("/")[0]))}
    for name, (_, values) in ordered.items():
        broken = int(np.count_nonzero(~np.isfinite(values)))
        if broken:
            plots.notes.append(f"{name} in {source} is not finite in {broken} of {values.size} rows.")
    caption = (
        f"Everything that {source} recorded over the {xlabel}s of the stage; in long logs the line is the mean of "
        "neighbouring rows and the band their range."
    )
    make = partial(figures.learning_curves, ordered, xlabel, figures.color(stage))
    plots.draw("Learning curves", f"{stage.capitalize()} stage", caption, source, make)


def _count_in_updates(series: dict[str, tuple[Numbers, Numbers]]) -> str:
    """Replace the steps of Lightning, which counts every optimiser, by updates where the log has them.

    Returns:
        What is counted now: ``update`` or ``step``.
    """
    if "updates" not in series:
        return "step"
    steps, updates = series.pop("updates")
    known = np.isfinite(steps) & np.isfinite(updates)
    order = np.argsort(steps[known], kind="stable")
    if order.size < 2:
        return "step"
    for name, (own, values) in series.items():
        series[name] = (np.interp(own, steps[known][order], updates[known][order]), values)
    return "update"


def _read_log(path: Path) -> dict[str, tuple[Numbers, Numbers]]:
    """Read a log of Lightning's CSVLogger: ``metric -> (steps, values)``, without its many empty cells."""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or ()):
            raise ValueError("it has no column named step")
        for row in reader:
            step = _parse(row["step"])
            for name, cell in row.items():
                # Rows longer or shorter than the header, as an interrupted run leaves them, yield no text here.
                if name not in ("step", "epoch", None) and isinstance(cell, str) and cell.strip():
                    steps, values = columns.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(_parse(cell))
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in columns.items()}


def _parse(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _number(value: object) -> float:
    """A float; NaN for whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _numbers(values: object) -> Numbers:
    """A vector; empty for whatever is no list."""
    return np.array([_number(value) for value in values] if isinstance(values, list) else [], dtype=np.float64)


def _table(rows: list[object]) -> Numbers:
    """A matrix of shape ``(rows, columns)``."""
    return np.array([_numbers(row) for row in rows], dtype=np.float64)


def _groups(part: Mapping[str, object]) -> dict[str, Numbers]:
    return {label: _numbers(values) for label, values in part.items()}


def _margin(evaluation: Evaluation) -> str:
    """Half the width of the 95% interval, with no more decimals than the mean has."""
    half = (evaluation.interval[1] - evaluation.interval[0]) / 2
    return format_number(round(half) if math.isfinite(half) and abs(evaluation.mean) >= 100 else half)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%".replace("-", "\N{MINUS SIGN}") if math.isfinite(share) else MISSING


def _duration(seconds: object) -> str:
    """``4350 -> '1 h 12 min'``."""
    amount = _number(seconds)
    if not math.isfinite(amount):
        return MISSING
    if amount < 60:
        return f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
