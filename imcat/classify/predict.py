"""Answers of the trained classifier as columns of a catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax

from imcat.classify.calibration import ULTRAVIOLET, Calibration, bare_modes, sharp_modes
from imcat.classify.densities import Densities
from imcat.classify.network import MORPHOLOGIES, Answer, measured
from imcat.classify.photometry import GLOBALS, Photometry
from imcat.classify.prior import MixByMagnitude
from imcat.classify.trained import TrainedClassifier
from imcat.errors import UsageError
from imcat.registry import half_precision_is_fast
from imcat.simulate.sources import Kind
from imcat.stamps import Stamps, band_conditions, compress

__all__ = ["KINDS", "Prior", "classify", "lens_binning", "look"]

Float64 = NDArray[np.float64]

#: Names of the classes, in the order of `imcat.simulate.sources.Kind`.
KINDS = tuple(kind.name.lower() for kind in Kind)
_BATCH = 128  # what fits into a processor's cache; larger ones take a quarter longer
_LENS_VIEW = 5.5  # arcsec
_LOWER, _UPPER = 0.16, 0.84  # of the interval of a redshift
_BOTH, _STAMP, _PHOTOMETRY, _SPECTROSCOPIC = range(4)


@dataclass(frozen=True, eq=False)
class Prior:
    """Which mix of kinds a source comes from.

    Attributes
    ----------
    name : str
        One of `imcat.classify.settings.PRIORS`.
    latitude : float64 array ``[n]`` or None
        Galactic, degrees; None for the mean over the sky.
    """

    name: str = "sky"
    latitude: Float64 | None = None

    def shares(self, trained: TrainedClassifier, magnitude: Float64) -> Float64:
        """Shares of star, galaxy, quasar, ``[n, 3]``."""
        if self.name == "sky":
            return trained.sky.shares(magnitude, self.latitude)
        if self.name == "spectroscopic":
            return trained.spectroscopic.shares(magnitude)
        if self.name == "flat":
            return MixByMagnitude.flat().shares(magnitude)
        raise UsageError(f"there is no prior {self.name!r}; expected sky, flat or spectroscopic")


def lens_binning(size: int, pixel: float) -> int:
    """Pixels to bin so that a stamp of `size` of them shows a lens: arcs lie up to 3 arcsec from the middle.

    Parameters
    ----------
    size : int
        Pixels on a side of the stamps.
    pixel : float
        Of the images, arcsec.

    Examples
    --------
    >>> lens_binning(40, 0.396), lens_binning(40, 0.074)
    (1, 2)
    """
    return max(1, math.ceil(_LENS_VIEW / (size * pixel)))


def look(trained: TrainedClassifier, stamps: Stamps, *, half: bool | None = None) -> NDArray[np.float32]:
    """What the backbone sees in stamps, ``[n, vision]``.

    Parameters
    ----------
    trained : TrainedClassifier
        Weights.
    stamps : Stamps
        Of n sources.
    half : bool, optional
        Whether matrices are multiplied in bfloat16; default: where that is fast.
    """
    vision = trained.network.vision
    out = np.zeros((len(stamps), vision.width), np.float32)
    conditions = band_conditions(stamps)
    enabled = half_precision_is_fast() if half is None else half
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        for rows in _batches(len(stamps)):
            values = torch.from_numpy(compress(stamps.signal[rows]))
            valid = torch.from_numpy(stamps.valid[rows].astype(np.float32))
            out[rows] = vision(values, valid, torch.from_numpy(conditions[rows])).float().numpy()
    out[~stamps.valid.any(axis=(1, 2, 3))] = 0  # nothing to see: as if there were no stamp
    return out


def _batches(n: int) -> list[slice]:
    return [slice(k, min(k + _BATCH, n)) for k in range(0, n, _BATCH)]


def answer(
    trained: TrainedClassifier,
    photometry: Photometry,
    vision: NDArray[np.float32] | None,
    *,
    spectroscopic: bool,
) -> Answer:
    """What the classifier says, as arrays on the CPU."""
    n = len(photometry)
    given = measured(photometry, spectroscopic)
    seen = torch.zeros(n)
    vectors = torch.zeros(n, trained.network.vision.width)
    if vision is not None:
        vectors = torch.from_numpy(vision)
        seen = (vectors != 0).any(1).float()
        given.spectroscopic[seen > 0] = (
            0.0  # no source with a stamp was one of a spectroscopic survey in training
        )
    parts = []
    with torch.inference_mode():
        for rows in _batches(n):
            own = type(given)(**{k: v[rows] for k, v in vars(given).items()})
            parts.append(trained.network.classifier(own, vectors[rows], seen[rows]))
    return Answer(*(torch.cat([getattr(p, f) for p in parts]) for f in Answer.__dataclass_fields__))


def classify(
    trained: TrainedClassifier,
    photometry: Photometry,
    vision: NDArray[np.float32] | None = None,
    prior: Prior | None = None,
    wide: NDArray[np.float32] | None = None,
) -> dict[str, NDArray[Any]]:
    """Columns of classes, morphology and redshifts.

    Parameters
    ----------
    trained : TrainedClassifier
        Weights, priors, calibration.
    photometry : Photometry
        Of n sources; NaN where something is missing.
    vision : float32 array ``[n, vision]``, optional
        Of `look`; without it photometry alone is used.
    prior : Prior, optional
        Default: the sky's mix, averaged over the sky.
    wide : float32 array ``[n, vision]``, optional
        Of `look` at stamps wide enough for a lens, where `vision` is of narrower ones (`lens_binning`).

    Returns
    -------
    dict of arrays ``[n]``
        Sources without any photometry and without a stamp have NaN, and an empty class.
    """
    n = len(photometry)
    prior = prior or Prior()
    if n == 0:
        return _columns_of_none()
    said = answer(trained, photometry, vision, spectroscopic=prior.name == "spectroscopic")
    magnitude = photometry.reference_magnitude()
    bare = ~np.isfinite(magnitude)
    blind = np.ones(n, bool) if vision is None else ~(vision != 0).any(axis=1)
    alone = _SPECTROSCOPIC if prior.name == "spectroscopic" else _PHOTOMETRY
    fwhm = np.exp(photometry.extra[:, GLOBALS.index("log_psf")].astype(float))
    mode = sharp_modes(np.where(blind, alone, np.where(bare, _STAMP, _BOTH)), fwhm)
    mode = bare_modes(mode, *given_parts(photometry))
    calibration = trained.calibration
    likelihood = calibration.corrected(said.kind.numpy(), mode, magnitude)
    share = prior.shares(trained, magnitude)
    probability = softmax(likelihood + np.log(share), axis=1)
    nothing = blind & bare
    probability[nothing] = np.nan
    columns: dict[str, NDArray[Any]] = {f"p_{k}": probability[:, j] for j, k in enumerate(KINDS)}
    best = np.where(nothing, -1, np.nan_to_num(probability).argmax(axis=1))
    columns["class"] = np.array([*KINDS, ""])[best]
    columns |= {
        f"class_loglike_{k}": v for k, v in zip(KINDS, log_softmax(likelihood, axis=1).T, strict=True)
    }
    columns["class_set"] = _sets(calibration.sets(likelihood, mode, magnitude), ~nothing)
    if wide is not None:
        said = replace(said, lens=answer(trained, photometry, wide, spectroscopic=False).lens)
    lens = said.lens.numpy().astype(float)
    columns["p_lens"] = expit(lens + np.log(trained.sky.odds(magnitude)))
    columns["lens_loglike"] = lens
    columns |= _morphology(said, calibration, mode, magnitude, blind)
    columns |= _redshifts(said, calibration, mode, magnitude, probability, best)
    columns["unlike_training"] = calibration.novelty(mode, said.vector.numpy().astype(float))
    for name in ("p_lens", "lens_loglike", "unlike_training", *(f"class_loglike_{k}" for k in KINDS)):
        columns[name] = np.where(nothing, np.nan, columns[name])
    return columns


def given_parts(photometry: Photometry) -> tuple[NDArray[np.bool_], ...]:
    """What there is of each source: shape, errors, dust, a colour, a band below `imcat.classify.calibration.ULTRAVIOLET`."""
    return (
        photometry.has_shapes(),
        np.asarray(np.isfinite(photometry.total_err).any(axis=1)),
        np.asarray(np.isfinite(photometry.extinction).any(axis=1)),
        np.asarray(np.isfinite(photometry.total).sum(axis=1) > 1),
        np.asarray(np.isfinite(photometry.total[:, photometry.wavelength < ULTRAVIOLET]).any(axis=1)),
    )


def _columns_of_none() -> dict[str, NDArray[Any]]:
    names = [f"p_{k}" for k in KINDS] + [f"class_loglike_{k}" for k in KINDS]
    names += ["p_lens", "lens_loglike", "unlike_training", *(f"morph_{m}" for m in MORPHOLOGIES)]
    names += [
        "morph_bulge_fraction",
        "morph_bulge_fraction_err",
        "morph_sersic_index",
        "morph_sersic_index_err",
    ]
    names += [
        f"{z}{end}" for z in ("z_phot", "z_phot_galaxy", "z_phot_quasar") for end in ("", "_lower", "_upper")
    ]
    empty: dict[str, NDArray[Any]] = {name: np.zeros(0) for name in names}
    return empty | {"class": np.zeros(0, "<U6"), "class_set": np.zeros(0, "<U24")}


def _sets(inside: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Names of the classes of each set, joined by a comma.

    Where nine sources of ten are certain, the sets of the others may be empty: only so do the sets hold the true class
    as often as they say, and not more often.
    """
    names = np.array([",".join(k for j, k in enumerate(KINDS) if code >> j & 1) for code in range(8)])
    return np.where(known, names[(inside * np.array([1, 2, 4])).sum(axis=1)], "")


