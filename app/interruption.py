"""Ctrl-C, SIGTERM and a scheduler's SIGUSR1 end a training after the update steps under way, with everything saved.

Of several processes any may get the signal: they agree at each step whether one of them has, and end at the same.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import distributed

from app.checkpoints import LAST
from app.errors import Interrupted
from app.slurm import requeue_signal, save_for_next_job, waiting_checkpoint
from lit_modules.parallel import tell_of_lost_process

# That end a training in order; of several processes the first hands them on
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))

AT_ONCE = "interrupted twice, and ended at once: what was learned since the last checkpoint is lost"


class SaveWhenInterrupted(Callback):
    """On the first signal, end the training at its next step, where a checkpoint continues it bit for bit.

    A second signal ends it at once, with the last regular checkpoint.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._requeue: signal.Signals | None = None  # in jobs of SLURM
        self._went_on_from: Path | None = None  # what an earlier one left

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._requeue = requeue_signal(trainer)
        self._went_on_from = waiting_checkpoint(trainer) if self._requeue else None
        if threading.current_thread() is not threading.main_thread():
            return
        # Lightning's own handlers send a message to processes that may be at work on another
        numbers = {*SIGNALS, *([self._requeue] if self._requeue else [])}
        self._before = {number: signal.signal(number, self._note) for number in numbers}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._end_if_asked(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._end_if_asked(trainer)  # during the last validation
        self._restore()
        if self._went_on_from is not None and trainer.is_global_zero:
            self._went_on_from.unlink(missing_ok=True)  # no later training is to go on from it

    def _end_if_asked(self, trainer: lightning.Trainer) -> None:
        received = self._received
        if trainer.world_size > 1:
            received = _of_any_process(received, trainer.strategy.root_device)
        if received is None:
            return
        if self._requeue is not None:
            raise Interrupted(received, save_for_next_job(trainer, received), trainer.is_global_zero, found=True)
        kept = trainer.checkpoint_callback
        folder = kept.dirpath if isinstance(kept, ModelCheckpoint) and kept.dirpath else trainer.default_root_dir
        checkpoint = Path(folder) / LAST
        trainer.save_checkpoint(checkpoint)
        raise Interrupted(received, checkpoint, trainer.is_global_zero)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        # At once: Lightning kills the first process, within seconds and without a word, when another has ended
        tell_of_lost_process(exception)
        again = self._received is not None and isinstance(exception, KeyboardInterrupt)
        if again and trainer.is_global_zero:  # which Lightning ends without a word
            print(f"offsim: {AT_ONCE}", file=sys.stderr)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before, self._received = {}, None


def _of_any_process(received: int | None, device: torch.device) -> int | None:
    """The signal that some process has received, if one has; every process asks, at the same step."""
    number = torch.tensor(received or 0, device=device)
    distributed.all_reduce(number, distributed.ReduceOp.MAX)
    return int(number) or None
