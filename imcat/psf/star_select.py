"""Which sources of an image are stars fit to measure its PSF."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.psf.mixture import PIXEL_VARIANCE
from imcat.psf.width import FWHM_PER_SIGMA

__all__ = ["Moments", "crowding", "measure_moments", "seen_sigma", "select_stars"]

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_WINDOW = 0.05  # half-width, of the logarithm of the size: stars of one image scatter less, galaxies far more
_REACH = 10  # pixels around a source in which its moments are taken
_FEWEST = 3  # sources of which a locus can be told
_STEPS = 4  # of clipping the locus
_PHASE, _MOST_PHASE = 2.2, 0.25  # of `phase_scatter`
_NARROWEST = 0.01  # pixels²: of what lights a single pixel
# How far, in the logarithm, the width that the image is known to have is believed: a seeing as a header states it may be
# another band's or a mean over the night, small galaxies are twice as wide as a sharp PSF.
_BELIEF = 0.35


@dataclass(frozen=True, eq=False)
class Moments:
    """Adaptive moments of sources, arrays ``[n]``; NaN where they could not be measured.

    Attributes
    ----------
    x, y : float64 array
        Centroid, pixels.
    xx, xy, yy : float64 array
        Covariance of the elliptical Gaussian whose moments, weighted with itself, are those of the
        source (Bernstein & Jarvis 2002, AJ 123, 583), pixels². The light of each pixel is taken to be spread over
        it, and its variance taken off again: else stars narrower than 1.3 pixels would have no such Gaussian.
    flux : float64 array
        Of that Gaussian, in the image's unit.
    snr : float64 array
        Signal-to-noise ratio of `flux` for a given noise of a pixel.
    lost : float64 array
        Number of bad pixels in the core (2.5 standard deviations of the first guess around it).
    """

    x: Float64
    y: Float64
    xx: Float64
    xy: Float64
    yy: Float64
    flux: Float64
    snr: Float64
    lost: Float64

    @property
    def size(self) -> Float64:
        """Standard deviation of the round Gaussian of the same area, pixels."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.maximum(self.xx * self.yy - self.xy**2, 0.0) ** 0.25)

    @property
    def ellipticity(self) -> tuple[Float64, Float64]:
        """``(xx - yy) / (xx + yy)`` and ``2 xy / (xx + yy)``."""
        total = self.xx + self.yy
        return (self.xx - self.yy) / total, 2 * self.xy / total


def seen_sigma(fwhm: float) -> float:
    """Standard deviation of a star with a PSF of that FWHM before the pixel, about; pixels."""
    return math.sqrt((fwhm / FWHM_PER_SIGMA) ** 2 + PIXEL_VARIANCE)


def phase_scatter(fwhm: float) -> float:
    """Scatter of the logarithm of the sizes of stars of a sharp image with where they lie in their pixel, about.

    What a raster of pixels confuses of a Gaussian seen through itself falls off as exp(-π² σ²), its Fourier amplitude at
    the frequency of the pixels; the factor is that of `measure_moments` on Gaussians of 0.5 to 0.9 pixels.
    """
    return min(_PHASE * math.exp(-((math.pi * fwhm / FWHM_PER_SIGMA) ** 2)), _MOST_PHASE)


