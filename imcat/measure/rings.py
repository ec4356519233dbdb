"""Light and its variance in rings around sources, of one exposure and of several together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.measure.errors import ellipse_lag_sum
from imcat.measure.pixels import _fetch, _rim_coverage
from imcat.measure.views import View

__all__ = ["circle_sums", "mean_rings", "ring_sums"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_GOOD_OR_REPLACED = 1  # states of pixels up to this have a value, see `imcat.measure.pixels`
_FLAT = 6.0  # pixels: larger circles are straight within a pixel, as in `imcat.measure.pixels`


@njit(cache=True, nogil=True)
def ring_sums(data, variance, owner, label, mode, x, y, radii, first, last, out):  # type: ignore[no-untyped-def]
    """Add up the pixels in rings around each source.

    Parameters
    ----------
    data, variance, owner, label, mode, x, y
        As in `imcat.measure.pixels.centroid_sums`.
    radii : float64 array [n, m]
        Outer radii of the rings, rising, native pixels; the first ring begins at the centre.
    first, last : int64 arrays [n]
        Rings ``first`` to ``last - 1`` are measured.
    out : float64 array [n, m, 5]
        Those rings are filled with the sums of flux, of squared coverage times variance, of coverage times
        variance, of the coverage that has a value, and of all coverage.
    """
    for k in range(x.size):
        own = label[k]
        low, high = first[k], last[k]
        if high <= low:
            continue
        for ring in range(low, high):
            for i in range(5):
                out[k, ring, i] = 0.0
        outer = radii[k, high - 1]
        inner = radii[k, low - 1] if low > 0 else 0.0
        if not math.isfinite(x[k] + y[k] + outer):
            continue
        nearest = max(inner - 0.71, 0.0) ** 2
        top, bottom = int(math.ceil(y[k] - outer - 0.5)), int(math.floor(y[k] + outer + 0.5))
        for iy in range(top, bottom + 1):
            dy = iy - y[k]
            half = math.sqrt(max((outer + 0.71) ** 2 - dy * dy, 0.0))
            for ix in range(int(math.ceil(x[k] - half)), int(math.floor(x[k] + half)) + 1):
                dx = ix - x[k]
                r2 = dx * dx + dy * dy
                if r2 < nearest:
                    continue
                r = math.sqrt(r2)
                # The first ring whose outer radius reaches into the pixel, by bisection.
                a, b = low, high
                while a < b:
                    middle = (a + b) // 2
                    if radii[k, middle] <= r - 0.71:
                        a = middle + 1
                    else:
                        b = middle
                if a == high:
                    continue
                value, noise, state = _fetch(data, variance, owner, own, mode, x[k], y[k], ix, iy)
                before = 0.0
                if a == low and low > 0 and inner > r - 0.71:
                    before = _cover(inner, r, dx, dy)
                for ring in range(a, high):
                    cover = _cover(radii[k, ring], r, dx, dy)
                    share = cover - before
                    before = cover
                    if share > 0.0:
                        out[k, ring, 4] += share
                        if state <= _GOOD_OR_REPLACED:
                            out[k, ring, 0] += share * value
                            out[k, ring, 1] += share * share * noise
                            out[k, ring, 2] += share * noise
                            out[k, ring, 3] += share
                    if cover >= 1.0:
                        break


@njit(cache=True, nogil=True, inline="always")
def _cover(radius, r, dx, dy):  # type: ignore[no-untyped-def]
    """Share of a pixel within a circle."""
    if r >= radius + 0.71:
        return 0.0
    if r <= radius - 0.71:
        return 1.0
    return _rim_coverage(1.0, 1.0, 0.0, radius, radius > _FLAT, dx, dy)


def mean_rings(
    views: Sequence[View],
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    radius: Float64,
    active: Int64,
    begin: Int64,
    end: Int64,
) -> tuple[Float64, Float64]:
    """Flux and variance of rings of some sources: the mean of the exposures, weighted by their noise."""
    shape = (active.size, radius.size)
    flux, variance, weight = np.zeros(shape), np.zeros(shape), np.zeros((active.size, 1))
    for whole in views:
        view = whole.take(active)
        x, y = view.shifted(dx[active], dy[active])
        sums = np.zeros((*shape, 5))
        cut = view.cutout
        radii = np.ascontiguousarray(radius[None, :] / view.arcsec[:, None])
        ring_sums(
            cut.data, cut.variance, view.owner, label[active], mode, x, y, radii, begin, end, sums
        )  # fmt: skip
        f, white, _, _ = _filled(sums)
        noise = view.layer.noise
        # Rings are much wider than the lags of the noise, or hold next to no noise at all.
        v = white * noise.covariance.total
        gain = view.layer.exposure.gain
        if gain is not None:
            v += np.maximum(f, 0) / gain
        w = _exposure_weight(view)[:, None]
        flux += w * f
        variance += w**2 * v
        weight += w
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(flux / weight), np.nan_to_num(variance / weight**2)


def circle_sums(
    views: Sequence[View],
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    radius: Float64,
    rings: int,
) -> tuple[Float64, Float64]:
    """Flux and variance of one band within circles, from ``1 / rings`` of a radius (arcsec) to all of it, ``[n, rings]``.

    Exposures are averaged with the inverse variance of the whole circle; NaN outside of all.
    """
    n = label.size
    total, weight = np.zeros((n, rings)), np.zeros((n, 1))
    squares = np.zeros((n, rings))
    for view in views:
        x, y = view.shifted(dx, dy)
        share = np.arange(1, rings + 1) / rings
        radii = np.ascontiguousarray(share[None, :] * (radius / view.arcsec)[:, None])
        sums = np.zeros((n, rings, 5))
        cut = view.cutout
        ring_sums(
            cut.data, cut.variance, view.owner, label, mode, x, y, radii,
            np.zeros(n, np.int64), np.full(n, rings), sums,
        )  # fmt: skip
        flux, white, spread, area = (np.cumsum(a, axis=1) for a in _filled(sums))
        variance = _circle_variance(view, radii, flux, white, spread, area)
        with np.errstate(invalid="ignore", divide="ignore"):
            w = np.where(view.inside & (variance[:, -1] > 0), 1 / variance[:, -1], 0.0)[:, None]
        total += np.where(w > 0, w * flux, 0.0)
        squares += np.where(w > 0, w**2 * variance, 0.0)
        weight += w
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / weight, squares / weight**2


def _exposure_weight(view: View) -> Float64:
    """Inverse variance of the surface brightness, 0 for sources outside of the exposure."""
    noise = view.layer.noise
    weight = view.arcsec**2 / (noise.rms**2 * noise.covariance.total)
    return np.where(view.inside, weight, 0.0)


def _filled(sums: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """Flux of rings, variance of independent pixels, the same with coverage not squared, and area.

    Pixels without a value get the mean of their ring.
    """
    flux, white, spread, used, area = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(used > 0, area / used, 0.0)
    return flux * factor, white * factor**2, spread * factor**2, area


def _circle_variance(
    view: View, radii: Float64, flux: Float64, white: Float64, spread: Float64, area: Float64
) -> Float64:
    """Variance of the flux in circles: sky and detector with their covariance, sky level, Poisson noise."""
    noise, gain = view.layer.noise, view.layer.exposure.gain
    form = np.tile([1.0, 1.0, 0.0], (radii.shape[0], 1))
    lags = np.stack([ellipse_lag_sum(noise.covariance, form, r) for r in radii.T], axis=1)
    variance = np.maximum(white + spread * lags, 0.05 * white) + area**2 * noise.level_variance
    return variance if gain is None else variance + np.maximum(flux, 0) / gain
