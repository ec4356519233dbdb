"""Calibration of a trained classifier, its weights and its card."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from scipy.special import softmax

from imcat.catalogue.files import atomic_path
from imcat.classify.calibration import (
    Calibration,
    fit_levels,
    fit_sets,
    fit_temperature,
    novelty_model,
)
from imcat.classify.densities import Densities
from imcat.classify.network import Answer, Seeing
from imcat.classify.prior import EDGES, MixByMagnitude
from imcat.classify.trained import FORMAT, TrainedClassifier
from imcat.simulate.population import Population
from imcat.simulate.sources import Kind
from imcat.train.card_text import card_text
from imcat.train.classification import ClassifierRecipe, answers
from imcat.train.classification_data import LabelledSet, TableSet
from imcat.train.sky_mix import sky_mix

__all__ = ["calibrate", "write_classifier"]

_MODES = (
    (True, True),
    (True, False),
    (False, True),
)  # stamp, photometry: as `imcat.classify.calibration.MODES`
_WAVELENGTHS = (2500.0, 10500.0)
_FAILURES = (
    "quasars and stars of the same colours are told apart only where the colours differ: worst at z = 2.5 to 3",
    "faint compact galaxies are taken for stars where the PSF is as wide as they are",
    "lenses are known from simulation only",
    "morphology of galaxies smaller than the PSF is a guess from colour and magnitude",
)


def calibrate(network: Seeing, sets: Sequence[LabelledSet]) -> Calibration:
    """Fit what makes the answers probabilities, on simulated sources of tiles that training did not see.

    Parameters
    ----------
    network : Seeing
        Trained.
    sets : sequence of LabelledSet
        One for each list of bands.
    """
    temperature, threshold, levels = [], [], []
    place, vector = torch.device("cpu"), np.zeros((0, 1))
    for see, measure in _MODES:
        said = [answers(network, s, np.arange(len(s)), place, see=see, measure=measure) for s in sets]
        kind = np.concatenate([s.labels.kind.numpy() for s in sets])
        mix = np.concatenate([s.labels.mix.numpy().astype(float) for s in sets])
        magnitude = np.concatenate([s.magnitude for s in sets])
        if not measure:
            magnitude = np.full_like(magnitude, np.nan)
        logit = np.concatenate([a.kind.numpy().astype(float) for a in said])
        own = fit_temperature(logit, mix, kind, np.nan_to_num(magnitude, nan=20.0))
        temperature.append(own)
        middle = 0.5 * (EDGES[1:] + EDGES[:-1])
        scale = np.interp(np.nan_to_num(magnitude, nan=20.0), middle, own)[:, None]
        threshold.append(fit_sets(softmax(logit / scale + mix, axis=1), kind, magnitude))
        levels.append(_levels(said, sets))
        if see and measure:
            vector = np.concatenate([a.vector.numpy().astype(float) for a in said])
    mean, whiten, distance = novelty_model(vector)
    return Calibration(np.stack(temperature), np.stack(threshold), np.stack(levels), mean, whiten, distance)


def _levels(said: Sequence[Answer], sets: Sequence[LabelledSet]) -> NDArray[np.float64]:
    """Corrections of the cumulative densities of galaxies and of quasars."""
    out = []
    for k, kind in enumerate((Kind.GALAXY, Kind.QUASAR)):
        values = []
        for answer, chosen in zip(said, sets, strict=True):
            own = ((chosen.labels.known == kind) & torch.isfinite(chosen.labels.redshift)).numpy()
            density = Densities.of(answer.redshift[:, k].numpy()[own])
            values.append(density.cumulative(chosen.labels.redshift.numpy()[own].astype(float)))
        out.append(fit_levels(np.concatenate(values)))
    return np.stack(out)


def write_classifier(
    network: Seeing,
    recipe: ClassifierRecipe,
    sets: Sequence[LabelledSet],
    tables: Sequence[TableSet],
    lens_magnitude: NDArray[np.float64],
    samples: Sequence[dict[str, Any]],
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
    lens_magnitude : float64 array
        Magnitudes in r of simulated lenses.
    samples : sequence of dict
        Settings of the simulated tiles, for the card.
    folder : path
        Where both go.

    Returns
    -------
    path
        Of the card.
    """
    mixed = next((t.mix for t in tables if t.name == "sdss17"), MixByMagnitude.flat())
    sky = sky_mix(Population.load(), lens_magnitude, np.random.default_rng(recipe.seed))
    trained = TrainedClassifier(network, sky, mixed, calibrate(network, sets), _WAVELENGTHS, {})
    data = save(trained.arrays())
    card: dict[str, Any] = {
        "format": FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
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
        "samples": list(samples),
    }
    path = folder / f"{recipe.name}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{recipe.name}.safetensors") as temporary:
        temporary.write_bytes(data)
    with atomic_path(path) as temporary:
        temporary.write_text(card_text(card), encoding="utf-8")
    return path