@njit(cache=True, nogil=True)
def _adaptive(data, bad, x, y, start, reach, out):  # type: ignore[no-untyped-def]
    """Fill ``out[n, 8]``: x, y, xx, xy, yy, flux, bad pixels in the core, 1 if converged."""
    rows, columns = data.shape
    for i in range(x.size):
        cx, cy, xx, xy, yy = x[i], y[i], start * start, 0.0, start * start
        x0, y0 = int(math.floor(cx + 0.5)), int(math.floor(cy + 0.5))
        out[i, 7] = 0.0
        if x0 < reach or y0 < reach or x0 >= columns - reach or y0 >= rows - reach:
            continue
        core = min(int(math.ceil(2.5 * start)), reach)
        out[i, 6] = 0.0
        for v in range(y0 - core, y0 + core + 1):
            for u in range(x0 - core, x0 + core + 1):
                if bad[v, u]:
                    out[i, 6] += 1.0
        good, flux = False, 0.0
        for _ in range(60):
            # Light lies anywhere in its pixel, with a variance of 1/12. A weight that knew it at the centres would shrink
            # to a point on stars of a sharp image.
            wxx, wyy = xx + PIXEL_VARIANCE, yy + PIXEL_VARIANCE
            det = wxx * wyy - xy * xy
            ixx, ixy, iyy = wyy / det, -xy / det, wxx / det
            s, sx, sy, sxx, sxy, syy, ww = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            # The box around the ellipse of five standard deviations.
            half_x, half_y = 5 * math.sqrt(wxx), 5 * math.sqrt(wyy)
            left, right = max(x0 - reach, int(cx - half_x)), min(x0 + reach, int(cx + half_x) + 1)
            low, high = max(y0 - reach, int(cy - half_y)), min(y0 + reach, int(cy + half_y) + 1)
            for v in range(low, high + 1):
                for u in range(left, right + 1):
                    ex, ey = u - cx, v - cy
                    r2 = ixx * ex * ex + 2 * ixy * ex * ey + iyy * ey * ey
                    if r2 > 25.0 or bad[v, u]:
                        continue
                    g = math.exp(-0.5 * r2)
                    w = g * data[v, u]
                    s += w
                    ww += g * g
                    sx += w * ex
                    sy += w * ey
                    sxx += w * ex * ex
                    sxy += w * ex * ey
                    syy += w * ey * ey
            good = False
            if s <= 0:
                break
            # Of the light of a pixel at e, seen through the weight C: mean A e, covariance A / 12, with A = C (C + 1/12)⁻¹.
            axx, axy, ayy = xx * ixx + xy * ixy, xx * ixy + xy * iyy, xy * ixy + yy * iyy
            mx, my = (axx * sx + axy * sy) / s, (axy * sx + ayy * sy) / s
            vxx = (axx * axx * sxx + 2 * axx * axy * sxy + axy * axy * syy) / s + PIXEL_VARIANCE * axx
            vyy = (axy * axy * sxx + 2 * axy * ayy * sxy + ayy * ayy * syy) / s + PIXEL_VARIANCE * ayy
            vxy = (axx * axy * sxx + (axx * ayy + axy * axy) * sxy + axy * ayy * syy) / s
            vxy += PIXEL_VARIANCE * axy
            cx += 2 * mx
            cy += 2 * my
            # A Gaussian weighted with itself has half of its own second moments.
            nxx, nxy, nyy = 2 * (vxx - mx * mx), 2 * (vxy - mx * my), 2 * (vyy - my * my)
            if abs(cx - x[i]) > 3 or abs(cy - y[i]) > 3 or not (0.05 < nxx < 60 and 0.05 < nyy < 60):
                break
            if not nxx * nyy > nxy * nxy:
                break
            change = abs(nxx - xx) + abs(nyy - yy) + abs(nxy - xy)
            xx, xy, yy = nxx, nxy, nyy
            flux = s / ww
            # Stars of the sharpest images are slow to settle, and hardly move any more.
            good = change < 1e-2 * (xx + yy)
            if change < 1e-5 * (xx + yy):
                break
        if good:
            out[i, 5] = flux * 2 * math.pi * math.sqrt(xx * yy - xy * xy)
            # Less what the pixel was taken to add.
            xx, yy = max(xx - PIXEL_VARIANCE, _NARROWEST), max(yy - PIXEL_VARIANCE, _NARROWEST)
            out[i, 0], out[i, 1], out[i, 2], out[i, 3], out[i, 4] = cx, cy, xx, xy, yy
            out[i, 7] = 1.0


