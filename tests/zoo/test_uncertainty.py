"""Uncertainty measures against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.uncertainty import measure

# Two members, one row, two features
MEAN = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])
STD = torch.tensor([[[3.0, 4.0]], [[1.0, 1.0]]])


def test_measures_by_hand() -> None:
    assert float(measure("max_std")(MEAN, STD)) == pytest.approx(5.0)
    # variance of means: (1, 0); mean of variances: ((9 + 1) / 2, (16 + 1) / 2)
    assert float(measure("ensemble_variance")(MEAN, STD)) == pytest.approx((6.0 + 8.5) / 2)
    assert float(measure("ensemble_std")(MEAN, STD)) == pytest.approx((math.sqrt(6.0) + math.sqrt(8.5)) / 2)
    assert float(measure("disagreement")(MEAN, STD)) == pytest.approx(1.0)


def test_disagreement_ignores_predicted_noise() -> None:
    assert torch.equal(measure("disagreement")(MEAN, STD), measure("disagreement")(MEAN, 10 * STD))


def test_unknown_measure_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="disagreement"):
        measure("surprise")
