"""Sums over the pixels around each source: the inner loops of all photometry.

Every kernel runs over the sources of one window of one exposure. A source's
pixels are those of the native grid; which source a pixel belongs to is looked
up in the footprints, which live on the reference grid.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "MASK",
    "MIRROR",
    "NONE",
    "annulus_median",
    "aperture_sums",
    "centroid_sums",
    "growth_sums",
    "radial_moment",
]

#: What happens to pixels of neighbours and to bad pixels.
NONE, MASK, MIRROR = 0, 1, 2

_GOOD, _REPLACED, _LOST, _OUTSIDE = 0, 1, 2, 3
_SLICES = 8  # of a pixel on the rim of an aperture
_PARTS = 3  # of a pixel in the growth curve, in either direction, where rings are narrow


@njit(cache=True, nogil=True, inline="always")
def _owner(labels, affine, ix, iy):  # type: ignore[no-untyped-def]
    """Label of the reference pixel nearest to a native one."""
    dx, dy = ix - affine[0], iy - affine[1]
    rx = int(math.floor(affine[2] + affine[4] * dx + affine[5] * dy + 0.5))
    ry = int(math.floor(affine[3] + affine[6] * dx + affine[7] * dy + 0.5))
    if 0 <= ry < labels.shape[0] and 0 <= rx < labels.shape[1]:
        return labels[ry, rx]
    return 0


@njit(cache=True, nogil=True, inline="always")
def _usable(bad, labels, affine, label, mode, ix, iy):  # type: ignore[no-untyped-def]
    if iy < 0 or ix < 0 or iy >= bad.shape[0] or ix >= bad.shape[1] or bad[iy, ix]:
        return False
    if mode == NONE:
        return True
    owner = _owner(labels, affine, ix, iy)
    return owner == 0 or owner == label


@njit(cache=True, nogil=True, inline="always")
def _fetch(data, variance, bad, labels, affine, label, mode, cx, cy, ix, iy):  # type: ignore[no-untyped-def]
    """Value, variance and state of a pixel after neighbours and bad pixels were dealt with."""
    if iy < 0 or ix < 0 or iy >= data.shape[0] or ix >= data.shape[1]:
        return 0.0, 0.0, _OUTSIDE
    if _usable(bad, labels, affine, label, mode, ix, iy):
        return float(data[iy, ix]), float(variance[iy, ix]), _GOOD
    if mode != MASK:
        mx, my = int(math.floor(2 * cx - ix + 0.5)), int(math.floor(2 * cy - iy + 0.5))
        if _usable(bad, labels, affine, label, mode, mx, my):
            return float(data[my, mx]), float(variance[my, mx]), _REPLACED
    return 0.0, 0.0, _LOST


@njit(cache=True, nogil=True)
def centroid_sums(data, variance, bad, labels, affine, label, mode, x, y, sigma, out):  # type: ignore[no-untyped-def]
    """Gaussian-weighted first moments about given positions.

    Parameters
    ----------
    data, variance : float32 arrays [y, x]
        One window of an exposure; ``bad`` (bool) marks pixels without information.
    labels : int32 array [y, x]
        Footprints on the reference grid.
    affine : float64 array [n, 8]
        Native position, reference position within `labels`, and the matrix from native to
        reference offsets (row by row) of each source.
    label : int64 array [n]
        Label of each source.
    mode : int
        `NONE`, `MASK` or `MIRROR`.
    x, y, sigma : float64 arrays [n]
        Position within the window and standard deviation of the weight, native pixels.
    out : float64 array [n, 5]
        Filled with the weighted sums of flux, of flux times offset in x and in y, of flux times
        squared distance, and of variance times squared weight.
    """
    for k in range(x.size):
        here, own = affine[k], label[k]  # a slice inside the loops over pixels would cost more than they do
        s, sx, sy, second, v = 0.0, 0.0, 0.0, 0.0, 0.0
        if math.isfinite(x[k] + y[k] + sigma[k]):
            reach = 4 * sigma[k]
            inverse = 0.5 / (sigma[k] * sigma[k])
            for iy in range(int(math.ceil(y[k] - reach)), int(math.floor(y[k] + reach)) + 1):
                for ix in range(int(math.ceil(x[k] - reach)), int(math.floor(x[k] + reach)) + 1):
                    dx, dy = ix - x[k], iy - y[k]
                    r2 = dx * dx + dy * dy
                    if r2 > reach * reach:
                        continue
                    value, noise, state = _fetch(
                        data, variance, bad, labels, here, own, mode, x[k], y[k], ix, iy
                    )
                    if state > _REPLACED:
                        continue
                    w = math.exp(-r2 * inverse)
                    s += w * value
                    sx += w * value * dx
                    sy += w * value * dy
                    second += w * value * r2
                    v += w * w * noise
        out[k, 0], out[k, 1], out[k, 2], out[k, 3], out[k, 4] = s, sx, sy, second, v


@njit(cache=True, nogil=True)
def radial_moment(data, variance, bad, labels, affine, label, mode, x, y, form, search, out):  # type: ignore[no-untyped-def]
    """Add up flux, and flux times elliptical radius, inside an ellipse.

    Parameters
    ----------
    form : float64 array [n, 3]
        Quadratic form of each ellipse in native pixels: ``q0 dx² + q1 dy² + q2 dx dy = r²``.
    search : float64 array [n]
        Elliptical radius of the region.
    out : float64 array [n, 2]
        Filled with the sums of flux times radius and of flux.

    Notes
    -----
    The other parameters are those of `centroid_sums`.
    """
    for k in range(x.size):
        here, own = affine[k], label[k]
        first, total = 0.0, 0.0
        half_x, half_y = _half_box(form[k], search[k])
        if math.isfinite(x[k] + y[k] + half_x + half_y):
            for iy in range(int(math.ceil(y[k] - half_y)), int(math.floor(y[k] + half_y)) + 1):
                for ix in range(int(math.ceil(x[k] - half_x)), int(math.floor(x[k] + half_x)) + 1):
                    dx, dy = ix - x[k], iy - y[k]
                    r2 = form[k, 0] * dx * dx + form[k, 1] * dy * dy + form[k, 2] * dx * dy
                    if r2 > search[k] * search[k]:
                        continue
                    value, _, state = _fetch(data, variance, bad, labels, here, own, mode, x[k], y[k], ix, iy)
                    if state <= _REPLACED:
                        first += math.sqrt(r2) * value
                        total += value
        out[k, 0], out[k, 1] = first, total


@njit(cache=True, nogil=True)
def growth_sums(data, variance, bad, labels, affine, label, mode, x, y, form, limit, out):  # type: ignore[no-untyped-def]
    """Flux in elliptical rings of equal width out to a limit; parameters as `radial_moment`.

    Parameters
    ----------
    limit : float64 array [n]
        Elliptical radius of the outermost ring.
    out : float64 array [n, rings]
        Filled.
    """
    rings = out.shape[1]
    for k in range(x.size):
        here, own = affine[k], label[k]
        out[k, :] = 0
        half_x, half_y = _half_box(form[k], limit[k])
        if not math.isfinite(x[k] + y[k] + half_x + half_y):
            continue
        q0, q1, q2 = form[k, 0], form[k, 1], form[k, 2]
        parts = _PARTS if min(half_x, half_y) < rings else 1
        margin = 0.71 * math.sqrt(0.5 * (q0 + q1) + math.sqrt(0.25 * (q0 - q1) ** 2 + 0.25 * q2 * q2))
        for iy in range(int(math.ceil(y[k] - half_y - 0.5)), int(math.floor(y[k] + half_y + 0.5)) + 1):
            for ix in range(int(math.ceil(x[k] - half_x - 0.5)), int(math.floor(x[k] + half_x + 0.5)) + 1):
                cx, cy = ix - x[k], iy - y[k]
                if q0 * cx * cx + q1 * cy * cy + q2 * cx * cy > (limit[k] + margin) ** 2:
                    continue
                value, _, state = _fetch(data, variance, bad, labels, here, own, mode, x[k], y[k], ix, iy)
                if state > _REPLACED:
                    continue
                value /= parts * parts
                for j in range(parts):
                    dy = cy + (j + 0.5) / parts - 0.5
                    for i in range(parts):
                        dx = cx + (i + 0.5) / parts - 0.5
                        r2 = q0 * dx * dx + q1 * dy * dy + q2 * dx * dy
                        ring = int(math.sqrt(max(r2, 0.0)) / limit[k] * rings)
                        if ring < rings:
                            out[k, ring] += value


@njit(cache=True, nogil=True, inline="always")
def _half_box(form, radius):  # type: ignore[no-untyped-def]
    """Half width and height of the box around an ellipse of a quadratic form."""
    determinant = form[0] * form[1] - 0.25 * form[2] * form[2]
    if not determinant > 0:
        return math.nan, math.nan
    return radius * math.sqrt(form[1] / determinant), radius * math.sqrt(form[0] / determinant)


@njit(cache=True, nogil=True)
def _coverage(q0, q1, q2, radius, dx, dy):  # type: ignore[no-untyped-def]
    """Fraction of the pixel at an offset that an ellipse covers.

    Rim pixels are cut into slices, each covered from one root of the ellipse's equation to the
    other; the area is exact in y and second-order in x, and continuous in the position.
    """
    centre = math.sqrt(max(q0 * dx * dx + q1 * dy * dy + q2 * dx * dy, 0.0))
    steepest = math.sqrt(0.5 * (q0 + q1) + math.sqrt(0.25 * (q0 - q1) ** 2 + 0.25 * q2 * q2))
    change = steepest * 0.70710678118654752
    if centre + change <= radius:
        return 1.0
    if centre - change >= radius:
        return 0.0
    covered = 0.0
    for s in range(_SLICES):
        u = dx + (s + 0.5) / _SLICES - 0.5
        b = q2 * u
        root = b * b - 4 * q1 * (q0 * u * u - radius * radius)
        if root <= 0:
            continue
        root = math.sqrt(root)
        low, high = max((-b - root) / (2 * q1), dy - 0.5), min((-b + root) / (2 * q1), dy + 0.5)
        if high > low:
            covered += high - low
    return covered / _SLICES


@njit(cache=True, nogil=True)
def aperture_sums(  # type: ignore[no-untyped-def]
    data, variance, mask, bad, labels, affine, label, mode, x, y, forms, radii, width, out, counts
):
    """Sums over several apertures and one Gaussian weight around each source.

    Parameters
    ----------
    mask : uint16 array [y, x]
        Pixel flags.
    forms : float64 array [n, apertures, 3]
        Quadratic forms of the apertures, native pixels.
    radii : float64 array [n, apertures]
        Their radii in the units of the forms. Aperture 0 is the one that the counts speak of.
    width : float64 array [n]
        Standard deviation of the Gaussian weight, native pixels.
    out : float64 array [n, apertures + 1, 4]
        Filled with the sums of weight times flux, weight² times variance, weight times
        variance, and weight; the last entry is the Gaussian's.
    counts : float64 array [n, 5]
        Filled with the area of aperture 0 that was replaced or lost to neighbours, to bad
        pixels, that lies outside the image, its whole area, and the flags of the source's own
        pixels.

    Notes
    -----
    The other parameters are those of `centroid_sums`.
    """
    apertures = forms.shape[1]
    covers = np.empty(apertures)
    for k in range(x.size):
        here, own = affine[k], label[k]
        out[k] = 0
        counts[k] = 0
        reach_x, reach_y = 4 * width[k], 4 * width[k]
        for a in range(apertures):
            half_x, half_y = _half_box(forms[k, a], radii[k, a])
            reach_x, reach_y = max(reach_x, half_x + 0.5), max(reach_y, half_y + 0.5)
        if not math.isfinite(x[k] + y[k] + reach_x + reach_y):
            continue
        inverse, gauss2 = 0.5 / (width[k] * width[k]), 16 * width[k] * width[k]
        seen = 0
        for iy in range(int(math.ceil(y[k] - reach_y)), int(math.floor(y[k] + reach_y)) + 1):
            for ix in range(int(math.ceil(x[k] - reach_x)), int(math.floor(x[k] + reach_x)) + 1):
                dx, dy = ix - x[k], iy - y[k]
                r2 = dx * dx + dy * dy
                touched = r2 <= gauss2
                for a in range(apertures):
                    f = _coverage(forms[k, a, 0], forms[k, a, 1], forms[k, a, 2], radii[k, a], dx, dy)
                    covers[a] = f
                    touched = touched or f > 0
                if not touched:
                    continue
                cover = covers[0]
                value, noise, state = _fetch(data, variance, bad, labels, here, own, mode, x[k], y[k], ix, iy)
                if state <= _REPLACED:
                    for a in range(apertures):
                        f = covers[a]
                        if f > 0:
                            out[k, a, 0] += f * value
                            out[k, a, 1] += f * f * noise
                            out[k, a, 2] += f * noise
                            out[k, a, 3] += f
                    if r2 <= gauss2:
                        w = math.exp(-r2 * inverse)
                        out[k, apertures, 0] += w * value
                        out[k, apertures, 1] += w * w * noise
                        out[k, apertures, 2] += w * noise
                        out[k, apertures, 3] += w
                if cover > 0:
                    counts[k, 3] += cover
                    if state == _OUTSIDE:
                        counts[k, 2] += cover
                    else:
                        if bad[iy, ix]:
                            counts[k, 1] += cover
                        elif state != _GOOD:
                            counts[k, 0] += cover
                if state != _OUTSIDE and mask[iy, ix] != 0 and _owner(labels, here, ix, iy) == own:
                    seen |= int(mask[iy, ix])
        counts[k, 4] = seen


@njit(cache=True, nogil=True)
def annulus_median(data, bad, labels, affine, x, y, inner, outer, out):  # type: ignore[no-untyped-def]
    """Median of the sky pixels in a ring around each source.

    Parameters
    ----------
    inner, outer : float64 arrays [n]
        Radii, native pixels.
    out : float64 array [n, 2]
        Filled with the median (0 where fewer than 20 pixels are free) and the number of pixels.
    """
    for k in range(x.size):
        here = affine[k]
        out[k, 0], out[k, 1] = 0.0, 0.0
        if not math.isfinite(x[k] + y[k] + inner[k] + outer[k]):
            continue
        side = int(2 * outer[k]) + 3
        values = np.empty(side * side)
        n = 0
        for iy in range(max(int(y[k] - outer[k]), 0), min(int(y[k] + outer[k]) + 2, data.shape[0])):
            for ix in range(max(int(x[k] - outer[k]), 0), min(int(x[k] + outer[k]) + 2, data.shape[1])):
                r = math.hypot(ix - x[k], iy - y[k])
                if inner[k] <= r <= outer[k] and not bad[iy, ix] and _owner(labels, here, ix, iy) == 0:
                    values[n] = data[iy, ix]
                    n += 1
        if n >= 20:
            out[k, 0], out[k, 1] = np.median(values[:n]), n
