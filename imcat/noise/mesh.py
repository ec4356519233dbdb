"""A coarse mesh of sky level and noise, and its value at every pixel.

The image is cut into square cells. In each, pixels are clipped around their
median until nothing changes; the level is the mode in the approximation of
SExtractor (Bertin & Arnouts 1996, A&AS 117, 393: 2.5 median - 1.5 mean, or the
median where the field is crowded), the noise is the clipped rms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.noise.settings import NoiseSettings
from imcat.window import Window

__all__ = ["Mesh", "cell_statistics", "clipped_rms_loss"]

Float32 = NDArray[np.float32]

_BINS = 512  # of the histogram of a cell, over +-5 rms: 0.02 rms each
# Two running means of this many bins smooth it, together a triangle that reaches 0.37 rms to either side: pixels
# that come in whole counts make a comb, whose median would be wrong by up to half a count, and the mode by
# more. Up to counts of 0.4 rms the comb is gone; a wider triangle would hide the skewness that sources cause.
_SMOOTH = 19


def clipped_rms_loss(clip: float) -> float:
    """Rms of a unit normal distribution cut at plus and minus `clip`.

    Examples
    --------
    >>> round(clipped_rms_loss(3.0), 4)
    0.9866
    """
    inside = math.erf(clip / math.sqrt(2))
    density = math.exp(-0.5 * clip * clip) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * clip * density / inside)


@njit(cache=True, nogil=True)
def _first_moments(strip, bad, x0, x1, low, high):  # type: ignore[no-untyped-def]
    n, total, square = 0, 0.0, 0.0
    for y in range(0, strip.shape[0], 2):  # only to set up the histogram: every other row does
        for x in range(x0, x1):
            v = strip[y, x]
            if not bad[y, x] and low <= v <= high:
                n += 1
                total += v
                square += v * v
    if n < 2:
        return n, 0.0, 0.0
    mean = total / n
    return n, mean, math.sqrt(max(square / n - mean * mean, 0.0))


@njit(cache=True, nogil=True)
def _running_mean(values, width, out):  # type: ignore[no-untyped-def]
    """Mean over `width` bins around each (an odd number); what lies beyond the ends is zero."""
    half = width // 2
    total = 0.0
    for i in range(min(half, values.size)):
        total += values[i]
    for i in range(values.size):
        if i + half < values.size:
            total += values[i + half]
        if i - half - 1 >= 0:
            total -= values[i - half - 1]
        out[i] = total / width


@njit(cache=True, nogil=True)
def _clip_histogram(counts, smooth, clip):  # type: ignore[no-untyped-def]
    """Number of pixels, mean, median and rms, in bins, of a histogram clipped around its median.

    Mean and median are those of the smoothed histogram, the rms is that of the counts.
    """
    low, high = 0, counts.size - 1
    mean, median, rms, total = 0.0, 0.0, 0.0, 0
    for _ in range(20):
        total, first, second = 0, 0.0, 0.0
        whole, moment = 0.0, 0.0
        for i in range(low, high + 1):
            total += counts[i]
            first += counts[i] * float(i)
            second += counts[i] * float(i) * i
            whole += smooth[i]
            moment += smooth[i] * i
        if total < 2:
            break
        rms = math.sqrt(max(second / total - (first / total) ** 2, 0.0))
        mean = moment / whole
        seen, half = 0.0, 0.5 * whole
        for i in range(low, high + 1):
            if seen + smooth[i] >= half:
                median = i - 0.5 + (half - seen) / max(smooth[i], 1e-300)
                break
            seen += smooth[i]
        new_low = max(int(math.ceil(median - clip * rms)), 0)
        new_high = min(int(math.floor(median + clip * rms)), counts.size - 1)
        if new_low == low and new_high == high:
            break
        low, high = new_low, new_high
    return total, mean, median, rms


@njit(cache=True, nogil=True)
def cell_statistics(strip, bad, size, clip, level, rms, good):  # type: ignore[no-untyped-def]
    """Sky level and noise of the cells along one strip of rows.

    Parameters
    ----------
    strip : float32 array [y, x]
        At most `size` rows.
    bad : bool array [y, x]
        Pixels to leave out.
    size : int
        Width of a cell.
    clip : float
        Clipping in units of the rms.
    level, rms, good : float64 arrays [cells]
        Filled with mode, clipped rms and fraction of pixels used.
    """
    counts, once, smooth = np.empty(_BINS), np.empty(_BINS), np.empty(_BINS)
    for cell in range(level.size):
        x0, x1 = cell * size, min((cell + 1) * size, strip.shape[1])
        n, mean, sigma = _first_moments(strip, bad, x0, x1, -np.inf, np.inf)
        for _ in range(2):
            n, mean, sigma = _first_moments(strip, bad, x0, x1, mean - 2 * sigma, mean + 2 * sigma)
        level[cell], rms[cell], good[cell] = np.nan, np.nan, 0.0
        if n < 2:
            continue
        if sigma <= 0:
            level[cell], rms[cell], good[cell] = mean, 0.0, 1.0
            continue
        counts[:] = 0
        scale = _BINS / (10 * sigma)
        origin = mean - 5 * sigma
        usable = 0
        for y in range(strip.shape[0]):
            for x in range(x0, x1):
                if not bad[y, x]:
                    usable += 1
                    position = (strip[y, x] - origin) * scale
                    if 0 <= position < _BINS:
                        counts[int(position)] += 1
        _running_mean(counts, _SMOOTH, once)
        _running_mean(once, _SMOOTH, smooth)
        n, mean, median, width = _clip_histogram(counts, smooth, clip)
        if n < 2:
            continue
        mode = 2.5 * median - 1.5 * mean if abs(mean - median) < 0.3 * width else median
        level[cell] = origin + (mode + 0.5) / scale
        rms[cell] = width / scale
        good[cell] = usable / (strip.shape[0] * (x1 - x0))


@njit(cache=True, nogil=True)
def _cubic(t, weights):  # type: ignore[no-untyped-def]
    # Catmull-Rom: passes through the nodes, uses four of them.
    weights[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    weights[1] = (1.5 * t - 2.5) * t * t + 1.0
    weights[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    weights[3] = (0.5 * t - 0.5) * t * t


@njit(cache=True, nogil=True)
def _column_weights(columns, size, x0, base, table):  # type: ignore[no-untyped-def]
    weights = np.empty(4)
    for x in range(base.size):
        u = (x0 + x + 0.5) / size - 0.5
        base[x] = min(max(int(math.floor(u)), -1), columns - 1)
        t = min(max(u - base[x], 0.0), 1.0)
        _cubic(t, weights)
        for k in range(4):
            table[k, x] = weights[k]


@njit(cache=True, nogil=True)
def _row_nodes(nodes, size, y, weights, line):  # type: ignore[no-untyped-def]
    """Nodes of the mesh along one row of pixels, two more on either side."""
    rows, columns = nodes.shape
    v = (y + 0.5) / size - 0.5
    row = min(max(int(math.floor(v)), -1), rows - 1)
    _cubic(min(max(v - row, 0.0), 1.0), weights)
    for i in range(columns):
        value = 0.0
        for k in range(4):
            value += weights[k] * nodes[min(max(row - 1 + k, 0), rows - 1), i]
        line[i + 2] = value
    line[0] = line[1] = line[2]
    line[columns + 2] = line[columns + 3] = line[columns + 1]


@njit(cache=True, nogil=True)
def _evaluate_row(line, base, table, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        b = base[x] + 1
        out[x] = (
            table[0, x] * line[b] + table[1, x] * line[b + 1]
            + table[2, x] * line[b + 2] + table[3, x] * line[b + 3]
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _evaluate(nodes, size, y0, x0, out):  # type: ignore[no-untyped-def]
    line, weights = np.empty(nodes.shape[1] + 4), np.empty(4)
    base, table = np.empty(out.shape[1], np.int64), np.empty((4, out.shape[1]))
    _column_weights(nodes.shape[1], size, x0, base, table)
    for y in range(out.shape[0]):
        _row_nodes(nodes, size, y0 + y, weights, line)
        _evaluate_row(line, base, table, out[y])


@njit(cache=True, nogil=True)
def _subtract(nodes, size, y0, x0, bad, data):  # type: ignore[no-untyped-def]
    line, weights = np.empty(nodes.shape[1] + 4), np.empty(4)
    base, table = np.empty(data.shape[1], np.int64), np.empty((4, data.shape[1]))
    level = np.empty(data.shape[1], np.float32)
    _column_weights(nodes.shape[1], size, x0, base, table)
    for y in range(data.shape[0]):
        _row_nodes(nodes, size, y0 + y, weights, line)
        _evaluate_row(line, base, table, level)
        for x in range(data.shape[1]):
            data[y, x] = np.float32(0) if bad[y, x] else data[y, x] - level[x]


@njit(cache=True, nogil=True)
def _square(nodes, size, y0, x0, scale, smallest, bad, out):  # type: ignore[no-untyped-def]
    line, weights = np.empty(nodes.shape[1] + 4), np.empty(4)
    base, table = np.empty(out.shape[1], np.int64), np.empty((4, out.shape[1]))
    rms = np.empty(out.shape[1], np.float32)
    _column_weights(nodes.shape[1], size, x0, base, table)
    for y in range(out.shape[0]):
        _row_nodes(nodes, size, y0 + y, weights, line)
        _evaluate_row(line, base, table, rms)
        for x in range(out.shape[1]):
            v = max(rms[x], smallest)
            out[y, x] = np.float32(0) if bad[y, x] else scale * v * v


@dataclass(frozen=True, eq=False)
class Mesh:
    """Sky level and noise of an image on a coarse mesh.

    Attributes
    ----------
    size : int
        Side of a cell, pixels.
    level, rms : float64 arrays [cell_y, cell_x]
        Sky level and noise per pixel, in the image's unit; no gaps.
    raw_level, raw_rms : float64 arrays [cell_y, cell_x]
        The same as measured, NaN where a cell was not usable.
    smoothing : int
        Side of the median filter that made `level` and `rms` of them, cells.
    """

    size: int
    level: NDArray[np.float64]
    rms: NDArray[np.float64]
    raw_level: NDArray[np.float64]
    raw_rms: NDArray[np.float64]
    smoothing: int = 1

    @classmethod
    def from_cells(
        cls,
        level: NDArray[np.float64],
        rms: NDArray[np.float64],
        good: NDArray[np.float64],
        settings: NoiseSettings,
    ) -> Mesh:
        """Fill gaps and smooth the cells of `cell_statistics`.

        Parameters
        ----------
        level, rms, good : float64 arrays [cell_y, cell_x]
            Statistics of every cell.
        settings : NoiseSettings
            How to judge cells.
        """
        usable = (good >= settings.min_good) & np.isfinite(level) & (rms > 0)
        if not usable.any():
            usable = np.isfinite(level)
        kept_level = np.where(usable, level, np.nan)
        kept_rms = np.where(usable, rms, np.nan)
        around = _median_of_neighbours(kept_rms, 5)
        with np.errstate(invalid="ignore"):
            crowded = kept_rms > settings.crowded_ratio * around
        kept_level[crowded], kept_rms[crowded] = np.nan, np.nan
        if not np.isfinite(kept_rms).any():
            kept_level, kept_rms = np.where(usable, level, np.nan), np.where(usable, rms, np.nan)
        filled_level, filled_rms = _fill_gaps(kept_level), _fill_gaps(kept_rms)
        if settings.mesh_filter > 1:
            filled_level = _median_filter(filled_level, settings.mesh_filter)
            filled_rms = _median_filter(filled_rms, settings.mesh_filter)
        return cls(settings.mesh_size, filled_level, filled_rms, kept_level, kept_rms, settings.mesh_filter)

    def without_level(self) -> Mesh:
        """The same noise on a sky of zero."""
        return replace(self, level=np.zeros_like(self.level))

    def level_at(self, window: Window) -> Float32:
        """Sky level of every pixel of a window, float32 ``[y, x]``."""
        return self._at(self.level, window)

    def subtract_level(self, window: Window, bad: NDArray[np.bool_], data: Float32) -> None:
        """Subtract the sky level from `data` of a window, in place; zero where `bad`."""
        _subtract(self.level, self.size, window.y0, window.x0, bad, data)

    def variance_at(self, window: Window, scale: float, bad: NDArray[np.bool_]) -> Float32:
        """Square of the noise of a window's pixels times a factor, 0 where `bad`."""
        # Interpolation may overshoot between very different cells, but noise is never nothing.
        smallest = np.float32(0.5 * self.rms.min())
        out = np.empty(window.shape, np.float32)
        _square(self.rms, self.size, window.y0, window.x0, np.float32(scale), smallest, bad, out)
        return out

    def _at(self, nodes: NDArray[np.float64], window: Window) -> Float32:
        out = np.empty(window.shape, np.float32)
        _evaluate(nodes, self.size, window.y0, window.x0, out)
        return out


def _median_filter(cells: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Median over the square around each cell; cells on the border are repeated outwards."""
    padded = np.pad(cells, side // 2, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return np.asarray(np.median(views, axis=(2, 3)))


def _median_of_neighbours(cells: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Median over the square around each cell, NaN ignored."""
    margin = side // 2
    padded = np.pad(cells, margin, constant_values=np.nan)
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    flat = np.sort(views.reshape(*cells.shape, side * side), axis=-1)  # NaN sorts to the end
    count = np.isfinite(flat).sum(axis=-1)
    middle = np.maximum(count - 1, 0) // 2
    return np.take_along_axis(flat, middle[..., None], axis=-1)[..., 0]


def _fill_gaps(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cells without a value take the median of their neighbours, from the border inwards."""
    cells = cells.copy()
    if not np.isfinite(cells).any():
        return np.zeros_like(cells)
    while True:
        gaps = ~np.isfinite(cells)
        if not gaps.any():
            return cells
        around = _median_of_neighbours(cells, 3)
        cells[gaps] = around[gaps]
