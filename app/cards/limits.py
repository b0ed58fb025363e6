"""What the figures of a card mean for whoever uses the Simulator, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cards.contenders import POLICY

USEFUL = 0.5  # a forecast that is off by more than this share of "nothing changes" says little
STILL = 0.2  # of what states differ where forecasts hold, up to which they hardly differ yet
RANKS = 0.8  # rank correlation from which a Simulator can be asked which of two policies is better
GAP = 0.1  # share by which a promise may differ from what is paid
COVERAGE = 0.1  # by which an interval may hold more or less than it should
DETECTS = 0.95  # precision and recall of ends that count as right
UNSEEN = "When episodes end was not measured: no episode here ended for good, so that its ends are a guess."
GUESS = "What its data does not hold is a guess: watch `info['uncertainty']`, in which 1 is as usual."


def limits(figures: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that a user should know, the worst not left out."""
    return [
        forecasts(figures, POLICY, "where its policy goes"),
        forecasts(figures, "others", "where worse policies go"),
        _ranking(figures["return_correlation"]),
        promise(figures["exploitation_gap"]),
        *coverages(figures["coverage"], {POLICY: "where its policy goes", "others": "elsewhere"}),
        *ends(figures["termination"]),
        GUESS,
    ]


def forecasts(figures: Mapping[str, Any], kind: str, where: str) -> str:
    """For how long forecasts of one kind of transitions hold."""
    columns = (figures["steps"], figures["open_loop_error"][kind], figures["no_change_error"][kind])
    measured = [(step, error, apart) for step, error, apart in zip(*columns, strict=True) if None not in (error, apart)]
    if not measured:
        return f"How long its forecasts hold {where} was not to be seen: all episodes are too short."
    right = [error <= USEFUL * apart for _, error, apart in measured]
    first = next((at for at, holds in enumerate(right) if holds), len(right))
    wrong = next((at for at in range(first, len(right)) if not right[at]), len(right))
    before, held = measured[:first], measured[first:wrong]
    # Where states hardly differ yet, noise of measurements alone may be half of that. Where they do, a forecast that
    # fails is wrong, and a later one that holds does so by luck.
    if not held or any(apart > STILL * held[-1][2] for _, _, apart in before):
        return f"Its forecasts say little {where}, even for {in_steps(measured[0][0])}."
    if wrong == len(measured):
        said = f"Its forecasts hold for at least {in_steps(held[-1][0])} {where}."
    else:
        said = (
            f"Its forecasts hold for {in_steps(held[-1][0])} {where}; after {measured[wrong][0]} they are off by half "
            "of what states differ, or more."
        )
    if not before:
        return said
    return (
        f"{said} After {in_steps(before[-1][0])} they are still off by half of what states differ, or more, but states "
        "hardly differ by then: noise of measurements may be as much."
    )


def in_steps(count: int) -> str:
    """Such as ``1 step``."""
    return "1 step" if count == 1 else f"{count} steps"


def _ranking(correlation: Mapping[str, float | None]) -> str:
    rank = correlation["spearman"]
    if rank is None:
        return "Whether it ranks policies was not to be seen: all returns are equal."
    if rank >= RANKS:
        return f"It ranks policies much as the real task does (rank correlation {rank:.2f})."
    halves = {"its dynamics": correlation["dynamics"], "its reward": correlation["reward"]}
    known = {name: value for name, value in halves.items() if value is not None}
    weaker = min(known, key=lambda name: known[name]) if known else "it is not known which half"
    return f"Do not ask it which of two policies is better (rank correlation {rank:.2f}); what fails first: {weaker}."


def promise(gap: float | None, recording: str | None = None) -> str:
    """Whether the Simulator keeps what it promises its policy.

    Args:
        gap: by which share of what is paid it does not.
        recording: name of the recorded episodes that pay, if it is not the real task.
    """
    real, paid = ("the real task", "paid") if recording is None else (recording, f"paid on {recording}")
    if gap is None:
        return f"What it promises its own policy cannot be compared: {real} pays nothing in learned reward."
    if abs(gap) <= GAP:
        return f"What it promises its own policy is {paid}, to within {abs(gap):.0%}."
    return f"It promises its own policy {abs(gap):.0%} {'more' if gap > 0 else 'less'} than {real} pays."


def coverages(coverage: Mapping[str, Mapping[str, float]], wheres: Mapping[str, str]) -> list[str]:
    """Where predicted intervals hold more or less of the truth than they should."""
    said = []
    for kind, where in wheres.items():
        for level, held in coverage[kind].items():
            promised = float(level.rstrip("%")) / 100.0
            if abs(held - promised) > COVERAGE:
                word = "too sure of itself" if held < promised else "less sure of itself than it could be"
                said.append(
                    f"It is {word} {where}: predicted intervals that should hold {level} hold {held:.0%} of the truth."
                )
    return said


def ends(termination: Mapping[str, Any]) -> list[str]:
    """What is wrong with predicted ends, or not known of them."""
    found = termination["simulator"]
    if termination["ends"] == 0:
        if found["precision"] is not None:
            return ["It ends episodes, and real ones do not end."]
        return [UNSEEN] if termination["learned"] else []
    weak = [name for name in ("precision", "recall") if found[name] is None or found[name] < DETECTS]
    if not weak:
        return []
    meaning = {"precision": "ends episodes that go on", "recall": "lets episodes go on that end"}
    return [
        f"It sometimes {meaning[name]} ({name} {'–' if found[name] is None else f'{found[name]:.0%}'})."
        for name in weak
    ]
