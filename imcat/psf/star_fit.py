"""A mixture of Gaussians fitted to the pixels of many stars at once.

Gauss-Newton with damping (Levenberg 1944, Marquardt 1963): flux, centre and sky of each star are eliminated
from the normal equations, so their number costs little. Wide Gaussians of fixed width stand for the wings;
only their weights are fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.psf.star_equations import OWN, accumulate, assemble, cholesky_solve
from imcat.psf.star_stamps import Stamps

__all__ = ["FitState", "fit_stars", "star_residuals"]

Float64 = NDArray[np.float64]

_WEIGHT_PRIOR = 0.5  # standard deviation of a weight: large ones of both signs cancel to no avail
_WING_PRIOR = 1.5  # standard deviation of the logarithm of the weight of a wing
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
    size = OWN + k + 3 * (k - fixed)
    n = len(stamps)
    matrix, gradient, chi2 = np.zeros((n, size, size)), np.zeros((n, size)), np.zeros(n)
    light = np.maximum(stamps.value.astype(float), 0.0)
    for step in range(steps):
        noise = _pixel_noise(stamps, light, gain, model_error)
        accumulate(
            stamps.start, stamps.u, stamps.v, stamps.value, noise, own, state.weights, covariance,
            fixed, matrix, gradient, chi2, light, _OUTLIER,
        )  # fmt: skip
        if step < steps - 1:
            own_step = np.zeros((n, OWN))
            assemble(
                matrix, gradient, own, np.ones((n, 1)), k, sky_sigma**-2, np.zeros((size - OWN,) * 2),
                np.zeros(size - OWN), np.zeros((n, OWN, size - OWN)), own_step,
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
    own = np.zeros((len(stamps), OWN))
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
    size = OWN + k + 3 * free
    n = len(stamps)
    matrix, gradient, chi2 = np.zeros((n, size, size)), np.zeros((n, size)), np.zeros(n)
    own = _first_guess(stamps, weights, _at(covariances, variation, terms))
    basis = np.concatenate([np.ones((n, 1)), terms], axis=1)  # [n, 1 + m]

    def evaluate(w: Float64, c: Float64, a: Float64, o: Float64) -> float:
        accumulate(
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
    back, own_step = np.zeros((n, OWN, size - OWN)), np.zeros((n, OWN))
    for round_ in range(steps):
        if round_ in _REFRESH:
            noise = _pixel_noise(stamps, light, gain, model_error)
            best = evaluate(weights, covariances, variation, own)
        assemble(matrix, gradient, own, basis, k, sky_sigma**-2, hessian, right, back, own_step)
        _with_priors(hessian, right, free, weights, wings, covariances, variation, stiffness)
        improved = False
        for _ in range(8):
            damped, answer = hessian.copy(), np.zeros((common, 1))
            diagonal = np.diag(hessian)
            damped[np.diag_indices(common)] += damping * diagonal + 1e-12 * diagonal.max()
            if not cholesky_solve(damped, right[:, None], answer):
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
