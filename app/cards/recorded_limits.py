"""What a card says, in plain words, of a Simulator that was measured against recorded episodes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.cards.limits import GUESS, coverages, ends, forecasts, in_steps, promise

FAR = 2.0  # medians of the training data's uncertainty from which a policy is where little data is
TELLS = 0.9  # share of pairs from which a reward knows demonstrations from other data
ONE_OF_MANY = 0.8  # share of the squared errors that is of one feature, from which it is named
SEEN = 0.05  # deviations that a feature's forecast has to be off by
SAME = 0.1  # half action ranges, root mean square, below which logged actions are the policy's own


def recorded_limits(figures: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that a user should know, the worst not left out."""
    recordings = figures["recordings"]
    wheres = {name: f"on {name}" for name in recordings}
    known = [name for name, each in recordings.items() if each["trained_on"]]
    return [
        *_outside(figures["features"].get("exogenous", ())),
        *(f"It was trained on {name}: what it says there is better than what it knows." for name in known),
        *(
            sentence
            for name, where in wheres.items()
            for sentence in (forecasts(figures, name, where), *_unforeseen(figures["features"], name))
        ),
        *coverages(figures["coverage"], wheres),
        *ends(figures["termination"]),
        *_preference(figures["preference"]),
        _policy(figures["policy"]["uncertainty"]),
        *_tried(recordings, figures["policy"]["learned_reward"]),
        GUESS,
    ]


def _outside(names: Sequence[str]) -> list[str]:
    """What forecasts are told, if there is such a thing."""
    if not names:
        return []
    return [
        f"It is told what is set from outside ({', '.join(names)}): its forecasts below know what that was, and in "
        "episodes of its own it changes as it was recorded to."
    ]


def _unforeseen(features: Mapping[str, Any], name: str) -> list[str]:
    """The one feature that the errors of forecasts are of, if there is one."""
    for step, errors in zip(features["steps"], features["error"][name], strict=True):
        squared = {
            feature: (error / deviation) ** 2
            for feature, error, deviation in zip(features["names"], errors, features["deviation"], strict=True)
            if error is not None and deviation > 0.0
        }
        worst = max(squared, key=lambda feature: squared[feature], default="")
        others = [value for feature, value in squared.items() if feature != worst]
        if not others or squared[worst] < ONE_OF_MANY * sum(squared.values()) or squared[worst] < SEEN**2:
            continue
        rest = math.sqrt(sum(others) / len(others))
        return [
            f"Most of its error there is that of {worst}: after {in_steps(step)} it is off by "
            f"{math.sqrt(squared[worst]):.2g} deviations of its own, the others by {rest:.2g}. What is set from "
            "outside, as setpoints and disturbances are, cannot be foreseen: say which features are (data.exogenous)."
        ]
    return []


def _preference(preference: float | None) -> list[str]:
    if preference is None:
        return []
    if preference >= TELLS:
        return [f"Its reward knows demonstrations from other data: it pays more for them in {preference:.0%} of pairs."]
    return [
        f"Its reward hardly knows demonstrations from other data: it pays more for them in {preference:.0%} of pairs, "
        "where chance is 50%."
    ]


def _policy(uncertainty: float) -> str:
    told = f"{uncertainty:.2g} medians of the data's uncertainty"
    if uncertainty < FAR:
        return f"In the simulator its policy stays where the data is ({told})."
    return f"In the simulator its policy goes where little data is ({told}): what it earns there means nothing."


def _tried(recordings: Mapping[str, Any], promised: float) -> list[str]:
    # Demonstrations are what the policy imitates, whether it was trained on them or they were held out
    logged = [
        name
        for name, each in recordings.items()
        if each["action_error"] < SAME and not each["held_out"] and not each["trained_on"]
    ]
    if not logged:
        return [
            "Its policy was not tried in the real system: log some episodes of it there, and name them with "
            "`offsim zoo evaluate ... --data ID`."
        ]
    said = [f"Its policy acts as {name} did: forecasts there are those of where it goes." for name in logged]
    paid = [recordings[name]["learned_reward"] for name in logged]
    gaps = [(promised - each) / abs(each) if each else None for each in paid]
    return [*said, *(promise(gap, name) for gap, name in zip(gaps, logged, strict=True))]
