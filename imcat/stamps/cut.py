"""Stamps of many sources at once, cut from native pixels and laid on one grid centred on each source.

Every exposure is interpolated from its own pixels, through its own world coordinates, onto a grid around the source
whose pixels have the same size in every band and whose axes are those of the reference image. What a network sees is in
units of the noise; no flux of the catalogue comes from these pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.align import local_affine
from imcat.align.resample import cubic_weights
from imcat.measure.views import Layer
from imcat.stamps.settings import StampSettings
from imcat.tile import Exposure
from imcat.window import Window, tile_windows

__all__ = ["Stamps", "cut_stamps", "stamp_windows", "stamps_by_window"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_WINDOW = 1024  # reference pixels
_BATCH = 512  # sources: with seven bands 45 MB
_ALIKE = 0.1  # pixels by which two grids may drift apart over a stamp to count as alike
_LEAST = 0.6  # share of the kernel's weight that must lie on good pixels


@dataclass(frozen=True, eq=False)
class Stamps:
    """Stamps of n sources.

    Attributes
    ----------
    signal : float32 array ``[n, bands, y, x]``
        Sky-subtracted pixels in units of `noise`; 0 where `valid` is 0.
    valid : uint8 array ``[n, bands, y, x]``
        1 where there are data.
    noise : float32 array ``[n, bands]``
        Noise of sky and detector in one pixel of the stamp, nJy; NaN where the band has no data.
    wavelength, fwhm : float64 arrays ``[bands]``
        Å; arcsec.
    pixel : float
        Size of a pixel, arcsec.
    """

    signal: Float32
    valid: NDArray[np.uint8]
    noise: Float32
    wavelength: Float64
    fwhm: Float64
    pixel: float

    def __len__(self) -> int:
        return len(self.signal)


@njit(cache=True, nogil=True, fastmath=True)
def _shift(data, variance, x, y, matrix, factor, share, total, weight):  # type: ignore[no-untyped-def]
    """Interpolate by a shift alone, row by row, where grids are alike and every pixel is good; else False."""
    size = total.shape[0]
    turn = max(abs(matrix[0, 0] - 1), abs(matrix[1, 1] - 1), abs(matrix[0, 1]), abs(matrix[1, 0]))
    if turn * size > _ALIKE:
        return False
    left, top = x - 0.5 * (size - 1), y - 0.5 * (size - 1)
    bx, by = int(np.floor(left)) - 1, int(np.floor(top)) - 1
    if bx < 0 or by < 0 or bx + size + 3 > data.shape[1] or by + size + 3 > data.shape[0]:
        return False
    for q in range(by, by + size + 3):
        for p in range(bx, bx + size + 3):
            if variance[q, p] <= 0:
                return False
    wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
    cubic_weights(np.float32(left - bx - 1), wx)
    cubic_weights(np.float32(top - by - 1), wy)
    rows = np.empty((size + 3, size), np.float32)
    for j in range(size + 3):
        line = data[by + j, bx : bx + size + 3]
        for i in range(size):
            rows[j, i] = wx[0] * line[i] + wx[1] * line[i + 1] + wx[2] * line[i + 2] + wx[3] * line[i + 3]
    for j in range(size):
        for i in range(size):
            value = (
                wy[0] * rows[j, i] + wy[1] * rows[j + 1, i] + wy[2] * rows[j + 2, i] + wy[3] * rows[j + 3, i]
            )
            total[j, i] += factor * value
            weight[j, i] += share
    return True


@njit(cache=True, nogil=True, fastmath=True)
def _cut(data, variance, x, y, matrix, area, total, weight):  # type: ignore[no-untyped-def]
    """Add one exposure to the stamps, weighted with the inverse of its variance at the source.

    `matrix` leads from stamp offsets to native ones. Returns nothing: `total` ``[n, size, size]`` gathers values times
    weights, `weight` the weights.
    """
    rows, columns = data.shape
    size = total.shape[1]
    middle = np.float32(0.5 * (size - 1))
    wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
    for s in range(x.size):
        if not (np.isfinite(x[s]) and np.isfinite(y[s])):
            continue
        own = _typical(variance, x[s], y[s])
        if own <= 0:
            continue
        share = np.float32(1 / (own * area[s] * area[s]))
        if _shift(
            data, variance, x[s], y[s], matrix[s], share * np.float32(area[s]), share, total[s], weight[s]
        ):
            continue
        for j in range(size):
            v = np.float32(j) - middle
            for i in range(size):
                u = np.float32(i) - middle
                px = x[s] + matrix[s, 0, 0] * u + matrix[s, 0, 1] * v
                py = y[s] + matrix[s, 1, 0] * u + matrix[s, 1, 1] * v
                if not (px >= -0.5 and py >= -0.5 and px < columns - 0.5 and py < rows - 0.5):
                    continue
                if variance[int(py + 0.5), int(px + 0.5)] <= 0:
                    continue
                bx, by = int(px + 1) - 1, int(py + 1) - 1  # floor, for positions above -1
                cubic_weights(np.float32(px - bx), wx)
                cubic_weights(np.float32(py - by), wy)
                value, found = np.float32(0), np.float32(0)
                for k in range(4):
                    q = by - 1 + k
                    if q < 0 or q >= rows:
                        continue
                    for m in range(4):
                        p = bx - 1 + m
                        if p < 0 or p >= columns or variance[q, p] <= 0:
                            continue
                        w = wx[m] * wy[k]
                        value += w * data[q, p]
                        found += w
                if found > _LEAST:
                    total[s, j, i] += share * value / found * np.float32(area[s])
                    weight[s, j, i] += share


@njit(cache=True, nogil=True)
def _typical(variance, x, y):  # type: ignore[no-untyped-def]
    """Mean variance of the good pixels within 4 of a position; 0 where there are none."""
    rows, columns = variance.shape
    cx, cy = int(np.rint(x)), int(np.rint(y))
    total, number = 0.0, 0
    for q in range(max(cy - 4, 0), min(cy + 5, rows)):
        for p in range(max(cx - 4, 0), min(cx + 5, columns)):
            if variance[q, p] > 0:
                total += variance[q, p]
                number += 1
    return total / number if number else 0.0


def cut_stamps(
    layers: Sequence[Layer],
    wavelengths: Mapping[str, float],
    reference: Exposure,
    x: Float64,
    y: Float64,
    arcsec: float,
    settings: StampSettings,
) -> Stamps:
    """Cut stamps of sources that lie near each other.

    Parameters
    ----------
    layers : sequence of Layer
        The exposures, with sky and noise; those of one band follow each other.
    wavelengths : mapping of str to float
        Of the bands, Å.
    reference : Exposure
        On whose grid the positions are.
    x, y : float64 arrays ``[n]``
        Pixels of the reference image. What lies between them is read as a whole: call this window by window.
    arcsec : float
        Size of a pixel of the reference image.
    settings : StampSettings
        Size and pixel.
    """
    n, size = len(x), settings.size * settings.binning
    pixel = settings.pixel or arcsec
    bands = list(dict.fromkeys(layer.band for layer in layers))
    signal = np.zeros((n, len(bands), size, size), np.float32)
    valid = np.zeros(signal.shape, np.uint8)
    noise = np.full((n, len(bands)), np.nan, np.float32)
    fwhm = np.zeros(len(bands))
    for k, band in enumerate(bands):
        own = [layer for layer in layers if layer.band == band]
        fwhm[k] = float(np.mean([layer.psf_sigma for layer in own])) * 2.3548
        total, weight = np.zeros((n, size, size), np.float32), np.zeros((n, size, size), np.float32)
        for layer in own:
            _add(layer, reference, x, y, pixel / arcsec, total, weight)
        peak = weight.max(axis=(1, 2), initial=0.0)
        some = peak > 0
        noise[some, k] = 1 / np.sqrt(peak[some])
        there = weight > 0
        valid[:, k] = there
        scale = np.where(some, np.sqrt(peak), 0.0).astype(np.float32)
        np.divide(total * scale[:, None, None], weight, out=signal[:, k], where=there)
    whole = Stamps(signal, valid, noise, np.array([wavelengths[band] for band in bands]), fwhm, pixel)
    return whole if settings.binning == 1 else _binned(whole, settings.binning)


def _binned(stamps: Stamps, side: int) -> Stamps:
    """Squares of pixels added up, what is missing made up from the rest of its square."""
    n, bands, size, _ = stamps.signal.shape
    cut = (n, bands, size // side, side, size // side, side)
    number = stamps.valid.reshape(cut).sum(axis=(3, 5), dtype=np.int32)
    total = stamps.signal.reshape(cut).sum(axis=(3, 5))
    there = 2 * number >= side**2
    # The noise of a sum of n pixels is the root of n times that of one; that of a square with gaps is taken as it is.
    signal = np.divide(side * total, number, out=np.zeros_like(total), where=there)
    return Stamps(
        signal,
        there.astype(np.uint8),
        side * stamps.noise,
        stamps.wavelength,
        stamps.fwhm,
        side * stamps.pixel,
    )


def stamps_by_window(
    layers: Sequence[Layer],
    wavelengths: Mapping[str, float],
    reference: Exposure,
    x: Float64,
    y: Float64,
    arcsec: float,
    settings: StampSettings,
) -> Iterator[tuple[NDArray[np.int64], Stamps]]:
    """Stamps of a tile's sources, window by window, so that memory stays bounded.

    Parameters are those of `cut_stamps`. The windows are fixed by the tile: the batches are the same everywhere.

    Yields
    ------
    index : int64 array
        Of the sources of the window.
    stamps : Stamps
        Theirs.
    """
    for index in stamp_windows(reference.shape, x, y):
        yield index, cut_stamps(layers, wavelengths, reference, x[index], y[index], arcsec, settings)


def stamp_windows(shape: tuple[int, int], x: Float64, y: Float64) -> list[NDArray[np.int64]]:
    """Sources that are cut together: those of one window of the reference image, in batches of a set size.

    Parameters
    ----------
    shape : (int, int)
        Of the reference image.
    x, y : float64 arrays ``[n]``
        Its pixels.
    """
    at_x = np.clip(np.nan_to_num(x), 0, shape[1] - 1)
    at_y = np.clip(np.nan_to_num(y), 0, shape[0] - 1)
    batches = []
    for core in tile_windows(shape, _WINDOW):
        inside = (core.y0 <= at_y) & (at_y < core.y1) & (core.x0 <= at_x) & (at_x < core.x1)
        index = np.flatnonzero(inside)
        batches += [part for part in np.array_split(index, max(1, -(-index.size // _BATCH))) if part.size]
    return batches


def _add(
    layer: Layer, reference: Exposure, x: Float64, y: Float64, step: float, total: Float32, weight: Float32
) -> None:
    """Read what an exposure has around the sources, and add it."""
    local = local_affine(reference.wcs, layer.exposure.wcs, x, y)
    matrix = local.jacobian * step
    good = np.isfinite(local.x) & np.isfinite(local.y) & np.isfinite(matrix).all(axis=(1, 2))
    if not good.any():
        return
    half = 0.75 * total.shape[1] * float(np.abs(np.linalg.det(matrix[good])).max()) ** 0.5 + 4
    shape = layer.exposure.shape
    window = Window(
        max(int(local.y[good].min() - half), 0), min(int(local.y[good].max() + half) + 1, shape[0]),
        max(int(local.x[good].min() - half), 0), min(int(local.x[good].max() + half) + 1, shape[1]),
    )  # fmt: skip
    if window.y1 <= window.y0 or window.x1 <= window.x0:
        return
    cutout = layer.noise.read(layer.exposure, window)
    variance = np.where(cutout.bad, np.float32(0), cutout.variance)
    nx = np.where(good, local.x - window.x0, np.nan)
    ny = np.where(good, local.y - window.y0, np.nan)
    area = np.where(good, np.abs(np.linalg.det(np.where(good[:, None, None], matrix, np.eye(2)))), 1.0)
    _cut(cutout.data, variance, nx, ny, matrix.astype(np.float32), area, total, weight)
