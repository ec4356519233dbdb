"""Tiles of a catalogue matched with their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import InputError
from imcat.evaluate.detection import Pairs, match_lists
from imcat.evaluate.lists import TileList, place_truth
from imcat.evaluate.truth import Truth

__all__ = ["MatchedTile", "magnitude_band", "match_tiles", "point_source_depth"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MatchedTile:
    """One tile, its truth and their matches.

    Attributes
    ----------
    tile : TileList
        The catalogue's rows.
    truth : Truth
        All that is known to be there.
    x, y : float64 array
        Pixels of the truth.
    counted : bool array
        Truth bright enough to be matched.
    pairs : Pairs
        Matches of rows of the catalogue with rows of the truth, counted ones only.
    scale : float
        arcsec per pixel.
    radius : float
        Matching radius, pixels.
    """

    tile: TileList
    truth: Truth
    x: Float
    y: Float
    counted: NDArray[np.bool_]
    pairs: Pairs
    scale: float
    radius: float

    def measured(self, name: str) -> Float:
        """Give a column of the catalogue for each matched pair."""
        return self.tile.number(name)[self.pairs.first]

    def magnitude(self, band: str) -> Float:
        """Give true magnitudes, NaN where unknown."""
        return self.truth.magnitudes.get(band, np.full(len(self.truth), np.nan))


def magnitude_band(tiles: Sequence[TileList], truths: Sequence[Truth]) -> str | None:
    """Band of the magnitude bins: the reference band, else r, i or any that both lists have."""
    known = [b for b in truths[0].magnitudes if np.isfinite(truths[0].magnitudes[b]).any()]
    bands = tiles[0].bands if tiles else ()
    wanted = [tiles[0].reference, "r", "i", *bands] if tiles else []
    return next((b for b in wanted if b in known and b in bands), None)


def point_source_depth(tiles: Sequence[TileList], band: str) -> float:
    """Magnitude at 5 sigma of a faint point source: from PSF fluxes, else from 3 arcsec apertures."""
    for kind in ("psf_flux", "aper_flux_3"):
        errors = np.concatenate([t.number(f"{band}_{kind}_err") for t in tiles])
        fluxes = np.concatenate([t.number(f"{band}_{kind}") for t in tiles])
        good = np.isfinite(errors) & np.isfinite(fluxes) & (errors > 0)
        if good.any():
            faint = good & (fluxes <= np.median(fluxes[good]))
            return float(-2.5 * np.log10(5 * np.median(errors[faint]) / AB_FLUX))
    return np.nan


def match_tiles(
    tiles: Sequence[TileList], truths: Sequence[Truth], *, radius: float, band: str | None, limit: float
) -> list[MatchedTile]:
    """Match every tile that has truth on it.

    Parameters
    ----------
    tiles : sequence of TileList
        The catalogue.
    truths : sequence of Truth
        What is there.
    radius : float
        Matching radius, arcsec.
    band : str or None
        Band of `limit`.
    limit : float
        Truth fainter than this is left out; infinite for none.

    Raises
    ------
    InputError
        If no tile has truth on it.
    """
    matched = []
    for tile in tiles:
        placed = place_truth(tile, truths)
        if placed is not None:
            matched.append(_match(tile, *placed, radius=radius, band=band, limit=limit))
    if not matched:
        raise InputError(
            f"none of its sources lies on the catalogue's {len(tiles)} tile(s)",
            path=truths[0].name,
            expected="truth of the same patch of sky",
        )
    return matched


def _match(
    tile: TileList, truth: Truth, x: Float, y: Float, *, radius: float, band: str | None, limit: float
) -> MatchedTile:
    scale = tile.chip.pixel_scale if tile.chip is not None else np.nan
    if not np.isfinite(scale):
        raise InputError(
            f"tile {tile.name} has {len(tile)} source(s)", expected="at least 3, to know its pixel scale"
        )
    counted = np.isfinite(x) & np.isfinite(y)
    if band is not None and np.isfinite(limit):
        with np.errstate(invalid="ignore"):
            counted &= truth.magnitudes[band] < limit
    rows = np.flatnonzero(counted)
    found = match_lists(tile.number("x"), tile.number("y"), x[rows], y[rows], radius / scale)
    pairs = Pairs(found.first, rows[found.second].astype(np.int64), found.separation)
    return MatchedTile(tile, truth, x, y, counted, pairs, scale, radius / scale)
