"""Measure every source of a tile, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.detect import Detections
from imcat.flags import SourceFlag
from imcat.measure.apertures import measure_apertures
from imcat.measure.pixels import MASK, MIRROR
from imcat.measure.positions import Centroids, Motion, find_motion, windowed_centroids
from imcat.measure.settings import MeasureSettings
from imcat.measure.shapes import half_light, kron_radius, moment_ellipses, sky_angle
from imcat.measure.survey_quantities import survey_quantities
from imcat.measure.views import Layer, View, open_views, pixel_to_sky
from imcat.tile import Exposure
from imcat.window import Window, tile_windows

__all__ = ["Measurements", "measure_sources"]

Float64 = NDArray[np.float64]

# Without neighbours only bad pixels are replaced.
_MODES = {"none": MIRROR, "mask": MASK, "mirror": MIRROR}


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured of ``n`` sources.

    Attributes
    ----------
    x, y : float64 arrays [n]
        Windowed centroid, reference pixels; that of the detection where `detected` is True.
    ra, dec : float64 arrays [n]
        ICRS degrees.
    covariance : float64 array [n, 2, 2]
        Of (east, north), arcsec².
    detected : bool array [n]
        The windowed centroid failed, or the engine's own place is the better one (`MeasureSettings.centroid_snr`).
    a, b, kron, half_light : float64 arrays [n]
        Rms semi-axes, semi-major axis of the Kron ellipse, half-light radius, arcsec.
    angle : float64 array [n]
        Position angle, degrees east of north.
    motion, motion_err : float64 arrays [n]
        Shift between the first and the last exposure, arcsec.
    flags : int64 array [n]
        Bits of the source, not of a band.
    flux, variance : float64 arrays [n, bands, 2 + apertures]
        nJy and nJy²: Kron ellipse, colour aperture, circles.
    band_flags : int64 array [n, bands]
        Bits of each band.
    exposures : int64 array [n, bands]
        Number of exposures that the source lies on.
    survey : dict
        Columns of `imcat.measure.survey_quantities`, arrays [n]; empty where the settings leave them out.
    """

    x: Float64
    y: Float64
    ra: Float64
    dec: Float64
    covariance: Float64
    detected: NDArray[np.bool_]
    a: Float64
    b: Float64
    kron: Float64
    half_light: Float64
    angle: Float64
    motion: Float64
    motion_err: Float64
    flags: NDArray[np.int64]
    flux: Float64
    variance: Float64
    band_flags: NDArray[np.int64]
    exposures: NDArray[np.int64]
    survey: dict[str, NDArray[Any]]


def measure_sources(
    layers: Sequence[Layer],
    reference: Exposure,
    found: Detections,
    settings: MeasureSettings,
    pool: Executor | None = None,
) -> Measurements:
    """Measure the sources that a detection engine found.

    Parameters
    ----------
    layers : sequence of Layer
        Every exposure of every band, bands in order.
    reference : Exposure
        The one on whose grid the sources are.
    found : Detections
        The sources.
    settings : MeasureSettings
        Apertures, windows and the rest.
    pool : Executor, optional
        Threads for the windows; their number does not change the result.
    """
    bands = tuple(dict.fromkeys(layer.band for layer in layers))
    columns = reference.shape[1]
    peak_y, peak_x = found.peak // columns, found.peak % columns
    jobs = []
    for core in tile_windows(reference.shape, settings.window_size):
        inside = (core.y0 <= peak_y) & (peak_y < core.y1) & (core.x0 <= peak_x) & (peak_x < core.x1)
        if inside.any():
            index = np.nonzero(inside)[0]
            jobs.append((core.grow(_reach(reference, found, index, settings), reference.shape), index))

    def work(job: tuple[Window, NDArray[np.int64]]) -> Measurements:
        window, index = job
        return _measure_window(layers, bands, reference, found, window, index, settings)

    parts = list(pool.map(work, jobs) if pool is not None else map(work, jobs))
    if not parts:
        nothing = np.empty(0, np.int64)
        parts = [_measure_window(layers, bands, reference, found, Window(0, 1, 0, 1), nothing, settings)]
        order = nothing
    else:
        order = np.argsort(np.concatenate([index for _, index in jobs]), kind="stable")
    joined: dict[str, Any] = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])[order]
        for f in fields(Measurements)
        if f.name != "survey"
    }
    joined["survey"] = {
        name: np.concatenate([part.survey[name] for part in parts])[order] for name in parts[0].survey
    }
    return Measurements(**joined)


