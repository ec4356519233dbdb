"""The PSF of one exposure for photometry, and how it came about.

In this order: the model that came with the image (a `psField`, or an image of the PSF), the image's own stars, a
Moffat profile of the measured width. Fluxes refer to the light within a circle around a star where the survey's
magnitudes do so (SDSS: 7.43 arcsec), else to that within a few FWHM, since no star of a small image tells what is beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imcat.psf.given_psf import PsfModel, given_mixture, supported
from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.psf.stars import FALLBACK_BETA, FALLBACK_FWHM, StarPsf, StarPsfSettings, measure_psf

__all__ = ["ExposurePsf", "PsfModel", "measure_exposure_psf"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_WIDER = 2.0  # times the width that is known of the image: no PSF, but what was taken for stars
_SMALLEST_SHARE = 0.5  # of the light within the circle; less is a failure


@dataclass(frozen=True, eq=False)
class ExposurePsf:
    """The PSF of an exposure.

    Attributes
    ----------
    mixture : PsfMixture
        The model.
    method : str
        ``file``, ``stars`` or ``assumed``.
    stars : int
        Stars that it was measured on.
    quality : float
        Chi² per degree of freedom of stars that were held out, or of the given images (model errors included); NaN
        where it is assumed.
    enclosed : float
        Share of the light to which fluxes refer; multiply fluxes of the whole mixture by it.
    locus : bool array, ``[n]``, or None
        Sources that may be stars by their size here; None where no star told.
    """

    mixture: PsfMixture
    method: str
    stars: int
    quality: float
    enclosed: float
    locus: NDArray[np.bool_] | None = None


def measure_exposure_psf(
    data: Float32,
    variance: Float32,
    bad: NDArray[np.bool_],
    x: Float64,
    y: Float64,
    *,
    labels: NDArray[np.int32] | None = None,
    candidates: NDArray[np.bool_] | None = None,
    gain: float | None = None,
    fwhm: float | None = None,
    given: PsfModel | None = None,
    circle: float | None = None,
    settings: StarPsfSettings | None = None,
) -> ExposurePsf:
    """Find the PSF of an exposure.

    Parameters
    ----------
    data, variance, bad, x, y, labels, candidates, gain, fwhm, settings
        As in `imcat.psf.stars.measure_psf`.
    given : PsfModel, optional
        What came with the image; its stars say how much of it is used.
    circle : float, optional
        Radius in pixels of the circle whose light fluxes refer to; default: that of the settings.
    """
    settings = settings or StarPsfSettings()
    if given is not None:
        shape = (int(data.shape[0]), int(data.shape[1]))
        model = supported(
            given, data, variance, bad, x, y, candidates=candidates, gain=gain, fwhm=fwhm, settings=settings
        )
        mixture, chi2 = given_mixture(model, shape, settings)
        found = ExposurePsf(mixture, "file", 0, chi2, 1.0)
    else:
        star = measure_psf(
            data,
            variance,
            bad,
            x,
            y,
            labels=labels,
            candidates=candidates,
            gain=gain,
            fwhm=fwhm,
            settings=settings,
        )
        if _unlikely(star, fwhm):
            assumed = moffat_mixture(fwhm or FALLBACK_FWHM, FALLBACK_BETA)
            found = ExposurePsf(assumed, "assumed", 0, math.nan, 1.0)
        else:
            locus = star.locus if star.method == "stars" else None
            found = ExposurePsf(star.mixture, star.method, len(star.stars), star.chi2, 1.0, locus)
    if circle is None:
        circle = settings.flux_radius * found.mixture.fwhm
    share = float(found.mixture.encircled_energy(np.array([circle]))[0])
    return replace(found, enclosed=share if _SMALLEST_SHARE < share <= 1.2 else 1.0)


def _unlikely(star: StarPsf, fwhm: float | None) -> bool:
    """Whether a PSF is none: without a peak, or of so few stars that none could be held out, and far from the known width.

    In frames with few stars, two or three galaxies may pass for them.
    """
    if star.method != "stars":
        return False
    width = star.mixture.fwhm
    if math.isnan(width):
        return True
    return math.isnan(star.chi2) and bool(fwhm) and not 1 / _WIDER < width / (fwhm or math.inf) < _WIDER
