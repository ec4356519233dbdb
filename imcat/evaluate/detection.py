"""Completeness, purity and calibration of a list of detections against what is there.

Pure functions on arrays. Positions are 0-based pixels of the reference band,
magnitudes AB. Matches are one to one, nearest pair first, within a radius.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.catalogue.match import match_xy

__all__ = [
    "BORDER",
    "CHANCE_SHIFT",
    "BinnedFraction",
    "Pairs",
    "Purity",
    "Reliability",
    "average_precision",
    "close_pairs",
    "completeness",
    "inside",
    "match_lists",
    "measure_purity",
    "purity_curve",
    "reliability",
    "threshold_at_purity",
    "wilson_interval",
]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.int64]

#: Width of the border that is left out, pixels.
BORDER = 8.0

#: Shift of the list that measures the rate of chance matches, pixels.
CHANCE_SHIFT = 20.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Matches of two lists: row of the first, row of the second, their separation in pixels."""

    first: Index
    second: Index
    separation: Float

    def found(self, size: int) -> Bool:
        """For each of `size` rows of the second list, whether it has a match."""
        return _members(self.second, size)

    def used(self, size: int) -> Bool:
        """For each of `size` rows of the first list, whether it has a match."""
        return _members(self.first, size)


@dataclass(frozen=True, eq=False)
class BinnedFraction:
    """A fraction by bin, with its 68 % Wilson interval.

    Attributes
    ----------
    edges : float64 array, shape (n + 1,)
        Edges of the bins, the upper one excluded.
    total, hits : int64 array, shape (n,)
        Sources in a bin and those among them that count.
    fraction, lower, upper : float64 array, shape (n,)
        NaN where the bin is empty.
    """

    edges: Float
    total: Index
    hits: Index
    fraction: Float
    lower: Float
    upper: Float


@dataclass(frozen=True)
class Purity:
    """How many detections are real.

    Attributes
    ----------
    detections : int
        Detections inside the border.
    purity : float
        Fraction matched to a true source brighter than the limit.
    purity_one_mag : float
        The same with the measured magnitude within one magnitude of the true one; NaN where
        no magnitudes were given.
    chance : float
        Fraction matched when the list is shifted: what matches by chance alone.
    """

    detections: int
    purity: float
    purity_one_mag: float
    chance: float


@dataclass(frozen=True, eq=False)
class Reliability:
    """Stated against observed probability of being real.

    Attributes
    ----------
    edges : float64 array, shape (n + 1,)
        Edges of the bins in the score.
    count : int64 array, shape (n,)
        Detections in a bin.
    expected, observed : float64 array, shape (n,)
        Mean score, and fraction that is real; NaN where the bin is empty.
    error : float
        Expected calibration error: mean of |observed − expected| weighted by count
        (Naeini et al. 2015, AAAI 29, 2901).
    """

    edges: Float
    count: Index
    expected: Float
    observed: Float
    error: float


def match_lists(x: ArrayLike, y: ArrayLike, other_x: ArrayLike, other_y: ArrayLike, radius: float) -> Pairs:
    """Match two lists of positions one to one, nearest pair first.

    Parameters
    ----------
    x, y : array, shape (n,)
        First list, pixels.
    other_x, other_y : array, shape (m,)
        Second list, pixels.
    radius : float
        Largest separation, pixels.

    Examples
    --------
    >>> pairs = match_lists([0, 10], [0, 0], [10.5, 0.2, 0.1], [0, 0, 0], 2.0)
    >>> pairs.first.tolist(), pairs.second.tolist()
    ([0, 1], [2, 0])
    """
    a = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    b = np.asarray(other_x, dtype=np.float64), np.asarray(other_y, dtype=np.float64)
    found = match_xy(*a, *b, radius)
    return Pairs(found.first.astype(np.int64), found.second.astype(np.int64), found.distance)


