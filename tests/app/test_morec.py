"""Runs whose policy learns from roll-outs that keep to a dynamics reward."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from app import main as command
from app.configuration import comparable, load_configuration, resolve
from app.errors import UserError
from zoo.dynamics_reward import DynamicsReward

STAGES = "--stages=[behaviour_cloning,simulator,dynamics_reward,policy]"
SMALL = [
    "--dynamics_reward.updates=100",
    "--dynamics_reward.all_rows=42",
    "--dynamics_reward.model.hidden_sizes=[8]",
    "--dynamics_reward.model.batch_size=16",
    "--dynamics_reward.model.kept_every=30",
    "--policy.model.candidates=3",
]


def logged(file: Path, name: str) -> list[float]:
    with file.open() as text:
        return [float(row[name]) for row in csv.DictReader(text) if row.get(name)]


def test_a_policy_learns_from_filtered_roll_outs(tiny: list[str], tmp_path: Path) -> None:
    out, plain = tmp_path / "run", tmp_path / "plain"
    assert command.main([*tiny, STAGES, *SMALL, "--out", str(out)]) == 0
    stages = ["behaviour_cloning", "simulator", "dynamics_reward", "policy"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["stages"]) == stages and {"mean", "ci95"} <= set(metrics["policy"])
    assert DynamicsReward.load(out / "dynamics_reward.safetensors").network.members == 3
    rewards = logged(out / "policy" / "metrics.csv", "train/rollout/dynamics_reward")
    assert rewards and all(0.3 < value < 1.4 for value in rewards)
    assert "dynamics reward" in (out / "report.html").read_text()

    # What is trained before it is not changed by it, and another run takes it over
    without = STAGES.replace("dynamics_reward,", "")
    assert command.main([*tiny, without, *SMALL, "--out", str(plain)]) == 0
    file = "simulator.safetensors"
    assert (out / file).read_bytes() == (plain / file).read_bytes()
    assert (out / "policy.safetensors").read_bytes() != (plain / "policy.safetensors").read_bytes()
    again = ["--policy.updates=50", "--stages-of", str(out), "--out", str(tmp_path / "again")]
    assert command.main([*tiny, STAGES, *SMALL, *again]) == 0
    file = "dynamics_reward.safetensors"
    assert (tmp_path / "again" / file).read_bytes() == (out / file).read_bytes()

    # Many seeds at once learn what each would have
    assert (
        command.main([*tiny, STAGES.replace(",policy", ""), *SMALL, "--seeds=0,1", "--out", str(tmp_path / "both")])
        == 0
    )
    together = logged(tmp_path / "both" / "seed0" / "dynamics_reward" / "metrics.csv", "train/discriminator/loss")
    alone = logged(out / "dynamics_reward" / "metrics.csv", "train/discriminator/loss")
    assert together == pytest.approx(alone, rel=1e-3)


def test_it_is_a_stage_where_it_is_asked_for() -> None:
    words = ["data.expert=a/b-v0", "data.diverse=[a/c-v0]"]
    plain = resolve(load_configuration("hopper"), "full", {}, words)
    assert "dynamics_reward" not in plain.stages
    filtered = resolve(load_configuration("methods/morec"), "full", {"task": "hopper"}, words)
    assert list(filtered.stages) == [
        "behaviour_cloning",
        "simulator",
        "weighted_cloning",
        "dynamics_reward",
        "policy",
    ]
    with pytest.raises(UserError, match="weighted_cloning and dynamics_reward come before policy"):
        resolve(load_configuration("hopper"), "full", {}, [*words, "stages=[behaviour_cloning,dynamics_reward]"])
    with pytest.raises(UserError, match=r"dynamics_reward\.model\.kept_ever of DynamicsRewardGame: did you mean"):
        resolve(load_configuration("hopper"), "full", {}, [*words, "dynamics_reward.model.kept_ever=3"])


def test_runs_of_before_lack_its_settings_and_are_the_same() -> None:
    known = {"policy": {"model": {"dynamics_threshold": 0.0, "dynamics_temperature": 0.1, "let_go": "failing"}}}
    assert comparable(known) == {"policy": {"model": {}}}
    known["policy"]["model"]["dynamics_threshold"] = 0.5
    assert comparable(known) == {"policy": {"model": {"dynamics_threshold": 0.5}}}
