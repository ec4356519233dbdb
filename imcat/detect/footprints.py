"""Which pixel belongs to which source, for a whole tile, without a whole image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.window import Window

__all__ = ["Footprints"]


@njit(cache=True, nogil=True)
def _paint(pixels, labels, columns, y0, x0, out):  # type: ignore[no-untyped-def]
    for i in range(pixels.size):
        y, x = pixels[i] // columns, pixels[i] % columns
        if x0 <= x < x0 + out.shape[1]:
            out[y - y0, x - x0] = labels[i]


@dataclass(frozen=True, eq=False)
class Footprints:
    """Labelled pixels of the reference grid, sorted by position.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the reference grid.
    pixels : int64 array [n]
        ``y * columns + x``, rising.
    labels : int32 array [n]
        Index of the source plus one.
    """

    shape: tuple[int, int]
    pixels: NDArray[np.int64]
    labels: NDArray[np.int32]

    @classmethod
    def build(
        cls, shape: tuple[int, int], pixels: NDArray[np.int64], labels: NDArray[np.int32]
    ) -> Footprints:
        """Sort pixels; of two claims to one pixel the first given wins."""
        order = np.argsort(pixels, kind="stable")
        pixels, labels = pixels[order], labels[order]
        first = np.ones(pixels.size, bool)
        first[1:] = pixels[1:] != pixels[:-1]
        return cls(shape, pixels[first], labels[first])

    def renumber(self, new: NDArray[np.int64]) -> Footprints:
        """Give source ``i`` the index ``new[i]``; a negative one frees its pixels."""
        labels = new[self.labels - 1]
        kept = labels >= 0
        return Footprints(self.shape, self.pixels[kept], (labels[kept] + 1).astype(np.int32))

    def at(self, window: Window) -> NDArray[np.int32]:
        """Labels of a window, int32 ``[y, x]``; 0 is sky."""
        columns = self.shape[1]
        first, last = np.searchsorted(self.pixels, [window.y0 * columns, window.y1 * columns])
        out = np.zeros(window.shape, np.int32)
        _paint(self.pixels[first:last], self.labels[first:last], columns, window.y0, window.x0, out)
        return out
