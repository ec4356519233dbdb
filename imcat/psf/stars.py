"""The PSF of an image, measured on its own stars.

`measure_psf` takes the places of an image's sources, tells the stars among them by their size, and fits one
mixture of elliptical Gaussians whose covariances change over the image to the pixels of all of them. The wings
come from the brightest stars: saturated ones take part with their cores left out, since what lies around them
tells the wings to many times the PSF's width. A part of the stars is held out and judges the fit.

With too few stars the model becomes poorer in steps: a plane instead of a quadratic surface, one PSF for
the whole image, and without three stars a Moffat profile of the width that the caller names (β = 3,
between the 2.5 of good sites' seeing and the 4.765 of Kolmogorov's turbulence: Trujillo et al. 2001,
MNRAS 328, 977), which is said by `StarPsf.method`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.psf.mixture import PsfMixture, calmed, grid_places, moffat_mixture, polynomial_terms
from imcat.psf.settings import StarPsfSettings
from imcat.psf.star_fit import FitState, fit_stars, star_residuals
from imcat.psf.star_select import Moments, crowding, measure_moments, seen_sigma, select_stars
from imcat.psf.star_stamps import Stamps, cut_stamps, joined
from imcat.psf.width import half_sample_mode

__all__ = [
    "FALLBACK_BETA",
    "FALLBACK_FWHM",
    "StarPsf",
    "StarPsfSettings",
    "find_stars",
    "first_mixture",
    "measure_psf",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Beyond the larger of these two radii (in units of the PSF's standard deviation, and pixels) pixels are averaged
# in blocks; the curvature of the wings within a block is then some per cent of a few per cent.
_FINE, _FINE_PIXELS = 8.0, 14.0
# Model error while one PSF stands for the whole image: of the fit, and of the judgement whether a source is a star.
_FIRST_ERROR, _LARGE_ERROR = 0.03, 0.08
# Radius of what may be saturated though no mask says so, in units of the PSF's standard deviation.
_CORE = 4.0
# Chi² per pixel of a first fit that needs no other start.
_FITS = 1.05
_FIRST_STARS = 20  # stars that tell the PSF of the whole image, from which the one that varies is fitted
_FEWEST = 3  # stars that make a PSF
_EASES = (1.0, 2.0, 4.0)  # by which the demands on stars are lowered where there are few
#: Moffat's exponent where nothing is known but a width.
FALLBACK_BETA = 3.0
#: FWHM in pixels where not even that is known.
FALLBACK_FWHM = 3.5
_OWN_PIXELS = 4  # parameters of each star
_COARSE = 1.5  # pixels, FWHM below which moments depend on where in its pixel a star lies
_NARROWEST = 0.9  # of the width that is known, below which stars are not believed to be
_SATURATED_CORE = 4  # bad pixels in the core of a star that is taken to be saturated


@dataclass(frozen=True, eq=False)
class StarPsf:
    """The PSF of an image, and how well it is known.

    Attributes
    ----------
    mixture : PsfMixture
        The model.
    method : str
        ``stars``, or ``assumed`` where there were too few.
    stars : int64 array, ``[n]``
        Indices of the stars that were fitted, in the caller's list.
    wings : int64 array, ``[m]``
        Indices of those that also told the wings, saturated ones among them.
    degree : int
        Of the variation over the image.
    chi2 : float
        Per degree of freedom, of stars that were held out, in the core (NaN without); noise includes
        the model error of the settings.
    snr : float
        Of all stars together.
    locus : bool array, ``[n]``
        All of the caller's sources that may be stars: by their size, or since they are saturated.
    """

    mixture: PsfMixture
    method: str
    stars: NDArray[np.int64]
    wings: NDArray[np.int64]
    degree: int
    chi2: float
    snr: float
    locus: Bools


def measure_psf(
    data: Float32,
    variance: Float32,
    bad: Bools,
    x: Float64,
    y: Float64,
    *,
    labels: NDArray[np.int32] | None = None,
    candidates: Bools | None = None,
    gain: float | None = None,
    fwhm: float | None = None,
    settings: StarPsfSettings | None = None,
) -> StarPsf:
    """Measure the PSF of an image.

    Parameters
    ----------
    data, variance : float32 array, ``[y, x]``
        Sky-subtracted image, and the variance of sky and detector (0 where unknown).
    bad : bool array, ``[y, x]``
        Saturated pixels and those without information.
    x, y : float64 array, ``[n]``
        Places of all sources, pixels.
    labels : int32 array, ``[y, x]``, optional
        Source of each pixel, 0 for sky, to leave out pixels of neighbours.
    candidates : bool array, ``[n]``, optional
        Sources that may be stars (from another band, say); default: all.
    gain : float, optional
        Electrons for one unit of the image; without it stars have no Poisson noise.
    fwhm : float, optional
        First guess, pixels; it is what remains where there are too few stars.
    settings : StarPsfSettings, optional
        Knobs.

    Returns
    -------
    StarPsf
    """
    settings = settings or StarPsfSettings()
    bad = bad | ~(variance > 0)
    rms, moments = _moments(data, variance, bad, x, y, candidates, fwhm, settings)
    star = _stars(x, y, moments, candidates, fwhm, settings)
    index = np.flatnonzero(star)
    if index.size < _FEWEST:
        nothing, all_of_them = np.empty(0, np.int64), np.ones(len(x), bool)
        assumed = moffat_mixture(fwhm or FALLBACK_FWHM, FALLBACK_BETA)
        return StarPsf(assumed, "assumed", nothing, nothing, 0, math.nan, 0.0, all_of_them)
    index = index[np.argsort(-moments.snr[index], kind="stable")][: settings.max_stars]
    # Where pixels are coarser than the PSF, moments are of a pixel as often as of a star; elsewhere they are believed.
    narrowest = _NARROWEST * seen_sigma(min(fwhm or 0.0, _COARSE))
    sigma = max(half_sample_mode(moments.size[index]), narrowest)
    work = _Work(data, variance, bad, labels, sigma, rms, math.inf if gain is None else gain, settings)
    saturated = moments.lost >= _SATURATED_CORE
    # Most stars are kept for the core; those that also show their wings get larger stamps.
    eligible = saturated.copy() if candidates is None else saturated & candidates
    eligible[index[: index.size // 4]] = True
    wing, hole = _bright(work, x, y, eligible)
    centre = np.where(saturated, x, moments.x), np.where(saturated, y, moments.y)
    kept = np.setdiff1d(index, wing)
    shape_of_stars = np.array([np.median(c[index]) for c in (moments.xx, moments.xy, moments.yy)])
    shape_of_stars[[0, 2]] = np.maximum(shape_of_stars[[0, 2]], narrowest**2)
    first = work.one_psf(work.cut(centre, kept), shape_of_stars)
    # Stars that one PSF cannot explain, even with what the variation would add, are none.
    kept = kept[work.alike(work.cut(centre, kept), first)]
    honest = work.alike(work.cut(centre, wing, _CORE), first)
    hole = np.where(honest & ~saturated[wing], hole, np.maximum(hole, _CORE * sigma))
    outer = work.cut(centre, wing, settings.wing_radius, hole, spread=True)
    degree = _degree(len(kept), settings)
    state, chi2 = work.varying(work.cut(centre, kept), outer, first, degree)
    variation = calmed(state.covariances, state.variation, work.shape) if degree else None
    mixture = PsfMixture(state.weights, state.covariances, variation, work.shape if degree else None)
    snr = float(np.sqrt(np.sum(moments.snr[kept] ** 2)))
    return StarPsf(mixture, "stars", kept, wing, degree, chi2, snr, star | (moments.lost > 0))


def find_stars(
    data: Float32,
    variance: Float32,
    bad: Bools,
    x: Float64,
    y: Float64,
    *,
    candidates: Bools | None = None,
    fwhm: float | None = None,
    settings: StarPsfSettings | None = None,
) -> list[tuple[float, float]]:
    """Places of isolated stars that are not saturated, the brightest first; parameters as in `measure_psf`."""
    settings = settings or StarPsfSettings()
    _, moments = _moments(data, variance, bad | ~(variance > 0), x, y, candidates, fwhm, settings)
    index = np.flatnonzero(_stars(x, y, moments, candidates, fwhm, settings))
    index = index[np.argsort(-moments.snr[index], kind="stable")]
    return [(float(moments.x[i]), float(moments.y[i])) for i in index]


def _moments(
    data: Float32,
    variance: Float32,
    bad: Bools,
    x: Float64,
    y: Float64,
    candidates: Bools | None,
    fwhm: float | None,
    settings: StarPsfSettings,
) -> tuple[float, Moments]:
    """Noise of a pixel, and the moments of all that may be stars."""
    rms = float(np.sqrt(np.median(variance[~bad][::37]))) if (~bad).any() else 1.0
    least = settings.min_snr / _EASES[-1]
    # A weight narrower than that sees one pixel of a star of a sharp image, and no width.
    sigma = seen_sigma(fwhm or FALLBACK_FWHM)
    return rms, measure_moments(data, bad, x, y, rms, sigma, least, candidates)


@dataclass(frozen=True, eq=False)
class _Work:
    """An image and what its fits have in common."""

    data: Float32
    variance: Float32
    bad: Bools
    labels: NDArray[np.int32] | None
    sigma: float  # of the PSF, pixels
    rms: float
    gain: float
    settings: StarPsfSettings

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.data.shape[0], self.data.shape[1])

    @property
    def fixed(self) -> int:
        """Number of Gaussians of the wings."""
        return len(self.settings.wing_widths)

    def cut(
        self,
        centre: tuple[Float64, Float64],
        which: NDArray[np.int64],
        radius: float | None = None,
        hole: Float64 | None = None,
        spread: bool = False,
    ) -> Stamps:
        """Pixels of some stars; the radius is in units of the PSF's width."""
        far = np.full(which.size, (radius or self.settings.radius) * self.sigma)
        return cut_stamps(
            self.data, self.variance, _spread(self.bad) if spread else self.bad, self.labels,
            centre[0][which], centre[1][which], far, np.zeros(which.size) if hole is None else hole,
            max(_FINE * self.sigma, _FINE_PIXELS),
        )  # fmt: skip

    def terms(self, x: Float64, y: Float64, degree: int) -> Float64:
        """Terms of the variation, ``[n, m]``, in the order of `PsfMixture`."""
        if degree == 0:
            return np.empty((len(x), 0))
        return np.ascontiguousarray(polynomial_terms(x, y, self.shape, (2, 5, 9)[degree - 1]).T)

    def one_psf(self, stamps: Stamps, covariance: Float64) -> FitState:
        """One PSF for the whole image."""
        few = stamps.take(np.arange(min(len(stamps), _FIRST_STARS)))  # the brightest
        sky = self.settings.sky_error * self.rms
        return first_mixture(few, covariance, self.settings, gain=self.gain, sky_sigma=sky)

    def alike(self, stamps: Stamps, state: FitState) -> Bools:
        """Which stars one PSF explains within the larger error that it is allowed."""
        if not len(stamps):
            return np.zeros(0, bool)
        none = np.empty((len(stamps), 0))
        chi2, count = star_residuals(stamps, none, state, self.fixed, self.gain, _LARGE_ERROR, self.rms)
        mean = chi2 / np.maximum(count, 1)
        return np.asarray((mean < 3 * max(1.0, float(np.median(mean)))) & (count > _OWN_PIXELS))

    def varying(self, stamps: Stamps, outer: Stamps, begin: FitState, degree: int) -> tuple[FitState, float]:
        """The PSF that varies over the image, and chi² per degree of freedom of the stars held out."""
        settings = self.settings
        terms = self.terms(stamps.x, stamps.y, degree)
        outer_terms = self.terms(outer.x, outer.y, degree)
        grid = self.terms(*grid_places(self.shape), degree)

        def fit(chosen: NDArray[np.int64], begin: FitState, steps: int) -> FitState:
            return fit_stars(
                joined(stamps.take(chosen), outer), np.concatenate([terms[chosen], outer_terms]),
                begin.weights, begin.covariances, self.fixed,
                variation=begin.variation if begin.variation.shape[2] == terms.shape[1] else None,
                grid=grid, gain=self.gain, model_error=settings.model_error,
                sky_sigma=settings.sky_error * self.rms, steps=steps,
            )  # fmt: skip

        everything, chi2 = np.arange(len(stamps)), math.nan
        if settings.held_out and len(stamps) >= 3 * settings.held_out:
            judge = everything[:: settings.held_out]
            begin = fit(np.setdiff1d(everything, judge), begin, 16)
            total, count = star_residuals(
                stamps.take(judge), terms[judge], begin, self.fixed, self.gain, settings.model_error,
                settings.sky_error * self.rms,
            )  # fmt: skip
            chi2 = float(np.median(total / np.maximum(count - _OWN_PIXELS, 1)))
        return fit(everything, begin, 8), chi2


