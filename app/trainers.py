"""Lightning trainers as every stage of ``offsim train`` uses them."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from app.checkpoints import WholeCheckpointIO
from app.interruption import SaveWhenInterrupted
from app.progress import training_progress


def make_loggers(folder: Path) -> list[Logger]:
    """Loggers to ``folder``: CSV and TensorBoard."""
    return [CSVLogger(folder, name="", version=""), TensorBoardLogger(str(folder), name="", version="tensorboard")]


def make_trainer(
    folder: Path,
    steps: int,
    validations: int = 10,
    accelerator: str = "auto",
    devices: int | str = 1,
    callbacks: list[Callback] | None = None,
    loggers: list[Logger] | None = None,
) -> lightning.Trainer:
    """A trainer that logs to ``folder`` (CSV and TensorBoard) and keeps its last checkpoint there.

    Args:
        folder: run folder of the stage.
        steps: training steps, each of several updates.
        validations: how often to validate over the whole training.
        accelerator: as Lightning's.
        devices: as Lightning's.
        callbacks: further callbacks.
        loggers: other loggers than those of ``folder``; an empty list logs nothing.
    """
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    every = max(1, steps // validations)
    checkpoint = ModelCheckpoint(dirpath=folder, filename="checkpoint", save_last=True, every_n_train_steps=every)
    return lightning.Trainer(
        accelerator=accelerator,
        devices=devices,
        max_steps=steps,
        logger=make_loggers(folder) if loggers is None else loggers,
        log_every_n_steps=1,
        val_check_interval=every,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        callbacks=[checkpoint, *training_progress(folder.name), SaveWhenInterrupted(), *(callbacks or [])],
        plugins=[WholeCheckpointIO()],
        enable_model_summary=False,
        enable_progress_bar=False,
    )
