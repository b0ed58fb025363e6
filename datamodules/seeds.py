"""The data of several seeds side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning
from tensordict import TensorDict
from torch.utils.data import DataLoader, IterableDataset

from datamodules.transitions import TransitionDataModule


class SeedData(lightning.LightningDataModule):
    """One data module per seed; a batch is the list of theirs.

    Args:
        each: the data modules, each with the seed of its run.
    """

    def __init__(self, each: Sequence[TransitionDataModule]) -> None:
        super().__init__()
        self.each = list(each)

    def prepare_data(self) -> None:
        for data in self.each:
            data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        for data in self.each:
            data.trainer = self.trainer
            data.setup(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        return _zipped([data.train_dataloader() for data in self.each])

    def val_dataloader(self) -> DataLoader[Any]:
        return _zipped([data.val_dataloader() for data in self.each])


class _Zipped(IterableDataset[list[dict[str, TensorDict]]]):
    def __init__(self, loaders: Sequence[DataLoader[Any]]) -> None:
        self.loaders = loaders

    def __iter__(self) -> Iterator[list[dict[str, TensorDict]]]:
        for batches in zip(*self.loaders, strict=True):
            yield list(batches)


def _same(batch: list[dict[str, TensorDict]]) -> list[dict[str, TensorDict]]:
    return batch


def _zipped(loaders: Sequence[DataLoader[Any]]) -> DataLoader[Any]:
    return DataLoader(_Zipped(loaders), batch_size=None, collate_fn=_same)
