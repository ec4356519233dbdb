"""The twin of a real tile: its camera and conditions, and another sky."""

from __future__ import annotations

import math
from datetime import timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.simulate.csst_camera import CSST_HITS, CSST_MARKED, CSST_PIXEL_CM, MJD_EPOCH
from imcat.simulate.filters import FilterSet
from imcat.simulate.observation import ExposureModel, Observation
from imcat.simulate.population import BRIGHTEST, Population
from imcat.simulate.sdss_camera import sdss_exposure
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.twin import BandProfile, TileProfile, measure_profile
from imcat.surveys import TileSource, csst_constants, read_tile
from imcat.surveys.csst_level1 import parse_name
from imcat.surveys.extinction import band_extinction
from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_constants import (
    CLOCK_MICROSECONDS,
    DEFAULT_SATURATION,
    EXPOSURE_SECONDS,
    NMGY_TO_NJY,
)

__all__ = ["twin_observation", "twin_of"]

_COUNT_STEP = 0.05  # magnitudes, of the sum over the population's star counts


@lru_cache(maxsize=2)
def _profile(source: TileSource) -> TileProfile:
    # Several twins of one tile ask for it.
    return measure_profile(read_tile(source))


def twin_of(source: TileSource, settings: SimulateSettings, seed: int, index: int) -> Observation:
    """Measure a real tile and make the observation of its twin.

    Parameters
    ----------
    source : TileSource
        The real tile.
    settings : SimulateSettings
        Rates of what cannot be measured on it.
    seed, index : int
        Decide what is drawn.

    Raises
    ------
    InputError
        If the tile cannot be read, or is of another survey than SDSS and CSST.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, 0)))
    return twin_observation(_profile(source), settings, Population.load(), rng)


def twin_observation(
    profile: TileProfile, settings: SimulateSettings, population: Population, rng: np.random.Generator
) -> Observation:
    """The observation of the twin of a tile.

    Parameters
    ----------
    profile : TileProfile
        From `imcat.simulate.twin.measure_profile`.
    settings : SimulateSettings
        Rates of what is not measured: cosmic rays and trails. Its densities are factors on the tile's.
    population : Population
        Tells the density of stars relative to which the tile's is taken.
    rng : numpy.random.Generator
        Source of randomness.

    Raises
    ------
    InputError
        If the tile is of another survey than SDSS and CSST.
    """
    makers = {"sdss": _sdss, "csst": _csst}
    if profile.survey not in makers:
        raise InputError(
            f"twins of tiles of survey {profile.survey!r} cannot be written",
            path=profile.name,
            expected="sdss or csst",
        )
    exposures = makers[profile.survey](profile, settings, rng)
    return Observation(
        name=profile.name,
        survey=profile.survey,
        number=profile.number,
        exposures=exposures,
        reference=profile.reference,
        filters=FilterSet.named(profile.survey),
        latitude=profile.latitude,
        longitude=profile.longitude,
        ebv=profile.ebv if settings.ebv < 0 else settings.ebv,
        star_density=settings.star_density * _star_factor(profile, population),
        galaxy_density=settings.density,
    )


def _star_factor(profile: TileProfile, population: Population) -> float:
    """The tile's stars over those that the population expects there."""
    extinction = band_extinction(profile.survey, {profile.reference: _wavelength(profile)}, profile.ebv)
    limit = profile.count_limit - extinction[profile.reference]
    mag = np.arange(BRIGHTEST["star"], limit, _COUNT_STEP)
    expected = float(np.sum(population.stars.counts(mag, profile.latitude, profile.longitude)) * _COUNT_STEP)
    return profile.star_density / expected if expected > 0 else 1.0


def _wavelength(profile: TileProfile) -> float:
    return next(e.wavelength for e in profile.exposures if e.band == profile.reference)


def _sdss(
    profile: TileProfile, settings: SimulateSettings, rng: np.random.Generator
) -> tuple[ExposureModel, ...]:
    field = FieldId(profile.number >> 16, profile.number >> 12 & 15, profile.number & 4095)
    return tuple(
        sdss_exposure(
            field,
            e.band,
            wcs=e.wcs,
            psf=e.psf.mixture,
            calibration=_nanomaggies(e),
            sky=e.sky,
            tai=_tai(e),
            settings=settings,
            rng=rng,
            saturation=e.saturation if math.isfinite(e.saturation) else DEFAULT_SATURATION,
            blank=e.blank,
        )
        for e in profile.exposures
    )


def _nanomaggies(exposure: BandProfile) -> NDArray[np.float32]:
    return np.asarray(exposure.njy_per_count / np.float32(NMGY_TO_NJY), np.float32)


def _tai(exposure: BandProfile) -> float:
    """When row 0 was read, from the time of mid-exposure."""
    middle = 0.5 * (exposure.shape[0] - 1) * CLOCK_MICROSECONDS * 1e-6 - 0.5 * EXPOSURE_SECONDS
    return (exposure.mjd or 0.0) * 86400.0 - middle


def _csst(
    profile: TileProfile, settings: SimulateSettings, rng: np.random.Generator
) -> tuple[ExposureModel, ...]:
    return tuple(_level1(e, settings) for e in profile.exposures)


def _level1(exposure: BandProfile, settings: SimulateSettings) -> ExposureModel:
    name = parse_name(exposure.name)
    if name is None:
        raise InputError("is not named as level-1 files of CSST are", path=exposure.name)
    rows, columns = exposure.shape
    area = rows * columns * CSST_PIXEL_CM**2
    middle = (exposure.mjd or 0.0) * 86400.0 - csst_constants.TAI_MINUS_UTC
    return ExposureModel(
        name=exposure.name,
        band=exposure.band,
        wcs=exposure.wcs,
        shape=exposure.shape,
        psf=exposure.psf.mixture,
        electrons_per_njy=exposure.electrons_per_njy,
        sky=exposure.sky_electrons,
        read_variance=exposure.read_variance,
        full_well=csst_constants.FULL_WELL if settings.saturation else math.inf,
        noise_scale=np.broadcast_to(np.asarray(exposure.blank.scale, np.float32), (columns,)),
        residual_rms=exposure.blank.rms,
        residual_length=0.9 * exposure.blank.length,
        correlation=settings.noise_correlation,
        cosmic_rays=CSST_HITS * area * csst_constants.EXPOSURE_SECONDS if settings.cosmic_rays else 0.0,
        marks_cosmic_rays=CSST_MARKED,
        trails=settings.trails_per_tile * rows * columns / (9216 * 9232),
        bad_columns=exposure.blank.columns,
        mjd=exposure.mjd or 0.0,
        extra={
            "obsid": int(name.obsid),
            "detector": name.chip,
            "start": MJD_EPOCH + timedelta(seconds=middle - 0.5 * csst_constants.EXPOSURE_SECONDS),
            "zero_point": exposure.zero_point,
        },
    )
