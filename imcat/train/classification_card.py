"""Calibration of a trained classifier, its weights and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from scipy.special import softmax

from imcat.classify.calibration import (
    COVERAGE,
    SHARP,
    Calibration,
    fit_levels,
    fit_sets,
    fit_temperature,
    novelty_model,
)
from imcat.classify.densities import Densities
from imcat.classify.network import Answer, Seeing
from imcat.classify.photometry import GLOBALS
from imcat.classify.prior import EDGES, MixByMagnitude
from imcat.classify.trained import FORMAT, TrainedClassifier
from imcat.simulate.population import Population
from imcat.simulate.sources import Kind
from imcat.train.card_text import write_with_card
from imcat.train.classification import ClassifierRecipe, answers, table_answers
from imcat.train.classification_data import LabelledSet, Labels, TableSet
from imcat.train.sky_mix import sky_mix

__all__ = ["calibrate", "write_classifier"]

_MODES = (
    (True, True),
    (True, False),
    (False, True),
)  # stamp, photometry: as `imcat.classify.calibration.MODES`
_PSF = GLOBALS.index("log_psf")
_CPU = torch.device("cpu")
_WAVELENGTHS = (2500.0, 10500.0)
_FAILURES = (
    "quasars and stars of the same colours are told apart only where the colours differ: worst at z = 2.5 to 3",
    "faint compact galaxies are taken for stars where the PSF is as wide as they are",
    "lenses are known from simulation only; the score rests on the deflector more than on the arcs",
    "morphology of galaxies smaller than the PSF is a guess from colour and magnitude",
)


def calibrate(network: Seeing, sets: Sequence[LabelledSet], tables: Sequence[TableSet]) -> Calibration:
    """Fit what makes the answers probabilities, on sources that training did not see.

    Parameters
    ----------
    network : Seeing
        Trained.
    sets : sequence of LabelledSet
        Simulated, one for each list of bands.
    tables : sequence of TableSet
        Validation rows of real tables; without any, what holds for photometry alone stands for them.
    """
    sharp = [bool(np.nanmedian(s.photometry.extra[:, _PSF]) < np.log(SHARP)) for s in sets]
    ground = [s for s, is_sharp in zip(sets, sharp, strict=True) if not is_sharp]
    space = [s for s, is_sharp in zip(sets, sharp, strict=True) if is_sharp]
    # Where one kind of image is missing, the other stands for it.
    found, vectors = _simulated_modes(network, ground or space)
    above, more = _simulated_modes(network, space or ground)
    vectors += more if ground and space else []
    real = [table_answers(network, t, _CPU) for t in tables]
    if tables:
        magnitudes = [t.photometry.reference_magnitude() for t in tables]
        found.append(_fit(real, [t.labels for t in tables], magnitudes, by_magnitude=True))
    else:
        found.append(found[-1])
    vector = np.concatenate([*vectors, *(a.vector.numpy().astype(float) for a in real)])
    temperature, threshold, levels = (np.stack(part) for part in zip(*found, *above, strict=True))
    mean, whiten, distance = novelty_model(vector)
    return Calibration(temperature, threshold, levels, mean, whiten, distance)


_Fitted = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _simulated_modes(
    network: Seeing, sets: Sequence[LabelledSet]
) -> tuple[list[_Fitted], list[NDArray[np.float64]]]:
    """What is fitted for each of `_MODES`, and the classifier's vectors of sources with stamp and photometry."""
    found, vectors = [], []
    for see, measure in _MODES:
        said = [answers(network, s, np.arange(len(s)), _CPU, see=see, measure=measure) for s in sets]
        found.append(_fit(said, [s.labels for s in sets], [s.magnitude for s in sets], by_magnitude=measure))
        if see and measure:
            vectors = [a.vector.numpy().astype(float) for a in said]
    return found, vectors


