"""How well an ensemble predicts recorded transitions: the likelihood that every training of one holds on to."""

from __future__ import annotations

from torch import Tensor

from zoo.transition import TransitionModel


def weighted_likelihood(
    log_variance: Tensor, error: Tensor, weight: Tensor, variance_weighting: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Negative log-likelihood of standardised differences, up to a constant.

    Args:
        log_variance: predicted, ``(E, B, D)``.
        error: squared errors of the predicted means, likewise.
        weight: of each row, ``(E, B)``.
        variance_weighting: power of the predicted variance that weighs each term (Seitzer et al. 2022, "On the
            pitfalls of heteroscedastic uncertainty estimation"). At 1 the mean learns as from squared errors; at 0
            what is hard to predict is soon given up as noise.

    Returns:
        The loss, a scalar; the plain likelihood, ``(E, B, D)``; what each of its terms is weighed with, likewise.
    """
    likelihood = 0.5 * (log_variance + error * (-log_variance).exp())
    weighting = log_variance.detach().exp().pow(variance_weighting)
    loss = (weight * (weighting * likelihood).mean(dim=-1)).sum() / weight.sum()
    return loss, likelihood, weighting


def recorded_likelihood(
    model: TransitionModel, rows: dict[str, Tensor], variance_weighting: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`weighted_likelihood` of recorded transitions.

    Args:
        model: the ensemble.
        rows: a block of its own for each member, as ``lit_modules.rows.blocks`` deals them, ``(E, B, ...)``.
        variance_weighting: as there.

    Returns:
        The loss, a scalar; the plain likelihood, and the squared errors of the means, both ``(E, B, D)``.
    """
    mean, log_variance = model(rows["observation"], rows["action"])
    error = (mean - model.standardized_delta(rows["observation"], rows["next_observation"])).square()
    loss, likelihood, _ = weighted_likelihood(log_variance, error, rows["weight"], variance_weighting)
    return loss, likelihood, error
