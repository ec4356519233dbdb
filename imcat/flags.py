"""Every flag bit, declared once.

Two sets: `PIXEL_FLAGS` are the bits of a mask image inside imcat (each
survey's own bits are mapped to them in `imcat.surveys`), `SOURCE_FLAGS` are
the bits of the columns ``flags`` and ``{b}_flags``. Decoder, documentation
and file headers all read these tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

__all__ = [
    "BAD_PIXEL_BITS",
    "PIXEL_FLAGS",
    "SOURCE_FLAGS",
    "FlagInfo",
    "PixelFlag",
    "SourceFlag",
    "decode",
]


class PixelFlag(IntFlag):
    """Bits of a pixel mask (the first five are those of CSST level 1)."""

    BAD = 1
    HOT = 2
    WARM = 4
    SATURATED = 8
    COSMIC_RAY = 16
    TRAIL = 32
    GHOST = 64
    INTERPOLATED = 128
    NO_DATA = 256


#: Pixels with one of these bits carry no information at all. Saturated pixels
#: are not among them: their values are lower limits, and the source is flagged.
BAD_PIXEL_BITS = int(
    PixelFlag.BAD | PixelFlag.HOT | PixelFlag.COSMIC_RAY | PixelFlag.TRAIL | PixelFlag.NO_DATA
)


class SourceFlag(IntFlag):
    """Bits of the columns ``flags`` (the source) and ``{b}_flags`` (one band)."""

    SATURATED = 1
    EDGE = 2
    BAD_PIXEL = 4
    BLENDED = 8
    NEIGHBOUR = 16
    KRON_FALLBACK = 32
    OUTSIDE = 64
    TRUNCATED = 128
    MOVING = 256
    NOT_MEASURED = 512
    CENTROID_FALLBACK = 1024
    INTERPOLATED = 2048
    HALO = 4096
    COSMIC_RAY = 8192
    MODEL_NOT_CONVERGED = 16384
    MODEL_AT_BOUND = 32768
    MODEL_FALLBACK = 65536
    PETROSIAN_FALLBACK = 131072


@dataclass(frozen=True)
class FlagInfo:
    """Name, value and meaning of one bit."""

    name: str
    value: int
    description: str


PIXEL_FLAGS: tuple[FlagInfo, ...] = tuple(
    FlagInfo(bit.name or "", int(bit), text)
    for bit, text in {
        PixelFlag.BAD: "Dead or otherwise unusable pixel.",
        PixelFlag.HOT: "Pixel with a high dark current.",
        PixelFlag.WARM: "Pixel with a raised dark current; still used.",
        PixelFlag.SATURATED: "Saturated or bled into; used, and the source is flagged.",
        PixelFlag.COSMIC_RAY: "Hit by a cosmic ray.",
        PixelFlag.TRAIL: "Crossed by a satellite or another moving object.",
        PixelFlag.GHOST: "Part of a ghost or of scattered light; used.",
        PixelFlag.INTERPOLATED: "Value interpolated by the survey's pipeline; used.",
        PixelFlag.NO_DATA: "No measurement: outside the detector, not finite, or zero weight.",
    }.items()
)

SOURCE_FLAGS: tuple[FlagInfo, ...] = tuple(
    FlagInfo(bit.name or "", int(bit), text)
    for bit, text in {
        SourceFlag.SATURATED: "A saturated pixel lies in the source's footprint; fluxes are lower limits.",
        SourceFlag.EDGE: "An aperture reaches over the edge of the image.",
        SourceFlag.BAD_PIXEL: "A bad pixel lies in the Kron ellipse; it was replaced by its mirror image.",
        SourceFlag.BLENDED: "The source was separated from others in one footprint.",
        SourceFlag.NEIGHBOUR: "More than a tenth of the Kron ellipse belongs to neighbours.",
        SourceFlag.KRON_FALLBACK: "The Kron radius could not be measured well enough; its minimum was used.",
        SourceFlag.OUTSIDE: "The position lies outside this band's image; its values are missing.",
        SourceFlag.TRUNCATED: "The footprint is larger than the overlap of two windows.",
        SourceFlag.MOVING: "The position shifts from band to band: probably an asteroid.",
        SourceFlag.NOT_MEASURED: "The source could not be measured; its values are missing.",
        SourceFlag.CENTROID_FALLBACK: "The windowed centroid failed; the position is that of the detection.",
        SourceFlag.INTERPOLATED: "An interpolated pixel lies in the source's footprint.",
        SourceFlag.HALO: "The detection lies in the halo or on a spike of a much brighter source.",
        SourceFlag.COSMIC_RAY: "Sharper than the PSF or hit by a masked cosmic ray in this band.",
        SourceFlag.MODEL_NOT_CONVERGED: "A model fit ran out of steps; its last stable state stands.",
        SourceFlag.MODEL_AT_BOUND: "A parameter of the galaxy model lies on its bound.",
        SourceFlag.MODEL_FALLBACK: "The galaxy model could not be fitted; the point source stands for it.",
        SourceFlag.PETROSIAN_FALLBACK: "No Petrosian radius was found; that of a typical star was used.",
    }.items()
)


def decode(value: int, table: Iterable[FlagInfo] = SOURCE_FLAGS) -> list[str]:
    """Names of the bits that are set.

    Parameters
    ----------
    value : int
        A value of a flag column or of a mask.
    table : iterable of FlagInfo, optional
        `SOURCE_FLAGS` (default) or `PIXEL_FLAGS`.

    Returns
    -------
    list of str
        Names in the order of their bits.

    Examples
    --------
    >>> decode(10)
    ['EDGE', 'BLENDED']
    """
    return [info.name for info in table if value & info.value]
