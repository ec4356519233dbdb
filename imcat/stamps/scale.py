"""Stamps as networks take them: compressed, with what the noise hides left small, and colours kept.

A pixel is in units of its band's noise. The inverse hyperbolic sine is linear below the noise and a logarithm above it,
so that bright sources do not drown faint structure; since the noise of each band goes in beside the pixels (as
magnitudes relative to the bands' mean), the ratio of two bands' fluxes, the colour, can be had back from it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.stamps.cut import Stamps

__all__ = ["CONDITIONS", "band_conditions", "compress", "expand"]

Float32 = NDArray[np.float32]

#: Numbers that describe a band beside its pixels (`band_conditions`).
CONDITIONS = 4
_STRETCH = 2.0  # noise rms at which the compression turns from linear to logarithmic
_MIDDLE = np.log(6000.0)  # Å


def compress(signal: Float32) -> Float32:
    """Pixels in units of the noise, compressed; `expand` undoes it."""
    # arcsinh, but through the logarithm, of which numpy has a fast one: right to 3e-7.
    scaled = np.asarray(signal, np.float32) / np.float32(_STRETCH)
    size = np.abs(scaled)
    return np.asarray(np.copysign(np.log(size + np.sqrt(size * size + 1)), scaled))


def expand(values: Float32) -> Float32:
    """Compressed pixels in units of the noise."""
    return np.asarray(np.sinh(values) * np.float32(_STRETCH), np.float32)


def band_conditions(stamps: Stamps) -> Float32:
    """What the network is told of each band, float32 ``[n, bands, CONDITIONS]``.

    Logarithm of wavelength; of the PSF's width over the pixel; of the noise relative to the bands' mean; of the pixel.
    Bands without data have zeros.
    """
    n, bands = stamps.noise.shape
    there = np.isfinite(stamps.noise)
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = np.log(stamps.noise)
    mean = np.where(there, depth, 0).sum(axis=1, keepdims=True) / np.maximum(
        there.sum(axis=1, keepdims=True), 1
    )
    out = np.zeros((n, bands, CONDITIONS), np.float32)
    out[..., 0] = np.log(stamps.wavelength) - _MIDDLE
    out[..., 1] = np.log(stamps.fwhm / stamps.pixel)
    out[..., 2] = np.where(there, depth - mean, 0)
    out[..., 3] = np.log(stamps.pixel)
    return np.where(there[..., None], out, 0).astype(np.float32)
