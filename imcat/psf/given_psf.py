"""A PSF that came with an image: as much of it as the image's stars support, as a mixture of Gaussians."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imcat.psf.mixture import PsfMixture, polynomial_terms
from imcat.psf.settings import StarPsfSettings
from imcat.psf.star_fit import fit_stars
from imcat.psf.star_stamps import Stamps
from imcat.psf.stars import find_stars, first_mixture

__all__ = ["PsfModel", "given_mixture", "supported"]

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_NODES = 7  # places along each axis at which a given model is looked at
# Signal-to-noise ratio of its images: their errors are those that the settings allow a model.
_GIVEN_SNR = 3000.0
_JUDGES = 12  # the brightest stars say which parts of a model are real
_FEWEST = 4  # of them
_SIDE = 15  # half side of their stamps, pixels
# A model with more parts is kept unless a simpler one explains the stars better by this factor.
_WORSE = 1.1


class PsfModel(Protocol):
    """A PSF that came with an image."""

    def image(self, x: float, y: float) -> Float64:
        """The PSF at a place (pixels): odd sides, centred on the middle pixel, a sum of 1."""

    def simpler(self) -> PsfModel | None:
        """The same without its least important part; None if it has one part only."""


def supported(
    model: PsfModel,
    data: Float32,
    variance: Float32,
    bad: Bools,
    x: Float64,
    y: Float64,
    *,
    candidates: Bools | None = None,
    gain: float | None = None,
    fwhm: float | None = None,
    settings: StarPsfSettings | None = None,
) -> PsfModel:
    """Leave out the parts of a model that the image's brightest stars contradict.

    PHOTO's models have as many eigenimages in fields with few stars as in others, and then the last ones are noise,
    which their polynomials carry far over the field.

    Parameters
    ----------
    model : PsfModel
        What came with the image.
    data, variance, bad, x, y, candidates, gain, fwhm, settings
        As in `imcat.psf.stars.measure_psf`.
    """
    models = [model]
    while (simple := models[-1].simpler()) is not None:
        models.append(simple)
    if len(models) == 1:
        return model
    at = find_stars(data, variance, bad, x, y, candidates=candidates, fwhm=fwhm, settings=settings)[:_JUDGES]
    side = 2 * _SIDE + 1
    inside = [
        (px, py)
        for px, py in at
        if _SIDE < px < data.shape[1] - _SIDE - 1 and _SIDE < py < data.shape[0] - _SIDE - 1
    ]
    if len(inside) < _FEWEST:
        return model
    scores = np.array([[_misfit(m, data, variance, px, py, gain, side) for px, py in inside] for m in models])
    # Each star counts alike, one that is none counts little.
    mean = np.exp(np.mean(np.log(scores / scores.min(axis=0)), axis=1))
    return next(m for m, s in zip(models, mean, strict=True) if s <= _WORSE * mean.min())


def _misfit(
    model: PsfModel, data: Float32, variance: Float32, x: float, y: float, gain: float | None, side: int
) -> float:
    """Mean squared residual of one star in units of its noise, a per cent of its light added."""
    from scipy.ndimage import shift

    column, row = round(x), round(y)
    window = (slice(row - _SIDE, row + _SIDE + 1), slice(column - _SIDE, column + _SIDE + 1))
    value, noise = data[window].astype(float), variance[window].astype(float)
    image = model.image(x, y)
    margin = image.shape[0] // 2 - _SIDE
    if margin < 0:
        image, margin = np.pad(image, -margin), 0
    image = shift(image, (y - row, x - column), order=3)[margin : margin + side, margin : margin + side]
    photons = np.maximum(value, 0) / gain if gain else 0.0
    weight = np.where(noise > 0, 1 / (np.maximum(noise, 1e-30) + photons + (0.01 * value) ** 2), 0.0)
    flux = np.sum(weight * image * value) / np.sum(weight * image**2)
    return float(np.sum(weight * (value - flux * image) ** 2) / max(np.count_nonzero(weight), 1))


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
