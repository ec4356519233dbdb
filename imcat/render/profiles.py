"""Sérsic profiles as sums of round Gaussians.

The profile is ``I(r) ∝ exp(-b_n (r / R_e)^(1/n))`` (Sérsic 1963, Bol. Asoc. Argent. Astron. 6, 41). As in
SDSS, whose exponentials end between 3 and 4 R_e and whose de Vaucouleurs profiles between 7 and 8 R_e
(Stoughton et al. 2002, AJ 123, 485, section on model fits), it falls smoothly to zero over the last R_e within
`truncation_radius`. Radii of sources are half-light radii of the profile **as drawn**, after the
truncation; `half_light_ratio` leads from one to the other.

A profile has up to eight Gaussians, whose variances run in geometric progression between limits that are
smooth functions of n; the weights follow from least squares without negative values (Hogg & Lang
2013, PASP 125, 719, free both). What is compared are the profiles convolved with Gaussian PSFs from
0.005 to 2 half-light radii, in units of their own peak, and the encircled energy. The largest
deviation of a convolved profile from the exact one is 0.55 % of its peak, that of the encircled energy
0.5 % (n from 0.5 to 8). An exponential takes six Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "COMPONENTS",
    "DE_VAUCOULEURS",
    "EXPONENTIAL",
    "INDEX_RANGE",
    "NODES",
    "STEP",
    "Mixture",
    "half_light_ratio",
    "hermite",
    "log_variances",
    "sersic_mixture",
    "sersic_mixtures",
    "sersic_table",
    "truncation_radius",
    "variance_limits",
]

Float64 = NDArray[np.float64]

#: Sérsic indices of the two classical profiles.
EXPONENTIAL = 1.0
DE_VAUCOULEURS = 4.0
#: Smallest (a Gaussian) and largest Sérsic index.
INDEX_RANGE = (0.5, 8.0)

#: Gaussians of a profile, at most.
COMPONENTS = 8
#: ln(variance) of the narrowest and of the widest Gaussian: coefficients of 1, ln n, (ln n)². The last one is
#: larger below n = 1, such that the widest Gaussian is the profile itself at n = 0.5. Found by trial: the
#: smallest deviations.
_LOWEST = (-9.75, -1.05)
_HIGHEST, _CURVATURE = (0.28, 1.2), (0.472, 0.23)
#: Step of the table in ln n, and its first and last node: sixteen from exponential to de Vaucouleurs.
STEP = math.log(4.0) / 16
NODES = (-8, 24)
#: Smallest share of the flux for which a Gaussian is drawn.
_LEAST_WEIGHT = 1e-5


@dataclass(frozen=True, eq=False)
class Mixture:
    """A round profile as a sum of Gaussians.

    Attributes
    ----------
    weights : float64 array, ``[k]``, or ``[m, k]`` for m profiles
        Share of the flux; they sum to 1.
    variances : float64 array, of the same shape
        Along one axis, in units of the squared half-light radius.

    Raises
    ------
    ValueError
        If the arrays do not fit together, or the weights do not sum to 1.
    """

    weights: Float64
    variances: Float64

    def __post_init__(self) -> None:
        if self.weights.shape != self.variances.shape:
            raise ValueError(
                f"weights of shape {self.weights.shape}; expected {self.variances.shape} as the variances"
            )
        if not np.allclose(self.weights.sum(axis=-1), 1.0, atol=1e-6):
            raise ValueError(f"weights sum to {self.weights.sum(axis=-1)}; expected 1")


def truncation_radius(index: float) -> float:
    """Radius in units of R_e at which a profile ends: 4 for an exponential, 8 for de Vaucouleurs, linear in n."""
    return 4.0 + 4.0 / 3.0 * (index - 1.0)


def half_light_ratio(index: float, truncation: float | None = None) -> float:
    """Half-light radius of the profile as drawn in units of R_e, the scale of Sérsic's formula.

    Parameters
    ----------
    index : float
        Sérsic index n.
    truncation : float, optional
        Where the profile ends, in units of R_e; default: `truncation_radius`.

    Examples
    --------
    >>> round(half_light_ratio(1.0), 2), round(half_light_ratio(4.0), 2)
    (0.98, 0.89)
    """
    return _rings(index, truncation_radius(index) if truncation is None else truncation)[3]


@cache
def sersic_mixture(index: float, truncation: float | None = None) -> Mixture:
    """Mixture for a Sérsic profile.

    Parameters
    ----------
    index : float
        Sérsic index n, 0.5 to 8.
    truncation : float, optional
        Where the profile ends, in units of R_e; default: `truncation_radius`.

    Returns
    -------
    Mixture
        One-dimensional arrays, Gaussians with weight only, narrow ones first.

    Raises
    ------
    ValueError
        If the index is out of range.
    """
    if truncation is None:
        table = sersic_mixtures(np.array([index]))
        weights, variances = table.weights[0], table.variances[0]
    else:
        _check(np.array([index]))
        variances = np.exp(log_variances(np.array([index]))[0])
        # Wider Gaussians at the same spacing for what lies beyond the usual end.
        spacing = variances[-1] / variances[-2]
        more = math.ceil(2 * math.log(max(truncation / truncation_radius(index), 1)) / math.log(spacing))
        variances = np.append(variances, variances[-1] * spacing ** np.arange(1, more + 1))
        weights = _fit(index, truncation, variances)
    keep = weights > _LEAST_WEIGHT
    weights, variances = weights[keep] / weights[keep].sum(), variances[keep]
    for array in (weights, variances):
        array.flags.writeable = False  # the cache hands the same arrays to every caller
    return Mixture(weights, variances)


def sersic_mixtures(index: ArrayLike) -> Mixture:
    """Mixtures for many Sérsic profiles, smooth in n.

    Parameters
    ----------
    index : array, ``[m]``
        Sérsic indices, 0.5 to 8.

    Returns
    -------
    Mixture
        Arrays ``[m, 8]``; some weights are zero for small n.

    Raises
    ------
    ValueError
        If an index is out of range.
    """
    n = np.asarray(index, np.float64)
    _check(n)
    table = sersic_table()
    place = np.log(n) / STEP - NODES[0]
    left = np.clip(place.astype(np.int64), 0, len(table) - 2)
    t = (place - left)[:, None]
    slope = np.gradient(table, axis=0)
    weights = hermite(t, table[left], table[left + 1], slope[left], slope[left + 1])
    return Mixture(np.asarray(weights), np.exp(log_variances(n)))


def hermite(t: Any, left: Any, right: Any, slope_left: Any, slope_right: Any) -> Any:
    """Cubic between two nodes with given slopes at both; t runs from 0 to 1. For arrays and tensors alike."""
    return (
        (1 + 2 * t) * (1 - t) ** 2 * left
        + t**2 * (3 - 2 * t) * right
        + t * (1 - t) ** 2 * slope_left
        - t**2 * (1 - t) * slope_right
    )


def variance_limits(u: Any) -> tuple[Any, Any]:
    """Logarithms of the smallest and the largest variance of a profile, for arrays and tensors alike.

    Parameters
    ----------
    u : array or tensor
        Logarithm of the Sérsic index.
    """
    low = _LOWEST[0] + _LOWEST[1] * u
    bend = _CURVATURE[1] + (_CURVATURE[0] - _CURVATURE[1]) * (u < 0)
    return low, _HIGHEST[0] + _HIGHEST[1] * u + bend * u**2


def log_variances(index: Float64) -> Float64:
    """Logarithms of the variances of the Gaussians of a profile, in units of the squared half-light radius.

    Parameters
    ----------
    index : float64 array, ``[m]``
        Sérsic indices.

    Returns
    -------
    float64 array, ``[m, 8]``
    """
    low, high = variance_limits(np.log(index))
    steps = np.linspace(0, 1, COMPONENTS)
    return np.asarray(low[:, None] + (high - low)[:, None] * steps)


@cache
def sersic_table() -> Float64:
    """Weights of the Gaussians at Sérsic indices in geometric progression from 0.5 to 8, ``[33, 8]``."""
    indices = np.exp(np.arange(NODES[0], NODES[1] + 1) * STEP)
    table = np.array(
        [
            _fit(n, truncation_radius(n), variances)
            for n, variances in zip(indices, np.exp(log_variances(indices)), strict=True)
        ]
    )
    table.flags.writeable = False
    return table


def _check(index: Float64) -> None:
    low, high = INDEX_RANGE
    wrong = ~((index >= low) & (index <= high))
    if wrong.any():
        raise ValueError(f"a Sérsic index of {index[wrong][0]}; expected {low} to {high}")


def _rings(index: float, truncation: float) -> tuple[Float64, Float64, Float64, float]:
    """Radii of narrow rings, their flux, the flux inside, both of 1; and the half-light radius.

    Radii are in units of the half-light radius, which comes last, in units of R_e.
    """
    from scipy.special import gammaincinv

    r = np.geomspace(1e-6, truncation, 1200)
    brightness = np.exp(-gammaincinv(2 * index, 0.5) * (r ** (1 / index) - 1))
    # The end: value and slope are continuous.
    brightness *= (1 - np.clip(r - truncation + 1, 0, 1) ** 2) ** 2
    flux = 2 * np.pi * r**2 * brightness * np.log(r[1] / r[0])
    # What lies inside the first ring is of its brightness; each ring ends half-way to the next one.
    flux[0] += np.pi * r[0] ** 2 * brightness[0]
    inside = np.cumsum(flux) - 0.5 * flux
    half = float(np.interp(0.5 * flux.sum(), inside, r))
    return r / half, flux / flux.sum(), inside / flux.sum(), half


def _fit(index: float, truncation: float, variances: Float64) -> Float64:
    """Weights of Gaussians of given variances, ``[k]``."""
    from scipy.optimize import nnls
    from scipy.special import i0e

    radius, ring, inside, _ = _rings(index, truncation)
    rows, target = [], []
    for sigma in np.geomspace(0.005, 2, 12):
        at = np.concatenate([[0], np.geomspace(0.3 * sigma, min(6.0, max(12 * sigma, 3)), 12)])[:, None]
        # A ring convolved with a Gaussian; i0e holds the exponential of the product.
        convolved = (np.exp(-0.5 * ((at - radius) / sigma) ** 2) * i0e(at * radius / sigma**2)) @ ring
        convolved /= 2 * np.pi * sigma**2
        total = variances + sigma**2
        rows.append(np.exp(-0.5 * at**2 / total) / (2 * np.pi * total) / convolved[0])
        target.append(convolved / convolved[0])
    # The encircled energy, with a third of the weight of the profiles; and the sum is 1.
    some = slice(None, None, 24)
    rows.append(0.3 * (1 - np.exp(-0.5 * radius[some, None] ** 2 / variances)))
    target.append(0.3 * inside[some])
    rows.append(np.full((1, len(variances)), 1e3))
    target.append(np.array([1e3]))
    matrix, vector = np.vstack(rows), np.concatenate(target)
    weights = nnls(matrix.T @ matrix, matrix.T @ vector, maxiter=1000)[0]
    return np.asarray(weights / weights.sum())
