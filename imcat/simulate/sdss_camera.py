"""Fields of SDSS that were never observed: conditions drawn like those of real ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.simulate.blank_sky import BlankSky
from imcat.simulate.filters import FilterSet
from imcat.simulate.observation import ExposureModel, Observation
from imcat.simulate.settings import SimulateSettings
from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_constants import (
    BANDS,
    CALIBRATION_RADIUS,
    CLOCK_MICROSECONDS,
    DEFAULT_SATURATION,
    EXPOSURE_SECONDS,
    NMGY_TO_NJY,
    dark_variance,
    gain,
)
from imcat.surveys.sdss_variance import SkyGrid
from imcat.surveys.sdss_write import sky_grid

__all__ = ["field_id", "galactic_place", "sdss_exposure", "sdss_observation", "tangent_wcs"]

PIXEL_SCALE = 0.396  # arcsec (Gunn et al. 1998, AJ 116, 3040)
#: Runs below 94 do not exist in the survey's releases: nobody can take a simulated field for real.
_LAST_RUN = 93
_FIELDS = 4000  # of one camera column that are used

# Typical conditions, of the order of what headers and second HDUs of frames state: sky in AB
# magnitudes per square arcsec, nanomaggies per count. PSF widths relative to r fall with wavelength
# as the atmosphere's do (Kolmogorov: λ^-1/5).
_SKY = {"u": 22.1, "g": 21.8, "r": 20.9, "i": 20.3, "z": 18.9}
_CALIBRATION = {"u": 0.0105, "g": 0.0039, "r": 0.0050, "i": 0.0067, "z": 0.034}
_WIDTH = {"u": 1.10, "g": 1.06, "r": 1.00, "i": 0.96, "z": 0.95}
# Median PSF width in r (Abazajian et al. 2009, ApJS 182, 543: 1.32 arcsec) and its scatter.
_SEEING, _SEEING_SCATTER = 1.32, 0.12
_BETA = 3.2  # of the Moffat profile: wings as of real stars (King 1971)
_SKY_SCATTER, _CALIBRATION_SCATTER = 0.12, 0.04
_OFFSET, _ROTATION = 6.0, 0.02  # pixels, degrees: band against r
_ELLIPTICITY = 0.03
_TAI_START, _TAI_SPREAD = 4.4e9, 2.5e8  # seconds since MJD 0: the years of the survey's imaging
_SCAN_DELAY = 71.72  # s from one row of CCDs to the next (York et al. 2000)
_SCAN_ORDER = ("r", "i", "u", "z", "g")
# Events a square centimetre and minute at a ground-based CCD (Groom 2002, Experimental Astronomy 14, 45),
# on 24-micron pixels.
_HITS_PER_CM2_MINUTE = 1.5
_PIXEL_CM = 24e-4


def field_id(index: int) -> FieldId:
    """The name of the simulated field of a number, 0-based."""
    camcol, rest = 1 + index % 6, index // 6
    return FieldId(_LAST_RUN - rest // _FIELDS, camcol, 11 + rest % _FIELDS)


def sdss_observation(
    index: int, shape: tuple[int, int], settings: SimulateSettings, rng: np.random.Generator
) -> Observation:
    """Draw place and conditions of a field.

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
    field = field_id(index)
    ra, dec, latitude, longitude = _place(rng)
    seeing = settings.seeing or _SEEING * float(np.exp(rng.normal(0, _SEEING_SCATTER)))
    ebv = settings.ebv if settings.ebv >= 0 else float(0.03 * np.exp(rng.normal(0, 0.5)))
    angle = float(rng.uniform(0, 360))
    tai = _TAI_START + float(rng.uniform(0, _TAI_SPREAD))
    exposures = []
    for band in BANDS:
        off = np.zeros(2) if band == "r" else rng.normal(0, _OFFSET, 2)
        turned = angle + (0.0 if band == "r" else float(rng.normal(0, _ROTATION)))
        psf = _psf(rng, seeing * _WIDTH[band])
        level = _SKY[band] - 2.5 * math.log10(settings.sky_factor) + float(rng.normal(0, _SKY_SCATTER))
        calibration = _CALIBRATION[band] * float(np.exp(rng.normal(0, _CALIBRATION_SCATTER)))
        counts = 10 ** (-0.4 * (level - 22.5)) * PIXEL_SCALE**2 / calibration
        slope = rng.normal(0, settings.sky_gradient * counts, 2)
        exposures.append(
            sdss_exposure(
                field,
                band,
                wcs=tangent_wcs(ra, dec, turned, shape, off, PIXEL_SCALE),
                psf=psf,
                calibration=np.full(shape[1], calibration, np.float32),
                sky=sky_grid(shape, counts, (float(slope[0]), float(slope[1]))),
                tai=tai + _SCAN_DELAY * _SCAN_ORDER.index(band),
                settings=settings,
                rng=rng,
            )
        )
    return Observation(
        name=field.name,
        survey="sdss",
        number=field.number,
        exposures=tuple(exposures),
        reference="r",
        filters=FilterSet.named("sdss"),
        latitude=latitude,
        longitude=longitude,
        ebv=ebv,
        star_density=settings.star_density,
        galaxy_density=settings.density,
    )


