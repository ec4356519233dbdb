"""Measurements as the columns of a catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.detect import Detections
from imcat.errors import InputError
from imcat.flags import SourceFlag
from imcat.measure.sources import Measurements
from imcat.schema import aperture_label
from imcat.tile import Tile

__all__ = ["SURVEY_CODES", "source_columns", "source_ids"]

#: The first four bits of ``source_id``.
SURVEY_CODES: dict[str, int] = {"sdss": 1, "csst": 2, "generic": 3}

_RANK_BITS = 23
_TILE_BITS = 36


def source_ids(survey: str, number: int, count: int) -> NDArray[np.int64]:
    """Identifiers of the sources of a tile, in their order.

    Parameters
    ----------
    survey : str
        ``sdss``, ``csst`` or ``generic``: 4 bits.
    number : int
        The tile's number, 36 bits.
    count : int
        Sources, at most 2^23.

    Raises
    ------
    InputError
        If there are too many sources, or the number has too many bits.
    """
    if count >= 1 << _RANK_BITS:
        raise InputError(f"{count} sources in one tile", expected=f"fewer than {1 << _RANK_BITS}")
    if not 0 <= number < 1 << _TILE_BITS:
        raise InputError(f"tile number {number} has more than {_TILE_BITS} bits")
    base = (SURVEY_CODES[survey] << (_TILE_BITS + _RANK_BITS)) | (number << _RANK_BITS)
    return base + np.arange(count, dtype=np.int64)


def source_columns(
    tile: Tile,
    found: Detections,
    measured: Measurements,
    apertures: Sequence[float],
    extinction: Mapping[str, float],
    detector: str = "threshold",
) -> dict[str, NDArray[Any]]:
    """Columns of the catalogue of one tile, by name.

    Parameters
    ----------
    tile : Tile
        Names and times.
    found : Detections
        What the engine found, ``n`` sources.
    measured : Measurements
        What was measured of them.
    apertures : sequence of float
        Diameters in the order of `Measurements.flux`.
    extinction : mapping of str to float
        Magnitudes for the bands where it is known.
    detector : str
        Engine that found the sources.
    """
    n = len(found)
    ids = source_ids(tile.survey, tile.number, n)
    reference = tile.band_names.index(tile.reference)
    rows = tile.primary_rows
    primary = np.ones(n, bool) if rows is None else (measured.y >= rows[0]) & (measured.y < rows[1])
    # A source's flags are its own and those of the reference band, unless it lies outside of it.
    own = measured.band_flags[:, reference] & ~int(SourceFlag.OUTSIDE)
    columns: dict[str, NDArray[Any]] = {
        "source_id": ids,
        "tile": np.full(n, tile.name),
        "ra": measured.ra,
        "dec": measured.dec,
        "ra_err": np.sqrt(measured.covariance[:, 0, 0]),
        "dec_err": np.sqrt(measured.covariance[:, 1, 1]),
        "ra_dec_cov": measured.covariance[:, 0, 1],
        "x": measured.x,
        "y": measured.y,
        "position_source": np.where(measured.detected, "detection", "windowed"),
        "detection_score": found.score,
        "detection_snr": found.snr,
        "detector": np.full(n, detector),
        "parent_id": ids[found.parent],
        "is_primary": primary,
        "flags": measured.flags | own,
        "semi_major": measured.a,
        "semi_minor": measured.b,
        "position_angle": measured.angle,
        "half_light_radius": measured.half_light,
        "kron_radius": measured.kron,
    }
    if np.isfinite(measured.motion).any():
        columns["motion_offset"] = measured.motion
        columns["motion_offset_err"] = measured.motion_err
    columns |= measured.survey
    kinds = ["kron_flux", "color_flux", *(f"aper_flux_{aperture_label(d)}" for d in apertures)]
    for k, band in enumerate(tile.bands):
        columns[f"{band.name}_flags"] = measured.band_flags[:, k]
        columns[f"{band.name}_n_exposures"] = measured.exposures[:, k]
        times = [exposure.mjd for exposure in band.exposures if exposure.mjd is not None]
        if times:
            columns[f"{band.name}_mjd"] = np.full(n, float(np.mean(times)))
        if band.name in extinction:
            columns[f"{band.name}_extinction"] = np.full(n, extinction[band.name])
        for j, kind in enumerate(kinds):
            columns[f"{band.name}_{kind}"] = measured.flux[:, k, j]
            columns[f"{band.name}_{kind}_err"] = np.sqrt(measured.variance[:, k, j])
    return columns
