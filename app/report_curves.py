"""The part of a report that is about training: the logs of its stages."""

from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path

import numpy as np

from app import figures
from app.figures import Numbers
from app.report_plots import Plots


def draw_learning_curves(plots: Plots, path: Path, stage: str) -> None:
    """Draw the log of one stage, metrics of the same prefix, such as ``train/``, next to each other."""
    if not path.is_file():
        return
    source = f"{path.parent.name}/{path.name}"
    try:
        series = _read_log(path)
    except (OSError, ValueError, csv.Error) as error:
        plots.notes.append(f"The learning curves of {source} are left out: {error}.")
        return
    xlabel = count_in_updates(series)
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


def count_in_updates(series: dict[str, tuple[Numbers, Numbers]]) -> str:
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
