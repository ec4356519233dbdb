"""The width of the PSF from the stars of an image."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.psf.mixture import PIXEL_VARIANCE

__all__ = ["FWHM_PER_SIGMA", "half_sample_mode", "star_widths"]

Float64 = NDArray[np.float64]

#: FWHM of a Gaussian in units of its standard deviation.
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))

# Ellipticity (a² - b²) / (a² + b²) of the weighted image above which a peak is no star: 0.1 is that of a PSF
# with 0.2, a line as wide as the PSF has 0.33, and a satellite trail has as many peaks as a field has stars.
_LONG = 0.2


@njit(cache=True, nogil=True)
def _peaks(data, level, saturated, bad, reach, rows, columns):  # type: ignore[no-untyped-def]
    """Highest pixels of their surroundings, above a level and not saturated."""
    found = 0
    for y in range(reach, data.shape[0] - reach):
        for x in range(reach, data.shape[1] - reach):
            v = data[y, x]
            if v < level:
                continue
            peak = True
            for dy in range(-3, 4):
                for dx in range(-3, 4):
                    w = data[y + dy, x + dx]
                    if w > v or (w == v and (dy < 0 or (dy == 0 and dx < 0))):
                        peak = False
                        break
                if not peak:
                    break
            if not peak:
                continue
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if saturated[y + dy, x + dx] or bad[y + dy, x + dx]:
                        peak = False
            if peak and found < rows.size:
                rows[found], columns[found] = y, x
                found += 1
    return found


@njit(cache=True, nogil=True)
def _gaussian_widths(data, rows, columns, count, reach, start, sigma, signal):  # type: ignore[no-untyped-def]
    """Standard deviation of the round Gaussian that matches each source's own moments."""
    for k in range(count):
        cy, cx, s2 = float(rows[k]), float(columns[k]), start * start
        good = True
        total, round_off = 0.0, 0.0
        for _ in range(30):
            # As in `imcat.psf.star_select`: the light of a pixel is spread over it.
            wide = s2 + PIXEL_VARIANCE
            seen = s2 / wide
            total, mx, my, m2, plus, cross = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    y, x = rows[k] + dy, columns[k] + dx
                    ex, ey = x - cx, y - cy
                    r2 = ex * ex + ey * ey
                    w = math.exp(-0.5 * r2 / wide) * data[y, x]
                    total += w
                    mx += w * ex
                    my += w * ey
                    m2 += w * r2
                    plus += w * (ex * ex - ey * ey)
                    cross += 2 * w * ex * ey
            if total <= 0:
                good = False
                break
            step_x, step_y = 2 * seen * mx / total, 2 * seen * my / total
            cx += step_x
            cy += step_y
            # A Gaussian weighted with itself has half of its own second moment.
            new = seen * seen * m2 / total + 2 * PIXEL_VARIANCE * seen
            if not 0.05 < new < reach * reach or abs(cx - columns[k]) > 2 or abs(cy - rows[k]) > 2:
                good = False
                break
            round_off = math.hypot(plus, cross) / m2
            done = abs(new - s2) < 1e-4 * s2 and abs(step_x) + abs(step_y) < 1e-3
            s2 = new
            if done:
                break
        sigma[k] = (
            math.sqrt(s2 - PIXEL_VARIANCE) if good and s2 > PIXEL_VARIANCE and round_off < _LONG else np.nan
        )
        signal[k] = total


def star_widths(
    data: NDArray[np.float32],
    rms: float,
    saturated: NDArray[np.bool_],
    bad: NDArray[np.bool_],
    min_snr: float = 20.0,
    limit: int = 2000,
) -> Float64:
    """Widths of the compact, bright, unsaturated sources of an image.

    Parameters
    ----------
    data : float32 array [y, x]
        Sky-subtracted image.
    rms : float
        Noise of a pixel, in the image's unit.
    saturated, bad : bool arrays [y, x]
        Sources near such pixels are left out.
    min_snr : float
        Smallest height of the peak pixel in units of `rms`.
    limit : int
        Largest number of sources.

    Returns
    -------
    float64 array [n]
        Standard deviation in pixels of the round Gaussian whose moments, weighted with
        itself, are those of the source (adaptive moments, Bernstein & Jarvis 2002, AJ 123, 583).
    """
    reach = 10
    rows, columns = np.zeros(limit, np.int64), np.zeros(limit, np.int64)
    if min(data.shape) <= 2 * reach:
        return np.empty(0)
    count = _peaks(data, min_snr * rms, saturated, bad, reach, rows, columns)
    sigma, signal = np.full(limit, np.nan), np.zeros(limit)
    _gaussian_widths(data, rows, columns, count, reach, 1.5, sigma, signal)
    widths = sigma[:count]
    return np.asarray(widths[np.isfinite(widths)])


def half_sample_mode(values: Float64) -> float:
    """The mode of a sample by repeated halving of its densest part.

    Bickel & Frühwirth (2006), Computational Statistics & Data Analysis 50, 3500.

    Parameters
    ----------
    values : float64 array [n]
        At least one number.

    Examples
    --------
    >>> import numpy as np
    >>> half_sample_mode(np.array([1.0, 1.1, 1.2, 5.0, 9.0]))
    1.15
    """
    part = np.sort(np.asarray(values, dtype=float))
    while part.size > 3:
        half = -(-part.size // 2)
        start = int(np.argmin(part[half - 1 :] - part[: part.size - half + 1]))
        part = part[start : start + half]
    if part.size == 3:
        part = part[:2] if part[1] - part[0] < part[2] - part[1] else part[1:]
    return round(float(part.mean()), 12)