def _stars(
    x: Float64,
    y: Float64,
    moments: Moments,
    candidates: Bools | None,
    fwhm: float | None,
    settings: StarPsfSettings,
) -> Bools:
    """Isolated stars with good pixels; less isolated or fainter ones where these are few."""
    usable = (moments.lost == 0) & np.isfinite(moments.flux)
    if candidates is not None:
        usable &= candidates
    if not usable.any():
        return np.zeros(len(x), bool)
    radius = 8.0 * float(np.nanmedian(moments.size[usable]))
    crowd = crowding(x, y, np.nan_to_num(moments.flux), radius)
    star: Bools = np.zeros(len(x), bool)
    for ease in _EASES:
        star = select_stars(
            moments.x, moments.y, moments.size, moments.snr,
            usable & (crowd < settings.max_neighbours * ease), min_snr=settings.min_snr / ease, fwhm=fwhm,
        )  # fmt: skip
        if star.sum() >= settings.degrees[0]:
            break
    return star


def _bright(work: _Work, x: Float64, y: Float64, eligible: Bools) -> tuple[NDArray[np.int64], Float64]:
    """The stars with the most light in a ring around them, and the radius of what saturated in each."""
    sigma, settings = work.sigma, work.settings
    reach = int(8 * sigma) + 1
    offset = np.arange(-reach, reach + 1)
    radius = np.hypot(*np.meshgrid(offset, offset))
    ring = (radius > 5 * sigma) & (radius < 8 * sigma)
    rows, columns = work.shape
    with np.errstate(invalid="ignore"):
        inside = eligible & (x > reach) & (y > reach) & (x < columns - 1 - reach) & (y < rows - 1 - reach)
    index = np.flatnonzero(inside)
    light, hole = np.zeros(index.size), np.zeros(index.size)
    for k, i in enumerate(index):
        x0, y0 = round(x[i]), round(y[i])
        window = (slice(y0 - reach, y0 + reach + 1), slice(x0 - reach, x0 + reach + 1))
        light[k] = np.median(work.data[window][ring])
        lost = radius[work.bad[window]]
        # Saturated pixels spill over; what bleeds farther along a column is left out by itself.
        hole[k] = np.percentile(lost, 90) + 2 * sigma if lost.size else 0.0
    chosen = np.argsort(-light, kind="stable")[: settings.wing_stars]
    chosen = chosen[(light[chosen] > 0) & (hole[chosen] < 0.5 * settings.wing_radius * sigma)]
    return index[chosen], hole[chosen]


