"""Bring a band to the reference grid, for detection and networks only.

No flux that imcat reports comes from pixels made here.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.align.grid import GridMap
from imcat.window import Window

__all__ = ["KERNEL_MARGIN", "align", "cubic_weights"]

Float32 = NDArray[np.float32]

KERNEL_MARGIN = 3  # native pixels that the kernel reaches beyond a position


@njit(cache=True, nogil=True, inline="always")
def cubic_weights(t, w):  # type: ignore[no-untyped-def]
    """Catmull-Rom weights ``w[4]`` of the pixels around a position that lies `t` beyond the second."""
    w[0] = ((np.float32(-0.5) * t + np.float32(1.0)) * t - np.float32(0.5)) * t
    w[1] = (np.float32(1.5) * t - np.float32(2.5)) * t * t + np.float32(1.0)
    w[2] = ((np.float32(-1.5) * t + np.float32(2.0)) * t + np.float32(0.5)) * t
    w[3] = (np.float32(0.5) * t - np.float32(0.5)) * t * t


@njit(cache=True, nogil=True)
def _partial(data, variance, bx, by, wx, wy):  # type: ignore[no-untyped-def]
    """Interpolate where the kernel meets bad pixels or the edge: renormalised while most is there."""
    value, weight = np.float32(0), np.float32(0)
    for k in range(4):
        q = by - 1 + k
        if q < 0 or q >= data.shape[0]:
            continue
        for m in range(4):
            p = bx - 1 + m
            if p < 0 or p >= data.shape[1] or variance[q, p] <= 0:
                continue
            w = wx[m] * wy[k]
            value += w * data[q, p]
            weight += w
    return value, weight


@njit(cache=True, nogil=True)
def _resample(data, variance, complete, nodes_x, nodes_y, spacing, y0, x0, dy, dx, out, out_variance):  # type: ignore[no-untyped-def]
    """Catmull-Rom interpolation; variance from the nearest pixel, 0 where a pixel is bad."""
    rows, columns = data.shape
    last_i, last_j = nodes_x.shape[1] - 1, nodes_x.shape[0] - 1
    wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
    for y in range(out.shape[0]):
        v = (y0 + y) / spacing
        j = min(int(v), max(last_j - 1, 0))
        fv, j1 = v - j, min(j + 1, last_j)
        x = 0
        while x < out.shape[1]:
            # Along a row, positions are linear between two columns of nodes.
            i = min((x0 + x) // spacing, max(last_i - 1, 0))
            i1 = min(i + 1, last_i)
            end = out.shape[1] if i1 >= last_i else min((i + 1) * spacing - x0, out.shape[1])
            left_x = nodes_x[j, i] * (1 - fv) + nodes_x[j1, i] * fv - dx
            left_y = nodes_y[j, i] * (1 - fv) + nodes_y[j1, i] * fv - dy
            step_x = (nodes_x[j, i1] * (1 - fv) + nodes_x[j1, i1] * fv - dx - left_x) / spacing
            step_y = (nodes_y[j, i1] * (1 - fv) + nodes_y[j1, i1] * fv - dy - left_y) / spacing
            for at in range(x, end):
                u = x0 + at - i * spacing
                px, py = left_x + step_x * u, left_y + step_y * u
                out[y, at] = 0
                out_variance[y, at] = 0
                if not (px >= -0.5 and py >= -0.5 and px < columns - 0.5 and py < rows - 0.5):
                    continue
                nearest = variance[int(py + 0.5), int(px + 0.5)]
                if nearest <= 0:
                    continue
                bx, by = int(px + 1) - 1, int(py + 1) - 1  # floor, for positions above -1
                cubic_weights(np.float32(px - bx), wx)
                cubic_weights(np.float32(py - by), wy)
                if complete and bx >= 1 and by >= 1 and bx < columns - 2 and by < rows - 2:
                    value = np.float32(0)
                    for k in range(4):
                        q = by - 1 + k
                        value += wy[k] * (
                            wx[0] * data[q, bx - 1] + wx[1] * data[q, bx]
                            + wx[2] * data[q, bx + 1] + wx[3] * data[q, bx + 2]
                        )  # fmt: skip
                    out[y, at], out_variance[y, at] = value, nearest
                    continue
                value, weight = _partial(data, variance, bx, by, wx, wy)
                if weight > 0.6:
                    out[y, at], out_variance[y, at] = value / weight, nearest
            x = end


def align(
    data: Float32, variance: Float32, native: Window, grid: GridMap, window: Window
) -> tuple[Float32, Float32]:
    """Bring the pixels of one exposure to the reference grid, in one window.

    Parameters
    ----------
    data, variance : float32 arrays [y, x]
        Sky-subtracted pixels (nJy) and variances (nJy², 0 where a pixel is bad) of `native`.
    native : Window
        In the exposure: ``grid.native_window(window, KERNEL_MARGIN)``.
    grid : GridMap
        From the reference grid to the exposure's pixels.
    window : Window
        In the reference grid.

    Returns
    -------
    data, variance : float32 arrays [y, x]
        nJy per native pixel and nJy²; both 0 where the exposure says nothing.
    """
    if grid.identity and native == window:
        return data, variance
    out = np.zeros(window.shape, np.float32)
    out_variance = np.zeros(window.shape, np.float32)
    if not native.empty:
        complete = bool((variance > 0).all())
        _resample(
            data, variance, complete, grid.x, grid.y, grid.spacing,
            window.y0, window.x0, native.y0, native.x0, out, out_variance,
        )  # fmt: skip
    return out, out_variance
