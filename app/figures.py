"""The figures of a run's report: pure functions from numbers to matplotlib figures.

Nothing here reads a file or touches pyplot's global state. Text and axes are drawn in :data:`INK`, which
:func:`to_svg` turns into the page's own text colour, and every other colour is legible on white and on near-black,
so one SVG serves light and dark pages.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

INK = "#0a0b0c"
WIDTH = 9.8
HALF = 4.75
LONG_LABEL = 26  # characters of which two do not fit beside each other above half a page
COLORS = {
    "expert": "#12936b",
    "held-out expert": "#5b8f2e",
    "held-out demonstrations": "#12936b",
    "held-out other data": "#b07d00",
    "diverse": "#b07d00",
    "roll-out": "#2f7fd0",
    "simulator": "#2f7fd0",
    "policy": "#d4552a",
    "behaviour cloning": "#9366c8",
    "weighted cloning": "#c0508f",
}
OTHER_COLORS = ("#7a8591", "#c0508f", "#16909c", "#8d7a4f")
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "grid.color": INK,
    "grid.alpha": 0.1,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "figure.facecolor": "none",
    # Names come from data sets and logs: a dollar sign in one of them is a dollar sign, not a formula.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Evaluation:
    """Returns of one contender in the real task; ``interval`` is the 95% confidence interval of the mean."""

    label: str
    mean: float
    std: float
    interval: tuple[float, float]
    episodes: float
    returns: Numbers = field(repr=False)
    lengths: Numbers = field(repr=False)

    @property
    def mean_length(self) -> float:
        """NaN where no length is known."""
        known = self.lengths[np.isfinite(self.lengths)]
        return float(known.mean()) if known.size else math.nan


def color(label: str) -> str:
    """The colour of a label, the same in every figure."""
    return COLORS.get(label, OTHER_COLORS[sum(map(ord, label)) % len(OTHER_COLORS)])


def compact(value: float, _position: int | None = None) -> str:
    """``12500 -> '12.5k'``: axis labels that stay short and need no formula."""
    if not math.isfinite(value):
        return "not finite"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


@matplotlib.rc_context(STYLE)
def episode_returns(evaluations: Sequence[Evaluation]) -> Figure:
    """One dot per episode, with the mean and its 95% interval, beside the lengths of the same episodes."""
    drawn = [evaluation for evaluation in evaluations if np.isfinite(evaluation.returns).any()]
    _require(drawn, "no returns")
    with_lengths = any(np.isfinite(evaluation.lengths).any() for evaluation in drawn)
    figure = _figure(0.7 + 0.55 * len(drawn))
    widths = [3, 1] if with_lengths else [1]
    axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    for row, evaluation in enumerate(drawn):
        tint = color(evaluation.label)
        _dots(axes[0], evaluation.returns, row, tint)
        low, high = evaluation.interval
        if math.isfinite(low) and math.isfinite(high):
            axes[0].plot([low, high], [row, row], color=INK, linewidth=5, alpha=0.3, solid_capstyle="butt")
        if math.isfinite(evaluation.mean):
            axes[0].plot([evaluation.mean] * 2, [row - 0.27, row + 0.27], color=INK, linewidth=1.8)
        if with_lengths:
            _dots(axes[1], evaluation.lengths, row, tint)
    axes[0].set_yticks(range(len(drawn)), [evaluation.label for evaluation in drawn], fontsize=9)
    axes[0].set_ylim(len(drawn) - 0.5, -0.5)
    axes[0].set_xlabel("return of an episode in the real task")
    for axis in axes:
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_formatter(FuncFormatter(compact))
    if with_lengths:
        axes[1].set_xlabel("length in steps")
        axes[1].set_xlim(left=0)
    return figure


@matplotlib.rc_context(STYLE)
def return_curves(curve: Mapping[str, Numbers], expert: float, cloning: float) -> Figure:
    """Return in the real task and in the simulator over the updates of the policy.

    A learned reward has a unit of its own, so the real return stands in one panel, with the expert and behaviour
    cloning, and returns in learned reward stand in another: the simulator's promise, and what the same reward pays
    for the policy's real episodes where that was measured. The axes in learned reward include 0: the distance of two
    returns is to be judged by their size.

    Args:
        curve: equally long ``update``, ``real_return``, ``real_low``, ``real_high``, ``simulator_return``,
            ``real_learned_return`` and, if they are known, ``value`` and ``simulator_discounted_return``; NaN where
            something was not measured.
        expert: mean return of the expert in the real task, NaN if unknown.
        cloning: mean return of behaviour cloning in the real task, NaN if unknown.
    """
    panels = {
        "return in the task": [("real_return", "policy", "in the real task")],
        "return in\nlearned reward": [
            ("simulator_return", "simulator", "in the simulator"),
            ("real_learned_return", "policy", "in the real task"),
        ],
        "discounted return": [
            ("simulator_discounted_return", "simulator", "in the simulator"),
            ("value", "value", "critic's value"),
        ],
    }
    nothing = np.full(1, math.nan)
    panels = {
        title: [line for line in lines if np.isfinite(curve.get(line[0], nothing)).any()]
        for title, lines in panels.items()
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    _require(panels, "no finite return")
    heights = [1.0 if title == "discounted return" else 1.8 for title in panels]
    figure = _figure(0.75 + sum(heights))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    handles: dict[str, Artist] = {}
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        axis.set_ylabel(title)
        axis.yaxis.set_major_formatter(FuncFormatter(compact))
        for name, tint, label in lines:
            _line(axis, curve["update"], curve[name], color(tint), label=label)
            if name == "real_return":
                known = np.isfinite(curve["real_low"]) & np.isfinite(curve["real_high"])
                bounds = [curve[key][known] for key in ("update", "real_low", "real_high")]
                axis.fill_between(*bounds, color=color(tint), alpha=0.18, linewidth=0)
                for reference, height, dashes in (("expert", expert, "--"), ("behaviour cloning", cloning, ":")):
                    if math.isfinite(height):
                        axis.axhline(height, color=color(reference), linestyle=dashes, label=reference)
        if title != "return in the task":  # 0 is what an average roll-out earns
            low, high = axis.get_ylim()
            room = 0.05 * max(-low, high)
            axis.set_ylim(min(low - room, 0.0), max(high + room, 0.0))
        handles |= {str(handle.get_label()): handle for handle in axis.get_legend_handles_labels()[0]}
    axes[-1].set_xlabel("updates of the policy")
    axes[-1].xaxis.set_major_formatter(FuncFormatter(compact))
    figure.legend(handles=list(handles.values()), loc="outside upper left", ncols=5)
    figure.align_ylabels()
    return figure


@matplotlib.rc_context(STYLE)
def learning_curves(series: Mapping[str, tuple[Numbers, Numbers]], xlabel: str, tint: str) -> Figure:
    """Small multiples of logged metrics, ``name -> (steps, values)``, as many as there are."""
    _require(series, "no metrics")
    columns = 4
    figure, axes = _grid(len(series), columns, height=1.4)
    for axis, (name, (steps, values)) in zip(axes, series.items(), strict=True):
        _line(axis, steps, values, tint, limit=100)
        broken = int(np.count_nonzero(~np.isfinite(values)))
        axis.set_title(_shorten(name, 32) + (f" ({broken} not finite)" if broken else ""))
        axis.yaxis.set_major_formatter(FuncFormatter(compact))
        axis.xaxis.set_major_formatter(FuncFormatter(compact))
        axis.locator_params(axis="both", nbins=4)
    for axis in axes[-columns:]:
        axis.set_xlabel(xlabel)
    return figure


@matplotlib.rc_context(STYLE)
def histograms(groups: Mapping[str, Numbers], xlabel: str, reference: str = "expert") -> Figure:
    """One row per group on a common axis, each with the outline of the reference group behind it.

    Values beyond the central 99.8% of all of them are counted in the outermost bins; positive values that span
    more than two orders of magnitude get a logarithmic axis.
    """
    finite = {label: values[np.isfinite(values)] for label, values in groups.items()}
    finite = {label: values for label, values in finite.items() if values.size}
    _require(finite, "no finite values")
    bounds = np.array([np.quantile(values, (0.001, 0.999)) for values in finite.values()])
    low, high = float(bounds[:, 0].min()), float(bounds[:, 1].max())
    logarithmic = low > 0 and high / low > 100
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, 61) if logarithmic else np.linspace(low, high, 61)
    figure = _figure(0.55 + 0.6 * len(finite))
    axes = figure.subplots(len(finite), 1, sharex=True, squeeze=False)[:, 0]
    shares = {
        label: np.histogram(np.clip(values, low, high), edges)[0] / values.size for label, values in finite.items()
    }
    for axis, (label, share) in zip(axes, shares.items(), strict=True):
        axis.stairs(share, edges, fill=True, color=color(label), alpha=0.65)
        if reference in shares and label != reference:
            axis.stairs(shares[reference], edges, color=color(reference), linewidth=1.0)
        axis.axvline(float(np.median(finite[label])), color=INK, linewidth=1.2, linestyle=(0, (2, 1.5)))
        axis.set_ylabel(label, rotation=0, horizontalalignment="right", verticalalignment="center", fontsize=9)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        broken = groups[label].size - finite[label].size
        text = f"median {compact(float(f'{np.median(finite[label]):.3g}'))}, {finite[label].size:,} values"
        text += f", {broken} not finite" if broken else ""
        axis.text(1.0, 0.98, text, transform=axis.transAxes, fontsize=7.5, alpha=0.75, ha="right", va="top")
        axis.margins(y=0.3)
    if logarithmic:
        axes[-1].set_xscale("log")
        axes[-1].xaxis.set_minor_formatter(NullFormatter())
    axes[-1].xaxis.set_major_formatter(FuncFormatter(compact))
    axes[-1].set_xlabel(xlabel)
    return figure


@matplotlib.rc_context(STYLE)
def open_loop(names: Sequence[str], real: Numbers, simulated: Numbers, panels: int = 6) -> Figure:
    """Real and simulated features over one episode, from the best to the worst tracked.

    Args:
        names: of the features, in the order of the columns.
        real: ``(T, features)``.
        simulated: ``(T', features)``, from the same start under the same actions; T' may be shorter than T.
        panels: at most so many features, spread evenly over the ranking.
    """
    _require(real.size and simulated.size, "an empty roll-out")
    if real.ndim != 2 or simulated.ndim != 2 or real.shape[1] != simulated.shape[1]:
        raise ValueError(f"shapes {real.shape} and {simulated.shape} do not fit each other")
    length = min(len(real), len(simulated))
    errors = _error(real, simulated, length)
    # Features whose error is not finite count as the worst, where nobody can overlook them.
    order = np.argsort(np.where(np.isfinite(errors), errors, np.inf), kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(panels, len(order))).round().astype(int))]
    figure, axes = _grid(len(chosen), 3, height=1.35, legend=0.3)
    for axis, feature in zip(axes, chosen, strict=True):
        # The real line is wide and pale, so that a simulator that follows it exactly does not hide it.
        axis.plot(real[:, feature], color=INK, linewidth=3.2, alpha=0.35, label="real")
        axis.plot(simulated[:, feature], color=color("simulator"), linewidth=1.3, label="simulated")
        name = names[feature] if feature < len(names) else f"feature {feature}"
        axis.set_title(f"{_shorten(name, 32)}: error {compact(round(float(errors[feature]), 3))}")
        seen = real[np.isfinite(real[:, feature]), feature]
        if seen.size:
            # A simulator that flies off must not flatten the episode it is compared with.
            margin = 0.6 * max(float(np.ptp(seen)), 1e-6)
            axis.set_ylim(float(seen.min()) - margin, float(seen.max()) + margin)
        axis.yaxis.set_major_formatter(FuncFormatter(compact))
        axis.locator_params(axis="both", nbins=5)
    for axis in axes[-3:]:
        axis.set_xlabel("step")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper left", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def error_by_step(
    steps: Numbers, errors: Mapping[str, Numbers], baselines: Mapping[str, Numbers], baseline: str = "baseline"
) -> Figure:
    """Open-loop error after so many steps, per kind of data, with dashed baselines in the same colours.

    Args:
        steps: after how many steps, ``(K,)``.
        errors: ``(K,)`` by kind of data.
        baselines: errors of a forecast that knows nothing, by the same kinds.
        baseline: what that forecast is called.
    """
    _require([values for values in errors.values() if np.isfinite(values).any()], "no finite errors")
    # A simulator that flies off to infinity must still be seen to fly off.
    ceiling = 1e6
    figure = _figure(3.3, width=HALF)
    axis = figure.subplots()
    free = iter(OTHER_COLORS)  # kinds that have no colour of their own must still be told apart
    tints = {label: COLORS.get(label) or next(free, color(label)) for label in errors}
    for label, values in errors.items():
        _line(axis, steps, np.minimum(values, ceiling), tints[label], label=label)
    for label, values in baselines.items():
        _line(axis, steps, np.minimum(values, ceiling), tints.get(label, INK), dashes="--")
    if baselines:
        axis.plot([], [], color=INK, linestyle="--", label=baseline)
    axis.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
    axis.set(
        xscale="log", yscale="log", xlabel="steps without seeing the real state", ylabel="error in standard deviations"
    )
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(FuncFormatter(compact))
        side.set_minor_formatter(NullFormatter())
    counts = steps[np.isfinite(steps) & (steps > 0)]
    axis.set_xticks(counts[:: max(1, len(counts) // 8)])
    figure.legend(loc="outside upper left", ncols=1 if max(map(len, errors)) > LONG_LABEL else 2)
    return figure


@matplotlib.rc_context(STYLE)
def calibration(nominal: Numbers, observed: Mapping[str, Numbers]) -> Figure:
    """How often the truth fell inside the model's intervals, against how often it should have."""
    _require([values for values in observed.values() if np.isfinite(values).any()], "no finite coverage")
    figure = _figure(3.3, width=HALF)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="perfect")
    for label, values in observed.items():
        _line(axis, nominal, values, color(label), label=label)
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", xlabel="promised coverage", ylabel="observed coverage")
    ticks = FuncFormatter(lambda value, _position: f"{100 * value:.0f}%")
    axis.xaxis.set_major_formatter(ticks)
    axis.yaxis.set_major_formatter(ticks)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def to_svg(figure: Figure, identifier: str) -> str:
    """The figure as one inline ``<svg>`` element in the page's text colour and font, its ids unique to it."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": identifier}):
        engine = figure.get_layout_engine()
        if engine is not None:
            # Left to savefig, the layout costs a second pass over every artist.
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{identifier}-", svg)
    svg = re.sub(r' font-family: [^;"]*;', "", svg)
    return svg.replace(INK, "currentColor")


def _require(present: object, complaint: str) -> None:
    if not present:
        raise ValueError(f"it holds {complaint}")


def _figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _grid(count: int, columns: int, height: float, legend: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels, read row by row; what is left of the last row stays empty.

    Margins are fixed, in inches: computing them for dozens of panels would take longer than drawing them.
    """
    rows = -(-count // columns)
    total = 0.25 + legend + rows * height
    gap, panel = 0.55, (WIDTH - 0.6 - 0.55 * (columns - 1)) / columns
    gap_below, panel_height = 0.5, height - 0.5
    figure = Figure(figsize=(WIDTH, total))
    grid = figure.add_gridspec(
        rows,
        columns,
        left=0.5 / WIDTH,
        right=1 - 0.1 / WIDTH,
        bottom=0.45 / total,
        top=1 - (0.3 + legend) / total,
        wspace=gap / panel,
        hspace=gap_below / panel_height,
    )
    return figure, [figure.add_subplot(grid[index // columns, index % columns]) for index in range(count)]


def _dots(axis: Axes, values: Numbers, row: float, tint: str) -> None:
    """A strip of dots, spread by the golden ratio: as even as random jitter and the same on every run."""
    finite = values[np.isfinite(values)]
    spread = row + 0.44 * ((np.arange(finite.size) * 0.618034) % 1 - 0.5)
    axis.plot(
        finite, spread, "o", color=tint, markersize=3.6, alpha=0.7, markeredgewidth=0, rasterized=finite.size > 2000
    )


def _line(
    axis: Axes,
    x: Numbers,
    y: Numbers,
    tint: str,
    label: str | None = None,
    dashes: str = "-",
    limit: int = 300,
) -> None:
    """A line through the finite points; beyond ``limit`` of them, the means of equal bins and their range as a band."""
    size = min(x.size, y.size)
    known = np.isfinite(x[:size]) & np.isfinite(y[:size])
    x, y = x[:size][known], y[:size][known]
    if x.size > limit:
        bins = np.array_split(np.arange(x.size), limit)
        extremes = np.array([(y[rows].min(), y[rows].max()) for rows in bins])
        x, y = np.array([x[rows].mean() for rows in bins]), np.array([y[rows].mean() for rows in bins])
        axis.fill_between(x, extremes[:, 0], extremes[:, 1], color=tint, alpha=0.2, linewidth=0)
    marker = "o" if x.size <= 25 else ""
    axis.plot(x, y, color=tint, label=label, linestyle=dashes, marker=marker, markersize=3.2)


def _error(real: Numbers, simulated: Numbers, length: int) -> Numbers:
    """Root mean squared error per feature, in standard deviations of the real episode."""
    with np.errstate(all="ignore"):
        difference = np.sqrt(np.mean((real[:length] - simulated[:length]) ** 2, axis=0))
        spread = np.std(real, axis=0)
    return np.asarray(difference / np.where(spread > 1e-9, spread, 1.0), dtype=np.float64)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
