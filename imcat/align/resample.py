"""Bring a band to the reference grid, for detection and networks only.

No flux that imcat reports comes from pixels made here.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.align.grid import GridMap
from imcat.window import Window

__all__ = ["KERNEL_MARGIN", "align"]

Float32 = NDArray[np.float32]

KERNEL_MARGIN = 3  # native pixels that the kernel reaches beyond a position


@njit(cache=True, nogil=True)
def _resample(data, variance, nodes_x, nodes_y, spacing, y0, x0, dy, dx, out, out_variance):  # type: ignore[no-untyped-def]
    """Catmull-Rom interpolation; variance from the nearest pixel, 0 where a pixel is bad."""
    rows, columns = data.shape
    wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
    for y in range(out.shape[0]):
        v = (y0 + y) / spacing
        j = min(int(v), nodes_x.shape[0] - 2) if nodes_x.shape[0] > 1 else 0
        fv = v - j
        j1 = min(j + 1, nodes_x.shape[0] - 1)
        for x in range(out.shape[1]):
            u = (x0 + x) / spacing
            i = min(int(u), nodes_x.shape[1] - 2) if nodes_x.shape[1] > 1 else 0
            fu = u - i
            i1 = min(i + 1, nodes_x.shape[1] - 1)
            px = (
                (nodes_x[j, i] * (1 - fu) + nodes_x[j, i1] * fu) * (1 - fv)
                + (nodes_x[j1, i] * (1 - fu) + nodes_x[j1, i1] * fu) * fv
                - dx
            )
            py = (
                (nodes_y[j, i] * (1 - fu) + nodes_y[j, i1] * fu) * (1 - fv)
                + (nodes_y[j1, i] * (1 - fu) + nodes_y[j1, i1] * fu) * fv
                - dy
            )
            out[y, x] = 0
            out_variance[y, x] = 0
            if not (px >= -0.5 and py >= -0.5 and px < columns - 0.5 and py < rows - 0.5):
                continue
            bx, by = int(math.floor(px)), int(math.floor(py))
            tx, ty = np.float32(px - bx), np.float32(py - by)
            nearest = variance[int(math.floor(py + 0.5)), int(math.floor(px + 0.5))]
            if nearest <= 0:
                continue
            wx[0] = ((-0.5 * tx + 1.0) * tx - 0.5) * tx
            wx[1] = (1.5 * tx - 2.5) * tx * tx + 1.0
            wx[2] = ((-1.5 * tx + 2.0) * tx + 0.5) * tx
            wx[3] = (0.5 * tx - 0.5) * tx * tx
            wy[0] = ((-0.5 * ty + 1.0) * ty - 0.5) * ty
            wy[1] = (1.5 * ty - 2.5) * ty * ty + 1.0
            wy[2] = ((-1.5 * ty + 2.0) * ty + 0.5) * ty
            wy[3] = (0.5 * ty - 0.5) * ty * ty
            value, weight = np.float32(0), np.float32(0)
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
                    weight += w
            # Around bad pixels the kernel is incomplete: renormalised while most of it is there.
            if weight > 0.6:
                out[y, x] = value / weight
                out_variance[y, x] = nearest


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
        _resample(
            data, variance, grid.x, grid.y, grid.spacing,
            window.y0, window.x0, native.y0, native.x0, out, out_variance,
        )  # fmt: skip
    return out, out_variance
