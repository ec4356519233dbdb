"""Peaks of the network's heat: the candidates that it scores, in training as in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.detect.network import HEAT, LOG_ERROR, LOG_RADIUS, OFFSET_X, OFFSET_Y, SCORE

__all__ = ["FARTHEST", "SHOULDER", "Candidates", "find_candidates"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Pixels: offset of a centre from the peak that stands for it, at most.
FARTHEST = 1.5
#: Weight of the pixels beside, along each axis, in the heat around a pixel.
SHOULDER = 0.5


@dataclass(frozen=True, eq=False)
class Candidates:
    """Peaks of the heat in one window; arrays ``[n]``.

    Attributes
    ----------
    row, column : int64 array
        Pixels of the peaks.
    heat : float64 array
        Heat around the peak, 0 to 4: what decides between neighbours.
    logit : float64 array
        Of the score, before calibration.
    x, y : float64 array
        Places, pixels of the window.
    error : float64 array
        One-sigma error of each coordinate, pixels.
    radius : float64 array
        Half-light radius behind the PSF, pixels.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    heat: Float64
    logit: Float64
    x: Float64
    y: Float64
    error: Float64
    radius: Float64

    def select(self, kept: NDArray[np.bool_] | NDArray[np.int64]) -> Candidates:
        """Some of them."""
        return Candidates(*(value[kept] for value in vars(self).values()))


def find_candidates(
    out: Float32, fwhm: float, min_heat: float, separation: float, usable: NDArray[np.bool_] | None = None
) -> Candidates:
    """Peaks of the heat, of neighbours only the warmer.

    The heat is summed over a pixel and its neighbours first: it is the probability that a centre lies in the pixel,
    which for a source whose centre is uncertain is spread over several.

    Parameters
    ----------
    out : float32 array ``[OUTPUTS, y, x]``
        What the network says.
    fwhm : float
        Of the PSF, pixels.
    min_heat : float
        Smallest heat of a candidate.
    separation : float
        Smallest distance of two candidates, in units of `fwhm`.
    usable : bool array ``[y, x]``, optional
        Pixels with data.
    """
    from scipy.ndimage import maximum_filter

    with np.errstate(over="ignore"):  # of a network that is sure of nothing there: zero
        heat = 1 / (1 + np.exp(-out[HEAT]))
    if usable is not None:
        heat[~usable] = 0.0
    warmth = _around(heat)
    top = (warmth >= min_heat) & (warmth == maximum_filter(warmth, 3))
    row, column = np.nonzero(top)
    at = out[:, row, column].astype(float)
    found = Candidates(
        row, column, warmth[row, column].astype(float), at[SCORE],
        column + np.clip(at[OFFSET_X], -FARTHEST, FARTHEST), row + np.clip(at[OFFSET_Y], -FARTHEST, FARTHEST),
        np.exp(np.clip(at[LOG_ERROR], -5.0, 2.0)), 0.5 * fwhm * np.exp(np.clip(at[LOG_RADIUS], -1.0, 5.0)),
    )  # fmt: skip
    return found.select(_apart(found, separation * fwhm))


def _around(heat: Float32) -> Float32:
    """Heat of a pixel and, with less weight, of its eight neighbours."""
    wide = np.pad(heat, 1)
    rows = wide[1:-1] + np.float32(SHOULDER) * (wide[:-2] + wide[2:])
    return np.asarray(rows[:, 1:-1] + np.float32(SHOULDER) * (rows[:, :-2] + rows[:, 2:]))


def _apart(found: Candidates, distance: float) -> NDArray[np.bool_]:
    """Which candidates have no warmer one nearer than a distance."""
    from scipy.spatial import cKDTree

    kept = np.ones(found.row.size, bool)
    if kept.size > 1 and distance > 0:
        tree = cKDTree(np.stack([found.x, found.y], axis=1))
        pairs = tree.query_pairs(distance, output_type="ndarray")
        warmer = found.heat[pairs[:, 0]] >= found.heat[pairs[:, 1]]
        kept[np.where(warmer, pairs[:, 1], pairs[:, 0])] = False
    return kept
