"""How correlated noise adds up in apertures and weights.

The variance of a weighted sum of pixels is the sum over lags of the noise
covariance times the autocorrelation of the weights. For ellipses and Gaussians
the latter is known, so that no loop over pairs of pixels is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.noise import NoiseCovariance

__all__ = ["centroid_lag_sum", "ellipse_lag_sum", "gaussian_lag_sum"]

Float64 = NDArray[np.float64]


def ellipse_lag_sum(covariance: NoiseCovariance, form: Float64, radius: Float64) -> Float64:
    """Sum over lags other than zero of correlation times overlap of a shifted ellipse.

    Parameters
    ----------
    covariance : NoiseCovariance
        Of the pixels of the ellipse's grid.
    form : float64 array [n, 3]
        Quadratic forms, ``q0 dx² + q1 dy² + q2 dx dy = r²``.
    radius : float64 array [n]
        Radii in the units of the forms.

    Returns
    -------
    float64 array [n]
        In units of the variance that independent pixels would give.

    Notes
    -----
    An ellipse becomes a unit circle by a linear map; two unit circles at a distance t share
    ``2 arccos(t / 2) - t / 2 sqrt(4 - t²)`` of their area pi.
    """
    dy, dx, rho = covariance.lags
    if rho.size == 0:
        return np.zeros(form.shape[0])
    lag = np.stack([dx * dx, dy * dy, dx * dy])  # [3, lags]
    with np.errstate(invalid="ignore", divide="ignore"):
        half = 0.5 * np.sqrt(np.maximum(form @ lag, 0)) / radius[:, None]
    half = np.clip(half, 0, 1)
    shared = 2 / np.pi * (np.arccos(half) - half * np.sqrt(1 - half * half))
    return np.asarray(shared @ rho)


def gaussian_lag_sum(covariance: NoiseCovariance, width: Float64) -> Float64:
    """The same for a round Gaussian weight of standard deviation `width` pixels, ``[n]``."""
    dy, dx, rho = covariance.lags
    if rho.size == 0:
        return np.zeros(width.shape)
    return np.asarray(np.exp(-(dx**2 + dy**2) / (4 * width[:, None] ** 2)) @ rho)


def centroid_lag_sum(covariance: NoiseCovariance, width: Float64) -> tuple[Float64, Float64]:
    """The same for a Gaussian times x and for a Gaussian times y, arrays ``[n]``."""
    dy, dx, rho = covariance.lags
    if rho.size == 0:
        return np.zeros(width.shape), np.zeros(width.shape)
    s2 = width[:, None] ** 2
    envelope = np.exp(-(dx**2 + dy**2) / (4 * s2))
    return (
        np.asarray((envelope * (1 - dx**2 / (2 * s2))) @ rho),
        np.asarray((envelope * (1 - dy**2 / (2 * s2))) @ rho),
    )
