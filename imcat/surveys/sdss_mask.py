"""Bad and saturated pixels of SDSS frames.

The frames of DR8 and later carry no mask. Where the ``fpM`` file of PHOTO lies beside a frame its
planes are used (format: https://classic.sdss.org/dr7/dm/flatFiles/fpM.php). Elsewhere saturation
is told from the counts; since PHOTO replaced saturated pixels by interpolation, their counts are
often far below the saturation level, and `interpolated_cores` looks for the traces of that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.flags import PixelFlag
from imcat.surveys.fits_io import FitsFile

__all__ = ["interpolated_cores", "read_fpm", "saturated_pixels"]

#: Planes of an fpM file in the order of its HDUs 1 to 10 (S_MASKTYPE of PHOTO), and what they are
#: here. PHOTO interpolates over cosmic rays too. Objects and the like are no defects.
PLANES: tuple[tuple[str, PixelFlag | None], ...] = (
    ("INTERP", PixelFlag.INTERPOLATED),
    ("SATUR", PixelFlag.SATURATED),
    ("NOTCHECKED", None),
    ("OBJECT", None),
    ("BRIGHTOBJECT", None),
    ("BINOBJECT", None),
    ("CATOBJECT", None),
    ("SUBTRACTED", None),
    ("GHOST", PixelFlag.GHOST),
    ("CR", PixelFlag.INTERPOLATED),
)

# Counts above which a core can be that of a saturated star: PHOTO's interpolation leaves values of
# some thousand counts, and a star that reaches them honestly is far from saturation.
_CORE_COUNTS = 4000.0
# Two neighbours that differ by less than this, in units of their Poisson noise (plus half of the
# last digit of the compressed frames, 2^-10), are the same number interpolated twice.
_SAME = 0.2
_DIGIT = 2.0**-10
# A pixel this many times brighter than those above and below is sharper than any seeing.
_SPIKE = 4.0


def read_fpm(path: str | Path, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Mask of a frame from its fpM file.

    Parameters
    ----------
    path : path
        ``fpM-RRRRRR-BC-FFFF.fit``.
    shape : (int, int)
        Rows and columns of the frame.

    Returns
    -------
    uint16 array, ``[y, x]``
        Bits of `imcat.flags.PixelFlag`.

    Raises
    ------
    InputError
        If the file is damaged or belongs to a frame of another size.
    """
    file = FitsFile(path)
    primary = file.hdus[0].header
    size = (primary.integer("MASKROWS", shape[0]), primary.integer("MASKCOLS", shape[1]))
    if size != shape:
        raise InputError(
            f"the mask has {size[1]} x {size[0]} pixels", path=path, expected=f"{shape[1]} x {shape[0]}"
        )
    mask = np.zeros(shape, dtype=np.uint16)
    for index, (_, flag) in enumerate(PLANES, start=1):
        if flag is None or index >= len(file.hdus):
            continue
        hdu = file.hdus[index]
        if hdu.kind != "table" or not hdu.shape or hdu.shape[0] == 0:
            continue  # an empty plane
        for y, x1, x2 in _spans(file, index):
            mask[y : y + 1, x1 : x2 + 1] |= np.uint16(flag)
    return mask


