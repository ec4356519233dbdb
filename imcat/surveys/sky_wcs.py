"""World coordinates: from a header, checked; and which images overlap on the sky."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.surveys.fits_header import Header

__all__ = ["celestial_wcs", "footprint_area", "overlap_fraction", "sky_centre"]

_KEYS = re.compile(
    r"^(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12]$|^(CD|PC)[12]_[12]$|^PV[12]_\d+$"
    r"|^(A|B|AP|BP)_(ORDER|\d+_\d+)$|^(LONPOLE|LATPOLE|EQUINOX|RADESYS)$"
)
_TEXT = ("CTYPE", "CUNIT", "RADESYS")
#: Pixel scales that a survey camera may have, arcsec.
_SCALES = (0.001, 100.0)
# The reference point may lie outside the image, as in mosaics, but not out of sight, degrees.
_MAX_OFFSET = 60.0
# A PV that some pipelines write where no distortion could be fitted (CSST level 1).
_NO_PV = -9999


def celestial_wcs(header: Header, shape: tuple[int, int], path: str, hdu: int | None = None) -> Any:
    """World coordinates of an image.

    Parameters
    ----------
    header : Header
        Keywords of the image.
    shape : (int, int)
        Rows and columns.
    path, hdu
        For messages.

    Returns
    -------
    astropy.wcs.WCS
        Right ascension and declination (ICRS, or FK5 J2000, which is the same within 0.03″).

    Raises
    ------
    InputError
        If there is no celestial WCS or it makes no sense.
    """
    from astropy.io import fits
    from astropy.wcs import WCS

    cards = _clean(header)
    # wcslib takes a number written as text for the default, without a word.
    for key in [k for k, v in cards.items() if isinstance(v, str) and not k.startswith(_TEXT)]:
        cards[key] = header.number(key)
        if cards[key] is None:
            raise InputError(f"{key} is {header[key]!r}", path=path, hdu=hdu, expected="a number")
    types = (cards.get("CTYPE1", ""), cards.get("CTYPE2", ""))
    if not (str(types[0]).startswith("RA--") and str(types[1]).startswith("DEC-")):
        found = "has no celestial WCS" if not any(types) else f"has the axes {types[0]!r} and {types[1]!r}"
        raise InputError(found, path=path, hdu=hdu, expected="CTYPE1 = RA---..., CTYPE2 = DEC--...")
    frame = str(cards.get("RADESYS", "ICRS")).upper()
    equinox = cards.get("EQUINOX", 2000.0)
    if frame not in ("ICRS", "FK5", "GAPPT") or equinox != 2000.0:
        raise InputError(
            f"the WCS is in {frame}, equinox {equinox}", path=path, hdu=hdu, expected="ICRS or FK5 J2000"
        )
    try:
        wcs = WCS(fits.Header(cards), naxis=2, fix=False)
        problem = _nonsense(wcs, shape)
    except Exception as error:  # wcslib and astropy raise many kinds
        problem = " ".join(str(error).split())[-120:] or type(error).__name__
    if problem:
        raise InputError(
            f"the WCS makes no sense: {problem}", path=path, hdu=hdu, expected="a WCS that maps every pixel"
        )
    wcs.array_shape = shape
    return wcs


def _clean(header: Header) -> dict[str, Any]:
    """The WCS keywords, spelt as the standard spells them."""
    cards = {k: v for k, v in header.items() if _KEYS.match(k) and v is not None}
    if "RADESYS" not in cards and isinstance(header.get("RADECSYS"), str):
        cards["RADESYS"] = header["RADECSYS"]  # the old spelling, in SDSS frames
    for axis in "12":
        unit = str(cards.get(f"CUNIT{axis}", "deg")).strip().lower()
        cards[f"CUNIT{axis}"] = "deg" if unit in ("deg", "degree", "degrees", "") else unit
    if any(value == _NO_PV for key, value in cards.items() if key.startswith("PV")):
        cards = {k: v for k, v in cards.items() if not k.startswith("PV")}
        for axis in "12":
            cards[f"CTYPE{axis}"] = str(cards.get(f"CTYPE{axis}", "")).replace("TPV", "TAN")
    # SCAMP writes its polynomials as PV of a TAN projection; the name TPV came later.
    if any(re.match(r"^PV[12]_([5-9]|[1-3]\d)$", key) for key in cards):
        for axis in "12":
            cards[f"CTYPE{axis}"] = str(cards.get(f"CTYPE{axis}", "")).replace("-TAN", "-TPV")
    if any(key.startswith("CD") and "_" in key for key in cards):
        for key in [k for k in cards if k.startswith(("CDELT", "CROTA", "PC"))]:
            del cards[key]
    if "A_ORDER" in cards:
        for axis in "12":
            if not str(cards.get(f"CTYPE{axis}", "")).endswith("-SIP"):
                cards[f"CTYPE{axis}"] = f"{cards.get(f'CTYPE{axis}', '')}-SIP"
    return cards


def _nonsense(wcs: Any, shape: tuple[int, int]) -> str:
    """What is wrong with a WCS, or an empty string."""
    matrix = 3600.0 * np.asarray(wcs.pixel_scale_matrix)
    area = abs(float(np.linalg.det(matrix)))
    for scale in (*np.hypot(*matrix), area**0.5):
        if not _SCALES[0] <= scale <= _SCALES[1]:
            return f"a pixel is {scale:g} arcsec wide, not {_SCALES[0]} to {_SCALES[1]}"
    middle = np.array([shape[1] / 2, shape[0] / 2])
    away = float(np.hypot(*(matrix @ (np.asarray(wcs.wcs.crpix) - middle)))) / 3600.0
    if not away <= _MAX_OFFSET:
        return f"the reference point is {away:g} degrees away from the image"
    x, y = _grid(shape, 3)
    ra, dec = wcs.pixel_to_world_values(x, y)
    if not (np.isfinite(ra).all() and np.isfinite(dec).all() and np.abs(dec).max() <= 90):
        return "some pixels have no position"
    back = np.array(wcs.world_to_pixel_values(ra, dec))
    if not np.abs(back - np.array([x, y])).max() < 0.1:
        return "positions do not lead back to their pixels"
    return ""


def _grid(shape: tuple[int, int], n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    x = np.linspace(0, max(shape[1] - 1, 0), n)
    y = np.linspace(0, max(shape[0] - 1, 0), n)
    grid = np.meshgrid(x, y)
    return grid[0].ravel(), grid[1].ravel()


def _vectors(wcs: Any, shape: tuple[int, int], n: int) -> NDArray[Any]:
    ra, dec = (np.radians(v) for v in wcs.pixel_to_world_values(*_grid(shape, n)))
    return np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def sky_centre(wcs: Any, shape: tuple[int, int]) -> tuple[NDArray[Any], float]:
    """Unit vector of an image's centre, and the radius of the circle around it, radians."""
    vectors = _vectors(wcs, shape, 3)
    centre = vectors[:, 4]
    radius = float(np.arccos(np.clip(centre @ vectors, -1, 1)).max())
    return centre, radius


