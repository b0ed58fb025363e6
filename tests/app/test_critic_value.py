"""The discounted return that a critic is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from app.critic_value import discounted_return, recorded_belief
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Policy, Simulator
from zoo.termination import TerminationModel


class Always(TerminationModel):
    """Ends every episode at its first step."""

    def forward(self, next_observation: torch.Tensor) -> torch.Tensor:
        return torch.ones(next_observation.shape[:-1], dtype=torch.bool)


def make(simulator: Simulator, folder: Path, **settings: Any) -> SimulatorSAC:
    """A learner in a Simulator that pays 2 for every step."""
    simulator.reward.low.fill_(2.0)
    simulator.reward.high.fill_(2.0)
    simulator.save(folder / "simulator.safetensors")
    arguments: dict[str, Any] = {"hidden_sizes": (8,), "uncertainty_cut": None, "gamma": 0.9, "reward_scale": 0.1}
    arguments |= {"uncertainty_form": "penalty", "uncertainty_tolerance": 0.0, "uncertainty_weight": 0.0}
    return SimulatorSAC(str(folder / "simulator.safetensors"), **(arguments | settings))


def make_policy() -> Policy:
    torch.manual_seed(1)
    return Policy(11, [-1.0] * 3, [1.0] * 3, (8,)).eval()


def test_a_constant_reward_by_hand(simulator: Simulator, tmp_path: Path) -> None:
    learner = make(simulator, tmp_path)
    assert discounted_return(learner, make_policy(), temperature=0.0) == pytest.approx(2.0 / (1 - 0.9), rel=1e-2)


def test_an_end_is_worth_what_the_method_says(simulator: Simulator, tmp_path: Path) -> None:
    learner = make(simulator, tmp_path)
    learner.simulator.termination = Always()
    learner.end_value.fill_(-3.0)  # in scaled reward
    expected = 2.0 + 0.9 * -3.0 / 0.1
    assert discounted_return(learner, make_policy(), temperature=0.0) == pytest.approx(expected, rel=1e-4)


def test_ends_are_carried_from_block_to_block(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.critic_value.BLOCK", 1)
    learner = make(simulator, tmp_path)
    learner.simulator.termination = Always()
    learner.end_value.zero_()
    assert discounted_return(learner, make_policy(), temperature=0.0) == pytest.approx(2.0, rel=1e-4)
    learner.simulator.termination = TerminationModel()
    assert discounted_return(learner, make_policy(), temperature=0.0) == pytest.approx(20.0, rel=2e-2)


def test_roll_outs_are_cut_where_the_method_cuts_them(simulator: Simulator, tmp_path: Path) -> None:
    learner = make(simulator, tmp_path)
    learner.cut.fill_(-1.0)
    learner.end_value.zero_()
    assert discounted_return(learner, make_policy(), temperature=0.0) == pytest.approx(2.0, rel=1e-4)


def test_doubt_is_subtracted_as_in_training(simulator: Simulator, tmp_path: Path) -> None:
    values = [discounted_return(make(simulator, tmp_path, uncertainty_weight=w), make_policy(), 0.0) for w in (0, 1, 2)]
    assert values[0] > values[1] > values[2]
    assert values[0] - values[1] == pytest.approx(values[1] - values[2], rel=1e-3)


def test_a_weight_that_was_tuned_on_the_way_counts(simulator: Simulator, tmp_path: Path) -> None:
    learner = make(simulator, tmp_path, uncertainty_weight="tuned")
    tuned = discounted_return(learner, make_policy(), 0.0, uncertainty_weight=2.0)
    given = discounted_return(make(simulator, tmp_path, uncertainty_weight=2.0), make_policy(), 0.0)
    assert tuned == pytest.approx(given, rel=1e-6)
    assert tuned != pytest.approx(discounted_return(make(simulator, tmp_path), make_policy(), 0.0), rel=1e-3)


def test_the_entropy_of_all_but_the_first_action_counts(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.critic_value.EPISODES", 2000)
    learner, policy = make(simulator, tmp_path), make_policy()
    for parameter in policy.requires_grad_(False).parameters():
        parameter.zero_()  # the same distribution everywhere
    plain, with_entropy = (discounted_return(learner, policy, temperature) for temperature in (0.0, 0.5))
    _, log_density = policy.sample(torch.zeros(100_000, 11))
    expected = -0.5 / 0.1 * float(log_density.mean()) * (1.0 / (1 - 0.9) - 1.0)
    assert with_entropy - plain == pytest.approx(expected, rel=0.05)
    learner.simulator.termination = Always()
    assert discounted_return(learner, policy, 0.0) == discounted_return(learner, policy, 0.5)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"value": 1.0}', '{"value": null, "temperature": 1}'])
def test_a_belief_that_is_missing_or_broken_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "00000010.json").write_text(text)
    assert recorded_belief(tmp_path / "00000010.safetensors") is None


@pytest.mark.parametrize("tuned", [{}, {"uncertainty_weight": 2.0}])
def test_a_belief_is_read(tmp_path: Path, tuned: dict[str, float]) -> None:
    belief = {"value": 3.5, "temperature": 0.01, **tuned}
    (tmp_path / "00000010.json").write_text(json.dumps({"update": 10, **belief}))
    assert recorded_belief(tmp_path / "00000010.safetensors") == belief