def _morphology(
    said: Answer,
    calibration: Calibration,
    mode: NDArray[Any],
    magnitude: Float64,
    blind: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """Only of sources with a stamp: photometry alone does not show a shape."""
    temperature, factor = calibration.shapes(mode, magnitude)
    share = np.asarray(softmax(said.morphology.numpy().astype(float) / temperature[:, None], axis=1))
    columns: dict[str, NDArray[Any]] = {f"morph_{m}": share[:, k] for k, m in enumerate(MORPHOLOGIES)}
    value, error = structure_of(said)
    for k, name in enumerate(("morph_bulge_fraction", "morph_sersic_index")):
        columns[name], columns[f"{name}_err"] = value[:, k], error[:, k] * factor[:, k]
    return {name: np.where(blind, np.nan, values) for name, values in columns.items()}


def structure_of(said: Answer) -> tuple[Float64, Float64]:
    """Bulge fraction and Sérsic index ``[n, 2]`` as the network states them, and their errors."""
    value, error = np.split(said.structure.numpy().astype(float), 2, axis=1)
    error = np.exp(np.clip(error, -4, 4))
    fraction, index = expit(value[:, 0]), np.exp(value[:, 1])
    return np.stack([fraction, index], axis=1), np.stack(
        [fraction * (1 - fraction) * error[:, 0], index * error[:, 1]], axis=1
    )


def _redshifts(
    said: Answer,
    calibration: Calibration,
    mode: NDArray[Any],
    magnitude: Float64,
    probability: Float64,
    best: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    """Median of a galaxy's density, highest mode of a quasar's, 68 % intervals, and those of the likelier of both."""
    columns: dict[str, NDArray[Any]] = {}
    for k, kind in enumerate((Kind.GALAXY, Kind.QUASAR)):
        density = Densities.of(said.redshift[:, k].numpy())

        def quantile(level: float, k: int = k, density: Densities = density) -> Float64:
            return density.quantile(calibration.stated_level(level, k, mode, magnitude))

        name = f"z_phot_{kind.name.lower()}"
        columns[name] = quantile(0.5) if kind is Kind.GALAXY else density.mode()
        columns[f"{name}_lower"], columns[f"{name}_upper"] = quantile(_LOWER), quantile(_UPPER)
    quasar = np.nan_to_num(probability[:, Kind.QUASAR]) > np.nan_to_num(probability[:, Kind.GALAXY])
    for end in ("", "_lower", "_upper"):
        columns[f"z_phot{end}"] = np.where(
            quasar, columns[f"z_phot_quasar{end}"], columns[f"z_phot_galaxy{end}"]
        )
    return {name: np.where(best < 0, np.nan, values) for name, values in columns.items()}
