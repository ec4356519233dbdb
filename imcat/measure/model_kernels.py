"""Images of profiles seen through a PSF, and their derivatives, on the footprints of sources.

A profile is a sum of Gaussians (`imcat.render.profiles`), a PSF too (`imcat.psf.mixture`), so their
convolution is a sum of Gaussians with known derivatives: with d the offset from the centre, C the
covariance and (u, v) = C⁻¹ d, the derivatives of a Gaussian N are (u, v) N by its centre and
(u² - A00, 2 (u v - A01), v² - A11) N / 2 by the elements xx, xy, yy of C, where A = C⁻¹.

Down a column of pixels a Gaussian obeys a recurrence of two multiplications, for all columns at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.render.components import map_covariance
from imcat.render.draw import MERGE_VARIANCE

__all__ = ["POINT_COLUMNS", "Stack", "evaluate", "profile_array", "shape_covariance"]

#: Columns of a point source: its image, and the derivatives by xi and eta.
POINT_COLUMNS = 3
#: Gaussians end where they have fallen to exp(-_REACH / 2) = 1e-5 of their peak.
_REACH = 23.0
#: Gaussians of a profile whose variance is below this share of that of one of the PSF become one of their mean
#: variance. What that changes is of second order: 1e-4 of the peak.
_NARROW = 0.02
#: Largest change of the logarithm of a Gaussian down a column before it is computed anew, far from the
#: smallest number (exp(-708)).
_SPAN = 250.0
#: Largest exponent of a ratio between rows.
_LARGEST = 500.0
#: Half side of footprints that are small enough for all columns to be computed for all Gaussians.
_SMALL = 40


class Stack(NamedTuple):
    """Pixels of the footprints of n sources in t images, and what is known of the images.

    Attributes
    ----------
    data, variance : float32 ``[pixels]``
        Of all footprints, one after the other, row by row; variance 0 where not to be used.
    start : int64 ``[n, t]``
        First pixel of each footprint.
    box : int64 ``[n, t, 4]``
        x and y of its first pixel in the window, columns, rows; no columns: not on that image.
    x, y : float64 ``[n, t]``
        Positions in the window, pixels.
    jacobian : float64 ``[n, t, 2, 2]``
        (dx, dy) in pixels by (xi, eta) in arcsec.
    band : int64 ``[t]``
        Band of each image.
    gain : float64 ``[t]``
        Electrons per nJy.
    rho : float64 ``[t, 2 r + 1, 2 r + 1]``
        Correlation of the noise.
    white : bool ``[t]``
        Whether pixels are independent.
    weight : float64 ``[t, k]``
        Of the Gaussians of the PSFs; 0 where one has fewer.
    centre : float64 ``[t, k, 2]``
        Their centres, pixels.
    covariance : float64 ``[t, n, k, 3]``
        Their covariances at each source, pixels².
    parts : int64 ``[t]``
        Parts of a pixel along each axis.
    fwhm : float64 ``[n]``
        Of the PSF in the reference band, arcsec.
    """

    data: NDArray[np.float32]
    variance: NDArray[np.float32]
    start: NDArray[np.int64]
    box: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    band: NDArray[np.int64]
    gain: NDArray[np.float64]
    rho: NDArray[np.float64]
    white: NDArray[np.bool_]
    weight: NDArray[np.float64]
    centre: NDArray[np.float64]
    covariance: NDArray[np.float64]
    parts: NDArray[np.int64]
    fwhm: NDArray[np.float64]


_map_covariance = njit(cache=True, nogil=True)(map_covariance)


@njit(cache=True, nogil=True)
def shape_covariance(shape, value, slope):  # type: ignore[no-untyped-def]
    """Covariance of a profile of unit variance on the sky, and its derivatives.

    Parameters
    ----------
    shape : float64 ``[3]``
        Logarithm of the geometric mean of the semi-axes (arcsec), and the ellipticity: its length is ln(a / b),
        its direction twice the position angle (cosine, sine).
    value : float64 ``[3]``
        Set to xx, xy, yy, arcsec².
    slope : float64 ``[3, 3]``
        Set to their derivatives, ``[parameter, element]``.

    Notes
    -----
    With xi east and eta north and an angle φ east of north, the covariance is
    r² (cosh e - sinh e cos 2φ, sinh e sin 2φ, cosh e + sinh e cos 2φ).
    """
    e1, e2 = shape[1], shape[2]
    e = math.sqrt(e1 * e1 + e2 * e2)
    r2 = math.exp(2.0 * shape[0])
    even = math.cosh(e)
    if e > 1e-3:
        odd = math.sinh(e) / e
        bend = (even - odd) / (e * e)
    else:
        odd = 1.0 + e * e / 6.0
        bend = 1.0 / 3.0 + e * e / 30.0
    value[0] = r2 * (even - odd * e1)
    value[1] = r2 * odd * e2
    value[2] = r2 * (even + odd * e1)
    for j in range(3):
        slope[0, j] = 2.0 * value[j]
    # d cosh(e) = odd e_k; d odd = bend e_k
    slope[1, 0] = r2 * (odd * e1 - bend * e1 * e1 - odd)
    slope[1, 1] = r2 * bend * e1 * e2
    slope[1, 2] = r2 * (odd * e1 + bend * e1 * e1 + odd)
    slope[2, 0] = r2 * (odd * e2 - bend * e1 * e2)
    slope[2, 1] = r2 * (bend * e2 * e2 + odd)
    slope[2, 2] = r2 * (odd * e2 + bend * e1 * e2)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _fill(out, row, ratio, columns, top, bottom, x0, y0, a, b, c, height):  # type: ignore[no-untyped-def]
    """Set rows of a footprint to ``height exp(-(a dx² + 2 b dx dy + c dy²))``."""
    block = max(1, int(math.sqrt(_SPAN / c)))
    fall = math.exp(-2.0 * c)
    along = math.exp(-2.0 * a)
    for y in range(top, bottom + 1):
        dy = y - y0
        base = y * columns
        if (y - top) % block == 0:
            # Out from the highest pixel of the row to both sides.
            middle = min(max(int(round(x0 - b / a * dy)), 0), columns - 1)
            dx = middle - x0
            first = height * math.exp(-(a * dx * dx + 2.0 * b * dx * dy + c * dy * dy))
            row[middle] = first
            g, r = first, math.exp(-(a * (2.0 * dx + 1.0) + 2.0 * b * dy))
            for x in range(middle + 1, columns):
                g *= r
                r *= along
                row[x] = g
            g, r = first, math.exp(-(a * (1.0 - 2.0 * dx) - 2.0 * b * dy))
            for x in range(middle - 1, -1, -1):
                g *= r
                r *= along
                row[x] = g
            # What leads from each pixel to the one in the next row.
            exponent = -(2.0 * b * dx + c * (2.0 * dy + 1.0))
            r = math.exp(min(max(exponent, -_LARGEST), _LARGEST))
            ratio[middle] = r
            most = math.exp(_LARGEST)
            step = math.exp(-2.0 * b)
            for x in range(middle + 1, columns):
                r = min(r * step, most)
                ratio[x] = r
            r, step = ratio[middle], math.exp(2.0 * b)
            for x in range(middle - 1, -1, -1):
                r = min(r * step, most)
                ratio[x] = r
        for x in range(columns):
            out[base + x] = row[x]
            row[x] *= ratio[x]
            ratio[x] *= fall


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _gather_image(n, first, last, image):  # type: ignore[no-untyped-def]
    """Add a Gaussian."""
    # Unsigned, else every index is checked for counting from the end.
    for p in range(np.uint64(first), np.uint64(last)):
        image[p] += n[p]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _gather_point(n, dx, dy, first, last, a00, a01, a11, u0, v0, image, by_x, by_y):  # type: ignore[no-untyped-def]
    """Add a Gaussian and its derivatives by x and y."""
    # Unsigned, else every index is checked for counting from the end.
    for p in range(np.uint64(first), np.uint64(last)):
        g = n[p]
        image[p] += g
        by_x[p] += g * (a00 * dx[p] + a01 * dy[p] - u0)
        by_y[p] += g * (a01 * dx[p] + a11 * dy[p] - v0)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _gather_shape(n, dx, dy, first, last, a00, a01, a11, u0, v0, factor, xx, xy, yy):  # type: ignore[no-untyped-def]
    """Add the derivatives of a Gaussian by xx, xy and yy, times a factor."""
    # Unsigned, else every index is checked for counting from the end.
    for p in range(np.uint64(first), np.uint64(last)):
        g = n[p] * factor
        u = a00 * dx[p] + a01 * dy[p] - u0
        v = a01 * dx[p] + a11 * dy[p] - v0
        xx[p] += g * (0.5 * u * u - 0.5 * a00)
        xy[p] += g * (u * v - a01)
        yy[p] += g * (0.5 * v * v - 0.5 * a11)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _gather_index(n, dx, dy, first, last, a00, a01, a11, u0, v0, share, sx, sxy, sy, index):  # type: ignore[no-untyped-def]
    """Add the derivative of a Gaussian by the Sérsic index, through its weight and its variance."""
    # Unsigned, else every index is checked for counting from the end.
    for p in range(np.uint64(first), np.uint64(last)):
        g = n[p]
        u = a00 * dx[p] + a01 * dy[p] - u0
        v = a01 * dx[p] + a11 * dy[p] - v0
        index[p] += g * (
            share + sx * (0.5 * u * u - 0.5 * a00) + sxy * (u * v - a01) + sy * (0.5 * v * v - 0.5 * a11)
        )


@njit(cache=True, nogil=True)
def _rotate(count, m, xx, xy, yy):  # type: ignore[no-untyped-def]
    """Replace three columns by their products with the rows of a matrix."""
    m00, m01, m02 = m[0, 0], m[0, 1], m[0, 2]
    m10, m11, m12 = m[1, 0], m[1, 1], m[1, 2]
    m20, m21, m22 = m[2, 0], m[2, 1], m[2, 2]
    for p in range(count):
        p0, p1, p2 = xx[p], xy[p], yy[p]
        xx[p] = m00 * p0 + m01 * p1 + m02 * p2
        xy[p] = m10 * p0 + m11 * p1 + m12 * p2
        yy[p] = m20 * p0 + m21 * p1 + m22 * p2


@njit(cache=True, nogil=True)
def _turn(count, j00, j01, j10, j11, by_x, by_y):  # type: ignore[no-untyped-def]
    """Derivatives by xi and eta from those by x and y."""
    for p in range(count):
        p0, p1 = by_x[p], by_y[p]
        by_x[p] = j00 * p0 + j10 * p1
        by_y[p] = j01 * p0 + j11 * p1


@njit(cache=True, nogil=True)
def evaluate(stack, i, t, xi, eta, value, slope, profile, columns, out, offset, work):  # type: ignore[no-untyped-def]
    """Image of a source of flux 1 on its footprint, and its derivatives.

    Parameters
    ----------
    stack : Stack
        Footprints and PSFs.
    i, t : int
        Source and image.
    xi, eta : float
        Offset from the position in the stack, arcsec.
    value, slope : float64 ``[3]``, ``[3, 3]``
        As `shape_covariance` leaves them: of a profile of unit variance.
    profile : float64 ``[k, 4]``
        Its Gaussians: weights, variances, and the derivatives of both by the logarithm of the index.
    columns : int
        1: image; 3: and derivatives by xi, eta; 6: by the three elements of `shape` too; 7: and by the
        logarithm of the index.
    out : float64 ``[columns, m]``
        Rows are set from element `offset` on.
    offset : int
        See `out`.
    work : float64 ``[4, m]``
        Scratch.
    """
    wide, high = stack.box[i, t, 2], stack.box[i, t, 3]
    count = wide * high
    j00, j01 = stack.jacobian[i, t, 0, 0], stack.jacobian[i, t, 0, 1]
    j10, j11 = stack.jacobian[i, t, 1, 0], stack.jacobian[i, t, 1, 1]
    x0 = stack.x[i, t] + j00 * xi + j01 * eta - stack.box[i, t, 0]
    y0 = stack.y[i, t] + j10 * xi + j11 * eta - stack.box[i, t, 1]
    n, dx, dy, lines = work[0], work[1], work[2], work[3]
    row, ratio = lines[:wide], lines[wide : 2 * wide]
    end = offset + count
    image = out[0][offset:end]
    # Without places and shapes these are not touched.
    by_x, by_y = out[min(1, columns - 1)][offset:end], out[min(2, columns - 1)][offset:end]
    by_xx, by_xy = out[min(3, columns - 1)][offset:end], out[min(4, columns - 1)][offset:end]
    by_yy, by_index = out[min(5, columns - 1)][offset:end], out[columns - 1][offset:end]
    for col in range(columns):
        out[col, offset:end] = 0.0
    if columns > 1:
        for y in range(high):
            for x in range(wide):
                dx[y * wide + x] = x - x0
                dy[y * wide + x] = y - y0
    sx, sxy, sy = _map_covariance(j00, j01, j10, j11, value[0], value[1], value[2])
    largest = 0.5 * (sx + sy) + math.hypot(0.5 * (sx - sy), sxy)
    parts = stack.parts[t]
    resolved = (1.0 - 1.0 / (parts * parts)) / 12.0
    flat = max(wide, high) <= 2 * _SMALL
    psf_weight, psf_centre, psf_covariance = stack.weight[t], stack.centre[t], stack.covariance[t, i]
    for k in range(psf_weight.size):
        share = psf_weight[k]
        if share == 0.0:
            continue
        pxx, pxy, pyy = psf_covariance[k, 0], psf_covariance[k, 1], psf_covariance[k, 2]
        narrow = _NARROW * (0.5 * (pxx + pyy) - math.hypot(0.5 * (pxx - pyy), pxy))
        j = 0
        while j < profile.shape[0]:
            w, wv, dw, dwv = 0.0, 0.0, 0.0, 0.0
            # The narrow ones, which come first, become one.
            while j < profile.shape[0]:
                if w != 0.0 and profile[j, 1] * largest > narrow:
                    break
                w += profile[j, 0]
                wv += profile[j, 0] * profile[j, 1]
                dw += profile[j, 2]
                dwv += profile[j, 2] * profile[j, 1] + profile[j, 0] * profile[j, 3]
                j += 1
            if abs(w) < 1e-12:
                continue
            v = wv / w
            dv = (dwv - v * dw) / w
            cxx, cxy, cyy = pxx + v * sx, pxy + v * sxy, pyy + v * sy
            pieces = 1
            if parts > 1 and 0.5 * (cxx + cyy) - math.hypot(0.5 * (cxx - cyy), cxy) < MERGE_VARIANCE:
                pieces = parts
                cxx -= resolved
                cyy -= resolved
            determinant = cxx * cyy - cxy * cxy
            a00, a01, a11 = cyy / determinant, -cxy / determinant, cxx / determinant
            height = share * w / (2.0 * math.pi * math.sqrt(determinant) * pieces * pieces)
            reach_x, reach_y = math.sqrt(_REACH * cxx), math.sqrt(_REACH * cyy)
            for q in range(pieces * pieces):
                ox = psf_centre[k, 0] + (q % pieces + 0.5) / pieces - 0.5
                oy = psf_centre[k, 1] + (q // pieces + 0.5) / pieces - 0.5
                top = max(int(math.ceil(y0 + oy - reach_y)), 0)
                bottom = min(int(math.floor(y0 + oy + reach_y)), high - 1)
                left = max(int(math.ceil(x0 + ox - reach_x)), 0)
                right = min(int(math.floor(x0 + ox + reach_x)), wide - 1)
                if bottom < top or right < left:
                    continue
                _fill(
                    n,
                    row,
                    ratio,
                    wide,
                    top,
                    bottom,
                    x0 + ox,
                    y0 + oy,
                    0.5 * a00,
                    0.5 * a01,
                    0.5 * a11,
                    height,
                )
                u0, v0 = a00 * ox + a01 * oy, a01 * ox + a11 * oy
                # Small footprints in one go, of large ones only what the Gaussian reaches.
                lines_of = 1 if flat else bottom - top + 1
                for line in range(lines_of):
                    if flat:
                        first, last = top * wide, (bottom + 1) * wide
                    else:
                        first, last = (top + line) * wide + left, (top + line) * wide + right + 1
                    if columns == 1:
                        _gather_image(n, first, last, image)
                        continue
                    _gather_point(n, dx, dy, first, last, a00, a01, a11, u0, v0, image, by_x, by_y)
                    if columns > 3 and v > 0.0:
                        _gather_shape(n, dx, dy, first, last, a00, a01, a11, u0, v0, v, by_xx, by_xy, by_yy)
                    if columns > 6:
                        _gather_index(
                            n, dx, dy, first, last, a00, a01, a11, u0, v0, dw / w, dv * sx, dv * sxy, dv * sy, by_index,
                        )  # fmt: skip
    if columns > 1:
        _turn(count, j00, j01, j10, j11, by_x, by_y)
    if columns > 3:
        matrix = np.empty((3, 3))
        for s in range(3):
            matrix[s, 0], matrix[s, 1], matrix[s, 2] = _map_covariance(
                j00, j01, j10, j11, slope[s, 0], slope[s, 1], slope[s, 2]
            )
        _rotate(count, matrix, by_xx, by_xy, by_yy)


def profile_array(weights: Any, variances: Any) -> NDArray[np.float64]:
    """Gaussians of a profile of a fixed index as `evaluate` takes them, ``[k, 4]``."""
    zero = np.zeros(len(weights))
    return np.ascontiguousarray(np.stack([weights, variances, zero, zero], axis=1), np.float64)
