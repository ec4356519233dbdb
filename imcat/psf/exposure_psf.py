"""The PSF of one exposure for photometry, and how it came about.

In this order: the model that came with the image (a `psField`, or an image of the PSF), the image's own stars, a
Moffat profile of the measured width. Fluxes refer to the light within a circle around a star where the survey's
magnitudes do so (SDSS: 7.43 arcsec), else to that within a few FWHM, since no star of a small image tells what is beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imcat.psf.mixture import PsfMixture, polynomial_terms
from imcat.psf.star_fit import fit_stars
from imcat.psf.star_stamps import Stamps
from imcat.psf.stars import StarPsfSettings, first_mixture, measure_psf

__all__ = ["ExposurePsf", "PsfModel", "given_mixture", "measure_exposure_psf"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_NODES = 7  # places along each axis at which a given model is looked at
_GIVEN_SNR = (
    3000.0  # signal-to-noise ratio of its images: their errors are those that the settings allow a model
)
_SMALLEST_SHARE = 0.5  # of the light within the circle; less is a failure


class PsfModel(Protocol):
    """A PSF that came with an image."""

    def image(self, x: float, y: float) -> Float64:
        """The PSF at a place (pixels): odd sides, centred on the middle pixel, a sum of 1."""


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
        What came with the image; then pixels are not looked at.
    circle : float, optional
        Radius in pixels of the circle whose light fluxes refer to; default: that of the settings.
    """
    settings = settings or StarPsfSettings()
    if given is not None:
        shape = (int(data.shape[0]), int(data.shape[1]))
        mixture, chi2 = given_mixture(given, shape, settings)
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
        locus = star.locus if star.method == "stars" else None
        found = ExposurePsf(star.mixture, star.method, len(star.stars), star.chi2, 1.0, locus)
    if circle is None:
        circle = settings.flux_radius * found.mixture.fwhm
    share = float(found.mixture.encircled_energy(np.array([circle]))[0])
    return replace(found, enclosed=share if _SMALLEST_SHARE < share <= 1.2 else 1.0)


def given_mixture(
    model: PsfModel, shape: tuple[int, int], settings: StarPsfSettings | None = None
) -> tuple[PsfMixture, float]:
    """A mixture that varies over the image as a given PSF does.

    Parameters
    ----------
    model : PsfModel
        The PSF.
    shape : (int, int)
        Rows and columns of the image.
    settings : StarPsfSettings, optional
        Of the mixture.

    Returns
    -------
    PsfMixture
    float
        Mean chi² per pixel with the model error of the settings.
    """
    settings = settings or StarPsfSettings()
    rows, columns = (np.linspace(0, n - 1, _NODES) for n in shape)
    x, y = (grid.ravel() for grid in np.meshgrid(columns, rows))
    stamps = _stamps(model, x, y)
    constant = all(np.array_equal(stamps.value[: stamps.start[1]], part) for part in _parts(stamps))
    terms = np.empty((len(x), 0)) if constant else polynomial_terms(x, y, shape, 9).T
    keywords: dict[str, Any] = {"model_error": settings.model_error}
    first = first_mixture(stamps.take(np.array([len(x) // 2])), _covariance(stamps, len(x) // 2), settings)
    fixed = len(settings.wing_widths)
    grid = None if constant else terms
    state = fit_stars(
        stamps,
        np.ascontiguousarray(terms),
        first.weights,
        first.covariances,
        fixed,
        grid=grid,
        steps=20,
        **keywords,
    )
    mixture = PsfMixture(
        state.weights, state.covariances, None if constant else state.variation, None if constant else shape
    )
    return mixture, state.chi2 / len(stamps.value)


def _stamps(model: PsfModel, x: Float64, y: Float64) -> Stamps:
    """Images of the model as if they were stars without noise."""
    images = [model.image(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    side_y, side_x = images[0].shape
    v, u = np.mgrid[:side_y, :side_x]
    u, v = u - (side_x - 1) / 2, v - (side_y - 1) / 2
    flux = _GIVEN_SNR * math.sqrt(1.0 / float(np.sum(images[0] ** 2)))
    count = side_x * side_y
    n = len(images)
    return Stamps(
        np.arange(n + 1) * count,
        np.tile(u.ravel(), n).astype(np.float32),
        np.tile(v.ravel(), n).astype(np.float32),
        (flux * np.concatenate([image.ravel() for image in images])).astype(np.float32),
        np.ones(n * count, np.float32),
        x,
        y,
    )


def _parts(stamps: Stamps) -> list[Float32]:
    return [stamps.value[a:b] for a, b in zip(stamps.start[:-1], stamps.start[1:], strict=True)]


def _covariance(stamps: Stamps, index: int) -> Float64:
    """Moments of the core of one image, within its half maximum, widened to those of a Gaussian."""
    part = slice(stamps.start[index], stamps.start[index + 1])
    u, v, value = (a[part].astype(float) for a in (stamps.u, stamps.v, stamps.value))
    core = value > 0.5 * value.max()
    weight = value[core] / value[core].sum()
    # A Gaussian cut at half its maximum has 1 - ln 2 = 0.307 of its variance left.
    xx, xy, yy = (
        float(np.sum(weight * a * b)) / 0.307
        for a, b in ((u[core], u[core]), (u[core], v[core]), (v[core], v[core]))
    )
    floor = 0.3
    return np.array([max(xx, floor), xy if xx * yy > xy * xy else 0.0, max(yy, floor)])
