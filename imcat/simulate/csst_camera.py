"""Exposures of CSST's survey camera, from its published numbers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import InputError
from imcat.psf.mixture import PsfMixture
from imcat.simulate.filters import FilterSet
from imcat.simulate.observation import ExposureModel, Observation, sky_plane
from imcat.simulate.sdss_camera import galactic_place, tangent_wcs
from imcat.simulate.settings import SimulateSettings
from imcat.surveys.csst_constants import (
    BANDS,
    CHIP_BANDS,
    DARK_CURRENT,
    EXPOSURE_SECONDS,
    EXPOSURES,
    FULL_WELL,
    PIXEL_SCALE,
    READ_NOISE,
    SKY_ELECTRONS,
    TAI_MINUS_UTC,
    TELESCOPE_DIAMETER,
)
from imcat.surveys.curves import ab_zero_point, psf_gaussians, throughput
from imcat.surveys.source import hashed_number

__all__ = [
    "CSST_HITS",
    "CSST_MARKED",
    "CSST_PIXEL_CM",
    "MJD_EPOCH",
    "csst_observation",
    "csst_psf",
    "zero_point_of",
]

# Observation numbers of simulated exposures; real ones begin with another digit (data model).
_FIRST_OBSID = 90_000_000_000
_OBSIDS_PER_TILE = 100
_START = datetime(2027, 1, 1, tzinfo=UTC)
_SLEW = 110.0  # seconds between exposures
# Shifts between exposures, 1 sigma along each axis, arcsec; for small tiles this share of their side,
# so that exposures still cover each other.
_DITHER, _DITHER_SHARE = 2.5, 0.03
_ROTATION = 0.01  # degrees
_ELLIPTICITY = 0.02
# Hits a square centimetre and second in low orbit (Miles et al. 2021, ApJ 918, 86: about one), 10-micron pixels.
CSST_HITS = 1.1
CSST_PIXEL_CM = 10e-4
CSST_MARKED = 0.95  # share of cosmic rays that the pipeline finds
MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)


def csst_observation(
    index: int, shape: tuple[int, int], settings: SimulateSettings, rng: np.random.Generator
) -> Observation:
    """Draw place and conditions of a tile: all exposures of the seven bands.

    Parameters
    ----------
    index : int
        Number of the tile, 0-based; decides its name.
    shape : (int, int)
        Rows and columns.
    settings : SimulateSettings
        What is not drawn.
    rng : numpy.random.Generator
        Source of randomness.
    """
    if index >= (10**11 - _FIRST_OBSID) // _OBSIDS_PER_TILE:
        raise InputError(f"tile {index + 1} has no number left", expected="fewer tiles")
    ra, dec, latitude, longitude = _place(rng)
    ebv = settings.ebv if settings.ebv >= 0 else float(0.03 * np.exp(rng.normal(0, 0.5)))
    angle = float(rng.uniform(0, 360))
    # A day for each tile keeps the times of all tiles apart.
    start = _START + timedelta(days=index % 3000, seconds=float(index // 3000))
    # The reference exposure comes first: the tile is named after it, and x and y are its pixels.
    order = ["i", *(b for b in BANDS if b != "i")]
    dither = min(_DITHER / PIXEL_SCALE, _DITHER_SHARE * min(shape))
    exposures: list[ExposureModel] = []
    for band in order:
        for _ in range(EXPOSURES[band]):
            first = not exposures
            offset = np.zeros(2) if first else rng.normal(0, dither, 2)
            turned = angle + (0.0 if first else float(rng.normal(0, _ROTATION)))
            number = len(exposures)
            exposures.append(
                _exposure(
                    band,
                    _FIRST_OBSID + index * _OBSIDS_PER_TILE + number,
                    start + timedelta(seconds=number * (EXPOSURE_SECONDS + _SLEW)),
                    tangent_wcs(ra, dec, turned, shape, offset, PIXEL_SCALE),
                    shape,
                    settings,
                    rng,
                )
            )
    return Observation(
        name=str(exposures[0].extra["key"]),
        survey="csst",
        number=hashed_number(str(exposures[0].extra["key"])),
        exposures=tuple(exposures),
        reference="i",
        filters=FilterSet.named("csst"),
        latitude=latitude,
        longitude=longitude,
        ebv=ebv,
        star_density=settings.star_density,
        galaxy_density=settings.density,
    )


def _exposure(
    band: str,
    obsid: int,
    start: datetime,
    wcs: Any,
    shape: tuple[int, int],
    settings: SimulateSettings,
    rng: np.random.Generator,
) -> ExposureModel:
    zero_point = zero_point_of(band)
    sky = SKY_ELECTRONS[band] * settings.sky_factor * EXPOSURE_SECONDS
    slope = rng.normal(0, settings.sky_gradient * sky, 2)
    area = shape[0] * shape[1] * CSST_PIXEL_CM**2
    detector = next(chip for chip, of in CHIP_BANDS.items() if of == band)
    count = int(rng.poisson(settings.bad_columns_per_tile * shape[1] / 9216))
    ellipticity = rng.normal(0, _ELLIPTICITY, 2)
    psf = csst_psf(band, settings.psf_stretch, (float(ellipticity[0]), float(ellipticity[1])))
    return ExposureModel(
        name=f"{obsid}-{detector:02d}",
        band=band,
        wcs=wcs,
        shape=shape,
        psf=psf,
        electrons_per_njy=np.full(
            shape[1], EXPOSURE_SECONDS * 10 ** (0.4 * zero_point) / AB_FLUX, np.float32
        ),
        sky=sky_plane(shape, sky, (float(slope[0]), float(slope[1]))),
        read_variance=READ_NOISE**2 + DARK_CURRENT * EXPOSURE_SECONDS,
        full_well=FULL_WELL if settings.saturation else math.inf,
        noise_scale=np.ones(shape[1], np.float32),
        residual_rms=settings.sky_residual,
        residual_length=512.0,
        correlation=settings.noise_correlation,
        cosmic_rays=CSST_HITS * area * EXPOSURE_SECONDS if settings.cosmic_rays else 0.0,
        marks_cosmic_rays=CSST_MARKED,
        trails=settings.trails_per_tile * shape[0] * shape[1] / (9216 * 9232),
        bad_columns=tuple(sorted(int(c) for c in rng.integers(0, shape[1], count))),
        mjd=((start - MJD_EPOCH).total_seconds() + TAI_MINUS_UTC + 0.5 * EXPOSURE_SECONDS) / 86400.0,
        extra={
            "obsid": obsid,
            "detector": detector,
            "start": start,
            "zero_point": zero_point,
            "key": f"{obsid}-{detector:02d}",
        },
    )


@cache
def zero_point_of(band: str) -> float:
    """AB magnitude of one electron a second."""
    return ab_zero_point(*throughput("csst", band), TELESCOPE_DIAMETER)


def csst_psf(band: str, stretch: float = 1.0, ellipticity: tuple[float, float] = (0.0, 0.0)) -> PsfMixture:
    """PSF of a band, wider than packaged or sheared where asked for.

    Parameters
    ----------
    band : str
        One of CSST's.
    stretch : float
        Factor on all lengths.
    ellipticity : (float, float)
        Shear of the covariances: ``xx`` times 1 + e1, ``yy`` times 1 - e1, and e2 of their mean to ``xy``.
    """
    weights, packaged = psf_gaussians("csst", band)
    covariances = packaged * stretch**2
    e1, e2 = ellipticity
    mean = 0.5 * (covariances[:, 0] + covariances[:, 2])
    sheared = np.stack(
        [covariances[:, 0] * (1 + e1), covariances[:, 1] + e2 * mean, covariances[:, 2] * (1 - e1)], axis=1
    )
    return PsfMixture(weights, sheared, subpixels=2)


def _place(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A place at |b| > 20 degrees: ra, dec, b, l in degrees."""
    while True:
        ra, dec = float(rng.uniform(0, 360)), float(np.degrees(np.arcsin(rng.uniform(-0.98, 0.98))))
        latitude, longitude = galactic_place(ra, dec)
        if abs(latitude) > 20:
            return ra, dec, latitude, longitude
