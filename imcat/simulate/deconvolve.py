"""Fit of a mixture of Gaussians to values that have errors of their own, or are partly missing.

The expectation-maximisation of Bovy, Hogg & Roweis (2011, AnnAppStat 5, 1657), "extreme
deconvolution": what comes out is the density before the errors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.density import Density

__all__ = ["MISSING_VARIANCE", "fit_density"]

Float64 = NDArray[np.float64]

#: Variance of a value that is not known, in units that make any plausible value equal.
MISSING_VARIANCE = 1e5


def fit_density(
    values: Float64,
    variances: Float64,
    components: int,
    *,
    rng: np.random.Generator,
    weights: Float64 | None = None,
    floor: float | Float64 = 1e-4,
    iterations: int = 60,
    starts: int = 1,
) -> Density:
    """Fit a mixture of Gaussians.

    Parameters
    ----------
    values : float64 array, ``[n, d]``
        Anything finite where the value is missing.
    variances : float64 array, ``[n, d]``
        Squared errors; `MISSING_VARIANCE` where the value is missing.
    components : int
        Number of Gaussians to begin with; those that die out are dropped.
    rng : numpy.random.Generator
        Places the first centres.
    weights : float64 array, ``[n]``, optional
        Of the rows.
    floor : float or float64 array, ``[d]``
        Added to the variances of each Gaussian, so that none collapses onto a row.
    iterations : int
        Number of steps.
    starts : int
        Places to begin from: the one that is most likely after a quarter of the steps is followed.

    Returns
    -------
    Density
        Sorted by weight.
    """
    n, d = values.shape
    row_weight = np.ones(n) if weights is None else np.asarray(weights, np.float64) * n / np.sum(weights)
    least = np.broadcast_to(np.asarray(floor, np.float64), (d,))
    known = variances < 0.5 * MISSING_VARIANCE
    tried = []
    for _ in range(starts):
        begin = _start(values, known, row_weight, components, rng)
        begin = Density(begin.weights, begin.means, begin.covariances + np.diag(least))
        tried.append(
            _climb(begin, values, variances, row_weight, least, iterations // 4 if starts > 1 else 0)
        )
    best, _ = max(tried, key=lambda found: found[1])
    best, _ = _climb(best, values, variances, row_weight, least, iterations)
    order = np.argsort(-best.weights)
    return Density(best.weights[order], best.means[order], best.covariances[order])


def _climb(
    density: Density,
    values: Float64,
    variances: Float64,
    row_weight: Float64,
    least: Float64,
    iterations: int,
) -> tuple[Density, float]:
    """Steps of expectation-maximisation; the density and the log-likelihood before the last step."""
    alpha, means, covariances = density.weights, density.means.copy(), density.covariances.copy()
    d, likelihood = values.shape[1], -np.inf
    for _ in range(iterations):
        log = Density(alpha, means, covariances).log_components(values, variances)
        top = log.max(1, keepdims=True)
        share = np.exp(log - top)
        likelihood = float(row_weight @ (top[:, 0] + np.log(share.sum(1))))
        share *= (row_weight / share.sum(1))[:, None]
        total = share.sum(0)
        keep = total > 2.0 * (d + 1)
        share, total, means, covariances = share[:, keep], total[keep], means[keep], covariances[keep]
        alpha = total / total.sum()
        for k in range(len(total)):
            means[k], covariances[k] = _update(values, variances, share[:, k], means[k], covariances[k])
            covariances[k] = (total[k] * covariances[k] + 2.0 * np.diag(least)) / (total[k] + 2.0)
            covariances[k] += 1e-9 * np.eye(d) + np.diag(np.maximum(least - np.diag(covariances[k]), 0))
    return Density(alpha, means, covariances), likelihood


def _update(
    values: Float64, variances: Float64, share: Float64, mean: Float64, covariance: Float64
) -> tuple[Float64, Float64]:
    """Maximisation for one Gaussian (equations 16 and 17 of the paper)."""
    used = share > 1e-6 * share.max()
    x, q = values[used], share[used]
    d = x.shape[1]
    noisy = covariance[None] + variances[used][:, :, None] * np.eye(d)
    gain = np.linalg.solve(noisy, np.broadcast_to(covariance, noisy.shape))  # [n, d, d] = T^-1 V
    guess = mean + np.einsum("ni,nij->nj", x - mean, gain)
    left = covariance[None] - np.einsum("ij,njk->nik", covariance, gain)
    new_mean = q @ guess / q.sum()
    offset = guess - new_mean
    new = (np.einsum("n,ni,nj->ij", q, offset, offset) + np.einsum("n,nij->ij", q, left)) / q.sum()
    return new_mean, 0.5 * (new + new.T)


def _start(
    values: Float64, known: NDArray[np.bool_], weights: Float64, components: int, rng: np.random.Generator
) -> Density:
    """Centres spread as k-means++ does, after a few rounds of k-means."""
    median = np.array([np.median(values[known[:, j], j]) for j in range(values.shape[1])])
    spread = np.array([np.std(values[known[:, j], j]) for j in range(values.shape[1])]) + 1e-6
    scaled = np.where(known, (values - median) / spread, 0.0)
    centres = scaled[rng.choice(len(scaled), 1, p=weights / weights.sum())]
    for _ in range(components - 1):
        distance = ((scaled[:, None] - centres[None]) ** 2).sum(2).min(1) * weights
        centres = np.vstack([centres, scaled[rng.choice(len(scaled), p=distance / distance.sum())]])
    for _ in range(8):
        nearest = ((scaled[:, None] - centres[None]) ** 2).sum(2).argmin(1)
        for k in range(components):
            if np.any(nearest == k):
                centres[k] = np.average(scaled[nearest == k], axis=0, weights=weights[nearest == k])
    alpha = np.array([max(weights[nearest == k].sum(), 1.0) for k in range(components)])
    shape = np.array(
        [
            np.cov(scaled[nearest == k].T) + 0.01 * np.eye(len(median))
            if np.sum(nearest == k) > 3 * len(median)
            else 0.3 * np.eye(len(median))
            for k in range(components)
        ]
    )
    return Density(alpha / alpha.sum(), median + centres * spread, shape * spread[:, None] * spread[None, :])