def inside(x: ArrayLike, y: ArrayLike, shape: tuple[int, int], border: float = BORDER) -> Bool:
    """Whether positions lie on an image, away from its border.

    Parameters
    ----------
    x, y : array
        Pixels; the centre of the first pixel is (0, 0).
    shape : (int, int)
        Rows and columns.
    border : float
        Width of the border, pixels.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    within: Bool = (x >= border - 0.5) & (x < shape[1] - 0.5 - border)
    within &= (y >= border - 0.5) & (y < shape[0] - 0.5 - border)
    return within


def wilson_interval(hits: ArrayLike, total: ArrayLike, z: float = 1.0) -> tuple[Float, Float]:
    """Interval of a binomial fraction (Wilson 1927, J. Am. Stat. Assoc. 22, 209).

    Parameters
    ----------
    hits, total : array
        Successes and trials.
    z : float
        Width in standard deviations; 1 is 68 %.

    Examples
    --------
    >>> low, high = wilson_interval(5, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.349, 0.651)
    """
    n = np.asarray(total, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.asarray(hits, dtype=np.float64) / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return np.asarray(centre - half), np.asarray(centre + half)


def completeness(magnitude: ArrayLike, found: ArrayLike, edges: ArrayLike) -> BinnedFraction:
    """Fraction of the true sources that were found, by true magnitude.

    Parameters
    ----------
    magnitude : array, shape (n,)
        True magnitudes.
    found : bool array, shape (n,)
        Whether a source has a match.
    edges : array, shape (m + 1,)
        Edges of the bins, rising.
    """
    limits = np.asarray(edges, dtype=np.float64)
    index = np.searchsorted(limits, np.asarray(magnitude, dtype=np.float64), side="right") - 1
    good = (index >= 0) & (index < limits.size - 1) & np.isfinite(np.asarray(magnitude, dtype=np.float64))
    bins = limits.size - 1
    total = np.bincount(index[good], minlength=bins).astype(np.int64)
    hits = np.bincount(index[good & np.asarray(found, dtype=bool)], minlength=bins).astype(np.int64)
    lower, upper = wilson_interval(hits, total)
    return BinnedFraction(limits, total, hits, _ratio(hits, total), lower, upper)


def measure_purity(
    x: ArrayLike,
    y: ArrayLike,
    truth_x: ArrayLike,
    truth_y: ArrayLike,
    *,
    radius: float,
    shape: tuple[int, int],
    magnitude: ArrayLike | None = None,
    truth_magnitude: ArrayLike | None = None,
    border: float = BORDER,
) -> Purity:
    """Fraction of the detections that are real, and what of it is chance.

    Parameters
    ----------
    x, y : array, shape (n,)
        Detections, pixels.
    truth_x, truth_y : array, shape (m,)
        True sources bright enough to count (down to two magnitudes below the 5 sigma
        limit), those outside the image included.
    radius : float
        Matching radius, pixels.
    shape : (int, int)
        Rows and columns of the image.
    magnitude : array, shape (n,), optional
        Measured magnitudes.
    truth_magnitude : array, shape (m,), optional
        True magnitudes in the same band.
    border : float
        Detections closer to the edge are not counted, pixels.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    counted = inside(x, y, shape, border)
    number = int(counted.sum())
    if number == 0:
        return Purity(0, np.nan, np.nan, np.nan)
    pairs = match_lists(x, y, truth_x, truth_y, radius)
    real = pairs.used(x.size)
    one_mag = np.nan
    if magnitude is not None and truth_magnitude is not None:
        difference = (
            np.asarray(magnitude, dtype=np.float64)[pairs.first]
            - np.asarray(truth_magnitude, dtype=np.float64)[pairs.second]
        )
        close = _members(pairs.first[np.abs(difference) <= 1], x.size)
        one_mag = float(close[counted].mean())
    shifted = match_lists(x + CHANCE_SHIFT, y, truth_x, truth_y, radius).used(x.size)
    return Purity(number, float(real[counted].mean()), one_mag, float(shifted[counted].mean()))


