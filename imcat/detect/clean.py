"""Detections that the halo of a brighter neighbour explains."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["explained_by_halo"]

Float64 = NDArray[np.float64]


@njit(cache=True, nogil=True)
def _explained(x, y, a, b, cos, sin, snr, area, order, threshold, slope, reach):  # type: ignore[no-untyped-def]
    """Sources come in the order of y; `order` lists them from bright to faint."""
    n = x.size
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    out = np.zeros(n, np.bool_)
    for k in range(n):  # from bright to faint; what is gone explains nothing more
        j = order[k]
        if out[j]:
            continue
        # The footprint ends where the profile falls to the threshold: its equivalent ellipse.
        edge = math.sqrt(area[j] / (math.pi * a[j] * b[j]))
        limit = reach * edge * a[j]
        for i in range(np.searchsorted(y, y[j] - limit), np.searchsorted(y, y[j] + limit)):
            if rank[i] <= k or out[i]:
                continue
            dx, dy = x[i] - x[j], y[i] - y[j]
            if abs(dx) > limit:
                continue
            u, v = (dx * cos[j] + dy * sin[j]) / a[j], (dy * cos[j] - dx * sin[j]) / b[j]
            distance = math.sqrt(u * u + v * v) / edge
            if distance > reach or distance <= 0:
                continue
            level = threshold * max(distance, 0.3) ** -slope
            if level < 0.9 * snr[i] and snr[i] - level >= threshold:
                continue
            out[i] = True
    return out


def explained_by_halo(
    x: Float64, y: Float64, xx: Float64, yy: Float64, xy: Float64, snr: Float64,
    area: NDArray[np.int64], threshold: float, slope: float,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which sources would not have been found without a brighter one beside them.

    The idea of SExtractor's cleaning (Bertin & Arnouts 1996): outside its footprint, where the
    profile has fallen to the threshold, a source is taken to go on as a power of the elliptical
    radius. A fainter peak that does not stand above that halo by the threshold is explained.

    Parameters
    ----------
    x, y : float64 arrays [n]
        Positions, pixels.
    xx, yy, xy : float64 arrays [n]
        Second moments, pixels².
    snr : float64 array [n]
        Peak in the filtered map.
    area : int64 array [n]
        Pixels above `threshold`.
    threshold : float
        Level of the footprint's edge in the filtered map.
    slope : float
        Power of the halo's fall.

    Returns
    -------
    bool array [n]
        True where a source should go.
    """
    half, spread = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    a = np.sqrt(half + spread)
    b = np.sqrt(np.maximum(half - spread, 0.01 * a * a))
    theta = 0.5 * np.arctan2(2 * xy, xx - yy)
    by_row = np.argsort(y, kind="stable")
    x, y, snr, area = x[by_row], y[by_row], snr[by_row], area[by_row]
    a, b, theta = a[by_row], b[by_row], theta[by_row]
    order = np.argsort(-snr, kind="stable")
    # Beyond the distance at which the halo falls to a tenth of the threshold it matters no more.
    reach = 10 ** (1 / slope)
    result = np.empty(x.size, bool)
    result[by_row] = _explained(
        x, y, a, b, np.cos(theta), np.sin(theta), snr, area.astype(float), order, threshold, slope, reach
    )
    return result
