"""Sums over the pixels around each source: the inner loops of all photometry.

Every kernel runs over the sources of one window of one exposure, in its native
pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "BAD",
    "MASK",
    "MIRROR",
    "UNKNOWN",
    "annulus_median",
    "aperture_sums",
    "centroid_sums",
    "growth_sums",
    "radial_moment",
]

#: What happens to pixels of neighbours and to bad pixels.
MASK, MIRROR = 1, 2
#: Entries of an owner map that are no label; see `centroid_sums`.
UNKNOWN, BAD = -1, -2

_GOOD, _REPLACED, _LOST, _OUTSIDE = 0, 1, 2, 3
_SLICES = 8  # of a pixel on the rim of an aperture
_FLAT = 6.0  # pixels: minor axis above which a rim is straight within a pixel
_PARTS = 3  # of a pixel in the growth curve, in either direction, where rings are narrow


@njit(cache=True, nogil=True)
def _mirrored(data, variance, owner, own, mode, cx, cy, ix, iy):  # type: ignore[no-untyped-def]
    """What stands for a pixel of a neighbour, or a bad one: its mirror image about the source."""
    if mode == MIRROR:
        mx, my = int(math.floor(2 * cx - ix + 0.5)), int(math.floor(2 * cy - iy + 0.5))
        if 0 <= mx < data.shape[1] and 0 <= my < data.shape[0]:
            o = owner[my, mx]
            if o == own or o == 0 or o == UNKNOWN:
                return float(data[my, mx]), float(variance[my, mx]), _REPLACED
    return 0.0, 0.0, _LOST


@njit(cache=True, nogil=True, inline="always")
def _fetch(data, variance, owner, own, mode, cx, cy, ix, iy):  # type: ignore[no-untyped-def]
    """Value, variance and state of a pixel after neighbours and bad pixels were dealt with."""
    if iy < 0 or ix < 0 or iy >= data.shape[0] or ix >= data.shape[1]:
        return 0.0, 0.0, _OUTSIDE
    o = owner[iy, ix]
    if o == own or o == 0 or o == UNKNOWN:
        return float(data[iy, ix]), float(variance[iy, ix]), _GOOD
    return _mirrored(data, variance, owner, own, mode, cx, cy, ix, iy)


@njit(cache=True, nogil=True)
def centroid_sums(data, variance, owner, label, mode, x, y, sigma, out):  # type: ignore[no-untyped-def]
    """Gaussian-weighted first moments about given positions.

    Parameters
    ----------
    data, variance : float32 arrays [y, x]
        One window of an exposure.
    owner : int32 array [y, x]
        Label of the source that each pixel belongs to, 0 for sky, `UNKNOWN`, or `BAD` minus
        the label for pixels without information.
    label : int64 array [n]
        Label of each source.
    mode : int
        `MASK` leaves pixels of other sources and bad ones out, `MIRROR` puts the pixel on the
        other side of the source in their place.
    x, y, sigma : float64 arrays [n]
        Position within the window and standard deviation of the weight, native pixels.
    out : float64 array [n, 5]
        Filled with the weighted sums of flux, of flux times offset in x and in y, of flux times
        squared distance, and of variance times squared weight.
    """
    for k in range(x.size):
        own = label[k]
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
                    value, noise, state = _fetch(data, variance, owner, own, mode, x[k], y[k], ix, iy)
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
def radial_moment(data, variance, owner, label, mode, x, y, form, search, out):  # type: ignore[no-untyped-def]
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
        own = label[k]
        first, total = 0.0, 0.0
        half_x, half_y = _half_box(form[k], search[k])
        if math.isfinite(x[k] + y[k] + half_x + half_y):
            for iy in range(int(math.ceil(y[k] - half_y)), int(math.floor(y[k] + half_y)) + 1):
                for ix in range(int(math.ceil(x[k] - half_x)), int(math.floor(x[k] + half_x)) + 1):
                    dx, dy = ix - x[k], iy - y[k]
                    r2 = form[k, 0] * dx * dx + form[k, 1] * dy * dy + form[k, 2] * dx * dy
                    if r2 > search[k] * search[k]:
                        continue
                    value, _, state = _fetch(data, variance, owner, own, mode, x[k], y[k], ix, iy)
                    if state <= _REPLACED:
                        first += math.sqrt(r2) * value
                        total += value
        out[k, 0], out[k, 1] = first, total


@njit(cache=True, nogil=True)
def growth_sums(data, variance, owner, label, mode, x, y, form, limit, out):  # type: ignore[no-untyped-def]
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
        own = label[k]
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
                value, _, state = _fetch(data, variance, owner, own, mode, x[k], y[k], ix, iy)
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
def _rim_coverage(q0, q1, q2, radius, flat, dx, dy):  # type: ignore[no-untyped-def]
    """Fraction of the pixel at an offset that an ellipse covers; continuous in the offset.

    Where the ellipse is wide (`flat`) its rim is a straight line across the pixel, moved inwards
    by the mean of its sagitta over a pixel. Else the pixel is cut into slices, each covered from
    one root of the ellipse's equation to the other.
    """
    if flat:
        e = math.sqrt(q0 * dx * dx + q1 * dy * dy + q2 * dx * dy)
        gx, gy = abs(q0 * dx + 0.5 * q2 * dy), abs(q1 * dy + 0.5 * q2 * dx)
        slope = math.sqrt(gx * gx + gy * gy)  # of the elliptical radius, times that radius
        wide, narrow = max(gx, gy) / slope, min(gx, gy) / slope
        d = (radius - e) * e / slope - slope / (24 * e * radius)
        # A line at the distance d from the centre of a box with sides along its normal of
        # `wide` and `narrow` leaves a trapezoid.
        t = abs(d)
        outer, inner = 0.5 * (wide + narrow), 0.5 * (wide - narrow)
        if t >= outer:
            part = 0.5
        elif t <= inner:
            part = t / wide
        else:
            part = 0.5 - (outer - t) ** 2 / (2 * wide * narrow)
        return 0.5 + part if d > 0 else 0.5 - part
    step, half, r2 = 1.0 / _SLICES, 0.5 / q1, radius * radius
    u = dx - 0.5 - 0.5 * step
    covered = 0.0
    for _ in range(_SLICES):
        u += step
        b = q2 * u
        root = b * b - 4 * q1 * (q0 * u * u - r2)
        if root > 0:
            root = math.sqrt(root)
            low, high = max(half * (-b - root), dy - 0.5), min(half * (root - b), dy + 0.5)
            covered += max(high - low, 0.0)
    return covered * step


@njit(cache=True, nogil=True)
def _rim(form, radius, edges):  # type: ignore[no-untyped-def]
    """Squares of the radii between which a pixel may be partly covered, and the minor axis."""
    q0, q1, q2 = form[0], form[1], form[2]
    # The elliptical radius changes by no more than this from a pixel's centre to its corner.
    steepest = math.sqrt(0.5 * (q0 + q1) + math.sqrt(0.25 * (q0 - q1) ** 2 + 0.25 * q2 * q2))
    change = 0.71 * steepest
    edges[0] = (radius - change) ** 2 if radius > change else -1.0
    edges[1] = (radius + change) ** 2
    edges[2] = radius / steepest


@njit(cache=True, nogil=True, inline="always")
def _add(sums, a, weight, value, noise):  # type: ignore[no-untyped-def]
    sums[a, 0] += weight * value
    sums[a, 1] += weight * weight * noise
    sums[a, 2] += weight * noise
    sums[a, 3] += weight


@njit(cache=True, nogil=True, inline="always")
def _count(counts, cover, state, is_bad):  # type: ignore[no-untyped-def]
    counts[3] += cover
    if state == _OUTSIDE:
        counts[2] += cover
    elif is_bad:
        counts[1] += cover
    elif state != _GOOD:
        counts[0] += cover


@njit(cache=True, nogil=True)
def aperture_sums(  # type: ignore[no-untyped-def]
    data, variance, mask, owner, label, mode, x, y, forms, radii, width, out, counts
):
    """Sums over several apertures and one Gaussian weight around each source.

    Parameters
    ----------
    mask : uint16 array [y, x]
        Pixel flags.
    forms : float64 array [n, apertures, 3]
        Quadratic forms of the apertures, native pixels.
    radii : float64 array [n, apertures]
        Their radii in the units of the forms. Aperture 0 is an ellipse, the one that the counts
        speak of; the others share one form and come in the order of their radii.
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
    edges, whole = np.empty((apertures, 3)), np.zeros((apertures, 4))
    for k in range(x.size):
        own = label[k]
        # Slices inside the loops over pixels would cost more than the sums do.
        sums, tally = out[k], counts[k]
        sums[:] = 0
        tally[:] = 0
        reach_x, reach_y = 4 * width[k], 4 * width[k]
        for a in range(apertures):
            half_x, half_y = _half_box(forms[k, a], radii[k, a])
            reach_x, reach_y = max(reach_x, half_x + 0.5), max(reach_y, half_y + 0.5)
            _rim(forms[k, a], radii[k, a], edges[a])
        if not math.isfinite(x[k] + y[k] + reach_x + reach_y):
            continue
        inverse, gauss2 = 0.5 / (width[k] * width[k]), 16 * width[k] * width[k]
        q0, q1, q2 = forms[k, 0, 0], forms[k, 0, 1], forms[k, 0, 2]
        p0, p1, p2 = forms[k, 1, 0], forms[k, 1, 1], forms[k, 1, 2]
        far = edges[0, 1]
        outermost = edges[apertures - 1, 1]
        seen = 0
        for iy in range(int(math.ceil(y[k] - reach_y)), int(math.floor(y[k] + reach_y)) + 1):
            for ix in range(int(math.ceil(x[k] - reach_x)), int(math.floor(x[k] + reach_x)) + 1):
                dx, dy = ix - x[k], iy - y[k]
                r2 = dx * dx + dy * dy
                e2 = q0 * dx * dx + q1 * dy * dy + q2 * dx * dy
                c2 = p0 * dx * dx + p1 * dy * dy + p2 * dx * dy
                if e2 >= far and c2 >= outermost and r2 > gauss2:
                    continue
                value, noise, state = _fetch(data, variance, owner, own, mode, x[k], y[k], ix, iy)
                cover = 0.0
                if e2 < far:
                    cover = 1.0
                    if e2 > edges[0, 0]:
                        cover = _rim_coverage(q0, q1, q2, radii[k, 0], edges[0, 2] > _FLAT, dx, dy)
                    if cover > 0:
                        _count(tally, cover, state, state != _OUTSIDE and owner[iy, ix] <= BAD)
                if state == _OUTSIDE:
                    continue
                if mask[iy, ix] != 0 and (owner[iy, ix] == own or owner[iy, ix] == BAD - own):
                    seen |= int(mask[iy, ix])
                if state > _REPLACED:
                    continue
                if cover > 0:
                    _add(sums, 0, cover, value, noise)
                # From the largest circle inwards; a pixel inside one circle is inside all larger
                # ones, and is added to those when all pixels are done.
                for a in range(apertures - 1, 0, -1):
                    if c2 >= edges[a, 1]:
                        break
                    if c2 > edges[a, 0]:
                        f = _rim_coverage(p0, p1, p2, radii[k, a], edges[a, 2] > _FLAT, dx, dy)
                        if f > 0:
                            _add(sums, a, f, value, noise)
                    elif a == 1 or c2 > edges[a - 1, 0]:
                        _add(whole, a, 1.0, value, noise)
                if r2 <= gauss2:
                    _add(sums, apertures, math.exp(-r2 * inverse), value, noise)
        counts[k, 4] = seen
        for a in range(1, apertures):
            for b in range(a, apertures):
                for i in range(4):
                    out[k, b, i] += whole[a, i]
            whole[a] = 0


@njit(cache=True, nogil=True)
def annulus_median(data, owner, x, y, inner, outer, out):  # type: ignore[no-untyped-def]
    """Median of the sky pixels in a ring around each source.

    Parameters
    ----------
    inner, outer : float64 arrays [n]
        Radii, native pixels.
    out : float64 array [n, 2]
        Filled with the median (0 where fewer than 20 pixels are free) and the number of pixels.
    """
    for k in range(x.size):
        out[k, 0], out[k, 1] = 0.0, 0.0
        if not math.isfinite(x[k] + y[k] + inner[k] + outer[k]):
            continue
        side = int(2 * outer[k]) + 3
        values = np.empty(side * side)
        n = 0
        for iy in range(max(int(y[k] - outer[k]), 0), min(int(y[k] + outer[k]) + 2, data.shape[0])):
            for ix in range(max(int(x[k] - outer[k]), 0), min(int(x[k] + outer[k]) + 2, data.shape[1])):
                r = math.hypot(ix - x[k], iy - y[k])
                if inner[k] <= r <= outer[k] and owner[iy, ix] == 0:
                    values[n] = data[iy, ix]
                    n += 1
        if n >= 20:
            out[k, 0], out[k, 1] = np.median(values[:n]), n
