"""The layer of morphologies: what it finds is the best there is, and it leaves everything else as it was."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from imcat.train.looks import fit_layer

Float64 = NDArray[np.float64]


def drawn(
    n: int = 8000, width: int = 6, classes: int = 4
) -> tuple[Float64, NDArray[np.int64], Float64, Float64]:
    rng = np.random.default_rng(7)
    weight, offset = rng.normal(0, 1, (classes, width)), rng.normal(0, 1, classes)
    # Inputs of very different sizes, off zero: the fit scales them, and gives the weights of the plain ones.
    size = np.geomspace(0.01, 100, width)
    vector = size * (rng.normal(0, 1, (n, width)) + 0.3)
    share = np.exp(log_softmax(vector / size @ weight.T + offset, axis=1))
    look = (rng.random(n)[:, None] > share.cumsum(axis=1)).sum(axis=1)
    return vector, np.minimum(look, classes - 1), weight / size, share


def test_true_probabilities_are_found() -> None:
    vector, look, _, share = drawn()
    weight, offset = fit_layer(vector, look, 4)
    found = np.exp(log_softmax(vector @ weight.T + offset, axis=1))
    assert np.abs(found - share).mean() < 0.01


def test_weights_are_the_true_ones_but_for_what_is_common_to_all_classes() -> None:
    vector, look, true, _ = drawn(40000)
    weight, _ = fit_layer(vector, look, 4)
    size = vector.std(axis=0)
    np.testing.assert_allclose(
        (weight - weight.mean(axis=0)) * size, (true - true.mean(axis=0)) * size, atol=0.12
    )


def test_a_class_that_is_absent_is_improbable() -> None:
    vector, look, _, _ = drawn()
    weight, offset = fit_layer(vector, look, 5)
    assert np.exp(log_softmax(vector @ weight.T + offset, axis=1))[:, 4].max() < 0.02


def test_more_steps_would_not_help() -> None:
    vector, look, _, _ = drawn(500)
    best = fit_layer(vector, look, 4)

    def loss(weight: Float64, offset: Float64) -> float:
        log = log_softmax(vector @ weight.T + offset, axis=1)
        plain = weight * vector.std(axis=0)
        middle = offset + weight @ vector.mean(axis=0)
        return float(-log[np.arange(500), look].sum() + 0.5 * ((plain**2).sum() + (middle**2).sum()))

    least, rng = loss(*best), np.random.default_rng(3)
    for _ in range(20):
        moved = rng.normal(0, 0.05, best[0].shape) / vector.std(axis=0)
        assert loss(best[0] + moved, best[1] - moved @ vector.mean(axis=0)) > least - 1e-6
    assert least == pytest.approx(loss(*fit_layer(vector, look, 4)), rel=1e-12)
