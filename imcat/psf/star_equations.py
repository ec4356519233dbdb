"""Normal equations of stars and of the mixture of Gaussians that they share, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["OWN", "accumulate", "assemble", "cholesky_solve"]

OWN = 4  # parameters of one star: flux, x, y, sky
_FAR = 40.0  # squared distance, in units of a Gaussian's own width, beyond which it counts as at that distance (2e-9)

# Coefficients of exp(r) for |r| < ln(2) / 2 and the two parts of ln(2), single precision (Cephes library, `expf`,
# S. L. Moshier 1989). Errors are 1e-7 of the value.
_E5, _E4, _E3, _E2, _E1 = (
    np.float32(v)
    for v in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1)
)
_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _exponentials(x, n, power, scale, out):  # type: ignore[no-untyped-def]
    """Exponential of the first n numbers, -87 < x <= 0; `scale` is `power` seen as float32. All lanes at once."""
    half, one = np.float32(0.5), np.float32(1.0)
    for p in range(np.uint64(n)):
        whole = np.floor(x[p] * _LOG2E + half)
        r = (x[p] - whole * _LN2_HIGH) - whole * _LN2_LOW
        series = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + half
        out[p] = series * r * r + r + one
        power[p] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for p in range(np.uint64(n)):
        out[p] *= scale[p]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(a, b, n):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for p in range(np.uint64(n)):
        total += a[p] * b[p]
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _derivatives(u, v, flux, ox, oy, amplitude, covariance, fixed, d, power, scale, work):  # type: ignore[no-untyped-def]
    """Derivatives of a star's model on its pixels, ``d[parameter, pixel]``, without those that are sums."""
    n, k = u.size, amplitude.size
    free = k - fixed
    ax, ay, q, g = work[0], work[1], work[2], work[3]
    for p in range(np.uint64(n)):
        d[0, p] = d[1, p] = d[2, p] = np.float32(0.0)
        d[3, p] = np.float32(1.0)
    half, far = np.float32(0.5), np.float32(_FAR)
    for j in range(k):
        xx, xy, yy = covariance[j, 0], covariance[j, 1], covariance[j, 2]
        det = xx * yy - xy * xy
        ixx, ixy, iyy = np.float32(yy / det), np.float32(-xy / det), np.float32(xx / det)
        norm = np.float32(flux / (2 * math.pi * math.sqrt(det)))
        for p in range(np.uint64(n)):
            ex, ey = u[p] - ox, v[p] - oy
            bx, by = ixx * ex + ixy * ey, ixy * ex + iyy * ey
            ax[p], ay[p] = bx, by
            # Farther away it is nothing.
            q[p] = -half * min(bx * ex + by * ey, far)
        _exponentials(q, n, power, scale, g)
        share = np.float32(amplitude[j])
        row = d[OWN + j]
        gx, gy, total = d[1], d[2], d[0]
        for p in range(np.uint64(n)):
            value = norm * g[p]
            row[p] = value
            value *= share
            g[p] = value
            total[p] += value
            gx[p] += value * ax[p]
            gy[p] += value * ay[p]
        if j < free:
            c = OWN + k + 3 * j
            first, second, third = d[c], d[c + 1], d[c + 2]
            for p in range(np.uint64(n)):
                first[p] = half * g[p] * (ax[p] * ax[p] - ixx)
                second[p] = g[p] * (ax[p] * ay[p] - ixy)
                third[p] = half * g[p] * (ay[p] * ay[p] - iyy)


