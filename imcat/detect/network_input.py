"""What the detection network sees of a window: each band in units of its own noise, and sums of them.

Any set of bands will do. A band is described by three numbers (wavelength, width of the PSF, depth),
and what the sums are weighted with follows from the same numbers, so that nothing knows of filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.align.resample import KERNEL_MARGIN, align
from imcat.detect.combine import CombinedMap, Plane, gaussian_kernel, matched_filter
from imcat.psf import FWHM_PER_SIGMA
from imcat.window import Window

__all__ = [
    "CONDITIONS",
    "FEATURES",
    "FILTERED",
    "SHARE",
    "BandPlanes",
    "BandSet",
    "NetworkInput",
    "WindowReader",
    "blank_noise",
    "compress",
    "features",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Powers of wavelength with which a source's flux density goes, for the sums of the bands: hot stars and
#: quasars, the typical faint source, galaxies whose 4000 Å break lies among the bands.
_SLOPES = (0.0, 1.5, 3.5)
_MAIN = 1  # of them the one that is filtered and gives the signal-to-noise ratio

_WIDE = 2.0  # width of the filter for extended sources, in units of the PSF's

_SUMS = len(_SLOPES)
_WIDE_MAP, _SHARE, _TOP, _CHI2 = range(2 * _SUMS, 2 * _SUMS + 4)
#: Maps that `features` makes: the sums, the filtered sums, the main one filtered for extended sources, the share of the
#: data that is there, the brightest band, and how much the bands differ.
FEATURES = _CHI2 + 1
#: Of them the filtered main sum, and the share of the data that is there.
FILTERED, SHARE = _SUMS + _MAIN, _SHARE
#: Numbers of `BandSet.conditions`.
CONDITIONS = 2

_SAMPLE, _FEWEST_PIXELS = 160, 500  # side of the windows in which the noise is measured; pixels that it takes
_PIVOT = 6000.0  # Å: middle of the optical range, to centre the logarithm
_TYPICAL_FWHM = 3.0  # pixels: likewise


@dataclass(frozen=True, eq=False)
class BandPlanes:
    """The exposures of one band.

    Attributes
    ----------
    wavelength : float
        Å.
    fwhm : float
        Of the PSF, reference pixels.
    planes : tuple of Plane
        Their weights are not used.
    """

    wavelength: float
    fwhm: float
    planes: tuple[Plane, ...]


@dataclass(frozen=True, eq=False)
class BandSet:
    """What describes a set of bands; arrays ``[bands]`` in any order.

    Attributes
    ----------
    wavelength : float64
        Å.
    fwhm : float64
        Of the PSF, reference pixels.
    noise : float64
        Typical noise of a reference pixel, nJy.
    """

    wavelength: Float64
    fwhm: Float64
    noise: Float64

    @property
    def weights(self) -> Float64:
        """Weights of the bands in noise units, ``[sums, bands]``; the squares of a row sum to one."""
        slopes = np.array(_SLOPES)[:, None]
        signal = (self.wavelength / _PIVOT) ** slopes / self.noise
        return np.asarray(signal / np.sqrt((signal**2).sum(axis=1, keepdims=True)))

    @property
    def main_weights(self) -> Float64:
        """Weights of the bands in the main sum, ``[bands]``."""
        return np.asarray(self.weights[_MAIN])

    @property
    def main_fwhm(self) -> float:
        """FWHM of the main sum's PSF, reference pixels."""
        return float((self.weights[_MAIN] ** 2 * self.fwhm).sum())

    def conditions(self) -> Float32:
        """Numbers that the network is conditioned with, ``[CONDITIONS]``: width of the PSF, and how many bands count."""
        # Bands that take part: one over the sum of the squared shares.
        number = 1 / (self.weights[_MAIN] ** 4).sum()
        return np.array([np.log(self.main_fwhm / _TYPICAL_FWHM), np.log(number) - 0.5], np.float32)


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """One window as the network sees it.

    Attributes
    ----------
    signal : float32 array [bands, y, x]
        Sky-subtracted pixels in units of their noise, 0 without data.
    valid : float32 array [bands, y, x]
        1 with data, 0 without.
    maps : float32 array [FEATURES, y, x]
        See `features`.
    combined : CombinedMap
        The main sum as the other engine has it; numerator and denominator are in units of noise.
    """

    signal: Float32
    valid: Float32
    maps: Float32
    combined: CombinedMap


