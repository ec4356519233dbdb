"""Images that are read window by window from a FITS file.

All classes follow `imcat.tile.Pixels`. Values come out scaled (``BSCALE``, ``BZERO``), blank
integers as NaN, and multiplied by a factor that turns them into nJy where one is given.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.surveys.fits_bytes import ByteSource
from imcat.surveys.fits_header import Hdu
from imcat.tile import ArrayPixels, Pixels
from imcat.window import Window

__all__ = [
    "CompressedPixels",
    "ConstantPixels",
    "FilePixels",
    "MappedPixels",
    "open_pixels",
    "read_array",
]

_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# Tile-compressed images up to this size are unpacked when they are opened: unpacking the same
# tiles for every window would cost more than the memory (64 MB).
_UNPACK_PIXELS = 1 << 24
# astropy reports through `warnings`, whose filters all threads share.
_ASTROPY_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Scaling:
    """From stored to physical values; `integer` keeps whole numbers (masks)."""

    scale: float
    zero: float
    blank: int | None
    integer: bool

    @classmethod
    def of(cls, hdu: Hdu, factor: float, integer: bool) -> _Scaling:
        header = hdu.header
        scale, zero = header.number("BSCALE"), header.number("BZERO")
        scale, zero = 1.0 if scale is None else scale, 0.0 if zero is None else zero
        blank = header.integer("BLANK") if (header.integer("BITPIX") or 0) > 0 else None
        return cls(scale * factor, zero * factor, blank, integer)

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        if self.integer:
            if stored.dtype.kind == "f":
                # NaN in a mask of floats counts as bad.
                return np.asarray(np.nan_to_num(stored.astype(np.float32), nan=1.0)).astype(np.int64)
            return stored.astype(np.int64) + int(self.zero)
        # One pass swaps the bytes; integers beyond 24 bits take the detour over doubles.
        wide = stored.dtype.kind == "i" and stored.dtype.itemsize > 2
        with np.errstate(over="ignore", invalid="ignore"):
            values: NDArray[Any] = stored.astype(np.float64 if wide else np.float32)
            if self.scale != 1:
                np.multiply(values, values.dtype.type(self.scale), out=values)
            if self.zero != 0:
                np.add(values, values.dtype.type(self.zero), out=values)
            values = values.astype(np.float32, copy=False)
        if self.blank is not None:
            values[stored == self.blank] = np.nan
        return values


class FilePixels:
    """An uncompressed image HDU, read at the offsets of its rows.

    Parameters
    ----------
    source : ByteSource
        The file.
    hdu : Hdu
        A two-dimensional image.
    factor : float
        Values are multiplied by it.
    integer : bool
        Whole numbers instead of float32.
    """

    def __init__(self, source: ByteSource, hdu: Hdu, *, factor: float = 1.0, integer: bool = False) -> None:
        self._source, self._hdu = source, hdu
        self._dtype = np.dtype(_TYPES[hdu.header.integer("BITPIX") or 8])
        self._scaling = _Scaling.of(hdu, factor, integer)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self._hdu.shape[0], self._hdu.shape[1])

    def read(self, window: Window) -> NDArray[Any]:
        """Pixels of a window.

        Raises
        ------
        InputError
            If the file has become shorter or cannot be read.
        """
        rows, columns = window.shape
        width, item = self.shape[1], self._dtype.itemsize
        start = self._hdu.offset + window.y0 * width * item
        if 2 * columns >= width:
            raw = self._piece(start, rows * width * item)
            stored = np.frombuffer(raw, self._dtype).reshape(rows, width)[:, window.x0 : window.x1]
            return self._scaling(stored)
        stored = np.empty((rows, columns), self._dtype)
        for row in range(rows):
            at = start + (row * width + window.x0) * item
            stored[row] = np.frombuffer(self._piece(at, columns * item), self._dtype)
        return self._scaling(stored)

    def _piece(self, offset: int, count: int) -> bytes | memoryview:
        raw = self._source.read(offset, count)
        if len(raw) != count:
            raise InputError("the file ends inside the image", path=self._source.path, hdu=self._hdu.index)
        return raw


class CompressedPixels:
    """A tile-compressed image, unpacked by astropy, tile by tile."""

    def __init__(self, source: ByteSource, hdu: Hdu, *, factor: float = 1.0, integer: bool = False) -> None:
        self._path, self._hdu = source.path, hdu
        self._factor, self._integer = factor, integer
        self._lock = threading.Lock()
        from astropy.io import fits

        stream = source.stream()
        self.close = weakref.finalize(self, stream.close)
        self._section = self._guard(lambda: fits.open(stream, memmap=False)[hdu.index].section)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self._hdu.shape[0], self._hdu.shape[1])

    def read(self, window: Window) -> NDArray[Any]:
        """Pixels of a window.

        Raises
        ------
        InputError
            If a tile of the image is damaged.
        """
        with self._lock:
            stored = np.asarray(self._guard(lambda: self._section[window.slices]))
        if stored.shape != window.shape:
            raise self._damaged(f"a window has the shape {stored.shape}")
        if self._integer:
            return np.asarray(np.nan_to_num(stored, nan=1.0)).astype(np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored.astype(np.float32)
            if self._factor != 1:
                values *= np.float32(self._factor)
        return values

    def _guard(self, action: Callable[[], Any]) -> Any:
        # A damaged stream makes the decoders raise almost anything.
        try:
            with _ASTROPY_LOCK, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return action()
        except Exception as error:
            raise self._damaged(str(error) or type(error).__name__) from None

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"the compressed image cannot be unpacked ({reason})",
            path=self._path,
            hdu=self._hdu.index,
            expected="an intact tile-compressed image",
        )


@dataclass(frozen=True, eq=False)
class ConstantPixels:
    """An image of one value."""

    shape: tuple[int, int]
    value: float

    def read(self, window: Window) -> NDArray[Any]:
        """The value, in the window's shape."""
        return np.full(window.shape, self.value, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class MappedPixels:
    """An image computed from others, pixel by pixel.

    Attributes
    ----------
    sources : tuple of Pixels
        All of one shape.
    function : callable
        Takes one array for each source and returns one of the same shape.
    """

    sources: tuple[Pixels, ...]
    function: Callable[..., NDArray[Any]]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.sources[0].shape

    def read(self, window: Window) -> NDArray[Any]:
        """Pixels of a window."""
        return self.function(*(source.read(window) for source in self.sources))


def open_pixels(
    source: ByteSource, hdu: Hdu, *, factor: float = 1.0, integer: bool = False, in_memory: bool = False
) -> Pixels:
    """An image HDU as `Pixels`.

    Parameters
    ----------
    source : ByteSource
        The file.
    hdu : Hdu
        A two-dimensional image, tile-compressed or not.
    factor : float
        Values are multiplied by it.
    integer : bool
        Whole numbers (masks) instead of float32.
    in_memory : bool
        Read the whole image now.

    Raises
    ------
    InputError
        If the image is damaged.
    """
    if hdu.kind == "compressed":
        compressed = CompressedPixels(source, hdu, factor=factor, integer=integer)
        if not in_memory and hdu.shape[0] * hdu.shape[1] > _UNPACK_PIXELS:
            return compressed
        whole = compressed.read(Window.whole(compressed.shape))
        compressed.close()
        return ArrayPixels(whole)
    pixels = FilePixels(source, hdu, factor=factor, integer=integer)
    return ArrayPixels(pixels.read(Window.whole(pixels.shape))) if in_memory else pixels


def read_array(source: ByteSource, hdu: Hdu) -> NDArray[np.float32]:
    """A whole image of any number of axes, as float32.

    Raises
    ------
    InputError
        If the image is damaged.
    """
    if hdu.kind == "compressed":
        compressed = CompressedPixels(source, hdu)
        values = np.asarray(compressed._guard(lambda: compressed._section[...]))
        compressed.close()
        return values.astype(np.float32)
    dtype = np.dtype(_TYPES[hdu.header.integer("BITPIX") or 8])
    raw = source.read(hdu.offset, hdu.size)
    values = np.frombuffer(raw, dtype)
    if values.size != np.prod(hdu.shape, dtype=np.int64):
        raise InputError("the file ends inside the image", path=source.path, hdu=hdu.index)
    return np.asarray(_Scaling.of(hdu, 1.0, False)(values.reshape(hdu.shape)), dtype=np.float32)
