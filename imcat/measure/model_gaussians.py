"""Gaussians of a profile seen through a PSF, summed over the pixels of a footprint with their derivatives.

With d the offset from the centre, C the covariance and (u, v) = C⁻¹ d, the derivatives of a Gaussian N are (u, v) N by its
centre and (u² - A00, 2 (u v - A01), v² - A11) N / 2 by the elements xx, xy, yy of C, where A = C⁻¹.

Down a column of pixels a Gaussian obeys a recurrence of two multiplications, for all columns at once.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from imcat.render.components import map_covariance
from imcat.render.draw import MERGE_VARIANCE

__all__ = ["BLOCK", "STRIDE", "add_rows", "gather", "list_gaussians", "map_on_image", "turn_columns"]

#: What is known of each Gaussian: its centre, C⁻¹, the peak, C⁻¹ times the offset of the PSF's centre, the pixels that it is
#: summed over, its share of the variance of the profile, and what the logarithm of the Sérsic index changes.
(
    _X,
    _Y,
    _A00,
    _A01,
    _A11,
    _PEAK,
    _U0,
    _V0,
    _TOP,
    _BOTTOM,
    _LEFT,
    _RIGHT,
    _SHARE,
    _BY_WEIGHT,
    _BY_XX,
    _BY_XY,
    _BY_YY,
) = range(17)
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
#: What is less is 0 in single precision: sums of numbers near the smallest one, 1e-38, are slow on some processors.
_LEAST = 1e-30
#: Pixels of a row that a Gaussian must leave out for its rows to be summed one by one, not as one long one.
_WORTH = 24

#: Pixels of a block of rows: nine numbers of single precision for each are 18 kB, which the nearest cache holds.
BLOCK = 512
#: A block is one array of the Gaussian, of offsets in x and y, and of the sums of derivatives by x and y, by the elements xx, xy
#: and yy of the covariance of the profile and by the logarithm of the index, each of this length: room for a row of the widest
#: footprint. With constant distances in one array the compiler knows that they do not overlap, else it would not use vectors;
#: and the length is no power of two, so that they lie in different places of the cache.
STRIDE = 2080
_S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8 = (np.uint64(k * STRIDE) for k in range(1, 9))

map_on_image = njit(cache=True, nogil=True)(map_covariance)


@njit(cache=True, nogil=True)
def list_gaussians(weights, centres, covariances, parts, x0, y0, wide, high, profile, sx, sxy, sy):  # type: ignore[no-untyped-def]
    """Gaussians of a profile convolved with those of a PSF, as the other functions take them.

    Parameters
    ----------
    weights, centres, covariances : float64 ``[k]``, ``[k, 2]``, ``[k, 3]``
        Of the PSF; pixels.
    parts : int
        Parts of a pixel along each axis that narrow Gaussians are drawn in.
    x0, y0 : float
        Position in the footprint, pixels.
    wide, high : int
        Columns and rows of the footprint.
    profile : float64 ``[j, 4]``
        See `imcat.measure.model_kernels.evaluate`.
    sx, sxy, sy : float
        Covariance of the profile of unit variance, pixels².
    """
    listed = np.empty((weights.size * profile.shape[0] * parts * parts, 17))
    count = 0
    largest = 0.5 * (sx + sy) + math.hypot(0.5 * (sx - sy), sxy)
    resolved = (1.0 - 1.0 / (parts * parts)) / 12.0
    for k in range(weights.size):
        if weights[k] == 0.0:
            continue
        pxx, pxy, pyy = covariances[k, 0], covariances[k, 1], covariances[k, 2]
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
            peak = weights[k] * w / (2.0 * math.pi * math.sqrt(determinant) * pieces * pieces)
            for q in range(pieces * pieces):
                ox = centres[k, 0] + (q % pieces + 0.5) / pieces - 0.5
                oy = centres[k, 1] + (q // pieces + 0.5) / pieces - 0.5
                own = listed[count]
                if _set_pixels(
                    own, x0 + ox, y0 + oy, math.sqrt(_REACH * cxx), math.sqrt(_REACH * cyy), wide, high
                ):
                    own[_A00], own[_A01], own[_A11], own[_PEAK] = a00, a01, a11, peak
                    own[_U0], own[_V0] = a00 * ox + a01 * oy, a01 * ox + a11 * oy
                    own[_SHARE], own[_BY_WEIGHT] = v, dw / w
                    own[_BY_XX], own[_BY_XY], own[_BY_YY] = dv * sx, dv * sxy, dv * sy
                    count += 1
    return listed[:count]


@njit(cache=True, nogil=True)
def _set_pixels(own, x, y, reach_x, reach_y, wide, high):  # type: ignore[no-untyped-def]
    """Set the centre of a Gaussian and the pixels that it is summed over; whether there are any."""
    own[_X], own[_Y] = x, y
    own[_TOP] = max(math.ceil(y - reach_y), 0.0)
    own[_BOTTOM] = min(math.floor(y + reach_y), high - 1.0)
    own[_LEFT] = max(math.ceil(x - reach_x), 0.0)
    own[_RIGHT] = min(math.floor(x + reach_x), wide - 1.0)
    some = own[_BOTTOM] >= own[_TOP] and own[_RIGHT] >= own[_LEFT]
    if wide - (own[_RIGHT] - own[_LEFT] + 1.0) < _WORTH:
        own[_LEFT], own[_RIGHT] = 0.0, wide - 1.0
    return some


@njit(cache=True, nogil=True)
def _begin(own, y, row, ratio):  # type: ignore[no-untyped-def]
    """Set a row of a Gaussian ``peak exp(-(a dx² + 2 b dx dy + c dy²))``, and what leads from it to the next one."""
    a, b, c = 0.5 * own[_A00], 0.5 * own[_A01], 0.5 * own[_A11]
    left, right = int(own[_LEFT]), int(own[_RIGHT]) + 1
    dy = y - own[_Y]
    along = math.exp(-2.0 * a)
    # Out from the highest pixel of the row to both sides.
    middle = min(max(int(round(own[_X] - b / a * dy)), left), right - 1)
    dx = middle - own[_X]
    first = own[_PEAK] * math.exp(-(a * dx * dx + 2.0 * b * dx * dy + c * dy * dy))
    exponent = -(2.0 * b * dx + c * (2.0 * dy + 1.0))
    down = math.exp(min(max(exponent, -_LARGEST), _LARGEST))
    most = math.exp(_LARGEST)
    row[middle], ratio[middle] = first, down
    g, r = first, math.exp(-(a * (2.0 * dx + 1.0) + 2.0 * b * dy))
    d, step = down, math.exp(-2.0 * b)
    for x in range(middle + 1, right):
        g *= r
        r *= along
        d = min(d * step, most)
        row[x], ratio[x] = g, d
    g, r = first, math.exp(-(a * (1.0 - 2.0 * dx) - 2.0 * b * dy))
    d, step = down, math.exp(2.0 * b)
    for x in range(middle - 1, left - 1, -1):
        g *= r
        r *= along
        d = min(d * step, most)
        row[x], ratio[x] = g, d


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_rows(own, row, ratio, wide, first, last, image, values):  # type: ignore[no-untyped-def]
    """Add some rows of a Gaussian to the image of a footprint, and keep them.

    Parameters
    ----------
    own : float64
        One row of what `list_gaussians` gives.
    row, ratio : float64 ``[wide]``
        Those that the rows before left.
    wide : int
        Columns of the footprint.
    first, last : int
        Rows `first` to ``last - 1``.
    image : float64
        Of the footprint, row by row.
    values : float32
        Set to the Gaussian on those of the pixels that it reaches; empty: not wanted.

    Returns
    -------
    begin, end : int
        Rows that it reaches, counted from `first`.
    """
    begin, end = max(first, int(own[_TOP])), min(last, int(own[_BOTTOM]) + 1)
    # Unsigned, else every index is checked for counting from the end.
    left, right = np.uint64(own[_LEFT]), np.uint64(own[_RIGHT] + 1.0)
    fall = math.exp(-own[_A11])
    span = max(1, int(math.sqrt(_SPAN / (0.5 * own[_A11]))))
    for y in range(begin, end):
        if (y - int(own[_TOP])) % span == 0:
            _begin(own, y, row, ratio)
        pixels = image[y * wide : (y + 1) * wide]
        if values.size == 0:
            for x in range(left, right):
                g = row[x]
                pixels[x] += g
                row[x] = g * ratio[x]
                ratio[x] *= fall
        else:
            kept = values[(y - first) * wide : (y - first + 1) * wide]
            for x in range(left, right):
                g = row[x]
                pixels[x] += g
                kept[x] = g if abs(g) > _LEAST else 0.0
                row[x] = g * ratio[x]
                ratio[x] *= fall
    return begin - first, max(end, begin) - first


@njit(cache=True, nogil=True)
def gather(own, wide, begin, end, block):  # type: ignore[no-untyped-def]
    """Add the derivatives of a Gaussian on some rows.

    Parameters
    ----------
    own, wide
        See `add_rows`.
    begin, end : int
        Rows of the block, as `add_rows` returns them.
    block : float32
        See `BLOCK`.
    """
    left, right = int(own[_LEFT]), int(own[_RIGHT]) + 1
    derivatives = block.size // STRIDE - 3
    whole = right - left == wide
    for line in range(1 if whole else end - begin):
        first = (begin + line) * wide + left
        last = end * wide if whole else first + right - left
        if derivatives == 2 or own[_SHARE] <= 0.0:
            _by_place(own, first, last, block)
        else:
            _by_shape(own, first, last, block)
        if derivatives > 5:
            _by_index(own, first, last, block)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _by_place(own, first, last, block):  # type: ignore[no-untyped-def]
    a00, a01, a11 = np.float32(own[_A00]), np.float32(own[_A01]), np.float32(own[_A11])
    u0, v0 = np.float32(own[_U0]), np.float32(own[_V0])
    # Unsigned, else every index is checked for counting from the end.
    for p in range(np.uint64(first), np.uint64(last)):
        g, x, y = block[p], block[p + _S1], block[p + _S2]
        block[p + _S3] += g * (a00 * x + a01 * y - u0)
        block[p + _S4] += g * (a01 * x + a11 * y - v0)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _by_shape(own, first, last, block):  # type: ignore[no-untyped-def]
    a00, a01, a11 = np.float32(own[_A00]), np.float32(own[_A01]), np.float32(own[_A11])
    u0, v0, share = np.float32(own[_U0]), np.float32(own[_V0]), np.float32(own[_SHARE])
    half = np.float32(0.5) * share
    for p in range(np.uint64(first), np.uint64(last)):
        g, x, y = block[p], block[p + _S1], block[p + _S2]
        u = a00 * x + a01 * y - u0
        v = a01 * x + a11 * y - v0
        block[p + _S3] += g * u
        block[p + _S4] += g * v
        block[p + _S5] += half * g * (u * u - a00)
        block[p + _S6] += share * g * (u * v - a01)
        block[p + _S7] += half * g * (v * v - a11)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _by_index(own, first, last, block):  # type: ignore[no-untyped-def]
    a00, a01, a11 = np.float32(own[_A00]), np.float32(own[_A01]), np.float32(own[_A11])
    u0, v0, weight = np.float32(own[_U0]), np.float32(own[_V0]), np.float32(own[_BY_WEIGHT])
    xx, xy, yy = np.float32(0.5 * own[_BY_XX]), np.float32(own[_BY_XY]), np.float32(0.5 * own[_BY_YY])
    for p in range(np.uint64(first), np.uint64(last)):
        g, x, y = block[p], block[p + _S1], block[p + _S2]
        u = a00 * x + a01 * y - u0
        v = a01 * x + a11 * y - v0
        block[p + _S8] += g * (weight + xx * (u * u - a00) + xy * (u * v - a01) + yy * (v * v - a11))


@njit(cache=True, nogil=True)
def turn_columns(block, count, jacobian, slope, out, first):  # type: ignore[no-untyped-def]
    """Set derivatives by xi, eta and the shape, of those by x, y and the covariance on the image (`gather`).

    Parameters
    ----------
    block : float32
        See `BLOCK`.
    count : int
        Pixels.
    jacobian, slope : float64 ``[2, 2]``, ``[3, 3]``
        See `imcat.measure.model_kernels.Stack` and `imcat.measure.model_kernels.shape_covariance`.
    out : float64
        Rows from the second one on are set from element `first` on.
    first : int
        See `out`.
    """
    j00, j01, j10, j11 = jacobian[0, 0], jacobian[0, 1], jacobian[1, 0], jacobian[1, 1]
    by_xi, by_eta = out[1][first : first + count], out[2][first : first + count]
    by_x, by_y = block[3 * STRIDE :], block[4 * STRIDE :]
    for p in range(count):
        by_xi[p] = j00 * by_x[p] + j10 * by_y[p]
        by_eta[p] = j01 * by_x[p] + j11 * by_y[p]
    if block.size > 5 * STRIDE:
        by_xx, by_xy, by_yy = block[5 * STRIDE :], block[6 * STRIDE :], block[7 * STRIDE :]
        for s in range(3):
            m0, m1, m2 = map_on_image(j00, j01, j10, j11, slope[s, 0], slope[s, 1], slope[s, 2])
            by_shape = out[3 + s][first : first + count]
            for p in range(count):
                by_shape[p] = m0 * by_xx[p] + m1 * by_xy[p] + m2 * by_yy[p]
    if block.size > 8 * STRIDE:
        out[6][first : first + count] = block[8 * STRIDE : 8 * STRIDE + count]
