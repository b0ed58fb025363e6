"""What recorded returns say about the choice of data, before anything is trained. Training never reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.evaluate import episode_returns


def warn_of_worse_expert(expert: str | Sequence[str], diverse: str | Sequence[str]) -> str | None:
    """A warning if the demonstrations' recorded returns are below those of the data of other quality.

    The learned reward cannot find this out: it puts above all else whatever is called expert. Data without recorded
    rewards (all zero) says nothing.

    Args:
        expert: Minari id of the demonstrations, or several.
        diverse: Minari ids of the other data.

    Returns:
        The warning, or ``None``.
    """
    if not diverse:
        return None
    best = _mean_return(expert)
    for name in [diverse] if isinstance(diverse, str) else diverse:
        other = _mean_return(name)
        if best is not None and other is not None and other > best:
            return (
                f"warning: episodes of {name} return {other:.1f} on average, those of the expert data {best:.1f}. "
                "The margin of OffSim+ would rank them the wrong way round: were data.expert and data.diverse swapped?"
            )
    return None


def _mean_return(ids: str | Sequence[str]) -> float | None:
    returns = episode_returns(ids)
    return float(np.mean(returns)) if np.any(returns) else None
