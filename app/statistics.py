"""What a handful of episode returns says about a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap, trim_mean


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


def standard_error(summary: Mapping[str, Any]) -> float | None:
    """Of the mean that :func:`summarize_returns` gives; ``None`` for a single episode, which says nothing of it."""
    episodes = summary["episodes"]
    return float(summary["std"]) / math.sqrt(episodes) if episodes > 1 else None


def summarize_seeds(results: dict[int, dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Returns over training seeds: interquartile mean and its 95% interval.

    Args:
        results: ``metrics.json`` of each seed's run.
        seed: seed of the resampling.

    Returns:
        ``seeds`` and for those of ``expert``, ``behaviour_cloning``, ``weighted_cloning`` and ``policy`` that every
        run has:
        ``interquartile_mean``, ``ci95`` and ``means``, the mean return of each seed.
    """
    summary: dict[str, Any] = {"seeds": list(results)}
    for name in ("expert", "behaviour_cloning", "weighted_cloning", "policy"):
        if all(name in result for result in results.values()):
            means = [result[name]["mean"] for result in results.values()]
            middle, interval = interquartile_interval(means, seed)
            summary[name] = {"interquartile_mean": middle, "ci95": interval, "means": means}
    return summary


def interquartile_interval(values: Sequence[float], seed: int = 0) -> tuple[float, list[float]]:
    """Interquartile mean over training seeds and its 95% interval ``[low, high]``.

    The interquartile mean drops the best and the worst quarter (Agarwal et al. 2021, "Deep reinforcement learning at
    the edge of the statistical precipice"); the interval is the percentile bootstrap over seeds. Of up to three seeds
    nothing is dropped; equal values give the mean twice.
    """
    means = np.asarray(values, dtype=np.float64)
    middle = float(interquartile_mean(means))
    if np.ptp(means) == 0.0:
        return middle, [middle, middle]
    generator = np.random.default_rng(seed)
    interval = bootstrap((means,), interquartile_mean, method="percentile", random_state=generator).confidence_interval
    return middle, [float(interval.low), float(interval.high)]


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """Mean of the middle half."""
    return trim_mean(values, 0.25, axis=axis)