def footprint_area(wcs: Any, shape: tuple[int, int]) -> float:
    """Area of an image on the sky, square degrees, from the scale at its centre."""
    return abs(float(np.linalg.det(np.asarray(wcs.pixel_scale_matrix)))) * shape[0] * shape[1]


def overlap_fraction(
    wcs: Any, shape: tuple[int, int], other: Any, other_shape: tuple[int, int], n: int = 33
) -> float:
    """Fraction of an image's area that another image covers.

    Parameters
    ----------
    wcs, shape
        The image.
    other, other_shape
        The other one.
    n : int
        The image is sampled on `n` × `n` points.

    Returns
    -------
    float
        0 to 1, to about 1/n.
    """
    centre, radius = sky_centre(wcs, shape)
    other_centre, other_radius = sky_centre(other, other_shape)
    separation = float(np.arccos(np.clip(centre @ other_centre, -1, 1)))
    if separation > radius + other_radius:
        return 0.0
    ra, dec = wcs.pixel_to_world_values(*_grid(shape, n))
    try:
        x, y = other.world_to_pixel_values(ra, dec)
    except Exception:  # inverting a distortion far outside the image may not converge
        return 0.0
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x <= other_shape[1] - 0.5) & (y >= -0.5) & (y <= other_shape[0] - 0.5)
    return float(np.mean(inside))