@njit(cache=True, nogil=True)
def _add(data, variance, area, numerator, denominator):  # type: ignore[no-untyped-def]
    """Add ``d / v`` and ``1 / v`` of one exposure, in units per reference pixel."""
    a = np.float32(area)
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            v = variance[y, x]
            if v > 0:
                inverse = np.float32(1) / (v * a)
                numerator[y, x] += inverse * data[y, x]
                denominator[y, x] += inverse / a


@njit(cache=True, nogil=True)
def _normalise(numerator, denominator, valid):  # type: ignore[no-untyped-def]
    """Turn weighted sums into units of their noise, in place."""
    for y in range(numerator.shape[0]):
        for x in range(numerator.shape[1]):
            d = denominator[y, x]
            if d > 0:
                numerator[y, x] /= np.sqrt(d)
                valid[y, x] = 1
            else:
                numerator[y, x] = 0
                valid[y, x] = 0


@njit(cache=True, nogil=True)
def _sums(signal, valid, weights, out, numerator, denominator):  # type: ignore[no-untyped-def]
    """Sums of the bands in units of their noise, their numerators and denominators."""
    sums, bands = weights.shape
    rows, columns = signal.shape[1:]
    for y in range(rows):
        for k in range(sums):
            above, below = numerator[k, y], denominator[k, y]
            above[:] = 0
            below[:] = 0
            for b in range(bands):
                w = weights[k, b]
                s, v = signal[b, y], valid[b, y]
                for x in range(columns):
                    above[x] += w * s[x] * v[x]
                    below[x] += w * w * v[x]
            row = out[k, y]
            for x in range(columns):
                row[x] = above[x] / np.sqrt(below[x]) if below[x] > 0 else np.float32(0)


@njit(cache=True, nogil=True)
def _spread(signal, valid, expected, sums, highest, spread):  # type: ignore[no-untyped-def]
    """The highest band, and chi² of the bands about what the main sum says, in units of its own scatter.

    `expected` is the signal-to-noise ratio of each band in units of that of the sum, for a source of the main slope.
    """
    bands, rows, columns = signal.shape
    for y in range(rows):
        for x in range(columns):
            top, total, n = np.float32(0), np.float32(0), 0
            s = sums[y, x]
            for b in range(bands):
                if valid[b, y, x] > 0:
                    v = signal[b, y, x]
                    top = max(top, v)
                    d = v - expected[b] * s
                    total += d * d
                    n += 1
            highest[y, x] = top
            # A sum of squares less one degree of freedom; the scatter of chi² is sqrt(2 n).
            spread[y, x] = (
                (total - (n - 1)) / np.sqrt(np.float32(2 * max(n - 1, 1))) if n > 1 else np.float32(0)
            )


def features(
    signal: Float32, valid: Float32, bands: BandSet, noise_scale: float = 1.0
) -> tuple[Float32, Float32, Float32]:
    """Sums of the bands for sources of several colours, as they are and filtered with the PSF.

    Parameters
    ----------
    signal, valid : float32 arrays [bands, y, x]
        See `NetworkInput`.
    bands : BandSet
        Their description, in the same order.
    noise_scale : float
        Noise that the filtered sum has in blank sky, where it is not 1.

    Returns
    -------
    maps : float32 array [FEATURES, y, x]
        Sums in units of their noise, filtered sums, main sum filtered for extended sources, share of the data that is
        there, brightest band, chi² of the bands about the main sum.
    numerator, denominator : float32 arrays [y, x]
        Of the main sum.
    """
    shape = signal.shape[1:]
    maps = np.empty((FEATURES, *shape), np.float32)
    numerator = np.empty((_SUMS, *shape), np.float32)
    denominator = np.empty_like(numerator)
    _sums(signal, valid, bands.weights.astype(np.float32), maps, numerator, denominator)
    sigma, scale = bands.main_fwhm / FWHM_PER_SIGMA, np.float32(1 / noise_scale)
    kernel = gaussian_kernel(sigma)
    for k in range(_SUMS):
        matched_filter(numerator[k], denominator[k], kernel, scale, False, 0, 0, maps[_SUMS + k])
    above, below = numerator[_MAIN], denominator[_MAIN]
    matched_filter(above, below, gaussian_kernel(_WIDE * sigma), scale, True, 0, 0, maps[_WIDE_MAP])
    maps[_SHARE] = below
    expected = bands.main_weights.astype(np.float32)
    _spread(signal, valid, expected, maps[_MAIN], maps[_TOP], maps[_CHI2])
    return maps, above, below


