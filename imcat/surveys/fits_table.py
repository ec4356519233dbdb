"""Binary tables: the few columns that survey files carry beside their images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.surveys.fits_bytes import ByteSource
from imcat.surveys.fits_header import Hdu, Header

__all__ = ["FitsTable"]

_TFORM = re.compile(r"^(\d*)([LXBIJKAEDCMPQ])")
#: FITS 4.0, table 18: letter of a TFORM and its type, big-endian.
_TYPES = {
    "L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "A": "S",
    "E": ">f4", "D": ">f8", "C": ">c8", "M": ">c16", "P": ">i4", "Q": ">i8",
}  # fmt: skip


class FitsTable:
    """A binary table in memory.

    Parameters
    ----------
    source : ByteSource
        The file.
    hdu : Hdu
        Of kind ``table``.

    Raises
    ------
    InputError
        If the header does not describe a table that fits its size.
    """

    def __init__(self, source: ByteSource, hdu: Hdu) -> None:
        self.path, self.hdu = source.path, hdu
        header = hdu.header
        if len(hdu.shape) != 2:
            raise self._error("the table has no rows and columns")
        rows, width = hdu.shape
        dtype, self._heap_types = self._layout(header, width)
        raw = source.read(hdu.offset, hdu.size)
        if dtype.itemsize != width or len(raw) < rows * width:
            raise self._error(f"the columns take {dtype.itemsize} bytes", f"{width}, as NAXIS1 says")
        self.rows = np.frombuffer(raw, dtype=dtype, count=rows)
        heap = header.integer("THEAP", rows * width) or 0
        self._heap = bytes(raw[heap:]) if self._heap_types else b""
        self.names = tuple(name for name in dtype.names or () if not name.startswith("\0"))

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: str) -> bool:
        return name.upper() in self.names

    def column(self, name: str) -> NDArray[Any]:
        """A column of fixed width, native-endian, shape ``[row, ...]``.

        Raises
        ------
        InputError
            If the table has no such column.
        """
        if name.upper() not in self.names:
            raise self._error(f"the table has no column {name}", f"one of {', '.join(self.names[:12])}")
        values = self.rows[name.upper()]
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def array(self, name: str, row: int, dtype: str | None = None) -> NDArray[Any]:
        """One entry of a variable-length column.

        Parameters
        ----------
        name : str
            Column.
        row : int
            Row, from 0.
        dtype : str, optional
            Take the bytes for this type instead of the declared one.

        Raises
        ------
        InputError
            If the entry lies outside the heap.
        """
        count, offset = (int(v) for v in self.column(name)[row])
        declared = np.dtype(self._heap_types.get(name.upper(), "u1"))
        size = count * declared.itemsize
        if count < 0 or offset < 0 or offset + size > len(self._heap):
            raise self._error(f"row {row} of {name} points outside the table")
        target = np.dtype(dtype) if dtype else declared
        values = np.frombuffer(self._heap, target, count=size // target.itemsize, offset=offset)
        return values.astype(target.newbyteorder("="), copy=False)

    def _layout(self, header: Header, width: int) -> tuple[np.dtype[Any], dict[str, str]]:
        fields: list[tuple[Any, ...]] = []
        heap: dict[str, str] = {}
        for n in range(1, (header.integer("TFIELDS") or 0) + 1):
            form = header.text(f"TFORM{n}")
            match = _TFORM.match(form)
            if not match or len(fields) > 999:
                raise self._error(f"column {n} has the format {form!r}", "a TFORM of a binary table")
            count, letter = int(match[1] or 1), match[2]
            name = header.text(f"TTYPE{n}").upper() or f"COL{n}"
            if any(name == field[0] for field in fields):
                name = f"{name}_{n}"
            if count * 16 > 16 * width + 16:
                raise self._error(f"column {name} is wider than the table")
            if letter in "PQ":
                element = form[match.end() : match.end() + 1]
                heap[name] = _TYPES.get(element, "u1")
                fields.append((name, _TYPES[letter], (2,)) if count else (name, "V0"))
            elif letter == "X":
                fields.append((name, "u1", (-(-count // 8),)))
            elif letter == "A":
                fields.append((name, f"S{count}"))
            elif count == 1:
                fields.append((name, _TYPES[letter]))
            else:
                fields.append((name, _TYPES[letter], self._dimensions(header, n, count)))
        if not fields:
            raise self._error("the table has no columns")
        try:
            return np.dtype(fields), heap
        except (ValueError, TypeError):
            raise self._error("the columns of the table make no sense") from None

    @staticmethod
    def _dimensions(header: Header, n: int, count: int) -> tuple[int, ...]:
        numbers = [int(v) for v in re.findall(r"\d{1,9}", header.text(f"TDIM{n}"))]
        shape = tuple(reversed(numbers))
        return shape if shape and int(np.prod(shape, dtype=np.int64)) == count else (count,)

    def _error(self, found: str, expected: str | None = None) -> InputError:
        return InputError(found, path=self.path, hdu=self.hdu.index, expected=expected)
