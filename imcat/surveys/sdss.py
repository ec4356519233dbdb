"""SDSS corrected frames (DR8 and later): the bands of one run, camera column and field are a tile.

Data model: https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html.
HDU 0 is the image in nanomaggies, sky subtracted; then the calibration vector (nanomaggies per
count, per column) and the sky that was subtracted, in counts on a coarse grid.

The reference band is r; without it i, g, z, u, in that order (by depth). A time is that of the
middle row: SDSS drift-scans, the header's TAI is when row 0 was read, each row was exposed for
EXPTIME before it was read, and one row follows the other after C_OBS microseconds; so
``TAI - EXPTIME / 2 + row * C_OBS``, which reproduces the TAI column of photoObj files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.surveys.fits_header import Hdu, Header
from imcat.surveys.fits_io import FitsFile, check_image
from imcat.surveys.sdss_companions import FieldFacts, companion_files, read_facts
from imcat.surveys.sdss_constants import (
    BANDS,
    DEFAULT_SATURATION,
    FIELD_SHAPE,
    FRAME_OFFSET,
    NMGY_TO_NJY,
    PRIMARY_ROWS,
    WAVELENGTHS,
    dark_variance,
    gain,
)
from imcat.surveys.sdss_mask import read_fpm, saturated_pixels
from imcat.surveys.sdss_variance import SkyGrid, SkyVariance
from imcat.surveys.settings import SurveySettings
from imcat.surveys.sky_wcs import celestial_wcs
from imcat.surveys.source import TileSource
from imcat.tile import ArrayPixels, Band, Exposure, Tile
from imcat.window import Window

__all__ = ["FRAME_NAME", "FieldId", "find_fields", "frame_id", "read_field"]

#: Name of a frame file: band, run, camera column, field.
FRAME_NAME = re.compile(r"frame-([ugriz])-(\d{1,6})-([1-6])-(\d{1,4})\.(?:fits?)(?:\.\w+)?$")
_REFERENCE_ORDER = ("r", "i", "g", "z", "u")
_SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True, order=True)
class FieldId:
    """Run, camera column and field number."""

    run: int
    camcol: int
    field: int

    @property
    def name(self) -> str:
        """Name of the tile."""
        return f"{self.run:06d}-{self.camcol}-{self.field:04d}"

    @property
    def number(self) -> int:
        """20 bits run, 4 bits camera column, 12 bits field."""
        return self.run << 16 | self.camcol << 12 | self.field

    @property
    def valid(self) -> bool:
        """Whether the numbers are in the ranges of the survey and fit 36 bits."""
        return 0 < self.run < 1 << 20 and 1 <= self.camcol <= 6 and 0 <= self.field < 1 << 12


def frame_id(path: str, header: Header) -> tuple[FieldId, str, str | None] | None:
    """What field and band a file is of, if it is an SDSS frame.

    Parameters
    ----------
    path : str
        Its name is asked where the header does not say.
    header : Header
        Of the first HDU.

    Returns
    -------
    (FieldId, str, str or None) or None
        Field, band and a note where header and name disagree (the header is right).
    """
    run, camcol, frame = (header.integer(key) for key in ("RUN", "CAMCOL", "FRAME"))
    band = header.text("FILTER")
    named = FRAME_NAME.search(Path(path).name)
    from_name = (FieldId(int(named[2]), int(named[3]), int(named[4])), named[1]) if named else None
    if run is not None and camcol is not None and frame is not None and band in BANDS:
        # Some tools write the number of the field to FRAME; with a name that agrees, so be it.
        if from_name == (FieldId(run, camcol, frame), band):
            return (*from_name, None)
        found = (FieldId(run, camcol, frame - FRAME_OFFSET[band]), band)
        if found[0].valid:
            note = None
            if from_name is not None and from_name != found:
                note = (
                    f"{Path(path).name}: the header says field {found[0].name}, band {band}, unlike the name; "
                    "the header is used"
                )
            return (*found, note)
    if from_name is not None and from_name[0].valid:
        return (*from_name, None)
    return None


def find_fields(frames: Sequence[tuple[str, FieldId, str, str | None]]) -> list[TileSource]:
    """Group frames to tiles.

    Parameters
    ----------
    frames : sequence of (path, FieldId, band, note)
        From `frame_id`.

    Raises
    ------
    InputError
        If two files hold the same band of the same field.
    """
    fields: dict[FieldId, dict[str, str]] = {}
    notes: dict[FieldId, list[str]] = {}
    for path, field, band, note in frames:
        members = fields.setdefault(field, {})
        if band in members:
            raise InputError(
                f"is band {band} of field {field.name}, and so is {members[band]}",
                path=path,
                expected="one file for each band of a field",
            )
        members[band] = path
        if note:
            notes.setdefault(field, []).append(note)
    sources = []
    for field, members in sorted(fields.items()):
        parts = tuple((band, members[band]) for band in BANDS if band in members)
        companions = companion_files(_folders(parts), field.run, field.camcol, field.field)
        used = [p for k, p in sorted(companions.items()) if not k.startswith("fpM-") or k[-1] in members]
        sources.append(
            TileSource(
                name=field.name,
                survey="sdss",
                number=field.number,
                files=tuple(path for _, path in parts) + tuple(used),
                parts=parts,
                notes=tuple(notes.get(field, ())),
            )
        )
    return sources


def read_field(source: TileSource, settings: SurveySettings, threads: int = 1) -> Tile:
    """Open the frames of a field.

    Parameters
    ----------
    source : TileSource
        From `find_fields`.
    settings : SurveySettings
        Settings of the room.
    threads : int
        Frames that are unpacked side by side.

    Raises
    ------
    InputError
        If a file is damaged or is no SDSS frame.
    """
    run, camcol, number = (int(part) for part in source.name.split("-"))
    field = FieldId(run, camcol, number)
    companions = companion_files(_folders(source.parts), run, camcol, number)
    facts = read_facts(companions, number, [band for band, _ in source.parts])

    def load(part: tuple[str, str]) -> _Frame:
        return _load_frame(part[1], part[0], field, facts, companions.get(f"fpM-{part[0]}"), settings)

    if threads > 1 and len(source.parts) > 1:
        with ThreadPoolExecutor(min(threads, len(source.parts))) as pool:
            frames = list(pool.map(load, source.parts))
    else:
        frames = [load(part) for part in source.parts]
    bands = []
    for (name, path), frame in zip(source.parts, frames, strict=True):
        # Building a WCS is not thread-safe in wcslib, and takes a millisecond.
        wcs = celestial_wcs(frame.header, frame.image.shape, path, frame.hdu)
        bands.append(Band(name, WAVELENGTHS[name], (_exposure(frame, name, path, wcs, field, facts),)))
    names = [band.name for band in bands]
    reference = next(band for band in _REFERENCE_ORDER if band in names)
    shape = bands[names.index(reference)].exposures[0].shape
    return Tile(
        name=source.name,
        survey="sdss",
        number=source.number,
        bands=tuple(bands),
        reference=reference,
        # Only full fields overlap their neighbours by the survey's 128 rows.
        primary_rows=PRIMARY_ROWS if shape == FIELD_SHAPE else None,
        extinction=dict(facts.extinction),
        files=source.files,
        notes=source.notes,
    )


@dataclass(frozen=True)
class _Frame:
    """One frame in memory."""

    header: Header
    hdu: int
    image: ArrayPixels
    calibration: NDArray[np.float32] | None
    sky: SkyGrid | None
    mask: ArrayPixels | None
    notes: tuple[str, ...]


def _load_frame(
    path: str, band: str, field: FieldId, facts: FieldFacts, fpm: str | None, settings: SurveySettings
) -> _Frame:
    file = FitsFile(path)
    hdu = file.image_hdu()
    header = file.keywords(hdu)
    found = frame_id(path, header)
    if found is None or found[:2] != (field, band):
        raise InputError(
            "the file was replaced by another one",
            path=path,
            hdu=hdu.index,
            expected=f"{field.name}, band {band}",
        )
    unit = header.text("BUNIT", "nanomaggy").lower()
    if not unit.startswith("nanomagg"):
        raise InputError(f"the unit is {unit!r}", path=path, hdu=hdu.index, expected="nanomaggy")
    whole = Window.whole((hdu.shape[0], hdu.shape[1]))
    data = np.asarray(file.pixels(hdu).read(whole))  # nanomaggies
    if not data.flags.writeable:
        data = data.copy()
    check_image(ArrayPixels(data), path, hdu.index)
    calibration, sky = _calibration(file, hdu), _sky(file, hdu)
    notes: list[str] = []
    if calibration is None or sky is None:
        notes.append(f"{Path(path).name}: no calibration or sky table; the noise is measured from the image")
    mask = None
    if fpm is not None:
        mask = ArrayPixels(read_fpm(fpm, whole.shape))
    elif calibration is not None:
        level = facts.saturation.get(band, DEFAULT_SATURATION)
        level_sky = float(np.median(sky.values)) if sky is not None else 0.0
        found_bits = saturated_pixels(
            data,
            calibration,
            level_sky,
            level,
            gain(field.run, field.camcol, band),
            cores=settings.sdss_bright_cores,
        )
        mask = ArrayPixels(found_bits)
    with np.errstate(over="ignore", invalid="ignore"):
        data *= np.float32(NMGY_TO_NJY)
    return _Frame(header, hdu.index, ArrayPixels(data), calibration, sky, mask, tuple(notes))


def _calibration(file: FitsFile, image: Hdu) -> NDArray[np.float32] | None:
    """Nanomaggies per count of each column, or None if the file has none."""
    for hdu in file.hdus:
        if hdu.kind in ("image", "compressed") and len(hdu.shape) == 1 and hdu.shape[0]:
            values = file.array(hdu)
            if values.shape != (image.shape[1],):
                found = f"the calibration vector has {values.size} columns"
                raise InputError(found, path=file.path, hdu=hdu.index, expected=str(image.shape[1]))
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise InputError(
                    "the calibration vector holds values that are not positive", path=file.path, hdu=hdu.index
                )
            return values
    return None


def _sky(file: FitsFile, image: Hdu) -> SkyGrid | None:
    """The subtracted sky, or None if the file has none."""
    for table in file.tables():
        if "ALLSKY" not in table or len(table) != 1:
            continue
        values = table.column("ALLSKY")[0].astype(np.float32)
        x = table.column("XINTERP")[0].astype(np.float32)
        y = table.column("YINTERP")[0].astype(np.float32)
        where: dict[str, Any] = {"path": file.path, "hdu": table.hdu.index}
        if values.ndim != 2 or min(values.shape) < 2 or (len(y), len(x)) != image.shape:
            raise InputError(
                f"the sky table is for {np.size(x)} x {np.size(y)} pixels",
                expected=f"a grid for {image.shape[1]} x {image.shape[0]}",
                **where,
            )
        if not all(np.isfinite(v).all() for v in (values, x, y)):
            raise InputError("the sky table holds values that are not finite", **where)
        return SkyGrid(values, x, y)
    return None


def _exposure(frame: _Frame, band: str, path: str, wcs: Any, field: FieldId, facts: FieldFacts) -> Exposure:
    electrons_per_count = gain(field.run, field.camcol, band)
    dark = dark_variance(field.run, field.camcol, band)
    variance, gain_njy = None, None
    if frame.calibration is not None:
        njy_per_count = frame.calibration * np.float32(NMGY_TO_NJY)
        gain_njy = electrons_per_count / float(np.median(njy_per_count))
        if frame.sky is not None:
            variance = SkyVariance(frame.sky, njy_per_count, electrons_per_count, dark)
            if not (frame.sky.values / electrons_per_count + dark > 0).any():
                raise InputError("the rebuilt variance is nowhere positive", path=path)
    return Exposure(
        name=Path(path).name,
        image=frame.image,
        wcs=wcs,
        variance=variance,
        mask=frame.mask,
        zero_point=22.5,
        gain=gain_njy,
        psf_fwhm=facts.psf_fwhm.get(band),
        mjd=_mid_time(frame.header, frame.image.shape[0]),
        variance_source="calibration" if variance is not None else "measured",
        psf=facts.psf.get(band),
        notes=frame.notes,
    )


def _mid_time(header: Header, rows: int) -> float | None:
    """MJD (TAI) at which the middle row was half exposed."""
    start, exposure, clock = (header.number(key) for key in ("TAI", "EXPTIME", "C_OBS"))
    if start is None or exposure is None or clock is None or start <= 0:
        return None
    return (start - 0.5 * exposure + 0.5 * (rows - 1) * clock * 1e-6) / _SECONDS_PER_DAY


def _folders(parts: Sequence[tuple[str, str]]) -> list[str]:
    return sorted({str(Path(path).parent) for _, path in parts})
