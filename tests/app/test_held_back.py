"""What a run advises where the hold on the cloned policy kept its policy from what the Simulator knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from app import main as command
from app.held_back import held_back
from app.verdict import Thresholds


def advice(
    folder: Path, returned: str = "87", earned: str = "85", method: str = "SimulatorSAC", **model: Any
) -> str | None:
    """Of a run whose demonstrations have 100 in the Simulator."""
    (folder / "policy").mkdir()
    rows = ["step,train/cloned/demonstrated,train/cloned/earned,validation/return", f"0,100.0,{earned},"]
    (folder / "policy" / "metrics.csv").write_text("\n".join([*rows, "59,,,10.0", f"119,,,{returned}\n"]))
    settings = {"policy": {"method": method, "model": {"loosen_below": 0.8, **model}}}
    return held_back(OmegaConf.create(settings), folder)


def test_a_policy_that_was_held_and_returns_little_is_to_be_let_go_of(tmp_path: Path) -> None:
    found = advice(tmp_path)
    assert found is not None and "has 0.87 of what the demonstrations have" in found
    assert f"--policy.model.loosen_below=2 --stages-of {tmp_path}" in found


@pytest.mark.parametrize(
    "settings",
    [
        {"returned": "90"},  # does well
        {"earned": "79"},  # was let go of
        {"earned": "nan"},  # likewise
        {"loosen_below": 2.0},  # likewise, as asked for
        {"loosen_below": None},  # was never judged
        {"method": "OfflineMLIRL"},  # judged by lengths
    ],
)
def test_nothing_is_advised_where_it_does_well_or_was_not_held(settings: dict[str, Any], tmp_path: Path) -> None:
    assert advice(tmp_path, **settings) is None


def test_nothing_is_advised_of_a_log_that_is_gone(tmp_path: Path) -> None:
    settings = {"policy": {"method": "SimulatorSAC", "model": {"loosen_below": 0.8}}}
    assert held_back(OmegaConf.create(settings), tmp_path) is None


def test_training_ends_with_the_advice(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.held_back.Thresholds", lambda: Thresholds(learned_share=9.0))
    words = [*tiny, "--policy.updates=50", "--policy.model.loosen_below=0", f"--out={tmp_path / 'run'}"]
    assert command.main([*words, f"--stages-of={finished}"]) == 0
    assert "--policy.model.loosen_below=2 --stages-of" in capsys.readouterr().out
