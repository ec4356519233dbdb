"""Generic tiles: a TOML file says what the images are.

See `KEYS` and `BAND_KEYS` for the keywords. An image in units of its own becomes nJy by its zero
point: 10^(0.4 (31.4 − zero point)) nJy per unit (31.4, more exactly 31.40007, is the AB magnitude of
1 nJy). The variance comes from the first of ``variance``, ``weight`` (its reciprocal), ``rms`` (its square), or
``gain`` with ``sky`` that is given (sky level / gain: sky noise alone); without them it is measured
from the image.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import InputError
from imcat.flags import PixelFlag
from imcat.surveys.fits_io import FitsFile, check_image, split_selector
from imcat.surveys.fits_pixels import ConstantPixels, MappedPixels
from imcat.surveys.sanity import VarianceCheck, check_variance
from imcat.surveys.settings import SurveySettings
from imcat.surveys.sky_wcs import celestial_wcs, overlap_fraction
from imcat.surveys.source import TileSource, check_name, hashed_number
from imcat.tile import Band, Exposure, Pixels, Tile

__all__ = ["BAND_KEYS", "KEYS", "find_tile", "looks_like_tile", "read_generic"]

#: AB magnitude of 1 nJy (3631 Jy is magnitude 0).
NJY_ZERO_POINT = 2.5 * math.log10(AB_FLUX)

#: Keywords of the file.
KEYS = ("name", "reference", "bands")

#: Keywords of a band: type, whether it is required.
BAND_KEYS: dict[str, tuple[str, bool]] = {
    "image": ("text", True),
    "zero_point": ("number", True),
    "wavelength": ("positive", True),
    "gain": ("positive", False),
    "sky": ("number", False),
    "variance": ("text", False),
    "weight": ("text", False),
    "rms": ("text", False),
    "mask": ("text", False),
    "psf_fwhm": ("positive", False),
    "mjd": ("positive", False),
    "saturation": ("number", False),
}
_MAPS = ("variance", "weight", "rms")
_BAND = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
_MAX_TOML = 1 << 20


@dataclass(frozen=True)
class _Description:
    """A TOML file that was checked: bands in the order of the file, exposures of each."""

    name: str
    reference: str
    bands: dict[str, list[dict[str, Any]]]


def looks_like_tile(path: str) -> bool:
    """Whether a TOML file describes a tile (it has a table ``bands``)."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(r"^\s*\[?\[bands\b", text, re.MULTILINE) is not None


def find_tile(path: str) -> TileSource:
    """The tile that a TOML file describes.

    Parameters
    ----------
    path : str
        The TOML file.

    Raises
    ------
    InputError
        If the file says nothing sensible, or names a file that does not exist.
    """
    description = _describe(path)
    files = [path]
    for exposures in description.bands.values():
        for exposure in exposures:
            for key in ("image", *_MAPS, "mask"):
                if key in exposure:
                    file, _ = _locate(path, exposure[key])
                    if file not in files:
                        files.append(file)
    return TileSource(
        name=description.name,
        survey="generic",
        number=hashed_number(description.name),
        files=tuple(files),
        parts=tuple((band, path) for band in description.bands),
    )


def read_generic(source: TileSource, settings: SurveySettings, threads: int = 1) -> Tile:
    """Open a generic tile.

    Parameters
    ----------
    source : TileSource
        From `find_tile`.
    settings : SurveySettings
        Settings of the room (none concerns generic tiles).
    threads : int
        Not used: images are read window by window.

    Raises
    ------
    InputError
        If a file is damaged or bands do not overlap on the sky.
    """
    path = source.parts[0][1]
    description = _describe(path)
    bands = []
    for name, _ in source.parts:
        if name not in description.bands:
            raise InputError(f"has no band {name!r} any more", path=path)
        exposures = description.bands[name]
        opened = tuple(_open_exposure(path, name, exposure) for exposure in exposures)
        bands.append(Band(name, float(exposures[0]["wavelength"]), opened))
    bands.sort(key=lambda band: (band.wavelength, band.name))
    names = [name for name, _ in source.parts]
    reference = description.reference if description.reference in names else names[0]
    tile = Tile(
        name=source.name,
        survey="generic",
        number=source.number,
        bands=tuple(bands),
        reference=reference,
        files=source.files,
        notes=source.notes,
    )
    _require_overlap(tile, path)
    return tile


def _describe(path: str) -> _Description:
    content = _load(path)
    _refuse_unknown(content, KEYS, path, "")
    tables = content.get("bands")
    if not isinstance(tables, dict) or not tables:
        raise InputError("describes no band", path=path, expected="a table [bands.NAME] for each band")
    name = content.get("name", Path(path).stem)
    if not isinstance(name, str):
        raise InputError(f"name is {name!r}", path=path, expected="a string")
    check_name(name, path)
    bands: dict[str, list[dict[str, Any]]] = {}
    for band, table in tables.items():
        entries = table if isinstance(table, list) else [table]
        label = band.lower()
        if not _BAND.match(band) or not entries:
            raise InputError(f"a band is named {band!r}", path=path, expected="letters, digits and _")
        if label in bands:
            raise InputError(f"the band {label} is described twice", path=path)
        bands[label] = [_check_exposure(entry, band, path) for entry in entries]
        wavelengths = {entry["wavelength"] for entry in bands[label]}
        if len(wavelengths) > 1:
            raise InputError(
                f"the exposures of band {band} have several wavelengths", path=path, expected="one"
            )
    reference = content.get("reference", next(iter(bands)))
    if not isinstance(reference, str) or reference.lower() not in bands:
        raise InputError(f"reference is {reference!r}", path=path, expected=f"one of {', '.join(bands)}")
    return _Description(name, reference.lower(), bands)


def _load(path: str) -> dict[str, Any]:
    try:
        if Path(path).stat().st_size > _MAX_TOML:
            raise InputError("is too long for a description of a tile", path=path)
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path, expected="a TOML file") from None
    except UnicodeDecodeError:
        raise InputError("is not text in UTF-8", path=path, expected="a TOML file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"is no valid TOML ({error})", path=path) from None


def _refuse_unknown(table: dict[str, Any], valid: tuple[str, ...], path: str, where: str) -> None:
    for key in table:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)[0]
            raise InputError(
                f"unknown keyword {key!r}{where}",
                path=path,
                expected=f"one of {', '.join(valid)}",
                hint=f"did you mean {near!r}?",
            )


def _check_exposure(table: Any, band: str, path: str) -> dict[str, Any]:
    where = f" in [bands.{band}]"
    if not isinstance(table, dict):
        raise InputError(f"bands.{band} is no table", path=path, expected=f"[bands.{band}]")
    _refuse_unknown(table, tuple(BAND_KEYS), path, where)
    for key, (kind, required) in BAND_KEYS.items():
        if key not in table:
            if required:
                raise InputError(f"{key} is missing{where}", path=path)
            continue
        value = table[key]
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        good = (isinstance(value, str) and bool(value.strip())) if kind == "text" else number
        if not good or (kind == "positive" and not value > 0) or (key == "zero_point" and abs(value) > 100):
            expected = {"text": "a string", "number": "a finite number", "positive": "a positive number"}[
                kind
            ]
            raise InputError(f"{key} is {value!r}{where}", path=path, expected=expected)
    given = [key for key in _MAPS if key in table]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given{where}", path=path, expected="one of them")
    return table


def _locate(toml: str, text: str) -> tuple[str, str | None]:
    """File and HDU selector of an entry; relative paths begin at the TOML file."""
    folder = Path(toml).parent
    try:
        if (folder / text).is_file():  # a name that really ends in brackets
            return str(folder / text), None
        name, selector = split_selector(text)
        path = folder / name
        if path.is_file():
            return str(path), selector
    except (OSError, ValueError):
        raise InputError(f"names an impossible file {text!r}", path=toml) from None
    raise InputError("no such file", path=path, hint=f"it is named in {toml}")


def _open_map(
    toml: str, text: str, shape: tuple[int, int] | None, what: str, **how: Any
) -> tuple[Pixels, FitsFile, int]:
    name, selector = _locate(toml, text)
    file = FitsFile(name)
    hdu = file.image_hdu(selector)
    pixels = file.pixels(hdu, **how)
    if shape is not None and pixels.shape != shape:
        raise InputError(
            f"the {what} has {pixels.shape[1]} x {pixels.shape[0]} pixels",
            path=name,
            hdu=hdu.index,
            expected=f"the image's {shape[1]} x {shape[0]}",
        )
    return pixels, file, hdu.index


def _open_exposure(toml: str, band: str, entry: dict[str, Any]) -> Exposure:
    scale = 10.0 ** (0.4 * (NJY_ZERO_POINT - entry["zero_point"]))
    image, file, index = _open_map(toml, entry["image"], None, "image", factor=scale)
    check_image(image, file.path, index, scale)
    wcs = celestial_wcs(file.keywords(file.hdus[index]), image.shape, file.path, index)
    variance, source, notes = _variance(toml, band, entry, image, scale)
    mask = None
    if "mask" in entry:
        raw, _, _ = _open_map(toml, entry["mask"], image.shape, "mask", integer=True)
        mask = MappedPixels((raw,), _bad_where_set)
    saturation = entry.get("saturation")
    return Exposure(
        name=f"{Path(file.path).name}[{index}]",
        image=image,
        wcs=wcs,
        variance=variance,
        mask=mask,
        zero_point=float(entry["zero_point"]),
        gain=entry["gain"] / scale if "gain" in entry else None,
        psf_fwhm=entry.get("psf_fwhm"),
        mjd=entry.get("mjd"),
        saturation=None if saturation is None else saturation * scale,
        variance_source=source,
        notes=notes,
    )


def _bad_where_set(values: NDArray[Any]) -> NDArray[np.uint16]:
    return np.where(values != 0, np.uint16(PixelFlag.BAD), np.uint16(0))


def _reciprocal(factor: float) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    def convert(values: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            result = np.float32(factor) / values
        return np.where(values > 0, result, np.float32(np.nan)).astype(np.float32)

    return convert


def _times(factor: float) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    def convert(values: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):
            return (values * np.float32(factor)).astype(np.float32)

    return convert


def _squared(factor: float) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    def convert(values: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(values > 0, values * values * np.float32(factor), np.float32(np.nan)).astype(
                np.float32
            )

    return convert


def _variance(
    toml: str, band: str, entry: dict[str, Any], image: Pixels, scale: float
) -> tuple[Pixels | None, str, tuple[str, ...]]:
    """Variance in nJy², where it comes from, and what is to be said about it."""
    kind = next((key for key in _MAPS if key in entry), None)
    area = scale * scale
    if kind is None:
        if "gain" in entry and entry.get("sky", 0) > 0:
            return ConstantPixels(image.shape, area * entry["sky"] / entry["gain"]), "gain+sky", ()
        return None, "measured", ()
    raw, file, index = _open_map(toml, entry[kind], image.shape, kind)
    conversion = {"variance": _times, "weight": _reciprocal, "rms": _squared}[kind]
    variance: Pixels = MappedPixels((raw,), conversion(area))
    # The check is made in the image's own units, where a reciprocal is a reciprocal.
    own = MappedPixels((image,), _times(1 / scale))
    check = check_variance(own, MappedPixels((raw,), conversion(1.0)))
    if check.positive == 0:
        _require_positive(variance, file.path, index, kind)
    notes: tuple[str, ...] = ()
    if kind != "rms" and check.swapped():
        other = {"variance": "weight", "weight": "variance"}[kind]
        notes = (_swap_note(band, file.path, kind, other, check),)
        variance = MappedPixels((raw,), (_reciprocal if kind == "variance" else _times)(area))
        kind = other
    elif not check.fits:
        notes = (
            f"band {band}: the {kind} map {Path(file.path).name} implies a noise {_ratio(check)} times that "
            "of the image's blank sky",
        )
    return variance, kind, notes


def _require_positive(variance: Pixels, path: str, hdu: int, kind: str) -> None:
    """Refuse a map without a positive value (the sample had none, so all of it is read)."""
    from imcat.window import tile_windows

    for window in tile_windows(variance.shape, 1024):
        values = variance.read(window)
        if (np.isfinite(values) & (values > 0)).any():
            return
    raise InputError(
        f"the {kind} map is nowhere positive", path=path, hdu=hdu, expected=f"a {kind} above zero somewhere"
    )


def _ratio(check: VarianceCheck) -> str:
    return f"{math.sqrt(check.given / check.noise):.3g}"


def _swap_note(band: str, path: str, kind: str, other: str, check: VarianceCheck) -> str:
    return (
        f"band {band}: {Path(path).name} was given as {kind}, but fits the noise of the image only as {other} "
        f"(as {kind} its rms is {_ratio(check)} times that of blank sky); it is used as {other}"
    )


def _require_overlap(tile: Tile, path: str) -> None:
    """Refuse exposures that share no sky with the reference image."""
    reference = tile.reference_exposure
    for band, exposure in tile.exposures():
        if exposure is reference:
            continue
        pair = (exposure.wcs, exposure.shape, reference.wcs, reference.shape)
        if overlap_fraction(*pair) == 0 and overlap_fraction(*pair[2:], *pair[:2]) == 0:
            raise InputError(
                f"{exposure.name} (band {band.name}) does not overlap {reference.name} (band {tile.reference}) "
                "on the sky",
                path=path,
                expected="bands of one patch of sky",
            )
