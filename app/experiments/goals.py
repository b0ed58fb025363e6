"""What an experiment was hoped to show, written down before it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import UserError

STATISTICS = ("mean", "min", "interquartile_mean")
KEYS = ("variant", "task", "demonstrations", "statistic", "share_of_expert", "not_below")


@dataclass(frozen=True)
class Goal:
    """A variant's share of the expert's return over seeds, on each task and for each number of demonstrations.

    Attributes:
        variant: whose.
        task: the one task it is about; ``None`` for all.
        demonstrations: likewise.
        statistic: over seeds, one of ``STATISTICS``.
        share_of_expert: the least share, 1 being the expert's return; or else
        not_below: the variant whose share is to be reached.
    """

    variant: str
    task: str | None = None
    demonstrations: int | None = None
    statistic: str = STATISTICS[0]
    share_of_expert: float | None = None
    not_below: str | None = None


def read_goals(value: Any, tasks: Sequence[str], variants: Sequence[str], demonstrations: Sequence[int]) -> list[Goal]:
    """The goals of an experiment's YAML.

    Raises:
        UserError: naming the goal that cannot be read.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(goal, dict) for goal in value):
        raise UserError("goals must be a list such as `- {variant: NAME, share_of_expert: 0.9}`")
    known = {
        "variant": variants,
        "not_below": variants,
        "task": tasks,
        "demonstrations": demonstrations,
        "statistic": STATISTICS,
    }
    for goal in value:
        unknown = [key for key in goal if key not in KEYS]
        if unknown:
            raise UserError(f"goal {goal}: unknown key {unknown[0]!r}, choose among {', '.join(KEYS)}")
        for key, choices in known.items():
            if key in goal and goal[key] not in choices:
                raise UserError(f"goal {goal}: {key} must be one of {', '.join(map(str, choices))}")
        if "variant" not in goal or ("share_of_expert" in goal) == ("not_below" in goal):
            raise UserError(f"goal {goal}: name a variant, and either share_of_expert or not_below")
        share = goal.get("share_of_expert", 0.0)
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise UserError(f"goal {goal}: share_of_expert must be a number, 1 being the expert's return")
    return [Goal(**goal) for goal in value]
