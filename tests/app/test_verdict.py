"""The verdict of a diagnosis: one for any figures, and the figures in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.verdict import Figures, Thresholds, as_json, judge

GOOD = Figures(measured=3000.0, expert=3025.0, simulator_learned=930.0, real_learned=950.0, expert_learned=940.0)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({}, "success", ("The policy returns 3,000 where the expert returns 3,025", "simulator and real task agree")),
        ({"simulator_learned": 60.0}, "simulator", ("pessimistic", "promises 60,", "Even so")),
        (
            {"simulator_learned": 930.0, "real_learned": 200.0, "measured": 700.0},
            "simulator",
            ("optimistic", "pays 200", "the policy returns 700"),
        ),
        ({"measured": 700.0}, "reward", ("does not mean the task", "returns 700", "earn 940")),
        (
            {"measured": 700.0, "simulator_learned": 400.0, "real_learned": 420.0},
            "learner",
            ("did not maximise", "promises 400", "pays 420"),
        ),
    ],
)
def test_every_verdict(changes: dict[str, float], kind: str, words: tuple[str, ...]) -> None:
    verdict = judge(replace(GOOD, **changes))
    assert verdict.kind == kind
    assert all(word in verdict.reason for word in words), verdict.reason


def test_an_expert_level_policy_that_the_learned_reward_thinks_little_of_is_a_success() -> None:
    assert judge(replace(GOOD, simulator_learned=400.0, real_learned=420.0)).kind == "success"


def test_thresholds_are_those_stated() -> None:
    assert judge(replace(GOOD, measured=0.95 * 3025.0 + 0.1)).kind == "success"
    assert judge(replace(GOOD, measured=0.95 * 3025.0 - 0.1)).kind == "reward"
    assert judge(replace(GOOD, real_learned=930.0 - 93.9)).kind == "success"
    assert judge(replace(GOOD, real_learned=930.0 - 94.1)).kind == "simulator"
    off = replace(GOOD, measured=700.0, simulator_learned=0.9 * 940.0 + 0.1, real_learned=850.0)
    assert judge(off).kind == "reward"
    assert judge(replace(off, simulator_learned=0.9 * 940.0 - 0.1)).kind == "learner"
    assert judge(replace(GOOD, measured=2000.0), Thresholds(expert_share=0.5)).kind == "success"


@pytest.mark.parametrize(("measured", "kind"), [(-100.0, "success"), (-104.0, "success"), (-110.0, "reward")])
def test_negative_returns_are_compared_the_right_way_round(measured: float, kind: str) -> None:
    figures = Figures(
        measured=measured, expert=-100.0, simulator_learned=-50.0, real_learned=-51.0, expert_learned=-50.0
    )
    assert judge(figures).kind == kind


def test_what_is_written_says_what_it_rests_on() -> None:
    content = as_json(GOOD, judge(GOOD))
    assert content["kind"] == "success" and content["figures"]["expert_learned"] == 940.0
    assert content["thresholds"] == {"expert_share": 0.95, "agreement": 0.10, "learned_share": 0.90}
