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
from app.results.figures import save
from app.results.tables import table
from app.run_folder import write_whole
from zoo.tasks import Task

CARD = "card.md"
CARD_FOLDER = "card"
VIDEO = "side_by_side.gif"
KINDS = {POLICY: "its policy", "others": "worse policies"}
ERRORS = {"open_loop_error": "error", "no_change_error": "nothing changes"}
CORRELATIONS = {
    "spearman": "simulator with real (Spearman)",
    "pearson": "simulator with real (Pearson)",
    "dynamics": "of it the dynamics: simulator with real, learned (Spearman)",
    "reward": "of it the reward: real, learned with real (Spearman)",
}
TERMINATIONS = {"simulator": "the simulator's", "rule": "the task's rule"}


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
    (folder / CARD_FOLDER).mkdir(parents=True, exist_ok=True)
    write_whole(folder / CARD_FOLDER / "figures.json", json.dumps(found, indent=1))
    save(card_figures.returns(found["contenders"]), folder / CARD_FOLDER / "returns.png")
    save(_errors(found), folder / CARD_FOLDER / "errors.png")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
    )
    environment.filters |= {"whole": _whole, "share": _share}
    text = environment.get_template("card.md.j2").render(
        title=title,
        task=task,
        limits=limits(found),
        folder=CARD_FOLDER,
        video=VIDEO if (folder / CARD_FOLDER / VIDEO).exists() else None,
        policy=found["policy"],
        share=found["policy"]["share_of_expert"],
        demonstrated=_demonstrated(origin),
        ends=found["termination"]["ends"],
        noise=found["noise_scale"],
        gap=found["exploitation_gap"],
        tables=_tables(found, origin),
        origin=origin,
        precision=precision,
        minutes=round(origin["wall_seconds"] / 60),
        versions=", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
    )
    write_whole(folder / CARD, text)
    return folder / CARD


def _demonstrated(origin: Mapping[str, Any]) -> float | None:
    """Mean return of the demonstrations, if a share of it would mean something."""
    mean = origin.get("expert", {}).get("mean")
    return mean if mean is not None and mean > 0 else None


def _errors(found: Mapping[str, Any]) -> Any:
    labels = {POLICY: "policy", "others": "diverse"}  # colours of a report

    def series(key: str, suffix: str = "") -> dict[str, Any]:
        return {label + suffix: np.array(found[key][kind], dtype=float) for kind, label in labels.items()}

    steps = np.array(found["steps"], dtype=float)
    return report_figures.error_by_step(
        steps, series("open_loop_error"), series("no_change_error", ", if nothing changed")
    )


def _tables(found: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, str]:
    """Every table of the card, as Markdown, by name."""
    return {
        "forecasts": table(
            ["steps", *(f"{label}: {what}" for label in KINDS.values() for what in ERRORS.values())],
            [
                [str(step), *(_number(found[key][kind][at]) for kind in KINDS for key in ERRORS)]
                for at, step in enumerate(found["steps"])
            ],
        ),
        "coverage": table(
            ["an interval that should hold", *(f"holds, {label}" for label in KINDS.values())],
            [
                [level, *(_share(found["coverage"][kind][level]) for kind in KINDS)]
                for level in found["coverage"][POLICY]
            ],
        ),
        "ends": table(
            ["termination", "precision", "recall"],
            [
                [label, _share(found["termination"][kind]["precision"]), _share(found["termination"][kind]["recall"])]
                for kind, label in TERMINATIONS.items()
                if kind in found["termination"]
            ],
        ),
        "returns": table(
            ["policy", "real", "real, learned", "simulator"],
            [
                [name, *(_whole(each[key]) for key in ("real", "real_learned", "simulator"))]
                for name, each in found["contenders"].items()
            ],
        ),
        "correlations": table(
            ["correlation over these policies", "value"],
            [
                *([label, _number(found["return_correlation"][key])] for key, label in CORRELATIONS.items()),
                *(
                    [f"reward, learned with real, transitions of {label} (Spearman)", _number(value)]
                    for label, value in zip(KINDS.values(), found["reward_rank_correlation"].values(), strict=True)
                ),
            ],
        ),
        "time": table(
            ["rows", "milliseconds per step on one CPU thread, uncertainty included"],
            [[f"{int(rows):,}", _number(value)] for rows, value in found["milliseconds"].items()],
        ),
        "data": table(
            ["data", "role", "episodes", "rows", "SHA-256"],
            [
                [each["id"], each["role"], str(each["episodes"]), f"{each['rows']:,}", f"`{each['sha256'][:16]}`"]
                for each in origin["data"]
            ],
        ),
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _whole(value: float) -> str:
    """Without decimals, unless these are most of it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
