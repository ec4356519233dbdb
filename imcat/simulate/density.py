"""Mixtures of Gaussians in several dimensions, and draws from them with some dimensions given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Density"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Density:
    """A probability density: a sum of Gaussians.

    Attributes
    ----------
    weights : float64 array, ``[k]``
        Sum to 1.
    means : float64 array, ``[k, d]``
        Centres.
    covariances : float64 array, ``[k, d, d]``
        Of each Gaussian.
    """

    weights: Float64
    means: Float64
    covariances: Float64

    @property
    def dimensions(self) -> int:
        """Number of dimensions."""
        return int(self.means.shape[1])

    def log_components(self, values: Float64, variances: Float64 | None = None) -> Float64:
        """Logarithm of weight times density of each Gaussian, over the first dimensions.

        Parameters
        ----------
        values : float64 array, ``[n, g]``
            Of the first ``g`` dimensions.
        variances : float64 array, ``[n, g]``, optional
            Of the errors of the values.

        Returns
        -------
        float64 array, ``[n, k]``
        """
        n, given = values.shape
        out = np.empty((n, len(self.weights)))
        for k in range(len(self.weights)):
            out[:, k] = np.log(self.weights[k]) + _log_normal(
                values - self.means[k, :given], self.covariances[k, :given, :given], variances
            )
        return out

    def draw(self, rng: np.random.Generator, given: Float64) -> Float64:
        """Draw the last dimensions where the first are given.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        given : float64 array, ``[n, g]``
            Values of the first ``g`` dimensions.

        Returns
        -------
        float64 array, ``[n, d - g]``
        """
        n, g = given.shape
        out = np.empty((n, self.dimensions - g))
        log = self.log_components(given)
        share = np.cumsum(np.exp(log - log.max(1, keepdims=True)), axis=1)
        pick: Float64 = np.asarray(rng.random((n, 1)))
        which = (share < pick * share[:, -1:]).sum(1)
        normal: Float64 = np.asarray(rng.standard_normal((n, self.dimensions - g)))
        for k in range(len(self.weights)):
            here = np.flatnonzero(which == k)
            if len(here) == 0:
                continue
            cov = self.covariances[k]
            gain = np.linalg.solve(cov[:g, :g], cov[:g, g:])  # [g, d - g]
            left = cov[g:, g:] - cov[g:, :g] @ gain
            root = np.linalg.cholesky(left + 1e-12 * np.eye(len(left)))
            mean = self.means[k, g:] + (given[here] - self.means[k, :g]) @ gain
            out[here] = mean + normal[here] @ root.T
        return out


def _log_normal(offset: Float64, covariance: Float64, variances: Float64 | None) -> Float64:
    """Logarithm of a Gaussian's density at offsets ``[n, g]`` from its centre."""
    g = offset.shape[1]
    constant = -0.5 * g * np.log(2 * np.pi)
    if variances is None:
        root = np.linalg.cholesky(covariance)
        # The matrices are tiny: a product with the inverse is ten times as fast as a solution for each row.
        scaled = offset @ np.linalg.inv(root).T
        result: Float64 = constant - np.log(np.diag(root)).sum() - 0.5 * np.einsum("ij,ij->i", scaled, scaled)
        return result
    total = covariance[None] + variances[:, :, None] * np.eye(g)
    root = np.linalg.cholesky(total)
    scaled = np.linalg.solve(root, offset[:, :, None])[:, :, 0]
    diagonal = np.log(np.einsum("nii->ni", root)).sum(1)
    with_errors: Float64 = constant - diagonal - 0.5 * (scaled**2).sum(1)
    return with_errors
