"""Opening FITS files safely.

`FitsFile` is what the readers of all surveys use. Whatever is wrong with a file (missing, cut,
flipped bits, no data, wrong dimensions) ends in one `InputError` that names file and HDU.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.surveys.fits_bytes import ByteSource, MemoryBytes, first_bytes, open_bytes
from imcat.surveys.fits_header import BLOCK, Hdu, Header, scan_hdus
from imcat.surveys.fits_pixels import open_pixels, read_array
from imcat.surveys.fits_table import FitsTable
from imcat.tile import Pixels
from imcat.window import Window

__all__ = ["FITS_SUFFIXES", "FitsFile", "check_image", "read_first_headers", "split_selector"]

#: How the names of FITS files end.
FITS_SUFFIXES = tuple(
    stem + pack for stem in (".fits", ".fit", ".fts") for pack in ("", ".bz2", ".gz", ".fz")
)

# Enough for the headers of the surveys' images (SDSS: 96 cards, three blocks; CSST level 1: two
# HDUs of some hundred cards).
_FIRST_BYTES = 24 * BLOCK
_SAMPLED_ROWS = 48


class FitsFile:
    """An open FITS file.

    Parameters
    ----------
    path : path
        Plain, gzip or bzip2.

    Raises
    ------
    InputError
        If the file cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.source: ByteSource = open_bytes(path)
        self.hdus: list[Hdu] = scan_hdus(self.source)

    def image_hdu(self, selector: str | None = None) -> Hdu:
        """A two-dimensional image.

        Parameters
        ----------
        selector : str, optional
            Number or EXTNAME of the HDU; without it the first one with a 2-D image.

        Raises
        ------
        InputError
            If there is no such HDU, or it has no 2-D image.
        """
        if selector is None:
            for hdu in self.hdus:
                if hdu.kind in ("image", "compressed") and len(hdu.shape) == 2 and 0 not in hdu.shape:
                    return hdu
            raise InputError("no HDU holds a 2-D image", path=self.path, expected="one with NAXIS = 2")
        hdu = self.hdu(selector)
        if hdu.kind not in ("image", "compressed"):
            raise self._error(hdu, "the HDU is a table", "a 2-D image")
        if not hdu.shape or 0 in hdu.shape:
            raise self._error(hdu, "the HDU has no data", "a 2-D image")
        if len(hdu.shape) != 2:
            size = " x ".join(str(n) for n in reversed(hdu.shape))
            raise self._error(hdu, f"the image has {len(hdu.shape)} dimensions ({size})", "a 2-D image")
        return hdu

    def hdu(self, selector: str) -> Hdu:
        """The HDU of that number or EXTNAME.

        Raises
        ------
        InputError
            If there is none.
        """
        for hdu in self.hdus:
            if str(hdu.index) == selector or (hdu.name and hdu.name == selector.upper()):
                return hdu
        names = [f"{hdu.index}{f' ({hdu.name})' if hdu.name else ''}" for hdu in self.hdus[:20]]
        raise InputError(
            "no such HDU", path=self.path, hdu=selector, expected=f"one of {', '.join(names) or 'none'}"
        )

    def tables(self) -> list[FitsTable]:
        """Every binary table of the file.

        Raises
        ------
        InputError
            If one of them is damaged.
        """
        return [FitsTable(self.source, hdu) for hdu in self.hdus if hdu.kind == "table"]

    def table(self, index: int) -> FitsTable:
        """The binary table in an HDU.

        Raises
        ------
        InputError
            If the HDU does not exist or is no table.
        """
        hdu = self.hdu(str(index))
        if hdu.kind != "table":
            raise self._error(hdu, "the HDU is no table", "a binary table")
        return FitsTable(self.source, hdu)

    def array(self, hdu: Hdu) -> NDArray[np.float32]:
        """A whole image, float32, of any number of axes."""
        return read_array(self.source, hdu)

    def pixels(self, hdu: Hdu, *, factor: float = 1.0, integer: bool = False) -> Pixels:
        """A 2-D image, window by window; one in memory where the file was unpacked anyway.

        Parameters
        ----------
        hdu : Hdu
            From `image_hdu`.
        factor : float
            Values are multiplied by it.
        integer : bool
            Whole numbers (masks) instead of float32.
        """
        unpacked = isinstance(self.source, MemoryBytes)
        return open_pixels(self.source, hdu, factor=factor, integer=integer, in_memory=unpacked)

    def keywords(self, hdu: Hdu) -> Header:
        """The keywords of an HDU, and those of the primary header that it does not set."""
        merged = Header(self.hdus[0].header)
        merged.update(hdu.header)
        return merged

    def _error(self, hdu: Hdu, found: str, expected: str) -> InputError:
        return InputError(found, path=self.path, hdu=hdu.index, expected=expected)


def read_first_headers(path: str | Path) -> Header:
    """Keywords of the first HDU, and of the second where the first has no data.

    Only the beginning of the file is read and unpacked.

    Raises
    ------
    InputError
        If that part is damaged.
    """
    start = MemoryBytes(str(path), first_bytes(path, _FIRST_BYTES))
    try:
        hdus = scan_hdus(start, limit=2)
    except InputError:
        hdus = scan_hdus(start, limit=1)  # the second header is cut, or what is wrong is in the first
    header = Header(hdus[0].header)
    if hdus[0].size == 0 and len(hdus) > 1:
        header.update(hdus[1].header)
    return header


def split_selector(text: str) -> tuple[str, str | None]:
    """Take ``file.fits[1]`` or ``file.fits[SCI]`` apart.

    Examples
    --------
    >>> split_selector("a.fits[SCI]"), split_selector("a.fits")
    (('a.fits', 'SCI'), ('a.fits', None))
    """
    if text.endswith("]") and "[" in text:
        name, _, selector = text[:-1].rpartition("[")
        if name:
            return name, selector.strip()
    return text, None


def check_image(pixels: Pixels, path: str, hdu: int | None = None, unit: float = 1.0) -> None:
    """Refuse an image without information.

    A sample of rows decides; only if it is suspicious is the whole image read.

    Parameters
    ----------
    pixels : Pixels
        The image.
    path, hdu : str, int
        Where it is from.
    unit : float
        What one unit of the file is in `pixels`; messages speak of the file.

    Raises
    ------
    InputError
        If no pixel is finite, or all of them have the same value.
    """
    rows, columns = pixels.shape
    step = max(1, rows // _SAMPLED_ROWS)
    low, high = _extremes(pixels, [Window(y, y + 1, 0, columns) for y in range(0, rows, step)])
    if low >= high:
        blocks = [Window(y, min(y + 256, rows), 0, columns) for y in range(0, rows, 256)]
        low, high = _extremes(pixels, blocks)
    if low > high:
        raise InputError(
            "no pixel of the image is finite", path=path, hdu=hdu, expected="an image of the sky"
        )
    if low == high:
        raise InputError(
            f"every pixel of the image is {low / unit:g}", path=path, hdu=hdu, expected="an image of the sky"
        )


def _extremes(pixels: Pixels, windows: list[Window]) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    for window in windows:
        values = pixels.read(window)
        good = values[np.isfinite(values)]
        if good.size:
            low, high = min(low, float(good.min())), max(high, float(good.max()))
    return low, high
