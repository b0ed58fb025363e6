"""Transitions are exactly the recorded steps: nothing lost, nothing joined, nothing made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules import TransitionDataModule
from datamodules.cache import Part, Table, episode_lengths, in_memory
from datamodules.sources import resolve

ENDINGS = [(True, False), (False, True), (True, True), (False, False)]


def table_of(dataset_id: str) -> Table:
    source = resolve(dataset_id)
    parts = [Part(source, tuple(range(source.episodes)), 0)]
    return in_memory(parts, episode_lengths(parts), "keep")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(ENDINGS)), min_size=1, max_size=5))
def test_rows_give_back_the_episodes(
    shape: list[tuple[int, tuple[bool, bool]]],
    record: Any,
    episode: Callable[..., Any],
    new_id: Callable[[], str],
) -> None:
    recorded = [episode(index, steps, *ending) for index, (steps, ending) in enumerate(shape)]
    table = table_of(record(new_id(), recorded))
    columns = {name: column.numpy() for name, column in table.columns().items()}
    assert len(table) == sum(steps for steps, _ in shape)
    assert columns["observation"].dtype == columns["action"].dtype == np.float32
    for index, original in enumerate(recorded):
        rows = np.flatnonzero(columns["episode"] == index)
        assert np.array_equal(rows, np.arange(rows[0], rows[0] + len(original.actions)))
        assert np.array_equal(columns["step"][rows], np.arange(len(rows)))
        observations = np.concatenate([columns["observation"][rows], columns["next_observation"][rows[-1:]]])
        assert np.array_equal(observations, original.observations.astype(np.float32))
        assert np.array_equal(columns["next_observation"][rows[:-1]], columns["observation"][rows[1:]])
        assert np.array_equal(columns["action"][rows], original.actions)
        assert np.array_equal(columns["terminated"][rows, 0], original.terminations)
        # A recording that merely stops is marked as truncated; otherwise flags are as recorded.
        truncations = original.truncations.copy()
        truncations[-1] |= not original.terminations[-1]
        assert np.array_equal(columns["truncated"][rows, 0], truncations)


def test_the_last_observation_of_an_episode_is_kept(record: Any, episode: Callable[..., Any]) -> None:
    recorded = episode(0, 4)
    last = table_of(record("test/set-v0", [recorded])).columns()["next_observation"][-1]
    assert torch.equal(last, torch.from_numpy(recorded.observations[-1]).float())


def test_timeouts_are_not_terminals(record: Any, episode: Callable[..., Any]) -> None:
    columns = table_of(record("test/set-v0", [episode(0, 3, False, True), episode(1, 2, True, False)])).columns()
    assert columns["terminated"].squeeze(-1).tolist() == [False, False, False, False, True]
    assert columns["truncated"].squeeze(-1).tolist() == [False, False, True, False, False]


def test_no_transition_joins_two_episodes(record: Any) -> None:
    columns = table_of(record("test/set-v0", [3, 1, 5])).columns()
    # The first feature is the number of the episode, the second counts its observations.
    assert torch.equal(columns["observation"][:, 0], columns["next_observation"][:, 0])
    assert torch.equal(columns["observation"][:, 1] + 1, columns["next_observation"][:, 1])


def test_rewards_are_never_read(record: Any) -> None:
    with h5py.File(record.file(record("test/set-v0", [3, 4])), "a") as file:
        for group in file.values():
            del group["rewards"]
    data = TransitionDataModule("test/set-v0")
    data.setup()
    assert len(data.expert_train) == 7