def measure_moments(
    data: NDArray[np.float32],
    bad: Bools,
    x: Float64,
    y: Float64,
    rms: float,
    start: float = 1.5,
    min_snr: float = 0.0,
    wanted: Bools | None = None,
) -> Moments:
    """Adaptive moments of sources at known places.

    Parameters
    ----------
    data : float32 array, ``[y, x]``
        Sky-subtracted image.
    bad : bool array, ``[y, x]``
        Pixels to leave out.
    x, y : float64 array, ``[n]``
        Pixels.
    rms : float
        Noise of a pixel.
    start : float
        First guess of the PSF's standard deviation, pixels.
    min_snr : float
        Sources whose peak is too low for a star of half that signal-to-noise ratio are left out, to save time.
    wanted : bool array, ``[n]``, optional
        Of the others there is a flux, from the height of their peaks, and no more.
    """
    out = np.zeros((len(x), 8))
    inside = np.isfinite(x) & np.isfinite(y)
    peak = _peak(data, bad, x, y)
    # A Gaussian of S/N s has a peak of s rms / (2 sqrt(pi) sigma), less what a pixel off its centre loses.
    bright = inside & (peak > 0.5 * min_snr * rms / (2 * np.sqrt(np.pi) * start))
    inside = bright if wanted is None else bright & wanted
    _adaptive(data, bad, np.where(inside, x, -1.0), np.where(inside, y, -1.0), float(start), _REACH, out)
    good = out[:, 7] > 0
    values = np.where(good[:, None], out[:, :6], np.nan)
    with np.errstate(invalid="ignore"):
        area = 4 * np.pi * np.sqrt(np.maximum(values[:, 2] * values[:, 4] - values[:, 3] ** 2, 1e-3))
        snr = values[:, 5] / (rms * np.sqrt(area))
    x_own, y_own, xx, xy, yy, flux = values.T
    if wanted is not None:
        rough = np.where(np.isfinite(peak), peak, 0.0) * 2 * np.pi * start**2
        flux = np.where(bright & ~wanted, rough, flux)
    return Moments(x_own, y_own, xx, xy, yy, flux, np.where(good, snr, 0.0), out[:, 6])


def _peak(data: NDArray[np.float32], bad: Bools, x: Float64, y: Float64) -> Float64:
    """Highest of the nine pixels at each place; infinite if one of them is bad, as saturated ones are."""
    rows, columns = data.shape
    column = np.clip(np.rint(np.nan_to_num(x, nan=-1.0)), 0, columns - 1).astype(np.int64)
    row = np.clip(np.rint(np.nan_to_num(y, nan=-1.0)), 0, rows - 1).astype(np.int64)
    highest = np.full(len(x), -np.inf)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            at = np.clip(row + dy, 0, rows - 1), np.clip(column + dx, 0, columns - 1)
            highest = np.maximum(highest, np.where(bad[at], np.inf, data[at]))
    return highest


def crowding(x: Float64, y: Float64, flux: Float64, radius: float) -> Float64:
    """Flux of the neighbours of each source relative to its own.

    A neighbour counts with ``1 - (d / radius)²`` squared, so that one at the edge counts little.

    Parameters
    ----------
    x, y : float64 array, ``[n]``
        Pixels.
    flux : float64 array, ``[n]``
        Any unit; what is not positive counts nothing.
    radius : float
        Pixels.
    """
    from scipy.spatial import cKDTree

    place = np.isfinite(x) & np.isfinite(y) & np.isfinite(flux) & (flux > 0)
    index = np.flatnonzero(place)
    result = np.zeros(len(x))
    if index.size < 2:
        return np.where(place, result, np.inf)
    pairs = cKDTree(np.stack([x[index], y[index]], axis=1)).query_pairs(radius, output_type="ndarray")
    a, b = index[pairs[:, 0]], index[pairs[:, 1]]
    near = (1 - ((x[a] - x[b]) ** 2 + (y[a] - y[b]) ** 2) / radius**2) ** 2
    np.add.at(result, a, near * flux[b])
    np.add.at(result, b, near * flux[a])
    return np.where(place, result / np.where(place, flux, 1.0), np.inf)


