"""Data of another system than the task."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from datamodules.errors import DataError
from lit_modules.spaces import refuse_other_task


def test_data_of_another_environment_is_refused_though_sizes_are_the_same() -> None:
    data = SimpleNamespace(observation_size=17, action_low=[-1.0] * 6, environment_id="HalfCheetah-v5")
    with pytest.raises(DataError, match="recorded in HalfCheetah-v5, task walker2d is Walker2d-v5: name data of that"):
        refuse_other_task("walker2d", data)
    for known in ("Walker2d-v4", "Walker2d-v5", None):
        data.environment_id = known
        refuse_other_task("walker2d", data)
    with pytest.raises(DataError, match="17 observation features and 6 actions, task hopper has 11 and 3"):
        refuse_other_task("hopper", data)
    refuse_other_task(None, data)
