"""How many galaxies and quasars there are on the sky, and how much their numbers vary.

Galaxies: a table of the number per square degree and magnitude, fitted by
`imcat.simulate.population_fit` to fields and to published counts. Quasars: the luminosity function
of Palanque-Delabrouille et al. (2016, A&A 587, A41). Variation: the angular correlation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GalaxyCounts", "QuasarCounts", "angular_amplitude", "cosmic_variance"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GalaxyCounts:
    """Number counts of galaxies in r.

    Attributes
    ----------
    mag : float64 array, ``[m]``
        Rising.
    log_density : float64 array, ``[m]``
        Logarithm to base 10 of the number per square degree and magnitude.
    """

    mag: Float64
    log_density: Float64

    def density(self, mag: Float64) -> Float64:
        """Galaxies per square degree and magnitude; beyond the table its first or last slope goes on."""
        value = np.interp(mag, self.mag, self.log_density)
        first = (self.log_density[1] - self.log_density[0]) / (self.mag[1] - self.mag[0])
        last = (self.log_density[-1] - self.log_density[-2]) / (self.mag[-1] - self.mag[-2])
        value = np.where(mag < self.mag[0], value + first * (mag - self.mag[0]), value)
        value = np.where(mag > self.mag[-1], value + last * (mag - self.mag[-1]), value)
        result: Float64 = 10**value
        return result

    def draw(
        self, rng: np.random.Generator, area: float, bright: float, limit: float, factor: float = 1.0
    ) -> Float64:
        """Magnitudes in r of the galaxies of a patch of sky.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        area : float
            Square degrees.
        bright, limit : float
            Range in r.
        factor : float
            On the number.
        """
        edges = np.linspace(bright, limit, 257)
        density = self.density(edges)
        mean = 0.5 * (density[1:] + density[:-1]) * np.diff(edges)
        n = int(rng.poisson(mean.sum() * area * factor))
        total = np.concatenate([[0.0], np.cumsum(mean)])
        result: Float64 = np.interp(rng.random(n) * total[-1], total, edges)
        return result


# Palanque-Delabrouille et al. (2016), table 4: pure luminosity evolution on both sides of z = 2.2.
_PIVOT, _MAG_STAR, _LOG_PHI_STAR = 2.2, -26.71, -6.01
_BELOW = {"alpha": -4.31, "beta": -1.54, "k1": -0.08, "k2": -0.40}
_ABOVE = {"alpha": -3.04, "beta": -1.38, "k1": -0.25, "k2": -0.05}
# Their cosmology: flat, Omega_m = 0.3, h = 0.7.
_HUBBLE, _OMEGA = 70.0, 0.30
_LIGHT = 299792.458  # km/s
_CONTINUUM = -0.5  # spectral index of quasars (Vanden Berk et al. 2001, AJ 122, 549: -0.44)


class QuasarCounts:
    """Quasars by magnitude in g and redshift.

    Below z = 0.3 and above 5.5 there are none here: nearer ones are hosts with a nucleus, farther ones
    have no flux in r.
    """

    def __init__(self, redshift_step: float = 0.05, mag_step: float = 0.1) -> None:
        self.redshift_edges = np.arange(0.3, 5.5 + 1e-6, redshift_step)
        self.mag_edges = np.arange(14.0, 29.0 + 1e-6, mag_step)
        z = 0.5 * (self.redshift_edges[1:] + self.redshift_edges[:-1])
        mag = 0.5 * (self.mag_edges[1:] + self.mag_edges[:-1])
        distance, volume = _comoving(z)
        modulus = 5 * np.log10(distance * (1 + z) * 1e5)  # Mpc to 10 pc
        # Magnitudes of the paper are those that the quasar would have in g at z = 2.
        correction = -2.5 * (1 + _CONTINUUM) * np.log10((1 + z) / 3.0)
        absolute = mag[:, None] - modulus[None, :] - correction[None, :]
        #: Quasars per square degree in each cell of magnitude in g and redshift, ``[m, z]``.
        self.mean = _luminosity_function(absolute, z[None, :]) * volume[None, :] * mag_step * redshift_step

    def counts(self, mag: Float64) -> Float64:
        """Quasars per square degree and magnitude at magnitudes in g."""
        middle = 0.5 * (self.mag_edges[1:] + self.mag_edges[:-1])
        step = self.mag_edges[1] - self.mag_edges[0]
        result: Float64 = np.interp(mag, middle, self.mean.sum(1) / step)
        return result

    def draw(
        self, rng: np.random.Generator, area: float, limit: float, factor: float = 1.0
    ) -> tuple[Float64, Float64]:
        """Magnitudes in g and redshifts of the quasars of a patch of sky.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        area : float
            Square degrees.
        limit : float
            Faintest magnitude in g.
        factor : float
            On the number.
        """
        mean = self.mean[self.mag_edges[:-1] < limit] * area * factor
        n = int(rng.poisson(mean.sum()))
        share = np.cumsum(mean.ravel())
        cell = np.minimum(np.searchsorted(share, rng.random(n) * share[-1], side="right"), mean.size - 1)
        row, column = np.unravel_index(cell, mean.shape)
        step, width = np.diff(self.mag_edges)[0], np.diff(self.redshift_edges)[0]
        return (
            self.mag_edges[row] + step * rng.random(n),
            self.redshift_edges[column] + width * rng.random(n),
        )


def _luminosity_function(absolute: Float64, z: Float64) -> Float64:
    """Quasars per Mpc³ and magnitude (equations 5 and 7 of the paper)."""

    def side(values: dict[str, float]) -> Float64:
        x = z - _PIVOT
        star = _MAG_STAR - 2.5 * (values["k1"] * x + values["k2"] * x**2)
        bright = 10 ** (0.4 * (values["alpha"] + 1) * (absolute - star))
        faint = 10 ** (0.4 * (values["beta"] + 1) * (absolute - star))
        result: Float64 = 10**_LOG_PHI_STAR / (bright + faint)
        return result

    return np.where(z <= _PIVOT, side(_BELOW), side(_ABOVE))


def _comoving(z: Float64) -> tuple[Float64, Float64]:
    """Comoving distance in Mpc, and comoving volume in Mpc³ per square degree and unit redshift."""
    grid = np.linspace(0, float(z.max()), 2000)
    rate = np.sqrt(_OMEGA * (1 + grid) ** 3 + 1 - _OMEGA)
    steps = 0.5 * (1 / rate[1:] + 1 / rate[:-1]) * np.diff(grid)
    distance = np.interp(z, grid, np.concatenate([[0.0], np.cumsum(steps)])) * _LIGHT / _HUBBLE
    here = np.interp(z, grid, rate)
    volume = distance**2 * _LIGHT / _HUBBLE / here * (math.pi / 180) ** 2
    return distance, volume


# Angular correlation w = A (theta / 1 deg)^-0.8: amplitudes of SDSS galaxies (Connolly et al. 2002,
# ApJ 579, 42, table 1 and figure 4); fainter ones continue the trend.
_SLOPE = 0.8
_LOG_AMPLITUDE, _AT_MAG, _TREND = -1.90, 18.5, -0.22
# Mean of (distance / side)^-0.8 of two random points in a square (numerical integration).
_SQUARE_MEAN = 2.25


def angular_amplitude(mag: float) -> float:
    """Angular correlation of galaxies of one magnitude in r at 1 degree."""
    return float(10 ** (_LOG_AMPLITUDE + _TREND * (mag - _AT_MAG)))


def cosmic_variance(area: float, mag: float = 20.5) -> float:
    """Rms of the number of galaxies in a square, relative to its mean, from clustering alone.

    Parameters
    ----------
    area : float
        Square degrees.
    mag : float
        In r.

    Returns
    -------
    float
        The Poisson noise of the number is to be added.
    """
    side = math.sqrt(area)
    return math.sqrt(angular_amplitude(mag) * _SQUARE_MEAN * side**-_SLOPE)
