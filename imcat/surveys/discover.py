"""From inputs (files, folders, globs) to tiles."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from imcat.errors import InputError
from imcat.surveys import csst, generic, sdss
from imcat.surveys.fits_header import Header
from imcat.surveys.fits_io import FITS_SUFFIXES, read_first_headers
from imcat.surveys.settings import SurveySettings
from imcat.surveys.source import TileSource, lost_tile
from imcat.tile import Tile

__all__ = ["SURVEYS", "find_tiles", "read_tile"]

SURVEYS = ("sdss", "csst", "generic")

# Files of SDSS that accompany frames; they are no tiles themselves.
_COMPANIONS = ("psField-", "photoField-", "photoObj-", "fpM-", "fpAtlas-", "calibObj-")
# Reading headers waits for disks more than for processors.
_HEADER_THREADS = 8


@dataclass
class _Found:
    """Files by what they are."""

    frames: list[tuple[str, sdss.FieldId, str, str | None]] = field(default_factory=list)
    csst: list[str] = field(default_factory=list)
    toml: list[str] = field(default_factory=list)


def find_tiles(
    inputs: Sequence[str | Path],
    survey: str = "auto",
    bands: Sequence[str] | None = None,
    settings: SurveySettings | None = None,
) -> list[TileSource]:
    """Find the tiles in files, folders and globs; only headers are read.

    Folders are searched with all folders below them. Files in them that belong to no tile are
    passed over; a file that is named itself must belong to one. What by its name is a tile's, but
    cannot be read, becomes a tile that `read_tile` refuses, so that it costs no other.

    Parameters
    ----------
    inputs : sequence of path
        Any mix.
    survey : str
        ``sdss``, ``csst``, ``generic``, or ``auto`` to recognise files by header and name.
    bands : sequence of str, optional
        Use only these; tiles with none of them are left out.
    settings : SurveySettings, optional
        Settings of the room.

    Returns
    -------
    list of TileSource
        Sorted by name.

    Raises
    ------
    InputError
        If an input does not exist or holds nothing that is recognised, if a file that is named is
        damaged, two tiles have one name or number, or no tile has one of the bands.
    """
    settings = settings or SurveySettings()
    if survey not in ("auto", *SURVEYS):
        raise InputError(f"there is no survey {survey!r}", expected=f"auto, {', '.join(SURVEYS)}")
    if not inputs:
        raise InputError("no input was given", expected="files, folders or globs")
    named, listed = _expand(inputs)
    found = _classify(named, listed, survey)
    described = [_described(path, must=path in named) for path in found.toml]
    # An image that a TOML file beside it describes is that tile's, whatever its header says.
    taken = {str(Path(file).resolve()) for tile in described for file in tile.files}.difference(
        str(Path(path).resolve()) for path in named
    )
    tiles = [
        *sdss.find_fields([f for f in found.frames if str(Path(f[0]).resolve()) not in taken]),
        *csst.find_groups([f for f in found.csst if str(Path(f).resolve()) not in taken], settings, named),
        *described,
    ]
    if not tiles:
        raise InputError(
            "nothing in it is recognised as a tile",
            path=", ".join(str(i) for i in inputs[:3]),
            expected=_EXPECTED[survey],
        )
    tiles = _select(tiles, bands)
    _refuse_doubles(tiles)
    return sorted(tiles, key=lambda tile: tile.name)


def read_tile(source: TileSource, settings: SurveySettings | None = None, threads: int = 1) -> Tile:
    """Open a tile: headers, calibration, and pixels ready to be read window by window.

    Parameters
    ----------
    source : TileSource
        From `find_tiles`.
    settings : SurveySettings, optional
        Settings of the room.
    threads : int
        Files that are unpacked side by side.

    Raises
    ------
    InputError
        If a file is missing, damaged or makes no sense.
    """
    if source.damage:
        raise InputError(source.damage)
    readers = {"sdss": sdss.read_field, "csst": csst.read_group, "generic": generic.read_generic}
    if source.survey not in readers:
        raise InputError(f"there is no survey {source.survey!r}", expected=", ".join(SURVEYS))
    settings = settings or SurveySettings()
    tile = readers[source.survey](source, settings, threads)
    if settings.ebv is None:
        return tile
    from dataclasses import replace

    return replace(tile, extinction={"ebv": settings.ebv})


_EXPECTED = {
    "auto": "SDSS frames, CSST level-1 images, or TOML files of tiles",
    "sdss": "SDSS frames (frame-{band}-{run}-{camcol}-{field}.fits)",
    "csst": "CSST level-1 images (..._img_L1.fits)",
    "generic": "TOML files of tiles",
}


def _expand(inputs: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """Files that were named (also by a glob), and files found in folders."""
    named: list[str] = []
    listed: list[str] = []
    for entry in inputs:
        text = str(Path(entry).expanduser())
        if Path(text).is_dir():
            files = _walk(text)
            if not files:
                raise InputError("the folder is empty", path=text, expected="survey files in it")
            listed += files
        elif Path(text).exists():
            named.append(text)
        elif glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 (the pattern may be absolute)
            if not matches:
                raise InputError("no file matches", path=text, expected="a pattern that matches files")
            for match in matches:
                listed += _walk(match) if Path(match).is_dir() else [match]
        else:
            raise InputError("no such file or folder", path=text)
    seen: set[str] = set()

    def new(path: str) -> bool:
        real = os.path.realpath(path)
        return not (real in seen or seen.add(real))  # type: ignore[func-returns-value]

    return [p for p in named if new(p)], [p for p in listed if new(p)]


def _walk(folder: str) -> list[str]:
    files: list[str] = []
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [str(Path(here) / name) for name in sorted(names) if not name.startswith(".")]
    return files


def _classify(named: list[str], listed: list[str], survey: str) -> _Found:
    found = _Found()
    to_ask: list[tuple[str, bool]] = []
    for path, must in [(p, True) for p in named] + [(p, False) for p in listed]:
        name = Path(path).name
        if name.endswith(".toml"):
            if survey in ("auto", "generic") and (must or generic.looks_like_tile(path)):
                found.toml.append(path)
            elif must and survey != "generic":
                raise InputError("is a TOML file", path=path, expected=_EXPECTED[survey])
        elif name.lower().endswith(FITS_SUFFIXES) and not name.startswith(_COMPANIONS):
            to_ask.append((path, must))
        elif must:
            kind = "accompanies SDSS frames" if name.startswith(_COMPANIONS) else "is no FITS or TOML file"
            raise InputError(kind, path=path, expected=_EXPECTED[survey])
    if survey == "generic":
        for path, must in to_ask:
            if must:
                raise InputError("is a FITS file", path=path, expected="a TOML file that describes the tile")
        return found
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        headers = list(pool.map(lambda item: _header(item[0], item[1], survey), to_ask))
    for (path, must), header in zip(to_ask, headers, strict=True):
        if header is None:
            continue
        if survey in ("auto", "csst") and csst.is_level1(path, header):
            if csst.is_image(path):
                found.csst.append(path)
            elif must and survey == "csst" and not _has_image(path, named):
                raise InputError("is a weight or flag file", path=path, expected="its _img file")
            continue
        frame = sdss.frame_id(path, header) if survey in ("auto", "sdss") else None
        if frame is not None:
            found.frames.append((path, *frame))
        elif must:
            raise InputError("is not recognised", path=path, expected=_EXPECTED[survey])
    return found


def _has_image(path: str, named: list[str]) -> bool:
    return any(path in csst.exposure_files(other) for other in named if csst.is_image(other))


def _header(path: str, must: bool, survey: str) -> Header | None:
    """Header of a file. Of one found in a folder and damaged: empty where its name tells the survey, else None."""
    name = Path(path).name
    named_so = sdss.FRAME_NAME.search(name) is not None or csst.LEVEL1_NAME.match(name) is not None
    try:
        return read_first_headers(path)
    except InputError:
        if must:
            raise
        return Header() if named_so else None


def _described(path: str, *, must: bool) -> TileSource:
    """The tile that a TOML file describes; of one found in a folder and wrong, a tile that cannot be read."""
    try:
        return generic.find_tile(path)
    except InputError as error:
        name = re.sub(r"[^A-Za-z0-9._+-]+", "-", Path(path).stem).strip("-._+")[:100]
        if must or not name:
            raise
        return lost_tile(name, "generic", path, error)


def _select(tiles: list[TileSource], bands: Sequence[str] | None) -> list[TileSource]:
    if bands is None:
        return tiles
    from dataclasses import replace

    wanted = {band.strip().lower() for band in bands}
    there = {band for tile in tiles for band, _ in tile.parts}
    missing = sorted(wanted - there)
    if missing or not wanted:
        raise InputError(
            f"no tile has the band {', '.join(missing) or '(none asked for)'}",
            expected=f"some of {', '.join(sorted(there))}",
        )
    chosen = []
    for tile in tiles:
        parts = tuple(part for part in tile.parts if part[0] in wanted)
        if tile.damage:
            chosen.append(tile)
        elif parts:
            dropped = {path for _, path in tile.parts} - {path for _, path in parts}
            if tile.survey == "csst":
                dropped = {file for path in dropped for file in csst.exposure_files(path)}
            chosen.append(
                replace(tile, parts=parts, files=tuple(file for file in tile.files if file not in dropped))
            )
    return chosen


def _refuse_doubles(tiles: list[TileSource]) -> None:
    names: dict[str, TileSource] = {}
    numbers: dict[tuple[str, int], TileSource] = {}
    for tile in tiles:
        first = names.setdefault(tile.name, tile)
        if first is not tile:
            raise InputError(
                f"two tiles are named {tile.name}",
                path=tile.files[0],
                expected=f"another name than that of {first.files[0]}",
            )
        first = numbers.setdefault((tile.survey, tile.number), tile)
        if first is not tile:
            raise InputError(
                f"the names {first.name} and {tile.name} lead to the same tile number",
                path=tile.files[0],
                hint="rename one of them",
            )
