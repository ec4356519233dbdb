"""The noise of an SDSS frame, rebuilt from the sky that was subtracted from it.

Source: the frame data model,
https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html. In counts
the variance is counts / gain + dark variance; here ``counts`` are those of the sky alone, since
the noise of a source is added from its model, never from its noisy pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.window import Window

__all__ = ["SkyGrid", "SkyVariance"]


@dataclass(frozen=True, eq=False)
class SkyGrid:
    """The sky of a frame on its coarse grid, counts.

    Attributes
    ----------
    values : float32 array, ``[v, u]``
        ALLSKY of HDU 2.
    x, y : float32 array
        XINTERP and YINTERP: place of each column and row of the frame on the grid. Places
        outside take the value of the edge, as IDL's ``interpolate`` does.
    """

    values: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the frame."""
        return (len(self.y), len(self.x))

    def read(self, window: Window) -> NDArray[np.float32]:
        """The sky in a window, counts (bilinear)."""
        rows, row_part = _places(self.y[window.y0 : window.y1], self.values.shape[0])
        columns, column_part = _places(self.x[window.x0 : window.x1], self.values.shape[1])
        sky = np.empty((len(rows), len(columns)), np.float32)
        _bilinear(self.values, rows, row_part, columns, column_part, sky)
        return sky


@njit(cache=True, nogil=True)
def _bilinear(grid, rows, row_part, columns, column_part, out):  # type: ignore[no-untyped-def]
    """Fill `out` from the grid; a window is read often, and gathers of numpy are slow."""
    line = np.empty(grid.shape[1] + 1, np.float32)
    for y in range(out.shape[0]):
        low, part = rows[y], row_part[y]
        high = min(low + 1, grid.shape[0] - 1)
        for u in range(grid.shape[1]):
            line[u] = grid[low, u] + (grid[high, u] - grid[low, u]) * part
        line[grid.shape[1]] = line[grid.shape[1] - 1]
        for x in range(out.shape[1]):
            u = columns[x]
            out[y, x] = line[u] + (line[u + 1] - line[u]) * column_part[x]


def _places(index: NDArray[np.float32], size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Grid point below each place, and the fraction of the way to the next."""
    inside = np.clip(index, 0, size - 1)
    below = np.floor(inside).astype(np.intp)
    return below, (inside - below).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SkyVariance:
    """Variance of sky and detector, window by window (a `imcat.tile.Pixels`).

    Attributes
    ----------
    sky : SkyGrid
        In the image's own counts.
    calibration : float32 array, ``[x]``
        nJy per count.
    gain : float
        Electrons per count.
    dark_variance : float
        Counts².
    """

    sky: SkyGrid
    calibration: NDArray[np.float32]
    gain: float
    dark_variance: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.sky.shape

    def read(self, window: Window) -> NDArray[np.float32]:
        """nJy² in a window."""
        variance = self.sky.read(window)
        variance *= np.float32(1.0 / self.gain)
        variance += np.float32(self.dark_variance)
        variance *= self.calibration[window.x0 : window.x1] ** 2
        return variance
