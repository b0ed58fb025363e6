"""What a log file holds after a training was interrupted and went on."""

from __future__ import annotations

from pathlib import Path

from app.loggers import ContinuedCSVLogger


def logger(folder: Path) -> ContinuedCSVLogger:
    return ContinuedCSVLogger(folder, name="", version="")


def log(to: ContinuedCSVLogger, step: int, **values: float) -> None:
    to.log_metrics(values, step)
    to.save()


def test_a_training_that_goes_on_keeps_its_rows_up_to_the_checkpoint(tmp_path: Path) -> None:
    whole, first, second = logger(tmp_path / "whole"), logger(tmp_path / "parts"), logger(tmp_path / "parts")
    for to in (whole, first):
        log(to, 0, loss=4.0)
        log(to, 1, loss=3.0)
        log(to, 1, score=7.0, epoch=0)  # a validation of the same step
    log(first, 2, loss=float("nan"))  # beyond the checkpoint, after step 1
    with (tmp_path / "parts" / "metrics.csv").open("a") as file:
        file.write("0,1.5")  # killed while it wrote
    for to in (whole, second):
        log(to, 2, loss=2.0)
        log(to, 3, loss=1.0, rate=0.5)  # a new column
    assert (tmp_path / "parts" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_a_validation_that_is_repeated_is_logged_once(tmp_path: Path) -> None:
    first, second = logger(tmp_path), logger(tmp_path)
    for to in (first, second):  # the checkpoint lies between the two rows
        if to is first:
            log(to, 1, loss=3.0)
        log(to, 1, score=7.0, epoch=0)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,score,step" and len(lines) == 3
