"""TileSource: the files of one tile, before any pixel is read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from imcat.errors import InputError

__all__ = ["TileSource", "check_name", "hashed_number", "lost_tile"]

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")

#: Tiles are numbered with 36 bits in ``source_id``.
NUMBER_BITS = 36


@dataclass(frozen=True)
class TileSource:
    """A tile as found on disk; small, and picklable for other processes.

    Attributes
    ----------
    name : str
        Unique in a run; part of file names.
    survey : str
        ``sdss``, ``csst`` or ``generic``.
    number : int
        36 bits that identify the tile within its survey.
    files : tuple of str
        Every file that was found to belong to the tile, for checksums.
    parts : tuple of (str, str)
        Band and main file of each exposure, as the survey's reader needs them.
    notes : tuple of str
        What a user should know about how the tile was put together.
    damage : str
        Why it cannot be read, where that is known before; `imcat.surveys.read_tile` raises it.
    """

    name: str
    survey: str
    number: int
    files: tuple[str, ...]
    parts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    damage: str = ""


def lost_tile(name: str, survey: str, path: str, error: InputError) -> TileSource:
    """A tile of a file found in a folder that cannot be read: it fails in its turn and costs no other."""
    return TileSource(name, survey, hashed_number(name), (path,), damage=str(error))


def hashed_number(name: str) -> int:
    """36 bits from the name of a tile, for surveys without a numbering of their own.

    Examples
    --------
    >>> hashed_number("field-1") == hashed_number("field-1") < 2**36
    True
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - NUMBER_BITS)


def check_name(name: str, path: str) -> str:
    """A tile's name, if it may be part of file names.

    Raises
    ------
    InputError
        If it holds other characters than letters, digits and ``. _ + -``.
    """
    if not _NAME.match(name) or len(name) > 120:
        raise InputError(
            f"the name of the tile is {name!r}",
            path=path,
            expected="up to 120 letters, digits and . _ + -, with a letter or digit first",
        )
    return name