def _reach(
    reference: Exposure, found: Detections, index: NDArray[np.int64], settings: MeasureSettings
) -> int:
    """Pixels around its sources that a window needs for their apertures, at most the margin."""
    a = moment_ellipses(found.xx[index], found.yy[index], found.xy[index]).a
    kron = max(settings.kron_factor, 1.0) * settings.kron_search * float(a.max())
    pixel = float(_pixel_size(reference, found.x[index[:1]], found.y[index[:1]])[0])
    outermost = max(*settings.apertures, 2 * settings.annulus_outer * settings.local_background)
    # The centroid may move, and the Gaussian of colours reaches a few widths of the PSF.
    return min(int(max(kron + outermost / pixel, 32)) + 16, settings.margin)


def _measure_window(
    layers: Sequence[Layer],
    bands: Sequence[str],
    reference: Exposure,
    found: Detections,
    window: Window,
    index: NDArray[np.int64],
    settings: MeasureSettings,
) -> Measurements:
    """Measure the sources `index` of one window."""
    mode = _MODES[settings.neighbours]
    label = index + 1
    x0, y0 = found.x[index], found.y[index]
    arcsec = _pixel_size(reference, x0, y0)
    views = open_views(
        layers, reference, window, found.footprints, x0, y0, arcsec, settings.neighbours == "none"
    )
    typical = float(np.median(arcsec)) if arcsec.size else 1.0
    ellipses = moment_ellipses(found.xx[index], found.yy[index], found.xy[index])
    room = 0.9 * settings.margin
    floor = [_registration_error(v.layer, reference, settings) / typical for v in views]

    limit = np.maximum(2.0, 2 * ellipses.a)
    centroids = windowed_centroids(views, label, mode, limit, floor, settings)
    # The network knows the places of faint sources better than the light in a window does.
    error = found.error[index]
    known = np.isfinite(error) & (found.snr[index] < settings.centroid_snr)
    detected = centroids.failed | known
    dx = np.where(detected, 0.0, centroids.dx)
    dy = np.where(detected, 0.0, centroids.dy)
    kron = kron_radius(views, label, mode, dx, dy, ellipses, found.snr[index], room, settings)
    radius = half_light(views, label, mode, dx, dy, ellipses, kron.radius)
    # A galaxy's centre moves with colour, too: what makes a place precise must not make motions significant.
    apart = [0.0 if v.layer.exposure is reference else settings.registration_error / typical for v in views]
    motion = _motion(
        views,
        label,
        mode,
        centroids,
        [max(pair) for pair in zip(floor, apart, strict=True)],
        typical,
        found.snr[index],
        settings,
    )
    x, y = x0 + dx, y0 + dy
    ra, dec, jacobian = pixel_to_sky(reference.wcs, x, y)
    own = np.where(np.isfinite(error), error, 0.0)[:, None, None] ** 2 * np.eye(2)
    spread = np.where(detected[:, None, None], own, centroids.covariance)
    covariance = np.einsum("nij,njk,nlk->nil", jacobian, spread, jacobian)
    covariance[detected & ~np.isfinite(error)] = np.nan
    flux, variance, band_flags, exposures = _measure_bands(
        views, bands, label, mode, dx, dy, ellipses.form, kron.radius, layers, settings
    )
    flags = np.zeros(index.size, np.int64)
    survey: dict[str, NDArray[Any]] = {}
    if settings.survey_quantities:
        band = next((layer.band for layer in layers if layer.exposure is reference), bands[0])
        survey, flags = survey_quantities(
            views, bands, band, label, mode, dx, dy, ellipses.a, radius, found.snr[index], jacobian, settings
        )
    for condition, bit in (
        (found.blended[index], SourceFlag.BLENDED),
        (found.truncated[index], SourceFlag.TRUNCATED),
        (kron.fallback, SourceFlag.KRON_FALLBACK),
        (centroids.failed, SourceFlag.CENTROID_FALLBACK),
        (motion.moving, SourceFlag.MOVING),
        (exposures.sum(axis=1) == 0, SourceFlag.NOT_MEASURED),
    ):
        flags[condition] |= int(bit)
    return Measurements(
        x=x, y=y, ra=ra, dec=dec, covariance=covariance, detected=detected,
        a=ellipses.a * arcsec, b=ellipses.b * arcsec, kron=kron.radius * ellipses.a * arcsec,
        half_light=radius * arcsec, angle=sky_angle(ellipses.theta, jacobian),
        motion=np.where(motion.moving, motion.offset, np.nan),
        motion_err=np.where(motion.moving, motion.offset_err, np.nan),
        flags=flags, flux=flux, variance=variance, band_flags=band_flags, exposures=exposures, survey=survey,
    )  # fmt: skip


