"""The figures of a run's diagnosis: pure functions from numbers to matplotlib figures, in the style of ``figures``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from app.figures import INK, STYLE, WIDTH, Numbers, color, compact

PLACES = {"simulator": ("simulator", "in the simulator"), "real": ("policy", "in the real task")}
DASHES = ("--", ":")


@dataclass(frozen=True)
class FixedPolicies:
    """Returns of policies under one reward: ``(policies, horizons)`` each, and a rank correlation per horizon."""

    simulator: Numbers
    real: Numbers
    rank_correlation: Numbers


@matplotlib.rc_context(STYLE)
def over_training(updates: Numbers, series: Mapping[str, tuple[Mapping[str, Numbers], Mapping[str, float]]]) -> Figure:
    """One panel per quantity, with a line for the simulator and one for the real task.

    Args:
        updates: of the policies.
        series: by title: values in ``simulator`` and ``real``, and heights of named reference lines.
    """
    figure = _figure(2.5)
    axes = figure.subplots(1, len(series), squeeze=False)[0]
    for axis, (title, (places, lines)) in zip(axes, series.items(), strict=True):
        for place, values in places.items():
            tint, label = PLACES[place]
            _line(axis, updates, values, color(tint), label)
        for (name, height), dashes in zip(lines.items(), DASHES, strict=False):
            if math.isfinite(height):
                axis.axhline(height, color=color(name), linestyle=dashes, linewidth=1.1)
                axis.annotate(
                    name,
                    (0.02, height),
                    xycoords=("axes fraction", "data"),
                    xytext=(0, 2),
                    fontsize=7,
                    textcoords="offset points",
                    color=color(name),
                )
        axis.set_title(title)
        axis.margins(y=0.15)
        if not title.startswith("learned"):
            axis.set_ylim(bottom=0)
        _short_ticks(axis)
        axis.set_xlabel("updates of the policy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def fixed_policies(horizons: Sequence[int], parts: Mapping[str, FixedPolicies]) -> Figure:
    """Return in the simulator over the return in the real task, a panel per reward and horizon, policies numbered."""
    if not parts:
        raise ValueError("it holds no fixed policies")
    figure = _figure(0.3 + 2.5 * len(parts))
    axes = figure.subplots(len(parts), len(horizons), squeeze=False)
    for row, (label, part) in zip(axes, parts.items(), strict=True):
        for column, (axis, steps) in enumerate(zip(row, horizons, strict=True)):
            real, simulated = part.real[:, column], part.simulator[:, column]
            for number, place in enumerate(zip(real, simulated, strict=True), start=1):
                if all(map(math.isfinite, place)):
                    axis.plot(*place, "o", color=color("simulator"), markersize=10, alpha=0.35, markeredgewidth=0)
                    axis.annotate(str(number), place, ha="center", va="center", fontsize=7)
            known = np.concatenate([real, simulated])
            known = known[np.isfinite(known)]
            if known.size:
                low, high = float(known.min()), float(known.max())
                axis.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=":")
            found = part.rank_correlation[column]
            correlation = f"{found:.2f}" if math.isfinite(found) else "none"
            axis.set_title(f"{label} reward, {steps} steps: rank correlation {correlation}")
            axis.set(xlabel="return in the real task", ylabel="in the simulator" if column == 0 else "")
            axis.margins(0.12)
            _short_ticks(axis)
    return figure


@matplotlib.rc_context(STYLE)
def control(curve: Mapping[str, Numbers], expert: float) -> Figure:
    """Return of a control in simulator and real task, and what its critics believe beside what they are paid.

    Args:
        curve: equally long ``update``, ``simulator_return``, ``real_return``, ``simulator_discounted_return`` and
            ``value``.
        expert: mean return of the expert in the real task, NaN if unknown.
    """
    with_values = np.isfinite(curve["value"]).any()
    figure = _figure(2.8)
    axes = figure.subplots(1, 2 if with_values else 1, squeeze=False)[0]
    for place, (tint, label) in PLACES.items():
        _line(axes[0], curve["update"], curve[f"{place}_return"], color(tint), label)
    if math.isfinite(expert):
        axes[0].axhline(expert, color=color("expert"), linestyle="--", label="expert")
    axes[0].set_title("return in the task's own reward")
    if with_values:
        pairs = {"simulator_discounted_return": "simulator", "value": "critic's value"}
        for name, label in pairs.items():
            text = "in the simulator" if name.startswith("simulator") else label
            _line(axes[1], curve["update"], curve[name], color(label), text)
        axes[1].set_title("discounted return in the control's own unit")
    handles = {handle.get_label(): handle for axis in axes for handle in axis.get_legend_handles_labels()[0]}
    for axis in axes:
        _short_ticks(axis)
        axis.set_xlabel("updates of the control")
    figure.legend(handles=list(handles.values()), loc="outside upper left", ncols=4)
    return figure


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _line(axis: Axes, x: Numbers, y: Numbers, tint: str, label: str) -> None:
    known = np.isfinite(x) & np.isfinite(y)
    marker = "o" if known.sum() <= 25 else ""
    axis.plot(x[known], y[known], color=tint, label=label, marker=marker, markersize=3.2)


def _short_ticks(axis: Axes) -> None:
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(FuncFormatter(compact))
        side.set_major_locator(MaxNLocator(4))
