"""Whether data and a Simulator are of the same system."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.simulator import Simulator


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