def _registration_error(layer: Layer, reference: Exposure, settings: MeasureSettings) -> float:
    """Error of an exposure's astrometry relative to the reference exposure, arcsec."""
    if layer.exposure is reference:
        return 0.0
    return settings.registration_error if layer.registration_error is None else layer.registration_error


#: A source that is seen well enough in three bands has at least this signal-to-noise ratio.
_MOTION_SNR = 12.0


def _motion(
    views: Sequence[View],
    label: NDArray[np.int64],
    mode: int,
    centroids: Centroids,
    floor: Sequence[float],
    arcsec: float,
    snr: Float64,
    settings: MeasureSettings,
) -> Motion:
    """Motion of the sources that are bright enough to show it."""
    n = label.size
    bright = np.nonzero(snr >= _MOTION_SNR)[0]
    part = find_motion(
        [view.take(bright) for view in views],
        label[bright],
        mode,
        centroids.take(bright),
        floor,
        arcsec,
        settings,
    )
    offset, error, moving = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, bool)
    offset[bright], error[bright], moving[bright] = part.offset, part.offset_err, part.moving
    return Motion(offset, error, moving)


def _measure_bands(
    views: Sequence[View],
    bands: Sequence[str],
    label: NDArray[np.int64],
    mode: int,
    dx: Float64,
    dy: Float64,
    form: Float64,
    kron: Float64,
    layers: Sequence[Layer],
    settings: MeasureSettings,
) -> tuple[Float64, Float64, NDArray[np.int64], NDArray[np.int64]]:
    """Fluxes of every band: the mean of its exposures with inverse variance."""
    n, kinds = label.size, 2 + len(settings.apertures)
    colour_sigma = settings.colour_scale * max(layer.psf_sigma for layer in layers)
    flux, weight = np.zeros((n, len(bands), kinds)), np.zeros((n, len(bands), kinds))
    flags = np.zeros((n, len(bands)), np.int64)
    exposures = np.zeros((n, len(bands)), np.int64)
    for view in views:
        k = bands.index(view.layer.band)
        one = measure_apertures(view, label, mode, dx, dy, form, kron, colour_sigma, settings)
        with np.errstate(invalid="ignore", divide="ignore"):
            w = np.where(one.inside[:, None] & (one.variance > 0), 1 / one.variance, 0.0)
        flux[:, k] += np.where(w > 0, w * one.flux, 0.0)
        weight[:, k] += w
        flags[one.inside, k] |= one.flags[one.inside]
        exposures[:, k] += one.inside
    flags[exposures == 0] = int(SourceFlag.OUTSIDE)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (
            flux / np.where(weight > 0, weight, np.nan),
            1 / np.where(weight > 0, weight, np.nan),
            flags,
            exposures,
        )


def _pixel_size(reference: Exposure, x: Float64, y: Float64) -> Float64:
    """Side of a reference pixel at each position, arcsec."""
    if x.size == 0:
        return np.empty(0)
    _, _, jacobian = pixel_to_sky(reference.wcs, x, y)
    return np.asarray(np.sqrt(np.abs(np.linalg.det(jacobian))))
