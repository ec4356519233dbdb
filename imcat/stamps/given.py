"""Stamps that a user brings: images of any size and scale, as the backbones take them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError, UsageError
from imcat.stamps.cut import Stamps

__all__ = ["given_stamps", "read_arrays", "read_images"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FRAME = 0.1  # of the side: the frame in which sky and noise are measured
_QUANTUM = 0.005  # of the range of an image: least noise, where the sky was cut to a constant
_FWHM = 3.0  # pixels: taken for the PSF where it is not given


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an NPZ file by name.

    Raises
    ------
    InputError
        If it cannot be read; arrays of Python objects are not.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile, TypeError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the stamps cannot be read ({text})", path=path, expected="an NPZ file") from None


def read_images(path: Path, name: str, bands: int) -> NDArray[Any]:
    """Stamps ``[n, bands, y, x]`` of an NPZ file whose array has that shape, ``[n, y, x]`` or ``[n, y, x, bands]``.

    Raises
    ------
    InputError
        If the array is not there or has another shape.
    """
    arrays = read_arrays(path)
    if name not in arrays:
        raise InputError(
            f"there is no array {name!r}", path=path, expected=f"one of {', '.join(arrays) or 'any arrays'}"
        )
    images = arrays[name]
    if images.ndim == 3 and bands == 1:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] != bands and images.shape[3] == bands:
        images = np.moveaxis(images, 3, 1)
    if (
        images.ndim != 4
        or images.shape[1] != bands
        or images.shape[2] != images.shape[3]
        or not np.issubdtype(images.dtype, np.number)
    ):
        raise InputError(
            f"array {name!r} has shape {arrays[name].shape} of {images.dtype}", path=path,
            expected=f"numbers [n, y, x{', bands' if bands > 1 else ''}] of square stamps in {bands} band(s)",
        )  # fmt: skip
    return images


def given_stamps(
    images: NDArray[np.floating] | NDArray[np.integer],
    wavelengths: Sequence[float],
    pixel: float,
    size: int,
    fwhm: Sequence[float] | None = None,
    middle: int | None = None,
) -> Stamps:
    """Prepare images: resampled to `size` pixels by area, without sky, in units of the noise of their frame.

    Parameters
    ----------
    images : array ``[n, bands, y, x]``
        Square; NaN where there are no data. Linear fluxes keep their colours best, stretched pictures work, too.
    wavelengths : sequence of float
        Of the bands, Å.
    pixel : float
        Size of a pixel as given, arcsec.
    size : int
        Pixels on a side of the stamps.
    fwhm : sequence of float, optional
        Of the PSF in each band, arcsec; default: three pixels.
    middle : int, optional
        Side of the middle of the images, in their pixels, that becomes the stamps; default: all. What tells stars from
        galaxies lies there, and a whole image would be resampled to coarser pixels.

    Raises
    ------
    UsageError
        If the shapes do not fit.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[2] != images.shape[3] or images.shape[1] != len(wavelengths):
        raise UsageError(
            f"images of shape {images.shape} and {len(wavelengths)} wavelengths; expected [n, bands, y, x] with as many "
            "bands, and square"
        )
    n, bands, side, _ = images.shape
    if middle is not None and not 0 < middle <= side:
        raise UsageError(f"the middle {middle} pixels of images of {side}; expected 1 to {side}")
    # The frame that tells sky and noise is that of the whole image. As many pixels are cut from either side.
    cut = 0 if middle is None else round((side * size / middle - size) / 2)
    grid = size + 2 * cut
    matrix = _area_weights(side, grid)
    inner = (..., slice(cut, cut + size), slice(cut, cut + size))
    signal = np.zeros((n, bands, size, size), np.float32)
    valid = np.zeros((n, bands, size, size), np.uint8)
    noise = np.full((n, bands), np.nan, np.float32)
    for rows in np.array_split(np.arange(n), max(1, n // 512)):
        data = images[rows].astype(np.float32)
        good = np.isfinite(data)
        total = matrix @ np.where(good, data, 0) @ matrix.T
        weight = matrix @ good.astype(np.float32) @ matrix.T
        enough = weight > 0.6
        value = np.where(enough, total / np.maximum(weight, 1e-6), np.nan)
        level, spread = _sky(value)
        with np.errstate(invalid="ignore"):
            scaled = np.nan_to_num((value - level[..., None, None]) / spread[..., None, None])
        signal[rows] = scaled[inner]
        valid[rows] = (enough & np.isfinite(spread)[..., None, None])[inner]
        noise[rows] = spread
    scale = pixel * side / grid
    width = np.full(bands, _FWHM * pixel) if fwhm is None else np.asarray(fwhm, float)
    return Stamps(signal, valid, noise, np.asarray(wavelengths, float), width, scale)


def _area_weights(side: int, size: int) -> Float32:
    """Shares of `side` pixels in the `size` pixels that cover the same length, ``[size, side]``; rows sum to one."""
    edges = np.linspace(0, side, size + 1)
    first = np.arange(side)
    over = np.minimum(edges[1:, None], first + 1) - np.maximum(edges[:-1, None], first)
    return np.asarray(np.clip(over, 0, None) * size / side, np.float32)


def _sky(images: Float32) -> tuple[Float32, Float32]:
    """Median and robust rms of the frames of images ``[n, bands, y, x]``, each ``[n, bands]``."""
    size = images.shape[-1]
    edge = max(1, round(_FRAME * size))
    inside = np.zeros((size, size), bool)
    inside[edge:-edge, edge:-edge] = True
    frame = images[..., ~inside]
    empty = np.asarray(~np.isfinite(frame).any(axis=-1))
    frame = np.where(empty[..., None], 0, frame)
    level = np.nanmedian(frame, axis=-1)
    spread = 1.4826 * np.nanmedian(np.abs(frame - level[..., None]), axis=-1)
    whole = np.where(empty[..., None, None], 0, images)
    span = np.nanmax(whole, axis=(-2, -1)) - np.nanmin(whole, axis=(-2, -1))
    spread = np.where(spread > 0, spread, _QUANTUM * span)
    return level.astype(np.float32), np.where(empty | ~(spread > 0), np.nan, spread).astype(np.float32)