def blank_noise(maps: Float32) -> float:
    """Noise that the filtered main sum has in blank sky.

    Values below zero are next to free of sources; half the width of their distribution tells that of the noise.

    Parameters
    ----------
    maps : float32 array ``[FEATURES, ...]``
        Of `features`, of any pixels, with a noise scale of 1.
    """
    snr = maps[FILTERED][maps[_SHARE] > 0]
    below = -snr[snr < 0]
    if below.size <= _FEWEST_PIXELS:
        return 1.0
    return float(np.clip(1.4826 * np.median(below), 0.5, 5.0))


def compress(maps: Float32) -> Float32:
    """Signal-to-noise ratios of all sizes on a scale that a network takes: linear about 0, logarithmic beyond."""
    # arcsinh, but through the logarithm, of which numpy has a fast one: right to 3e-7.
    size = np.abs(maps)
    return np.asarray(np.copysign(np.log(size + np.sqrt(size * size + 1)), maps))


class WindowReader:
    """Makes the network's input of any window of a tile.

    Parameters
    ----------
    bands : sequence of BandPlanes
        In any order.
    shape : (int, int)
        Rows and columns of the reference grid.
    noise_scale : float
        Noise that the filtered sum has in blank sky (`Combiner.noise_scale`).
    """

    def __init__(self, bands: Sequence[BandPlanes], shape: tuple[int, int], noise_scale: float = 1.0) -> None:
        self.planes = tuple(bands)
        self.shape = shape
        self.noise_scale = noise_scale
        self.bands = BandSet(
            np.array([band.wavelength for band in bands], dtype=float),
            np.array([band.fwhm for band in bands], dtype=float),
            np.array([_typical_noise(band.planes) for band in bands]),
        )

    def calibrate(self) -> float:
        """Measure the noise that the filtered sum has in blank sky (`blank_noise`), set `noise_scale` to it, return it."""
        self.noise_scale, values = 1.0, []
        rows, columns = self.shape
        side = min(_SAMPLE, rows, columns)
        for fy in (0.15, 0.5, 0.85):
            for fx in (0.15, 0.5, 0.85):
                y0, x0 = int(fy * (rows - side)), int(fx * (columns - side))
                seen = self(Window(y0, y0 + side, x0, x0 + side)).maps
                values.append(seen.reshape(FEATURES, -1))
        self.noise_scale = blank_noise(np.concatenate(values, axis=1))
        return self.noise_scale

    def read(self, window: Window) -> tuple[Float32, Float32]:
        """Signal and validity of every band in a window of the reference grid, ``[bands, y, x]``."""
        signal = np.zeros((len(self.planes), *window.shape), np.float32)
        valid = np.zeros_like(signal)
        for b, band in enumerate(self.planes):
            for plane in band.planes:
                native = plane.grid.native_window(window, 0 if plane.grid.identity else KERNEL_MARGIN)
                if native.empty:
                    continue
                cutout = plane.noise.read(plane.exposure, native)
                data, variance = align(cutout.data, cutout.variance, native, plane.grid, window)
                _add(data, variance, plane.area, signal[b], valid[b])
            _normalise(signal[b], valid[b], valid[b])
        return signal, valid

    def __call__(self, window: Window) -> NetworkInput:
        """Read a window and make its sums."""
        signal, valid = self.read(window)
        maps, numerator, denominator = features(signal, valid, self.bands, self.noise_scale)
        combined = CombinedMap(window, numerator, denominator, (0, 0), maps[FILTERED])
        return NetworkInput(signal, valid, maps, combined)


def _typical_noise(planes: Sequence[Plane]) -> float:
    """Noise of a reference pixel in the weighted mean of exposures, nJy."""
    inverse = sum(1 / (plane.area * max(plane.noise.rms, 1e-30)) ** 2 for plane in planes)
    return 1 / math.sqrt(inverse)
