"""Features that are set from outside, from the log of a plant to its simulator, its card and its environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
import torch

from app import main as command
from datamodules import DataError, TransitionDataModule
from datamodules.sources import resolve
from zoo import load

COLUMNS = ["--observations", "setpoint", "level", "inflow", "--actions", "valve", "--episode", "run"]
BOUNDS = ["--action-low", "0", "--action-high", "1"]
OUTSIDE = ["--exogenous", "inflow", "setpoint"]


def write_log(path: Path, runs: int, seed: int) -> None:
    """A tank that somebody else fills and asks a level of; the valve empties it."""
    random, lines = np.random.default_rng(seed), ["run,setpoint,level,inflow,valve"]
    for run in range(runs):
        level, inflow, setpoint = random.uniform(0.5, 1.5), 0.3, 1.0
        for _ in range(40):
            if random.random() < 0.1:
                setpoint = random.choice([0.8, 1.0, 1.2])
            inflow += 0.02 * random.normal()
            valve = np.clip(0.5 + level - setpoint + 0.1 * random.normal(), 0.0, 1.0)
            lines.append(f"{run},{setpoint},{level},{inflow},{valve}")
            level += 0.2 * (inflow - 0.6 * valve)
    path.write_text("\n".join(lines))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    for seed, kind in enumerate(("good", "other")):
        write_log(tmp_path / f"{kind}.csv", 8, seed)
    return tmp_path


def imported(root: Path, kind: str, *words: str) -> int:
    return command.main(["import", str(root / f"{kind}.csv"), "--id", f"tank/{kind}-v0", *COLUMNS, *BOUNDS, *words])


def test_a_run_on_such_logs(root: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(root, "good", *OUTSIDE) == imported(root, "other", *OUTSIDE) == 0
    assert resolve("tank/good-v0").exogenous == (0, 2)
    out = root / "run"
    words = ["train", "own", "--expert", "tank/good-v0", "--diverse", "tank/other-v0", *tiny_overrides]
    assert command.main([*words, "--out", str(out)]) == 0
    simulator = load(out)
    assert simulator.exogenous == (0, 2)
    assert all(each["exogenous"] == [0, 2] for each in json.loads((out / "metrics.json").read_text())["data"])

    recorded = minari.load_dataset("tank/good-v0")
    episodes = [episode.observations.astype(np.float32) for episode in recorded]
    env = gymnasium.make("zoo:OffSim/Simulator-v0", simulator=str(out))
    for seed in range(5):  # an episode goes on as the one did that it begins like
        observation, _ = env.reset(seed=seed)
        (log,) = [each for each in episodes if np.array_equal(each[0], observation)] or [None]
        if log is None:
            continue  # an episode of other data
        for step in range(1, 20):
            observation, *_ = env.step(np.array([0.5], dtype=np.float32))
            assert observation[2] == log[step, 2]
        break
    else:
        pytest.fail("no episode began like a demonstration")

    capsys.readouterr()
    assert command.main(["zoo", "evaluate", str(out)]) == 0
    card = (out / "card.md").read_text()
    assert "It is told what is set from outside (setpoint, inflow)" in card
    rows = {line.split("|")[1].strip(): line for line in card.splitlines() if line.startswith("| ")}
    assert "–" in rows["setpoint"] and "–" in rows["inflow"] and "–" not in rows["level"]

    shutil.rmtree(root / "data" / "tank")
    assert imported(root, "good", "--exogenous", "inflow") == imported(root, "other", "--exogenous", "inflow") == 0
    capsys.readouterr()
    assert command.main([*words, "--out", str(out)]) == 2
    assert "tank/good-v0 is no longer the data" in capsys.readouterr().err


def test_several_seeds_learn_from_records_of_their_own(root: Path, tiny_overrides: list[str]) -> None:
    assert imported(root, "good", *OUTSIDE) == 0
    words = ["train", "own", "--expert", "tank/good-v0", *tiny_overrides, "--demonstrations", "3"]
    assert command.main([*words, "--seeds", "0..1", "--out", str(root / "runs")]) == 0
    first, second = (load(root / "runs" / f"seed{seed}") for seed in (0, 1))
    kept = [each.transition.recorded_changes for each in (first, second)]
    assert kept[0] is not None and kept[1] is not None and not torch.equal(kept[0].values, kept[1].values)
    assert kept[0].count == 3 * 39


def test_what_counts_is_what_the_settings_say(root: Path) -> None:
    assert imported(root, "good", *OUTSIDE) == imported(root, "other") == 0
    assert TransitionDataModule("tank/good-v0").exogenous == (0, 2)
    assert TransitionDataModule("tank/good-v0", exogenous=[]).exogenous == ()
    assert TransitionDataModule("tank/good-v0", exogenous=[2]).exogenous == (2,)
    both = TransitionDataModule("tank/good-v0", diverse=["tank/other-v0"], exogenous=["setpoint"])
    assert both.exogenous == (0,)
    with pytest.raises(DataError, match=r"0 \(setpoint\), 2 \(inflow\) of tank/good-v0, but none of tank/other-v0"):
        TransitionDataModule("tank/good-v0", diverse=["tank/other-v0"])
    for wrong in (["pressure"], [3], [-1], [True]):
        with pytest.raises(DataError, match="but the observation features of tank/good-v0 are setpoint, level, inflow"):
            TransitionDataModule("tank/good-v0", exogenous=wrong)
    with pytest.raises(DataError, match="nothing is left for actions to move"):
        TransitionDataModule("tank/good-v0", exogenous=["setpoint", 1, 2])


def test_a_repaired_copy_knows_it_as_well(root: Path) -> None:
    head, *lines = (root / "good.csv").read_text().splitlines()
    with_clock = [f"{head},seconds", *(f"{line},{index}" for index, line in enumerate(lines))]
    (root / "good.csv").write_text("\n".join(with_clock))
    assert imported(root, "good", *OUTSIDE, "--observations", "setpoint", "seconds", "level", "inflow") == 0
    assert resolve("tank/good-v0").exogenous == (0, 3)
    assert command.main(["data", "check", "tank/good-v0", "--fix", "tank/good-v1"]) == 1
    assert resolve("tank/good-v1").observation_names == ("setpoint", "level", "inflow")
    assert resolve("tank/good-v1").exogenous == (0, 2)


def test_what_actions_move_is_not_set_from_outside(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(root, "good", "--exogenous", "level") == 0
    assert "feature 1 (level) is said to be set from outside, but" in capsys.readouterr().out
    assert imported(root, "other", *OUTSIDE) == 0
    assert "said to be set" not in capsys.readouterr().out


def test_the_time_of_day_is_no_clock_to_leave_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = (root / "good.csv").read_text().splitlines()
    with_clock = [f"{head},hour", *(f"{line},{0.25 * (index % 40)}" for index, line in enumerate(lines))]
    (root / "good.csv").write_text("\n".join(with_clock))
    features = ["--observations", "setpoint", "level", "hour"]
    assert imported(root, "good", *features, "--exogenous", "setpoint", "hour") == 0
    assert "it is a clock" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "message"),
    [(["pressure"], "none of the observations setpoint, level, inflow"), (["setpoint", "level", "inflow"], "nothing")],
)
def test_an_import_refuses_what_is_no_observation(
    root: Path, names: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(root, "good", "--exogenous", *names) == 2
    assert message in capsys.readouterr().err
    assert not list((root / "data").rglob("*.hdf5"))


def test_fit_is_told_by_the_data(root: Path) -> None:
    assert imported(root, "good", *OUTSIDE) == imported(root, "other", *OUTSIDE) == 0
    words = [
        "fit",
        "--config=configs/fit/simulator.yaml",
        "--data.expert=tank/good-v0",
        "--data.diverse=[tank/other-v0]",
        "--data.demonstrations=4",
        "--data.batches_per_step=2",
        "--data.streams={expert: 16, diverse: 16, all: 28}",
        "--model.task=null",
        "--model.termination=none",
        "--model.cloned_policy=null",
        "--model.proposal={dataset: 0.5, uniform: 0.5}",
        "--model.starts=8",
        "--model.pretraining_updates=2",
        "--model.transition_hidden_sizes=[8]",
        "--model.reward_hidden_sizes=[8]",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={root / 'fit'}",
        f"--trainer.callbacks.init_args.path={root / 'fit' / 'simulator.safetensors'}",
    ]
    assert command.main(words) == 0
    assert load(root / "fit" / "simulator.safetensors").exogenous == (0, 2)
