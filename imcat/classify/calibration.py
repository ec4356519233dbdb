"""What turns the network's answers into probabilities that hold: fitted on simulated sources it never saw.

Modes are calibrated apart, each by magnitude: stamp and photometry, stamp alone, photometry alone, and photometry
of sources that spectroscopic surveys chose; the last on real tables. The first three are calibrated once more for images as
sharp as those from space, where a source of the same magnitude is another matter; and photometry alone for tables that
have magnitudes but nothing of shapes, with and without errors and dust, and for those of them that hold a band which only
telescopes in space see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from imcat.classify.photometry import SHARP
from imcat.classify.prior import EDGES
from imcat.simulate.sources import Kind

__all__ = [
    "COVERAGE",
    "LEVELS",
    "MODES",
    "ULTRAVIOLET",
    "Calibration",
    "bare_modes",
    "distances",
    "fit_errors",
    "fit_levels",
    "fit_looks",
    "fit_scale",
    "fit_sets",
    "log_odds",
    "novelty_model",
    "sharp_modes",
]

Float64 = NDArray[np.float64]

#: What the classifier may have of a source, in the order of the calibration's first axis.
MODES = (
    "both", "stamp", "photometry", "spectroscopic", "both, sharp", "stamp, sharp", "photometry, sharp",
    "magnitudes", "magnitudes, dust", "magnitudes, errors", "magnitudes, errors, dust", "spectroscopic, one band",
    "ultraviolet", "ultraviolet, dust", "ultraviolet, errors", "ultraviolet, errors, dust",
)  # fmt: skip
_FIRST_SHARP, _FIRST_BARE, _ONE_BAND, _FIRST_ULTRAVIOLET = 4, 7, 11, 12
#: Å; bands below it are absorbed by ozone on the ground.
ULTRAVIOLET = 3200.0
#: Share of the sources whose set of classes holds the true one.
COVERAGE = 0.9
#: Stated probabilities at which the cumulative redshift densities are corrected.
LEVELS: Float64 = np.linspace(0, 1, 51)
_BINS, _CLASSES = EDGES.size - 1, len(Kind)
_WIDTH = 0.5  # mag, over which temperatures and offsets are fitted
_FARTHEST = 3.0  # largest offset
_PRIOR = 5.0  # half the inverse variance of the logarithm of a temperature, and of an offset
_LEAST = 100  # sources with which a bin is fitted by itself
_ENOUGH = 1000  # sources that correct a redshift density or a set: a tail of 5 per cent is then good to 0.7, of 10 to 0.9
# Of few sources, a thousand of one class would be of all magnitudes, and scores depend on these: one in a hundred, at least so many.
_SHARE, _FEWEST = 0.01, 200
_SOME = 300  # sources that give the size of an error, to 4 per cent
_QUANTILES: Float64 = np.linspace(0, 1, 201)
_ONE_SIGMA = 0.6827  # share of a normal distribution within its standard deviation
_STRUCTURE = 2  # bulge fraction, Sérsic index


@dataclass(frozen=True, eq=False)
class Calibration:
    """Corrections.

    Attributes
    ----------
    temperature : float64 array ``[modes, bins]``
        Divides the logarithms of the likelihoods, by magnitude (`imcat.classify.prior.EDGES`).
    threshold : float64 array ``[modes, bins, 3]``
        Log odds of each class, were all equally common, from which on it belongs to the set.
    levels : float64 array ``[modes, 2, bins, levels]``
        True probabilities of `LEVELS` of the redshift densities of a galaxy and of a quasar, by magnitude.
    mean, whiten : float64 arrays ``[width]``, ``[width, width]``
        Of the classifier's vectors.
    distance : float64 array ``[modes, quantiles]``
        Quantiles of the distances of sources like those of the training, from which as much is given.
    offset : float64 array ``[modes, bins, 3]``
        Added to the logarithms of the likelihoods once they are divided; their sum over the classes is zero.
    looks : float64 array ``[modes, bins]``
        Divides the logits of the morphologies.
    structure : float64 array ``[modes, bins, 2]``
        Multiplies the errors of the bulge fraction and of the Sérsic index.
    """

    temperature: Float64
    threshold: Float64
    levels: Float64
    mean: Float64
    whiten: Float64
    distance: Float64
    offset: Float64
    looks: Float64
    structure: Float64

    @staticmethod
    def none(width: int) -> Calibration:
        """No correction."""
        return Calibration(
            np.ones((len(MODES), _BINS)), np.full((len(MODES), _BINS, _CLASSES), -np.log(9.0)),
            np.broadcast_to(LEVELS, (len(MODES), 2, _BINS, LEVELS.size)).copy(),
            np.zeros(width), np.eye(width), np.tile(_QUANTILES * 10, (len(MODES), 1)),
            np.zeros((len(MODES), _BINS, _CLASSES)), **_plain_shapes(),
        )  # fmt: skip

    def arrays(self) -> dict[str, Float64]:
        """As named arrays."""
        return dict(vars(self))

    @staticmethod
    def from_arrays(named: Mapping[str, Float64]) -> Calibration:
        """From what `arrays` gives; shapes are left as they are where a file of earlier weights has nothing for them."""
        return Calibration(**(_plain_shapes() | dict(named)))

    def corrected(self, logit: Any, mode: NDArray[Any], magnitude: Float64) -> Float64:
        """Logarithms of likelihoods ``[n, 3]`` that hold, of those that the network gives."""
        offset = np.stack([_look_up(self.offset[..., k], mode, magnitude) for k in range(_CLASSES)], axis=1)
        return np.asarray(logit, float) / _look_up(self.temperature, mode, magnitude)[:, None] + offset

    def shapes(self, mode: NDArray[Any], magnitude: Float64) -> tuple[Float64, Float64]:
        """By what logits of morphologies are divided ``[n]``, and errors of the structure multiplied ``[n, 2]``."""
        error = [_look_up(self.structure[..., k], mode, magnitude) for k in range(_STRUCTURE)]
        return _look_up(self.looks, mode, magnitude), np.stack(error, axis=1)

    def sets(self, likelihood: Float64, mode: NDArray[Any], magnitude: Float64) -> NDArray[np.bool_]:
        """Whether each class belongs to the set of each source ``[n, 3]``; of logarithms of likelihoods (`corrected`)."""
        return np.asarray(log_odds(likelihood) >= self.threshold[mode, _bins(magnitude)])

    def true_level(
        self, stated: Float64, kind: int, mode: NDArray[np.integer], magnitude: Float64
    ) -> Float64:
        """True probabilities of what the redshift densities state, ``[n]``; `kind`: 0 of galaxies, 1 of quasars."""
        table = self.levels[mode, kind, _bins(magnitude)]
        place = np.clip(stated, 0, 1) * (LEVELS.size - 1)
        low = np.minimum(place.astype(np.intp), LEVELS.size - 2)
        row = np.arange(len(table))
        return np.asarray(table[row, low] + (place - low) * (table[row, low + 1] - table[row, low]))

    def stated_level(self, level: float, kind: int, mode: NDArray[np.integer], magnitude: Float64) -> Float64:
        """What the densities state where the true probability is `level`, ``[n]``."""
        which, place = np.unique(mode * _BINS + _bins(magnitude), return_inverse=True)
        table = self.levels[which // _BINS, kind, which % _BINS]
        return np.array([np.interp(level, row, LEVELS) for row in table])[place]

    def novelty(self, mode: NDArray[Any], vector: Float64) -> Float64:
        """How unlike the training each source is: the share of such sources that are less so, ``[n]``."""
        away = np.sqrt((((vector - self.mean) @ self.whiten) ** 2).mean(axis=1))
        out = np.zeros(len(away))
        for k in np.unique(mode):
            out[mode == k] = np.interp(away[mode == k], self.distance[k], _QUANTILES)
        return out


def _plain_shapes() -> dict[str, Float64]:
    return {"looks": np.ones((len(MODES), _BINS)), "structure": np.ones((len(MODES), _BINS, _STRUCTURE))}


def sharp_modes(mode: NDArray[np.integer], fwhm: Float64) -> NDArray[np.intp]:
    """Modes of sources ``[n]`` with the PSF's FWHM of their image, arcsec; NaN, where it is unknown, is not sharp."""
    with np.errstate(invalid="ignore"):
        sharp = (np.asarray(fwhm) < SHARP) & (mode < _FIRST_SHARP - 1)
    return np.asarray(mode + _FIRST_SHARP * sharp, np.intp)


