"""Where a training logs to: a CSV file that an interruption leaves whole, and TensorBoard."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from app.run_folder import write_whole


def make_loggers(folder: Path) -> list[Logger]:
    """Loggers to ``folder``: CSV and TensorBoard."""
    return [
        ContinuedCSVLogger(folder, name="", version=""),
        TensorBoardLogger(str(folder), name="", version="tensorboard"),
    ]


def last_values(path: Path) -> dict[str, float]:
    """The last finite value of every column of such a CSV file; empty if there is none."""
    values: dict[str, float] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, cell in row.items():
                    if cell and math.isfinite(value := float(cell)):
                        values[name] = value
    return values


class ContinuedCSVLogger(CSVLogger):
    """Lightning's deletes what was logged before a training was interrupted; this one goes on after it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment


class _Writer(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._continued = True

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        if self._continued and step is not None:
            self._drop_rows_from(step, set(metrics_dict))
            self._continued = False
        super().log_metrics(metrics_dict, step)

    def _drop_rows_from(self, step: int, names: set[str]) -> None:
        """Drop what was logged beyond the checkpoint from which the training goes on, and half a last line."""
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            rows = [row for row in reader if None not in row and None not in row.values() and row.get("step")]
        kept = [
            row for row in rows if int(row["step"]) < step or (int(row["step"]) == step and not _shares(row, names))
        ]
        self.metrics_keys = columns
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(kept)
        write_whole(path, text.getvalue())

    def _check_log_dir_exists(self) -> None:
        """Nothing is deleted."""


def _shares(row: dict[str, Any], names: set[str]) -> bool:
    """Whether a row holds figures of these names: at a step there is one of training, and one of validation."""
    return any(row.get(name) for name in names if name != "epoch")
