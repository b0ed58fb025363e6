"""``offsim fit`` says what is wrong with its command line or configuration in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from app.main import main

SIMULATOR = Path(__file__).resolve().parents[2] / "configs" / "fit" / "simulator.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.membrs", "3"], "unknown setting model.membrs of OffSim: did you mean model.members?"),
        (["--model.members", "three"], "model.members is 'three': expected int"),
        (["--model.proposal", "{dataset: x}"], "model.proposal is 'x': expected float"),
        (["--data.epxert_rows", "3"], "unknown setting data.epxert_rows of TransitionDataModule: did you mean"),
        (["--trainer.devcies", "3"], "unknown option 'trainer.devcies': did you mean trainer.devices?"),
        (["--modle.members", "3"], "unknown option 'modle.members': did you mean model?"),
        (["--model", "OfSim"], "unknown model 'OfSim': name one of the project's classes, such as OffSim"),
        (["--config", "/missing.yaml"], "config: File does not exist: '/missing.yaml'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(SIMULATOR), *words]) == 2
    printed = capsys.readouterr().err
    assert f"offsim: {message}" in printed
    assert "usage" not in printed and printed.count("\n") == 1


def test_a_mistake_in_the_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(SIMULATOR.read_text())
    content["model"]["init_args"]["horzon"] = 3
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(tmp_path / "mine.yaml")]) == 2
    assert "offsim: unknown setting model.horzon of OffSim: did you mean model.horizon?" in capsys.readouterr().err


def test_nothing_to_train_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    assert "offsim: neither a model nor data are given: add --config with a file" in capsys.readouterr().err


def test_help_is_still_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--help"])
    assert ended.value.code == 0 and "--trainer.devices" in capsys.readouterr().out
