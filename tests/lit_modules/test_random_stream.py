"""Random numbers of a training: one stream for each seed, name and rank, and states that continue it."""

from __future__ import annotations

import itertools

import pytest
import torch

from lit_modules.random_stream import RandomStream


def test_seeds_names_and_ranks_draw_numbers_of_their_own() -> None:
    drawn = []
    for seed, name, rank in itertools.product((0, 1, 2**32, 2**63), ("SimulatorSAC", "replay"), (0, 1)):
        stream = RandomStream(seed, name)
        stream.place(torch.device("cpu"), rank)
        drawn.append(tuple(stream.normal(3).tolist()))
    assert len(set(drawn)) == len(drawn) == 16


def test_the_same_seed_draws_the_same() -> None:
    one, other = RandomStream(3, "a"), RandomStream(3, "a")
    one.place(torch.device("cpu"))
    assert torch.equal(one.uniform(4), other.uniform(4))


def test_a_state_continues_and_that_of_another_kind_of_device_is_refused() -> None:
    stream = RandomStream(0, "a")
    stream.normal(7)
    state, following = stream.state(), stream.normal(5)
    stream.restore(state)
    assert torch.equal(stream.normal(5), following)
    with pytest.raises(ValueError, match="another kind of device than cpu"):
        stream.restore(torch.zeros(16, dtype=torch.uint8))
