"""Whether data is of the same system as a Simulator, or as a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datamodules.errors import DataError
from zoo.simulator import Simulator
from zoo.tasks import get_task


def refuse_other_spaces(
    simulator: Simulator,
    observation_size: int | None,
    action_low: Sequence[float] | None,
    action_high: Sequence[float] | None,
) -> None:
    """Refuse data whose sizes or bounds are not those that a Simulator was trained on; ``None`` is not compared.

    Raises:
        ValueError: naming both.
    """
    for name, given, known in (
        ("observation size", observation_size, simulator.observation_size),
        ("lower action bounds", action_low and list(action_low), simulator.action_low),
        ("upper action bounds", action_high and list(action_high), simulator.action_high),
    ):
        if given is not None and given != known:
            raise ValueError(
                f"the data's {name} {given} differ from the simulator's {known}: "
                "use the data that the simulator was trained on"
            )


def refuse_other_task(name: str | None, data: Any) -> None:
    """Refuse data of another system than the task, whose rule of termination and whose evaluation are of none of it.

    Versions of an environment count as the same.

    Args:
        name: of the task, if it is a known one.
        data: a data module.

    Raises:
        DataError: saying what the two are.
    """
    if name is None:
        return
    task = get_task(name)
    sizes = (data.observation_size, len(data.action_low))
    advice = "name data of that task, or the task of this data, which may be null"
    if sizes != (task.observation_size, task.action_size):
        raise DataError(
            f"the data has {sizes[0]} observation features and {sizes[1]} actions, task {name} has "
            f"{task.observation_size} and {task.action_size}: {advice}"
        )
    recorded = data.environment_id
    if recorded is not None and recorded.rpartition("-v")[0] != task.environment_id.rpartition("-v")[0]:
        raise DataError(f"the data was recorded in {recorded}, task {name} is {task.environment_id}: {advice}")
