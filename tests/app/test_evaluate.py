"""``offsim evaluate`` and the statistics it prints."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest
import torch

from app import evaluate
from app.errors import UserError
from app.evaluate import evaluate_policy, load_policy
from app.statistics import standard_error, summarize_returns
from zoo.policy import Policy
from zoo.reward import RewardModel
from zoo.tasks import get_task


def make_policy(observations: int = 11, actions: int = 3) -> Policy:
    torch.manual_seed(1)
    return Policy(observations, [-1.0] * actions, [1.0] * actions, hidden_sizes=(8,)).eval()


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.configure(parser)
    return parser.parse_args(words)


def test_statistics_by_hand() -> None:
    summary = summarize_returns([1.0, 2.0, 6.0])
    assert summary["mean"] == 3.0
    assert summary["std"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert summary["episodes"] == 3
    assert summary["returns"] == [1.0, 2.0, 6.0]
    # Of the 27 equally likely resamples of three values the extreme ones (all 1, all 6) each have 3.7% > 2.5%.
    assert summary["ci95"] == [1.0, 6.0]


def test_the_interval_of_two_values() -> None:
    # A resample is (0, 0), (0, 1), (1, 0) or (1, 1): both ends have a quarter of the mass.
    assert summarize_returns([0.0, 1.0])["ci95"] == [0.0, 1.0]


def test_the_interval_depends_on_the_seed_alone() -> None:
    returns = [float(value**2) for value in range(12)]
    assert summarize_returns(returns, seed=3) == summarize_returns(returns, seed=3)
    low, high = summarize_returns(returns)["ci95"]
    assert min(returns) < low < sum(returns) / 12 < high < max(returns)


@pytest.mark.parametrize("returns", [[5.0], [5.0, 5.0, 5.0]])
def test_degenerate_samples_have_the_mean_twice(returns: list[float]) -> None:
    summary = summarize_returns(returns)
    assert summary["ci95"] == [5.0, 5.0]
    assert summary["std"] == 0.0


def test_a_mean_is_off_by_its_standard_error() -> None:
    assert standard_error(summarize_returns([0.0, 2.0, 4.0, 6.0])) == pytest.approx(math.sqrt(20 / 3) / 2)
    assert standard_error(summarize_returns([5.0, 5.0])) == 0.0
    assert standard_error(summarize_returns([5.0])) is None


@pytest.mark.parametrize("returns", [[], [1.0, math.nan], [math.inf]])
def test_samples_without_a_mean_are_refused(returns: list[float]) -> None:
    with pytest.raises(ValueError):
        summarize_returns(returns)


def test_evaluation_is_repeatable_and_counts_steps() -> None:
    policy, task = make_policy(), get_task("hopper")
    first = evaluate_policy(policy, task, 3, seed=5)
    assert first == evaluate_policy(policy, task, 3, seed=5)
    # The same episodes but for the last bits: how many run beside each other changes the rounding on some processors
    assert first["returns"][1:] == pytest.approx(evaluate_policy(policy, task, 2, seed=6)["returns"], rel=1e-5)
    assert len(first["lengths"]) == 3 and all(0 < length <= task.horizon for length in first["lengths"])
    sampled = evaluate_policy(policy, task, 3, seed=5, deterministic=False)
    assert sampled["returns"] != first["returns"]
    assert sampled == evaluate_policy(policy, task, 3, seed=5, deterministic=False)


def test_a_learned_reward_is_summed_over_each_episode() -> None:
    reward = RewardModel(11, 3, hidden_sizes=(4,))
    reward.low.fill_(2.0)
    reward.high.fill_(2.0)  # every transition is now worth 2
    result = evaluate_policy(make_policy(), get_task("hopper"), 2, seed=0, reward=reward)
    assert result["learned_return"] == pytest.approx(2.0 * sum(result["lengths"]) / 2)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_policy().save(tmp_path / "policy.safetensors")
    written = tmp_path / "deeper" / "returns.json"
    words = (str(tmp_path), "--task", "hopper", "--episodes", "2", "--json", str(written))
    assert evaluate.run(arguments(*words)) == 0
    printed = capsys.readouterr().out
    result = json.loads(written.read_text())
    assert f"{result['mean']:.1f}" in printed and "95% interval" in printed and "normalised" in printed
    task = get_task("hopper")
    assert result["normalized"] == pytest.approx(task.normalized_return(result["mean"]))
    assert result["expert_share"] == pytest.approx(result["mean"] / task.expert_return)


def test_a_policy_of_another_task_of_the_same_sizes_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_policy(17, 6).save(tmp_path / "policy.safetensors")
    (tmp_path / "metrics.json").write_text('{"task": "halfcheetah"}')
    for task, said in (("walker2d", True), ("halfcheetah", False)):
        evaluate.run(arguments(str(tmp_path), "--task", task, "--episodes", "1"))
        assert ("was trained for task halfcheetah, not for walker2d" in capsys.readouterr().err) is said


def test_where_figures_cannot_be_written_is_said_before_any_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_policy().save(tmp_path / "policy.safetensors")
    monkeypatch.setattr(evaluate, "evaluate_policy", lambda *_: pytest.fail("worked in vain"))
    for place, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "policy.safetensors" / "x.json", "cannot be a folder"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.run(arguments(str(tmp_path), "--task", "hopper", "--json", str(place)))


@pytest.mark.parametrize(("observations", "actions"), [(17, 3), (11, 6)])
def test_a_policy_of_another_task_is_refused(observations: int, actions: int) -> None:
    with pytest.raises(UserError, match="hopper has 11 and 3"):
        evaluate_policy(make_policy(observations, actions), get_task("hopper"), 1, seed=0)


def test_files_that_are_no_policy_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"not weights")
    for path in (tmp_path / "other.safetensors", tmp_path, tmp_path / "missing.safetensors"):
        with pytest.raises(UserError):
            load_policy(path)


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known tasks are"):
        evaluate.run(arguments(str(tmp_path), "--task", "juggler"))


@pytest.mark.parametrize("episodes", ["0", "-1", "many", "1.5"])
def test_a_senseless_number_of_episodes_is_refused(episodes: str) -> None:
    with pytest.raises(SystemExit):
        arguments("policy", "--task", "hopper", "--episodes", episodes)
