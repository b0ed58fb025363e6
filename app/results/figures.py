"""The figures of result pages: pure functions from numbers to matplotlib figures, on white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from app.figures import COLORS, INK, OTHER_COLORS, STYLE, Numbers, color, compact

PALETTE = (*dict.fromkeys(COLORS.values()), *OTHER_COLORS)
Panel = Mapping[str, Numbers]  # label on the x-axis -> a value per seed
PERCENT = FuncFormatter(lambda value, _position: f"{100 * value:.0f}%")


@matplotlib.rc_context(STYLE)
def share_bars(panels: Mapping[str, Mapping[str, Panel]]) -> Figure:
    """Shares of the expert's return: a bar per variant, a dot per seed, and a line where the expert is.

    Args:
        panels: row of the figure -> column of the figure -> variant -> shares, 1 being the expert's return.
    """
    figure, grid = _grid(panels, height=2.2)
    for row, (name, columns) in zip(grid, panels.items(), strict=True):
        for axis, (title, panel) in zip(row, columns.items(), strict=True):
            seed_bars(axis, panel)
            axis.axhline(1.0, color=color("expert"), linestyle="--", linewidth=1.2)
            axis.set_title(title)
            axis.yaxis.set_major_formatter(PERCENT)
        row[0].set_ylabel(f"{name}\nshare of the expert's return" if name else "share of the expert's return")
    return figure


@matplotlib.rc_context(STYLE)
def errors_before_and_after(panels: Mapping[str, Mapping[str, Mapping[str, tuple[Panel, Panel]]]]) -> Figure:
    """Held-out errors before (hollow) and after (filled) the game of the simulator stage, a dot per seed.

    Args:
        panels: row of the figure -> column of the figure -> kind of data -> values before and after, by variant.
    """
    figure, grid = _grid(panels, height=2.1)
    for row, (name, columns) in zip(grid, panels.items(), strict=True):
        for axis, (title, kinds) in zip(row, columns.items(), strict=True):
            labels = list(next(iter(kinds.values()))[1])
            for index, (kind, (before, after)) in enumerate(kinds.items()):
                offset = 0.3 * (index - 0.5 * (len(kinds) - 1))
                for place, label in enumerate(labels):
                    for shift, panel, filled in ((-0.06, before, False), (0.06, after, True)):
                        _dots(axis, panel[label], place + offset + shift, color(kind), filled)
                axis.plot([], [], "o", color=color(kind), markersize=4, label=kind)
            _name_places(axis, labels)
            axis.set_title(title)
            axis.axhline(0.0, color=INK, linewidth=0.6)
        row[0].set_ylabel(name)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.suptitle("hollow: before the game, filled: after it", x=0.01, ha="left", fontsize=8.5)
    return figure


@matplotlib.rc_context(STYLE)
def simulator_panels(panels: Mapping[str, Mapping[str, Panel]], references: Mapping[str, float]) -> Figure:
    """Figures of merit of simulators, a panel each: a dot per seed and a stroke at their mean, per kind of data.

    Args:
        panels: title -> kind of data -> label on the x-axis -> values.
        references: title -> where a dotted line stands.
    """
    figure, grid = _grid({"": panels}, height=2.6, share_y=False)
    for axis, (title, kinds) in zip(grid[0], panels.items(), strict=True):
        labels = list(next(iter(kinds.values())))
        for index, (kind, panel) in enumerate(kinds.items()):
            offset = 0.24 * (index - 0.5 * (len(kinds) - 1))
            for place, label in enumerate(labels):
                _dots(axis, panel[label], place + offset, color(kind))
                if len(panel[label]):
                    middle, half = float(panel[label].mean()), 0.09
                    axis.plot([place + offset - half, place + offset + half], [middle] * 2, color=INK, linewidth=1.4)
            axis.plot([], [], "o", color=color(kind), markersize=4, label=kind)
        axis.axhline(0.0, color=INK, linewidth=0.6)
        if title in references:
            axis.axhline(references[title], color=INK, linewidth=0.8, linestyle=":")
        _name_places(axis, labels)
        axis.set_title(title)
        axis.yaxis.set_major_formatter(FuncFormatter(compact))
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def reward_histograms(panels: Mapping[str, Mapping[str, Mapping[str, Numbers]]]) -> Figure:
    """Densities of the learned reward by kind of transition.

    Args:
        panels: row of the figure -> column of the figure -> kind of transition -> rewards; no kinds leave a gap.
    """
    figure, grid = _grid(panels, height=1.7, share_x=False, share_y=False)
    handles: dict[str, Patch] = {}
    for row, (name, columns) in zip(grid, panels.items(), strict=True):
        for axis, (title, kinds) in zip(row, columns.items(), strict=True):
            axis.set_title(title)
            if not kinds:
                axis.set_axis_off()
                continue
            low, high = np.quantile(np.concatenate(list(kinds.values())), [0.002, 0.998])
            edges = np.linspace(low, max(high, low + 1e-6), 61).tolist()
            for kind, values in kinds.items():
                clipped = np.clip(values, low, high)
                axis.hist(clipped, edges, density=True, color=color(kind), alpha=0.45)
                handles[kind] = Patch(color=color(kind), alpha=0.45, label=kind)
            axis.set_yticks([])
        seen = next((axis for axis, kinds in zip(row, columns.values(), strict=True) if kinds), row[0])
        seen.set_ylabel(name)
    for axis in grid[-1]:
        axis.set_xlabel("unscaled reward")
    figure.legend(handles=list(handles.values()), loc="outside upper right", ncols=3)
    return figure


def seed_bars(axis: Axes, panel: Panel) -> None:
    """A bar at the mean of each label's values, and a dot for each value; a dash where there is none."""
    for place, values in enumerate(panel.values()):
        tint = PALETTE[place % len(PALETTE)]
        if len(values):
            axis.bar(place, float(values.mean()), width=0.7, color=tint, alpha=0.4)
            _dots(axis, values, place, tint)
        else:
            axis.text(place, 0.02, "\N{EN DASH}", ha="center", transform=axis.get_xaxis_transform())
    _name_places(axis, list(panel))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG on white."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=130, facecolor="white", metadata={"Software": None})


def _dots(axis: Axes, values: Numbers, place: float, tint: str, filled: bool = True) -> None:
    spread = place + 0.1 * (np.linspace(-0.5, 0.5, len(values)) if len(values) > 1 else np.zeros(len(values)))
    axis.plot(spread, values, "o", color=tint, markersize=4, markerfacecolor=tint if filled else "none")


def _name_places(axis: Axes, labels: Sequence[str]) -> None:
    axis.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.grid(axis="x", visible=False)


def _grid(
    panels: Mapping[str, Mapping[str, object]], height: float, share_x: bool = True, share_y: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    columns = max(len(row) for row in panels.values())
    size = (max(2.4 * columns, 4.5), 0.8 + height * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        len(panels), columns, squeeze=False, sharex="col" if share_x else False, sharey="row" if share_y else False
    )
    return figure, [list(row) for row in axes]
