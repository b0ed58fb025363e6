"""What stands on a screen or in a log during a long task."""

from __future__ import annotations

import io
import sys

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from app import progress as module
from app.progress import progress, training_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Nothing(lightning.LightningModule):
    """Trains nothing, but logs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, batch_index: int) -> torch.Tensor:
        self.log("answer", 42.0, prog_bar=True)
        return self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(**limits: int) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=training_progress("training"),
        **limits,
    )
    trainer.fit(Nothing(), DataLoader(range(40), batch_size=1))  # type: ignore[arg-type]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop counts as long."""
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)


def test_short_loops_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("counting", 100) as report:
        for done in range(1, 101):
            report(done)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("patient")
def test_a_file_gets_one_line_per_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("counting", 200) as report:
        for done in range(1, 201):
            report(done)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"counting: {done}/200" for done in range(20, 201, 20)]


@pytest.mark.usefixtures("patient")
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with progress("counting", 4) as report:
        report(4)
    assert "counting" in terminal.getvalue() and "4/4" in terminal.getvalue()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("limits", [{"max_steps": 40}, {"max_epochs": 1}])
def test_training_prints_a_line_per_twentieth(limits: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    train(**limits)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("training: ")]
    assert len(lines) == 20
    assert lines[0].startswith("training: 2/40") and lines[-1].startswith("training: 40/40")
    assert all("answer 42" in line for line in lines)


def test_training_on_a_terminal_draws_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    train(max_steps=40)
    assert "40/40" in terminal.getvalue() and "answer 42" in terminal.getvalue()
