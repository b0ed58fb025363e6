"""The data module: Minari ids to batches of transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import cache, checks
from datamodules.cache import Part, Table
from datamodules.edits import Edit
from datamodules.selection import Selection, select_demonstrations, select_diverse
from datamodules.sources import Source, data_facts, resolve
from datamodules.statistics import Statistics, measure
from datamodules.streams import Stream, TransitionLoader, TransitionStream, identity

DEFAULT_STREAMS = {"expert": 256, "all": 256}


class TransitionDataModule(lightning.LightningDataModule):
    """Expert demonstrations and diverse data as transitions, without any reward.

    Constructing it reads metadata only; :meth:`setup` reads the data and refuses what cannot be trained on.

    A training batch is a dict with, for each stream, a TensorDict of batch size ``[batches_per_step, rows]``:
    ``observation``, ``action``, ``next: {observation, terminated, truncated}`` and ``row``, the number of the
    transition among all training rows (expert rows come first). The validation batch is a dict of the held-out
    tables that exist.

    Args:
        expert: Minari id of the demonstrations, or several.
        demonstrations: how many expert episodes to train on; ``None`` for all. Which ones depends on the seed.
        diverse: Minari ids of data of other quality.
        streams: rows per update of "expert", "diverse" and "all" (expert and diverse rows drawn together).
        batches_per_step: updates per training step.
        held_out_fraction: share of diverse episodes held out; 0 holds out nothing that could be trained on.
        out_of_bounds: what happens to recorded actions outside the action space: ``keep`` or ``clip``.
        memory_limit_mb: more data than this is kept in memory-mapped files.
        cache_dir: folder of those files; ``None`` for ``$OFFSIM_CACHE`` or ``offsim`` in the user's cache folder.
        workers: processes that prepare batches; 0 prepares them in the training process.
        seed: decides which demonstrations are used, which episodes are held out, and all draws.
        diverse_fraction: share of the diverse episodes that are not held out to train on.
        noise_fraction: share of the diverse training rows that are turned into noise, see ``datamodules.edits``.
        expert_keep_every: of every so many transitions of the demonstrations that are trained on the first is kept.
            Held-out episodes stay whole and clean.
        exogenous: names or numbers of the observation features that are set from outside, as setpoints and
            disturbances are; ``None`` for those that the datasets name.

    Attributes:
        observation_size: number of observation features.
        action_size: number of action features.
        action_low: lower action bounds.
        action_high: upper action bounds.
        diverse_source: position in ``diverse`` of the dataset of each row of ``diverse_train``, after :meth:`setup`.
        environment_id: Gymnasium id of the environment of the demonstrations, if the datasets know it.
        observation_names: a name for every observation feature, if the log that was imported had them, else none.
        action_names: likewise for actions.
        exogenous: numbers of the observation features that are set from outside.
        streams: rows per update, by stream.

    Raises:
        DataError: if a dataset is missing or the settings ask for what does not exist.
    """

    def __init__(
        self,
        expert: str | list[str],
        demonstrations: int | None = None,
        diverse: list[str] | str | None = None,
        streams: dict[str, int] | None = None,
        batches_per_step: int = 20,
        held_out_fraction: float = 0.1,
        out_of_bounds: str = "keep",
        memory_limit_mb: int = 4096,
        cache_dir: str | None = None,
        workers: int = 0,
        seed: int = 0,
        diverse_fraction: float = 1.0,
        noise_fraction: float = 0.0,
        expert_keep_every: int = 1,
        exogenous: Sequence[str | int] | None = None,
    ) -> None:
        super().__init__()
        # Plain types whatever the configuration is made of: they end up in checkpoints, which hold nothing else.
        expert, diverse = _names(expert), _names(diverse)
        exogenous = None if exogenous is None else list(exogenous)
        streams = dict(DEFAULT_STREAMS if streams is None else streams)
        # Kept out of the logger, where names must not clash with the model's.
        self.save_hyperparameters(logger=False)
        self.streams = streams
        self.batches_per_step = batches_per_step
        self.held_out_fraction = held_out_fraction
        self.out_of_bounds = out_of_bounds
        self.memory_limit_mb = memory_limit_mb
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else cache.default_cache_dir()
        self.workers = workers
        self.seed = seed
        checks.check_settings(
            self.streams,
            bool(diverse),
            batches_per_step,
            held_out_fraction,
            diverse_fraction,
            out_of_bounds,
            memory_limit_mb,
            workers,
            noise_fraction,
            expert_keep_every,
        )
        self._expert = [resolve(name) for name in expert]
        self._diverse = [resolve(name) for name in diverse]
        checks.check_sources(self._expert, self._diverse, demonstrations)
        checks.check_bounded([*self._expert, *self._diverse])
        self.exogenous = checks.exogenous_features([*self._expert, *self._diverse], exogenous)
        expert_episodes = sum(source.episodes for source in self._expert)
        diverse_episodes = sum(source.episodes for source in self._diverse)
        demonstrated = select_demonstrations(expert_episodes, demonstrations, held_out_fraction, seed)
        other = select_diverse(diverse_episodes, diverse_fraction, held_out_fraction, seed)
        self._train_parts, self._held_out_parts = self._parts(demonstrated, other, expert_episodes)
        edits = Edit(keep_every=expert_keep_every), Edit(noise_fraction=noise_fraction, seed=seed)
        self._train_parts = [
            replace(part, edit=edits[0] if self._is_expert(part.source) else edits[1]) for part in self._train_parts
        ]

        first = self._expert[0]
        self.observation_size: int = first.observation_size
        self.action_size: int = first.action_size
        self.action_low: list[float] = [float(bound) for bound in first.action_space.low]
        self.action_high: list[float] = [float(bound) for bound in first.action_space.high]
        self.observation_names, self.action_names = first.observation_names, first.action_names
        known = [source.environment_id for source in self._expert if source.environment_id is not None]
        self.environment_id: str | None = known[0] if known else None

        self._train: Table | None = None
        self._held_out: Table | None = None
        self._expert_rows = 0

    def prepare_data(self) -> None:
        """Write the memory-mapped files, if the data needs them; Lightning calls this in one process per machine."""
        self._load(only_files=True)

    def setup(self, stage: str | None = None) -> None:
        """Read and check the data, and measure its statistics.

        Args:
            stage: what for: ``fit`` or ``None`` to learn from it, anything else to measure against it alone.

        Raises:
            DataError: naming dataset, episode and step of what cannot be trained on.
        """
        if self._train is not None:
            return
        train, held_out = self._load()
        assert train is not None
        train_lengths, held_out_lengths = self._lengths
        self._expert_rows = self._rows_of(self._train_parts, train_lengths, self._expert)
        expert_held_out = self._rows_of(self._held_out_parts, held_out_lengths, self._expert)
        self.expert_train: TensorDict = _view(train, 0, self._expert_rows)
        self.diverse_train: TensorDict | None = _view_or_none(train, self._expert_rows, len(train))
        self.expert_held_out: TensorDict | None = None
        self.diverse_held_out: TensorDict | None = None
        if held_out is not None:
            self.expert_held_out = _view_or_none(held_out, 0, expert_held_out)
            self.diverse_held_out = _view_or_none(held_out, expert_held_out, len(held_out))
        self.diverse_source: Tensor = self._diverse_sources(train_lengths)
        self.initial_observations: Tensor = train.scattered("observation", train.first_rows())
        self.expert_statistics: Statistics = measure(self.expert_train, after_block=train.release)
        self.statistics: Statistics = (
            self.expert_statistics
            if self.diverse_train is None
            else measure(self.expert_train, self.diverse_train, after_block=train.release)
        )
        checks.warn_of_lost_precision(self._expert[0], self.statistics)
        if stage in ("fit", None):  # else nothing imitates them
            for part in self._train_parts:
                if self._is_expert(part.source):
                    checks.warn_of_early_ends(part.source, part.episodes)
        self._train, self._held_out = train, held_out
        self.release()

    def train_dataloader(self) -> TransitionLoader:
        """Endless training batches; each process draws its own."""
        if self._train is None:
            self.setup("fit")
        assert self._train is not None
        total = len(self._train)
        ranges = {"expert": (0, self._expert_rows), "diverse": (self._expert_rows, total), "all": (0, total)}
        streams = {}
        for name, rows in self.streams.items():
            start, stop = ranges[name]
            size = cache.table_bytes(self._train_parts, stop - start)
            # A part that fits in memory stays there once it has been read, so it can be drawn from freely.
            chunked = self._train.folder is not None and size > self.memory_limit_mb * 2**20
            streams[name] = Stream(start, stop, rows, chunked)
        rank, world_size = self._rank()
        batches = TransitionStream(self._train, streams, self.batches_per_step, self.seed, rank, world_size)
        return TransitionLoader(batches, self.workers, self._batches_done)

    def val_dataloader(self) -> DataLoader[dict[str, TensorDict]]:
        """A single batch: the held-out tables that exist, under ``expert_held_out`` and ``diverse_held_out``."""
        if self._train is None:
            self.setup("validate")
        tables = {"expert_held_out": self.expert_held_out, "diverse_held_out": self.diverse_held_out}
        batches: Any = [{name: table for name, table in tables.items() if table is not None}]
        return DataLoader(batches, batch_size=None, collate_fn=identity, generator=torch.Generator())

    def test_dataloader(self) -> DataLoader[dict[str, TensorDict]]:
        """The held-out tables, as in validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, TensorDict]]:
        """The held-out tables, as in validation."""
        return self.val_dataloader()

    def release(self) -> None:
        """Give back the memory that holds what was read of memory-mapped files, see :meth:`Table.release`."""
        for table in (self._train, self._held_out):
            if table is not None:
                table.release()

    def facts(self) -> list[dict[str, Any]]:
        """What was used of each dataset, ready for JSON: its id, role, SHA-256, episodes, rows and demonstrations.

        ``episodes``, ``rows`` and ``demonstrations`` count what is trained on, ``held_out_episodes`` and
        ``held_out_rows`` what is held out, ``total_episodes`` and ``total_steps`` the whole dataset; ``exogenous`` are
        the numbers of the features that are set from outside, if there are any.
        """
        train_lengths, held_out_lengths = self._lengths
        facts = []
        for source in [*self._expert, *self._diverse]:
            known = data_facts(source, self.cache_dir)
            expert = self._is_expert(source)
            trained, rows = self._used(source, self._train_parts, train_lengths)
            held_out, held_out_rows = self._used(source, self._held_out_parts, held_out_lengths)
            facts.append(
                {
                    "id": known["id"],
                    "role": "expert" if expert else "diverse",
                    "sha256": known["sha256"],
                    "episodes": trained,
                    "rows": rows,
                    "demonstrations": trained if expert else None,
                    "held_out_episodes": held_out,
                    "held_out_rows": held_out_rows,
                    "total_episodes": known["episodes"],
                    "total_steps": known["steps"],
                    **({"exogenous": list(self.exogenous)} if self.exogenous else {}),
                }
            )
        return facts

    # ------------------------------------------------------------------------------------------------------- internals

    def _is_expert(self, source: Source) -> bool:
        return any(source is other for other in self._expert)

    def _parts(self, expert: Selection, diverse: Selection, expert_episodes: int) -> tuple[list[Part], list[Part]]:
        train: list[Part] = []
        held_out: list[Part] = []
        sets = ((self._expert, expert, 0), (self._diverse, diverse, expert_episodes))
        for sources, selection, first in sets:
            offset = 0
            for source in sources:
                for numbers, parts in ((selection.train, train), (selection.held_out, held_out)):
                    chosen = tuple(number - offset for number in numbers if 0 <= number - offset < source.episodes)
                    if chosen:
                        parts.append(Part(source, chosen, first + offset))
                offset += source.episodes
        return train, held_out

    @cached_property
    def _lengths(self) -> tuple[list[list[int]], list[list[int]]]:
        """Rows of every episode of the training parts and of the held-out parts."""
        return cache.episode_lengths(self._train_parts), cache.episode_lengths(self._held_out_parts)

    def _load(self, only_files: bool = False) -> tuple[Table | None, Table | None]:
        """Training and held-out tables, each ``None`` if there is none, or if it needs no files and only they are
        asked for.
        """
        rows = sum(sum(map(sum, lengths)) for lengths in self._lengths)
        fits = cache.table_bytes(self._train_parts, rows) <= self.memory_limit_mb * 2**20
        tables: list[Table | None] = []
        for parts, length in zip((self._train_parts, self._held_out_parts), self._lengths, strict=True):
            if not parts or (fits and only_files):
                tables.append(None)
            elif fits:
                tables.append(cache.in_memory(parts, length, self.out_of_bounds))
            else:
                tables.append(cache.memory_mapped(parts, length, self.out_of_bounds, self.cache_dir))
        return tables[0], tables[1]

    def _diverse_sources(self, lengths: Sequence[Sequence[int]]) -> Tensor:
        """Position in ``diverse`` of the dataset that each diverse training row came from, ``(N,)``."""
        numbers = [
            torch.full((sum(length),), number, dtype=torch.int32)
            for part, length in zip(self._train_parts, lengths, strict=True)
            for number, source in enumerate(self._diverse)
            if part.source is source
        ]
        return torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.int32)

    @staticmethod
    def _rows_of(parts: Sequence[Part], lengths: Sequence[Sequence[int]], sources: Sequence[Source]) -> int:
        return sum(
            sum(length)
            for part, length in zip(parts, lengths, strict=True)
            if any(part.source is source for source in sources)
        )

    @staticmethod
    def _used(source: Source, parts: Sequence[Part], lengths: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Episodes and rows that come from a dataset."""
        used = [length for part, length in zip(parts, lengths, strict=True) if part.source is source]
        return sum(len(length) for length in used), sum(sum(length) for length in used)

    def _rank(self) -> tuple[int, int]:
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _batches_done(self) -> int:
        """Batches that the attached trainer has started so far, those before a resumed checkpoint included."""
        if self.trainer is None:
            return 0
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def _names(ids: str | Sequence[str] | None) -> list[str]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, str) else list(ids)


def _view(table: Table, start: int, stop: int) -> TensorDict:
    """Rows of a table, without copying them."""
    columns = {name: column[start:stop] for name, column in table.columns().items()}
    following = {
        "observation": columns["next_observation"],
        "terminated": columns["terminated"],
        "truncated": columns["truncated"],
    }
    size = [stop - start]
    return TensorDict(
        {
            "observation": columns["observation"],
            "action": columns["action"],
            "next": TensorDict(following, batch_size=size),
            "episode": columns["episode"],
            "step": columns["step"],
        },
        batch_size=size,
    )


def _view_or_none(table: Table, start: int, stop: int) -> TensorDict | None:
    return _view(table, start, stop) if stop > start else None
