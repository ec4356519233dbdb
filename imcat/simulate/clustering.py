"""Where sources lie on the sky: galaxies cluster, stars do not, a globular cluster has a centre."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.counts import angular_amplitude

__all__ = ["GalaxyField", "cluster_positions", "galaxy_field", "uniform_positions"]

Float64 = NDArray[np.float64]

_SLOPE = 0.8  # w = A (theta / 1 deg)^-0.8
_REFERENCE_MAG = 20.5
_CELL = 10.0  # arcsec
# The density of a tile follows modes that are longer than the tile itself.
_AROUND = 4
_LARGEST = 512  # cells along a side
_MAG_RANGE = (16.0, 26.0)


@dataclass(frozen=True, eq=False)
class GalaxyField:
    """Density of galaxies relative to the mean, in cells.

    Attributes
    ----------
    log_density : float64 array, ``[v, u]``
        A Gaussian field for galaxies of r = 20.5; those of other magnitudes follow it times the
        root of the ratio of their amplitudes.
    variance : float
        Of the field, before it was cut to the tile.
    width, height : float
        Size of the region, arcsec.
    """

    log_density: Float64
    variance: float
    width: float
    height: float

    def density(self, mag: float = _REFERENCE_MAG) -> Float64:
        """Density in each cell for galaxies of one magnitude; its mean over the sky is 1."""
        bias = math.sqrt(
            angular_amplitude(float(np.clip(mag, *_MAG_RANGE))) / angular_amplitude(_REFERENCE_MAG)
        )
        density: Float64 = np.exp(bias * self.log_density - 0.5 * bias**2 * self.variance)
        return density

    def positions(self, rng: np.random.Generator, mag: Float64) -> tuple[Float64, Float64]:
        """Places of galaxies, arcsec from the corner of the region.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        mag : float64 array, ``[n]``
            In r.
        """
        u, v = np.empty(len(mag)), np.empty(len(mag))
        rows, columns = self.log_density.shape
        bins = np.clip(np.floor(mag), *_MAG_RANGE).astype(int)
        for bin_ in np.unique(bins):
            here = np.flatnonzero(bins == bin_)
            share = np.cumsum(self.density(bin_ + 0.5))
            cell = np.minimum(
                np.searchsorted(share, rng.random(len(here)) * share[-1], side="right"), share.size - 1
            )
            u[here] = (cell % columns + rng.random(len(here))) * self.width / columns
            v[here] = (cell // columns + rng.random(len(here))) * self.height / rows
        return u, v


def galaxy_field(rng: np.random.Generator, width: float, height: float) -> GalaxyField:
    """Draw the density of galaxies in a region.

    A lognormal field (Coles & Jones 1991, MNRAS 248, 1): the logarithm is Gaussian with the
    correlation ``ln(1 + w)``, so that the density has the correlation w.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    width, height : float
        arcsec.
    """
    cell = max(_CELL, _AROUND * max(width, height) / _LARGEST)
    columns, rows = max(1, math.ceil(width / cell)), max(1, math.ceil(height / cell))
    n = _AROUND * max(columns, rows)
    away = np.minimum(np.arange(n), n - np.arange(n)) * cell / 3600.0
    distance = np.hypot(away[:, None], away[None, :])
    distance[0, 0] = 0.38 * cell / 3600.0  # mean distance of points in a cell, about
    covariance = np.log1p(angular_amplitude(_REFERENCE_MAG) * distance**-_SLOPE)
    power = np.maximum(np.fft.rfft2(covariance).real, 0)
    white = np.fft.rfft2(rng.normal(size=(n, n)))
    field = np.fft.irfft2(white * np.sqrt(power), s=(n, n))
    variance = float(np.fft.irfft2(power, s=(n, n))[0, 0])
    return GalaxyField(field[:rows, :columns].copy(), variance, width, height)


def uniform_positions(
    rng: np.random.Generator, n: int, width: float, height: float
) -> tuple[Float64, Float64]:
    """Places without any order, arcsec from the corner of a region."""
    return rng.uniform(0, width, n), rng.uniform(0, height, n)


def cluster_positions(
    rng: np.random.Generator, n: int, width: float, height: float, radius: float
) -> tuple[Float64, Float64]:
    """Places of the stars of a globular cluster in the middle of a region.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        Number of stars.
    width, height : float
        Of the region, arcsec.
    radius : float
        Within which half of the stars lie, arcsec: the surface density is that of Plummer (1911,
        MNRAS 71, 460), (1 + (r / radius)²)^-2.
    """
    share = rng.random(n)
    distance = radius * np.sqrt(share / (1 - share))
    angle = rng.uniform(0, 2 * np.pi, n)
    return 0.5 * width + distance * np.cos(angle), 0.5 * height + distance * np.sin(angle)
