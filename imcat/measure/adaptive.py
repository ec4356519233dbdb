"""Adaptive moments: second moments under an elliptical Gaussian weight matched to the source.

The weight has the shape, size and place that it measures (Bernstein & Jarvis 2002, AJ 123, 583, section 3); the
iteration is that of Hirata & Seljak 2003 (MNRAS 343, 459, appendix C), as in the SDSS and in GalSim's
``FindAdaptiveMom``. For a Gaussian source the moments are its own; the PSF is in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.measure.errors import gaussian_lag_sum
from imcat.measure.pixels import _fetch
from imcat.measure.views import View

__all__ = ["AdaptiveMoments", "ellipse_sums", "measure_adaptive"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Squared elliptical radius at which the weight, then 2e-5, ends.
_REACH2 = 22.0
# Largest change of a step that still counts as convergence, in units of the minor axis: 1e-4 of the size. Sources that
# are seen at all take 10 to 20 steps; without light to hold them, weights wander or grow.
_CONVERGED = 3e-4
_STEPS = 30
# Largest step, in units of the minor axis (Hirata & Seljak's bound_correct_wt).
_LONGEST = 0.25
# A centroid that moves farther than this many semi-major axes (of the start and of the end) is another source's.
_ASTRAY = 2.0
_THINNEST = 0.01  # pixels²: an eighth of the variance of the pixel itself
_REPLACED = 1  # states of pixels up to this have a value, see `imcat.measure.pixels`


@dataclass(frozen=True, eq=False)
class AdaptiveMoments:
    """Adaptive moments of ``n`` sources; NaN where the iteration did not converge.

    Attributes
    ----------
    xx, xy, yy : float64 arrays [n]
        Covariance of the matched Gaussian on the axes (east, north), arcsec².
    e1, e2 : float64 arrays [n]
        Ellipticity (distortion) on the pixel axes of the reference grid: (xx - yy) / (xx + yy) and 2 xy / (xx + yy).
        The SDSS's ``mE1`` and ``mE2``, with x along columns.
    rho4 : float64 array [n]
        Weighted mean of the fourth power of the elliptical radius, 2 for a Gaussian: the SDSS's ``mCr4``.
    snr : float64 array [n]
        Signal-to-noise ratio of the flux under the matched Gaussian.
    size_err, e_err : float64 arrays [n]
        Relative error of xx + yy, and error of e1 and of e2, 1 sigma.
    dx, dy : float64 arrays [n]
        Centre of the weight from the position, reference pixels.
    converged : bool array [n]
        Whether there is a result.
    """

    xx: Float64
    xy: Float64
    yy: Float64
    e1: Float64
    e2: Float64
    rho4: Float64
    snr: Float64
    size_err: Float64
    e_err: Float64
    dx: Float64
    dy: Float64
    converged: NDArray[np.bool_]


@njit(cache=True, nogil=True)
def ellipse_sums(data, variance, owner, label, mode, mirror_x, mirror_y, x, y, form, out):  # type: ignore[no-untyped-def]
    """Moments under an elliptical Gaussian.

    Parameters
    ----------
    data, variance, owner, label, mode
        As in `imcat.measure.pixels.centroid_sums`.
    mirror_x, mirror_y : float64 arrays [n]
        Positions about which pixels are mirrored. They stay while the weight moves, or the sums would jump from one
        step to the next.
    x, y : float64 arrays [n]
        Centres of the weights within the window.
    form : float64 array [n, 3]
        The weight is ``exp(-ρ²/2)`` with ``ρ² = form0 dx² + form1 dy² + form2 dx dy``, native pixels.
    out : float64 array [n, 8]
        Filled with the weighted sums of flux, of flux times dx, dy, dx², dx dy, dy² and ρ⁴, and of the variance
        with the squared weight.
    """
    for k in range(x.size):
        own = label[k]
        q0, q1, q2 = form[k, 0], form[k, 1], form[k, 2]
        determinant = q0 * q1 - 0.25 * q2 * q2
        s, sx, sy, sxx, sxy, syy, s4, v = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        if determinant > 0 and math.isfinite(x[k] + y[k] + determinant):
            half_y = math.sqrt(_REACH2 * q0 / determinant)
            for iy in range(int(math.ceil(y[k] - half_y)), int(math.floor(y[k] + half_y)) + 1):
                dy = iy - y[k]
                # q0 dx² + q2 dy dx + (q1 dy² - reach²) = 0
                middle = -0.5 * q2 * dy / q0
                half = math.sqrt(max(middle * middle - (q1 * dy * dy - _REACH2) / q0, 0.0))
                left, right = (
                    int(math.ceil(x[k] + middle - half)),
                    int(math.floor(x[k] + middle + half)),
                )
                for ix in range(left, right + 1):
                    value, noise, state = _fetch(
                        data, variance, owner, own, mode, mirror_x[k], mirror_y[k], ix, iy
                    )
                    if state > _REPLACED:
                        continue
                    dx = ix - x[k]
                    rho2 = q0 * dx * dx + q1 * dy * dy + q2 * dx * dy
                    w = math.exp(-0.5 * rho2)
                    f = w * value
                    s += f
                    sx += f * dx
                    sy += f * dy
                    sxx += f * dx * dx
                    sxy += f * dx * dy
                    syy += f * dy * dy
                    s4 += f * rho2 * rho2
                    v += w * w * noise
        out[k, 0], out[k, 1], out[k, 2], out[k, 3] = s, sx, sy, sxx
        out[k, 4], out[k, 5], out[k, 6], out[k, 7] = sxy, syy, s4, v


def measure_adaptive(
    views: Sequence[View],
    band: str,
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    size: Float64,
    limit: Float64,
    sky: Float64,
) -> AdaptiveMoments:
    """Adaptive moments of every source in one band, its exposures together.

    Parameters
    ----------
    views : sequence of View
        The exposures; those of other bands are left aside.
    band : str
        The band, as a rule the reference band.
    label, mode
        As in `imcat.measure.pixels`.
    dx, dy : float64 arrays [n]
        Offsets of the positions from those of the views, reference pixels; first guess of the centre.
    size : float64 array [n]
        First guess of the rms size, reference pixels.
    limit : float64 array [n]
        Radius within which there are pixels, reference pixels; a weight that reaches farther has failed.
    sky : float64 array [n, 2, 2]
        Derivatives of (east, north) in arcsec by (x, y) of the reference grid (`imcat.measure.views.pixel_to_sky`).
    """
    n = label.size
    seen = [view for view in views if view.layer.band == band]
    state = _State(
        np.column_stack([dx, dy]).astype(np.float64),
        np.column_stack([size**2, np.zeros(n), size**2]).astype(np.float64),
        np.full((n, 8), np.nan),
        np.full(n, np.inf),
    )
    if n and seen:
        _iterate(seen, label, mode, limit, state.centre.copy(), state)
    return _result(seen, state, np.column_stack([dx, dy]), size, sky)


@dataclass(frozen=True, eq=False)
class _State:
    """Where the iteration stands; arrays are changed in place.

    Centre [n, 2] and covariance [n, 3] (xx, xy, yy) of the weight, reference pixels; sums of the last step [n, 8];
    change by the last step.
    """

    centre: Float64
    covariance: Float64
    sums: Float64
    change: Float64


def _iterate(
    views: Sequence[View], label: Int64, mode: int, limit: Float64, start: Float64, state: _State
) -> None:
    """Step until each source has converged; none waits for another."""
    active = np.flatnonzero(limit > 0)
    first = np.sqrt(_minor(state.covariance))
    for _ in range(_STEPS):
        if not active.size:
            return
        centre, covariance = state.centre[active], state.covariance[active]
        sums = _sums(views, label[active], mode, active, start[active], centre, covariance)
        minor = _minor(covariance)
        unit = np.sqrt(minor)
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = 2 * sums[:, 1:3] / (sums[:, :1] * unit[:, None])
            # Twice Newton's step for a Gaussian's second moments, as Hirata & Seljak take it.
            change = 4 * (sums[:, 3:6] / sums[:, :1] - 0.5 * covariance) / minor[:, None]
        good = np.isfinite(shift).all(axis=1) & np.isfinite(change).all(axis=1) & (sums[:, 0] > 0)
        shift, change = (np.clip(np.nan_to_num(v), -_LONGEST, _LONGEST) for v in (shift, change))
        largest = np.maximum(np.abs(shift).max(axis=1), np.abs(change).max(axis=1))
        largest *= np.maximum(first[active] / unit, 1.0)
        state.sums[active] = sums
        state.change[active] = np.where(good, largest, np.inf)
        centre = centre + shift * unit[:, None]
        covariance = covariance + change * minor[:, None]
        # A line of pixels is no source, and beyond the limit the result would be that of the window's border.
        good &= (_minor(covariance) > _THINNEST) & (_major(covariance) * _REACH2 <= limit[active] ** 2)
        state.centre[active] = centre
        state.covariance[active] = covariance
        state.change[active[~good]] = np.inf
        active = active[good & (largest > _CONVERGED)]
    state.change[active] = np.inf


def _sums(
    views: Sequence[View],
    label: Int64,
    mode: int,
    active: Int64,
    start: Float64,
    centre: Float64,
    covariance: Float64,
) -> Float64:
    """Sums of `ellipse_sums` over exposures, with offsets in reference pixels; weighted by the exposures' noise."""
    total = np.zeros((active.size, 8))
    form = _form(covariance)
    best = max(_depth(view) for view in views)
    for whole in views:
        view = whole.take(active)
        mirror, (x, y) = view.shifted(*start.T), view.shifted(*centre.T)
        sums = np.empty((active.size, 8))
        cut = view.cutout
        ellipse_sums(
            cut.data, cut.variance, view.owner, label, mode, *mirror, x, y, view.native_form(form), sums
        )  # fmt: skip
        i = view.inverse
        a, b, c, d = i[:, 0, 0], i[:, 0, 1], i[:, 1, 0], i[:, 1, 1]
        bx, by, cxx, cxy, cyy = sums[:, 1:6].T
        mapped = np.column_stack([
            sums[:, 0],
            a * bx + b * by,
            c * bx + d * by,
            a * a * cxx + 2 * a * b * cxy + b * b * cyy,
            a * c * cxx + (a * d + b * c) * cxy + b * d * cyy,
            c * c * cxx + 2 * c * d * cxy + d * d * cyy,
            sums[:, 6],
        ])  # fmt: skip
        share = np.where(view.inside, _depth(whole) / best, 0.0)
        total[:, :7] += share[:, None] * mapped
        width = np.sqrt(_mean_size(covariance)) * view.scale
        lags = gaussian_lag_sum(view.layer.noise.covariance, width)
        total[:, 7] += share**2 * sums[:, 7] * np.maximum(1 + lags, 0.05)
    return total