def _fit(
    said: Sequence[Answer],
    labels: Sequence[Labels],
    magnitudes: Sequence[NDArray[np.float64]],
    *,
    by_magnitude: bool,
) -> _Fitted:
    """Temperatures, thresholds and levels of one mode."""
    kind = np.concatenate([own.kind.numpy() for own in labels])
    mix = np.concatenate([own.mix.numpy().astype(float) for own in labels])
    logit = np.concatenate([a.kind.numpy().astype(float) for a in said])
    magnitude = np.concatenate(magnitudes)
    if not by_magnitude:
        magnitude = np.full_like(magnitude, np.nan)
    levels = _levels(said, labels)
    told = kind >= 0
    if not told.any():
        return np.ones(EDGES.size - 1), np.full(EDGES.size - 1, 1 - COVERAGE), levels
    kind, mix, logit, magnitude = kind[told], mix[told], logit[told], magnitude[told]
    filled = np.nan_to_num(magnitude, nan=20.0)
    temperature = fit_temperature(logit, mix, kind, filled)
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    scale = np.interp(filled, middle, temperature)[:, None]
    return temperature, fit_sets(softmax(logit / scale + mix, axis=1), kind, magnitude), levels


def _levels(said: Sequence[Answer], labels: Sequence[Labels]) -> NDArray[np.float64]:
    """Corrections of the cumulative densities of galaxies and of quasars."""
    out = []
    for k, kind in enumerate((Kind.GALAXY, Kind.QUASAR)):
        values = []
        for answer, label in zip(said, labels, strict=True):
            own = ((label.known == kind) & torch.isfinite(label.redshift)).numpy()
            density = Densities.of(answer.redshift[:, k].numpy()[own])
            values.append(density.cumulative(label.redshift.numpy()[own].astype(float)))
        out.append(fit_levels(np.concatenate(values)))
    return np.stack(out)


def write_classifier(
    network: Seeing,
    recipe: ClassifierRecipe,
    sets: Sequence[LabelledSet],
    tables: Sequence[TableSet],
    checked: Sequence[TableSet],
    lens_magnitude: NDArray[np.float64],
    samples: Sequence[dict[str, Any]],
    metrics: dict[str, float],
    folder: Path,
) -> Path:
    """Calibrate a classifier and write ``NAME.safetensors`` and its card.

    Parameters
    ----------
    network : Seeing
        Trained.
    recipe : ClassifierRecipe
        It was trained with.
    sets : sequence of LabelledSet
        For the calibration.
    tables : sequence of TableSet
        Rows of real tables that it was trained on; that of ``sdss17`` gives the mix of spectroscopic surveys.
    checked : sequence of TableSet
        Validation rows of the same tables, for the calibration.
    lens_magnitude : float64 array
        Magnitudes in r of simulated lenses.
    samples : sequence of dict
        Settings of the simulated tiles, for the card.
    metrics : dict of str to float
        What the network reached on validation sources (`imcat.train.classification.judge`).
    folder : path
        Where both go.

    Returns
    -------
    path
        Of the card.
    """
    mixed = next((t.mix for t in tables if t.name == "sdss17"), MixByMagnitude.flat())
    sky = sky_mix(Population.load(), lens_magnitude, np.random.default_rng(recipe.seed))
    trained = TrainedClassifier(network, sky, mixed, calibrate(network, sets, checked), _WAVELENGTHS, {})
    data = save(trained.arrays())
    card: dict[str, Any] = {
        "description": "star, galaxy or quasar; lens; morphology; redshifts: from stamps and photometry in any bands",
        "licence": "BSD-3-Clause",
        "wavelengths": list(_WAVELENGTHS),
        "parameters": sum(p.numel() for p in network.parameters()),
        "training": (
            "sources of imcat's simulation, found and measured by imcat run; train rows of public SDSS, BOSS, 2SLAQ and "
            "VVDS tables with spectra"
        ),
        "tables": [t.name for t in tables],
        "failures": list(_FAILURES),
        **trained.sizes(),
        "recipe": asdict(recipe),
        "metrics": {k: round(v, 5) for k, v in metrics.items()},
        "samples": list(samples),
    }
    return write_with_card(folder, recipe.name, data, FORMAT, card)