def bare_modes(
    mode: NDArray[np.integer], shapes: Any, errors: Any, dust: Any, colours: Any, ultraviolet: Any
) -> NDArray[np.intp]:
    """Modes of sources of photometry alone ``[n]``, by what is known: shape, errors, dust, any colour, any `ULTRAVIOLET` band."""
    first = np.where(np.asarray(ultraviolet), _FIRST_ULTRAVIOLET, _FIRST_BARE)
    bare = first + 2 * np.asarray(errors, np.intp) + np.asarray(dust, np.intp)
    plain = np.where((mode == MODES.index("photometry")) & ~np.asarray(shapes), bare, mode)
    return np.where((mode == MODES.index("spectroscopic")) & ~np.asarray(colours), _ONE_BAND, plain)


def log_odds(likelihood: Float64) -> Float64:
    """Logarithms of the odds of each class against the others, were all equally common, ``[n, 3]``.

    Where a class is all but certain, its odds differ between sources when its probabilities no longer do.
    """
    others = [np.logaddexp.reduce(np.delete(likelihood, k, axis=1), axis=1) for k in range(_CLASSES)]
    return np.asarray(likelihood - np.stack(others, axis=1))


def _bins(magnitude: Float64) -> NDArray[np.intp]:
    mag = np.where(np.isfinite(magnitude), magnitude, 20.0)
    return np.clip(np.searchsorted(EDGES, mag, side="right") - 1, 0, _BINS - 1)


