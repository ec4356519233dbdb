"""Covariance of the noise of neighbouring pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["NoiseCovariance", "lag_products"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NoiseCovariance:
    """Correlation coefficients of pixels at small lags.

    Attributes
    ----------
    rho : float64 array [2 r + 1, 2 r + 1]
        Correlation at lag ``(dy, dx)``, index ``(dy + r, dx + r)``; 1 in the middle,
        symmetric under reversal.
    """

    rho: Float64

    @classmethod
    def white(cls) -> NoiseCovariance:
        """Independent pixels."""
        return cls(np.ones((1, 1)))

    @classmethod
    def from_products(cls, products: Float64, pairs: Float64) -> NoiseCovariance:
        """Normalise the sums of `lag_products`, shape ``[r + 1, 2 r + 1]``.

        Lags that too few pairs of pixels cover are taken to be uncorrelated.
        """
        r = products.shape[0] - 1
        if pairs[0, r] < 100 or products[0, r] <= 0:
            return cls.white()
        mean = np.where(pairs > 0.05 * pairs[0, r], products / np.maximum(pairs, 1), 0.0)
        half = mean / mean[0, r]
        rho = np.zeros((2 * r + 1, 2 * r + 1))
        rho[r:] = half
        rho[: r + 1] += half[::-1, ::-1]  # lag (-dy, -dx) has the same correlation
        rho[r, :] = np.concatenate([half[0, :r:-1], half[0, r:]])
        return cls(rho)

    @property
    def radius(self) -> int:
        """Largest lag."""
        return int(self.rho.shape[0] // 2)

    @property
    def total(self) -> float:
        """Variance of a large sum of pixels over that of independent ones."""
        return max(float(self.rho.sum()), 0.05)

    @property
    def lags(self) -> tuple[Float64, Float64, Float64]:
        """Lags ``dy``, ``dx`` and their correlation, flat, without lag zero."""
        r = self.radius
        dy, dx = np.mgrid[-r : r + 1, -r : r + 1].astype(float)
        other = (dy != 0) | (dx != 0)
        return dy[other], dx[other], self.rho[other]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def lag_products(values, used, radius, products, pairs):  # type: ignore[no-untyped-def]
    """Add the products of all pairs of pixels at each lag.

    Parameters
    ----------
    values : float32 array [y, x]
        Noise, zero outside blank sky.
    used : float32 array [y, x]
        One in blank sky, zero elsewhere.
    radius : int
        Largest lag.
    products, pairs : float64 arrays [radius + 1, 2 radius + 1]
        Sums and numbers of pairs at lag ``(dy >= 0, dx)``; added to. Lags with ``dy = 0`` and
        ``dx < 0`` repeat others and are left alone.
    """
    rows, columns = values.shape
    for dy in range(radius + 1):
        for dx in range(-radius, radius + 1):
            if dy == 0 and dx < 0:
                continue
            first, last = max(0, -dx), min(columns, columns - dx)
            for y in range(rows - dy):
                total, count = np.float32(0), np.float32(0)
                for x in range(first, last):
                    total += values[y, x] * values[y + dy, x + dx]
                    count += used[y, x] * used[y + dy, x + dx]
                products[dy, dx + radius] += total
                pairs[dy, dx + radius] += count
