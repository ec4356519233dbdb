"""A mixture of Gaussians fitted to the pixels of many stars at once.

Gauss-Newton with damping (Levenberg 1944, Marquardt 1963): flux, centre and sky of each star are eliminated
from the normal equations, so their number costs little. Wide Gaussians of fixed width stand for the wings;
only their weights are fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.psf.star_stamps import Stamps

__all__ = ["FitState", "fit_stars", "star_residuals"]

Float64 = NDArray[np.float64]

_OWN = 4  # parameters of one star: flux, x, y, sky
_WEIGHT_PRIOR = 0.5  # standard deviation of a weight: large ones of both signs cancel to no avail
_WING_PRIOR = 1.5  # standard deviation of the logarithm of the weight of a wing
_FAR = 40.0  # squared distance, in units of a Gaussian's own width, beyond which it counts as at that distance (2e-9)
_REFRESH = (0, 1, 3, 6)  # steps before which the noise of the pixels is taken from the model anew
_HALVINGS = 8
_NARROW, _WIDE = 0.1, 400.0  # pixels²; smallest and largest variance of a Gaussian of the core
_CONVERGED = 3e-5  # relative change of chi², which is a few 1e4
_OUTLIER = 4.0  # residuals beyond, in their noise, count as if they were that large


@dataclass(frozen=True, eq=False)
class FitState:
    """A fitted model.

    Attributes
    ----------
    weights : float64 array, ``[k]``
        The core's Gaussians first, then the wings'; they sum to 1.
    covariances : float64 array, ``[k, 3]``
        xx, xy, yy, pixels², where all terms of the polynomial are 0.
    variation : float64 array, ``[k, 3, m]``
        Coefficients of the terms; 0 for wings.
    own : float64 array, ``[n, 4]``
        Flux, x and y offset, sky of each star.
    chi2 : float
        Of the fit, robust.
    """

    weights: Float64
    covariances: Float64
    variation: Float64
    own: Float64
    chi2: float


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
        row = d[_OWN + j]
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
            c = _OWN + k + 3 * j
            first, second, third = d[c], d[c + 1], d[c + 2]
            for p in range(np.uint64(n)):
                first[p] = half * g[p] * (ax[p] * ax[p] - ixx)
                second[p] = g[p] * (ax[p] * ay[p] - ixy)
                third[p] = half * g[p] * (ay[p] * ay[p] - iyy)


@njit(cache=True, nogil=True)
def _accumulate(  # type: ignore[no-untyped-def]
    start, u, v, value, noise, own, amplitude, covariance, fixed, matrix, gradient, chi2, light, outlier
):  # fmt: skip
    """Normal matrix and gradient of each star in its own and the local shape parameters.

    ``covariance[n, k, 3]``; the first ``k - fixed`` Gaussians have free covariances. Order of the
    parameters: flux, x, y, sky, k amplitudes, 3 (k - fixed) covariances. `light` is filled with the
    model of each pixel; `noise` is its variance, which must not depend on the parameters that are
    fitted, or large models would be favoured. Pixels are in single precision, sums over stars are not.
    """
    k = amplitude.size
    size = _OWN + k + 3 * (k - fixed)
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


def star_residuals(
    stamps: Stamps, terms: Float64, state: FitState, fixed: int, gain: float, model_error: float,
    sky_sigma: float, steps: int = 4,
) -> tuple[Float64, Float64]:  # fmt: skip
    """Fit flux, centre and sky of stars with the PSF held; chi² and number of pixels of each.

    Parameters are those of `fit_stars`.
    """
    covariance = _at(state.covariances, state.variation, terms)
    own = _first_guess(stamps, state.weights, covariance)
    k = len(state.weights)
    size = _OWN + k + 3 * (k - fixed)
    n = len(stamps)
    matrix, gradient, chi2 = np.zeros((n, size, size)), np.zeros((n, size)), np.zeros(n)
    light = np.maximum(stamps.value.astype(float), 0.0)
    for step in range(steps):
        noise = _pixel_noise(stamps, light, gain, model_error)
        _accumulate(
            stamps.start, stamps.u, stamps.v, stamps.value, noise, own, state.weights, covariance,
            fixed, matrix, gradient, chi2, light, _OUTLIER,
        )  # fmt: skip
        if step < steps - 1:
            own_step = np.zeros((n, _OWN))
            _assemble(
                matrix, gradient, own, np.ones((n, 1)), k, sky_sigma**-2, np.zeros((size - _OWN,) * 2),
                np.zeros(size - _OWN), np.zeros((n, _OWN, size - _OWN)), own_step,
            )  # fmt: skip
            own = _limited(own, own_step)
    return chi2, np.diff(stamps.start).astype(float)


def _pixel_noise(stamps: Stamps, light: Float64, gain: float, model_error: float) -> Float64:
    """Variance of each pixel: sky and detector, the star's photons, errors of the model."""
    return np.asarray(stamps.variance + light / gain + (model_error * light) ** 2)


