"""Windows: the rectangles in which a tile is read and processed.

Their origins are fixed by the image alone, never by who computes them, so a
result cannot depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["Window", "tile_windows"]


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels, half-open: rows ``y0 <= y < y1``, columns ``x0 <= x < x1``."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.y1 - self.y0, self.x1 - self.x0)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in an array ``[y, x]``."""
        return (slice(self.y0, self.y1), slice(self.x0, self.x1))

    @property
    def empty(self) -> bool:
        """True if the window holds no pixel."""
        return self.y1 <= self.y0 or self.x1 <= self.x0

    def grow(self, margin: int, shape: tuple[int, int]) -> Window:
        """The window with a margin on all sides, cut at the image's edges.

        Parameters
        ----------
        margin : int
            Pixels.
        shape : (int, int)
            Rows and columns of the image.
        """
        return Window(self.y0 - margin, self.y1 + margin, self.x0 - margin, self.x1 + margin).clip(shape)

    def clip(self, shape: tuple[int, int]) -> Window:
        """The part of the window inside an image of that shape (perhaps empty)."""
        y0, x0 = min(max(self.y0, 0), shape[0]), min(max(self.x0, 0), shape[1])
        return Window(y0, max(min(self.y1, shape[0]), y0), x0, max(min(self.x1, shape[1]), x0))

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Window:
        """The window that covers an image."""
        return cls(0, shape[0], 0, shape[1])


def tile_windows(shape: tuple[int, int], size: int) -> list[Window]:
    """Windows that cover an image without overlap, in raster order.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    size : int
        Side of a window in pixels; the last ones of a row or column are smaller.

    Raises
    ------
    ConfigError
        If `size` is not positive.

    Examples
    --------
    >>> [w.shape for w in tile_windows((5, 3), 4)]
    [(4, 3), (1, 3)]
    """
    if size < 1:
        raise ConfigError(f"a window of {size} pixels is impossible; expected at least 1")
    return [
        Window(y, min(y + size, shape[0]), x, min(x + size, shape[1]))
        for y in range(0, shape[0], size)
        for x in range(0, shape[1], size)
    ]
