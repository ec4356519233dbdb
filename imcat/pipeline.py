"""The map: one tile in, one catalogue out.

    tile → background, detection → sources → measurement → PSF, models → classes → catalogue

`catalogue_tile` is a pure function of the tile's pixels, the configuration and
the weights: the same bytes everywhere, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from imcat.align import transform_positions
from imcat.catalogue import Catalogue
from imcat.checks import compare_engines, inject_and_recover
from imcat.classes import all_stamps
from imcat.config import Config
from imcat.detect import Detections
from imcat.engines import find_sources
from imcat.errors import InputError
from imcat.flags import PixelFlag, SourceFlag
from imcat.measure import Measurements, measure_sources
from imcat.measure.forced import GivenShapes, forced_columns
from imcat.measure.model_stage import ModelSources, credible_size, model_sources
from imcat.measure.occupied import native_labels
from imcat.measure.views import sky_to_pixel
from imcat.prepared import (
    PreparedExposure,
    exposure_layers,
    in_pool,
    prepare_exposures,
    reference_fwhm,
    reference_pixel,
    with_blank_sky,
    with_registration,
)
from imcat.products import ImageProduct, make_images, tile_preview
from imcat.psf.exposure_psf import ExposurePsf, measure_exposure_psf
from imcat.stamps import Stamps, StampSettings
from imcat.surveys.calibration import calibration_radius
from imcat.tile import Tile
from imcat.tile_catalogue import Fitted, build_catalogue, reddening
from imcat.window import Window

if TYPE_CHECKING:
    from imcat.evaluate.overview import Preview

__all__ = ["ImageProduct", "TileResult", "catalogue_tile", "measure_positions", "process_tile"]

_T = TypeVar("_T")
_U = TypeVar("_U")


@dataclass(frozen=True, eq=False)
class TileResult:
    """A tile's catalogue and what came with it.

    Attributes
    ----------
    catalogue : Catalogue
        The sources.
    warnings : list of str
        What a user should know of how the tile was read and measured.
    counts : dict
        Number of sources, and of those with a flag that matters.
    images : list of ImageProduct
        The images asked for.
    preview : Preview or None
        Arrays for the overview figure.
    injection : dict or None
        Injected sources that came back (`imcat.checks.inject_and_recover`).
    stamps : Stamps or None
        Of all sources, where they were asked for.
    """

    catalogue: Catalogue
    warnings: list[str]
    counts: dict[str, int | float]
    images: list[ImageProduct] = field(default_factory=list)
    preview: Preview | None = None
    injection: dict[str, Any] | None = None
    stamps: Stamps | None = None


def catalogue_tile(tile: Tile, config: Config, models: object = None) -> Catalogue:
    """Find and measure the sources of a tile.

    Parameters
    ----------
    tile : Tile
        The pixels.
    config : Config
        The settings.
    models : object, optional
        Weights of networks; the threshold engine needs none.
    """
    return process_tile(tile, config).catalogue


def process_tile(
    tile: Tile,
    config: Config,
    *,
    threads: int = 1,
    images: Sequence[str] = (),
    preview: bool = False,
    inject: int = 0,
    stamps: StampSettings | None = None,
) -> TileResult:
    """Find and measure the sources of a tile, and make the products beside the catalogue.

    Parameters
    ----------
    tile : Tile
        The pixels.
    config : Config
        The settings.
    threads : int
        Threads for windows and exposures; their number does not change a byte.
    images : sequence of str
        Kinds of `imcat.products.IMAGE_KINDS` to make.
    preview : bool
        Whether to make the arrays of the report's figures.
    inject : int
        Simulated sources to look for in a copy of the tile that they are added to.
    stamps : StampSettings, optional
        Cut stamps of all sources, for training.
    """
    tile = select_bands(tile, config.bands)
    warnings = [*tile.notes, *(note for _, exposure in tile.exposures() for note in exposure.notes)]
    with _pool(threads) as pool:
        prepared = prepare_exposures(tile, config, pool, warnings)
        found = find_sources(tile, prepared, config, pool, warnings)
        prepared = with_blank_sky(tile, prepared, found, config, pool, warnings)
        # Both engines are to see what the first saw.
        as_read = tile, prepared
        tile, prepared = with_registration(tile, prepared, found, config, warnings)
        measured = _measure(tile, prepared, found, config, pool)
        fitted = _fit(tile, prepared, found, measured, config, pool, warnings) if config.fit_models else None
        shown = _preview(*as_read, found, config, pool, warnings) if preview else None
        psfs = fitted.psfs if fitted is not None else []
        if inject and not psfs:
            psfs = _psfs(tile, prepared, found, measured, config, pool, warnings)
        catalogue = build_catalogue(tile, prepared, found, measured, fitted, config, pool, warnings)
    injection = None
    if inject:
        injection = inject_and_recover(
            tile, prepared, psfs, catalogue, inject, config.inject, reddening(tile, config) or 0.0,
            reference_fwhm(tile, prepared), lambda changed: process_tile(changed, config, threads=threads).catalogue,
        )  # fmt: skip
    cut = None
    if stamps is not None:
        place = np.asarray(catalogue["x"]), np.asarray(catalogue["y"])
        cut = all_stamps(
            tile, exposure_layers(tile, prepared, config), reference_pixel(tile, prepared), *place, stamps
        )
    odd = shown.disagreement if shown is not None else None
    return TileResult(
        catalogue,
        warnings,
        _counts(catalogue) | (odd.counts() if odd is not None else {}),
        make_images(images, tile, prepared, found) if images else [],
        shown,
        injection,
        cut,
    )


def measure_positions(
    tile: Tile,
    config: Config,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    shapes: GivenShapes | None = None,
    *,
    threads: int = 1,
) -> tuple[dict[str, Any], list[str]]:
    """Fluxes of a tile at given positions.

    Parameters
    ----------
    tile : Tile
        The pixels; its own sources tell the PSF, and are fitted along where they are neighbours.
    config : Config
        The settings.
    ra, dec : float64 arrays ``[n]``
        ICRS degrees; NaN where there is none.
    shapes : GivenShapes, optional
        Shapes, for model fluxes.
    threads : int
        Threads; their number does not change the result.

    Returns
    -------
    columns : dict
        By name, in the order of the positions.
    warnings : list of str
        As of `process_tile`.
    """
    tile = select_bands(tile, config.bands)
    warnings = [*tile.notes, *(note for _, exposure in tile.exposures() for note in exposure.notes)]
    reference = tile.reference_exposure
    with _pool(threads) as pool:
        prepared = prepare_exposures(tile, config, pool, warnings)
        found = find_sources(tile, prepared, config, pool, warnings)
        prepared = with_blank_sky(tile, prepared, found, config, pool, warnings)
        tile, prepared = with_registration(tile, prepared, found, config, warnings)
        measured = _measure(tile, prepared, found, config, pool)
        psfs = _psfs(tile, prepared, found, measured, config, pool, warnings)
        x, y = sky_to_pixel(reference.wcs, ra, dec)
        near = _model_sources(tile, prepared, found, measured)
        columns = forced_columns(
            exposure_layers(tile, prepared, config),
            psfs,
            reference,
            x,
            y,
            near,
            config.models,
            config.measure,
            shapes,
            pool,
        )
    for band in tile.bands:
        times = [exposure.mjd for exposure in band.exposures if exposure.mjd is not None]
        if times:
            columns[f"{band.name}_mjd"] = np.full(len(x), float(np.mean(times)))
    return columns, warnings


def select_bands(tile: Tile, bands: Sequence[str] | None) -> Tile:
    """The tile with only the bands asked for; the reference moves if it is not among them.

    Raises
    ------
    InputError
        If the tile has none of them.
    """
    if bands is None:
        return tile
    kept = tuple(band for band in tile.bands if band.name in bands)
    if not kept:
        raise InputError(
            f"tile {tile.name} has none of the bands {', '.join(bands)}",
            expected=f"one of {', '.join(tile.band_names)}",
        )
    names = [band.name for band in kept]
    reference = tile.reference if tile.reference in names else names[len(names) // 2]
    return replace(tile, bands=kept, reference=reference)


@contextmanager
def _pool(threads: int) -> Iterator[Executor | None]:
    """A pool of threads, or None for one."""
    if threads <= 1:
        yield None
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool


def _preview(
    tile: Tile,
    prepared: Sequence[PreparedExposure],
    found: Detections,
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> Preview:
    """Arrays of the figures: the overview, and where the other engine disagrees."""
    shown = tile_preview(tile, prepared)
    if not config.compare_engines:
        return shown
    other = "threshold" if config.detector == "network" else "network"
    asked = config.replace(detector=other, min_score=None)
    try:
        odd = compare_engines(
            tile, prepared, found, lambda: find_sources(tile, prepared, asked, pool, []), (config.detector, other),
            reference_fwhm(tile, prepared),
        )  # fmt: skip
    except InputError as error:  # the catalogue does not need it
        warnings.append(f"the report lacks the comparison with the {other} engine: {error}")
        return shown
    return replace(shown, disagreement=odd)


def _measure(
    tile: Tile,
    prepared: Sequence[PreparedExposure],
    found: Detections,
    config: Config,
    pool: Executor | None,
) -> Measurements:
    layers = exposure_layers(tile, prepared, config)
    return measure_sources(layers, tile.reference_exposure, found, config.measure, pool)


def _fit(
    tile: Tile,
    prepared: Sequence[PreparedExposure],
    found: Detections,
    measured: Measurements,
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> Fitted:
    """The PSF of every exposure, then point sources and galaxies."""
    psfs = _psfs(tile, prepared, found, measured, config, pool, warnings)
    sources = _model_sources(tile, prepared, found, measured)
    layers = exposure_layers(tile, prepared, config)
    models = model_sources(layers, psfs, tile.reference_exposure, sources, config.models, pool)
    return Fitted(psfs, models)


def _model_sources(
    tile: Tile, prepared: Sequence[PreparedExposure], found: Detections, measured: Measurements
) -> ModelSources:
    """First guesses of the fits. Where a centroid failed, its place is the detection's."""
    size = credible_size(measured.half_light, found.area, reference_pixel(tile, prepared))
    return ModelSources(measured.x, measured.y, size, found.snr, found.parent)


