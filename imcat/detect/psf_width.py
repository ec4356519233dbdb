"""The width of an exposure's PSF, measured on its own stars."""

from __future__ import annotations

import math

import numpy as np

from imcat.flags import PixelFlag
from imcat.noise import NoiseModel
from imcat.psf import FWHM_PER_SIGMA, half_sample_mode, star_widths
from imcat.tile import Exposure
from imcat.window import Window, tile_windows

__all__ = ["measure_psf_fwhm"]

_WINDOW = 1024  # pixels; windows are taken from the middle outwards until there are enough stars
_ENOUGH = 60
_FEWEST = 5
_LEVELS = (20.0, 8.0)  # of the peak pixel in units of its noise; the second where stars are few


def measure_psf_fwhm(exposure: Exposure, noise: NoiseModel) -> float | None:
    """FWHM of the PSF from the densest part of the widths of bright compact sources.

    Parameters
    ----------
    exposure : Exposure
        The pixels.
    noise : NoiseModel
        Its sky and noise.

    Returns
    -------
    float or None
        Pixels; None where fewer than five sources are bright enough.
    """
    rows, columns = exposure.shape
    windows = sorted(
        tile_windows(exposure.shape, _WINDOW),
        key=lambda w: (math.hypot((w.y0 + w.y1 - rows) / 2, (w.x0 + w.x1 - columns) / 2), w),
    )
    for level in _LEVELS:
        widths = np.empty(0)
        for window in windows:
            widths = np.concatenate([widths, _widths(exposure, noise, window, level)])
            if widths.size >= _ENOUGH:
                break
        if widths.size >= _FEWEST:
            return half_sample_mode(widths) * FWHM_PER_SIGMA
    return None


def _widths(exposure: Exposure, noise: NoiseModel, window: Window, level: float) -> np.ndarray:
    cutout = noise.read(exposure, window)
    saturated = (cutout.mask & np.uint16(PixelFlag.SATURATED)) != 0
    return star_widths(cutout.data, noise.rms, saturated, cutout.bad, level)
