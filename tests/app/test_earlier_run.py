"""``offsim train --stages-of``: what a run takes over from another, and what it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app import main as command
from app.run_folder import note_stage

MODELS = ("behaviour_cloning.safetensors", "simulator.safetensors")


def test_other_settings_of_the_policy_need_no_new_simulator(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = [*tiny, "--policy.updates=50", "--policy.model.deviation=0.2", "--out", str(out), "--stages-of"]
    assert command.main([*words, str(finished)]) == 0
    said = capsys.readouterr().out
    assert f"behaviour cloning: that of {finished}" in said and f"simulator: that of {finished}" in said
    assert "policy: 50 updates" in said and "trained anew" not in said
    for name in MODELS:
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["curve"][-1]["update"] == 50
    assert metrics["shared_stages"] == dict.fromkeys(("behaviour_cloning", "simulator"), finished.name)
    assert command.main([*words[:-1]]) == 0  # that run goes on, or is done, without the option


def test_a_stage_with_other_settings_is_trained_anew(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = [*tiny, "--stages=[behaviour_cloning,simulator]", "--simulator.model.l2_weight=0.5", "--out", str(out)]
    assert command.main([*words, "--stages-of", str(finished)]) == 0
    said = capsys.readouterr().out
    assert f"behaviour cloning: that of {finished}" in said and "simulator: 100 updates" in said
    assert "its simulator has simulator.model.l2_weight: 0.001, where this run has 0.5" in said
    assert (out / MODELS[0]).read_bytes() == (finished / MODELS[0]).read_bytes()
    assert (out / MODELS[1]).read_bytes() != (finished / MODELS[1]).read_bytes()


def test_a_stage_that_ended_slower_than_asked_for_is_trained_anew(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = shutil.copytree(finished, tmp_path / "earlier")
    note_stage(earlier, "simulator", 1.0, rate_factor=0.25)
    words = [*tiny, "--stages=[behaviour_cloning,simulator]", f"--out={tmp_path / 'run'}", f"--stages-of={earlier}"]
    assert command.main(words) == 0
    said = capsys.readouterr().out
    assert "its simulator diverged and ended at 0.25 times its learning rates (--retries)" in said
    assert "simulator: 100 updates" in said and f"behaviour cloning: that of {earlier}" in said


def test_one_dataset_is_the_same_in_a_list_and_alone(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.expert=[tiny/hopper/expert-v0]", "--data.diverse=tiny/hopper/other-v0", "--policy.updates=50"]
    assert command.main([*tiny, *words, f"--out={tmp_path / 'run'}", f"--stages-of={finished}"]) == 0
    assert "trained anew" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "5"], "its behaviour cloning has seed: 0, where this run has 5"),
        (["--matmul_precision=medium"], "has matmul_precision: highest, where this run has medium"),
        (["--data.diverse=null"], "has data.diverse: ['tiny/hopper/other-v0'], where this run has None"),
        (["--data.demonstrations=2"], "its behaviour cloning has data.demonstrations: 3, where this run has 2"),
        (["--seeds", "0..1"], "--stages-of is for one seed"),
    ],
)
def test_a_run_of_which_nothing_can_be_used_is_refused(
    words: list[str], message: str, tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert command.main([*tiny, *words, "--out", str(out), "--stages-of", str(finished)]) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_a_run_of_other_data_is_refused(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier, words = tmp_path / "earlier", [*tiny, "--policy.updates=50", "--out", str(tmp_path / "run"), "--stages-of"]
    shutil.copytree(finished, earlier)
    (earlier / "data.json").write_text(json.dumps({"tiny/hopper/expert-v0": "0" * 64}))  # recorded anew since
    assert command.main([*words, str(earlier)]) == 2
    assert "tiny/hopper/expert-v0 is no longer the data" in capsys.readouterr().err
    (earlier / "data.json").unlink()  # as runs of before have none
    metrics = json.loads((earlier / "metrics.json").read_text())
    metrics["data"][0]["sha256"] = "0" * 64
    (earlier / "metrics.json").write_text(json.dumps(metrics))
    assert command.main([*words, str(earlier)]) == 2
    assert "tiny/hopper/expert-v0 is no longer the data" in capsys.readouterr().err
    (earlier / "metrics.json").write_text("[]")
    assert command.main([*words, str(earlier)]) == 2
    assert "metrics.json is damaged" in capsys.readouterr().err
    (earlier / "config.yaml").write_text("- 1")
    assert command.main([*words, str(earlier)]) == 2
    assert "is not the configuration of a run" in capsys.readouterr().err
    (earlier / "config.yaml").write_text("seed: 0\nstages: [simulator]\nsimulator: 3\ndata: {}")
    assert command.main([*words, str(earlier)]) == 2
    assert "is not the configuration of a run" in capsys.readouterr().err
    assert command.main([*words, str(tmp_path / "nothing")]) == 2
    assert "give the folder of a run of one seed" in capsys.readouterr().err
