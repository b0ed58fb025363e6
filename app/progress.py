"""How far along a long task is: a bar on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import lightning
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

REFRESHES_PER_SECOND = 2  # drawing more often costs time that training needs
QUIET_SECONDS = 2.0  # what is done sooner shows nothing


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        refresh_per_second=REFRESHES_PER_SECOND,
    )


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the amount done so far.

    A terminal shows a bar; anything else gets one line for each tenth. Loops under two seconds show nothing.
    """
    started = time.monotonic()
    bar = _bar() if sys.stdout.isatty() else None
    task: TaskID | None = None
    tenths = 0

    def report(done: int) -> None:
        nonlocal task, tenths
        if time.monotonic() - started < QUIET_SECONDS:
            return
        if bar is not None:
            if task is None:
                task = bar.add_task(description, total=total, note="")
                bar.start()
            bar.update(task, completed=done)
        elif done * 10 // total > tenths:
            tenths = done * 10 // total
            print(f"{description}: {done}/{total}", flush=True)

    try:
        yield report
    finally:
        if task is not None and bar is not None:
            bar.stop()


class TrainingProgress(lightning.Callback):
    """Progress of a Lightning training.

    On a terminal a bar that is drawn at most twice a second; elsewhere a line every 5% or 30 seconds, whichever
    comes first. Whatever was logged with ``prog_bar=True`` stands behind it.

    Args:
        description: what is being trained.
        seconds: longest time between two lines.
        share: part of the training after which a line is due.
    """

    def __init__(self, description: str, seconds: float = 30.0, share: float = 0.05) -> None:
        self.description = description
        self.seconds = seconds
        self.share = share
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._started = self._printed_at = 0.0
        self._printed = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._started = self._printed_at = time.monotonic()
        self._printed = self._done(trainer, -1)
        if sys.stdout.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(self.description, total=self._total(trainer), note="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            # reading the metrics copies them from the device, so that too happens no more often than a drawing
            if now - self._printed_at >= 1.0 / REFRESHES_PER_SECOND:
                self._printed_at = now
                self._bar.update(self._task, completed=self._done(trainer, batch_idx), note=_metrics(trainer))
            return
        done, total = self._done(trainer, batch_idx), self._total(trainer)
        waited = now - self._printed_at
        due = total is not None and done - self._printed >= self.share * total and waited >= QUIET_SECONDS
        if due or waited >= self.seconds:
            self._printed, self._printed_at = done, now
            elapsed = timedelta(seconds=round(now - self._started))
            amount = f"{done}/{total}" if total is not None else str(done)
            print(f"{self.description}: {amount}  after {elapsed}  {_metrics(trainer)}".rstrip(), flush=True)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done(trainer, -1), note=_metrics(trainer))
        self._stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None

    def _done(self, trainer: lightning.Trainer, batch_idx: int) -> int:
        """Steps done in the unit that ends the training: optimizer steps, or batches where only epochs are set."""
        if trainer.max_steps > 0:
            return trainer.global_step
        return int(trainer.current_epoch * trainer.num_training_batches) + batch_idx + 1

    def _total(self, trainer: lightning.Trainer) -> int | None:
        if trainer.max_steps > 0:
            return trainer.max_steps
        batches = (trainer.max_epochs or -1) * trainer.num_training_batches
        return int(batches) if 0 < batches < float("inf") else None


def training_progress(description: str) -> list[lightning.Callback]:
    """The display to add to a ``Trainer``'s callbacks, together with ``enable_progress_bar=False``."""
    return [TrainingProgress(description)]


def _metrics(trainer: lightning.Trainer) -> str:
    return "  ".join(f"{name} {_short(float(value))}" for name, value in trainer.progress_bar_metrics.items())


def _short(value: float) -> str:
    """A count in full, anything else to four digits."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