@njit(cache=True, nogil=True)
def accumulate(  # type: ignore[no-untyped-def]
    start, u, v, value, noise, own, amplitude, covariance, fixed, matrix, gradient, chi2, light, outlier
):  # fmt: skip
    """Normal matrix and gradient of each star in its own and the local shape parameters.

    ``covariance[n, k, 3]``; the first ``k - fixed`` Gaussians have free covariances. Order of the
    parameters: flux, x, y, sky, k amplitudes, 3 (k - fixed) covariances. `light` is filled with the
    model of each pixel; `noise` is its variance, which must not depend on the parameters that are
    fitted, or large models would be favoured. Pixels are in single precision, sums over stars are not.
    """
    k = amplitude.size
    size = OWN + k + 3 * (k - fixed)
    most = 0
    for s in range(start.size - 1):
        most = max(most, start[s + 1] - start[s])
    d, work = np.empty((size, most), np.float32), np.empty((4, most), np.float32)
    power = np.empty(most, np.int32)
    scale = power.view(np.float32)
    weighted, residual, weight = (
        np.empty(most, np.float32),
        np.empty(most, np.float32),
        np.empty(most, np.float32),
    )
    for s in range(start.size - 1):
        first, last = start[s], start[s + 1]
        n = last - first
        flux, sky = own[s, 0], own[s, 3]
        # Derivatives are those of the star's flux in units of itself.
        unit = flux if flux != 0 else 1.0
        _derivatives(
            u[first:last], v[first:last], unit, np.float32(own[s, 1]), np.float32(own[s, 2]), amplitude,
            covariance[s], fixed, d, power, scale, work,
        )  # fmt: skip
        total = 0.0
        for p in range(n):
            model = d[0, p] * (flux / unit)
            light[first + p] = max(model, 0.0)
            off = value[first + p] - model - sky
            w = 1.0 / noise[first + p]
            pull = abs(off) * math.sqrt(w)
            if pull > outlier:  # Huber's weight
                w *= outlier / pull
                total += outlier * (2 * pull - outlier)
            else:
                total += pull * pull
            residual[p], weight[p] = off, w
        chi2[s] = total
        for a in range(size):
            row = d[a]
            for p in range(n):
                weighted[p] = weight[p] * row[p]
            gradient[s, a] = _dot(weighted, residual, n)
            for b in range(a + 1):
                matrix[s, a, b] = _dot(weighted, d[b], n)
        # The first row held the flux times the profile.
        gradient[s, 0] /= unit
        for a in range(size):
            matrix[s, a, 0] /= unit
        matrix[s, 0, 0] /= unit
        for a in range(size):
            for b in range(a):
                matrix[s, b, a] = matrix[s, a, b]


@njit(cache=True, nogil=True)
def cholesky_solve(matrix, right, out):  # type: ignore[no-untyped-def]
    """Solve ``matrix @ out = right`` for several right sides ``[n, m]``; the matrix is destroyed.

    Small and in one thread: a threaded library would be slower here, and its last bits depend on the
    number of threads. Returns False if the matrix is not positive definite.
    """
    n, m = right.shape
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                if not total > 0:
                    return False
                matrix[i, i] = math.sqrt(total)
            else:
                matrix[i, j] = total / matrix[j, j]
    for c in range(m):
        for i in range(n):
            total = right[i, c]
            for k in range(i):
                total -= matrix[i, k] * out[k, c]
            out[i, c] = total / matrix[i, i]
        for i in range(n - 1, -1, -1):
            total = out[i, c]
            for k in range(i + 1, n):
                total -= matrix[k, i] * out[k, c]
            out[i, c] = total / matrix[i, i]
    return True


@njit(cache=True, nogil=True)
def assemble(matrix, gradient, own, basis, k, sky_precision, hessian, total, back, own_step):  # type: ignore[no-untyped-def]
    """Normal equations of the common parameters, each star's own eliminated (Schur's complement).

    Order: k weights, then for each term (the constant first) the free covariances. ``back[n, 4, p]`` and
    ``own_step[n, 4]`` give a star's own step: ``own_step - back @ common``.
    """
    n, size = gradient.shape
    p, terms = size - OWN, basis.shape[1]
    q = p - k
    block, right = np.empty((OWN, OWN)), np.empty((OWN, p + 1))
    solved = np.empty((OWN, p + 1))
    hessian[:, :] = 0.0
    total[:] = 0.0
    local, slope = np.empty((p, p)), np.empty(p)
    for s in range(n):
        for a in range(OWN):
            for b in range(OWN):
                block[a, b] = matrix[s, a, b]
            for b in range(p):
                right[a, b] = matrix[s, a, OWN + b]
            right[a, p] = gradient[s, a]
        block[3, 3] += sky_precision
        right[3, p] -= own[s, 3] * sky_precision
        for a in range(OWN):
            block[a, a] = block[a, a] * (1 + 1e-9) + 1e-12
        if not cholesky_solve(block, right, solved):
            solved[:, :] = 0.0
        for a in range(OWN):
            own_step[s, a] = solved[a, p]
            for b in range(p):
                back[s, a, b] = solved[a, b]
        for a in range(p):
            slope[a] = gradient[s, OWN + a]
            for c in range(OWN):
                slope[a] -= right[c, a] * own_step[s, c]
            for b in range(p):
                local[a, b] = matrix[s, OWN + a, OWN + b]
                for c in range(OWN):
                    local[a, b] -= right[c, a] * solved[c, b]
        for a in range(k):
            total[a] += slope[a]
            for b in range(k):
                hessian[a, b] += local[a, b]
        for t in range(terms):
            for b in range(q):
                column = k + t * q + b
                total[column] += basis[s, t] * slope[k + b]
                for a in range(k):
                    value = basis[s, t] * local[a, k + b]
                    hessian[a, column] += value
                    hessian[column, a] += value
            for r in range(terms):
                factor = basis[s, t] * basis[s, r]
                for a in range(q):
                    for b in range(q):
                        hessian[k + t * q + a, k + r * q + b] += factor * local[k + a, k + b]