def _look_up(table: Float64, mode: NDArray[Any], magnitude: Float64) -> Float64:
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    mag = np.where(np.isfinite(magnitude), magnitude, 20.0)
    each = np.stack([np.interp(mag, middle, row) for row in table])
    return np.asarray(each[mode, np.arange(len(mag))])


def fit_scale(
    logit: Float64, mix: Float64, kind: NDArray[np.integer], magnitude: Float64, *, offsets: bool = True
) -> tuple[Float64, Float64]:
    """Temperatures and offsets by magnitude that make the likelihoods most probable, ``[bins]`` and ``[bins, 3]``.

    Vector scaling with one temperature (Guo et al. 2017, ICML 70, 1321), in windows of magnitude.

    Parameters
    ----------
    logit : float64 array ``[n, 3]``
        Logarithms of likelihoods.
    mix : float64 array ``[n, 3]``
        Logarithm of the shares of the kinds in the sample.
    kind : int array ``[n]``
        The truth.
    magnitude : float64 array ``[n]``
        See `imcat.classify.photometry.Photometry.reference_magnitude`.
    offsets : bool
        Whether classes may be moved against each other; else offsets are zero.
    """
    true = np.eye(_CLASSES)[kind]

    def best(rows: NDArray[Any], weight: Float64) -> Float64:
        def loss(x: Float64) -> tuple[float, Float64]:
            scaled = logit[rows] * np.exp(-x[0])
            log = log_softmax(scaled + _centred(x[1:]) + mix[rows], axis=1)
            wrong = (np.exp(log) - true[rows]) * weight[:, None]
            # A weak prior keeps empty ends where they are.
            value = -(weight * (log * true[rows]).sum(axis=1)).sum() + _PRIOR * (x**2).sum()
            slope = np.concatenate([[-(wrong * scaled).sum()], _centred(wrong.sum(axis=0))])
            return float(value), slope + 2 * _PRIOR * x

        bounds = [(-1.5, 1.5), *[(-_FARTHEST * offsets, _FARTHEST * offsets)] * _CLASSES]
        return np.asarray(
            minimize(loss, np.zeros(1 + _CLASSES), jac=True, bounds=bounds, method="L-BFGS-B").x
        )

    temperature, offset = np.ones(_BINS), np.zeros((_BINS, _CLASSES))
    for k, at in enumerate(0.5 * (EDGES[1:] + EDGES[:-1])):
        weight = np.exp(-0.5 * ((magnitude - at) / _WIDTH) ** 2)
        rows = np.flatnonzero(weight > 0.01)
        if len(rows) >= _LEAST:
            found = best(rows, weight[rows])
            temperature[k], offset[k] = np.exp(found[0]), _centred(found[1:])
    return temperature, offset


def fit_looks(logit: Float64, look: NDArray[np.integer], magnitude: Float64) -> Float64:
    """Temperatures by magnitude that make the morphologies most probable, ``[bins]``.

    Parameters
    ----------
    logit : float64 array ``[n, looks]``
        Of the sources that are taken for galaxies.
    look : int array ``[n]``
        The truth.
    magnitude : float64 array ``[n]``
        See `imcat.classify.photometry.Photometry.reference_magnitude`.
    """
    out = np.ones(_BINS)
    for k, at in enumerate(0.5 * (EDGES[1:] + EDGES[:-1])):
        weight = np.exp(-0.5 * ((magnitude - at) / _WIDTH) ** 2)
        rows = np.flatnonzero(weight > 0.01)
        if len(rows) < _LEAST:
            continue

        def loss(x: float, rows: NDArray[Any] = rows, weight: Float64 = weight) -> float:
            log = log_softmax(logit[rows] * np.exp(-x), axis=1)
            return float(-(weight[rows] * log[np.arange(len(rows)), look[rows]]).sum() + _PRIOR * x**2)

        out[k] = np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x)
    return out


