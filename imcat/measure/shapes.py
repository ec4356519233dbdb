"""Ellipses: footprint moments, Kron radius, half-light radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.measure.pixels import growth_sums, radial_moment
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import View

__all__ = ["Ellipses", "Kron", "half_light", "kron_radius", "moment_ellipses", "sky_angle"]

Float64 = NDArray[np.float64]

_RINGS = 60  # of the growth curve


@dataclass(frozen=True, eq=False)
class Ellipses:
    """Rms ellipses on the reference grid, arrays ``[n]``.

    Attributes
    ----------
    a, b : float64
        Semi-axes, pixels.
    theta : float64
        Angle of the major axis from x towards y, radians.
    form : float64 array [n, 3]
        ``form0 dx² + form1 dy² + form2 dx dy = 1`` on the ellipse.
    """

    a: Float64
    b: Float64
    theta: Float64
    form: Float64


def moment_ellipses(xx: Float64, yy: Float64, xy: Float64) -> Ellipses:
    """Ellipses of second moments (pixels², arrays ``[n]``).

    The minor axis is kept above a twentieth of the major one, so that a line of pixels remains
    an ellipse.
    """
    half, spread = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    a = np.sqrt(half + spread)
    b = np.sqrt(np.maximum(half - spread, (0.05 * a) ** 2))
    theta = 0.5 * np.arctan2(2 * xy, xx - yy)
    c, s = np.cos(theta), np.sin(theta)
    form = np.stack(
        [(c / a) ** 2 + (s / b) ** 2, (s / a) ** 2 + (c / b) ** 2, 2 * c * s * (1 / a**2 - 1 / b**2)], axis=1
    )
    return Ellipses(a, b, theta, form)


@dataclass(frozen=True, eq=False)
class Kron:
    """Kron ellipses in units of the rms ellipse, arrays ``[n]``.

    Attributes
    ----------
    radius : float64
        Of the aperture.
    fallback : bool
        The first moment could not be measured, or not well enough.
    """

    radius: Float64
    fallback: NDArray[np.bool_]


def kron_radius(
    views: Sequence[View],
    label: NDArray[np.int64],
    mode: int,
    dx: Float64,
    dy: Float64,
    ellipses: Ellipses,
    snr: Float64,
    limit: float,
    settings: MeasureSettings,
) -> Kron:
    """Kron's (1980, ApJS 43, 305) first radial moment on the weighted sum of the bands.

    Parameters
    ----------
    views : sequence of View
        The exposures.
    label, mode
        As in `imcat.measure.pixels`.
    dx, dy : float64 arrays [n]
        Offsets of the positions from those of the views, reference pixels.
    ellipses : Ellipses
        Rms ellipses.
    snr : float64 array [n]
        Peak signal-to-noise ratio of the detection.
    limit : float
        Largest semi-major axis that the views have room for, reference pixels.
    settings : MeasureSettings
        Factor, minimum and search radius.

    Notes
    -----
    The region of the moment is half of the search radius at S/N 5 and all of it from S/N 500 on:
    farther out, a faint source has no light, but the sky's residuals have.
    """
    share = np.clip(0.5 + 0.25 * np.log10(np.maximum(snr, 1e-6) / 5), 0.5, 1.0)
    search = np.minimum(share * settings.kron_search, limit / ellipses.a)
    total, noise = np.zeros((label.size, 2)), np.zeros(label.size)
    for view in views:
        x, y = view.shifted(dx, dy)
        sums = np.empty((label.size, 2))
        cut = view.cutout
        radial_moment(
            cut.data, cut.variance, view.owner, label, mode, x, y,
            view.native_form(ellipses.form), search, sums,
        )  # fmt: skip
        weight = _share(view)
        total += weight * np.nan_to_num(sums)
        native = view.scale**2 * np.pi * ellipses.a * ellipses.b * search**2  # pixels of the region
        noise += weight**2 * view.layer.noise.rms**2 * view.layer.noise.covariance.total * native
    with np.errstate(invalid="ignore", divide="ignore"):
        moment = total[:, 0] / total[:, 1]
        # Noise is even over the region, where the mean of (r - moment)² is R²/2 - 4/3 R m + m².
        spread = search**2 / 2 - 4 / 3 * search * moment + moment**2
        error = np.sqrt(np.maximum(spread, 0) * noise) / total[:, 1]
    fallback = ~((total[:, 1] > 0) & (moment > 0) & (moment < search))
    fallback |= ~(error < settings.kron_precision * moment)
    radius = np.maximum(settings.kron_factor * np.where(fallback, 0.0, moment), settings.kron_minimum)
    return Kron(np.minimum(radius, limit / ellipses.a), fallback)


def half_light(
    views: Sequence[View],
    label: NDArray[np.int64],
    mode: int,
    dx: Float64,
    dy: Float64,
    ellipses: Ellipses,
    kron: Float64,
) -> Float64:
    """Semi-major axis with half of the light of the Kron ellipse, reference pixels, ``[n]``.

    Measured on the weighted sum of the bands; NaN where that has no light.
    """
    growth = np.zeros((label.size, _RINGS))
    for view in views:
        x, y = view.shifted(dx, dy)
        rings = np.empty((label.size, _RINGS))
        cut = view.cutout
        growth_sums(
            cut.data, cut.variance, view.owner, label, mode, x, y,
            view.native_form(ellipses.form), kron, rings,
        )  # fmt: skip
        growth += _share(view) * rings
    curve = np.cumsum(growth, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = np.concatenate([np.zeros((label.size, 1)), curve / curve[:, -1:]], axis=1)
    above = curve[:, 1:] >= 0.5
    first = np.argmax(above, axis=1)
    rows = np.arange(label.size)
    low, high = curve[rows, first], curve[rows, first + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.clip((0.5 - low) / (high - low), 0, 1)
        # Light grows as the square of the radius inside a ring.
        inner, outer = first**2, (first + 1.0) ** 2
        radius = np.sqrt(inner + part * (outer - inner)) / _RINGS * kron * ellipses.a
    good = np.isfinite(radius) & above.any(axis=1) & (growth.sum(axis=1) > 0)
    return np.where(good, radius, np.nan)


def _share(view: View) -> float:
    """Weight of an exposure in the sum of the bands: expected signal over noise squared."""
    return view.layer.weight / view.layer.noise.rms**2


def sky_angle(theta: Float64, jacobian: Float64) -> Float64:
    """Position angle, degrees east of north (0-180), of a direction on the reference grid.

    Parameters
    ----------
    theta : float64 array [n]
        From x towards y, radians.
    jacobian : float64 array [n, 2, 2]
        Derivatives of (east, north) by (x, y).
    """
    direction = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    east, north = np.einsum("nij,nj->in", jacobian, direction)
    return np.asarray(np.degrees(np.arctan2(east, north)) % 180.0)
