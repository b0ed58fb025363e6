"""Whether a run lets go of what was cloned: by its data and the number of its updates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from app import main as command
from app.configuration import load_configuration


@pytest.mark.parametrize(
    ("words", "hold"),
    [
        (["--policy.model.let_go_updates=50"], 0.01),
        (["--policy.model.let_go_updates=51"], 1.0),
        (["--policy.model.let_go_updates=50", "--policy.model.let_go=failing"], 1.0),
        (["--policy.model.let_go=always"], 0.01),
    ],
)
def test_a_run_with_varied_data_and_enough_updates_lets_go(
    tiny: list[str], finished: Path, tmp_path: Path, words: list[str], hold: float, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [*tiny, "--policy.updates=50", "--policy.model.loosen_below=0", f"--out={tmp_path / 'run'}"]
    assert command.main([*run, *words, "--evaluation.episodes=1", f"--stages-of={finished}"]) == 0
    checkpoint = torch.load(tmp_path / "run" / "policy" / "last.ckpt", weights_only=True)
    assert float(checkpoint["hold"]) == pytest.approx(hold)
    start = json.loads((tmp_path / "run" / "metrics.json").read_text())["cloned_start"]
    assert start["hold"] == pytest.approx(hold) and start["share_in_simulator"] > 0.0
    sentence = "it was let go of" if hold < 1.0 else "the policy was held to it"
    assert sentence in capsys.readouterr().out and sentence in (tmp_path / "run" / "report.html").read_text()


def test_the_configuration_of_an_earlier_run_means_what_it_meant(finished: Path, tmp_path: Path) -> None:
    earlier = OmegaConf.load(finished / "config.yaml")
    for name in ("let_go", "let_go_updates", "loosen_below"):
        del earlier.policy.model[name]
    OmegaConf.save(earlier, tmp_path / "earlier.yaml")
    model = load_configuration(str(tmp_path / "earlier.yaml")).policy.model
    assert (model.let_go, model.loosen_below) == ("failing", None)
    assert load_configuration(str(finished / "config.yaml")).policy.model.let_go == "known"