def _densest(values: Float64, window: float, expected: float | None) -> float:
    """Middle of the window of that half-width that stands out most; of equals, the lowest.

    A window counts for what it holds more than the two beside it: stars are few at one size, with a gap between them and
    the galaxies, which crowd at no size in particular.
    """
    ordered = np.sort(values)
    near, far = (
        np.searchsorted(ordered, ordered + reach, "right") - np.searchsorted(ordered, ordered - reach)
        for reach in (window, 3 * window)
    )
    score = np.maximum(near - 0.5 * (far - near), 0.1 * near)
    if expected is not None:
        score = score * np.exp(-0.5 * ((ordered - expected) / _BELIEF) ** 2)
    best = ordered[int(np.argmax(score))]
    return float(np.median(ordered[np.abs(ordered - best) <= window]))


def select_stars(
    x: Float64,
    y: Float64,
    size: Float64,
    snr: Float64,
    usable: Bools,
    *,
    min_snr: float = 40.0,
    width: float = 3.0,
    floor: float = 0.012,
    fwhm: float | None = None,
) -> Bools:
    """Stars by their size: the part of the sizes that stands out, followed over the image.

    Galaxies are larger than the PSF, cosmic rays smaller, and both at any size, while stars share one
    that changes smoothly over the image. So where the logarithm of the size has its narrowest heap is a good first guess
    even where stars are a minority, the better where the width of the image is about known. Around it a polynomial
    (none, linear, or quadratic in x and y, as the number of stars allows) is fitted and clipped in turn.

    Parameters
    ----------
    x, y : float64 array, ``[n]``
        Pixels.
    size : float64 array, ``[n]``
        A radius, half-light or from moments, any unit; NaN where unknown.
    snr : float64 array, ``[n]``
        Signal-to-noise ratio of the flux.
    usable : bool array, ``[n]``
        False for what is saturated, blended, beside bad pixels.
    min_snr : float
        Smallest signal-to-noise ratio.
    width : float
        Half-width of the locus in units of its own scatter and the error of the size.
    floor : float
        Smallest scatter that is believed, as a fraction of the size.
    fwhm : float, optional
        About that of the PSF, pixels; `size` is then the standard deviation of a Gaussian in pixels.

    Returns
    -------
    bool array, ``[n]``
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        good = usable & np.isfinite(size) & (size > 0) & (snr >= min_snr)
        log = np.log(size)
        phase = 0.0 if fwhm is None else phase_scatter(fwhm)
        # Of the size of a Gaussian that is fitted to white noise: 1 / snr.
        error = np.hypot(math.hypot(floor, phase), 1.0 / snr)
    if good.sum() < _FEWEST:
        return good & False
    expected = None if fwhm is None else math.log(seen_sigma(fwhm))
    centre, spread = _densest(log[good], max(_WINDOW, phase), expected), max(0.12, 2 * phase)
    level = np.full(len(x), centre)
    star = good & (np.abs(log - level) < spread)
    span = max(float(np.ptp(x[good])), float(np.ptp(y[good])), 1.0)
    u, v = (x - x[good].mean()) / span, (y - y[good].mean()) / span
    for _ in range(_STEPS):
        count = int(star.sum())
        if count < _FEWEST:
            break
        terms = [np.ones_like(u)]
        terms += [u, v] if count >= 12 else []
        terms += [u * u, u * v, v * v] if count >= 30 else []
        design = np.stack(terms, axis=1)
        weight = 1 / error[star]
        fit, *_ = np.linalg.lstsq(design[star] * weight[:, None], log[star] * weight, rcond=None)
        level = design @ fit
        with np.errstate(invalid="ignore", divide="ignore"):  # sources without a size are not good
            offset = np.abs(log - level) / error
        scatter = max(1.0, 1.4826 * float(np.median(offset[star])))
        star = good & (offset < width * scatter)
    return np.asarray(star)
