"""The data module as methods see it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from datamodules import DataError, TransitionDataModule

REWARD = 777.25  # the reward of every recorded step, see conftest.py


@pytest.fixture
def data(record: Any) -> TransitionDataModule:
    """Six of ten expert episodes, eight diverse episodes from two datasets; small batches."""
    record("test/expert-v0", list(range(2, 12)))
    record("test/one-v0", [5] * 5, first_number=100)
    record("test/two-v0", [4] * 3, first_number=200)
    return TransitionDataModule(
        "test/expert-v0",
        6,
        ["test/one-v0", "test/two-v0"],
        {"expert": 3, "diverse": 4, "all": 5},
        batches_per_step=2,
        seed=1,
    )


class Recorder(lightning.LightningModule):
    """Counts a step and remembers which rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []
        self.held_out: list[set[str]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch: Any, batch_index: int) -> None:
        self.seen.append(batch["all"]["row"].flatten().tolist())
        self.optimizers().step()  # type: ignore[union-attr]

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self.held_out.append(set(batch))


def run(data: TransitionDataModule, folder: Path, steps: int, resume: str | None = None, **settings: Any) -> Recorder:
    module = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )
        trainer.fit(module, data, ckpt_path=resume)
        trainer.save_checkpoint(folder / "last.ckpt")
    return module


def test_metadata_is_known_before_any_data_is_read(data: TransitionDataModule, record: Any) -> None:
    for dataset in ("test/expert-v0", "test/one-v0", "test/two-v0"):
        record.file(dataset).write_bytes(b"")
    again = TransitionDataModule("test/expert-v0", 6, ["test/one-v0", "test/two-v0"])
    assert (again.observation_size, again.action_size) == (3, 2)
    assert (again.action_low, again.action_high) == ([-1.0, -1.0], [1.0, 1.0])
    assert all(type(bound) is float for bound in again.action_low + again.action_high)
    assert again.environment_id == "Hopper-v5"
    assert again.streams == {"expert": 256, "all": 256}


def test_tables_hold_whole_episodes_and_share_none(data: TransitionDataModule) -> None:
    data.setup()
    tables = [data.expert_train, data.expert_held_out, data.diverse_train, data.diverse_held_out]
    present = [table for table in tables if table is not None]
    assert len(present) == 4
    numbers = [set(table["episode"].tolist()) for table in present]
    assert [len(group) for group in numbers] == [6, 4, 7, 1]
    assert len(set.union(*numbers)) == 18  # by episode: none is in two tables
    assert set.union(*numbers[:2]) == set(range(10))
    assert set.union(*numbers[2:]) == set(range(10, 18))
    lengths = [*range(2, 12), *[5] * 5, *[4] * 3]
    for table in present:
        for number in table["episode"].unique().tolist():
            steps = table["step"][table["episode"] == number]
            assert torch.equal(steps, torch.arange(lengths[number]))


def test_absent_tables_are_none(record: Any) -> None:
    data = TransitionDataModule(record("test/set-v0", [3, 3]))
    data.setup()
    assert len(data.expert_train) == 6
    assert data.diverse_train is data.expert_held_out is data.diverse_held_out is None
    assert next(iter(data.val_dataloader())) == {}


def test_one_of_all_demonstrations_is_held_out(record: Any) -> None:
    data = TransitionDataModule(record("test/set-v0", [3] * 5))
    data.setup()
    assert data.expert_held_out is not None
    assert (len(data.expert_train), len(data.expert_held_out)) == (12, 3)


def test_statistics_come_from_training_rows_only(data: TransitionDataModule) -> None:
    data.setup()
    assert data.diverse_train is not None
    both = torch.cat([data.expert_train, data.diverse_train])
    for statistics, rows in ((data.statistics, both), (data.expert_statistics, data.expert_train)):
        delta = rows["next", "observation"] - rows["observation"]
        for name, values in (("observation", rows["observation"]), ("action", rows["action"]), ("delta", delta)):
            torch.testing.assert_close(getattr(statistics, f"{name}_mean"), values.mean(0))
            torch.testing.assert_close(getattr(statistics, f"{name}_std"), values.std(0, correction=0))


def test_start_states_are_first_observations_of_training_episodes(data: TransitionDataModule) -> None:
    data.setup()
    assert data.diverse_train is not None
    both = torch.cat([data.expert_train, data.diverse_train])
    assert torch.equal(data.initial_observations, both["observation"][both["step"] == 0])
    assert len(data.initial_observations) == 13


def test_rows_are_numbered_through_with_the_expert_first(data: TransitionDataModule) -> None:
    data.setup()
    assert data.diverse_train is not None
    both = torch.cat([data.expert_train, data.diverse_train])
    expert_rows = len(data.expert_train)
    for batch in itertools.islice(data.train_dataloader(), 20):
        assert {name: drawn.batch_size for name, drawn in batch.items()} == {
            "expert": torch.Size([2, 3]),
            "diverse": torch.Size([2, 4]),
            "all": torch.Size([2, 5]),
        }
        assert batch["expert"]["row"].max() < expert_rows <= batch["diverse"]["row"].min()
        for drawn in batch.values():
            assert set(drawn.keys(include_nested=True, leaves_only=True)) == {
                "observation",
                "action",
                "row",
                ("next", "observation"),
                ("next", "terminated"),
                ("next", "truncated"),
            }
            assert torch.equal(drawn["observation"], both["observation"][drawn["row"]])
            assert torch.equal(drawn["next", "terminated"], both["next", "terminated"][drawn["row"]])


