"""Memory-mapped tables hold what tables in memory hold, and appear complete or not at all."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datamodules import DataError, TransitionDataModule, cache
from datamodules.cache import Part, Table, episode_lengths, in_memory, memory_mapped
from datamodules.episodes import EpisodeReader
from datamodules.sources import resolve


def parts_of(record: Any) -> list[Part]:
    first = resolve(record("test/one-v0", [3, 4, 5]))
    second = resolve(record("test/two-v0", [2, 6], first_number=10))
    return [Part(first, (0, 2), 0), Part(second, (0, 1), 3)]


def same(one: Table, other: Table) -> bool:
    first, second = one.columns(), other.columns()
    return first.keys() == second.keys() and all(
        torch.equal(column, second[name]) and column.dtype == second[name].dtype for name, column in first.items()
    )


def test_both_kinds_of_table_hold_the_same(record: Any, tmp_path: Path) -> None:
    parts = parts_of(record)
    lengths = episode_lengths(parts)
    held, mapped = in_memory(parts, lengths, "keep"), memory_mapped(parts, lengths, "keep", tmp_path)
    assert len(held) == len(mapped) == 16
    assert same(held, mapped)
    assert torch.equal(held.first_rows(), torch.tensor([0, 3, 8, 10]))
    assert held.columns()["episode"].unique().tolist() == [0, 2, 3, 4]


def test_a_table_is_written_once(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(record)
    lengths = episode_lengths(parts)
    first = memory_mapped(parts, lengths, "keep", tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("the datasets are read again")

    monkeypatch.setattr(EpisodeReader, "read", refuse)
    assert same(first, memory_mapped(parts, lengths, "keep", tmp_path))
    assert len(list((tmp_path / "tables").iterdir())) == 1


def test_a_table_is_written_again_when_the_file_changed(record: Any, tmp_path: Path) -> None:
    parts = parts_of(record)
    lengths = episode_lengths(parts)
    before = memory_mapped(parts, lengths, "keep", tmp_path).folder
    with h5py.File(parts[0].source.file, "a") as file:
        file["episode_0"]["observations"][0, 2] = 123.0
    status = parts[0].source.file.stat()
    os.utime(parts[0].source.file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = memory_mapped(parts, lengths, "keep", tmp_path)
    assert after.folder != before
    assert float(after.columns()["observation"][0, 2]) == 123.0


def test_other_episodes_and_clipping_have_tables_of_their_own(record: Any, tmp_path: Path) -> None:
    parts = parts_of(record)
    folders = {
        memory_mapped(chosen, episode_lengths(chosen), out_of_bounds, tmp_path).folder
        for chosen, out_of_bounds in ((parts, "keep"), (parts, "clip"), (parts[:1], "keep"))
    }
    assert len(folders) == 3


def test_nothing_is_left_of_a_table_that_could_not_be_finished(record: Any, tmp_path: Path) -> None:
    parts = parts_of(record)
    lengths = episode_lengths(parts)
    with h5py.File(parts[1].source.file, "a") as file:
        file["episode_1"]["observations"][3, 1] = np.nan
    with pytest.raises(DataError, match=r"episode 1, step 3: observation feature 1 is nan"):
        memory_mapped(parts, lengths, "keep", tmp_path)
    assert list((tmp_path / "tables").iterdir()) == []


def test_two_processes_may_write_the_same_table(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(record)
    lengths = episode_lengths(parts)
    fill = cache._fill

    def fill_while_another_finishes(*arguments: Any) -> list[int]:
        monkeypatch.setattr(cache, "_fill", fill)
        memory_mapped(parts, lengths, "keep", tmp_path)
        return fill(*arguments)

    monkeypatch.setattr(cache, "_fill", fill_while_another_finishes)
    table = memory_mapped(parts, lengths, "keep", tmp_path)
    assert same(table, in_memory(parts, lengths, "keep"))
    assert len(list((tmp_path / "tables").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_refused(record: Any, tmp_path: Path) -> None:
    record("test/set-v0", [3])
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    data = TransitionDataModule("test/set-v0", memory_limit_mb=0, cache_dir=str(blocked))
    with pytest.raises(DataError, match=r"data\.cache_dir.*data\.memory_limit_mb") as caught:
        data.setup()
    assert str(blocked) in str(caught.value)


def test_a_full_disk_is_refused(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(record)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_reserve", full)
    with pytest.raises(DataError, match="No space left on device"):
        memory_mapped(parts, episode_lengths(parts), "keep", tmp_path)
    assert list((tmp_path / "tables").iterdir()) == []


def test_a_damaged_description_is_refused(record: Any, tmp_path: Path) -> None:
    parts = parts_of(record)
    folder = memory_mapped(parts, episode_lengths(parts), "keep", tmp_path).folder
    assert folder is not None
    (folder / cache.DESCRIPTION_FILE).write_text("")
    with pytest.raises(DataError, match=str(folder)):
        memory_mapped(parts, episode_lengths(parts), "keep", tmp_path)


def test_writing_to_a_tensor_does_not_change_the_file(record: Any, tmp_path: Path) -> None:
    parts = parts_of(record)
    lengths = episode_lengths(parts)
    memory_mapped(parts, lengths, "keep", tmp_path).columns()["observation"].zero_()
    assert same(memory_mapped(parts, lengths, "keep", tmp_path), in_memory(parts, lengths, "keep"))


def test_a_worker_receives_the_folder_and_not_the_content(record: Any, tmp_path: Path) -> None:
    parts = parts_of(record)
    table = memory_mapped(parts, episode_lengths(parts), "keep", tmp_path)
    table.columns()
    sent = pickle.dumps(table)
    assert len(sent) < 1000
    received = pickle.loads(sent)
    assert received._columns is None
    assert same(received, table)


@pytest.mark.parametrize("variable", ["OFFSIM_CACHE", "XDG_CACHE_HOME"])
def test_the_cache_folder_can_be_chosen(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFSIM_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "chosen"))
    assert tmp_path / "chosen" in [cache.default_cache_dir(), cache.default_cache_dir().parent]


def test_the_module_keeps_large_data_in_files(record: Any, tmp_path: Path) -> None:
    record("test/expert-v0", [3, 4, 5])
    record("test/diverse-v0", [6] * 5)
    modules = [
        TransitionDataModule("test/expert-v0", 2, "test/diverse-v0", memory_limit_mb=limit) for limit in (0, 4096)
    ]
    modules[0].prepare_data()
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 2  # training and held-out rows
    for data in modules:
        data.setup()
    for name in ("expert_train", "diverse_train", "expert_held_out", "diverse_held_out"):
        mapped, held = (getattr(data, name) for data in modules)
        assert (mapped == held).all()
    assert torch.equal(modules[0].initial_observations, modules[1].initial_observations)
    assert torch.equal(modules[0].statistics.delta_std, modules[1].statistics.delta_std)
    assert modules[0].facts() == modules[1].facts()
    shutil.rmtree(tmp_path / "cache")


def test_what_was_read_of_files_is_given_back(tmp_path: Path, resident: Callable[[Path], int]) -> None:
    path = tmp_path / "observation.npy"
    np.save(path, np.arange(2**20, dtype=np.float32))
    table = Table(None, np.array([2**20]), tmp_path)

    column = table.columns()["observation"]
    total = column.double().sum()
    assert resident(path) >= 4096
    table.release()
    assert resident(path) == 0
    assert column.double().sum() == total
