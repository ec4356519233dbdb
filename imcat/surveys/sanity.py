"""Does a variance map fit its image? A weight given as variance, or the reverse, is noticed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.tile import Pixels
from imcat.window import Window

__all__ = ["VarianceCheck", "check_variance", "sample_rows"]

# Differences over this many pixels: beyond the reach of resampling and most PSFs, but short
# against the background's structure.
_LAG = 9
_ROWS = 64
_CLIP = 3.0
# Standard deviation of a Gaussian cut at 3 sigma, relative to the full one.
_CLIPPED_SIGMA = 0.98658


@dataclass(frozen=True)
class VarianceCheck:
    """The image's own noise beside that of its variance map.

    Attributes
    ----------
    noise : float
        Variance of blank sky from the image, in the square of its unit.
    given : float
        Median of the map as it was given; NaN if no pixel has a positive one.
    positive : float
        Fraction of the sampled pixels where the map is finite and positive.
    """

    noise: float
    given: float
    positive: float

    @property
    def fits(self) -> bool:
        """Whether map and image agree within a factor of 5."""
        return not self.noise > 0 or 0.2 <= self.given / self.noise <= 5

    def swapped(self, unit: float = 1.0) -> bool:
        """Whether the evidence says that the map is the reciprocal of what it was given as.

        Parameters
        ----------
        unit : float
            Square of the factor by which image and map were converted from the unit in which the
            map may be a reciprocal.

        Returns
        -------
        bool
            True if the map does not fit, and its reciprocal fits within a factor of 2.
        """
        if self.fits or not (self.noise > 0 and self.given > 0):
            return False
        return 0.5 <= (unit / self.given) * (unit / self.noise) <= 2


def sample_rows(shape: tuple[int, int], rows: int = _ROWS) -> list[Window]:
    """Single rows, spread evenly over an image."""
    chosen = np.unique(np.linspace(0, shape[0] - 1, min(rows, shape[0])).astype(int))
    return [Window(int(y), int(y) + 1, 0, shape[1]) for y in chosen]


def check_variance(image: Pixels, variance: Pixels) -> VarianceCheck:
    """Compare a variance map with the noise of its image on a sample of rows.

    Parameters
    ----------
    image : Pixels
        Any unit.
    variance : Pixels
        The square of that unit.
    """
    values: list[NDArray[Any]] = []
    differences: list[NDArray[Any]] = []
    total = positive = 0
    for window in sample_rows(image.shape):
        data = np.asarray(image.read(window), dtype=np.float64)[0]
        given = np.asarray(variance.read(window), dtype=np.float64)[0]
        good = np.isfinite(given) & (given > 0)
        total += given.size
        positive += int(good.sum())
        good &= np.isfinite(data)
        values.append(given[good])
        lag = min(_LAG, max(1, data.size // 4))
        both = good[lag:] & good[:-lag]
        differences.append((data[lag:] - data[:-lag])[both])
    given_all = np.concatenate(values)
    median = float(np.median(given_all)) if given_all.size else float("nan")
    return VarianceCheck(
        noise=_clipped_variance(np.concatenate(differences)) / 2,
        given=median,
        positive=positive / max(total, 1),
    )


def _clipped_variance(values: NDArray[Any]) -> float:
    """Variance without outliers, of values around zero."""
    if values.size < 16:
        return 0.0
    # Start from the quartiles, which sources hardly touch, then clip.
    low, high = np.percentile(values, [25, 75])
    sigma = (high - low) / 1.349
    for _ in range(8):
        kept = values[np.abs(values) <= _CLIP * sigma] if sigma > 0 else values
        new = float(kept.std()) / _CLIPPED_SIGMA
        if abs(new - sigma) <= 1e-4 * sigma:
            break
        sigma = new
    return float(sigma) ** 2
