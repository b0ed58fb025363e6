"""Statistics equal those of the rows themselves."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from datamodules import statistics
from datamodules.statistics import measure


def table(rows: int) -> TensorDict:
    observation = 1000.0 + torch.randn(rows, 3)
    following = observation + torch.tensor([1.0, 0.0, -2.0]) * torch.rand(rows, 1)
    return TensorDict(
        {"observation": observation, "action": torch.rand(rows, 2), "next": {"observation": following}},
        batch_size=[rows],
    )


@pytest.mark.parametrize("block_rows", [1, 7, 65_536])
def test_blocks_are_merged_exactly(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BLOCK_ROWS", block_rows)
    tables = [table(40), table(3)]
    found = measure(*tables)
    rows = torch.cat(tables).double()
    delta = rows["next", "observation"] - rows["observation"]
    for name, values in (("observation", rows["observation"]), ("action", rows["action"]), ("delta", delta)):
        torch.testing.assert_close(getattr(found, f"{name}_mean"), values.mean(0).float())
        torch.testing.assert_close(getattr(found, f"{name}_std"), values.std(0, correction=0).float())
        assert getattr(found, f"{name}_mean").dtype == torch.float32
    following = rows["next", "observation"].float()
    assert torch.equal(found.next_observation_low, following.amin(dim=0))
    assert torch.equal(found.next_observation_high, following.amax(dim=0))


def test_a_single_row_has_no_deviation() -> None:
    assert measure(table(1)).observation_std.tolist() == [0.0, 0.0, 0.0]
