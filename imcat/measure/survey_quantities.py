"""Quantities of survey catalogues beside the fits: Petrosian fluxes and radii, fibre fluxes, adaptive moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.flags import SourceFlag
from imcat.measure.adaptive import measure_adaptive
from imcat.measure.fibre import FIBRE_DIAMETERS, fibre_fluxes
from imcat.measure.petrosian import PetrosianSettings, aperture_limit, measure_petrosian
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import View
from imcat.psf import FWHM_PER_SIGMA

__all__ = ["survey_quantities"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: Columns of the fibre fluxes, in the order of `FIBRE_DIAMETERS`: those of SDSS and of BOSS.
_FIBRES = ("fiber_flux", "fiber2_flux")
# Below this signal-to-noise ratio the iteration of adaptive moments does not end in 97 of 100 sources of real fields.
_SNR = 5.0
_SIZE_OF_START = 0.85  # half-light radius to rms size of a Gaussian


def survey_quantities(
    views: Sequence[View],
    bands: Sequence[str],
    reference: str,
    label: Int64,
    mode: int,
    dx: Float64,
    dy: Float64,
    semi_major: Float64,
    half_light: Float64,
    snr: Float64,
    sky: Float64,
    settings: MeasureSettings,
) -> tuple[dict[str, NDArray[Any]], Int64]:
    """Measure the sources of a window.

    Parameters
    ----------
    views : sequence of View
        The exposures.
    bands : sequence of str
        Names of the bands.
    reference : str
        Band of radii and moments.
    label, mode
        As in `imcat.measure.pixels`.
    dx, dy : float64 arrays [n]
        Offsets of the positions from those of the views, reference pixels.
    semi_major, half_light : float64 arrays [n]
        Rms semi-major axis of the footprint, half-light radius, reference pixels.
    snr : float64 array [n]
        Signal-to-noise ratio of the detection.
    sky : float64 array [n, 2, 2]
        Derivatives of (east, north) in arcsec by (x, y) of the reference grid.
    settings : MeasureSettings
        Largest ellipses.

    Returns
    -------
    columns : dict
        By name, arrays [n].
    flags : int64 array [n]
        PETROSIAN_FALLBACK where it holds.
    """
    n = label.size
    petrosian_settings = PetrosianSettings()
    arcsec = np.sqrt(np.abs(np.linalg.det(sky))) if n else np.ones(0)
    sigma = max((v.layer.psf_sigma for v in views if v.layer.band == reference), default=1.0)
    limit = aperture_limit(semi_major, arcsec, FWHM_PER_SIGMA * sigma, settings, petrosian_settings)
    p = measure_petrosian(views, bands, reference, label, mode, dx, dy, limit, petrosian_settings)
    # A first guess without a half-light radius is that of a star.
    size = np.where(half_light > 0, _SIZE_OF_START * half_light, sigma / arcsec)
    # What is too faint to hold the weight is given no room for it.
    room = np.where(snr >= _SNR, limit, 0.0)
    m = measure_adaptive(views, reference, label, mode, dx, dy, size, room, sky)
    fibre, fibre_variance = fibre_fluxes(views, bands, label, mode, dx, dy, FIBRE_DIAMETERS)
    columns: dict[str, NDArray[Any]] = {
        "petrosian_radius": p.radius,
        "petrosian_radius_err": p.radius_err,
        "petrosian_r50": p.r50,
        "petrosian_r50_err": p.r50_err,
        "petrosian_r90": p.r90,
        "petrosian_r90_err": p.r90_err,
        "adaptive_xx": m.xx,
        "adaptive_xy": m.xy,
        "adaptive_yy": m.yy,
        "adaptive_size_err": m.size_err,
        "adaptive_e1": m.e1,
        "adaptive_e2": m.e2,
        "adaptive_e_err": m.e_err,
        "adaptive_rho4": m.rho4,
    }
    for k, band in enumerate(bands):
        columns[f"{band}_petrosian_flux"] = p.flux[:, k]
        columns[f"{band}_petrosian_flux_err"] = np.sqrt(p.variance[:, k])
        for j, name in enumerate(_FIBRES):
            columns[f"{band}_{name}"] = fibre[:, k, j]
            columns[f"{band}_{name}_err"] = np.sqrt(fibre_variance[:, k, j])
    return columns, np.where(p.fallback, int(SourceFlag.PETROSIAN_FALLBACK), 0)
