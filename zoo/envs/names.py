"""What the features of a Simulator are called."""

from __future__ import annotations

from zoo.simulator import Simulator
from zoo.tasks import get_task


def observation_names(simulator: Simulator) -> tuple[str, ...]:
    """Names of the features of an observation, as the task or the data has them; none if they are not known."""
    return get_task(simulator.task).observation_names if simulator.task else simulator.observation_names


def exogenous_names(simulator: Simulator) -> tuple[str, ...]:
    """Of those that are set from outside; their numbers where there are no names."""
    names = observation_names(simulator)
    return tuple(names[place] if names else str(place) for place in simulator.exogenous)
