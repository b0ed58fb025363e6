"""Which data a run is of, and one command at a time in its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app import main as command
from app.folder_lock import locked


def test_a_run_goes_on_with_its_own_data_alone(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(finished, tmp_path / "run")
    noted = json.loads((out / "data.json").read_text())
    assert set(noted) == {"tiny/hopper/expert-v0", "tiny/hopper/other-v0"}
    before = (out / "metrics.json").read_bytes()
    (out / "data.json").write_text(json.dumps({**noted, "tiny/hopper/other-v0": "0" * 64}))  # recorded anew since
    assert command.main([*tiny, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"tiny/hopper/other-v0 is no longer the data that {out} was trained on: choose another --out" in said
    assert (out / "metrics.json").read_bytes() == before
    (out / "data.json").write_text("{")
    assert command.main([*tiny, "--out", str(out)]) == 2
    assert "data.json is damaged" in capsys.readouterr().err


def test_one_training_at_a_time_works_in_a_folder(
    tiny: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(finished, tmp_path / "run")
    with locked(out, "offsim train"):
        assert command.main([*tiny, "--out", str(out)]) == 2
        assert f"another `offsim train`, or a process it left behind, works in {out}" in capsys.readouterr().err
    shutil.copytree(finished, tmp_path / "both" / "seed0")
    with locked(tmp_path / "both" / "seed0", "offsim train"):
        assert command.main([*tiny, "--seeds=0,1", "--out", str(tmp_path / "both")]) == 2
        assert "another `offsim train`" in capsys.readouterr().err
