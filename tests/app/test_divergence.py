"""Trainings that diverge: what is said, what is kept, and how they go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from app import main as command
from app.run_folder import finished_stages
from lit_modules.simulator_sac import SimulatorSAC


def test_divergence_is_a_sentence_and_leaves_the_stage_unfinished(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*tiny, f"--out={tmp_path / 'run'}", "--simulator.model.transition_learning_rate=1e20"]
    assert command.main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("offsim: ") and "is not finite after" in said and "the last checkpoint is still good" in said
    assert set(finished_stages(tmp_path / "run")) == {"behaviour_cloning"}
    assert not (tmp_path / "run" / "simulator.safetensors").exists()


def test_retry_goes_on_from_the_last_checkpoint_at_half_the_rates(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, float]] = []

    def diverge_once(module: SimulatorSAC, logged: object) -> None:
        seen.append((module.updates, module.rate_factor))
        if module.updates == 100 and module.rate_factor == 1.0:
            raise module.divergence("loss_actor is not finite")

    monkeypatch.setattr(SimulatorSAC, "refuse_divergence", diverge_once)
    words = [*tiny, f"--out={tmp_path / 'run'}", "--evaluation.episodes=1"]
    assert command.main(words) == 1 and "loss_actor is not finite after 100 updates" in capsys.readouterr().err
    seen.clear()
    assert command.main([*words, "--retries=1"]) == 0
    assert "once more from that checkpoint, at 0.5 times the learning rates" in capsys.readouterr().out
    assert seen == [(100, 1.0), (100, 0.5)]  # both from the checkpoint of 50 updates
    checkpoint = torch.load(tmp_path / "run" / "policy" / "last.ckpt", weights_only=True)
    assert checkpoint["rate_factor"] == 0.5  # which an interruption keeps
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["rate_factors"] == {"policy": 0.5}
    rates = [group["lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]]
    whole = checkpoint["hyper_parameters"]["critic_learning_rate"]
    assert rates[1] == pytest.approx(0.5 * whole)


def test_retries_are_for_one_process_and_one_seed(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--devices=2"], ["--seeds=0..1"]):
        assert command.main([*tiny, f"--out={tmp_path / 'run'}", "--retries=1", *words]) == 2
        assert "--retries is for one" in capsys.readouterr().err
    assert command.main([*tiny, f"--out={tmp_path / 'run'}", "--retries=-1"]) == 2
    assert "--retries is -1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