def _psfs(
    tile: Tile,
    prepared: Sequence[PreparedExposure],
    found: Detections,
    measured: Measurements,
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> list[ExposurePsf]:
    """The PSF of every exposure; the reference exposure tells which sources are stars, as the deepest image does."""
    measure = partial(_psf, tile, found, measured, config)
    first = next(k for k, p in enumerate(prepared) if p.exposure is tile.reference_exposure)
    of_reference = measure(None, prepared[first])
    others = [p for k, p in enumerate(prepared) if k != first]
    psfs = in_pool(partial(measure, of_reference.locus), others, pool)
    psfs.insert(first, of_reference)
    for p, psf in zip(prepared, psfs, strict=True):
        if psf.method == "assumed":
            warnings.append(
                f"{p.exposure.name}: too few stars to measure the PSF; PSF and model fluxes take a Moffat profile of "
                f"{psf.mixture.fwhm * p.pixel:.3g} arcsec"
            )
    return psfs


def _psf(
    tile: Tile,
    found: Detections,
    measured: Measurements,
    config: Config,
    candidates: NDArray[np.bool_] | None,
    p: PreparedExposure,
) -> ExposurePsf:
    """The PSF of one exposure, on those candidates for stars."""
    reference, exposure = tile.reference_exposure, p.exposure
    whole = Window.whole(exposure.shape)
    cutout = p.noise.read(exposure, whole)
    x, y = transform_positions(reference.wcs, exposure.wcs, measured.x, measured.y)
    circle = calibration_radius(tile.survey)
    return measure_exposure_psf(
        cutout.data, cutout.variance, cutout.bad | ((cutout.mask & np.uint16(PixelFlag.SATURATED)) != 0), x, y,
        labels=native_labels(found.footprints, reference, exposure, whole), candidates=candidates,
        gain=exposure.gain, fwhm=p.fwhm / p.pixel, given=exposure.psf,
        circle=None if circle is None else circle / p.pixel, settings=config.psf,
    )  # fmt: skip


def _counts(catalogue: Catalogue) -> dict[str, int | float]:
    flags = catalogue["flags"]

    return {
        "sources": len(catalogue),
        "primary": int(catalogue["is_primary"].sum()),
        "blended": int(((flags & int(SourceFlag.BLENDED)) != 0).sum()),
        "saturated": int(((flags & int(SourceFlag.SATURATED)) != 0).sum()),
        "truncated": int(((flags & int(SourceFlag.TRUNCATED)) != 0).sum()),
        "moving": int(((flags & int(SourceFlag.MOVING)) != 0).sum()),
    }
