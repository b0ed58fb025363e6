"""Demonstrations that are copies of one another: what cannot be learned from them."""

from __future__ import annotations

import math
import warnings
from typing import Any

from lit_modules.diagnostics import distances_between_episodes, spread

NARROW = 0.01  # deviations of all data
KNOWN_ROWS, QUERY_ROWS = 10_000, 1_000


def distance_between_demonstrations(data: Any) -> float:
    """How far a demonstrated state is, in the median, from the nearest one of another demonstration.

    Args:
        data: a data module, set up.

    Returns:
        in deviations of all data; infinity if there is one demonstration only.
    """
    rows = spread(data.expert_train, KNOWN_ROWS)
    deviation = data.statistics.observation_std
    features = rows["observation"] / deviation.clamp_min(1e-8 * float(deviation.max()))
    distances = distances_between_episodes(features, rows["episode"], QUERY_ROWS)
    return math.inf if distances is None else float(distances.median())


def demonstrations_are_narrow(data: Any) -> bool:
    """Whether the demonstrations repeat one another, so that what is beside them is in no data."""
    return distance_between_demonstrations(data) < NARROW


def warn_of_narrow_demonstrations(data: Any) -> None:
    """Say so if the demonstrations repeat one another.

    A deterministic policy in a deterministic system settles on one cycle. What is beside it is then in no data, however
    many demonstrations there are, and a model takes for certain what it has merely seen often.

    Args:
        data: a data module, set up.
    """
    distance = distance_between_demonstrations(data)
    if distance >= NARROW:
        return
    warnings.warn(
        "the demonstrations repeat one another: in the median a state is within "
        f"{max(distance, 1e-6):.1g} deviations of one of another demonstration. What happens beside "
        "them is in no data, so the Simulator will not know, and may promise a policy more there than it is paid. "
        "Demonstrations under small disturbances say more: `offsim collect --noise 0.1`, or as much in a real system.",
        stacklevel=2,
    )
