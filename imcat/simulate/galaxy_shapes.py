"""Sizes, axis ratios and bulge fractions of galaxies, drawn at given magnitudes and colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.density import Density

__all__ = ["ShapeModel", "composite_radius", "half_light_table"]

Float64 = NDArray[np.float64]

#: Range of magnitudes in r within which shapes were measured.
_BRIGHT, _FAINT = 16.5, 21.8
# Beyond it, logarithm of half-light radius a magnitude: on the faint side that of discs in Hubble images,
# ln r = -1.145 - 0.269 (i - 23) (Miller et al. 2013, MNRAS 429, 2858, appendix B1); on the bright side galaxies
# grow as those of one luminosity at other distances do, 0.2 less the loss from (1+z).
_FAINT_SLOPE, _BRIGHT_SLOPE = -0.269 / np.log(10), -0.17
_SHARES: Float64 = np.linspace(0, 1, 21)
_RATIOS: Float64 = np.linspace(-1, 1, 41)  # log10 of the ratio of radii


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """Structure of galaxies.

    Attributes
    ----------
    density : Density
        Of r, g-r, r-i; logarithm of half-light radius (arcsec, along the major axis), and normal scores of
        bulge fraction, logarithm of the ratio of bulge to disc radius, axis ratio.
    quantiles : float64 array, ``[3, m]``
        What the scores stand for: quantiles at evenly spaced probabilities.
    half_light : float64 array, ``[shares, ratios]``
        `half_light_table`.
    roundness : float
        Logarithm of the axis ratio of a bulge over that of its disc.
    """

    density: Density
    quantiles: Float64
    half_light: Float64
    roundness: float

    def draw(
        self, rng: np.random.Generator, mag: Float64
    ) -> tuple[Float64, Float64, Float64, Float64, Float64]:
        """Draw structures.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        mag : float64 array, ``[n, 5]``
            SDSS u, g, r, i, z.

        Returns
        -------
        bulge_fraction, bulge_radius, disc_radius, bulge_axis_ratio, disc_axis_ratio : float64 arrays
            As in `imcat.simulate.sources.Sources`.
        """
        r = mag[:, 2]
        inside = np.clip(r, _BRIGHT, _FAINT)
        given = np.stack([inside, np.clip(mag[:, 1] - r, -0.2, 1.9), np.clip(r - mag[:, 3], -0.2, 1.2)], 1)
        drawn = self.density.draw(rng, given)
        size = (
            drawn[:, 0]
            + _FAINT_SLOPE * np.maximum(r - _FAINT, 0)
            + _BRIGHT_SLOPE * np.minimum(r - _BRIGHT, 0)
        )
        levels = np.linspace(0, 1, self.quantiles.shape[1])
        share, ratio, axis = (
            np.interp(_normal_probability(drawn[:, k + 1]), levels, self.quantiles[k]) for k in range(3)
        )
        share = np.clip(share, 0, 1)
        disc = 10**size / composite_radius(self.half_light, share, ratio)
        # What dominates has the axis ratio of the galaxy.
        bulge_axis = np.where(share > 0.5, axis, axis**self.roundness)
        disc_axis = np.where(share > 0.5, axis ** (1 / self.roundness), axis)
        return share, disc * 10**ratio, disc, np.clip(bulge_axis, 0.05, 1), np.clip(disc_axis, 0.05, 1)


def composite_radius(table: Float64, share: Float64, ratio: Float64) -> Float64:
    """Half-light radius of bulge and disc together over the radius of the disc.

    Parameters
    ----------
    table : float64 array
        `half_light_table`.
    share : float64 array, ``[n]``
        Of the bulge in the flux.
    ratio : float64 array, ``[n]``
        Logarithm to base 10 of the radius of the bulge over that of the disc.
    """
    a = np.clip(np.nan_to_num(share) / (_SHARES[1] - _SHARES[0]), 0, len(_SHARES) - 1.001)
    b = np.clip((np.nan_to_num(ratio) - _RATIOS[0]) / (_RATIOS[1] - _RATIOS[0]), 0, len(_RATIOS) - 1.001)
    i, j = a.astype(int), b.astype(int)
    p, q = a - i, b - j
    result: Float64 = (
        table[i, j] * (1 - p) * (1 - q)
        + table[i + 1, j] * p * (1 - q)
        + table[i, j + 1] * (1 - p) * q
        + table[i + 1, j + 1] * p * q
    )
    return result


def half_light_table() -> Float64:
    """Half-light radius of a de Vaucouleurs bulge and an exponential disc of radius 1, ``[shares, ratios]``."""
    from scipy.special import gammainc

    # b of the Sérsic profile for n = 4 and n = 1 (Ciotti & Bertin 1999, A&A 352, 447).
    radius = 10 ** np.linspace(-2, 2, 2001)
    disc = gammainc(2, 1.67834699 * radius)
    out = np.empty((len(_SHARES), len(_RATIOS)))
    for j, ratio in enumerate(_RATIOS):
        bulge = gammainc(8, 7.66924944 * (radius / 10**ratio) ** 0.25)
        for i, share in enumerate(_SHARES):
            out[i, j] = np.exp(np.interp(0.5, share * bulge + (1 - share) * disc, np.log(radius)))
    return out


def _normal_probability(x: Float64) -> Float64:
    """Cumulative probability of the normal distribution (Abramowitz & Stegun 1964, 26.2.17; error below 1e-7)."""
    t = 1 / (1 + 0.2316419 * np.abs(x))
    tail = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi) * tail
    result: Float64 = np.where(x > 0, 1 - upper, upper)
    return result
