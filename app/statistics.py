"""What a handful of episode returns says about a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap


def summarize_returns(returns: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Mean, spread and a 95% interval of the mean.

    The interval is the percentile bootstrap over episodes; ``seed`` fixes its 9999 resamples. It says how far the
    mean of these episodes may lie from that of all episodes of the same policy, and nothing about another training
    seed. A single episode, or equal returns, give the mean twice.

    Args:
        returns: return of each episode.
        seed: seed of the resampling.

    Returns:
        ``mean``, ``std`` (of the sample, with ``n - 1``; 0 for one episode), ``ci95: [low, high]``, ``episodes``
        (their number) and ``returns``.

    Raises:
        ValueError: if there is no return, or one that is not finite.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError("returns of at least one episode are needed")
    if not np.isfinite(values).all():
        raise ValueError("a return is not finite")
    mean = float(values.mean())
    low = high = mean
    if np.ptp(values) > 0.0:
        generator = np.random.default_rng(seed)
        interval = bootstrap((values,), np.mean, method="percentile", random_state=generator).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {
        "mean": mean,
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "ci95": [low, high],
        "episodes": len(values),
        "returns": values.tolist(),
    }
