"""Images of profiles seen through a PSF, and their derivatives, on the footprints of sources.

A profile is a sum of Gaussians (`imcat.render.profiles`), a PSF too (`imcat.psf.mixture`), so their
convolution is a sum of Gaussians with known derivatives (`imcat.measure.model_gaussians`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.measure.model_gaussians import (
    BLOCK,
    STRIDE,
    add_rows,
    gather,
    list_gaussians,
    map_on_image,
    turn_columns,
)

__all__ = ["POINT_COLUMNS", "Stack", "evaluate", "profile_array", "shape_covariance"]

#: Columns of a point source: its image, and the derivatives by xi and eta.
POINT_COLUMNS = 3


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


@njit(cache=True, nogil=True)
def evaluate(stack, i, t, xi, eta, value, slope, profile, columns, out, offset):  # type: ignore[no-untyped-def]
    """Image of a source of flux 1 on its footprint, and its derivatives.

    The image is summed in double precision, since small differences of chi² rest on it; the derivatives in single
    precision, in blocks of rows that stay in the nearest cache.

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
    """
    wide, high = stack.box[i, t, 2], stack.box[i, t, 3]
    jacobian = stack.jacobian[i, t]
    j00, j01, j10, j11 = jacobian[0, 0], jacobian[0, 1], jacobian[1, 0], jacobian[1, 1]
    x0 = stack.x[i, t] + j00 * xi + j01 * eta - stack.box[i, t, 0]
    y0 = stack.y[i, t] + j10 * xi + j11 * eta - stack.box[i, t, 1]
    sx, sxy, sy = map_on_image(j00, j01, j10, j11, value[0], value[1], value[2])
    gaussians = list_gaussians(
        stack.weight[t], stack.centre[t], stack.covariance[t, i], stack.parts[t], x0, y0, wide, high, profile, sx, sxy, sy
    )  # fmt: skip
    image = out[0][offset : offset + wide * high]
    image[:] = 0.0
    # What leads each Gaussian from row to row.
    lines = np.empty((gaussians.shape[0], 2, wide))
    rows = min(max(BLOCK // wide, 1), high) if columns > 1 else high
    block = np.empty((columns + 2) * STRIDE if columns > 1 else 0, np.float32)
    for p in range(rows * wide if columns > 1 else 0):
        block[STRIDE + p] = p % wide - x0
    for top in range(0, high, rows):
        bottom = min(top + rows, high)
        count = (bottom - top) * wide
        if columns > 1:
            for y in range(top, bottom):
                row = 2 * STRIDE + (y - top) * wide
                block[row : row + wide] = y - y0
            for c in range(3, columns + 2):
                block[c * STRIDE : c * STRIDE + count] = np.float32(0.0)
        for q in range(gaussians.shape[0]):
            begin, end = add_rows(gaussians[q], lines[q, 0], lines[q, 1], wide, top, bottom, image, block)
            if columns > 1 and end > begin:
                gather(gaussians[q], wide, begin, end, block)
        if columns > 1:
            turn_columns(block, count, jacobian, slope, out, offset + top * wide)


def profile_array(weights: Any, variances: Any) -> NDArray[np.float64]:
    """Gaussians of a profile of a fixed index as `evaluate` takes them, ``[k, 4]``."""
    zero = np.zeros(len(weights))
    return np.ascontiguousarray(np.stack([weights, variances, zero, zero], axis=1), np.float64)
