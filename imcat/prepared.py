"""Exposures made ready for measuring: sky and noise, PSF width, place on the reference grid, registration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from imcat.align import GridMap, map_grids, moved_wcs
from imcat.config import Config
from imcat.detect import Detections, band_weights, measure_psf_fwhm
from imcat.errors import InputError
from imcat.measure import Layer
from imcat.measure.occupied import occupied
from imcat.measure.registration import Registration, measure_registration
from imcat.measure.views import pixel_to_sky
from imcat.noise import NoiseModel, measure_covariance, measure_noise
from imcat.psf import FWHM_PER_SIGMA
from imcat.tile import Band, Exposure, Tile

__all__ = [
    "PreparedExposure", "exposure_layers", "in_pool", "prepare_exposures", "reference_fwhm", "reference_pixel",
    "with_blank_sky", "with_registration",
]  # fmt: skip

_T = TypeVar("_T")
_U = TypeVar("_U")

_APART = 0.5  # offset between two exposures, in units of the FWHM, that a user should know of


@dataclass(frozen=True, eq=False)
class PreparedExposure:
    """An exposure with its noise, PSF width and place on the reference grid.

    Attributes
    ----------
    band : Band
        Its band.
    exposure : Exposure
        The pixels; with its astrometry put right once that is measured (`with_registration`).
    noise : NoiseModel
        Sky and noise.
    grid : GridMap
        From the reference grid to its pixels.
    fwhm : float
        Of the PSF, arcsec.
    pixel : float
        Side of a pixel, arcsec.
    registration : Registration, optional
        Once measured.
    """

    band: Band
    exposure: Exposure
    noise: NoiseModel
    grid: GridMap
    fwhm: float
    pixel: float
    registration: Registration | None = None


def in_pool(function: Callable[[_T], _U], items: Iterable[_T], pool: Executor | None) -> list[_U]:
    """Map in threads where there are some; results in the order of the items."""
    return list(pool.map(function, items) if pool is not None else map(function, items))


def prepare_exposures(
    tile: Tile, config: Config, pool: Executor | None, warnings: list[str]
) -> list[PreparedExposure]:
    """Sky, noise, PSF width and grid of every exposure."""
    pairs = list(tile.exposures())
    reference = tile.reference_exposure

    def measure(pair: tuple[Band, Exposure]) -> tuple[NoiseModel, float | None, float]:
        exposure = pair[1]
        # Few exposures: the strips of one share the threads. Many: each is one thread's work.
        noise = measure_noise(exposure, config.noise, pool if len(pairs) == 1 else None)
        width = None
        if exposure.psf_fwhm is None:
            width = measure_psf_fwhm(exposure, noise)
        return noise, width, _pixel_scale(exposure)

    # A job that waits for strips must not sit on one of the threads that they need.
    results = in_pool(measure, pairs, pool if len(pairs) > 1 else None)
    prepared = []
    for (band, exposure), (noise, width, pixel) in zip(pairs, results, strict=True):
        fwhm = exposure.psf_fwhm if width is None else width * pixel
        if fwhm is None:
            fwhm = config.detect.fallback_fwhm * pixel
            warnings.append(
                f"{exposure.name}: too few stars to measure the PSF; a FWHM of {fwhm:.3g} arcsec is assumed"
            )
        grid = map_grids(reference.wcs, reference.shape, exposure.wcs, exposure.shape, config.align)
        if not grid.identity and grid.overlap_fraction() == 0:
            raise InputError(
                "does not overlap the reference image on the sky",
                path=exposure.name,
                expected=f"a part of the field of {reference.name}",
            )
        prepared.append(PreparedExposure(band, exposure, noise, grid, fwhm, pixel))
    return prepared


def _pixel_scale(exposure: Exposure) -> float:
    """Side of the middle pixel, arcsec."""
    rows, columns = exposure.shape
    _, _, jacobian = pixel_to_sky(exposure.wcs, np.array([columns / 2.0]), np.array([rows / 2.0]))
    return float(np.sqrt(abs(np.linalg.det(jacobian[0]))))


def with_blank_sky(
    tile: Tile,
    prepared: Sequence[PreparedExposure],
    found: Detections,
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> list[PreparedExposure]:
    """Variance and covariance of every exposure, measured where no source is."""

    def measure(p: PreparedExposure) -> PreparedExposure:
        taken = partial(occupied, found.footprints, tile.reference_exposure, p.exposure)
        return replace(p, noise=measure_covariance(p.exposure, p.noise, taken, config.noise))

    done = in_pool(measure, prepared, pool)
    for p in done:
        if np.isfinite(p.noise.rms_ratio) and p.noise.variance_scale != 1.0:
            warnings.append(
                f"{p.exposure.name}: blank sky has {p.noise.rms_ratio:.3f} times the given rms; "
                "the variance was rescaled"
            )
    return done


def with_registration(
    tile: Tile, prepared: Sequence[PreparedExposure], found: Detections, config: Config, warnings: list[str]
) -> tuple[Tile, list[PreparedExposure]]:
    """The tile and its exposures with every astrometry shifted to agree with the reference exposure's."""
    layers = exposure_layers(tile, prepared, config)
    reference, arcsec = tile.reference_exposure, reference_pixel(tile, prepared)
    measured = measure_registration(layers, reference, found, arcsec, config.measure)
    moved: dict[int, Exposure] = {}
    for p, own in zip(prepared, measured, strict=True):
        if own.dx == 0 and own.dy == 0:
            continue
        moved[id(p.exposure)] = replace(p.exposure, wcs=moved_wcs(p.exposure.wcs, own.dx, own.dy))
        offset = float(np.hypot(own.dx, own.dy)) * p.pixel
        if offset > _APART * p.fwhm:
            warnings.append(
                f"{p.exposure.name}: its astrometry lies {offset:.2f} arcsec from that of {reference.name}, by "
                f"{own.sources} sources; it was corrected, but detection used it as it is"
            )
    bands = {
        band.name: replace(band, exposures=tuple(moved.get(id(e), e) for e in band.exposures))
        for band in tile.bands
    }
    done = []
    for p, own in zip(prepared, measured, strict=True):
        exposure, grid = moved.get(id(p.exposure), p.exposure), p.grid
        if exposure is not p.exposure:
            grid = map_grids(reference.wcs, reference.shape, exposure.wcs, exposure.shape, config.align)
        done.append(replace(p, band=bands[p.band.name], exposure=exposure, grid=grid, registration=own))
    return replace(tile, bands=tuple(bands.values())), done


def exposure_layers(tile: Tile, prepared: Sequence[PreparedExposure], config: Config) -> list[Layer]:
    """The exposures as measurements want them."""
    weights = band_weights({band.name: band.wavelength for band in tile.bands}, config.detect)
    return [
        Layer(
            p.band.name, p.exposure, p.noise, p.grid, p.fwhm / FWHM_PER_SIGMA, weights[p.band.name],
            None if p.registration is None else p.registration.error,
        )
        for p in prepared
    ]  # fmt: skip


def reference_fwhm(tile: Tile, prepared: Sequence[PreparedExposure]) -> float:
    """FWHM of the reference exposure's PSF, its pixels."""
    first = next(p for p in prepared if p.exposure is tile.reference_exposure)
    return first.fwhm / first.pixel


def reference_pixel(tile: Tile, prepared: Sequence[PreparedExposure]) -> float:
    """Size of a pixel of the reference exposure, arcsec."""
    return next(p.pixel for p in prepared if p.exposure is tile.reference_exposure)
