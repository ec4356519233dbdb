"""CSST multi-colour imaging, level 1: exposures of single CCDs, grouped to multi-band tiles.

Data model
----------
Followed is the public data model of Cycle 7 (2023; https://github.com/hypergravity/csst-doc-msc,
docs/source/mbi/data_model.md, commit e82c15c3), with the names of Cycles 3 and 5. An exposure of
one CCD is three files of 9216 x 9232 pixels, each with an empty HDU 0 and the image in HDU 1:
``_img`` (float32, e⁻/s), ``_wht`` (float32, inverse variance, (e⁻/s)⁻²) and ``_flg`` (uint16,
bits). The WCS is TPV (a fallback TAN, marked by PV of −9999, is read as plain TAN).
Keywords are looked for in both HDUs. The zero point is ``ZP`` (Cycle 5: ``CCDZP``): m = −2.5
log10(F) + ZP with F in e⁻/s; −1, −99 and −9999 mean that the flux calibration failed, and such
exposures are refused. ``ZP`` holds for the flux within ``APER_R`` pixels; the data model calls
that a radius, code of Cycle 5 uses it as a diameter, and imcat corrects for neither.
In Cycle 5 the weights contain the noise of the sources; imcat takes it out again (see
`imcat.surveys.csst_level1`), since a variance here is that of sky and detector.
Without a ``_wht`` file the noise is measured from the image; without ``_flg`` pixels above SATURATE
count as saturated.

Grouping
--------
One CCD has one filter, so that a tile is a group of exposures that overlap on the sky. Exposures
are taken in the order of their observation and detector. An exposure of the reference band
(setting ``csst_reference``, i) defines a tile, unless it covers at least ``csst_min_overlap``
of the area of an earlier tile of that band: then it is another exposure of that band there.
Exposures of all other bands join every tile of whose reference area they cover that fraction. What
belongs to no tile then forms tiles of its own in the same manner, with z, y, r, g, u, nuv (for i)
as the reference in turn. So every exposure belongs to a tile, and one that covers half of two
reference exposures to both (each source is primary in one of them). A tile is named after the
observation and detector of its reference exposure, ``100000100-07``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from imcat.errors import InputError
from imcat.surveys.csst_constants import BANDS, WAVELENGTHS
from imcat.surveys.csst_level1 import LEVEL1_NAME, band_of, parse_name, partner, read_exposure
from imcat.surveys.fits_header import Header
from imcat.surveys.fits_io import FitsFile
from imcat.surveys.settings import SurveySettings
from imcat.surveys.sky_wcs import celestial_wcs, overlap_fraction, sky_centre
from imcat.surveys.source import TileSource, check_name, hashed_number, lost_tile
from imcat.tile import Band, Tile

__all__ = ["LEVEL1_NAME", "exposure_files", "find_groups", "is_image", "is_level1", "read_group"]


@dataclass(frozen=True, eq=False)
class _Member:
    """An exposure whose header was read."""

    path: str
    key: str
    band: str
    wcs: Any
    shape: tuple[int, int]
    centre: Any
    radius: float


def is_level1(path: str, header: Header) -> bool:
    """Whether a file is one of CSST's level-1 imaging files.

    Names decide, since the three files of an exposure may share their headers; a header of
    another instrument overrules the name.
    """
    instrument = header.text("INSTRUME", "MSC").upper()
    return parse_name(path) is not None and instrument in ("MSC", "MBI")


def is_image(path: str) -> bool:
    """Whether a level-1 file is an image (not a weight or flag file)."""
    name = parse_name(path)
    return name is not None and name.kind == "img"


def exposure_files(path: str) -> list[str]:
    """An image file and the weight and flag files beside it."""
    others = (partner(path, kind) for kind in ("wht", "flg"))
    return [path, *(other for other in others if other is not None)]


def find_groups(
    paths: Sequence[str], settings: SurveySettings, named: Collection[str] = ()
) -> list[TileSource]:
    """Group exposures to tiles; see the module for the rule.

    Parameters
    ----------
    paths : sequence of str
        ``_img`` files.
    settings : SurveySettings
        Reference band and overlap.
    named : collection of str
        Those of the files that must be readable; others that are damaged are tiles of their own, which cannot be read.

    Raises
    ------
    InputError
        If a named file is damaged or has no WCS, or two files are of one observation and detector.
    """
    members, tiles = _members(paths, named)
    for first, second in pairwise(members):
        if first.key == second.key:
            raise InputError(
                f"is observation and detector {second.key}, and so is {first.path}",
                path=second.path,
                expected="one image of each exposure",
            )
    left = list(members)
    for band in _reference_order(settings.csst_reference):
        groups: list[list[_Member]] = []
        for member in [m for m in left if m.band == band]:
            home = [g for g in groups if _covers(member, g[0], settings.csst_min_overlap)]
            if home:
                home[0].append(member)
            else:
                groups.append([member])
        others = [m for m in left if m.band != band]
        for group in groups:
            group += [m for m in others if _covers(m, group[0], settings.csst_min_overlap)]
            tiles.append(_source(group))
        taken = {id(m) for group in groups for m in group}
        left = [m for m in left if id(m) not in taken]
    return tiles


def read_group(source: TileSource, settings: SurveySettings, threads: int = 1) -> Tile:
    """Open the exposures of a tile.

    Parameters
    ----------
    source : TileSource
        From `find_groups`; its first part is the reference exposure.
    settings : SurveySettings
        Settings of the room.
    threads : int
        Not used: images are read window by window.

    Raises
    ------
    InputError
        If a file is damaged or its flux calibration failed.
    """
    opened = [(band, read_exposure(path)) for band, path in source.parts]
    bands = [
        Band(name, WAVELENGTHS[name], tuple(e for band, e in opened if band == name))
        for name in BANDS
        if any(band == name for band, _ in opened)
    ]
    return Tile(
        name=source.name,
        survey="csst",
        number=source.number,
        bands=tuple(bands),
        reference=source.parts[0][0],
        files=source.files,
        notes=source.notes,
    )


def _members(paths: Sequence[str], named: Collection[str]) -> tuple[list[_Member], list[TileSource]]:
    """Exposures in order, and tiles of those that cannot be read."""
    members: list[_Member] = []
    lost: list[TileSource] = []
    for path in paths:
        try:
            members.append(_read_member(path))
        except InputError as error:
            name = parse_name(path)
            if path in named or name is None:
                raise
            lost.append(lost_tile(name.key, "csst", path, error))
    return sorted(members, key=lambda m: (m.key, m.path)), lost


def _read_member(path: str) -> _Member:
    file = FitsFile(path)
    hdu = file.image_hdu()
    header = file.keywords(hdu)
    shape = (hdu.shape[0], hdu.shape[1])
    wcs = celestial_wcs(header, shape, path, hdu.index)
    name = parse_name(path)
    assert name is not None  # only such files come here
    return _Member(path, name.key, band_of(header, path), wcs, shape, *sky_centre(wcs, shape))


def _reference_order(first: str) -> list[str]:
    """The reference band, then the redder ones by wavelength, then the bluer ones, nearest first."""
    at = BANDS.index(first)
    return [*BANDS[at:], *reversed(BANDS[:at])]


def _covers(member: _Member, reference: _Member, fraction: float) -> bool:
    """Whether an exposure covers that fraction of a reference exposure's area."""
    separation = np.arccos(np.clip(member.centre @ reference.centre, -1, 1))
    if separation > member.radius + reference.radius:
        return False
    return overlap_fraction(reference.wcs, reference.shape, member.wcs, member.shape) >= fraction


def _source(group: list[_Member]) -> TileSource:
    reference = group[0]
    files = [file for member in group for file in exposure_files(member.path)]
    return TileSource(
        name=check_name(reference.key, reference.path),
        survey="csst",
        number=hashed_number(reference.key),
        files=tuple(files),
        parts=tuple((member.band, member.path) for member in group),
        notes=tuple(_missing(group)),
    )


def _missing(group: list[_Member]) -> list[str]:
    return [
        f"{Path(member.path).name}: no {kind} file beside it; {instead}"
        for member in group
        for kind, instead in (
            ("wht", "the noise is measured from the image"),
            ("flg", "bad pixels are unknown"),
        )
        if partner(member.path, kind) is None
    ]
