"""The catalogue of a tile, put together from what was found, measured, fitted and classified."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcat import __version__
from imcat.catalogue import Catalogue
from imcat.classes import tile_classes
from imcat.config import Config
from imcat.detect import Detections
from imcat.measure import Measurements
from imcat.measure.columns import source_columns
from imcat.measure.model_columns import model_columns, model_offsets
from imcat.measure.models import ModelFits
from imcat.measure.views import pixel_to_sky
from imcat.prepared import PreparedExposure, exposure_layers, reference_pixel
from imcat.psf.exposure_psf import ExposurePsf
from imcat.schema import Schema
from imcat.surveys.extinction import band_extinction, ebv_from_maps
from imcat.tile import Tile

__all__ = ["Fitted", "build_catalogue", "reddening"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """PSFs, one for each exposure, and what was fitted with them."""

    psfs: list[ExposurePsf]
    models: ModelFits


def _with_models(
    tile: Tile, measured: Measurements, fitted: Fitted, columns: dict[str, Any]
) -> dict[str, Any]:
    """Columns with those of the fits, and their positions where these are the more precise."""
    reference = tile.band_names.index(tile.reference)
    columns = columns | model_columns(fitted.models, tile.band_names, reference)
    good, source = model_offsets(fitted.models, reference)
    # A faint source's place, from all bands, is better than a fit to the reference band; the network's is its own.
    variance = [
        np.trace(c, axis1=1, axis2=2) for c in (fitted.models.position_covariance, measured.covariance)
    ]
    with np.errstate(invalid="ignore"):
        good &= ~np.isfinite(variance[1]) | ((variance[0] <= variance[1]) & ~measured.detected)
    _, _, jacobian = pixel_to_sky(tile.reference_exposure.wcs, measured.x, measured.y)
    offset = np.stack([fitted.models.xi, fitted.models.eta], axis=1)
    step = np.einsum("nij,nj->ni", np.linalg.inv(jacobian), np.where(good[:, None], offset, 0.0))
    x, y = measured.x + step[:, 0], measured.y + step[:, 1]
    ra, dec, _ = pixel_to_sky(tile.reference_exposure.wcs, x, y)
    covariance = np.where(good[:, None, None], fitted.models.position_covariance, measured.covariance)
    rows = tile.primary_rows
    return columns | {
        "x": x,
        "y": y,
        "ra": np.where(good, ra, columns["ra"]),
        "dec": np.where(good, dec, columns["dec"]),
        "ra_err": np.sqrt(covariance[:, 0, 0]),
        "dec_err": np.sqrt(covariance[:, 1, 1]),
        "ra_dec_cov": covariance[:, 0, 1],
        "position_source": np.where(good, source, columns["position_source"]),
        "flags": columns["flags"] | fitted.models.flags,
        "is_primary": columns["is_primary"] if rows is None else (y >= rows[0]) & (y < rows[1]),
    }


def build_catalogue(
    tile: Tile,
    prepared: Sequence[PreparedExposure],
    found: Detections,
    measured: Measurements,
    fitted: Fitted | None,
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> Catalogue:
    """Rows and metadata of a tile's catalogue.

    Parameters
    ----------
    tile : Tile
        The pixels, for stamps.
    prepared : sequence of PreparedExposure
        Its exposures.
    found, measured : Detections, Measurements
        The sources, ``[n]``.
    fitted : Fitted or None
        PSF and model fits, where they were asked for.
    config : Config
        The settings.
    pool : Executor or None
        Threads of the classification.
    warnings : list of str
        What a user should know is appended.
    """
    bands = {band.name: band.wavelength for band in tile.bands}
    apertures = config.measure.apertures
    columns = source_columns(tile, found, measured, apertures, _extinction(tile, config), config.detector)
    if fitted is not None:
        columns = _with_models(tile, measured, fitted, columns)
    if config.classify_sources:
        layers, pixel = exposure_layers(tile, prepared, config), reference_pixel(tile, prepared)
        columns = columns | tile_classes(tile, layers, pixel, columns, config, pool, warnings)
    first = {p.band.name: p for p in reversed(prepared)}
    meta: dict[str, Any] = {
        "tile": tile.name,
        "survey": tile.survey,
        "reference": tile.reference,
        "bands": bands,
        "apertures": list(apertures),
        "detector": config.detector,
        "config_hash": config.hash,
        "version": __version__,
        "pixel_scale": round(first[tile.reference].pixel, 9),
        "variance_source": {name: first[name].exposure.variance_source for name in bands},
        "variance_ratio": {name: _rounded(first[name].noise.rms_ratio) for name in bands},
        "noise_correlation": {name: _rounded(first[name].noise.covariance.total) for name in bands},
        "registration": {name: _registration(first[name]) for name in bands},
        "psf_fwhm": {name: _rounded(first[name].fwhm) for name in bands},
    }
    if fitted is not None:
        psfs = {p.band.name: psf for p, psf in reversed(list(zip(prepared, fitted.psfs, strict=True)))}
        meta["psf_method"] = {name: psfs[name].method for name in bands}
        meta["psf_stars"] = {name: psfs[name].stars for name in bands}
        meta["psf_chi2"] = {name: _rounded(psfs[name].quality) for name in bands}
    return Catalogue.build(columns, Schema(bands, apertures), meta)


def _registration(p: PreparedExposure) -> list[float | int]:
    """Offset that was taken away in x and y of the exposure, error of a place, arcsec; number of sources."""
    own = p.registration
    if own is None:
        return []
    return [round(own.dx * p.pixel, 4), round(own.dy * p.pixel, 4), round(own.error, 4), own.sources]


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _extinction(tile: Tile, config: Config) -> dict[str, float]:
    """Extinction by band: of the configuration, the tile's files, or the dust maps."""
    wavelengths = {band.name: band.wavelength for band in tile.bands}
    if config.surveys.ebv is None and "ebv" not in tile.extinction and tile.extinction:
        return {band: a for band, a in tile.extinction.items() if band in wavelengths}
    ebv = reddening(tile, config)
    return {} if ebv is None else band_extinction(tile.survey, wavelengths, ebv)


def reddening(tile: Tile, config: Config) -> float | None:
    """E(B-V) of the configuration, the tile's files, or the dust maps; None where none says."""
    ebv = config.surveys.ebv
    if ebv is None:
        ebv = tile.extinction.get("ebv")
    if ebv is None:
        rows, columns = tile.shape
        ra, dec, _ = pixel_to_sky(
            tile.reference_exposure.wcs, np.array([columns / 2.0]), np.array([rows / 2.0])
        )
        ebv = ebv_from_maps(float(ra[0]), float(dec[0]))
    return ebv
