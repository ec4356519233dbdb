"""Fluxes in apertures, with errors, in one exposure's native pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.flags import PixelFlag, SourceFlag
from imcat.measure.errors import ellipse_lag_sum, gaussian_lag_sum
from imcat.measure.pixels import annulus_median, aperture_sums
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import View

__all__ = ["Fluxes", "measure_apertures"]

Float64 = NDArray[np.float64]

_NEIGHBOUR_SHARE = 0.1  # of the Kron ellipse; the meaning of the flag NEIGHBOUR


@dataclass(frozen=True, eq=False)
class Fluxes:
    """Fluxes of one exposure; NaN outside of it.

    Attributes
    ----------
    flux, variance : float64 arrays [n, 2 + apertures]
        nJy and nJy²: Kron ellipse, colour aperture, circles in the order of the settings.
    flags : int64 array [n]
        Bits of `SourceFlag` for this exposure.
    inside : bool array [n]
        The position lies on the exposure.
    """

    flux: Float64
    variance: Float64
    flags: NDArray[np.int64]
    inside: NDArray[np.bool_]


def measure_apertures(
    view: View,
    label: NDArray[np.int64],
    mode: int,
    dx: Float64,
    dy: Float64,
    form: Float64,
    kron: Float64,
    colour_sigma: float,
    settings: MeasureSettings,
) -> Fluxes:
    """Sum Kron ellipse, circles and colour aperture of every source in one exposure.

    Parameters
    ----------
    view : View
        The exposure.
    label, mode
        As in `imcat.measure.pixels`.
    dx, dy : float64 arrays [n]
        Offsets of the positions from those of the view, reference pixels.
    form : float64 array [n, 3]
        Rms ellipses on the reference grid.
    kron : float64 array [n]
        Radius of the Kron ellipse in their units.
    colour_sigma : float
        Standard deviation of the colour aperture before the PSF, arcsec.
    settings : MeasureSettings
        Diameters, local background.
    """
    n, order = label.size, np.argsort(settings.apertures)
    diameters = np.asarray(settings.apertures)[order]  # rising, as the kernel needs them
    x, y = view.shifted(dx, dy)
    pixel = view.arcsec
    forms = np.empty((n, 1 + diameters.size, 3))
    forms[:, 0] = view.native_form(form)
    forms[:, 1:] = np.array([1.0, 1.0, 0.0])
    radii = np.empty((n, 1 + diameters.size))
    radii[:, 0] = kron
    radii[:, 1:] = 0.5 * diameters[None, :] / pixel[:, None]
    width = _gaussian_width(view, colour_sigma) / pixel
    sums, counts = np.empty((n, forms.shape[1] + 1, 4)), np.empty((n, 5))
    cut = view.cutout
    aperture_sums(
        cut.data, cut.variance, cut.mask, view.owner, label, mode, x, y,
        forms, radii, width, sums, counts,
    )  # fmt: skip
    flux, noise, spread, weight = (sums[:, :, i].copy() for i in range(4))
    level_variance = np.full(n, view.layer.noise.level_variance)
    if settings.local_background:
        level, level_variance = _local_level(view, x, y, forms[:, 0], kron, pixel, settings)
        flux -= weight * level[:, None]
    variance = noise + weight**2 * level_variance[:, None]
    covariance = view.layer.noise.covariance
    for k in range(forms.shape[1]):
        variance[:, k] += spread[:, k] * ellipse_lag_sum(covariance, forms[:, k], radii[:, k])
    variance[:, -1] += noise[:, -1] * gaussian_lag_sum(covariance, width)
    variance = np.maximum(variance, 0.05 * noise)
    gain = view.layer.exposure.gain
    if gain is not None:
        # In a circle or ellipse the counts are those of the flux; under the Gaussian weight
        # the sum of w² times a Gaussian source of the colour aperture's own size is used.
        source = np.maximum(flux, 0) / gain
        psf = view.layer.psf_sigma / pixel
        source[:, -1] *= (width**2 + psf**2) / (width**2 + 2 * psf**2)
        variance += source
    norm = 1 + (view.layer.psf_sigma / pixel / width) ** 2
    flux[:, -1] *= norm
    variance[:, -1] *= norm**2
    back = [0, forms.shape[1], *(1 + np.argsort(order))]  # in the order of the settings
    inside = view.inside
    return Fluxes(
        np.where(inside[:, None], flux[:, back], np.nan),
        np.where(inside[:, None], variance[:, back], np.nan),
        np.where(inside, _flags(counts), int(SourceFlag.OUTSIDE)),
        inside,
    )


def _gaussian_width(view: View, colour_sigma: float) -> float:
    """Width of the weight, arcsec, that makes the aperture the same before every PSF.

    A Gaussian aperture of variance ``s² - p²`` on an image of PSF variance ``p²`` collects what
    one of variance ``s²`` would collect without atmosphere, up to the factor ``s² / (s² - p²)``
    (Kuijken 2008, A&A 482, 1053).
    """
    return float(np.sqrt(colour_sigma**2 - view.layer.psf_sigma**2))


def _local_level(
    view: View,
    x: Float64,
    y: Float64,
    form: Float64,
    kron: Float64,
    pixel: Float64,
    settings: MeasureSettings,
) -> tuple[Float64, Float64]:
    """Level of the sky around each source, and its variance."""
    smallest = 0.5 * (form[:, 0] + form[:, 1]) - np.hypot(0.5 * (form[:, 0] - form[:, 1]), 0.5 * form[:, 2])
    major = kron / np.sqrt(np.maximum(smallest, 1e-12))
    inner = np.maximum(settings.annulus_inner / pixel, major)
    outer = inner + (settings.annulus_outer - settings.annulus_inner) / pixel
    result = np.empty((x.size, 2))
    cut = view.cutout
    annulus_median(cut.data, view.owner, x, y, inner, outer, result)
    noise = view.layer.noise
    number = np.maximum(result[:, 1], 1)
    variance = np.pi / 2 * noise.rms**2 * noise.covariance.total / number
    return result[:, 0], np.where(result[:, 1] > 0, variance, noise.level_variance)


def _flags(counts: Float64) -> NDArray[np.int64]:
    """Flags from the areas and pixel bits that `aperture_sums` counted."""
    neighbours, bad, outside, area, seen = counts.T
    pixels = seen.astype(np.int64)
    flags = np.zeros(counts.shape[0], np.int64)
    for condition, bit in (
        (neighbours > _NEIGHBOUR_SHARE * np.maximum(area, 1e-9), SourceFlag.NEIGHBOUR),
        (bad > 0, SourceFlag.BAD_PIXEL),
        (outside > 0, SourceFlag.EDGE),
        (pixels & int(PixelFlag.SATURATED) != 0, SourceFlag.SATURATED),
        (pixels & int(PixelFlag.INTERPOLATED) != 0, SourceFlag.INTERPOLATED),
        (pixels & int(PixelFlag.COSMIC_RAY) != 0, SourceFlag.COSMIC_RAY),
    ):
        flags[condition] |= int(bit)
    return flags
