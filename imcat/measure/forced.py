"""Photometry at given positions: nothing is detected, nothing moves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.detect import Footprints
from imcat.flags import SourceFlag
from imcat.measure.apertures import measure_apertures
from imcat.measure.model_settings import ModelSettings
from imcat.measure.model_stage import ModelSources, model_sources
from imcat.measure.models import ModelFits, Shape
from imcat.measure.pixels import MASK
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import Layer, open_views, pixel_to_sky
from imcat.psf.exposure_psf import ExposurePsf
from imcat.schema import aperture_label
from imcat.tile import Exposure
from imcat.window import tile_windows

__all__ = ["GivenShapes", "forced_columns"]

Float64 = NDArray[np.float64]

# Detections closer than this (arcsec) to a given position are that source; the others are its neighbours.
_SAME = 1.0
# Given positions closer than this are one place.
_COINCIDENT = 0.1


@dataclass(frozen=True, eq=False)
class GivenShapes:
    """Shapes of n sources; NaN in `Shape.radius` where there is none.

    Attributes
    ----------
    shape : Shape
        Half-light radius of the profile as drawn, axis ratio, position angle; errors are not used.
    model : int8 array ``[n]``
        0 exponential, 1 de Vaucouleurs.
    """

    shape: Shape
    model: NDArray[np.int8]

    def take(self, index: NDArray[np.int64]) -> GivenShapes:
        """Those of some sources."""
        return GivenShapes(Shape(*(values[index] for values in _columns(self.shape))), self.model[index])


def forced_columns(
    layers: Sequence[Layer],
    psfs: Sequence[ExposurePsf],
    reference: Exposure,
    x: Float64,
    y: Float64,
    neighbours: ModelSources,
    models: ModelSettings,
    measure: MeasureSettings,
    shapes: GivenShapes | None = None,
    pool: Executor | None = None,
) -> dict[str, NDArray[Any]]:
    """Fluxes at given positions in every band.

    PSF fluxes (and model fluxes, where shapes are given) are fitted together with the sources that were detected
    around them; circles are summed as they are, neighbours included.

    Parameters
    ----------
    layers, psfs, reference, pool
        As in `imcat.measure.model_stage.model_sources`.
    x, y : float64 arrays ``[n]``
        Pixels of the reference exposure.
    neighbours : ModelSources
        What was detected on the tile.
    models, measure : settings
        Of the fits; diameters of the circles.
    shapes : GivenShapes, optional
        Shapes of the sources.

    Returns
    -------
    dict
        Columns ``[n]``; NaN where a position lies on no exposure of a band, with the flag OUTSIDE.
    """
    n = len(x)
    bands = tuple(dict.fromkeys(layer.band for layer in layers))
    shape = (n, len(bands))
    psf_flux, psf_variance, chi2 = (np.full(shape, np.nan) for _ in range(3))
    profile, profile_variance = np.full((*shape, 2), np.nan), np.full((*shape, 2), np.nan)
    for index in _turns(reference, x, y):
        mine = None if shapes is None else shapes.take(index)
        fits = _fits(layers, psfs, reference, x[index], y[index], neighbours, models, mine, pool)
        m = index.size
        psf_flux[index], psf_variance[index] = fits.psf_flux[:m], fits.psf_variance[:m]
        chi2[index] = fits.psf_chi2[:m]
        profile[index], profile_variance[index] = fits.profile_flux[:m], fits.profile_variance[:m]
    circles, variance, flags, exposures = _circles(layers, reference, x, y, measure)
    columns: dict[str, NDArray[Any]] = {"x": x, "y": y}
    for k, band in enumerate(bands):
        columns[f"{band}_flags"] = flags[:, k]
        columns[f"{band}_n_exposures"] = exposures[:, k]
        columns[f"{band}_psf_flux"] = psf_flux[:, k]
        columns[f"{band}_psf_flux_err"] = np.sqrt(psf_variance[:, k])
        columns[f"{band}_psf_chi2"] = chi2[:, k]
        if shapes is not None:
            given = np.isfinite(shapes.shape.radius)
            row, which = np.arange(n), shapes.model.astype(np.int64)
            columns[f"{band}_model_flux"] = np.where(given, profile[row, k, which], np.nan)
            columns[f"{band}_model_flux_err"] = np.where(
                given, np.sqrt(profile_variance[row, k, which]), np.nan
            )
        for j, diameter in enumerate(measure.apertures):
            label = aperture_label(diameter)
            columns[f"{band}_aper_flux_{label}"] = circles[:, k, j]
            columns[f"{band}_aper_flux_{label}_err"] = np.sqrt(variance[:, k, j])
    seen = exposures > 0
    every = np.bitwise_or.reduce(np.where(seen, flags, 0), axis=1)
    columns["flags"] = np.where(seen.any(axis=1), every, int(SourceFlag.OUTSIDE))
    return columns


def _turns(reference: Exposure, x: Float64, y: Float64) -> list[NDArray[np.int64]]:
    """Rows in groups of which none has two positions in one place: light cannot be shared between these."""
    from scipy.spatial import cKDTree

    n = len(x)
    turn = np.zeros(n, np.int64)
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if there.size > 1:
        _, _, jacobian = pixel_to_sky(reference.wcs, x[there], y[there])
        pixel = float(np.nanmedian(np.sqrt(np.abs(np.linalg.det(jacobian)))))
        places = np.stack([x[there], y[there]], axis=1)
        pairs = cKDTree(places).query_pairs(_COINCIDENT / pixel, output_type="ndarray")
        # Few, so a loop does: each takes the first turn that none before it at its place has.
        for a, b in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:
            if turn[there[a]] == turn[there[b]]:
                turn[there[b]] += 1
    return [np.flatnonzero(turn == k) for k in range(int(turn.max(initial=0)) + 1)]


def _fits(
    layers: Sequence[Layer],
    psfs: Sequence[ExposurePsf],
    reference: Exposure,
    x: Float64,
    y: Float64,
    neighbours: ModelSources,
    models: ModelSettings,
    shapes: GivenShapes | None,
    pool: Executor | None,
) -> ModelFits:
    """Fits of the given positions first, then of the detections that are none of them."""
    from scipy.spatial import cKDTree

    n = len(x)
    _, _, jacobian = pixel_to_sky(reference.wcs, x, y)
    with np.errstate(invalid="ignore"):
        arcsec = np.sqrt(np.abs(np.linalg.det(jacobian))) if n else np.ones(0)
    pixel = float(np.nanmedian(arcsec)) if np.isfinite(arcsec).any() else 1.0
    there = np.isfinite(x) & np.isfinite(y)
    other = np.isfinite(neighbours.x) & np.isfinite(neighbours.y)
    snr = np.full(n, models.sersic_snr)
    if there.any() and other.any():
        tree = cKDTree(np.stack([x[there], y[there]], axis=1))
        index = np.flatnonzero(other)
        places = np.stack([neighbours.x[index], neighbours.y[index]], axis=1)
        distance, nearest = tree.query(places)
        same = distance * pixel < _SAME
        # Footprints grow with the brightness of what lies there.
        np.maximum.at(snr, np.flatnonzero(there)[nearest[same]], neighbours.snr[index[same]])
        other[index[same]] = False
    index = np.flatnonzero(other)
    size = np.full(n, np.nan)
    given = None
    if shapes is not None:
        with np.errstate(invalid="ignore"):
            size = np.hypot(shapes.shape.radius, 0.6 * psfs[0].mixture.fwhm * pixel)
        columns = zip(_columns(shapes.shape), _columns(_points(index.size)), strict=True)
        both = Shape(*(np.concatenate(pair) for pair in columns))
        given = (both, both)
    sources = ModelSources(
        x=np.concatenate([x, neighbours.x[index]]),
        y=np.concatenate([y, neighbours.y[index]]),
        size=np.concatenate([size, neighbours.size[index]]),
        snr=np.concatenate([snr, neighbours.snr[index]]),
        parent=np.arange(n + index.size),
    )
    settings = replace(models, sersic=False)
    return model_sources(layers, psfs, reference, sources, settings, pool, fixed=True, shapes=given)


def _columns(shape: Shape) -> tuple[Float64, ...]:
    return (
        shape.radius, shape.radius_err, shape.axis_ratio, shape.axis_ratio_err, shape.angle, shape.angle_err
    )  # fmt: skip


def _points(n: int) -> Shape:
    """Shapes without extent."""
    zero, one = np.zeros(n), np.ones(n)
    return Shape(zero, zero, one, zero, zero, zero)


def _circles(
    layers: Sequence[Layer], reference: Exposure, x: Float64, y: Float64, settings: MeasureSettings
) -> tuple[Float64, Float64, NDArray[np.int64], NDArray[np.int64]]:
    """Fluxes in circles: the mean of a band's exposures with inverse variance."""
    bands = tuple(dict.fromkeys(layer.band for layer in layers))
    n, kinds = len(x), len(settings.apertures)
    flux, weight = np.zeros((n, len(bands), kinds)), np.zeros((n, len(bands), kinds))
    flags, exposures = np.zeros((n, len(bands)), np.int64), np.zeros((n, len(bands)), np.int64)
    nobody = Footprints.build(reference.shape, np.empty(0, np.int64), np.empty(0, np.int32))
    reach = int(max(settings.apertures) * 4) + 32
    for core in tile_windows(reference.shape, settings.window_size):
        window = core.grow(reach, reference.shape)
        # Positions beyond the reference image may lie on another one: the nearest window has them.
        px = np.clip(x, 0, reference.shape[1] - 1)
        py = np.clip(y, 0, reference.shape[0] - 1)
        index = np.flatnonzero((py >= core.y0) & (py < core.y1) & (px >= core.x0) & (px < core.x1))
        if not index.size:
            continue
        _, _, jacobian = pixel_to_sky(reference.wcs, x[index], y[index])
        with np.errstate(invalid="ignore"):
            arcsec = np.sqrt(np.abs(np.linalg.det(jacobian)))
        form, one = np.tile([1.0, 1.0, 0.0], (index.size, 1)), np.ones(index.size)
        zero = np.zeros(index.size)
        colour = settings.colour_scale * max(layer.psf_sigma for layer in layers)
        for view in open_views(layers, reference, window, nobody, x[index], y[index], arcsec, alone=True):
            k = bands.index(view.layer.band)
            own = np.arange(1, index.size + 1)
            found = measure_apertures(view, own, MASK, zero, zero, form, one, colour, settings)
            with np.errstate(invalid="ignore", divide="ignore"):
                part = found.variance[:, 2:]
                w = np.where(found.inside[:, None] & (part > 0), 1 / part, 0.0)
            flux[index, k] += np.where(w > 0, w * found.flux[:, 2:], 0.0)
            weight[index, k] += w
            flags[index, k] |= np.where(found.inside, found.flags, 0)
            exposures[index, k] += found.inside
    flags[exposures == 0] = int(SourceFlag.OUTSIDE)
    norm = np.where(weight > 0, weight, np.nan)
    return flux / norm, 1 / norm, flags, exposures
