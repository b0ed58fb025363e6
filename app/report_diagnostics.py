"""The part of a report that is about the simulator and its reward: ``diagnostics.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from app import figures
from app.report_numbers import groups, numbers, table
from app.report_plots import Plots


def draw_diagnostics(plots: Plots, path: Path) -> None:
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
    baselines = groups(baseline.get("normalized_error", {}))
    name = str(baseline.get("label", "baseline"))
    return figures.error_by_step(numbers(part["steps"]), groups(part["normalized_error"]), baselines, name)


def _calibration(part: Mapping[str, Any]) -> Figure:
    return figures.calibration(numbers(part["nominal"]), groups(part["observed"]))


def _open_loop(part: Mapping[str, Any]) -> Figure:
    names = [str(name) for name in part["names"]]
    return figures.open_loop(names, table(part["real"]), table(part["simulated"]))


def _uncertainty(part: Mapping[str, Any]) -> Figure:
    return figures.histograms(groups(part), "uncertainty of the ensemble")


def _rewards(part: Mapping[str, Any]) -> Figure:
    return figures.histograms(groups(part), "learned reward of a transition")


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