def _depth(view: View) -> float:
    """Inverse variance of an exposure, relative to others of its band."""
    return float(1 / view.layer.noise.rms**2)


def _form(covariance: Float64) -> Float64:
    """Inverse of covariances [n, 3] as quadratic forms [n, 3]."""
    xx, xy, yy = covariance.T
    determinant = xx * yy - xy**2
    return np.column_stack([yy / determinant, xx / determinant, -2 * xy / determinant])


def _minor(covariance: Float64) -> Float64:
    """Variance along the minor axis."""
    xx, xy, yy = covariance.T
    return np.asarray(0.5 * (xx + yy) - np.hypot(0.5 * (xx - yy), xy))


def _major(covariance: Float64) -> Float64:
    """Variance along the major axis."""
    xx, xy, yy = covariance.T
    return np.asarray(0.5 * (xx + yy) + np.hypot(0.5 * (xx - yy), xy))


def _mean_size(covariance: Float64) -> Float64:
    """Square root of the determinant: squared size, as GalSim's ``moments_sigma``."""
    xx, xy, yy = covariance.T
    return np.asarray(np.sqrt(np.maximum(xx * yy - xy**2, 0)))


def _result(
    views: Sequence[View], state: _State, start: Float64, size: Float64, sky: Float64
) -> AdaptiveMoments:
    """Moments on the sky with errors."""
    xx, xy, yy = state.covariance.T
    half = 0.5 * (xx + yy)
    with np.errstate(invalid="ignore"):
        major = np.sqrt(_major(state.covariance))
        moved = np.hypot(*(state.centre - start).T)
        converged = (state.change <= _CONVERGED) & (moved <= _ASTRAY * np.maximum(major, size))
    # Errors for a Gaussian source. Its flux is twice the sum under the weight; with ν the signal-to-noise ratio
    # of a fit with known shape, the variances of e1, e2 and ln(xx + yy) are all 4 / ν² (the inverse of
    # the Fisher matrix, as in Bernstein & Jarvis 2002, section 3.1), that of the source's photons 64/27 / N.
    light, noise = 2 * state.sums[:, 0], state.sums[:, 7]
    with np.errstate(invalid="ignore", divide="ignore"):
        # The sum of squared weights is π σ², that of a fit's normalised profile squared 1 / (4 π σ²).
        sky_variance = 4 * noise
        snr2 = light**2 / sky_variance
        photons = _photons(views, light)
        e_err = np.sqrt(4 / snr2 + 64 / 27 / photons)
        # <(x² + y² - 1)²> of the photons under the squared weight is 5/27 more than that of e1.
        size_err = np.sqrt(4 / snr2 + 80 / 27 / photons)
        rho4 = state.sums[:, 6] / state.sums[:, 0]
        e1, e2 = 0.5 * (xx - yy) / half, xy / half
    a, b, c, d = sky[:, 0, 0], sky[:, 0, 1], sky[:, 1, 0], sky[:, 1, 1]
    columns = {
        "xx": a * a * xx + 2 * a * b * xy + b * b * yy,
        "xy": a * c * xx + (a * d + b * c) * xy + b * d * yy,
        "yy": c * c * xx + 2 * c * d * xy + d * d * yy,
        "e1": e1, "e2": e2, "rho4": rho4, "snr": np.sqrt(snr2), "size_err": size_err, "e_err": e_err,
        "dx": state.centre[:, 0] - start[:, 0], "dy": state.centre[:, 1] - start[:, 1],
    }  # fmt: skip
    return AdaptiveMoments(
        **{name: np.where(converged, values, np.nan) for name, values in columns.items()}, converged=converged
    )


def _photons(views: Sequence[View], light: Float64) -> Float64:
    """Electrons of each source in all exposures; infinite where the gain is unknown."""
    gains = [view.layer.exposure.gain for view in views]
    if not gains or any(gain is None for gain in gains):
        return np.full(light.shape, np.inf)
    share = [_depth(view) for view in views]
    total = sum(s for s in share) / max(share)
    # `light` is the sum over exposures of the share of each times the flux.
    return np.asarray(np.maximum(light, 0) / total * sum(g for g in gains if g is not None))
