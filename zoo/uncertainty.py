"""Named measures U(s,a) of how unsure the ensemble is; all from the same prediction.

Arguments are the members' means and deviations of the standardised difference, each ``(E, B, D)``; the result is
``(B,)``, in units of the standardised difference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]


def max_std(mean: Tensor, std: Tensor) -> Tensor:
    """Largest norm of a member's predicted deviation (MOPO, Yu et al. 2020): sees noise, not ignorance."""
    return std.norm(dim=-1).max(dim=0).values


def ensemble_variance(mean: Tensor, std: Tensor) -> Tensor:
    """Mean over features of the variance of the members' mixture."""
    return (std.square().mean(dim=0) + mean.var(dim=0, unbiased=False)).mean(dim=-1)


def ensemble_std(mean: Tensor, std: Tensor) -> Tensor:
    """Mean over features of the deviation of the members' mixture (Offline ML-IRL)."""
    return (std.square().mean(dim=0) + mean.var(dim=0, unbiased=False)).sqrt().mean(dim=-1)


def disagreement(mean: Tensor, std: Tensor) -> Tensor:
    """Largest distance of a member's mean from the average of the means: sees ignorance, not noise."""
    return (mean - mean.mean(dim=0)).norm(dim=-1).max(dim=0).values


MEASURES: dict[str, Measure] = {
    "max_std": max_std,
    "ensemble_variance": ensemble_variance,
    "ensemble_std": ensemble_std,
    "disagreement": disagreement,
}


def measure(name: str) -> Measure:
    """Look a measure up by name."""
    if name not in MEASURES:
        raise ValueError(f"unknown uncertainty measure {name!r}: choose one of {', '.join(sorted(MEASURES))}")
    return MEASURES[name]


def quantile_levels() -> Tensor:
    """Levels at which a Simulator stores the quantiles of a measure on its training data."""
    return torch.tensor([0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0])
