"""``offsim diagnose`` on a tiny finished run: what it writes, keeps, and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from app import main as command
from app.fixed_policies import _rank_correlation
from app.report_diagnosis import read_diagnosis
from app.rollouts import roll_out
from zoo import ModelFileError, Policy, load
from zoo.uncertainty import MEASURES


@pytest.fixture
def run(finished: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))
    return Path(shutil.copytree(finished, tmp_path / "run"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_run_is_diagnosed_when_it_is_finished(finished: Path) -> None:
    metrics, diagnosis = read(finished / "metrics.json"), read(finished / "diagnose.json")
    rows = diagnosis["over_training"]
    assert metrics["curve"] == rows and [row["update"] for row in rows] == [0, 50, 100]
    assert metrics["verdict"] == {key: diagnosis["verdict"][key] for key in ("kind", "reason")}
    for row in rows:
        for place in ("simulator", "real"):
            assert {f"{place}_{name}" for name in ("length", "reward", "distance", "uncertainties")} <= set(row)
            assert set(row[f"{place}_uncertainties"]) == set(MEASURES)
            assert row[f"{place}_distance"] > 0.0
    # The episodes of the result are those of the first and last row
    for name, row in (("behaviour_cloning", rows[0]), ("policy", rows[-1])):
        assert row["real_return"] == metrics[name]["mean"] and row["real_ci95"] == metrics[name]["ci95"]
        assert row["real_length"] == sum(metrics[name]["lengths"]) / len(metrics[name]["lengths"])
    # The mean reward of visited rows is return over length
    last = rows[-1]
    assert last["simulator_reward"] * last["simulator_length"] == pytest.approx(last["simulator_return"], rel=1e-3)
    assert last["real_reward"] * last["real_length"] == pytest.approx(last["real_learned_return"], rel=1e-3)
    references, figures = diagnosis["references"], diagnosis["verdict"]["figures"]
    assert references["learned_reward"]["expert"] * references["expert_length"] == pytest.approx(
        references["expert_learned_return"], rel=1e-4
    )
    assert figures["measured"] == metrics["policy"]["mean"] and figures["expert"] == metrics["expert"]["mean"]
    assert figures["simulator_learned"] == last["simulator_return"]
    assert "Diagnosis" in (finished / "report.html").read_text()


def test_the_promise_of_the_last_policy_rests_on_more_episodes_than_those_on_the_way(finished: Path) -> None:
    rows = read(finished / "diagnose.json")["over_training"]
    simulator = load(finished)
    files = ("behaviour_cloning", "policy/snapshots/00000050", "policy")
    for row, name, episodes in zip(rows, files, (100, 20, 100), strict=True):
        policy = Policy.load(finished / f"{name}.safetensors")
        returns = roll_out(simulator, policy.act, episodes, 1000).returns(simulator.reward)
        assert row["simulator_return"] == pytest.approx(float(returns.mean()), rel=1e-4)
        assert row["simulator_standard_error"] == pytest.approx(float(returns.std()) / episodes**0.5, rel=1e-3)


def test_critics_are_compared_with_what_the_simulator_pays(finished: Path) -> None:
    rows = read(finished / "diagnose.json")["over_training"]
    assert "value" not in rows[0]  # there is no critic before training
    for row in rows[1:]:
        belief = read(finished / "policy" / "snapshots" / f"{row['update']:08d}.json")
        assert belief["update"] == row["update"]
        assert row["value"] == pytest.approx(belief["value"] / 0.1)
        assert isinstance(row["simulator_discounted_return"], float)


def test_the_command_adds_fixed_policies_and_controls(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run / "behaviour_cloning.safetensors"
    # A run of before critics' values were recorded, and of before there was a choice of methods
    for path in (run / "policy" / "snapshots").glob("*.json"):
        path.unlink()
    configuration = OmegaConf.load(run / "config.yaml")
    del configuration.policy["method"]
    OmegaConf.save(configuration, run / "config.yaml")
    words = ["diagnose", str(run), "--episodes", "2", "--controls", "--updates", "50", "--policies", str(other)]
    assert command.main(words) == 0
    printed = capsys.readouterr().out
    assert "verdict: " in printed and "rank correlation" in printed and str(run / "report.html") in printed
    diagnosis = read(run / "diagnose.json")
    assert all("value" not in row for row in diagnosis["over_training"])
    assert "recorded no critics' values" in diagnosis["notes"][0]

    fixed = diagnosis["fixed_policies"]
    assert fixed["horizons"] == [10, 50, 200]
    names = [policy["name"] for policy in fixed["policies"]]
    assert names[:5] == ["random actions", "cloning", *(f"cloning, noise {noise}" for noise in (0.1, 0.3, 0.6))]
    assert names[5:] == ["policy at 50", "policy at 100", str(other)]
    for policy in fixed["policies"]:
        for label in ("learned", "true"):
            for place in ("simulator", "real"):
                assert len(policy[label][place]) == 3
        assert policy["true"]["real"][0] <= policy["true"]["real"][1] + 1e-3  # Hopper pays for staying upright
    for place in ("simulator", "real"):  # the same file
        assert fixed["policies"][1]["true"][place] == pytest.approx(fixed["policies"][-1]["true"][place])
    assert set(fixed["rank_correlation"]) == {"learned", "true"}

    assert set(diagnosis["controls"]) == {"true_reward", "constant_reward"}
    for name, control in diagnosis["controls"].items():
        folder = run / "controls" / name
        assert control["control"] is True and [row["update"] for row in control["curve"]] == [0, 25, 50]
        last = control["curve"][-1]
        assert last["real_formula_return"] == pytest.approx(last["real_return"], rel=0.05, abs=0.5)
        assert {"value", "simulator_discounted_return", "simulator_return"} <= set(last)
        for file in ("policy.safetensors", "snapshots/00000025.safetensors"):
            Policy.load(folder / file, control=True)
            with pytest.raises(ModelFileError, match="control"):
                Policy.load(folder / file)
        assert command.main(["evaluate", str(folder), "--task", "hopper", "--episodes", "1"]) == 2
    assert command.main(["diagnose", str(run), "--policies", str(run / "controls/true_reward/policy.safetensors")]) == 2
    capsys.readouterr()

    page = (run / "report.html").read_text()
    for words_on_page in ("Fixed policies", "Control with the task", "rank correlation (Spearman)"):
        assert words_on_page in page

    # Again: what is there is kept, what was interrupted is continued, and controls of other settings stay
    before = (run / "controls" / "true_reward" / "control.json").read_text()
    (run / "controls" / "constant_reward" / "control.json").unlink()
    words = ["diagnose", str(run), "--controls", "--updates", "50", "--episodes", "2"]
    assert command.main([*words, "--out", str(run / "deeper" / "own.json")]) == 0
    assert "already there" in capsys.readouterr().out
    assert read(run / "diagnose.json") == diagnosis
    assert read(run / "deeper" / "own.json")["controls"] == diagnosis["controls"]
    assert command.main(["diagnose", str(run), "--controls", "--updates", "100"]) == 2
    assert "controls/true_reward holds a control with other settings" in capsys.readouterr().err
    assert (run / "controls" / "true_reward" / "control.json").read_text() == before


@pytest.mark.parametrize("missing", ["config.yaml", "policy.safetensors"])
def test_an_unfinished_run_is_refused(
    missing: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("config.yaml", "metrics.json", "behaviour_cloning.safetensors", "simulator.safetensors")
    for name in (*names, "policy.safetensors"):
        if name != missing:
            shutil.copy(finished / name, tmp_path / name)
    assert command.main(["diagnose", str(tmp_path)]) == 2
    assert f"has no {missing}: give the folder of a finished run" in capsys.readouterr().err


def test_a_folder_of_seeds_points_to_its_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seed3").mkdir()
    shutil.copy(finished / "config.yaml", tmp_path / "seed3" / "config.yaml")
    assert command.main(["diagnose", str(tmp_path)]) == 2
    assert str(tmp_path / "seed3") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--updates", "5"], "add --controls"),
        (["--controls", "--updates", "5"], "--updates is 5: training takes steps of 50 updates"),
        (["--controls", "--policies", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(
    words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "diagnose.json").read_text()
    assert command.main(["diagnose", str(run), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "controls").exists() and (run / "diagnose.json").read_text() == before


@pytest.mark.parametrize("name", ["policy", "behaviour_cloning", "simulator"])
def test_a_model_of_another_system_is_refused(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / f"{name}.safetensors"
    if name == "simulator":
        other: Any = load("inverted_pendulum/mixed-v0")
    else:
        other = Policy(2, [-1.0], [1.0])
    other.save(path)
    assert command.main(["diagnose", str(run)]) == 2
    assert capsys.readouterr().err.startswith("offsim: ")


def test_a_place_that_takes_no_figures_is_refused_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["diagnose", str(run), "--out", str(run)]) == 2
    said = capsys.readouterr()
    assert f"{run} is a folder: name a file" in said.err and "policies" not in said.out


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "task: hopper\n"])
def test_an_odd_configuration_is_refused(text: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text(text)
    assert command.main(["diagnose", str(run)]) == 2
    assert "config.yaml" in capsys.readouterr().err


def test_ranks_count_and_equal_returns_have_none() -> None:
    def policies(simulated: list[float], real: list[float]) -> list[dict[str, Any]]:
        return [{"learned": {"simulator": [a], "real": [b]}} for a, b in zip(simulated, real, strict=True)]

    assert _rank_correlation(policies([1.0, 2.0, 30.0], [5.0, 6.0, 7.0]), "learned", 0) == pytest.approx(1.0)
    assert _rank_correlation(policies([1.0, 2.0, 30.0], [5.0, 7.0, 6.0]), "learned", 0) == pytest.approx(0.5)
    assert _rank_correlation(policies([1.0, 1.0, 1.0], [5.0, 7.0, 6.0]), "learned", 0) is None


def test_the_section_of_the_report_can_be_drawn(finished: Path) -> None:
    diagnosis = read_diagnosis(finished / "diagnose.json")
    assert diagnosis.kind == read(finished / "metrics.json")["verdict"]["kind"]
    figure = diagnosis.figures[0][2]()
    assert [len(axis.lines) >= 2 for axis in figure.axes] == [True] * 4
    assert all(len(row) == len(table.head) for table in diagnosis.tables for row in table.rows)
