"""Footprints of sources, gathered from the images into one array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.measure.model_kernels import Stack
from imcat.measure.model_settings import ModelSettings

if TYPE_CHECKING:
    from imcat.measure.models import FitImage
    from imcat.psf.mixture import PsfMixture

__all__ = ["gather", "light_reach"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: Half sides of footprints, pixels, beyond which they end where sources are brighter by this factor: their many pixels
#: cost time, and most of what is that large and faint is the halo of a star.
_LARGE, _LARGE_LEVEL = 60.0, 2.5
#: Correlation below which pixels are taken to be independent; a noise map cannot tell it from 0.
_LEAST_CORRELATION = 2e-3


def gather(
    images: Sequence[FitImage],
    sources: Int64,
    size: Float64,
    snr: Float64,
    settings: ModelSettings,
    reference: int,
) -> Stack:
    """Copy the pixels of the footprints of some sources.

    Parameters
    ----------
    images : sequence of FitImage
        Every exposure of every band.
    sources : int64 array ``[n]``
        Which of their sources.
    size, snr : float64 array ``[n]``
        Half-light radius, PSF included, arcsec; signal-to-noise ratio.
    settings : ModelSettings
        Footprints.
    reference : int
        Band whose PSF sets the scale of bounds and priors.

    Returns
    -------
    Stack
    """
    n, t = len(sources), len(images)
    most = max((len(image.psf) for image in images), default=1)
    reach = max((image.rho.shape[0] // 2 for image in images), default=0)
    box = np.zeros((n, t, 4), np.int64)
    x, y = np.full((n, t), np.nan), np.full((n, t), np.nan)
    jacobian = np.zeros((n, t, 2, 2))
    weight, centre = np.zeros((t, most)), np.zeros((t, most, 2))
    covariance = np.zeros((t, n, most, 3))
    rho = np.zeros((t, 2 * reach + 1, 2 * reach + 1))
    fwhm = np.full(n, np.nan)
    fallback = np.full(n, np.nan)
    for s, image in enumerate(images):
        x[:, s], y[:, s] = image.x[sources], image.y[sources]
        jacobian[:, s] = image.jacobian[sources]
        seen = np.isfinite(x[:, s]) & np.isfinite(y[:, s])
        k = len(image.psf)
        weight[s, :k], centre[s, :k] = image.psf.weights, image.psf.centres
        covariance[s, :, :, 0] = covariance[s, :, :, 2] = 1.0
        if seen.any():
            covariance[s, seen, :k] = image.psf.at(x[seen, s] + image.origin[0], y[seen, s] + image.origin[1])
        r = image.rho.shape[0] // 2
        inner = slice(reach - r, reach + r + 1)
        rho[s, inner, inner] = np.where(np.abs(image.rho) >= _LEAST_CORRELATION, image.rho, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            arcsec = 1 / np.sqrt(np.abs(np.linalg.det(jacobian[:, s])))
        width = image.psf.fwhm * arcsec
        fallback = np.where(np.isfinite(fallback) | ~seen, fallback, width)
        if image.band == reference:
            fwhm = np.where(np.isfinite(fwhm) | ~seen, fwhm, width)
        half = _half_sides(image, arcsec, size, snr, settings)
        rows, columns = image.data.shape
        with np.errstate(invalid="ignore"):
            x0 = np.where(seen, np.round(x[:, s]), 0).astype(np.int64) - half
            y0 = np.where(seen, np.round(y[:, s]), 0).astype(np.int64) - half
        side = 2 * half + 1
        seen &= (x0 < columns) & (y0 < rows) & (x0 + side > 0) & (y0 + side > 0)
        box[:, s] = np.where(seen[:, None], np.stack([x0, y0, side, side], axis=1), 0)
    pixels = box[:, :, 2] * box[:, :, 3]
    start = np.concatenate([[0], np.cumsum(pixels)])
    data, variance = np.empty(start[-1], np.float32), np.empty(start[-1], np.float32)
    first = np.ascontiguousarray(start[:-1].reshape(n, t))
    for s, image in enumerate(images):
        _copy(image.data, box[:, s], first[:, s], data)
        _copy(image.variance, box[:, s], first[:, s], variance)
    fwhm = np.where(np.isfinite(fwhm), fwhm, fallback)
    return Stack(
        data, variance, first, box, x, y, jacobian,
        np.array([image.band for image in images], np.int64),
        np.array([image.gain for image in images], np.float64),
        rho, np.array([np.count_nonzero(r) <= 1 for r in rho], np.bool_), weight, centre, covariance,
        np.array([image.psf.subpixels for image in images], np.int64), np.where(np.isfinite(fwhm), fwhm, 1.0),
    )  # fmt: skip


def light_reach(psf: PsfMixture, snr: Float64, level: float, limit: int) -> tuple[Float64, float]:
    """How far the light of point sources reaches.

    Parameters
    ----------
    psf : PsfMixture
        The PSF of an image.
    snr : float64 array ``[n]``
        Signal-to-noise ratios of the sources.
    level : float
        Brightness where it ends, in units of the noise of a pixel.
    limit : int
        Largest radius that is looked at, pixels.

    Returns
    -------
    radius : float64 array ``[n]``
        Pixels.
    area : float
        Noise-equivalent area of the PSF (King 1983, PASP 95, 163), pixels.
    """
    xx, xy, yy = psf.at(*(np.array([psf._position(None, None)]).reshape(2, 1)))[0].T
    spread = np.sqrt(np.maximum(xx * yy - xy**2, 1e-6))
    radius = np.linspace(0, limit, 4 * limit + 1)
    profile = (psf.weights / (2 * np.pi * spread) * np.exp(-0.5 * radius[:, None] ** 2 / spread)).sum(1)
    profile = np.maximum.accumulate(np.maximum(profile[::-1], 1e-300))[::-1]
    area = 1 / max(float(np.trapezoid(2 * np.pi * radius * profile**2, radius)), 1e-12)
    # Brightness over the noise of a pixel is snr sqrt(area) times the profile.
    wanted = level / np.maximum(snr, 1.0) / math.sqrt(area)
    return np.asarray(np.interp(-np.log(wanted), -np.log(profile), radius)), area


def _half_sides(
    image: FitImage, arcsec: Float64, size: Float64, snr: Float64, settings: ModelSettings
) -> Int64:
    """Half sides of the footprints on one image, pixels."""
    fwhm, level = image.psf.fwhm, settings.footprint_noise
    reach, area = light_reach(image.psf, snr, level, settings.footprint_limit)
    half_light = 0.6 * fwhm  # of a PSF with wings
    extent = np.nan_to_num(size / arcsec, nan=half_light)
    wide = extent > 1.2 * half_light
    # An exponential disc, exp(-1.68 r / r_half), whose brightness in the middle is that of the detection, ends there.
    drop = np.log(np.maximum(snr, 1.0) / math.sqrt(area) / level)
    far = np.clip(drop / 1.68, 1.0, settings.footprint_radii) * extent
    nearer = np.clip((drop - math.log(_LARGE_LEVEL)) / 1.68, 1.0, settings.footprint_radii) * extent
    far = np.minimum(far, np.maximum(nearer, _LARGE))
    reach = np.where(wide, np.maximum(reach, far), reach)
    reach = np.clip(reach, settings.footprint_widths * fwhm, settings.footprint_limit)
    return np.asarray(np.ceil(np.nan_to_num(reach, nan=1.0)).astype(np.int64))


@njit(cache=True, nogil=True)
def _copy(image, box, start, out):  # type: ignore[no-untyped-def]
    """Copy boxes of an image; what lies outside it becomes 0."""
    rows, columns = image.shape
    for i in range(box.shape[0]):
        p = start[i]
        for y in range(box[i, 1], box[i, 1] + box[i, 3]):
            for x in range(box[i, 0], box[i, 0] + box[i, 2]):
                inside = 0 <= y < rows and 0 <= x < columns
                out[p] = image[y, x] if inside else 0.0
                p += 1