def _spans(file: FitsFile, index: int) -> NDArray[np.int64]:
    """Row, first and last column of every run of masked pixels of a plane, shape ``[n, 3]``."""
    table = file.table(index)
    column = next((name for name in ("S", "SPAN", "SPANS") if name in table), None)
    spans: list[NDArray[np.int64]] = []
    if column is not None:
        for row in range(len(table)):
            # PHOTO's SPAN is three shorts: y, x1, x2, big-endian in the heap.
            values = table.array(column, row, ">i2").astype(np.int64)
            spans.append(values[: values.size // 3 * 3].reshape(-1, 3))
    elif all(name in table for name in ("RMIN", "RMAX", "CMIN", "CMAX")):
        boxes = np.stack([table.column(n).astype(np.int64) for n in ("RMIN", "RMAX", "CMIN", "CMAX")], 1)
        for top, bottom, left, right in np.clip(boxes, 0, 65535):
            y = np.arange(top, bottom + 1)
            spans.append(np.stack([y, np.full_like(y, left), np.full_like(y, right)], axis=1))
    else:
        raise InputError(
            "the mask plane has no spans and no boxes",
            path=file.path,
            hdu=index,
            expected="columns RMIN ... S",
        )
    found = np.concatenate(spans) if spans else np.zeros((0, 3), np.int64)
    if (found < 0).any():
        raise InputError("a span of the mask begins at a negative pixel", path=file.path, hdu=index)
    return found


def saturated_pixels(
    data: NDArray[np.float32],
    calibration: NDArray[np.float32],
    sky: float,
    level: float,
    gain: float,
    *,
    cores: bool = True,
) -> NDArray[np.uint16]:
    """Mask of the saturated pixels of a frame without an fpM file.

    Parameters
    ----------
    data : float32 array, ``[y, x]``
        Sky-subtracted frame, nanomaggies.
    calibration : float32 array, ``[x]``
        Nanomaggies per count.
    sky : float
        Typical counts of the sky that was subtracted.
    level : float
        Saturation level, counts above the soft bias.
    gain : float
        Electrons per count.
    cores : bool
        Look for interpolated cores too.

    Returns
    -------
    uint16 array, ``[y, x]``
        ``SATURATED`` where saturated.
    """
    mask = np.zeros(data.shape, dtype=np.uint16)
    threshold = min(level - sky, _CORE_COUNTS if cores else np.inf)
    rows = np.flatnonzero((data > calibration * np.float32(threshold)).any(axis=1))
    if not rows.size:
        return mask
    # Bright rows are few; the row above and below each of them comes along.
    near = np.unique(np.clip(rows[:, None] + np.array([-1, 0, 1]), 0, data.shape[0] - 1))
    counts = data[near] / calibration
    found = counts >= level - sky
    if cores:
        found |= interpolated_cores(counts, near, gain)
    mask[near] = np.where(found, np.uint16(PixelFlag.SATURATED), np.uint16(0))
    return mask


def interpolated_cores(
    counts: NDArray[np.float32], rows: NDArray[np.int64], gain: float
) -> NDArray[np.bool_]:
    """Cores of stars whose saturated pixels PHOTO replaced by interpolation.

    Interpolation runs along rows, so it leaves two traces that no star shows otherwise: four or
    more neighbours in a row that agree far better than their Poisson noise allows, in two rows
    at least; and rows that differ from those above and below by more than any seeing permits.

    Parameters
    ----------
    counts : float32 array, ``[row, x]``
        Sky-subtracted counts of the rows in question.
    rows : int array, ``[row]``
        Their numbers in the frame, ascending.
    gain : float
        Electrons per count.

    Returns
    -------
    bool array, ``[row, x]``
        True in such cores.
    """
    bright = counts > _CORE_COUNTS
    found = np.zeros(counts.shape, dtype=bool)
    next_row = np.diff(rows) == 1
    flat = np.zeros(counts.shape, dtype=bool)
    for y in np.flatnonzero(bright.any(axis=1)):
        line = counts[y]
        noise = _SAME * np.sqrt(2.0 * np.maximum(line[1:], 1.0) / gain) + 0.5 * _DIGIT * line[1:]
        same = (np.abs(np.diff(line)) < noise) & bright[y, 1:] & bright[y, :-1]
        runs = same[:-2] & same[1:-1] & same[2:]
        for shift in range(4):
            flat[y, shift : shift + runs.size] |= runs
    # A run counts if the row above or below has one within a few pixels.
    wide = flat.copy()
    for shift in (1, 2, 3):
        wide[:, shift:] |= flat[:, :-shift]
        wide[:, :-shift] |= flat[:, shift:]
    found[1:] |= flat[1:] & wide[:-1] & next_row[:, None]
    found[:-1] |= flat[:-1] & wide[1:] & next_row[:, None]
    middle = np.flatnonzero(next_row[1:] & next_row[:-1]) + 1
    beside = np.maximum(counts[middle - 1], counts[middle + 1])
    found[middle] |= bright[middle] & (counts[middle] > _SPIKE * np.maximum(beside, 1.0))
    return found