def _limited(own: Float64, step: Float64) -> Float64:
    """Own parameters after a step; no centre moves by more than half a pixel at once."""
    step = step.copy()
    step[:, 1:3] = np.clip(step[:, 1:3], -0.5, 0.5)
    new = own + step
    new[:, 1:3] = np.clip(new[:, 1:3], -2.0, 2.0)
    return new


def _at(covariances: Float64, variation: Float64, terms: Float64) -> Float64:
    """Covariances at each star, ``[n, k, 3]``; `terms` is ``[n, m]``."""
    return np.ascontiguousarray(covariances + np.sum(variation * terms[:, None, None, :], axis=-1))


def _first_guess(stamps: Stamps, weights: Float64, covariance: Float64) -> Float64:
    """Flux of each star by least squares at its given place."""
    own = np.zeros((len(stamps), _OWN))
    star = np.repeat(np.arange(len(stamps)), np.diff(stamps.start))
    u, v = stamps.u.astype(float), stamps.v.astype(float)
    shape = np.zeros(len(u))
    for j in range(len(weights)):
        xx, xy, yy = covariance[:, j].T
        det = xx * yy - xy**2
        q = (yy[star] * u * u - 2 * xy[star] * u * v + xx[star] * v * v) / det[star]
        shape += weights[j] / (2 * np.pi * np.sqrt(det[star])) * np.exp(-0.5 * q)
    w = shape / stamps.variance
    above = np.bincount(star, w * stamps.value, len(stamps))
    own[:, 0] = above / np.maximum(np.bincount(star, w * shape, len(stamps)), 1e-300)
    return own


