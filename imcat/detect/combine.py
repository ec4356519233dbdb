"""All bands of a window in one map of signal-to-noise ratio.

Exposures are weighted as a source of the expected spectral energy
distribution asks for, filtered with a Gaussian of the PSF's width, and
divided by the noise that the same operation leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.align.grid import GridMap
from imcat.align.resample import KERNEL_MARGIN, align
from imcat.detect.settings import DetectSettings
from imcat.errors import ConfigError
from imcat.noise import NoiseModel
from imcat.noise.mesh import cell_statistics, clipped_rms_loss
from imcat.psf import FWHM_PER_SIGMA
from imcat.tile import Exposure
from imcat.window import Window

__all__ = ["CombinedMap", "Combiner", "Plane", "band_weights", "gaussian_kernel", "matched_filter"]

Float32 = NDArray[np.float32]

_SAMPLE_SIZE = 256  # of the boxes on which the noise of the filtered map is measured, pixels
_SAMPLE_CELL = 64
_SAMPLE_GRID = (0.2, 0.5, 0.8)  # centres of the boxes, as fractions of the image's sides
_CLIP = 3.0


@dataclass(frozen=True, eq=False)
class Plane:
    """One exposure with what the detection needs to know of it.

    Attributes
    ----------
    exposure : Exposure
        The pixels.
    noise : NoiseModel
        Its sky and noise.
    grid : GridMap
        From the reference grid to its pixels.
    area : float
        Native pixels per reference pixel.
    weight : float
        Expected flux density of a source in its band.
    """

    exposure: Exposure
    noise: NoiseModel
    grid: GridMap
    area: float
    weight: float


@dataclass(frozen=True, eq=False)
class CombinedMap:
    """The sum of the bands in one window, float32 arrays ``[y, x]``.

    Attributes
    ----------
    window : Window
        In the reference grid.
    numerator, denominator : arrays
        Their ratio is the weighted mean of the bands, nJy per reference pixel, not filtered;
        both are 0 without data. They reach beyond the window.
    offset : (int, int)
        Row and column at which the window begins in them.
    snr : array
        Signal-to-noise ratio of the filtered sum; 0 without data.
    """

    window: Window
    numerator: Float32
    denominator: Float32
    offset: tuple[int, int]
    snr: Float32


def band_weights(wavelengths: dict[str, float], settings: DetectSettings) -> dict[str, float]:
    """Expected flux density of a source in each band, relative to the others.

    Parameters
    ----------
    wavelengths : dict
        Effective wavelength of each band, Å.
    settings : DetectSettings
        Slope, and weights that replace it.

    Raises
    ------
    ConfigError
        If a weight names a band that is not there, or all are zero.
    """
    for name in settings.sed_weights:
        if name not in wavelengths:
            raise ConfigError(
                f"detect.sed_weights names the band {name!r}; expected one of {', '.join(wavelengths)}"
            )
    middle = float(np.exp(np.mean(np.log(list(wavelengths.values())))))
    weights = {
        name: settings.sed_weights.get(name, (wavelength / middle) ** settings.sed_slope)
        for name, wavelength in wavelengths.items()
    }
    if not any(weights.values()):
        raise ConfigError("detect.sed_weights leaves no band for the detection")
    return weights


def gaussian_kernel(sigma: float) -> Float32:
    """Samples of a normalised Gaussian out to three standard deviations, odd length."""
    radius = max(1, math.ceil(3 * sigma))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


@njit(cache=True, nogil=True)
def _filter_row(row, kernel, padded, line):  # type: ignore[no-untyped-def]
    r = kernel.size // 2
    columns = row.size
    padded[r : r + columns] = row
    line[:] = 0
    for k in range(kernel.size):
        weight = kernel[k]
        for x in range(columns):
            line[x] += weight * padded[x + k]


@njit(cache=True, nogil=True)
def matched_filter(numerator, denominator, kernel, scale, even, top, left, out):  # type: ignore[no-untyped-def]
    """Signal-to-noise ratio after a filter with a symmetric, separable kernel.

    Parameters
    ----------
    numerator, denominator : float32 arrays [y, x]
        Signal over variance, and inverse variance; zero without data, and beyond the edges.
    kernel : float32 array [2 r + 1]
        Weights of rows and of columns.
    scale : float32
        Factor on the result.
    even : bool
        Take the noise to be even within the filter, which saves half of the work; next to pixels
        without data the result is then too small.
    top, left : int
        Where `out` begins.
    out : float32 array [y, x]
        Filled; zero where the pixel itself has no data.

    Notes
    -----
    Rows pass through a ring of filtered rows, so that nothing as large as the image is made.
    """
    rows, columns = numerator.shape
    size = kernel.size
    r = size // 2
    square = kernel * kernel
    total = square.sum() * square.sum()
    padded = np.zeros(columns + 2 * r, np.float32)
    signal, noise = np.zeros((size, columns), np.float32), np.zeros((size, columns), np.float32)
    above, below = np.empty(columns, np.float32), np.empty(columns, np.float32)
    width = out.shape[1]
    first = max(top - r, 0)
    for y in range(first, min(top + out.shape[0] + r, rows + r)):
        if y < rows:
            _filter_row(numerator[y], kernel, padded, signal[y % size])
            if not even:
                _filter_row(denominator[y], square, padded, noise[y % size])
        target = y - r
        if target < top or target >= top + out.shape[0]:
            continue
        above[:] = 0
        below[:] = 0
        for k in range(size):
            source = target - r + k
            if source < 0 or source >= rows:
                continue
            weight, weight2 = kernel[k], square[k]
            s = signal[source % size]
            for x in range(columns):
                above[x] += weight * s[x]
            if not even:
                n = noise[source % size]
                for x in range(columns):
                    below[x] += weight2 * n[x]
        if even:
            for x in range(columns):
                below[x] = total * denominator[target, x]
        own, result = denominator[target], out[target - top]
        for x in range(width):
            n = below[x + left]
            good = own[x + left] > 0 and n > 0
            result[x] = (
                scale * above[x + left] / np.sqrt(n if good else np.float32(1)) if good else np.float32(0)
            )


@njit(cache=True, nogil=True)
def _add_plane(data, variance, weight, area, numerator, denominator):  # type: ignore[no-untyped-def]
    """Add ``w d / v`` and ``w² / v`` of one exposure, in units per reference pixel."""
    w, a = np.float32(weight), np.float32(area)
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            v = variance[y, x]
            if v > 0:
                inverse = w / (v * a * a)
                numerator[y, x] += inverse * data[y, x] * a
                denominator[y, x] += w * inverse


class Combiner:
    """Makes the map of signal-to-noise ratio of any window of a tile.

    Parameters
    ----------
    planes : sequence of Plane
        The exposures; those of weight 0 are left out.
    shape : (int, int)
        Rows and columns of the reference grid.
    kernel_fwhm : float
        FWHM of the filter, reference pixels.
    """

    def __init__(self, planes: Sequence[Plane], shape: tuple[int, int], kernel_fwhm: float) -> None:
        self.planes = tuple(plane for plane in planes if plane.weight > 0)
        self.shape = shape
        self.kernel = gaussian_kernel(kernel_fwhm / FWHM_PER_SIGMA)
        self.radius = self.kernel.size // 2
        self.noise_scale = 1.0
        # Measured noise varies over a mesh cell, not within the filter.
        self.even = all(plane.exposure.variance is None for plane in self.planes)

    def __call__(self, window: Window) -> CombinedMap:
        """Sum and filter the bands in a window of the reference grid."""
        outer = window.grow(self.radius, self.shape)
        numerator = np.zeros(outer.shape, np.float32)
        denominator = np.zeros(outer.shape, np.float32)
        for plane in self.planes:
            native = plane.grid.native_window(outer, 0 if plane.grid.identity else KERNEL_MARGIN)
            if native.empty:
                continue
            cutout = plane.noise.read(plane.exposure, native)
            data, variance = align(cutout.data, cutout.variance, native, plane.grid, outer)
            _add_plane(data, variance, plane.weight, plane.area, numerator, denominator)
        top, left = window.y0 - outer.y0, window.x0 - outer.x0
        top, left = window.y0 - outer.y0, window.x0 - outer.x0
        snr = np.empty(window.shape, np.float32)
        scale = np.float32(1 / self.noise_scale)
        matched_filter(numerator, denominator, self.kernel, scale, self.even, top, left, snr)
        return CombinedMap(window, numerator, denominator, (top, left), snr)

    def calibrate(self, pool: Executor | None = None) -> float:
        """Measure the noise of the filtered map in blank sky and divide by it from now on.

        Correlated noise, interpolation between grids and errors of the given variance all change
        it; in white noise on one grid it is 1. Measured in boxes whose places depend on the tile
        alone.

        Parameters
        ----------
        pool : Executor, optional
            Threads for the boxes; their number does not change the result.

        Returns
        -------
        float
            The rms that the map had.
        """
        self.noise_scale = 1.0

        def box_widths(centre: tuple[float, float]) -> list[float]:
            return _cell_widths(self(self._sample_window(*centre)).snr)

        boxes = [(fy, fx) for fy in _SAMPLE_GRID for fx in _SAMPLE_GRID]
        parts = pool.map(box_widths, boxes) if pool is not None else map(box_widths, boxes)
        widths = [width for part in parts for width in part]
        if widths:
            # Sources widen the distribution of a cell, nothing narrows it: the lower quartile
            # stands for blank sky.
            self.noise_scale = float(np.percentile(widths, 25)) / clipped_rms_loss(_CLIP)
        return self.noise_scale

    def _sample_window(self, fy: float, fx: float) -> Window:
        y = int(fy * self.shape[0]) - _SAMPLE_SIZE // 2
        x = int(fx * self.shape[1]) - _SAMPLE_SIZE // 2
        return Window(y, y + _SAMPLE_SIZE, x, x + _SAMPLE_SIZE).clip(self.shape)


def _cell_widths(snr: Float32) -> list[float]:
    """Clipped rms of the cells of a box of the filtered map."""
    widths: list[float] = []
    for top in range(0, snr.shape[0] - _SAMPLE_CELL // 2, _SAMPLE_CELL):
        strip = np.ascontiguousarray(snr[top : top + _SAMPLE_CELL])
        cells = np.zeros((3, -(-snr.shape[1] // _SAMPLE_CELL)))
        cell_statistics(strip, strip == 0, _SAMPLE_CELL, _CLIP, cells[0], cells[1], cells[2])
        widths += cells[1][(cells[2] > 0.5) & (cells[1] > 0)].tolist()
    return widths
