"""The tables of a card, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cards.contenders import POLICY
from app.results.tables import table

KINDS = {POLICY: "its policy", "others": "worse policies"}
ERRORS = {"open_loop_error": "error", "no_change_error": "nothing changes"}
CORRELATIONS = {
    "spearman": "simulator with real (Spearman)",
    "pearson": "simulator with real (Pearson)",
    "dynamics": "of it the dynamics: simulator with real, learned (Spearman)",
    "reward": "of it the reward: real, learned with real (Spearman)",
}
TERMINATIONS = {"simulator": "the simulator's", "rule": "the task's rule"}


def common_tables(found: Mapping[str, Any], origin: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, str]:
    """Those of ``app.cards.model_figures``, of ends, and of the data, by name.

    Args:
        found: the figures.
        origin: the training's ``metrics.json``.
        kinds: what to call each of the figures' kinds of transitions.
    """
    return {
        "forecasts": table(
            ["steps", *(f"{label}: {what}" for label in kinds.values() for what in ERRORS.values())],
            [
                [str(step), *(number(found[key][kind][at]) for kind in kinds for key in ERRORS)]
                for at, step in enumerate(found["steps"])
            ],
        ),
        "coverage": table(
            ["an interval that should hold", *(f"holds, {label}" for label in kinds.values())],
            [
                [level, *(share(found["coverage"][kind][level]) for kind in kinds)]
                for level in next(iter(found["coverage"].values()))
            ],
        ),
        "ends": table(
            ["termination", "precision", "recall"],
            [
                [label, share(found["termination"][kind]["precision"]), share(found["termination"][kind]["recall"])]
                for kind, label in TERMINATIONS.items()
                if kind in found["termination"]
            ],
        ),
        "time": table(
            ["rows", "milliseconds per step on one CPU thread, uncertainty included"],
            [[f"{int(rows):,}", number(value)] for rows, value in found["milliseconds"].items()],
        ),
        "data": table(
            ["data", "role", "episodes", "rows", "SHA-256"],
            [
                [each["id"], each["role"], str(each["episodes"]), f"{each['rows']:,}", f"`{each['sha256'][:16]}`"]
                for each in origin["data"]
            ],
        ),
    }


def return_tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Returns in Simulator and real task, and how they go together, by name."""
    return {
        "returns": table(
            ["policy", "real", "real, learned", "simulator"],
            [
                [name, *(whole(each[key]) for key in ("real", "real_learned", "simulator"))]
                for name, each in found["contenders"].items()
            ],
        ),
        "correlations": table(
            ["correlation over these policies", "value"],
            [
                *([label, number(found["return_correlation"][key])] for key, label in CORRELATIONS.items()),
                *(
                    [f"reward, learned with real, transitions of {label} (Spearman)", number(value)]
                    for label, value in zip(KINDS.values(), found["reward_rank_correlation"].values(), strict=True)
                ),
            ],
        ),
    }


def recording_tables(found: Mapping[str, Any]) -> dict[str, str]:
    """What ``app.cards.recorded`` found that the card of a known task has not, by name."""
    features, policy = found["features"], found["policy"]
    return {
        "features": table(
            ["feature", "deviation", *(f"{name}: {step}" for name in features["error"] for step in features["steps"])],
            [
                [
                    name,
                    number(deviation),
                    *(number(errors[at]) for each in features["error"].values() for errors in each),
                ]
                for at, (name, deviation) in enumerate(zip(features["names"], features["deviation"], strict=True))
            ],
        ),
        "reward": table(
            ["transitions", "learned reward", "uncertainty", "from its policy's actions", "learned with recorded"],
            [
                *(
                    [
                        f"{name}, {each['episodes']} episodes",
                        number(each["learned_reward"]),
                        number(each["uncertainty"]),
                        number(each["action_error"]),
                        number(each["reward_rank_correlation"]),
                    ]
                    for name, each in found["recordings"].items()
                ),
                [
                    "its policy in the simulator",
                    number(policy["learned_reward"]),
                    number(policy["uncertainty"]),
                    "",
                    "",
                ],
            ],
        ),
    }


def number(value: float | None) -> str:
    """With three digits."""
    return "–" if value is None else f"{value:.3g}"


def share(value: float | None) -> str:
    """In percent."""
    return "–" if value is None else f"{value:.1%}"


def whole(value: float) -> str:
    """Without decimals, unless these are most of it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
