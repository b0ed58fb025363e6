"""Ctrl-C and SIGTERM end a training after the update steps under way, with everything saved."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from app.checkpoints import LAST
from app.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveWhenInterrupted(Callback):
    """On the first signal, end the training at its next step, where a checkpoint continues it bit for bit.

    A second signal ends it at once, with the last regular checkpoint. Trainings of several processes keep Lightning's
    own handling: one of them may not stop while others wait for it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._received is None:
            return
        kept = trainer.checkpoint_callback
        folder = kept.dirpath if isinstance(kept, ModelCheckpoint) and kept.dirpath else trainer.default_root_dir
        checkpoint = Path(folder) / LAST
        trainer.save_checkpoint(checkpoint)
        raise Interrupted(self._received, checkpoint)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before, self._received = {}, None