def fit_errors(pull: Float64, magnitude: Float64) -> Float64:
    """Factors of errors by magnitude, within which 68 % of the residuals then are, ``[bins]``.

    Parameters
    ----------
    pull : float64 array ``[n]``
        Residuals over stated errors.
    magnitude : float64 array ``[n]``
        NaN where unknown; of none that is known, all sources give one factor.
    """
    if len(pull) < _LEAST:
        return np.ones(_BINS)
    known = np.isfinite(magnitude)
    if not known.any():
        return np.full(_BINS, np.quantile(np.abs(pull), _ONE_SIGMA))
    bins, mag = _bins(magnitude[known]), magnitude[known]
    size = np.abs(pull[known])
    return np.array([np.quantile(size[_near(k, bins, mag, _SOME)], _ONE_SIGMA) for k in range(_BINS)])


def _centred(values: Float64) -> Float64:
    return np.asarray(values - values.mean())


def fit_sets(likelihood: Float64, kind: NDArray[np.integer], magnitude: Float64) -> Float64:
    """Thresholds of the sets of classes by magnitude and class, ``[bins, 3]``: split conformal prediction.

    The score of a source is the log odds of its true class (after Sadinle, Lei and Wasserman 2019, JASA 114, 223, who take the
    probability). Each class has its own threshold (Vovk 2012, ACML, PMLR 25, 475: label-conditional), so that its sources are
    in their sets as often however common they are: the sky's mix is not that of the sources that this is fitted to. With n
    sources of a class in a bin the threshold is the ``floor((n + 1)(1 - coverage))``-th smallest; a bin with few of
    them takes those nearest to its middle besides. What is very rare in all bins takes the threshold of all classes.

    Parameters
    ----------
    likelihood : float64 array ``[n, 3]``
        Logarithms, calibrated.
    kind : int array ``[n]``
        The truth.
    magnitude : float64 array ``[n]``
        NaN where unknown.
    """
    enough = int(np.clip(_SHARE * len(kind), _FEWEST, _ENOUGH))
    score = log_odds(likelihood)[np.arange(len(kind)), kind]
    bins, mag = _bins(magnitude), np.where(np.isfinite(magnitude), magnitude, 20.0)

    def threshold(values: Float64) -> float:
        rank = int(np.floor((len(values) + 1) * (1 - COVERAGE) + 1e-9))
        return float(np.sort(values)[rank - 1]) if rank >= 1 else -np.inf

    out = np.full((_BINS, _CLASSES), threshold(score))
    for j in range(_CLASSES):
        own = np.flatnonzero(kind == j)
        if len(own) >= _LEAST:
            for k in range(_BINS):
                out[k, j] = threshold(score[own[_near(k, bins[own], mag[own], enough)]])
    return out


def _near(k: int, bins: NDArray[np.intp], mag: Float64, enough: int = _ENOUGH) -> NDArray[np.intp]:
    """Sources of a bin, or, where these are few, those nearest to its middle."""
    rows = np.flatnonzero(bins == k)
    if len(rows) >= enough:
        return rows
    return np.argsort(np.abs(mag - 0.5 * (EDGES[k] + EDGES[k + 1])), kind="stable")[:enough]


def fit_levels(cumulative: Float64, magnitude: Float64) -> Float64:
    """True probabilities of `LEVELS` by magnitude, ``[bins, levels]``.

    Split conformal prediction with the probability below the true redshift as the score. A bin with few sources takes those
    nearest to its middle besides.

    Parameters
    ----------
    cumulative : float64 array ``[n]``
        Stated probabilities of redshifts below the true ones.
    magnitude : float64 array ``[n]``
        NaN where unknown.
    """
    out = np.tile(LEVELS, (_BINS, 1))
    if len(cumulative) < _LEAST:
        return out
    bins, mag = _bins(magnitude), np.where(np.isfinite(magnitude), magnitude, 20.0)
    for k in range(_BINS):
        own = np.sort(cumulative[_near(k, bins, mag)])
        share = np.searchsorted(own, LEVELS, side="right") / len(own)
        share[0], share[-1] = 0.0, 1.0
        out[k] = np.maximum.accumulate(share)
    return out


def novelty_model(vector: Float64) -> tuple[Float64, Float64]:
    """Mean and whitening of vectors ``[n, width]``."""
    mean = vector.mean(axis=0)
    value, basis = np.linalg.eigh(np.cov(vector, rowvar=False) + 1e-4 * np.eye(vector.shape[1]))
    whiten = basis / np.sqrt(np.maximum(value, 1e-4 * value.max()))
    return mean, whiten


def distances(vector: Float64, mean: Float64, whiten: Float64) -> Float64:
    """Quantiles of the distances of vectors ``[n, width]`` from the mean."""
    away = np.sqrt((((vector - mean) @ whiten) ** 2).mean(axis=1))
    return np.asarray(np.quantile(away, _QUANTILES))