def fit_stars(
    stamps: Stamps,
    terms: Float64,
    weights: Float64,
    covariances: Float64,
    fixed: int,
    *,
    variation: Float64 | None = None,
    grid: Float64 | None = None,
    gain: float = math.inf,
    model_error: float = 0.02,
    sky_sigma: float = math.inf,
    stiffness: float = 0.3,
    steps: int = 40,
) -> FitState:
    """Fit a mixture of Gaussians whose covariances change over the image.

    Parameters
    ----------
    stamps : Stamps
        Pixels of the stars.
    terms : float64 array, ``[n, m]``
        Terms of the polynomial at each star, without the constant; m may be 0.
    weights, covariances : float64 arrays, ``[k]`` and ``[k, 3]``
        First guess.
    fixed : int
        The last so many Gaussians are wings: they keep their covariances and do not vary.
    variation : float64 array, ``[k, 3, m]``, optional
        First guess.
    grid : float64 array, ``[p, m]``, optional
        Terms at places where the covariances must stay positive; default: at the stars.
    gain : float
        Electrons for one unit of the image.
    model_error : float
        Error of the model as a fraction of itself: bright stars would else ask for more than
        Gaussians can give, at the cost of the others.
    sky_sigma : float
        Standard deviation of the sky that was left around stars.
    stiffness : float
        Standard deviation of the coefficients of the variation, in units of the covariance.
    steps : int
        Largest number of steps.

    Returns
    -------
    FitState
    """
    k, m, free = len(weights), terms.shape[1], len(weights) - fixed
    weights, covariances = weights.astype(float), covariances.astype(float)
    variation = np.zeros((k, 3, m)) if variation is None else variation
    places = terms if grid is None else np.concatenate([terms, grid])
    size = _OWN + k + 3 * free
    n = len(stamps)
    matrix, gradient, chi2 = np.zeros((n, size, size)), np.zeros((n, size)), np.zeros(n)
    own = _first_guess(stamps, weights, _at(covariances, variation, terms))
    basis = np.concatenate([np.ones((n, 1)), terms], axis=1)  # [n, 1 + m]

    def evaluate(w: Float64, c: Float64, a: Float64, o: Float64) -> float:
        _accumulate(
            stamps.start, stamps.u, stamps.v, stamps.value, noise, o, w, _at(c, a, terms),
            fixed, matrix, gradient, chi2, light, _OUTLIER,
        )  # fmt: skip
        scale = np.sqrt(np.abs(c[:free, 0] * c[:free, 2]))
        prior = np.sum((a[:free] / (stiffness * scale[:, None, None])) ** 2)
        prior += np.sum((w[:free] / _WEIGHT_PRIOR) ** 2)
        prior += np.sum((np.log(w[free:] / wings) / _WING_PRIOR) ** 2)
        return float(chi2.sum() + prior + np.sum((o[:, 3] / sky_sigma) ** 2))

    wings = weights[free:].copy()
    light = np.maximum(stamps.value.astype(float), 0.0)
    damping, best = 1e-2, 0.0
    common = k + 3 * free * basis.shape[1]
    hessian, right = np.zeros((common, common)), np.zeros(common)
    back, own_step = np.zeros((n, _OWN, size - _OWN)), np.zeros((n, _OWN))
    for round_ in range(steps):
        if round_ in _REFRESH:
            noise = _pixel_noise(stamps, light, gain, model_error)
            best = evaluate(weights, covariances, variation, own)
        _assemble(matrix, gradient, own, basis, k, sky_sigma**-2, hessian, right, back, own_step)
        _with_priors(hessian, right, free, weights, wings, covariances, variation, stiffness)
        improved = False
        for _ in range(8):
            damped, answer = hessian.copy(), np.zeros((common, 1))
            diagonal = np.diag(hessian)
            damped[np.diag_indices(common)] += damping * diagonal + 1e-12 * diagonal.max()
            if not _cholesky_solve(damped, right[:, None], answer):
                damping *= 6
                continue
            step = answer[:, 0]
            w, c, a = _apply(weights, covariances, variation, step, k, free)
            c, a = _repaired(c, a, (covariances, variation), places, free)
            total = w.sum()
            # A star's own parameters answer to the common step.
            shape = np.concatenate([(c - covariances)[:free, :, None], (a - variation)[:free]], axis=2)
            local = _local_step(w - weights, np.moveaxis(shape, 2, 0).ravel(), basis, free)
            o = _limited(own, own_step - np.sum(back * local[:, None, :], axis=2))
            w, o = w / total, o * np.array([total, 1.0, 1.0, 1.0])
            if total > 0:
                new = evaluate(w, c, a, o)
                if new < best:
                    improved = True
                    break
            damping *= 6
        if not improved:
            break
        weights, covariances, variation, own = w, c, a, o
        done = best - new < _CONVERGED * best and round_ >= _REFRESH[-1] and damping < 1
        best, damping = new, max(damping / 8, 1e-7)
        if done:
            break
    return FitState(weights, covariances, variation, own, best)


@njit(cache=True, nogil=True)
def _cholesky_solve(matrix, right, out):  # type: ignore[no-untyped-def]
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
def _assemble(matrix, gradient, own, basis, k, sky_precision, hessian, total, back, own_step):  # type: ignore[no-untyped-def]
    """Normal equations of the common parameters, each star's own eliminated (Schur's complement).

    Order: k weights, then for each term (the constant first) the free covariances. ``back[n, 4, p]`` and
    ``own_step[n, 4]`` give a star's own step: ``own_step - back @ common``.
    """
    n, size = gradient.shape
    p, terms = size - _OWN, basis.shape[1]
    q = p - k
    block, right = np.empty((_OWN, _OWN)), np.empty((_OWN, p + 1))
    solved = np.empty((_OWN, p + 1))
    hessian[:, :] = 0.0
    total[:] = 0.0
    local, slope = np.empty((p, p)), np.empty(p)
    for s in range(n):
        for a in range(_OWN):
            for b in range(_OWN):
                block[a, b] = matrix[s, a, b]
            for b in range(p):
                right[a, b] = matrix[s, a, _OWN + b]
            right[a, p] = gradient[s, a]
        block[3, 3] += sky_precision
        right[3, p] -= own[s, 3] * sky_precision
        for a in range(_OWN):
            block[a, a] = block[a, a] * (1 + 1e-9) + 1e-12
        if not _cholesky_solve(block, right, solved):
            solved[:, :] = 0.0
        for a in range(_OWN):
            own_step[s, a] = solved[a, p]
            for b in range(p):
                back[s, a, b] = solved[a, b]
        for a in range(p):
            slope[a] = gradient[s, _OWN + a]
            for c in range(_OWN):
                slope[a] -= right[c, a] * own_step[s, c]
            for b in range(p):
                local[a, b] = matrix[s, _OWN + a, _OWN + b]
                for c in range(_OWN):
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


