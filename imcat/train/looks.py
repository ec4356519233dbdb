"""The layer that reads morphologies off the classifier's vectors, fitted to the end.

In the joint training it is one of many heads, and rare looks pull on it seldom: it stops far from its best. Everything before it
stays, so that no other answer changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from imcat.classify.network import MORPHOLOGIES, Seeing
from imcat.train.classification import answers
from imcat.train.classification_data import LabelledSet

__all__ = ["fit_layer", "refit_looks"]

Float64 = NDArray[np.float64]

_RIDGE = 1.0  # inverse variance of the weights, of inputs with unit variance
_STEPS = 400
_CPU = torch.device("cpu")


def fit_layer(vector: Float64, look: NDArray[np.integer], classes: int) -> tuple[Float64, Float64]:
    """Weights ``[classes, width]`` and offsets ``[classes]`` that make the looks most probable (multinomial logistic regression).

    Parameters
    ----------
    vector : float64 array ``[n, width]``
        Inputs.
    look : int array ``[n]``
        The truth.
    classes : int
        How many there are.
    """
    mean, width = vector.mean(axis=0), vector.std(axis=0) + 1e-6
    scaled = np.concatenate([(vector - mean) / width, np.ones((len(vector), 1))], axis=1)
    true = np.eye(classes)[look]

    def loss(flat: Float64) -> tuple[float, Float64]:
        weight = flat.reshape(classes, -1)
        log = log_softmax(scaled @ weight.T, axis=1)
        slope = (np.exp(log) - true).T @ scaled
        value = -log[np.arange(len(look)), look].sum() + 0.5 * _RIDGE * (weight**2).sum()
        return float(value), (slope + _RIDGE * weight).ravel()

    start = np.zeros(classes * scaled.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    weight = found.reshape(classes, -1)
    plain = weight[:, :-1] / width
    return plain, weight[:, -1] - plain @ mean


def refit_looks(network: Seeing, sets: Sequence[LabelledSet]) -> None:
    """Fit the layer of morphologies anew, in place, to sources with stamp and photometry and with the stamp alone.

    Parameters
    ----------
    network : Seeing
        Trained.
    sets : sequence of LabelledSet
        Of the training.
    """
    vectors, looks = [], []
    for own in sets:
        known = np.flatnonzero(own.labels.morphology.numpy() >= 0)
        measured = bool(np.isfinite(own.photometry.total).any())
        for measure in (True, False) if measured else (False,):
            vectors.append(answers(network, own, known, _CPU, measure=measure).vector.numpy())
            looks.append(own.labels.morphology.numpy()[known])
    if not any(len(v) for v in vectors):
        return
    weight, offset = fit_layer(
        np.concatenate(vectors).astype(np.float64), np.concatenate(looks), len(MORPHOLOGIES)
    )
    layer = network.classifier.morphology
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(offset))
