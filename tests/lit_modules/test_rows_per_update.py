"""Updates that take more recorded rows than they are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules.errors import DataError
from lit_modules.rows_per_update import (
    recorded_rows,
    refuse_too_few_for_game,
    refuse_too_few_for_members,
    refuse_too_few_for_policy,
)
from lit_modules.simulator_sac import SimulatorSAC


@pytest.mark.parametrize(
    ("batch_size", "real_share", "expert_rows", "expected"),
    [(256, 0.5, 128, (64, 64)), (256, 0.5, 16, (16, 112)), (10, 0.5, 128, (2, 3)), (256, 0.0, 128, (0, 0))],
)
def test_half_of_the_recorded_rows_are_demonstrated_as_far_as_these_go(
    batch_size: int, real_share: float, expert_rows: int, expected: tuple[int, int]
) -> None:
    assert recorded_rows(batch_size, real_share, expert_rows) == expected


def test_a_batch_that_takes_more_than_is_read_is_refused() -> None:
    refuse_too_few_for_policy(512, 0.5, 128, 128)
    with pytest.raises(DataError, match="takes 128 rows of expert data and 129 of all data, of which 128 are read"):
        refuse_too_few_for_policy(514, 0.5, 128, 128)
    with pytest.raises(DataError, match="takes 128 rows of expert data and 256 of all data"):
        refuse_too_few_for_policy(512, 0.75, 128, 128)


def test_a_game_that_takes_more_than_is_read_is_refused() -> None:
    refuse_too_few_for_game(128, 0.5, 64, 64)
    with pytest.raises(DataError, match=r"64 of 128 roll-outs .* begin in rows of expert data, of which 63 are read"):
        refuse_too_few_for_game(128, 0.5, 63, 64)
    with pytest.raises(DataError, match=r"128 of 128 roll-outs .* begin in rows of all data, of which 64 are read"):
        refuse_too_few_for_game(128, 0.0, 64, 64)
    with pytest.raises(DataError, match=r"6 rows of all data .*: each of the 7 members"):
        refuse_too_few_for_members(7, 6)


def test_methods_refuse_it_before_their_first_update(steering: Any) -> None:
    module = steering.learner(SimulatorSAC, batch_size=64)  # of which 16 of all data, and 8 are read
    module._trainer.strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module._trainer.global_rank = 0
    with pytest.raises(DataError, match="takes 8 rows of expert data and 24 of all data, of which 8 are read"):
        module.setup("fit")
