"""Which of several overlapping tiles a patch of sky is counted in.

By geometry only, never by what was found there. A source file says which of
its sources are primary by the survey's own rule. Where footprints of tiles
overlap, a position belongs to the tile whose centre is nearest, in units of
the tile's radius (the distance from its centre to its farthest corner); two
tiles at the same distance are told apart by name. A source stays primary if
its position belongs to its own tile.

The fields of one SDSS run and camera column share their rows by the survey's
rule already, to the pixel. They are a group: a source is never taken away
from its field by another field of its group, so that no sliver between two
fields is lost or counted twice because a polygon's edge rounds differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.catalogue.match import unit_vectors
from imcat.errors import InputError

__all__ = ["Footprint", "Footprints", "read_footprints"]

Float = NDArray[np.float64]

# Scores are compared after rounding: a ten-billionth of a tile's radius is far below a
# pixel, and above what the last bits of two equal distances may differ by.
_SCORE_DECIMALS = 10
#: Names of SDSS tiles end in run, camera column and field.
_SDSS_NAME = re.compile(r"(?P<group>\d+-\d)-\d+$")


@dataclass(frozen=True)
class Footprint:
    """The part of the sky in which a tile's sources may be primary.

    Attributes
    ----------
    name : str
        Of the tile.
    corners : tuple of (float, float)
        ra and dec in degrees of a convex polygon, in either sense, at least three;
        its edges are great circles, as the edges of an image in tangential
        projection are.
    group : str
        Tiles of one group do not compete with each other; empty: the tile alone.
    """

    name: str
    corners: tuple[tuple[float, float], ...]
    group: str = ""

    def __post_init__(self) -> None:
        if len(self.corners) < 3 or not np.isfinite(np.asarray(self.corners, dtype=float)).all():
            raise InputError(
                f"the footprint of tile {self.name} has {len(self.corners)} corners or one that is not finite",
                expected="at least three positions on the sky",
            )


class Footprints:
    """Footprints of the tiles of a run, ready to tell primaries.

    Parameters
    ----------
    footprints : sequence of Footprint
        In any order; names are unique.

    Raises
    ------
    InputError
        If two footprints have one name.
    """

    def __init__(self, footprints: Sequence[Footprint]) -> None:
        ordered = sorted(footprints, key=lambda footprint: footprint.name)
        self.names = tuple(footprint.name for footprint in ordered)
        if len(set(self.names)) != len(self.names):
            raise InputError("two footprints belong to tiles of one name", expected="unique names")
        corners = [unit_vectors(*np.asarray(footprint.corners, dtype=float).T) for footprint in ordered]
        self._centres = np.array([_normalise(c.sum(axis=0)) for c in corners]).reshape(-1, 3)
        self._normals = [_edge_normals(c, m) for c, m in zip(corners, self._centres, strict=True)]
        pairs = zip(corners, self._centres, strict=True)
        self._radii = np.array([np.linalg.norm(c - m, axis=1).max() for c, m in pairs])
        groups = [footprint.group or f"tile {footprint.name}" for footprint in ordered]
        self._groups = np.unique(groups, return_inverse=True)[1] if groups else np.empty(0, dtype=int)

    def __len__(self) -> int:
        return len(self.names)

    def winner(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.intp]:
        """The tile that each position belongs to.

        Parameters
        ----------
        ra, dec : array_like, shape (n,)
            Degrees.

        Returns
        -------
        int array, shape (n,)
            Index into `names`; −1 where no footprint holds the position.
        """
        return self._winner(unit_vectors(ra, dec), range(len(self)))

    def primary(
        self, ra: ArrayLike, dec: ArrayLike, tile: ArrayLike, survey_primary: ArrayLike
    ) -> NDArray[np.bool_]:
        """Resolve the primaries of a catalogue of many tiles.

        Parameters
        ----------
        ra, dec : array_like, shape (n,)
            Degrees.
        tile : array_like of str, shape (n,)
            The tile of each source; a tile without footprint keeps its primaries.
        survey_primary : array_like of bool, shape (n,)
            Primary by the survey's own rule (``is_primary`` of the source file).

        Returns
        -------
        bool array, shape (n,)
            True only where `survey_primary` is.
        """
        primary = np.array(survey_primary, dtype=bool)
        contested = self._contested()
        if not contested.any():
            return primary
        own = self._own(np.asarray(tile, dtype=np.str_))
        rows = np.flatnonzero(primary & (own >= 0) & contested[own])
        points = unit_vectors(np.asarray(ra, dtype=float)[rows], np.asarray(dec, dtype=float)[rows])
        winner = self._winner(points, np.flatnonzero(contested))
        # A position outside every polygon (an edge that rounds the wrong way) stays where it is.
        keeps = (winner < 0) | (self._groups[winner] == self._groups[own[rows]])
        primary[rows[~keeps]] = False
        return primary

    def contested_names(self) -> list[str]:
        """Names of the tiles whose primaries other tiles might take."""
        return [self.names[i] for i in np.flatnonzero(self._contested())]

    def _own(self, tiles: NDArray[np.str_]) -> NDArray[np.intp]:
        names, inverse = np.unique(tiles, return_inverse=True)
        index = {name: i for i, name in enumerate(self.names)}
        return np.array([index.get(name, -1) for name in names.tolist()], dtype=np.intp)[inverse]

    def _contested(self) -> NDArray[np.bool_]:
        """Tiles whose circle meets that of a tile of another group."""
        from scipy.spatial import cKDTree

        contested = np.zeros(len(self), dtype=bool)
        if len(self) < 2:
            return contested
        pairs = cKDTree(self._centres).query_pairs(2 * self._radii.max(), output_type="ndarray")
        a, b = pairs[:, 0], pairs[:, 1]
        distance = np.linalg.norm(self._centres[a] - self._centres[b], axis=1)
        # Chords, not angles: their sum is no smaller than the chord of the sum.
        meet = (distance <= self._radii[a] + self._radii[b]) & (self._groups[a] != self._groups[b])
        contested[a[meet]] = True
        contested[b[meet]] = True
        # The other fields of a contested group are needed to tell which group wins.
        return np.isin(self._groups, self._groups[contested])

    def _winner(self, points: Float, tiles: Sequence[int] | NDArray[np.intp]) -> NDArray[np.intp]:
        from scipy.spatial import cKDTree

        winner = np.full(len(points), -1, dtype=np.intp)
        finite = np.flatnonzero(np.isfinite(points).all(axis=1))
        if not finite.size:
            return winner
        best = np.full(len(points), np.inf)
        tree = cKDTree(points[finite])
        # In order of names, and a later tile must be strictly nearer: ties go by name.
        for tile in tiles:
            centre, radius = self._centres[tile], self._radii[tile]
            rows = finite[tree.query_ball_point(centre, radius * (1 + 1e-9))]
            rows = rows[(points[rows] @ self._normals[tile].T >= 0).all(axis=1)]
            chord = np.linalg.norm(points[rows] - centre, axis=1)
            score = np.round(chord / radius, _SCORE_DECIMALS)
            nearer = rows[score < best[rows]]
            best[nearer] = score[score < best[rows]]
            winner[nearer] = tile
        return winner


def read_footprints(run_dir: str | Path) -> Footprints:
    """Footprints from the ledger of a run.

    Parameters
    ----------
    run_dir : path
        Folder that holds ``run.json``. Of each tile are read ``primary_footprint``
        (the polygon within which the survey's rule makes sources primary) or else
        ``footprint`` (the whole image), ``survey``, and ``group`` where there is one;
        the group of an SDSS tile is else its run and camera column.

    Raises
    ------
    InputError
        If the ledger is absent or cannot be read.
    """
    path = Path(run_dir) / "run.json"
    try:
        tiles: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["tiles"]
        return Footprints(
            [_footprint(name, entry) for name, entry in tiles.items() if entry.get("footprint")]
        )
    except FileNotFoundError:
        raise InputError("no such file", path=path, expected="the ledger of a run") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"it cannot be read ({error})", path=path, expected="the ledger of a run") from None


def _footprint(name: str, entry: Mapping[str, Any]) -> Footprint:
    corners = entry.get("primary_footprint") or entry["footprint"]
    group = entry.get("group") or ""
    found = _SDSS_NAME.search(name) if entry.get("survey") == "sdss" else None
    if not group and found:
        group = f"sdss {found['group']}"
    return Footprint(name, tuple((float(ra), float(dec)) for ra, dec in corners), str(group))


def _edge_normals(corners: Float, centre: Float) -> Float:
    """Normals of the planes through the edges, towards the inside (shape (n, 3))."""
    normals = np.cross(corners, np.roll(corners, -1, axis=0))
    return np.asarray(normals * np.sign(normals @ centre)[:, None])


def _normalise(vector: Float) -> Float:
    return np.asarray(vector / np.linalg.norm(vector))
