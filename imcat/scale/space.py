"""Whether there is room on a disk for the tiles that are about to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from imcat.errors import OutputError
from imcat.simulate.observation import Observation

__all__ = ["check_space", "tile_bytes"]

# Bytes: of a pixel of one exposure (SDSS: compressed frames; CSST: image, weights and flags, or those two packed), of the
# headers and tables of an exposure, and of a truth table, by pixel of the tile.
_PIXEL = {"sdss": 1.3, "csst": 10.0}
_PACKED_PIXEL = {"sdss": 1.3, "csst": 4.1}
_EXPOSURE = {"sdss": 26_000, "csst": 34_000}
_PACKED_EXPOSURE = {"sdss": 26_000, "csst": 14_000}
_TRUTH, _TRUTH_PIXEL = 35_000, 0.15
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def tile_bytes(observation: Observation, *, packed: bool = False) -> int:
    """About how many bytes a tile takes on disk.

    Parameters
    ----------
    observation : Observation
        Its exposures.
    packed : bool
        Whether weights and flags are compressed.
    """
    kind = observation.survey
    pixel = (_PACKED_PIXEL if packed else _PIXEL)[kind]
    around = (_PACKED_EXPOSURE if packed else _EXPOSURE)[kind]
    images = sum(pixel * e.shape[0] * e.shape[1] + around for e in observation.exposures)
    rows, columns = observation.reference_exposure.shape
    return round(images + _TRUTH + _TRUTH_PIXEL * rows * columns)


def check_space(folder: Path, needed: int) -> int:
    """Refuse more than there is room for.

    Parameters
    ----------
    folder : path
        Where files are to go; it need not exist yet.
    needed : int
        Bytes.

    Returns
    -------
    int
        Bytes that are free.

    Raises
    ------
    OutputError
        If there are fewer than are needed.
    """
    there = folder.resolve()
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OutputError(
            f"{folder}: the tiles need about {in_words(needed)} and {in_words(free)} are free; expected fewer or smaller "
            "tiles, fewer bands, or another disk"
        )
    return free


def in_words(size: float) -> str:
    """A number of bytes with a unit.

    Examples
    --------
    >>> in_words(1234567)
    '1.2 MB'
    """
    power = 0
    while size >= 999.5 and power < len(_UNITS) - 1:
        size /= 1000
        power += 1
    return f"{size:.0f} {_UNITS[power]}" if power == 0 or size >= 9.95 else f"{size:.1f} {_UNITS[power]}"