def _with_priors(
    hessian: Float64, total: Float64, free: int, weights: Float64, wings: Float64, covariances: Float64,
    variation: Float64, stiffness: float,
) -> None:  # fmt: skip
    """Add to the normal equations what is known beforehand; wings enter by the logarithms of their weights."""
    k, q = len(weights), 3 * free
    # The flux scale is one too many: weights that sum to 1 fix it (scaled to the matrix at hand).
    hessian[:k, :k] += np.trace(hessian[:k, :k]) / k
    slope = np.ones(len(total))
    slope[free:k] = weights[free:]  # of a weight by its logarithm
    hessian *= slope[:, None] * slope
    total *= slope
    cores, logs = np.arange(free), np.arange(free, k)
    hessian[cores, cores] += _WEIGHT_PRIOR**-2
    total[cores] -= weights[:free] * _WEIGHT_PRIOR**-2
    hessian[logs, logs] += _WING_PRIOR**-2
    total[logs] -= np.log(weights[free:] / wings) * _WING_PRIOR**-2
    scale = np.repeat(np.sqrt(np.abs(covariances[:free, 0] * covariances[:free, 2])), 3) * stiffness
    index = np.arange(k + q, len(total))
    inverse = np.tile(scale**-2, index.size // q)
    hessian[index, index] += inverse
    total[index] -= inverse * np.moveaxis(variation[:free], 2, 0).reshape(-1)


def _apply(
    weights: Float64, covariances: Float64, variation: Float64, step: Float64, k: int, free: int
) -> tuple[Float64, Float64, Float64]:
    w, c, a = weights.copy(), covariances.copy(), variation.copy()
    w[:free] += step[:free]
    w[free:] *= np.exp(np.clip(step[free:k], -2.0, 2.0))
    shape = step[k:].reshape(-1, free, 3)
    c[:free] += shape[0]
    a[:free] += np.moveaxis(shape[1:], 0, 2)
    return w, c, a


def _local_step(weights: Float64, shape: Float64, basis: Float64, free: int) -> Float64:
    """The common step as each star sees it, ``[n, k + 3 free]``."""
    covariances = np.sum(basis[:, :, None] * shape.reshape(1, basis.shape[1], 3 * free), axis=1)
    return np.concatenate([np.broadcast_to(weights, (len(basis), len(weights))), covariances], axis=1)


def _repaired(
    covariances: Float64, variation: Float64, old: tuple[Float64, Float64], terms: Float64, free: int
) -> tuple[Float64, Float64]:
    """The same with every Gaussian of the core that is impossible somewhere made possible.

    Faint Gaussians wander: their variation is halved until they stay wider than a fraction of a
    pixel over the whole image; what no halving helps stays as it was. The others go on.
    """
    covariances, variation = covariances.copy(), variation.copy()
    for halving in range(_HALVINGS + 1):
        xx, xy, yy = np.moveaxis(_at(covariances[:free], variation[:free], terms), -1, 0)
        good = (xx > _NARROW) & (yy > _NARROW) & (xx * yy - xy**2 > 0.5 * _NARROW**2)
        good &= (xx < _WIDE) & (yy < _WIDE)
        wrong = np.flatnonzero(~good.all(axis=0))
        if not wrong.size:
            break
        if halving < _HALVINGS:
            variation[wrong] *= 0.5
        else:
            covariances[wrong], variation[wrong] = old[0][wrong], old[1][wrong]
    return covariances, variation
