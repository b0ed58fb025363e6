"""The card itself: ``card.md`` with its plots, its video and the figures they show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app import figures as report_figures
from app.cards import figures as card_figures
from app.cards.contenders import POLICY
from app.cards.limits import limits
from app.cards.recorded_limits import recorded_limits
from app.cards.tables import KINDS, common_tables, recording_tables, return_tables, share, whole
from app.results.figures import save
from app.run_folder import write_whole
from zoo.tasks import Task

CARD = "card.md"
CARD_FOLDER = "card"
VIDEO = "side_by_side.gif"
FORECAST = "forecast.png"
COLOURS = {POLICY: "policy", "others": "diverse"}  # those of a report


def write_card(
    folder: Path,
    title: str,
    task: Task,
    found: Mapping[str, Any],
    origin: Mapping[str, Any],
    precision: str | None = None,
) -> Path:
    """Write the card of a Simulator; it shows the video that ``folder/card`` holds, if there is one.

    Args:
        folder: of the run or entry.
        title: its id, or the name of its run.
        task: the real task.
        found: from ``app.cards.measure``.
        origin: the training's ``metrics.json``.
        precision: a sentence about that of the weights.
    """
    _write_figures(folder, found, COLOURS)
    save(card_figures.returns(found["contenders"]), folder / CARD_FOLDER / "returns.png")
    return _write_page(
        folder,
        "card.md.j2",
        found,
        origin,
        title=title,
        task=task,
        limits=limits(found),
        video=VIDEO if (folder / CARD_FOLDER / VIDEO).exists() else None,
        policy=found["policy"],
        share=found["policy"]["share_of_expert"],
        demonstrated=_demonstrated(origin),
        gap=found["exploitation_gap"],
        tables=common_tables(found, origin, KINDS) | return_tables(found),
        precision=precision,
    )


def write_recorded_card(
    folder: Path, title: str, found: Mapping[str, Any], origin: Mapping[str, Any], precision: str | None = None
) -> Path:
    """Write the card of a Simulator that was measured against recorded episodes alone.

    Args:
        folder: of the run or entry.
        title: its id, or the name of its run.
        found: from ``app.cards.recorded``.
        origin: the training's ``metrics.json``.
        precision: a sentence about that of the weights.
    """
    names = list(found["recordings"])
    _write_figures(folder, found, dict(zip(names, names, strict=True)))
    drawn = found["open_loop"]
    if drawn is not None:
        curves = report_figures.open_loop(drawn["names"], np.array(drawn["real"]), np.array(drawn["simulated"]))
        save(curves, folder / CARD_FOLDER / FORECAST)
    return _write_page(
        folder,
        "card_recorded.md.j2",
        found,
        origin,
        title=title,
        limits=recorded_limits(found),
        drawn=drawn,
        forecast=FORECAST,
        policy=found["policy"],
        tables=common_tables(found, origin, dict(zip(names, names, strict=True))) | recording_tables(found),
        precision=precision,
    )


def _write_figures(folder: Path, found: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """The figures as JSON, and the plot of open-loop errors by kind of transitions, under what it is labelled."""
    (folder / CARD_FOLDER).mkdir(parents=True, exist_ok=True)
    write_whole(folder / CARD_FOLDER / "figures.json", json.dumps(found, indent=1))

    def series(key: str) -> dict[str, Any]:
        return {label: np.array(found[key][kind], dtype=float) for kind, label in labels.items()}

    steps = np.array(found["steps"], dtype=float)
    errors = report_figures.error_by_step(
        steps, series("open_loop_error"), series("no_change_error"), "predict no change"
    )
    save(errors, folder / CARD_FOLDER / "errors.png")


def _write_page(folder: Path, template: str, found: Mapping[str, Any], origin: Mapping[str, Any], **given: Any) -> Path:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
    )
    environment.filters |= {"whole": whole, "share": share}
    text = environment.get_template(template).render(
        folder=CARD_FOLDER,
        ends=found["termination"]["ends"],
        noise=found["noise_scale"],
        origin=origin,
        minutes=round(origin["wall_seconds"] / 60),
        versions=", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
        **given,
    )
    write_whole(folder / CARD, text)
    return folder / CARD


def _demonstrated(origin: Mapping[str, Any]) -> float | None:
    """Mean return of the demonstrations, if a share of it would mean something."""
    mean = origin.get("expert", {}).get("mean")
    return mean if mean is not None and mean > 0 else None
