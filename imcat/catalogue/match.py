"""One-to-one matching of two lists of positions, the nearest pairs first.

Every pair within the radius is a candidate. Candidates are taken in order of
distance, and one is kept when neither of its members has been taken, so the
result does not depend on the order of either list (but for exact ties, which
go to the smaller indices).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.errors import UsageError

__all__ = ["Matches", "cross_match", "match_xy", "unit_vectors"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs, in order of the first list.

    Attributes
    ----------
    first, second : int array, shape (n,)
        Indices into the two lists; none occurs twice.
    distance : float array, shape (n,)
        arcsec (`cross_match`) or pixels (`match_xy`).
    """

    first: Index
    second: Index
    distance: Float

    def __len__(self) -> int:
        return len(self.first)


def cross_match(
    ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike, radius_arcsec: float
) -> Matches:
    """Match positions on the sky.

    Parameters
    ----------
    ra1, dec1 : array_like, shape (n,)
        Degrees. Positions that are not finite match nothing.
    ra2, dec2 : array_like, shape (m,)
        Degrees.
    radius_arcsec : float
        Largest separation of a pair, at most 180 degrees.

    Returns
    -------
    Matches
        Distances in arcsec, along great circles.

    Raises
    ------
    UsageError
        If the radius is not positive.
    """
    # A chord of length c spans the angle 2 arcsin(c / 2) on the unit sphere.
    half_angle = min(np.radians(radius_arcsec / 3600) / 2, np.pi / 2)
    matches = _match(unit_vectors(ra1, dec1), unit_vectors(ra2, dec2), 2 * np.sin(half_angle), radius_arcsec)
    angle = 2 * np.arcsin(np.minimum(matches.distance / 2, 1.0))
    return Matches(matches.first, matches.second, np.degrees(angle) * 3600)


def match_xy(x1: ArrayLike, y1: ArrayLike, x2: ArrayLike, y2: ArrayLike, radius: float) -> Matches:
    """Match positions in the plane, for instance pixels.

    Parameters
    ----------
    x1, y1 : array_like, shape (n,)
        Positions that are not finite match nothing.
    x2, y2 : array_like, shape (m,)
        In the same unit.
    radius : float
        Largest distance of a pair.

    Raises
    ------
    UsageError
        If the radius is not positive.
    """
    first = np.stack([np.asarray(x1, dtype=float), np.asarray(y1, dtype=float)], axis=-1)
    second = np.stack([np.asarray(x2, dtype=float), np.asarray(y2, dtype=float)], axis=-1)
    return _match(first, second, radius, radius)


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Float:
    """Unit vectors of positions on the sky.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        Degrees.

    Returns
    -------
    array, shape (n, 3)
    """
    alpha, delta = np.radians(np.asarray(ra, dtype=float)), np.radians(np.asarray(dec, dtype=float))
    cos_delta = np.cos(delta)
    return np.stack([cos_delta * np.cos(alpha), cos_delta * np.sin(alpha), np.sin(delta)], axis=-1)


def _match(first: Float, second: Float, radius: float, shown: float) -> Matches:
    from scipy.spatial import cKDTree

    if not radius > 0:
        raise UsageError(f"a matching radius of {shown} is impossible; expected a positive number")
    rows1 = np.flatnonzero(np.isfinite(first).all(axis=-1))
    rows2 = np.flatnonzero(np.isfinite(second).all(axis=-1))
    if not (rows1.size and rows2.size):
        return Matches(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0))
    pairs = cKDTree(first[rows1]).sparse_distance_matrix(
        cKDTree(second[rows2]), radius, output_type="ndarray"
    )
    i, j, distance = rows1[pairs["i"]], rows2[pairs["j"]], pairs["v"]
    order = np.lexsort((j, i, distance))
    i, j, distance = i[order], j[order], distance[order]
    kept = _greedy(i, j, len(first), len(second))
    kept = kept[np.argsort(i[kept])]
    return Matches(i[kept], j[kept], distance[kept])


def _greedy(i: Index, j: Index, n: int, m: int) -> Index:
    """Positions of the pairs that are kept; pairs come in order of distance.

    Each round keeps the pairs that are the first of both their members and
    drops what these exclude. That gives what taking pairs one by one gives,
    in a few rounds of array operations.
    """
    kept: list[Index] = []
    left = np.arange(len(i))
    while left.size:
        first_of_i, first_of_j = np.full(n, len(i)), np.full(m, len(i))
        # In reverse, so that the nearest pair is written last and stays.
        first_of_i[i[left[::-1]]] = left[::-1]
        first_of_j[j[left[::-1]]] = left[::-1]
        mutual = left[(first_of_i[i[left]] == left) & (first_of_j[j[left]] == left)]
        kept.append(mutual)
        taken_i, taken_j = np.zeros(n, dtype=bool), np.zeros(m, dtype=bool)
        taken_i[i[mutual]] = True
        taken_j[j[mutual]] = True
        left = left[~(taken_i[i[left]] | taken_j[j[left]])]
    return np.concatenate(kept) if kept else np.empty(0, dtype=np.intp)
