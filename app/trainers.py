"""Lightning trainers as every stage of ``offsim train`` uses them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from app.checkpoints import WholeCheckpointIO
from app.interruption import SaveWhenInterrupted
from app.loggers import make_loggers
from app.progress import training_progress

PRECISION = "highest"  # of products, where a configuration is older than the setting
LOGGED_ROWS = 2000  # of a training at most, however long it is; shorter ones log every step


def several(devices: Any) -> bool:
    """Whether Lightning's ``devices`` may mean more than one."""
    return len(devices) > 1 if isinstance(devices, Sequence) and not isinstance(devices, str) else str(devices) != "1"


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Have products of single precision computed as ``torch.set_float32_matmul_precision`` says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def make_trainer(
    folder: Path,
    steps: int,
    validations: int = 10,
    accelerator: str = "auto",
    devices: Any = 1,
    loggers: list[Logger] | None = None,
) -> lightning.Trainer:
    """A trainer that logs to ``folder`` (CSV and TensorBoard) and keeps its last checkpoint there.

    Args:
        folder: run folder of the stage.
        steps: training steps, each of several updates.
        validations: how often to validate over the whole training.
        accelerator: as Lightning's.
        devices: as Lightning's.
        loggers: other loggers than those of ``folder``; an empty list logs nothing.
    """
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    every = math.ceil(steps / validations)
    checkpoint = ModelCheckpoint(
        dirpath=folder, save_last=True, save_top_k=0, every_n_train_steps=every, enable_version_counter=False
    )
    return lightning.Trainer(
        accelerator=accelerator,
        devices=devices,
        max_steps=steps,
        logger=make_loggers(folder) if loggers is None else loggers,
        log_every_n_steps=math.ceil(steps / LOGGED_ROWS),
        val_check_interval=every,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        callbacks=[checkpoint, *training_progress(folder.name), SaveWhenInterrupted()],
        plugins=[WholeCheckpointIO(), LightningEnvironment()],  # whatever a scheduler's variables say
        enable_model_summary=False,
        enable_progress_bar=False,
    )
