"""Footprints above a threshold in one window, taken apart into sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.detect.combine import CombinedMap
from imcat.detect.segment import find_root, segment
from imcat.detect.settings import DetectSettings
from imcat.window import Window

__all__ = ["WindowSources", "describe", "extract"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WindowSources:
    """Sources whose peak lies in a window's core; arrays ``[n]``, positions in the tile.

    Attributes
    ----------
    x, y : float64
        Barycentre of the footprint, reference pixels.
    xx, yy, xy : float64
        Second moments of the footprint's light, pixels².
    snr : float64
        Highest value of the filtered map.
    peak : int64
        Pixel of that value, ``y * columns + x``.
    area : int64
        Pixels of the footprint.
    group : int64
        Peak of the brightest source of the connected footprint.
    group_size : int64
        Number of sources in it.
    truncated : bool
        The connected footprint reaches the window's margin.
    pixels, labels : int64, int32 arrays [m]
        Their footprints; labels count from 1 within this window.
    """

    x: Float64
    y: Float64
    xx: Float64
    yy: Float64
    xy: Float64
    snr: Float64
    peak: NDArray[np.int64]
    area: NDArray[np.int64]
    group: NDArray[np.int64]
    group_size: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    pixels: NDArray[np.int64]
    labels: NDArray[np.int32]


@njit(cache=True, nogil=True)
def _gather(labels, new, y0, x0, columns, pixels, kept):  # type: ignore[no-untyped-def]
    """List the pixels of the sources that stay, with their new labels."""
    n = 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label != 0 and new[label] != 0:
                pixels[n], kept[n] = (y + y0) * columns + x + x0, new[label]
                n += 1


@njit(cache=True, nogil=True)
def _grow(labels, snr, level, steps):  # type: ignore[no-untyped-def]
    """Let footprints grow, all at once and a pixel a step, where the map is above a level.

    A pixel that several footprints reach in the same step goes to the neighbour with the highest
    value. The result depends on pixels at most `steps` away, never on the window.
    """
    rows, columns = labels.shape
    front = np.empty(labels.size, np.int64)
    count = 0
    for y in range(rows):
        for x in range(columns):
            if labels[y, x] != 0:
                front[count] = y * columns + x
                count += 1
    for _ in range(steps):
        reached = np.empty(8 * count, np.int64)
        owner = np.empty(8 * count, np.int32)
        n = 0
        for k in range(count):
            y, x = front[k] // columns, front[k] % columns
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    qy, qx = y + dy, x + dx
                    if qy < 0 or qx < 0 or qy >= rows or qx >= columns:
                        continue
                    if labels[qy, qx] != 0 or not snr[qy, qx] > level:
                        continue
                    best, chosen = -np.inf, 0
                    for ey in range(max(qy - 1, 0), min(qy + 2, rows)):
                        for ex in range(max(qx - 1, 0), min(qx + 2, columns)):
                            if labels[ey, ex] > 0 and snr[ey, ex] > best:
                                best, chosen = snr[ey, ex], labels[ey, ex]
                    reached[n], owner[n] = qy * columns + qx, chosen
                    labels[qy, qx] = -1  # claimed: not a neighbour before the next step
                    n += 1
        for k in range(n):
            labels[reached[k] // columns, reached[k] % columns] = owner[k]
        front = reached
        count = n
        if count == 0:
            break


@njit(cache=True, nogil=True)
def _statistics(labels, snr, numerator, denominator, top, left, open_edges, n):  # type: ignore[no-untyped-def]
    """Moments, peak and connected group of every labelled source; see `WindowSources`."""
    rows, columns = labels.shape
    sums = np.zeros((n, 6))
    peak_value = np.full(n, -np.inf)
    peak_at = np.zeros(n, np.int64)
    area = np.zeros(n, np.int64)
    cut = np.zeros(n, np.bool_)
    origin = np.full((n, 2), -1)
    parent = np.arange(n)
    for y in range(rows):
        for x in range(columns):
            label = labels[y, x]
            if label == 0:
                continue
            i = label - 1
            if origin[i, 0] < 0:
                origin[i, 0], origin[i, 1] = y, x
            area[i] += 1
            if snr[y, x] > peak_value[i]:
                peak_value[i] = snr[y, x]
                peak_at[i] = y * columns + x
            weight = denominator[y + top, x + left]
            f = float(numerator[y + top, x + left]) / weight if weight > 0 else 0.0
            dx, dy = float(x - origin[i, 1]), float(y - origin[i, 0])
            sums[i, 0] += f
            sums[i, 1] += f * dx
            sums[i, 2] += f * dy
            sums[i, 3] += f * dx * dx
            sums[i, 4] += f * dy * dy
            sums[i, 5] += f * dx * dy
            if (
                (y == 0 and open_edges[0]) or (y == rows - 1 and open_edges[1])
                or (x == 0 and open_edges[2]) or (x == columns - 1 and open_edges[3])
            ):  # fmt: skip
                cut[i] = True
            for k in range(4):
                qy = y - 1 if k < 3 else y
                qx = x - 1 + k if k < 3 else x - 1
                if qy < 0 or qx < 0 or qx >= columns:
                    continue
                other = labels[qy, qx]
                if other != 0 and other != label:
                    a, b = find_root(parent, i), find_root(parent, other - 1)
                    if a != b:
                        parent[max(a, b)] = min(a, b)
    group = np.empty(n, np.int64)
    best = np.full(n, -1)
    size = np.zeros(n, np.int64)
    torn = np.zeros(n, np.bool_)
    for i in range(n):
        root = find_root(parent, i)
        group[i] = root
        size[root] += 1
        torn[root] |= cut[i]
        b = best[root]
        if (
            b < 0
            or peak_value[i] > peak_value[b]
            or (peak_value[i] == peak_value[b] and peak_at[i] < peak_at[b])
        ):
            best[root] = i
    return sums, origin, peak_value, peak_at, area, group, best, size, torn


def extract(
    combined: CombinedMap, core: Window, shape: tuple[int, int], settings: DetectSettings
) -> WindowSources:
    """Sources of one window whose peak lies in its core.

    Parameters
    ----------
    combined : CombinedMap
        The window with its margin.
    core : Window
        The part that this window answers for.
    shape : (int, int)
        Rows and columns of the tile.
    settings : DetectSettings
        Threshold, area, deblending.
    """
    labels, n = segment(combined.snr, settings)
    _grow(labels, combined.snr, settings.grow_threshold, settings.grow_steps)
    return describe(labels, n, combined, core, shape, settings.min_snr)


def describe(
    labels: NDArray[np.int32],
    n: int,
    combined: CombinedMap,
    core: Window,
    shape: tuple[int, int],
    min_snr: float,
    peaks: NDArray[np.int64] | None = None,
) -> WindowSources:
    """Statistics of labelled sources of one window, and of those whose peak lies in its core the pixels.

    Parameters
    ----------
    labels : int32 array [y, x]
        From 1 to `n`; 0 is sky.
    n : int
        Number of labels.
    combined : CombinedMap
        The window with its margin.
    core : Window
        The part that this window answers for.
    shape : (int, int)
        Rows and columns of the tile.
    min_snr : float
        Smallest peak.
    peaks : int64 array [n], optional
        Pixel of each source's peak, ``y * columns + x`` within the window; default: its highest pixel.
    """
    window, columns = combined.window, shape[1]
    open_edges = np.array(
        [window.y0 > 0, window.y1 < shape[0], window.x0 > 0, window.x1 < shape[1]], dtype=np.bool_
    )
    sums, origin, snr, at, area, group, best, size, torn = _statistics(
        labels, combined.snr, combined.numerator, combined.denominator, *combined.offset, open_edges, n
    )
    if peaks is not None:
        at = peaks
    peak_y, peak_x = at // max(window.shape[1], 1) + window.y0, at % max(window.shape[1], 1) + window.x0
    peak = peak_y * columns + peak_x
    mine = (core.y0 <= peak_y) & (peak_y < core.y1) & (core.x0 <= peak_x) & (peak_x < core.x1)
    mine &= (area > 0) & (snr >= min_snr)
    mx, my, xx, yy, xy = _moments(sums)
    x = np.where(np.isfinite(mx), mx + origin[:, 1] + window.x0, peak_x)
    y = np.where(np.isfinite(my), my + origin[:, 0] + window.y0, peak_y)
    new = np.zeros(n + 1, np.int32)
    new[1:][mine] = np.arange(1, mine.sum() + 1)
    pixels, kept = np.empty(area[mine].sum(), np.int64), np.empty(area[mine].sum(), np.int32)
    _gather(labels, new, window.y0, window.x0, columns, pixels, kept)
    return WindowSources(
        x=x[mine], y=y[mine],
        xx=xx[mine], yy=yy[mine], xy=xy[mine],
        snr=snr[mine], peak=peak[mine], area=area[mine],
        group=peak[best[group]][mine] if n else peak[mine],
        group_size=size[group][mine], truncated=torn[group][mine],
        pixels=pixels,
        labels=kept,
    )  # fmt: skip


def _moments(sums: Float64) -> tuple[Float64, Float64, Float64, Float64, Float64]:
    """Barycentres relative to the first pixel, and second moments, from raw sums.

    Where light is missing (a sum that is not positive) the barycentre is NaN. Moments that
    describe no ellipse get 1/12 pixel² added, as SExtractor does for singular profiles, or
    become those of one round pixel.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
        mx, my = sums[:, 1] / total, sums[:, 2] / total
        xx, yy = sums[:, 3] / total - mx * mx, sums[:, 4] / total - my * my
        xy = sums[:, 5] / total - mx * my
        poor = ~np.isfinite(xx + yy + xy)
        mx, my = np.where(poor, np.nan, mx), np.where(poor, np.nan, my)
        singular = xx * yy - xy * xy < 1 / 144
        xx = np.where(singular, np.maximum(xx, 0) + 1 / 12, xx)
        yy = np.where(singular, np.maximum(yy, 0) + 1 / 12, yy)
        poor |= (xx <= 0) | (yy <= 0) | (xx * yy - xy * xy < 1 / 288)
    one = np.where(poor, 1 / 12, 0.0)
    return mx, my, np.where(poor, one, xx), np.where(poor, one, yy), np.where(poor, 0.0, xy)
