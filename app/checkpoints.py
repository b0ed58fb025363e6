"""Checkpoints that are on the disk whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from app.errors import UserError

LAST = "last.ckpt"  # Lightning's name of the newest one


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint that a training in ``folder`` goes on from, if there is one."""
    last = folder / LAST
    return str(last) if last.exists() else None


def newest_checkpoint(*folders: str | Path | None) -> Path | None:
    """The checkpoint in these folders or below them that was written last, if there is one."""
    found = [path for folder in folders if folder is not None for path in Path(folder).rglob("*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there in one step.

    Lightning's own writes to the system's folder for temporary files first, and where that is on another disk, moving
    it is copying: a process that is killed meanwhile leaves half a checkpoint in the place of a good one.
    """

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint, of which nothing is executed whatever it says.

        Raises:
            UserError: if it is none, is damaged, or would have something executed.
        """
        try:
            checkpoint: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=True)
        except FileNotFoundError as error:
            raise UserError(f"there is no checkpoint {path}") from error
        # What a file that is none makes torch's reader stumble over depends on its first bytes
        except Exception as error:
            if Path(path).suffix == ".safetensors":
                raise UserError(
                    f"{path} is the file of a model, from which no training goes on: name a checkpoint, such as "
                    "last.ckpt in the folder of its stage"
                ) from error
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{path} is no checkpoint of a training with offsim, or is damaged: {reason} "
                "Name another, or remove it to begin anew"
            ) from error
        return checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: if the disk does not take it; the checkpoint that was there is kept.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in target.parent.glob(f".{target.name}.*.partial"):
                left.unlink(missing_ok=True)  # by processes that were killed
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
            try:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
        # A full disk is a RuntimeError in torch's writer
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint {target} cannot be written ({error}): the one before it, if there was one, is kept; "
                "make room and repeat the command, which goes on from there"
            ) from error
