"""Writing CSST level-1 exposures, in the format that `imcat.surveys.csst` reads.

Names and keywords are those of the public data model of Cycle 7 (see `imcat.surveys.csst`). The
bytes depend on the arguments only.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.errors import OutputError
from imcat.surveys.csst_constants import (
    APERTURE_RADIUS,
    CHIP_BANDS,
    EXPOSURE_SECONDS,
    PIXEL_SCALE,
    READ_NOISE,
)

__all__ = ["Level1Exposure", "write_level1"]

_CARD, _BLOCK = 80, 2880  # bytes, of FITS
_LEVEL = 4  # of the compression: maps that are constant but for some pixels


@dataclass(frozen=True, eq=False)
class Level1Exposure:
    """One exposure of one CCD, ready to be written.

    Attributes
    ----------
    image : float32 array, ``[y, x]``
        e⁻/s, sky subtracted.
    weight : float32 array, ``[y, x]``
        Inverse variance, (e⁻/s)⁻²; 0 where a pixel is bad.
    flags : uint16 array, ``[y, x]``
        Bits of the data model (see `imcat.surveys.csst_constants.FLAG_BITS`).
    wcs : astropy.wcs.WCS
        TAN or TPV.
    detector : int
        Number of the CCD, which determines the band.
    obsid : int
        Number of the observation, 9 to 11 digits.
    start : datetime
        Beginning of the exposure, UTC.
    zero_point : float
        AB magnitude of 1 e⁻/s.
    exposure_time : float
        Seconds.
    fwhm : float
        Of the PSF, arcsec; −9999 where unknown.
    sky : float
        Sky that was subtracted, e⁻/s per pixel.
    """

    image: NDArray[np.float32]
    weight: NDArray[np.float32]
    flags: NDArray[np.uint16]
    wcs: Any
    detector: int
    obsid: int
    start: datetime
    zero_point: float
    exposure_time: float = EXPOSURE_SECONDS
    fwhm: float = -9999.0
    sky: float = 0.0


def write_level1(folder: str | Path, exposure: Level1Exposure, *, packed: bool = False) -> list[Path]:
    """Write the ``_img``, ``_wht`` and ``_flg`` files of an exposure.

    Parameters
    ----------
    folder : path
        Is made if it is not there.
    exposure : Level1Exposure
        What to write.
    packed : bool
        Whether weights and flags, which hold little, are compressed (``.fits.gz``): with them an exposure takes 4 bytes
        a pixel instead of 10.

    Returns
    -------
    list of pathlib.Path
        Image, weight, flags.

    Raises
    ------
    OutputError
        If the parts do not fit each other, the detector is unknown, or a file cannot be written.
    """
    folder = Path(folder)
    shapes = {exposure.image.shape, exposure.weight.shape, exposure.flags.shape}
    if len(shapes) != 1 or exposure.detector not in CHIP_BANDS or len(str(exposure.obsid)) not in (9, 10, 11):
        raise OutputError(
            f"an exposure of detector {exposure.detector}, observation {exposure.obsid} with parts of the "
            f"shapes {sorted(shapes)} cannot be CSST level 1; expected one shape, an imaging detector and "
            "9 to 11 digits"
        )
    written = []
    kinds = {
        "img": exposure.image.astype(">f4"),
        "wht": exposure.weight.astype(">f4"),
        "flg": exposure.flags.astype(np.uint16),
    }
    cards = _image_cards(exposure)
    for kind, data in kinds.items():
        name = _name(exposure, kind)
        content = _bytes(exposure, data, name, cards)
        if packed and kind != "img":
            name += ".gz"
            content = gzip.compress(content, _LEVEL, mtime=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise OutputError(f"{folder / name}: cannot be written ({error.strerror or error})") from None
        written.append(folder / name)
    return written


def _name(exposure: Level1Exposure, kind: str) -> str:
    start = exposure.start.astimezone(UTC)
    end = start + timedelta(seconds=exposure.exposure_time)
    return (
        f"CSST_MSC_MS_SCI_{start:%Y%m%d%H%M%S}_{end:%Y%m%d%H%M%S}_"
        f"{exposure.obsid}_{exposure.detector:02d}_{kind}_L1.fits"
    )


def _bytes(exposure: Level1Exposure, data: NDArray[Any], name: str, cards: list[str]) -> bytes:
    """A file: a primary header without data, and an image.

    The headers are put together from cards, which takes a tenth of the time that whole HDUs of astropy take: small tiles
    are mostly headers.
    """
    primary = [
        _card("SIMPLE", True, "conforms to FITS standard"),
        _card("BITPIX", 8, "array data type"),
        _card("NAXIS", 0, "number of array dimensions"),
        _card("EXTEND", True),
        _card("TELESCOP", "CSST"),
        _card("INSTRUME", "MSC"),
        _card("DETECTOR", f"CHIP{exposure.detector:02d}"),
        _card("FILENAME", name.removesuffix(".fits")),
        _card("OBSID", str(exposure.obsid)),
        _card("DATE-OBS", f"{exposure.start.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"),
        _card("EXPTIME", exposure.exposure_time),
    ]
    unsigned = data.dtype.kind == "u"
    structure = [
        _card("XTENSION", "IMAGE", "Image extension"),
        _card("BITPIX", 16 if unsigned else -32, "array data type"),
        _card("NAXIS", 2, "number of array dimensions"),
        _card("NAXIS1", data.shape[1]),
        _card("NAXIS2", data.shape[0]),
        _card("PCOUNT", 0, "number of parameters"),
        _card("GCOUNT", 1, "number of groups"),
    ]
    if unsigned:
        # FITS knows signed integers only: half of the range is taken off.
        structure += [_card("BSCALE", 1), _card("BZERO", 1 << 15)]
        data = (data ^ np.uint16(1 << 15)).astype(">u2")
    return _block(primary) + _block(structure + cards) + _padded(data.tobytes(), b"\0")


def _image_cards(exposure: Level1Exposure) -> list[str]:
    """What the images of an exposure have in common."""
    band = CHIP_BANDS[exposure.detector]
    facts: dict[str, Any] = {
        "BUNIT": "e/s",
        "FILTER": "NUV" if band == "nuv" else band,
        "EXPTIME": exposure.exposure_time,
        "GAIN1": 1.0,
        "RDNOISE1": READ_NOISE,
        "SKY_BKG": exposure.sky,
        "STA_FLUX": 0,
        "ZP": exposure.zero_point,
        "APER_R": APERTURE_RADIUS,
        "FWHM": exposure.fwhm / PIXEL_SCALE if exposure.fwhm > 0 else exposure.fwhm,
    }
    world = exposure.wcs.to_header(relax=True)
    facts |= {key: world[key] for key in world if key not in ("WCSAXES", "MJDREF", "DATE-OBS")}
    return [_card(key, value) for key, value in facts.items()]


def _card(key: str, value: Any, comment: str = "") -> str:
    from astropy.io import fits

    return str(fits.Card(key, value, comment))


def _block(cards: list[str]) -> bytes:
    """A header."""
    return _padded("".join([*cards, "END".ljust(_CARD)]).encode("ascii"), b" ")


def _padded(content: bytes, with_what: bytes) -> bytes:
    return content + with_what * (-len(content) % _BLOCK)
