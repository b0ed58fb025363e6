"""How data reaches training: Minari datasets to batches of transitions."""

from datamodules.errors import DataError
from datamodules.transitions import TransitionDataModule

__all__ = ["DataError", "TransitionDataModule"]
