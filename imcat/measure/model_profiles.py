"""Profiles of sources as the kernels of the model fits take them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.render.profiles import (
    COMPONENTS,
    DE_VAUCOULEURS,
    EXPONENTIAL,
    INDEX_RANGE,
    NODES,
    STEP,
    hermite,
    sersic_mixture,
    sersic_table,
    variance_limits,
)

__all__ = ["POINT", "classical_profiles", "index_bounds", "sersic_profile", "sersic_tables"]

Float64 = NDArray[np.float64]

#: A source without extent: one Gaussian of no variance.
POINT = np.array([[1.0, 0.0, 0.0, 0.0]])
#: Step in ln n of the numerical derivative of the limits of the variances.
_STEP = 1e-5

_hermite = njit(cache=True, nogil=True)(hermite)
_limits = njit(cache=True, nogil=True)(variance_limits)


def _fixed(index: float) -> Float64:
    mixture = sersic_mixture(index)
    zero = np.zeros(len(mixture.weights))
    return np.ascontiguousarray(np.stack([mixture.weights, mixture.variances, zero, zero], axis=1))


def classical_profiles() -> tuple[Float64, Float64]:
    """Gaussians of the exponential and the de Vaucouleurs profile, ``[k, 4]``: see `evaluate`."""
    return _fixed(EXPONENTIAL), _fixed(DE_VAUCOULEURS)


def sersic_tables() -> Float64:
    """Weights of the Gaussians of Sérsic profiles and their slopes at the nodes, ``[2, nodes, k]``."""
    table = sersic_table()
    return np.ascontiguousarray(np.stack([table, np.gradient(table, axis=0)]))


def index_bounds() -> tuple[float, float]:
    """Logarithms of the smallest and the largest Sérsic index."""
    return float(np.log(INDEX_RANGE[0])), float(np.log(INDEX_RANGE[1]))


@njit(cache=True, nogil=True)
def sersic_profile(u, tables, profile):  # type: ignore[no-untyped-def]
    """Gaussians of a Sérsic profile and their derivatives by the logarithm of the index.

    Parameters
    ----------
    u : float
        Logarithm of the index.
    tables : float64
        See `sersic_tables`.
    profile : float64 ``[k, 4]``
        Set to weights, variances, and the derivatives of both.
    """
    place = u / STEP - NODES[0]
    left = min(max(int(place), 0), tables.shape[1] - 2)
    t = place - left
    low, high = _limits(u)
    low_up, high_up = _limits(u + _STEP)
    low_down, high_down = _limits(u - _STEP)
    low_slope, high_slope = (low_up - low_down) / (2.0 * _STEP), (high_up - high_down) / (2.0 * _STEP)
    for j in range(COMPONENTS):
        a, b = tables[0, left, j], tables[0, left + 1, j]
        ma, mb = tables[1, left, j], tables[1, left + 1, j]
        part = j / (COMPONENTS - 1.0)
        variance = np.exp(low + (high - low) * part)
        profile[j, 0] = _hermite(t, a, b, ma, mb)
        profile[j, 1] = variance
        # The derivative of the cubic by t.
        slope = 6.0 * t * (1.0 - t) * (b - a) + (1.0 - t) * (1.0 - 3.0 * t) * ma + t * (3.0 * t - 2.0) * mb
        profile[j, 2] = slope / STEP
        profile[j, 3] = variance * (low_slope + (high_slope - low_slope) * part)