def test_seeds_decide_demonstrations_and_draws(record: Any) -> None:
    record("test/set-v0", [3] * 20)

    def first_batch(seed: int) -> tuple[list[int], list[int]]:
        data = TransitionDataModule("test/set-v0", 5, seed=seed)
        data.setup()
        return data.expert_train["episode"].tolist(), next(iter(data.train_dataloader()))["all"]["row"].tolist()

    assert first_batch(0) == first_batch(0)
    assert first_batch(0)[0] != first_batch(1)[0]
    assert first_batch(0)[1] != first_batch(1)[1]


def test_validation_is_a_single_batch_of_the_held_out_tables(data: TransitionDataModule) -> None:
    data.setup()
    (batch,) = data.val_dataloader()
    assert set(batch) == {"expert_held_out", "diverse_held_out"}
    assert batch["expert_held_out"] is data.expert_held_out


def test_facts_say_what_was_used(data: TransitionDataModule) -> None:
    facts = data.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert [fact["id"] for fact in facts] == ["test/expert-v0", "test/one-v0", "test/two-v0"]
    assert [fact["role"] for fact in facts] == ["expert", "diverse", "diverse"]
    assert [fact["demonstrations"] for fact in facts] == [6, None, None]
    assert [fact["total_episodes"] for fact in facts] == [10, 5, 3]
    assert all(len(fact["sha256"]) == 64 for fact in facts)
    data.setup()
    assert data.diverse_train is not None
    assert sum(fact["rows"] for fact in facts) == len(data.expert_train) + len(data.diverse_train)


def test_several_expert_datasets_are_one_set(record: Any) -> None:
    record("test/one-v0", [3] * 4)
    record("test/two-v0", [3] * 4, first_number=50)
    data = TransitionDataModule(["test/one-v0", "test/two-v0"], 7)
    data.setup()
    assert len(data.expert_train) == 21
    assert sum(fact["demonstrations"] for fact in data.facts()) == 7


def reachable(thing: Any, name: str, seen: set[int], depth: int = 0) -> Any:
    """Names and values of everything public that can be reached."""
    if depth > 6 or id(thing) in seen:
        return
    seen.add(id(thing))
    yield name, thing
    if isinstance(thing, TensorDictBase):
        children = {str(key): value for key, value in thing.items(include_nested=True)}
    elif isinstance(thing, dict):
        children = {str(key): value for key, value in thing.items()}
    elif isinstance(thing, list | tuple):
        children = {f"[{index}]": value for index, value in enumerate(thing)}
    elif dataclasses.is_dataclass(thing):
        children = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    else:
        children = {}
    for key, value in children.items():
        yield from reachable(value, f"{name}.{key}", seen, depth + 1)


def test_no_reward_can_be_reached(data: TransitionDataModule) -> None:
    data.setup()
    loader = data.train_dataloader()
    roots = {name: getattr(data, name) for name in vars(data) if not name.startswith("__")}
    roots |= {name: getattr(data, name) for name in ("hparams",)}
    roots |= {"batch": next(iter(loader)), "validation": next(iter(data.val_dataloader())), "facts": data.facts()}
    roots |= {"table": loader.dataset.table.columns()}
    found = [item for name, thing in roots.items() for item in reachable(thing, name, set())]
    assert len(found) > 50
    for name, thing in found:
        assert "reward" not in name.lower()
        if isinstance(thing, Tensor | np.ndarray):
            assert not (torch.as_tensor(thing) == REWARD).any(), name
    assert not [name for name in dir(data) if "reward" in name.lower()]


def test_a_resumed_run_goes_on_with_the_batches_it_would_have_seen(
    data: TransitionDataModule, record: Any, tmp_path: Path
) -> None:
    whole = run(data, tmp_path / "whole", 6).seen
    assert len({tuple(row) for row in whole}) == 6

    def again() -> TransitionDataModule:
        return TransitionDataModule(**data.hparams)

    first = run(again(), tmp_path / "part", 2).seen
    second = run(again(), tmp_path / "part", 6, resume=str(tmp_path / "part" / "last.ckpt")).seen
    assert first + second == whole
    # Short epochs neither repeat nor skip batches
    assert run(again(), tmp_path / "epochs", 6, limit_train_batches=2).seen == whole


def test_validation_runs_in_lightning(data: TransitionDataModule, tmp_path: Path) -> None:
    module = run(data, tmp_path, 2, val_check_interval=1, limit_train_batches=2)
    assert set(map(frozenset, module.held_out)) == {frozenset({"expert_held_out", "diverse_held_out"})}


def test_hyper_parameters_are_plain(data: TransitionDataModule) -> None:
    assert json.loads(json.dumps(dict(data.hparams))) == dict(data.hparams)
    assert data.hparams["expert"] == ["test/expert-v0"]


def test_the_trainer_decides_the_rank(data: TransitionDataModule) -> None:
    data.setup()
    data.trainer = SimpleNamespace(global_rank=1, world_size=3)  # type: ignore[assignment]
    stream = data.train_dataloader().dataset
    assert (stream.rank, stream.world_size) == (1, 3)


def test_errors_are_exceptions_of_their_own() -> None:
    assert issubclass(DataError, Exception)
    assert not issubclass(DataError, ValueError | OSError)


def test_a_data_error_can_be_sent_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(DataError("what to do")))) == "what to do"