def purity_curve(score: ArrayLike, real: ArrayLike) -> tuple[Float, Float, Index]:
    """Purity of all detections at or above each score.

    Parameters
    ----------
    score : array, shape (n,)
        Anything that orders detections, the surest highest.
    real : bool array, shape (n,)
        Whether a detection is real.

    Returns
    -------
    threshold, purity : float64 array, shape (k,)
        Distinct scores, falling, and the purity of what reaches them.
    number : int64 array, shape (k,)
        How many reach them.
    """
    values = np.asarray(score, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    hits = np.cumsum(np.asarray(real, dtype=bool)[order])
    last = (
        np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if ranked.size else np.zeros(0, np.int64)
    )
    number = (last + 1).astype(np.int64)
    return ranked[last], hits[last] / number, number


def threshold_at_purity(score: ArrayLike, real: ArrayLike, purity: float) -> float:
    """Lowest score at which a list still has the purity asked for.

    Parameters
    ----------
    score : array, shape (n,)
        Anything that orders detections, the surest highest.
    real : bool array, shape (n,)
        Whether a detection is real.
    purity : float
        The purity to reach.

    Returns
    -------
    float
        NaN where no threshold reaches it.

    Examples
    --------
    >>> threshold_at_purity([9, 8, 7, 6, 5], [True, True, False, True, False], 0.75)
    6.0
    """
    threshold, reached, _ = purity_curve(score, real)
    good = np.flatnonzero(reached >= purity)
    return float(threshold[good[-1]]) if good.size else np.nan


def close_pairs(
    truth_x: ArrayLike,
    truth_y: ArrayLike,
    truth_magnitude: ArrayLike,
    found: ArrayLike,
    *,
    separation: float,
    faint_limit: float,
    edges: ArrayLike,
) -> BinnedFraction:
    """Fraction of close pairs of true sources of which both members were found.

    A pair is two sources brighter than the limit that are each other's nearest such neighbour.

    Parameters
    ----------
    truth_x, truth_y, truth_magnitude : array, shape (m,)
        True sources, pixels and magnitudes.
    found : bool array, shape (m,)
        Whether a source has a match of its own.
    separation : float
        Largest separation of a pair, pixels.
    faint_limit : float
        Both members are brighter than this magnitude.
    edges : array
        Edges of the bins in separation, pixels.

    Returns
    -------
    BinnedFraction
        By separation.
    """
    from scipy.spatial import cKDTree

    magnitude = np.asarray(truth_magnitude, dtype=np.float64)
    rows = np.flatnonzero(magnitude < faint_limit)
    limits = np.asarray(edges, dtype=np.float64)
    if rows.size < 2:
        return completeness(np.zeros(0), np.zeros(0, dtype=bool), limits)
    points = np.column_stack([np.asarray(truth_x, float)[rows], np.asarray(truth_y, float)[rows]])
    distance, neighbour = cKDTree(points).query(points, k=2)
    nearest, distance = neighbour[:, 1], distance[:, 1]
    own = np.arange(rows.size)
    pair = (nearest[nearest] == own) & (own < nearest) & (distance <= separation)
    both = np.asarray(found, dtype=bool)[rows]
    return completeness(distance[pair], (both & both[nearest])[pair], limits)


def reliability(score: ArrayLike, real: ArrayLike, bins: int = 15) -> Reliability:
    """Compare stated probabilities of being real with the observed fraction.

    Parameters
    ----------
    score : array, shape (n,)
        Probabilities; those that are not finite are left out.
    real : bool array, shape (n,)
        Whether a detection is real.
    bins : int
        Number of bins of equal width between 0 and 1.
    """
    values, truth = np.asarray(score, dtype=np.float64), np.asarray(real, dtype=bool)
    good = np.isfinite(values)
    values, truth = values[good], truth[good]
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(index, minlength=bins).astype(np.int64)
    expected = _ratio(np.bincount(index, weights=values, minlength=bins), count)
    observed = _ratio(np.bincount(index, weights=truth.astype(np.float64), minlength=bins), count)
    filled = count > 0
    weight = count[filled] / max(int(count.sum()), 1)
    error = float(np.sum(weight * np.abs(observed - expected)[filled])) if filled.any() else np.nan
    return Reliability(edges, count, expected, observed, error)


def average_precision(
    x: ArrayLike,
    y: ArrayLike,
    half_width: ArrayLike,
    score: ArrayLike,
    truth_x: ArrayLike,
    truth_y: ArrayLike,
    truth_half_width: ArrayLike,
    *,
    wanted: ArrayLike | None = None,
    iou: float = 0.5,
) -> float:
    """Average precision of square boxes at an intersection over union.

    Detections are taken by falling score, each claims the free true box that it overlaps best
    (Everingham et al. 2010, IJCV 88, 303); the area under precision against recall is taken
    with the precision made monotonic. Sources are one class here, so that the mean over
    classes (mAP) is this number.

    Parameters
    ----------
    x, y, half_width, score : array, shape (n,)
        Centre and half the side of each detection's box, pixels, and its score. imcat's boxes
        reach two half-light radii (PSF included) to each side of the centre.
    truth_x, truth_y, truth_half_width : array, shape (m,)
        True boxes.
    wanted : bool array, shape (m,), optional
        True sources that should be found. The others may be found: a detection of one counts
        neither for nor against.
    iou : float
        Smallest intersection over union of a match.

    Returns
    -------
    float
        NaN where nothing is wanted.
    """
    from scipy.spatial import cKDTree

    det = np.column_stack([np.asarray(v, dtype=np.float64) for v in (x, y, half_width)])
    true = np.column_stack([np.asarray(v, dtype=np.float64) for v in (truth_x, truth_y, truth_half_width)])
    need = np.ones(len(true), dtype=bool) if wanted is None else np.asarray(wanted, dtype=bool)
    if not need.any():
        return np.nan
    det = det[np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")]
    det = det[np.isfinite(det).all(axis=1)]
    tree, free = cKDTree(true[:, :2]), np.ones(len(true), dtype=bool)
    # Squares with an IoU of t overlap in each axis, so their centres are closer than this.
    reach = np.sqrt(2.0) * det[:, 2] * (1 + 1 / iou)
    hit, ignored = np.zeros(len(det), dtype=bool), np.zeros(len(det), dtype=bool)
    for row, near in enumerate(tree.query_ball_point(det[:, :2], reach)):
        candidates = np.array([k for k in near if free[k]], dtype=np.int64)
        if candidates.size == 0:
            continue
        overlap = _square_iou(det[row], true[candidates])
        best = int(np.argmax(overlap))
        if overlap[best] >= iou:
            free[candidates[best]] = False
            hit[row] = need[candidates[best]]
            ignored[row] = not need[candidates[best]]
    hit = hit[~ignored]
    if hit.size == 0:
        return 0.0
    true_positive = np.cumsum(hit)
    precision = true_positive / np.arange(1, hit.size + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(envelope[hit]) / need.sum())


def _square_iou(box: Float, others: Float) -> Float:
    """Intersection over union of one square with others, rows (x, y, half width)."""
    sides = []
    for axis in (0, 1):
        high = np.minimum(box[axis] + box[2], others[:, axis] + others[:, 2])
        low = np.maximum(box[axis] - box[2], others[:, axis] - others[:, 2])
        sides.append(np.maximum(high - low, 0))
    common = sides[0] * sides[1]
    return np.asarray(common / (4 * box[2] ** 2 + 4 * others[:, 2] ** 2 - common))


def _members(rows: Index, size: int) -> Bool:
    flags = np.zeros(size, dtype=bool)
    flags[rows] = True
    return flags


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(part, dtype=np.float64) / np.asarray(whole, dtype=np.float64))
