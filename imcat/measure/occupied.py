"""Footprints, which live on the reference grid, in the pixels of any exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from imcat.align import transform_positions
from imcat.detect import Footprints
from imcat.tile import Exposure
from imcat.window import Window, tile_windows

__all__ = ["native_labels", "occupied"]

_BLOCK = 256  # pixels within which the mapping between two grids is taken to be linear
_GROWTH = 3  # pixels around a footprint that blank sky keeps away from


def native_labels(
    footprints: Footprints, reference: Exposure, exposure: Exposure, window: Window
) -> NDArray[np.int32]:
    """Label of the reference pixel nearest to each native pixel, int32 ``[y, x]``.

    Parameters
    ----------
    footprints : Footprints
        On the grid of `reference`.
    reference, exposure : Exposure
        Two exposures of a tile.
    window : Window
        In `exposure`.

    Returns
    -------
    int32 array [y, x]
        0 for sky, -1 where the reference image does not reach.
    """
    if exposure is reference:
        return footprints.at(window)
    out = np.empty(window.shape, np.int32)
    for block in tile_windows(window.shape, _BLOCK):
        at = Window(block.y0 + window.y0, block.y1 + window.y0, block.x0 + window.x0, block.x1 + window.x0)
        out[block.slices] = _linear_labels(footprints, reference, exposure, at)
    return out


def _linear_labels(
    footprints: Footprints, reference: Exposure, exposure: Exposure, window: Window
) -> NDArray[np.int32]:
    corners_x = np.array([window.x0, window.x1, window.x0], dtype=float)
    corners_y = np.array([window.y0, window.y0, window.y1], dtype=float)
    rx, ry = transform_positions(exposure.wcs, reference.wcs, corners_x, corners_y)
    height, width = window.shape
    u, v = np.arange(width) / width, np.arange(height)[:, None] / height
    with np.errstate(invalid="ignore"):
        column = np.rint(rx[0] + (rx[1] - rx[0]) * u + (rx[2] - rx[0]) * v)
        row = np.rint(ry[0] + (ry[1] - ry[0]) * u + (ry[2] - ry[0]) * v)
        rows, columns = reference.shape
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    out = np.full(window.shape, -1, np.int32)
    if inside.any():
        row, column = row[inside].astype(int), column[inside].astype(int)
        under = Window(int(row.min()), int(row.max()) + 1, int(column.min()), int(column.max()) + 1)
        out[inside] = footprints.at(under)[row - under.y0, column - under.x0]
    return out


def occupied(
    footprints: Footprints, reference: Exposure, exposure: Exposure, window: Window
) -> NDArray[np.bool_]:
    """Which native pixels of a window belong to sources, lie next to them, or are unknown.

    The parameters are those of `native_labels`.
    """
    outer = window.grow(_GROWTH, exposure.shape)
    taken = native_labels(footprints, reference, exposure, outer) != 0
    grown = maximum_filter(taken, 2 * _GROWTH + 1, mode="nearest")
    top, left = window.y0 - outer.y0, window.x0 - outer.x0
    return np.asarray(grown[top : top + window.shape[0], left : left + window.shape[1]])
