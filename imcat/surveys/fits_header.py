"""Headers and the layout of a FITS file.

A reader of its own for the parts of the FITS standard that imcat needs (version 4.0, sections 3,
4 and 7: https://fits.gsfc.nasa.gov/fits_standard.html), for three reasons: windows are read at
known offsets, frames are opened in many threads (`astropy.io.fits` reports trouble through
`warnings`, whose state threads share), and every kind of damage becomes one `InputError`.
Tile-compressed images are left to astropy.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from imcat.errors import InputError
from imcat.surveys.fits_bytes import ByteSource

__all__ = ["BLOCK", "Hdu", "Header", "parse_header", "scan_hdus"]

#: Bytes of a FITS block; headers and data fill whole blocks.
BLOCK = 2880
_CARD = 80
# A header longer than this is taken for damage (no survey comes near it).
_MAX_BLOCKS = 2000
_MAX_HDUS = 4096
_BITPIX = {8, 16, 32, 64, -32, -64}
_INTEGER = re.compile(r"^[+-]?\d{1,18}$")
_SIZE_LIMIT = 1 << 50


class Header(dict[str, Any]):
    """Keywords and values of one header (no comments, no HISTORY)."""

    def number(self, key: str, default: float | None = None) -> float | None:
        """A finite number, also where it was written as a string; else `default`."""
        value = self.get(key)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return default
        return float(value)

    def integer(self, key: str, default: int | None = None) -> int | None:
        """A whole number, also where it was written as a string; else `default`."""
        value = self.number(key)
        return default if value is None or value != int(value) else int(value)

    def text(self, key: str, default: str = "") -> str:
        """A string without blanks around it; else `default`."""
        value = self.get(key)
        return value.strip() if isinstance(value, str) else default


@dataclass(frozen=True)
class Hdu:
    """One header-data unit.

    Attributes
    ----------
    index : int
        Position in the file, from 0.
    name : str
        ``EXTNAME``, upper case, or empty.
    kind : str
        ``image``, ``compressed`` (a tile-compressed image), ``table`` or ``other``.
    shape : tuple of int
        Of an image, slowest axis first, as in numpy; of a table (rows, bytes per row).
    header : Header
        Keywords.
    offset, size : int
        Where the data lie in the file, bytes (without padding).
    """

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    header: Header
    offset: int
    size: int


def parse_header(block: bytes, header: Header) -> bool:
    """Add the cards of one block to a header.

    Parameters
    ----------
    block : bytes
        2880 bytes.
    header : Header
        Is extended.

    Returns
    -------
    bool
        Whether the block holds the END card.

    Raises
    ------
    ValueError
        If the block holds characters that no header may hold.
    """
    text = block.decode("ascii")
    for start in range(0, len(text), _CARD):
        card = text[start : start + _CARD]
        key = card[:8].rstrip()
        if key == "END" and not card[8:].strip():
            return True
        if card[8:10] == "= " and key not in header:
            header[key] = _parse_value(card[10:])
    return False


def _parse_value(field: str) -> Any:
    field = field.strip()
    if field.startswith("'"):
        parts = field[1:].replace("''", "\0").split("'", 1)
        return parts[0].replace("\0", "'").rstrip()
    field = field.split("/", 1)[0].strip()
    if field in ("T", "F"):
        return field == "T"
    if _INTEGER.match(field):
        return int(field)
    try:
        return float(field.replace("D", "E").replace("d", "e"))
    except ValueError:
        return field or None


def scan_hdus(source: ByteSource, *, limit: int | None = None) -> list[Hdu]:
    """The layout of a file.

    Parameters
    ----------
    source : ByteSource
        The file.
    limit : int, optional
        Stop after so many HDUs, and do not ask whether their data are there.

    Raises
    ------
    InputError
        If the file is no FITS file, is truncated, or a header makes no sense.
    """
    hdus: list[Hdu] = []
    position = 0
    while position < source.size and len(hdus) < _MAX_HDUS:
        index = len(hdus)
        header, data_at = _read_header(source, position, index)
        if header is None:
            break
        hdu = _describe(source, header, index, data_at)
        if limit is None and data_at + hdu.size > source.size:
            raise InputError(
                f"the file is truncated: it ends after {source.size} bytes",
                path=source.path,
                hdu=index,
                expected=f"at least {data_at + hdu.size} bytes",
                hint="fetch or copy the file again",
            )
        hdus.append(hdu)
        if limit is not None and len(hdus) >= limit:
            break
        position = data_at + -(-hdu.size // BLOCK) * BLOCK
    return hdus


def _read_header(source: ByteSource, position: int, index: int) -> tuple[Header | None, int]:
    """The header at `position` and where its data begin; None for padding after the last HDU."""
    header = Header()
    for number in range(_MAX_BLOCKS):
        block = bytes(source.read(position + number * BLOCK, BLOCK))
        if number == 0:
            start = b"SIMPLE  =" if index == 0 else b"XTENSION="
            if not block.startswith(start):
                if index and not block.strip(b"\0 "):
                    return None, position  # some writers pad a file with empty blocks
                found = "is no FITS file" if index == 0 else "what follows the data is no FITS header"
                raise InputError(found, path=source.path, hdu=index or None, expected=start.decode() + " ...")
        if len(block) < BLOCK:
            raise InputError("the file is truncated inside a header", path=source.path, hdu=index)
        try:
            done = parse_header(block, header)
        except UnicodeDecodeError:
            raise InputError(
                "the header holds characters that are not ASCII", path=source.path, hdu=index
            ) from None
        if done:
            return header, position + (number + 1) * BLOCK
    raise InputError("the header has no END", path=source.path, hdu=index)


def _describe(source: ByteSource, header: Header, index: int, data_at: int) -> Hdu:
    def whole(key: str, default: int | None = None) -> int:
        value = header.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _SIZE_LIMIT:
            raise InputError(
                f"the header says {key} = {value!r}", path=source.path, hdu=index, expected="a whole number"
            )
        return value

    bitpix, naxis = whole("BITPIX"), whole("NAXIS")
    if bitpix not in _BITPIX or not 0 <= naxis <= 999:
        raise InputError(
            f"the header says BITPIX = {bitpix}, NAXIS = {naxis}",
            path=source.path,
            hdu=index,
            expected="BITPIX one of 8, 16, 32, 64, -32, -64",
        )
    axes = [whole(f"NAXIS{n}") for n in range(1, naxis + 1)]
    pcount, gcount = whole("PCOUNT", 0), whole("GCOUNT", 1)
    if any(n < 0 for n in axes) or pcount < 0 or gcount < 0:
        raise InputError("the header gives a negative size", path=source.path, hdu=index)
    size = abs(bitpix) // 8 * gcount * (pcount + math.prod(axes)) if axes else 0
    extension = header.text("XTENSION")
    if index == 0 or extension == "IMAGE":
        kind = "image"
    elif extension in ("BINTABLE", "A3DTABLE"):
        kind = "compressed" if header.get("ZIMAGE") is True else "table"
    else:
        kind = "other"
    if kind == "compressed":
        axes = [whole(f"ZNAXIS{n}") for n in range(1, whole("ZNAXIS") + 1)]
    name = header.text("EXTNAME").upper()
    return Hdu(index, name, kind, tuple(reversed(axes)), header, data_at, size)
