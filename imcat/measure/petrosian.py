"""Petrosian radii and fluxes as the SDSS defines them.

The Petrosian ratio at r is the mean surface brightness between 0.8 r and 1.25 r over that within r; the
Petrosian radius is where it falls through 0.2, the Petrosian flux what lies within twice that radius
(Blanton et al. 2001, AJ 121, 2358; Strauss et al. 2002, AJ 124, 1810). One radius, that of the reference
band, serves all bands. As there, profiles are azimuthal means in circles, they end where the signal of
a ring falls below its noise, and of several radii the largest counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.errors import ConfigError
from imcat.measure.rings import circle_sums, mean_rings
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import View
from imcat.psf import FWHM_PER_SIGMA

__all__ = ["Petrosian", "PetrosianSettings", "aperture_limit", "measure_petrosian"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Radii of the profile in geometric progression, such that 0.8 r and 1.25 r are radii of it too.
_PER_ANNULUS = 2
_STEP = 1.25 ** (1 / _PER_ANNULUS)
_ANNULUS = 1.25**2 - 0.8**2  # area of the annulus over that of the circle of radius r
# Rings of the circle of a Petrosian flux, within which lost pixels take the mean of the others; and those
# from which the radii with half and nine tenths of the light are read.
_FILL_RINGS, _LIGHT_RINGS = 6, 20
_FIRST = 0.3  # innermost radius of the profile over the FWHM of the PSF: well inside any Petrosian radius
_STAGE = 10  # rings that are measured before it is asked whether the profile has ended


@dataclass(frozen=True)
class PetrosianSettings:
    """What the Petrosian quantities are.

    Attributes
    ----------
    ratio : float
        Petrosian ratio at the Petrosian radius.
    aperture : float
        Radius of the circle of the Petrosian flux, in Petrosian radii.
    min_snr : float
        Signal-to-noise ratio of a ring (0.8 to 1.25 times its radius) where the profile ends.
    fallback : float
        Petrosian radius of sources for which none is found, in units of the FWHM of the reference band's PSF. The
        SDSS takes 7.5 of its pixels (2.97 arcsec), which is this many times its median seeing of 1.32 arcsec.
    """

    ratio: float = 0.2
    aperture: float = 2.0
    min_snr: float = 1.0
    fallback: float = 2.25

    def __post_init__(self) -> None:
        for name, right, expected in (
            ("ratio", 0 < self.ratio < 1, "a number between 0 and 1"),
            ("aperture", self.aperture >= 1.25, "at least 1.25"),
            ("min_snr", self.min_snr > 0, "a positive number"),
            ("fallback", self.fallback > _FIRST, f"more than {_FIRST}"),
        ):
            if not right:
                raise ConfigError(f"petrosian.{name} is {getattr(self, name)}; expected {expected}")


@dataclass(frozen=True, eq=False)
class Petrosian:
    """Petrosian quantities of ``n`` sources.

    Attributes
    ----------
    radius, radius_err : float64 arrays [n]
        Petrosian radius in the reference band, arcsec; the error is NaN for a fallback.
    r50, r50_err, r90, r90_err : float64 arrays [n]
        Radii with 50 and 90 % of the Petrosian flux of the reference band, arcsec; NaN where that is not positive.
    flux, variance : float64 arrays [n, bands]
        nJy and nJy² within `PetrosianSettings.aperture` times the radius; NaN outside of a band.
    fallback : bool array [n]
        No Petrosian radius was found: the profile ended before (noise) or did not fall far enough within the
        largest aperture (then half of that is taken, as the SDSS takes the end of its profile).
    several : bool array [n]
        The ratio falls through its limit at several radii; the largest is taken.
    """

    radius: Float64
    radius_err: Float64
    r50: Float64
    r50_err: Float64
    r90: Float64
    r90_err: Float64
    flux: Float64
    variance: Float64
    fallback: NDArray[np.bool_]
    several: NDArray[np.bool_]


def aperture_limit(
    semi_major: Float64,
    arcsec: Float64,
    fwhm: float,
    settings: MeasureSettings,
    petrosian: PetrosianSettings,
) -> Float64:
    """Radius of the largest circle that may be measured around each source, reference pixels.

    It depends on the source alone, so that windows make no difference; a window must have as many pixels around
    its sources.

    Parameters
    ----------
    semi_major : float64 array [n]
        Rms semi-major axes of the footprints, reference pixels.
    arcsec : float64 array [n]
        Size of a reference pixel.
    fwhm : float
        Of the reference band's PSF, arcsec.
    settings : MeasureSettings
        The Kron ellipses' limit holds for these circles too.
    petrosian : PetrosianSettings
        Aperture and fallback.
    """
    kron = max(settings.kron_factor, 1.0) * settings.kron_search * semi_major
    smallest = 1.05 * petrosian.aperture * petrosian.fallback * fwhm / arcsec
    return np.asarray(np.minimum(np.maximum(kron, smallest), 0.9 * settings.margin))


def measure_petrosian(
    views: Sequence[View],
    bands: Sequence[str],
    reference: str,
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    limit: Float64,
    settings: PetrosianSettings,
) -> Petrosian:
    """Petrosian radius in the reference band, fluxes in all.

    Parameters
    ----------
    views : sequence of View
        The exposures.
    bands : sequence of str
        Names of the bands, in the order of the result.
    reference : str
        Band of the radii.
    label, mode
        As in `imcat.measure.pixels`.
    dx, dy : float64 arrays [n]
        Offsets of the positions from those of the views, reference pixels.
    limit : float64 array [n]
        From `aperture_limit`, reference pixels.
    settings : PetrosianSettings
        Definitions.
    """
    n = label.size
    seen = [view for view in views if view.layer.band == reference]
    if n == 0 or not seen:
        return _nothing(n, len(bands))
    fwhm = FWHM_PER_SIGMA * max(view.layer.psf_sigma for view in seen)
    pixel = seen[0].arcsec * seen[0].scale  # of the reference grid
    largest = np.asarray(limit * pixel / settings.aperture)
    profile = _profile(seen, label, mode, dx, dy, fwhm, largest, settings)
    radius, radius_err, fallback, several = _radius(profile, largest, settings.fallback * fwhm, settings)
    circle = settings.aperture * radius
    flux, variance = np.empty((n, len(bands))), np.empty((n, len(bands)))
    light = [(np.full(n, np.nan), np.full(n, np.nan))] * 2
    for k, band in enumerate(bands):
        own = [view for view in views if view.layer.band == band]
        rings = _LIGHT_RINGS if band == reference else _FILL_RINGS
        f, v = circle_sums(own, label, mode, dx, dy, circle, rings)
        flux[:, k], variance[:, k] = f[:, -1], v[:, -1]
        if band == reference:
            light = [_light_radii(f, v, circle, share) for share in (0.5, 0.9)]
    return Petrosian(radius, radius_err, *light[0], *light[1], flux, variance, fallback, several)


@dataclass(frozen=True, eq=False)
class _Profile:
    """Rings of the reference band: exposures together, mean over pixels with a value times the area.

    Outer radii [m] in arcsec, flux and variance of each ring [n, m], how many were measured [n].
    """

    radius: Float64
    flux: Float64
    variance: Float64
    rings: Int64


def _profile(
    views: Sequence[View],
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    fwhm: float,
    largest: Float64,
    settings: PetrosianSettings,
) -> _Profile:
    """Rings from the centre out to where they drown in noise, or to the limit of each source."""
    n = label.size
    first = _FIRST * fwhm
    # 1.25 times the largest Petrosian radius has to be among the radii.
    wanted = np.log(np.maximum(1.25 * largest / first, 1.25)) / math.log(_STEP)
    total = np.maximum(wanted.astype(np.int64) + 1, 2 * _PER_ANNULUS + 2)
    radius = first * _STEP ** np.arange(int(total.max()))
    flux, variance = np.zeros((n, radius.size)), np.zeros((n, radius.size))
    rings = np.zeros(n, np.int64)
    active = np.arange(n)
    while active.size:
        begin, end = rings[active], np.minimum(rings[active] + _STAGE, total[active])
        f, v = mean_rings(views, label, mode, dx, dy, radius, active, begin, end)
        flux[active] += f
        variance[active] += v
        rings[active] = end
        snr = _annulus_snr(flux[active], variance[active])
        ended = (snr < settings.min_snr) & (_centre_index(snr) + _PER_ANNULUS < end[:, None])
        active = active[~ended.any(axis=1) & (end < total[active])]
    return _Profile(radius, flux, variance, rings)


def _annulus(values: Float64) -> Float64:
    """Sums of rings from 0.8 r to 1.25 r, for every r that is a radius of the profile and has both."""
    cumulative = np.concatenate([np.zeros((values.shape[0], 1)), np.cumsum(values, axis=1)], axis=1)
    # Entry i of `cumulative` lies within radius i - 1.
    wide = 2 * _PER_ANNULUS
    return np.asarray(cumulative[:, wide + 1 :] - cumulative[:, 1:-wide])


def _centre_index(of: Float64) -> Int64:
    """Index in the profile of the radius r that columns of `_annulus` stand for."""
    return np.arange(of.shape[1])[None, :] + _PER_ANNULUS


def _annulus_snr(flux: Float64, variance: Float64) -> Float64:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(_annulus(flux) / np.sqrt(_annulus(variance)), nan=0.0)


def _radius(
    profile: _Profile, largest: Float64, default: float, settings: PetrosianSettings
) -> tuple[Float64, Float64, NDArray[np.bool_], NDArray[np.bool_]]:
    """Petrosian radius and its error in arcsec, whether it is a fallback, whether there were several."""
    n = profile.rings.size
    inside = np.cumsum(profile.flux, axis=1)
    ring = _annulus(profile.flux)
    centre = _centre_index(ring)[0]
    snr = _annulus_snr(profile.flux, profile.variance)
    measured = centre[None, :] + _PER_ANNULUS < profile.rings[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = ring / (_ANNULUS * inside[:, centre])
        error = np.sqrt(_annulus(profile.variance)) / (_ANNULUS * np.abs(inside[:, centre]))
    # The profile ends with the first annulus below the noise, which may still hold the radius.
    noisy = np.cumsum(measured & (snr < settings.min_snr), axis=1)
    below = np.concatenate([np.zeros((n, 1), np.int64), noisy[:, :-1]], axis=1) > 0
    valid = measured & ~below & (inside[:, centre] > 0)
    falls = (ratio[:, :-1] >= settings.ratio) & (ratio[:, 1:] < settings.ratio) & valid[:, :-1] & valid[:, 1:]
    count = falls.sum(axis=1)
    last = falls.shape[1] - 1 - np.argmax(falls[:, ::-1], axis=1)
    rows = np.arange(n)
    high, low = ratio[rows, last], ratio[rows, last + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (high - settings.ratio) / (high - low)
        log_radius = np.log(profile.radius[centre[last]]) + part * math.log(_STEP)
        radius = np.exp(log_radius)
        slope = (high - low) / math.log(_STEP)
        radius_err = radius * error[rows, last] / slope
    ok = (count > 0) & (radius <= largest)
    # Where no noise ended the profile, light reaches out to the limit.
    large = ~ok & ((noisy[:, -1] == 0) | (count > 0))
    other = np.where(large, largest, np.minimum(default, largest))
    return np.where(ok, radius, other), np.where(ok, radius_err, np.nan), ~ok, ok & (count > 1)


def _light_radii(flux: Float64, variance: Float64, radius: Float64, share: float) -> tuple[Float64, Float64]:
    """Radius with a share of the flux of a circle, and its error, arcsec.

    Parameters
    ----------
    flux, variance : float64 arrays [n, rings]
        From `circle_sums`.
    radius : float64 array [n]
        Of the circle, arcsec.
    share : float
        Between 0 and 1.

    Notes
    -----
    Within a ring the surface brightness hardly changes, so that the flux is nearly linear in the squared radius;
    a cubic there has the slopes of the neighbouring rings too.
    """
    n, rings = flux.shape
    curve = np.concatenate([np.zeros((n, 1)), flux], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = curve / curve[:, -1:]
    at = np.argmax(curve[:, 1:] >= share, axis=1)  # the ring in which it lies
    rows = np.arange(n)
    nodes = (np.arange(rings + 1) / rings) ** 2
    slope = np.diff(curve, axis=1) / np.diff(nodes)
    # At a node the slope of the parabola through it and its neighbours; at the ends that of the ring.
    width = np.diff(nodes)
    inner = (slope[:, :-1] * width[1:] + slope[:, 1:] * width[:-1]) / (width[1:] + width[:-1])
    slopes = np.concatenate([slope[:, :1], inner, slope[:, -1:]], axis=1)
    low, high = curve[rows, at], curve[rows, at + 1]
    left, right = slopes[rows, at] * width[at], slopes[rows, at + 1] * width[at]
    t = _cubic_root(low - share, high - share, left, right)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = radius * np.sqrt(nodes[at] + t * width[at])
        within = (variance[rows, at] * (1 - 2 * share) + share**2 * variance[:, -1]) / flux[:, -1] ** 2
        # From the squared radius in units of the circle to the radius.
        error = np.sqrt(within) / slope[rows, at] * radius**2 / (2 * found)
    good = (flux[:, -1] > 0) & np.isfinite(found)
    return np.where(good, found, np.nan), np.where(good & (error > 0), error, np.nan)


def _cubic_root(low: Float64, high: Float64, left: Float64, right: Float64) -> Float64:
    """Where a cubic with given values and slopes at 0 and 1 is zero, by bisection: it changes sign between them."""
    a, b = np.zeros(low.shape), np.ones(low.shape)
    for _ in range(30):
        t = 0.5 * (a + b)
        value = (
            (1 + 2 * t) * (1 - t) ** 2 * low
            + t**2 * (3 - 2 * t) * high
            + t * (1 - t) ** 2 * left
            - t**2 * (1 - t) * right
        )
        a, b = np.where(value < 0, t, a), np.where(value < 0, b, t)
    return 0.5 * (a + b)


def _nothing(n: int, bands: int) -> Petrosian:
    """What there is without a reference band."""
    empty, none = np.full(n, np.nan), np.full((n, bands), np.nan)
    return Petrosian(
        empty, empty, empty, empty, empty, empty, none, none, np.ones(n, bool), np.zeros(n, bool)
    )