def sdss_exposure(
    field: FieldId,
    band: str,
    *,
    wcs: Any,
    psf: PsfMixture,
    calibration: Any,
    sky: SkyGrid,
    tai: float,
    settings: SimulateSettings,
    rng: np.random.Generator,
    saturation: float = DEFAULT_SATURATION,
    blank: BlankSky | None = None,
) -> ExposureModel:
    """One frame of a field.

    Parameters
    ----------
    field : FieldId
        Run and camera column choose gain and dark variance.
    band : str
        One of ``u g r i z``.
    wcs : astropy.wcs.WCS
        TAN.
    psf : PsfMixture
        Effective PSF.
    calibration : float32 array, ``[x]``
        Nanomaggies per count.
    sky : SkyGrid
        Counts.
    tai : float
        When row 0 was read, seconds since MJD 0.
    settings : SimulateSettings
        Rates of artefacts.
    rng : numpy.random.Generator
        Source of randomness.
    saturation : float
        Counts above the soft bias at which a pixel is full.
    blank : BlankSky, optional
        Noise, columns and background of blank sky, measured; default: by the settings, drawn.
    """
    rows, columns = sky.shape
    electrons = gain(field.run, field.camcol, band)
    if blank is not None:
        sky_facts = _blank_facts(blank, rows, columns)
    else:
        count = int(rng.poisson(settings.bad_columns_per_tile * columns / 2048))
        sky_facts = {
            "noise_scale": np.ones(columns, np.float32),
            "residual_rms": settings.sky_residual,
            "bad_columns": tuple(sorted({int(c) for c in rng.integers(1, columns - 1, count)})),
        }
    area = rows * columns * _PIXEL_CM**2
    hits = _HITS_PER_CM2_MINUTE * area * EXPOSURE_SECONDS / 60.0
    middle = 0.5 * (rows - 1) * CLOCK_MICROSECONDS * 1e-6 - 0.5 * EXPOSURE_SECONDS
    # The survey's magnitudes are those of the light within this radius of a star.
    enclosed = float(psf.encircled_energy(np.array([CALIBRATION_RADIUS / PIXEL_SCALE]))[0])
    return ExposureModel(
        name=f"frame-{band}-{field.name}",
        band=band,
        wcs=wcs,
        shape=(rows, columns),
        psf=psf,
        electrons_per_njy=(electrons / (np.asarray(calibration) * NMGY_TO_NJY)).astype(np.float32),
        sky=SkyGrid((sky.values * electrons).astype(np.float32), sky.x, sky.y),
        read_variance=dark_variance(field.run, field.camcol, band) * electrons**2,
        full_well=saturation * electrons if settings.saturation else math.inf,
        correlation=settings.noise_correlation,
        cosmic_rays=hits if settings.cosmic_rays else 0.0,
        marks_cosmic_rays=0.97,
        interpolates=True,
        trails=settings.trails_per_tile * rows * columns / (1489 * 2048),
        light_scale=1.0 / enclosed,
        quantum=electrons,
        mjd=(tai + middle) / 86400.0,
        extra={"field": field, "calibration": np.asarray(calibration, np.float32), "sky": sky, "tai": tai},
        **sky_facts,
    )


def _blank_facts(blank: BlankSky, rows: int, columns: int) -> dict[str, Any]:
    """Measured blank sky in the terms of an exposure."""

    def levels(scatter: float, pixels: int) -> float:
        return math.sqrt(max(scatter**2 - 1.0, 0.0) / pixels)

    return {
        "noise_scale": np.array(np.broadcast_to(np.asarray(blank.scale, np.float32), (columns,))),
        "residual_rms": blank.rms,
        # The correlation of a cubic spline with independent knots is one half after about 1.1 knots.
        "residual_length": 0.9 * blank.length,
        "residual_mean": blank.mean,
        "row_rms": tuple(levels(s, columns // 2) for s in blank.row_scatter),
        "row_link": blank.row_link,
        "column_rms": levels(blank.column_scatter, rows),
        "neighbours": blank.correlation,
        "bad_columns": blank.columns,
    }


def _place(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A place at |b| > 20 degrees in the survey's range of declination: ra, dec, b, l in degrees."""
    while True:
        ra, dec = float(rng.uniform(0, 360)), float(np.degrees(np.arcsin(rng.uniform(-0.15, 0.9))))
        latitude, longitude = galactic_place(ra, dec)
        if abs(latitude) > 20:
            return ra, dec, latitude, longitude


def galactic_place(ra: float, dec: float) -> tuple[float, float]:
    """Galactic latitude and longitude in degrees of a place given in ICRS degrees."""
    from astropy.coordinates import SkyCoord

    place = SkyCoord(ra, dec, unit="deg", frame="icrs").galactic
    return float(place.b.deg), float(place.l.deg)


def _psf(rng: np.random.Generator, fwhm: float) -> PsfMixture:
    e1, e2 = rng.normal(0, _ELLIPTICITY, 2)
    return moffat_mixture(fwhm / PIXEL_SCALE, _BETA, ellipticity=(float(e1), float(e2)))


def tangent_wcs(
    ra: float, dec: float, angle: float, shape: tuple[int, int], offset: Any, pixel_scale: float
) -> Any:
    """A TAN projection with its reference point near the middle of the image.

    Parameters
    ----------
    ra, dec : float
        Of the reference point, ICRS degrees.
    angle : float
        By which north is turned from the columns, degrees.
    shape : (int, int)
        Rows and columns.
    offset : (float, float)
        Of the reference point from the middle along x and y, pixels.
    pixel_scale : float
        arcsec.
    """
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [0.5 * (shape[1] + 1) + offset[0], 0.5 * (shape[0] + 1) + offset[1]]
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    wcs.wcs.cd = np.array([[cos, sin], [-sin, cos]]) @ np.diag([-1, 1]) * (pixel_scale / 3600.0)
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys, wcs.wcs.equinox = "ICRS", 2000.0
    wcs.array_shape = shape
    wcs.wcs.set()
    return wcs
