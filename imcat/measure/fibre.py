"""Fluxes that a spectrograph's fibre would collect in a given seeing.

The SDSS's fibre magnitudes are those of images that were convolved to a seeing of 2 arcsec, in circles of 3 arcsec
(SDSS) and 2 arcsec diameter (BOSS). A sum over a circle of a convolved image is a sum over the image itself with a
smooth weight, the circle convolved with the same Gaussian; so no image is convolved here, and the errors are those of
the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.measure.errors import gaussian_lag_sum
from imcat.measure.pixels import _fetch
from imcat.measure.views import View
from imcat.psf import FWHM_PER_SIGMA

__all__ = ["FIBRE_DIAMETERS", "FIBRE_SEEING", "fibre_fluxes", "weighted_sums"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: Diameters of the fibres of SDSS and BOSS, arcsec, and the seeing (FWHM) of their fibre magnitudes (documentation
#: of Data Release 8 and later, "Measures of flux and magnitude", fiber magnitudes).
FIBRE_DIAMETERS = (3.0, 2.0)
FIBRE_SEEING = 2.0
_SIGMAS = 4.0  # of the Gaussian outside the circle, beyond which the weight is below 1e-4
# Narrowest Gaussian over that of the PSF: less would make a weight that falls from 1 to 0 between two pixels, and this
# makes a source 2 % wider.
_NARROWEST = 0.2
_STEPS = 400  # of the table of the weight
_REPLACED = 1  # states of pixels up to this have a value, see `imcat.measure.pixels`


@njit(cache=True, nogil=True)
def weighted_sums(data, variance, owner, label, mode, x, y, pixel, table, reach, out):  # type: ignore[no-untyped-def]
    """Sums with round weights that are given as a table.

    Parameters
    ----------
    data, variance, owner, label, mode, x, y
        As in `imcat.measure.pixels.centroid_sums`.
    pixel : float64 array [n]
        Size of a native pixel, arcsec.
    table : float64 array [weights, steps + 1]
        Weights at even steps of the radius from 0 to `reach`, where they end.
    reach : float
        arcsec.
    out : float64 array [n, weights, 3]
        Filled with the sums of weight times flux, weight² times variance, and weight.
    """
    steps = table.shape[1] - 1
    for k in range(x.size):
        own = label[k]
        for a in range(table.shape[0]):
            out[k, a, 0], out[k, a, 1], out[k, a, 2] = 0.0, 0.0, 0.0
        radius = reach / pixel[k]
        if not math.isfinite(x[k] + y[k] + radius):
            continue
        per_pixel = steps / radius
        for iy in range(int(math.ceil(y[k] - radius)), int(math.floor(y[k] + radius)) + 1):
            dy = iy - y[k]
            half = math.sqrt(max(radius * radius - dy * dy, 0.0))
            for ix in range(int(math.ceil(x[k] - half)), int(math.floor(x[k] + half)) + 1):
                value, noise, state = _fetch(data, variance, owner, own, mode, x[k], y[k], ix, iy)
                if state > _REPLACED:
                    continue
                dx = ix - x[k]
                place = math.sqrt(dx * dx + dy * dy) * per_pixel
                step = min(int(place), steps - 1)
                part = place - step
                for a in range(table.shape[0]):
                    w = (1.0 - part) * table[a, step] + part * table[a, step + 1]
                    out[k, a, 0] += w * value
                    out[k, a, 1] += w * w * noise
                    out[k, a, 2] += w


def fibre_fluxes(
    views: Sequence[View],
    bands: Sequence[str],
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    diameters: Sequence[float] = FIBRE_DIAMETERS,
    seeing: float = FIBRE_SEEING,
) -> tuple[Float64, Float64]:
    """Fluxes in circles as if seen in a given seeing.

    Parameters
    ----------
    views : sequence of View
        The exposures.
    bands : sequence of str
        Names of the bands, in the order of the result.
    label, mode
        As in `imcat.measure.pixels`.
    dx, dy : float64 arrays [n]
        Offsets of the positions from those of the views, reference pixels.
    diameters : sequence of float
        arcsec.
    seeing : float
        FWHM, arcsec; an exposure whose PSF is as wide is taken nearly as it is.

    Returns
    -------
    flux, variance : float64 arrays [n, bands, diameters]
        nJy and nJy²; NaN outside of a band.
    """
    n = label.size
    shape = (n, len(bands), len(diameters))
    total, weight = np.zeros(shape), np.zeros(shape)
    for view in views:
        k = bands.index(view.layer.band)
        flux, variance = _one(view, label, mode, dx, dy, tuple(diameters), seeing)
        with np.errstate(invalid="ignore", divide="ignore"):
            w = np.where(view.inside[:, None] & (variance > 0), 1 / variance, 0.0)
        total[:, k] += np.where(w > 0, w * flux, 0.0)
        weight[:, k] += w
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / np.where(weight > 0, weight, np.nan), 1 / np.where(weight > 0, weight, np.nan)


def _one(
    view: View,
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    diameters: tuple[float, ...],
    seeing: float,
) -> tuple[Float64, Float64]:
    """Fluxes and variances in one exposure."""
    layer = view.layer
    narrow = _NARROWEST * layer.psf_sigma
    sigma = math.sqrt(max((seeing / FWHM_PER_SIGMA) ** 2 - layer.psf_sigma**2, narrow**2))
    reach = 0.5 * max(diameters) + _SIGMAS * sigma
    table = _weights(diameters, round(sigma, 6), round(reach, 6))
    x, y = view.shifted(dx, dy)
    sums = np.empty((label.size, len(diameters), 3))
    cut = view.cutout
    weighted_sums(
        cut.data, cut.variance, view.owner, label, mode, x, y, view.arcsec, table, round(reach, 6), sums
    )  # fmt: skip
    flux, white, area = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # The width of a Gaussian weight that is as flat: (Σ w)² / Σ w² is 4 π σ² for it.
        width = np.sqrt(area**2 / (4 * math.pi * white / layer.noise.rms**2))
    lags = gaussian_lag_sum(layer.noise.covariance, np.nan_to_num(width, nan=1.0).ravel()).reshape(
        width.shape
    )
    variance = white * np.maximum(1 + lags, 0.05) + area**2 * layer.noise.level_variance
    if layer.exposure.gain is not None:
        # The weight is largest in the middle, where most of the light is.
        variance += table[:, 0] * np.maximum(flux, 0) / layer.exposure.gain
    return flux, variance


@lru_cache(maxsize=64)
def _weights(diameters: tuple[float, ...], sigma: float, reach: float) -> Float64:
    """Circles convolved with a Gaussian, ``[diameters, steps + 1]``.

    The share of a round Gaussian at a distance r from the middle of a circle that falls into the circle: the
    distribution of chi squared of two degrees of freedom, not central.
    """
    from scipy.special import chndtr

    r = np.linspace(0, reach, _STEPS + 1)
    table = np.stack([chndtr((0.5 * d / sigma) ** 2, 2, (r / sigma) ** 2) for d in diameters])
    table[:, -1] = 0.0
    table.flags.writeable = False
    return np.asarray(table)
