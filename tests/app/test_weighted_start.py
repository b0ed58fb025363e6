"""Runs with weighted cloning between simulator and policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from app import main as command
from app.cloned_start import in_words, weighted_start
from app.configuration import load_configuration, resolve
from zoo import Policy

STAGES = "--stages=[behaviour_cloning,simulator,weighted_cloning,policy]"
PLAIN = "--stages=[behaviour_cloning,simulator,policy]"
SMALL = [
    "--weighted_cloning.updates=100",
    "--weighted_cloning.expert_rows=4",
    "--weighted_cloning.model.diverse_rows=12",
]
LOGGED = ("cloned_return", "demonstrated", "weighted_return", "weighted")


def test_a_policy_starts_from_weighted_cloning(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    always = "--weighted_cloning.model.start_below=null"
    assert command.main([*tiny, STAGES, *SMALL, always, "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["stages"]) == ["behaviour_cloning", "simulator", "weighted_cloning", "policy"]
    assert {"mean", "ci95"} <= set(metrics["weighted_cloning"]) and metrics["weighted_start"]["weighted"] is True
    assert metrics["curve"][0]["real_return"] == metrics["weighted_cloning"]["mean"]
    for page in ((out / "report.html").read_text(), capsys.readouterr().out):
        assert "Training in the Simulator starts from weighted cloning" in page and "weighted cloning" in page.lower()
    weighted = (out / "weighted_cloning.safetensors").read_bytes()
    assert weighted != (out / "behaviour_cloning.safetensors").read_bytes()
    start = Policy.load(out / "weighted_cloning.safetensors")
    assert Policy.load(out / "policy.safetensors").normalizer.mean.equal(start.normalizer.mean)
    assert not start.normalizer.mean.equal(Policy.load(out / "behaviour_cloning.safetensors").normalizer.mean)
    assert torch.load(out / "weighted_cloning" / "last.ckpt", weights_only=True)["updates"] == 100

    # Many seeds at once, and other settings of the policy stage alone, leave it as it is
    assert command.main([*tiny, STAGES, *SMALL, always, "--seeds=0,1", "--out", str(tmp_path / "both")]) == 0
    together = json.loads((tmp_path / "both" / "seed0" / "metrics.json").read_text())
    assert together["weighted_start"] == pytest.approx(metrics["weighted_start"], rel=1e-3)
    assert "weighted_cloning" in json.loads((tmp_path / "both" / "metrics.json").read_text())
    again = ["--stages-of", str(out), "--policy.updates=50", "--out", str(tmp_path / "again")]
    assert command.main([*tiny, STAGES, *SMALL, always, *again]) == 0
    assert (tmp_path / "again" / "weighted_cloning.safetensors").read_bytes() == weighted
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["weighted_start"] == metrics["weighted_start"]


def test_weighted_cloning_is_left_out_where_the_cloned_policy_does_well(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    # 0.1 of what these demonstrations have is soon earned; the cloned one is judged as the policy stage does
    words = [
        *tiny,
        STAGES,
        *SMALL,
        "--weighted_cloning.model.start_below=0.1",
        "--policy.model.validation_horizon=1000",
    ]
    plain = tmp_path / "plain"
    assert command.main([*words, PLAIN, "--out", str(plain)]) == 0
    assert command.main([*words, "--out", str(out), "--stages-of", str(plain)]) == 0
    said = capsys.readouterr().out
    assert "what follows is trained anew: it has no weighted cloning" in said
    assert "weighted cloning: left out, since the cloned policy has" in said
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["stages"]) == ["behaviour_cloning", "simulator", "weighted_cloning", "policy"]
    assert "weighted_cloning" not in metrics and not (out / "weighted_cloning" / "last.ckpt").exists()
    share = metrics["cloned_start"]["share_in_simulator"]
    assert metrics["weighted_start"] == {"weighted": False, "share_in_simulator": pytest.approx(share, rel=1e-6)}
    assert metrics["curve"][0]["real_return"] == metrics["behaviour_cloning"]["mean"]
    cloned = (out / "behaviour_cloning.safetensors").read_bytes()
    assert (out / "weighted_cloning.safetensors").read_bytes() == cloned
    assert "starts from" not in (out / "report.html").read_text()

    assert (out / "policy.safetensors").read_bytes() == (plain / "policy.safetensors").read_bytes()


def test_of_seeds_trained_together_those_are_left_out_that_do_well(tiny: list[str], tmp_path: Path) -> None:
    out = tmp_path / "both"
    stages = STAGES.replace(",policy", "")
    words = [*tiny, stages, *SMALL, "--weighted_cloning.model.judged_episodes=5", "--seeds=0,1", "--out", str(out)]
    judged = iter([True, False])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.spared_cloning.cloned_fails", lambda *_: next(judged))
        assert command.main(words) == 0
    assert torch.load(out / "seed0" / "weighted_cloning" / "last.ckpt", weights_only=True)["updates"] == 100
    assert not (out / "seed1" / "weighted_cloning" / "last.ckpt").exists()
    assert "weighted_cloning" in json.loads((out / "seed1" / "metrics.json").read_text())["stages"]


def test_it_is_a_stage_where_there_is_diverse_data() -> None:
    for task in ("hopper", "ant"):
        configuration = load_configuration(task)
        assert "weighted_cloning" in resolve(configuration, "full", {}, []).stages
        without = resolve(configuration, "full", {"data.diverse": []}, []).stages
        assert list(without) == ["behaviour_cloning", "simulator", "policy"]
    words = ["--task=ant", "--data.expert=some/expert-v0", "--data.diverse=some/other-v0"]
    learned_on_the_way = load_configuration("methods/offline_ml_irl")
    assert "weighted_cloning" not in resolve(learned_on_the_way, "full", {}, words).stages


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages=[behaviour_cloning,weighted_cloning,policy]"], "list them from the first on"),
        (["--stages=[weighted_cloning]"], "list them from the first on"),
        ([STAGES, "--weighted_cloning.model.rows=all"], "rows is 'all'"),
        ([STAGES, "--weighted_cloning.model.effective_share=0.0"], "no row would count"),
        ([STAGES, "--weighted_cloning.model.start_under=1"], "did you mean weighted_cloning.model.start_below"),
        ([STAGES, "--weighted_cloning.updates=0"], "weighted_cloning.updates"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert command.main([*tiny, *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("logged", "sentence"),
    [
        (
            (400.0, 800.0, 320.0, 1.0),
            "Training in the Simulator starts from weighted cloning and not from plain cloning: of the demonstrations' "
            "return there, the cloned policy has 50.0%, the weighted one 40.0%. The weighted policy has 30.0% of what "
            "the demonstrations have in the Simulator: it was let go of.",
        ),
        (
            ("nan", 800.0, -8.0, 0.0),
            "Training in the Simulator starts from plain cloning and not from weighted cloning: of the demonstrations' "
            "return there, the cloned policy has no part that is a number, the weighted one -1.0%. The cloned policy "
            "has 30.0% of what the demonstrations have in the Simulator: it was let go of.",
        ),
        (
            (400.0, -1.0, 320.0, 0.0),
            "Training in the Simulator starts from plain cloning and not from weighted cloning: of the demonstrations' "
            "return there, the cloned policy has no part that is a number, the weighted one no part that is a number. "
            "The cloned policy has 30.0% of what the demonstrations have in the Simulator: it was let go of.",
        ),
    ],
)
def test_a_run_says_where_its_policy_started(tmp_path: Path, logged: tuple[object, ...], sentence: str) -> None:
    (tmp_path / "weighted_cloning").mkdir()
    rows = [[f"start/{name}" for name in LOGGED], logged]
    (tmp_path / "weighted_cloning" / "metrics.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    choice = weighted_start(tmp_path)
    assert choice["weighted"] == bool(logged[-1])
    start = {"share_in_simulator": 0.3, "hold": 0.01}
    assert in_words({"weighted_start": choice, "cloned_start": start}) == sentence


def test_a_run_without_a_choice_has_nothing_to_say_of_it(tmp_path: Path) -> None:
    assert weighted_start(tmp_path) == {} and in_words({}) == ""
