"""The bytes of a FITS file, whatever it is packed in.

A plain file is read piece by piece with ``os.pread`` (thread-safe, and unlike a memory map it
leaves no pages in the resident set); gzip and bzip2 files are unpacked into memory as a whole,
since neither can be entered in the middle. What a file is packed in is told by its first bytes,
not by its name.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import weakref
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

from imcat.errors import InputError

__all__ = ["ByteSource", "FileBytes", "MemoryBytes", "first_bytes", "open_bytes"]

_BZIP2, _GZIP = b"BZh", b"\x1f\x8b"
# What the unpackers raise for files that are cut or have flipped bits.
_UNPACK_ERRORS = (OSError, EOFError, zlib.error, ValueError)


class ByteSource(Protocol):
    """Bytes with random access."""

    path: str

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, count: int) -> bytes | memoryview:
        """Up to `count` bytes from `offset`; fewer only at the end."""
        ...

    def stream(self) -> BinaryIO:
        """A new file object on the bytes."""
        ...


class MemoryBytes:
    """Bytes that were unpacked into memory."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def read(self, offset: int, count: int) -> memoryview:
        """A view, without a copy."""
        return memoryview(self.data)[offset : offset + count]

    def stream(self) -> BinaryIO:
        """A new file object on the bytes."""
        return io.BytesIO(self.data)


class FileBytes:
    """An uncompressed file, read where needed by any number of threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            self._size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise _unreadable(path, error) from None
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    def read(self, offset: int, count: int) -> bytes:
        """Read a piece.

        Raises
        ------
        InputError
            If the operating system cannot read it.
        """
        pieces: list[bytes] = []
        while count > 0:
            try:
                piece = os.pread(self._descriptor, count, offset)
            except OSError as error:
                raise _unreadable(self.path, error) from None
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def stream(self) -> BinaryIO:
        """A new file object on the file."""
        try:
            return Path(self.path).open("rb")
        except OSError as error:
            raise _unreadable(self.path, error) from None


def open_bytes(path: str | Path) -> ByteSource:
    """Open a file, unpacking it where it is packed.

    Parameters
    ----------
    path : path
        A file, plain or compressed with gzip or bzip2.

    Raises
    ------
    InputError
        If the file is missing, empty, unreadable, or its compressed stream is damaged.
    """
    path = str(path)
    kind = _kind(path)
    if kind == "plain":
        return FileBytes(path)
    try:
        packed = Path(path).read_bytes()
        data = bz2.decompress(packed) if kind == "bzip2" else gzip.decompress(packed)
    except MemoryError:
        raise InputError("the unpacked file does not fit in memory", path=path) from None
    except _UNPACK_ERRORS as error:
        raise _damaged(path, kind, error) from None
    if not data:
        raise InputError(f"the {kind} stream is truncated or empty", path=path, expected="a FITS file in it")
    return MemoryBytes(path, data)


def first_bytes(path: str | Path, count: int) -> bytes:
    """The first bytes of a file, unpacking no more of it than they need.

    Parameters
    ----------
    path : path
        A file, plain or compressed with gzip or bzip2.
    count : int
        How many bytes are wanted; fewer come if the file ends before.

    Raises
    ------
    InputError
        As for `open_bytes`, for the part that was read.
    """
    path = str(path)
    kind = _kind(path)
    try:
        with Path(path).open("rb") as file:
            if kind == "plain":
                return file.read(count)
            if kind == "gzip":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return unpacked.read(count)
            unpacker, data = bz2.BZ2Decompressor(), b""
            while len(data) < count and not unpacker.eof:
                piece = file.read(1 << 17) if unpacker.needs_input else b""
                if unpacker.needs_input and not piece:
                    raise EOFError("the compressed stream ends early")
                data += unpacker.decompress(piece, max_length=count - len(data))
            return data
    except _UNPACK_ERRORS as error:
        raise _damaged(path, kind, error) from None


def _kind(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not start:
        raise InputError("the file is empty", path=path, expected="a FITS file")
    if start.startswith(_BZIP2):
        return "bzip2"
    return "gzip" if start.startswith(_GZIP) else "plain"


def _unreadable(path: str, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError("no such file", path=path, expected="a FITS file")
    if isinstance(error, IsADirectoryError):
        return InputError("is a folder", path=path, expected="a FITS file")
    return InputError(f"cannot be read ({error.strerror or error})", path=path)


def _damaged(path: str, kind: str, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.errno is not None:
        return _unreadable(path, error)
    text = "truncated" if isinstance(error, EOFError) or "before" in str(error) else "damaged"
    return InputError(
        f"the {kind} stream is {text} ({error})",
        path=path,
        expected="an intact file",
        hint="fetch or copy the file again",
    )
