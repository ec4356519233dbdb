"""One CSST level-1 exposure: names, keywords, pixels.

Followed is the public data model as of Cycle 7 (2023), with the aliases of Cycles 3 and 5; see
`imcat.surveys.csst` for what that means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import InputError
from imcat.flags import PixelFlag
from imcat.surveys.csst_constants import (
    CHIP_BANDS,
    FAILED_VALUES,
    FLAG_BITS,
    PIXEL_SCALE,
    TAI_MINUS_UTC,
)
from imcat.surveys.fits_header import Header
from imcat.surveys.fits_io import FITS_SUFFIXES, FitsFile, check_image
from imcat.surveys.fits_pixels import MappedPixels
from imcat.surveys.sanity import check_variance, sample_rows
from imcat.surveys.sky_wcs import celestial_wcs
from imcat.tile import Exposure, Pixels

__all__ = ["LEVEL1_NAME", "Level1Name", "band_of", "parse_name", "partner", "read_exposure"]

#: Names of level-1 files of all cycles: start and end of the exposure (Cycle 3: start only),
#: number of the observation, detector, and kind, before or after the level and version.
LEVEL1_NAME = re.compile(
    r"^(?:CSST_)?(?:MSC|MBI)_(?:[A-Z0-9]+_)*?(?P<start>\d{12,14})_(?:(?P<end>\d{14})_)?"
    r"(?P<obsid>\d{9,11})_(?P<chip>\d{2})_"
    r"(?:(?P<kind>img|wht|flg)(?:_L1(?:_V?\d+)?)?|L1_V\d+_(?P<late>img|wht|flg))"
    r"\.(?:fits?|fts)(?:\.\w+)?$"
)
_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
# Pixels this far above the noise tell whether a weight map contains the sources' own noise.
_BRIGHT = 10.0
_NJY_ZERO_POINT = 2.5 * math.log10(AB_FLUX)


@dataclass(frozen=True)
class Level1Name:
    """What the name of a file says."""

    obsid: str
    chip: int
    kind: str
    start: str
    end: str | None

    @property
    def key(self) -> str:
        """Observation and detector."""
        return f"{self.obsid}-{self.chip:02d}"


def parse_name(path: str) -> Level1Name | None:
    """Take the name of a level-1 file apart; None if it is none."""
    match = LEVEL1_NAME.match(Path(path).name)
    if match is None:
        return None
    kind = match["kind"] or match["late"]
    return Level1Name(match["obsid"], int(match["chip"]), kind, match["start"], match["end"])


def partner(path: str, kind: str) -> str | None:
    """The weight (``wht``) or flag (``flg``) file beside an image, perhaps packed differently."""
    folder, name = Path(path).parent, Path(path).name
    name = re.sub(r"_img(?=[_.])", f"_{kind}", name)
    stem = re.sub(r"\.(?:fits?|fts)(?:\.\w+)?$", "", name)
    for candidate in (name, *(stem + suffix for suffix in FITS_SUFFIXES)):
        if (folder / candidate).is_file():
            return str(folder / candidate)
    return None


def band_of(header: Header, path: str) -> str:
    """The band of an exposure, from FILTER or else from the detector.

    Raises
    ------
    InputError
        If neither says.
    """
    name = header.text("FILTER").lower()
    if name in ("n", "nuv"):
        return "nuv"
    if re.fullmatch(r"[ugrizy]\d?", name):
        return name[0]
    parsed = parse_name(path)
    detector = header.text("DETECTOR")[-2:]
    chip = int(detector) if detector.isdigit() else (parsed.chip if parsed else -1)
    if not name and chip in CHIP_BANDS:  # a filter that is none of imaging is a grating
        return CHIP_BANDS[chip]
    raise InputError(
        f"the filter is {header.get('FILTER')!r} and the detector {chip}",
        path=path,
        expected="a filter NUV, u, g, r, i, z or y",
    )


def read_exposure(path: str) -> Exposure:
    """Open an image with its weight and flag files.

    Parameters
    ----------
    path : str
        The ``_img`` file; the others are found beside it.

    Returns
    -------
    Exposure
        In nJy, by ``ZP`` (or ``CCDZP``).

    Raises
    ------
    InputError
        If a file is damaged, or the flux calibration failed.
    """
    file = FitsFile(path)
    hdu = _image_hdu(file)
    header = file.keywords(file.hdus[hdu])
    scale = 10.0 ** (0.4 * (_NJY_ZERO_POINT - zero_point(header, path)))
    exposure_time = header.number("EXPTIME")
    if exposure_time is None or not exposure_time > 0:
        raise InputError(f"EXPTIME is {header.get('EXPTIME')!r}", path=path, expected="seconds above 0")
    unit = header.text("BUNIT", "e/s").lower().replace("-", "").replace(" ", "")
    if unit not in ("e/s", "electron/s", "electrons/s", "es1", "electron*s**1"):
        raise InputError(f"the unit is {header['BUNIT']!r}", path=path, hdu=hdu, expected="e/s")
    image = file.pixels(file.hdus[hdu], factor=scale)
    check_image(image, path, hdu, scale)
    wcs = celestial_wcs(header, image.shape, path, hdu)
    variance, notes = _variance(path, image, scale, exposure_time)
    flags = _partner_pixels(path, "flg", image.shape, integer=True)
    saturation = _usable(header, ("SATURATE",)) if flags is None else None
    fwhm = _usable(header, ("FWHM",))
    return Exposure(
        name=Path(path).name,
        image=image,
        wcs=wcs,
        variance=variance,
        mask=None if flags is None else MappedPixels((flags,), _map_flags),
        zero_point=zero_point(header, path),
        gain=exposure_time / scale,
        psf_fwhm=None if fwhm is None or not 0.5 < fwhm < 100 else fwhm * PIXEL_SCALE,
        mjd=_mid_time(header, path, exposure_time),
        saturation=None if saturation is None else saturation * scale,
        variance_source="weight" if variance is not None else "measured",
        notes=notes,
    )


def zero_point(header: Header, path: str) -> float:
    """AB magnitude of 1 e⁻/s.

    Raises
    ------
    InputError
        If it is absent or says that the flux calibration failed.
    """
    key = "ZP" if "ZP" in header else "CCDZP"
    value = header.number(key)
    status = header.integer("STA_FLUX", 0)
    if value is None and key not in header:
        raise InputError("has neither ZP nor CCDZP", path=path, expected="a flux-calibrated level-1 image")
    if value is None or value in FAILED_VALUES or status == 1 or not 5 < value < 45:
        said = f"{key} = {header.get(key)!r}" + (", STA_FLUX = 1" if status == 1 else "")
        raise InputError(
            f"the flux calibration failed ({said})",
            path=path,
            expected="a zero point in magnitudes",
            hint="leave this exposure out",
        )
    return value


def _image_hdu(file: FitsFile) -> int:
    """HDU 1 by the data model; files that were repacked may have it elsewhere."""
    if len(file.hdus) > 1 and file.hdus[1].kind in ("image", "compressed") and len(file.hdus[1].shape) == 2:
        return 1
    return file.image_hdu().index


def _usable(header: Header, keys: Iterable[str]) -> float | None:
    """The first of several keywords that holds a value which is no mark of failure."""
    for key in keys:
        value = header.number(key)
        if value is not None and value not in FAILED_VALUES and value > 0:
            return value
    return None


def _partner_pixels(path: str, kind: str, shape: tuple[int, int], *, integer: bool) -> Pixels | None:
    other = partner(path, kind)
    if other is None:
        return None
    file = FitsFile(other)
    hdu = _image_hdu(file)
    pixels = file.pixels(file.hdus[hdu], integer=integer)
    if pixels.shape != shape:
        raise InputError(
            f"has {pixels.shape[1]} x {pixels.shape[0]} pixels",
            path=other,
            hdu=hdu,
            expected=f"{shape[1]} x {shape[0]}, as {Path(path).name}",
        )
    return pixels


def _flag_table() -> NDArray[np.uint16]:
    values = np.arange(1 << len(FLAG_BITS))
    table = np.zeros(values.size, dtype=np.uint16)
    for bit, name in enumerate(FLAG_BITS):
        table[values >> bit & 1 == 1] |= np.uint16(PixelFlag[name])
    return table


_FLAG_TABLE = _flag_table()


def _map_flags(values: NDArray[Any]) -> NDArray[np.uint16]:
    mapped: NDArray[np.uint16] = _FLAG_TABLE[values.astype(np.int64) & (_FLAG_TABLE.size - 1)]
    return mapped


def _variance(
    path: str, image: Pixels, scale: float, exposure_time: float
) -> tuple[Pixels | None, tuple[str, ...]]:
    """Variance of sky and detector, nJy², from the weight file.

    The weight is 1 / variance in (e⁻/s)⁻². The pipelines of Cycle 5 put the Poisson noise of each
    pixel's own signal into it. That part, signal / EXPTIME, is taken out again where bright pixels
    show that it is there; since it was made from the same noisy pixels this leaves no bias.
    """
    weight = _partner_pixels(path, "wht", image.shape, integer=False)
    if weight is None:
        return None, ()
    name = Path(path).name
    area = np.float32(scale * scale)
    per_signal = np.float32(scale / exposure_time)  # nJy² of Poisson noise for each nJy

    def plain(values: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            return np.asarray(np.where(values > 0, area / values, np.nan), dtype=np.float32)

    def without_sources(values: NDArray[Any], data: NDArray[Any]) -> NDArray[Any]:
        total = plain(values)
        with np.errstate(invalid="ignore"):
            rest = total - per_signal * np.maximum(data, 0)
            # Rounding must not turn the noise of a bright pixel negative.
            return np.where(total > 0, np.maximum(rest, 1e-3 * total), total)

    check = check_variance(image, MappedPixels((weight,), plain))
    if check.positive == 0:
        _require_positive(weight, path)
    if check.swapped(scale * scale):
        # The map holds variances in (e⁻/s)², whatever its name says.
        swapped = MappedPixels((weight,), lambda v: np.where(v > 0, v * area, np.nan).astype(np.float32))
        return swapped, (f"{name}: the weight file holds variances, not weights; it is used as such",)
    notes: tuple[str, ...] = ()
    if not check.fits:
        ratio = math.sqrt(check.given / check.noise)
        notes = (f"{name}: the weights imply a noise {ratio:.3g} times that of the image's blank sky",)
    if _holds_source_noise(image, MappedPixels((weight,), plain), float(per_signal), check.noise):
        return MappedPixels((weight, image), without_sources), notes
    return MappedPixels((weight,), plain), notes


def _holds_source_noise(image: Pixels, variance: Pixels, per_signal: float, noise: float) -> bool:
    """Whether the variance of bright pixels grows with their signal as Poisson noise does."""
    slopes: list[NDArray[Any]] = []
    base: list[NDArray[Any]] = []
    for window in sample_rows(image.shape, 256):
        data, given = np.asarray(image.read(window)), np.asarray(variance.read(window))
        good = np.isfinite(data) & np.isfinite(given) & (given > 0)
        faint = good & (np.abs(data) < math.sqrt(noise))
        base.append(given[faint])
        # Bright also means that the Poisson part would stand out from that of the sky.
        bright = good & (data > _BRIGHT * math.sqrt(noise)) & (data * per_signal > 0.3 * noise)
        slopes.append(np.stack([given[bright], data[bright] * per_signal]))
    sky = np.concatenate(base)
    total, poisson = np.concatenate(slopes, axis=1)
    if sky.size < 16 or total.size < 8:
        return False
    return bool(np.median((total - np.median(sky)) / poisson) > 0.5)


def _require_positive(weight: Pixels, path: str) -> None:
    from imcat.window import tile_windows

    for window in tile_windows(weight.shape, 1024):
        if (weight.read(window) > 0).any():
            return
    raise InputError(
        "the weight is nowhere positive", path=partner(path, "wht"), expected="an inverse variance above zero"
    )


def _mid_time(header: Header, path: str, exposure_time: float) -> float | None:
    """MJD (TAI) of mid-exposure.

    From EXPSTART and EXPEND or MJD-OBS (MJD, UTC) or DATE-OBS (start, UTC); the data model names
    none of them for sure, so the times in the file's name (UTC) are the fallback.
    """
    half = 0.5 * exposure_time / 86400.0
    to_tai = TAI_MINUS_UTC / 86400.0
    for key in ("EXPSTART", "MJD-OBS"):
        start = header.number(key)
        if start is not None and 40000 < start < 100000:
            return start + half + to_tai
    try:
        begin = datetime.fromisoformat(header.text("DATE-OBS")).replace(tzinfo=UTC)
        return _mjd(begin) + half + to_tai
    except ValueError:
        pass
    name = parse_name(path)
    if name is None:
        return None
    try:
        text = name.start if len(name.start) == 14 else f"20{name.start[:12]}"
        begin = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return _mjd(begin) + half + to_tai


def _mjd(moment: datetime) -> float:
    return (moment - _MJD_ZERO) / timedelta(days=1)
