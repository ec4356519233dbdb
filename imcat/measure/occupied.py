"""Footprints, which live on the reference grid, in the pixels of any exposure."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

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
    out = np.full(window.shape, -1, np.int32)
    if not (np.isfinite(rx).all() and np.isfinite(ry).all()):
        return out
    height, width = window.shape
    matrix = np.array([
        [rx[0], (rx[1] - rx[0]) / width, (rx[2] - rx[0]) / height],
        [ry[0], (ry[1] - ry[0]) / width, (ry[2] - ry[0]) / height],
    ])  # fmt: skip
    # The fourth corner follows from the mapping being linear.
    all_x = [rx[0], rx[1], rx[2], rx[1] + rx[2] - rx[0]]
    all_y = [ry[0], ry[1], ry[2], ry[1] + ry[2] - ry[0]]
    under = Window(
        math.floor(min(all_y)) - 1,
        math.ceil(max(all_y)) + 2,
        math.floor(min(all_x)) - 1,
        math.ceil(max(all_x)) + 2,
    ).clip(reference.shape)
    if not under.empty:
        _look_up(footprints.at(under), matrix, under.y0, under.x0, out)
    return out


@njit(cache=True, nogil=True)
def _look_up(labels, matrix, y0, x0, out):  # type: ignore[no-untyped-def]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            column = int(math.floor(matrix[0, 0] + matrix[0, 1] * x + matrix[0, 2] * y + 0.5)) - x0
            row = int(math.floor(matrix[1, 0] + matrix[1, 1] * x + matrix[1, 2] * y + 0.5)) - y0
            if 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]:
                out[y, x] = labels[row, column]


def occupied(
    footprints: Footprints, reference: Exposure, exposure: Exposure, window: Window
) -> NDArray[np.bool_]:
    """Which native pixels of a window belong to sources, lie next to them, or are unknown.

    The parameters are those of `native_labels`.
    """
    outer = window.grow(_GROWTH, exposure.shape)
    taken = native_labels(footprints, reference, exposure, outer) != 0
    grown = _grown(_grown(taken).T).T
    top, left = window.y0 - outer.y0, window.x0 - outer.x0
    return np.asarray(grown[top : top + window.shape[0], left : left + window.shape[1]])


def _grown(taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Let true values spread along rows."""
    out = taken.copy()
    for k in range(1, _GROWTH + 1):
        out[:, k:] |= taken[:, :-k]
        out[:, :-k] |= taken[:, k:]
    return out
