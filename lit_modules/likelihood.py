"""How well an ensemble predicts recorded transitions: the likelihood that every training of one holds on to."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from zoo.transition import TransitionModel


class Likelihood(NamedTuple):
    """What a loss of recorded transitions is made of, all but the first ``(E, B, D)``.

    Attributes:
        loss: the weighted negative log-likelihood, a scalar.
        terms: negative log-likelihood of standardised differences, up to a constant.
        error: squared errors of the predicted means.
        weighting: what each term is weighed with.
        mean: predicted.
        log_variance: predicted.
    """

    loss: Tensor
    terms: Tensor
    error: Tensor
    weighting: Tensor
    mean: Tensor
    log_variance: Tensor

    def logged(self) -> dict[str, Tensor]:
        """What is logged of it."""
        return {
            "transition/negative_log_likelihood": self.terms.detach().mean(),
            "transition/squared_error": self.error.detach().mean(),
        }


def recorded_likelihood(model: TransitionModel, rows: dict[str, Tensor], variance_weighting: float) -> Likelihood:
    """The negative log-likelihood of recorded transitions.

    Args:
        model: the ensemble.
        rows: a block of its own for each member, as ``lit_modules.rows.blocks`` deals them, ``(E, B, ...)``.
        variance_weighting: power of the predicted variance that weighs each term (Seitzer et al. 2022, "On the
            pitfalls of heteroscedastic uncertainty estimation"). At 1 the mean learns as from squared errors; at 0
            what is hard to predict is soon given up as noise.
    """
    mean, log_variance = model(rows["observation"], rows["action"])
    error = (mean - model.standardized_delta(rows["observation"], rows["next_observation"])).square()
    terms = 0.5 * (log_variance + error * (-log_variance).exp())
    weighting = log_variance.detach().exp().pow(variance_weighting)
    loss = (rows["weight"] * (weighting * terms).mean(dim=-1)).sum() / rows["weight"].sum()
    return Likelihood(loss, terms, error, weighting, mean, log_variance)