def _spread(bad: Bools) -> Bools:
    """Bad pixels and those beside them along a row: what bleeds along a column has soft edges."""
    wide = bad.copy()
    wide[:, 1:] |= bad[:, :-1]
    wide[:, :-1] |= bad[:, 1:]
    return wide


def _degree(stars: int, settings: StarPsfSettings) -> int:
    """Degree of the variation that so many stars can tell."""
    return sum(stars >= fewest for fewest in settings.degrees)


def first_mixture(
    stamps: Stamps,
    covariance: Float64,
    settings: StarPsfSettings,
    *,
    gain: float = math.inf,
    sky_sigma: float = math.inf,
) -> FitState:
    """One mixture for a few stars: the best of fits that begin with fuller and with hollower cores.

    Parameters
    ----------
    stamps : Stamps
        Their pixels.
    covariance : float64 array, ``[3]``
        xx, xy, yy of the core, pixels².
    settings : StarPsfSettings
        First guesses.
    gain, sky_sigma : float
        As in `imcat.psf.star_fit.fit_stars`.
    """
    none, fixed = np.empty((len(stamps), 0)), len(settings.wing_widths)
    fits: list[FitState] = []
    for hollow in settings.hollow:
        fits.append(
            fit_stars(
                stamps, none, *_start(covariance, hollow, settings), fixed, gain=gain,
                model_error=_FIRST_ERROR, sky_sigma=sky_sigma, steps=15,
            )
        )  # fmt: skip
        if fits[-1].chi2 < _FITS * len(stamps.value):
            break
    return min(fits, key=lambda state: state.chi2)


def _start(covariance: Float64, hollow: float, settings: StarPsfSettings) -> tuple[Float64, Float64]:
    """First guess: a core that falls off as stars do, and faint wings."""
    widths = np.array(settings.core_widths)
    core = np.array(settings.core_weights)
    core[:2] += hollow * np.array([-1.0, 1.0])
    wings = np.array(settings.wing_widths) ** -1.0
    weights = np.concatenate([core / core.sum(), settings.wing_weight * wings / wings.sum()])
    round_one = math.sqrt(covariance[0] * covariance[2] - covariance[1] ** 2) * np.array([1.0, 0.0, 1.0])
    covariances = np.concatenate(
        [widths[:, None] ** 2 * covariance, np.array(settings.wing_widths)[:, None] ** 2 * round_one]
    )
    return weights / weights.sum(), covariances
