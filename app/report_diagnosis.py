"""The section Diagnosis of a run's report: tables and figures from ``diagnose.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from app import diagnosis_figures
from app.diagnosis_figures import FixedPolicies
from app.figures import Numbers

DIAGNOSIS = "Diagnosis"

REWARDS = {"learned": "return in learned reward", "true": "return in the task’s own reward"}

# Columns of the table over training: heading, key in a row
OVER_TRAINING = {
    "update": "update",
    "learned return, simulator": "simulator_return",
    "real": "real_learned_return",
    "measured return": "real_return",
    "length, simulator": "simulator_length",
    "real ": "real_length",
    "distance, simulator": "simulator_distance",
    "real  ": "real_distance",
    "discounted return": "simulator_discounted_return",
    "critic’s value": "value",
}


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers under a title, with the sentence that says how to read them."""

    title: str
    caption: str
    head: list[str]
    rows: list[list[object]]


@dataclass(frozen=True)
class Diagnosis:
    """What the section shows. ``figures`` are title, caption and what draws it."""

    kind: str
    reason: str
    notes: list[str]
    tables: list[Table]
    figures: list[tuple[str, str, Callable[[], Figure]]]
    section: str = DIAGNOSIS


def read_diagnosis(path: Path) -> Diagnosis:
    """The content of the section.

    Raises:
        LookupError, TypeError, ValueError: where the file is not what ``offsim diagnose`` writes.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    references, rows = content["references"], content["over_training"]
    measure = str(references["uncertainty"])
    tables = [_over_training(rows), _last_policy(rows[-1], references)]
    figures: list[tuple[str, str, Callable[[], Figure]]] = [
        (
            "Where the policy goes, in the simulator and in reality",
            "Each panel compares the same policies in both: a simulator that can be trusted there gives the same "
            "length and reward, and distance from the data and uncertainty tell whether the policy left what is known.",
            partial(_draw_over_training, rows, references, measure),
        )
    ]
    fixed = content.get("fixed_policies")
    if fixed:
        tables += [_fixed_policies(fixed, label) for label in fixed["rank_correlation"]]
        figures.append(
            (
                "Fixed policies in the simulator and in reality",
                "Each number is a policy of the table: a simulator that ranks policies rightly puts them on a line "
                "that rises from left to right, and one that is right on the dotted one.",
                partial(_draw_fixed_policies, fixed),
            )
        )
    for control in (content.get("controls") or {}).values():
        tables.append(_control(control))
        title = f"Control with {control['reward']}"
        caption = (
            "Nothing here was learned about the reward: a simulator return in the task’s own reward that climbs away "
            "from the real one is the simulator’s fault, and critics that run away from what the simulator pays are "
            "the learner’s."
        )
        figures.append((title, caption, partial(_draw_control, control, references)))
    return Diagnosis(
        kind=str(content["verdict"]["kind"]),
        reason=str(content["verdict"]["reason"]),
        notes=[str(note) for note in content.get("notes", [])],
        tables=tables,
        figures=figures,
    )


def _over_training(rows: list[Mapping[str, Any]]) -> Table:
    present = {title: key for title, key in OVER_TRAINING.items() if any(row.get(key) is not None for row in rows)}
    return Table(
        "Over training",
        "Returns in the simulator, and the first of the real ones, are in learned reward; distance is that of "
        "visited states and actions to the nearest recorded ones, 1 being that of held-out data.",
        list(present),
        [[row.get(key) for key in present.values()] for row in rows],
    )


def _last_policy(row: Mapping[str, Any], references: Mapping[str, Any]) -> Table:
    rewards = references["learned_reward"]
    lines: list[list[object]] = [
        [f"uncertainty, {name}", row["simulator_uncertainties"][name], row["real_uncertainties"][name], 1.0, None]
        for name in row["simulator_uncertainties"]
    ]
    lines.append(
        [
            "learned reward per step",
            row["simulator_reward"],
            row["real_reward"],
            rewards.get("diverse"),
            rewards["expert"],
        ]
    )
    return Table(
        "Where the last policy goes",
        "Uncertainties are in units of their median on the data, so that a measure that sees the simulator’s errors "
        "is far above 1 where simulator and reality part.",
        ["mean over visited rows", "policy, simulator", "policy, real", "data (rewards: diverse)", "expert"],
        lines,
    )


def _fixed_policies(fixed: Mapping[str, Any], label: str) -> Table:
    head = ["policy"]
    for steps in fixed["horizons"]:
        head += [f"{steps} steps, simulator", "real"]
    rows: list[list[object]] = []
    for number, policy in enumerate(fixed["policies"], start=1):
        cells: list[object] = [f"{number}  {policy['name']}"]
        for pair in zip(policy[label]["simulator"], policy[label]["real"], strict=True):
            cells += pair
        rows.append(cells)
    last: list[object] = ["rank correlation (Spearman)"]
    for value in fixed["rank_correlation"][label]:
        last += [value, ""]
    episodes = fixed["episodes"]
    caption = (
        f"Mean {REWARDS.get(label, label)} over the first steps of {episodes['simulator']} episodes in the simulator "
        f"and {episodes['real']} in the real task."
    )
    return Table(f"Fixed policies, {REWARDS.get(label, label)}", caption, head, [*rows, last])


def _control(control: Mapping[str, Any]) -> Table:
    keys = {
        "update": "update",
        "simulator return": "simulator_return",
        "real return": "real_return",
        "length, simulator": "simulator_length",
        "real": "real_length",
        "discounted return": "simulator_discounted_return",
        "critic’s value": "value",
    }
    return Table(
        f"Control with {control['reward']}",
        "Returns are in the task’s own reward; the last two columns are in the control’s own unit, in the simulator.",
        list(keys),
        [[row.get(key) for key in keys.values()] for row in control["curve"]],
    )


def _draw_over_training(rows: list[Mapping[str, Any]], references: Mapping[str, Any], measure: str) -> Figure:
    panels = {
        "steps of an episode": ("length", {"demonstrations": _number(references.get("expert_length"))}),
        "distance to the data": ("distance", {"held-out data": 1.0}),
        f"uncertainty ({measure})": ("uncertainties", {"median of the data": 1.0}),
        "learned reward per step": (
            "reward",
            {name: _number(value) for name, value in references["learned_reward"].items()},
        ),
    }
    series = {}
    for title, (key, lines) in panels.items():
        places = {}
        for place in ("simulator", "real"):
            values = [row.get(f"{place}_{key}") for row in rows]
            if key == "uncertainties":
                values = [(value or {}).get(measure) for value in values]
            places[place] = _vector(values)
        series[title] = (places, lines)
    return diagnosis_figures.over_training(_vector([row["update"] for row in rows]), series)


def _draw_fixed_policies(fixed: Mapping[str, Any]) -> Figure:
    parts = {
        label: FixedPolicies(
            simulator=_matrix([policy[label]["simulator"] for policy in fixed["policies"]]),
            real=_matrix([policy[label]["real"] for policy in fixed["policies"]]),
            rank_correlation=_vector(correlations),
        )
        for label, correlations in fixed["rank_correlation"].items()
    }
    return diagnosis_figures.fixed_policies([int(steps) for steps in fixed["horizons"]], parts)


def _draw_control(control: Mapping[str, Any], references: Mapping[str, Any]) -> Figure:
    names = ("update", "simulator_return", "real_return", "simulator_discounted_return", "value")
    curve = {name: _vector([row.get(name) for row in control["curve"]]) for name in names}
    return diagnosis_figures.control(curve, _number(references.get("expert_return")))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _vector(values: list[Any]) -> Numbers:
    return np.array([_number(value) for value in values], dtype=np.float64)


def _matrix(rows: list[list[Any]]) -> Numbers:
    return np.array([_vector(row) for row in rows], dtype=np.float64)
