"""Recipe for quasars: their colours at each redshift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.deconvolve import MISSING_VARIANCE, fit_density
from imcat.simulate.population_tables import Redshifts, training

__all__ = ["fit_quasars"]

Float64 = NDArray[np.float64]
_COMPONENTS = 2
_MOST = 1500  # rows of a bin


def fit_quasars(
    tables: list[Redshifts], edges: Float64, rng: np.random.Generator
) -> tuple[Float64, Float64, Float64]:
    """Two Gaussians in u-g, g-r, r-i, i-z in each bin of redshift: most quasars, and the reddened rest.

    Returns
    -------
    weights, means, covariances : float64 arrays
        ``[bins, 2]``, ``[bins, 2, 4]``, ``[bins, 2, 4, 4]``.
    """
    mag = np.concatenate([t.mag for t in tables])
    error = np.concatenate([t.error for t in tables])
    redshift = np.concatenate([t.redshift for t in tables])
    use = np.concatenate([training(t.split) for t in tables])
    values = mag[:, :-1] - mag[:, 1:]
    variances = error[:, :-1] ** 2 + error[:, 1:] ** 2
    bad = ~np.isfinite(values) | ~np.isfinite(variances) | (variances > 1.0)
    bad |= np.abs(np.where(bad, 0, values)) > 5.0
    values, variances = np.where(bad, 0.0, values), np.where(bad, MISSING_VARIANCE, variances)
    use &= (~bad).sum(1) >= 3
    bins = len(edges) - 1
    weights, means, covariances = np.zeros((bins, 2)), np.zeros((bins, 2, 4)), np.zeros((bins, 2, 4, 4))
    for b in range(bins):
        low, high = edges[b], edges[b + 1]
        rows = np.flatnonzero(use & (redshift >= low) & (redshift < high))
        grow = 0.0
        while len(rows) < 60:
            grow += 0.05
            rows = np.flatnonzero(use & (redshift >= low - grow) & (redshift < high + grow))
        rows = rng.choice(rows, min(_MOST, len(rows)), replace=False)
        fit = fit_density(values[rows], variances[rows], _COMPONENTS, rng=rng, floor=4e-4, iterations=40)
        k = len(fit.weights)
        weights[b, :k], means[b, :k], covariances[b, :k] = fit.weights, fit.means, fit.covariances
        if k < 2:  # an empty one, never drawn
            means[b, 1], covariances[b, 1] = fit.means[0], fit.covariances[0]
    return weights, means, covariances
