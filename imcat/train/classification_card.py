"""Calibration of a trained classifier, its weights and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from imcat.classify.calibration import (
    MODES,
    Calibration,
    distances,
    fit_errors,
    fit_levels,
    fit_looks,
    fit_scale,
    fit_sets,
    novelty_model,
)
from imcat.classify.densities import Densities
from imcat.classify.network import Answer, Seeing, measured
from imcat.classify.photometry import GLOBALS, SHARP, table_photometry
from imcat.classify.predict import structure_of
from imcat.classify.prior import MixByMagnitude
from imcat.classify.trained import FORMAT, TrainedClassifier
from imcat.simulate.population import Population
from imcat.simulate.sources import Kind
from imcat.train.card_text import write_with_card
from imcat.train.classification import ClassifierRecipe, answers, table_answers
from imcat.train.classification_data import LabelledSet, Labels, TableSet
from imcat.train.sky_mix import sky_mix

__all__ = ["calibrate", "standing_text", "write_classifier"]

_MODES = (
    (True, True),
    (True, False),
    (False, True),
)  # stamp, photometry: as `imcat.classify.calibration.MODES`
_STAMPED = 2  # of them, the first
_TABLES = (
    (False, False),
    (False, True),
    (True, False),
    (True, True),
)  # errors, dust: in the order of the modes
_PSF = GLOBALS.index("log_psf")
_CPU = torch.device("cpu")
_WAVELENGTHS = (2500.0, 10500.0)
_FAILURES = (
    "quasars and stars of the same colours are told apart only where the colours differ: worst at z = 2.5 to 3",
    "faint compact galaxies are taken for stars where the PSF is as wide as they are",
    "lenses are known from simulation only; the score rests on the deflector more than on the arcs",
    "morphology of galaxies smaller than the PSF is a guess from colour and magnitude; bars are seldom seen",
    "redshifts in CSST's bands scatter by more than twice what is aimed at, and one in twelve is far off",
    "probabilities are too sure of tables that have magnitudes and nothing else; sets hold fewer of bright, saturated stars than stated",
    "bands outside of the wavelengths are not used",
)


def standing_text(drawn: int) -> dict[str, Any]:
    """What a card says of the training's data and of known failures.

    Parameters
    ----------
    drawn : int
        Rows that were drawn from the simulator's populations (`imcat.train.classification.ClassifierRecipe`).
    """
    more = f"; {drawn} rows drawn from the simulator's populations" if drawn else ""
    return {
        "training": (
            "sources of imcat's simulation, found and measured by imcat run; train rows of public SDSS, BOSS, 2SLAQ and "
            f"VVDS tables with spectra{more}; the layer of morphologies fitted to the end on the simulated sources"
        ),
        "failures": list(_FAILURES),
    }


def calibrate(
    network: Seeing,
    sets: Sequence[LabelledSet],
    tables: Sequence[TableSet],
    kept: Calibration | None = None,
    *,
    shapes: bool = False,
) -> Calibration:
    """Fit what makes the answers probabilities, on sources that training did not see.

    Parameters
    ----------
    network : Seeing
        Trained.
    sets : sequence of LabelledSet
        Simulated, one for each list of bands.
    tables : sequence of TableSet
        Validation rows of real tables; without any, what holds for photometry alone stands for them.
    kept : Calibration, optional
        One whose modes stay, and its measure of distances, but for the modes that `sets` are of; `tables` are not used then,
        nor does anything stand for what is missing.
    shapes : bool
        Fit only what belongs to morphology anew; everything else of `kept` stays. Without `kept` all is fitted anyway.
    """
    sharp = [bool(np.nanmedian(s.photometry.extra[:, _PSF]) < np.log(SHARP)) for s in sets]
    ground = [s for s, is_sharp in zip(sets, sharp, strict=True) if not is_sharp]
    space = [s for s, is_sharp in zip(sets, sharp, strict=True) if is_sharp]
    if kept is not None:
        return _renewed(network, ground, space, kept, _SHAPES if shapes else _FITTED)
    # Where one kind of image is missing, the other stands for it.
    plain, above = _simulated_modes(network, ground or space), _simulated_modes(network, space or ground)
    bare, ultraviolet = _bare_modes(network, ground or space), _bare_modes(network, space or ground)
    real = _real_modes(network, tables) or [plain[-1], plain[-1]]
    seen = [
        plain[0].vector,
        *([above[0].vector] if ground and space else []),
        *(m.vector for m in real if tables),
    ]
    mean, whiten = novelty_model(np.concatenate(seen))
    modes = [*plain, real[0], *above, *bare, real[1], *ultraviolet]
    return Calibration(
        np.stack([m.temperature for m in modes]), np.stack([m.threshold for m in modes]),
        np.stack([m.levels for m in modes]), mean, whiten,
        np.stack([distances(m.vector, mean, whiten) for m in modes]), np.stack([m.offset for m in modes]),
        np.stack([m.looks for m in modes]), np.stack([m.structure for m in modes]),
    )  # fmt: skip


def _renewed(
    network: Seeing,
    ground: Sequence[LabelledSet],
    space: Sequence[LabelledSet],
    kept: Calibration,
    names: Sequence[str],
) -> Calibration:
    """A calibration with the modes of one or of both kinds of images fitted anew."""
    arrays = {name: values.copy() for name, values in kept.arrays().items()}
    for sets, first, first_bare in ((ground, "both", "magnitudes"), (space, "both, sharp", "ultraviolet")):
        if not sets:
            continue
        if "levels" in names:
            found = [(first, _simulated_modes(network, sets)), (first_bare, _bare_modes(network, sets))]
        else:  # without a stamp there is no shape
            found = [(first, _simulated_modes(network, sets, _MODES[:_STAMPED]))]
        for start, modes in found:
            for place, mode in enumerate(modes, MODES.index(start)):
                if "levels" in names:
                    arrays["distance"][place] = distances(mode.vector, kept.mean, kept.whiten)
                for name in names:
                    arrays[name][place] = getattr(mode, name)
    return Calibration.from_arrays(arrays)


@dataclass(frozen=True, eq=False)
class _Mode:
    """What is fitted for one mode, and the classifier's vectors of the sources."""

    temperature: NDArray[np.float64]
    offset: NDArray[np.float64]
    threshold: NDArray[np.float64]
    levels: NDArray[np.float64]
    looks: NDArray[np.float64]
    structure: NDArray[np.float64]
    vector: NDArray[np.float64]


_SHAPES = ("looks", "structure")
_FITTED = ("temperature", "offset", "threshold", "levels", *_SHAPES)


def _simulated_modes(
    network: Seeing, sets: Sequence[LabelledSet], modes: Sequence[tuple[bool, bool]] = _MODES
) -> list[_Mode]:
    """Each of `_MODES`, or some of them."""
    found = []
    for see, measure in modes:
        said = [answers(network, s, np.arange(len(s)), _CPU, see=see, measure=measure) for s in sets]
        found.append(_fit(said, [s.labels for s in sets], [s.magnitude for s in sets], by_magnitude=measure))
    return found


def _bare_modes(network: Seeing, sets: Sequence[LabelledSet]) -> list[_Mode]:
    """Each of `_TABLES`."""
    return [_bare_mode(network, sets, errors, dust) for errors, dust in _TABLES]


def _bare_mode(network: Seeing, sets: Sequence[LabelledSet], errors: bool, dust: bool) -> _Mode:
    """Totals alone, as tables of magnitudes have them."""
    said, magnitudes = [], []
    for own in sets:
        p = own.photometry
        photometry = table_photometry(
            p.wavelength.tolist(), p.total, p.total_err if errors else None, p.extinction if dust else None
        )
        less = replace(own, photometry=photometry, measured=measured(photometry))
        said.append(answers(network, less, np.arange(len(own)), _CPU, see=False))
        magnitudes.append(photometry.reference_magnitude())
    # Such rows are rare in training, so that classes are off against each other; elsewhere offsets would learn the tiles' mix.
    return _fit(said, [s.labels for s in sets], magnitudes, by_magnitude=True, offsets=True)


def _real_modes(network: Seeing, tables: Sequence[TableSet]) -> list[_Mode]:
    """Rows of real tables with colours, and with one band only; where there are none of one kind, all stand for it."""
    said = [table_answers(network, t, _CPU) for t in tables]
    colours = [np.isfinite(t.photometry.total).sum(axis=1) > 1 for t in tables]
    found = []
    for wanted in (True, False):
        rows = [np.flatnonzero(own == wanted) for own in colours]
        if not any(len(r) for r in rows):
            rows = [np.arange(len(t)) for t in tables]
        chosen = [(a, t, torch.from_numpy(r)) for a, t, r in zip(said, tables, rows, strict=True) if len(r)]
        if chosen:
            found.append(
                _fit(
                    [Answer(*(getattr(a, f)[r] for f in Answer.__dataclass_fields__)) for a, _, r in chosen],
                    [t.labels.take(r) for _, t, r in chosen],
                    [t.photometry.reference_magnitude()[r.numpy()] for _, t, r in chosen],
                    by_magnitude=True,
                )
            )
    return found


def _fit(
    said: Sequence[Answer],
    labels: Sequence[Labels],
    magnitudes: Sequence[NDArray[np.float64]],
    *,
    by_magnitude: bool,
    offsets: bool = False,
) -> _Mode:
    """Temperatures, offsets, thresholds, levels, and what belongs to morphology, of one mode."""
    vector = np.concatenate([a.vector.numpy().astype(float) for a in said])
    kind = np.concatenate([own.kind.numpy() for own in labels])
    mix = np.concatenate([own.mix.numpy().astype(float) for own in labels])
    logit = np.concatenate([a.kind.numpy().astype(float) for a in said])
    magnitude = np.concatenate(magnitudes)
    if not by_magnitude:
        magnitude = np.full_like(magnitude, np.nan)
    levels = _levels(said, labels, magnitude)
    told = kind >= 0
    plain = Calibration.none(1)
    if not told.any():
        return _Mode(
            plain.temperature[0],
            plain.offset[0],
            plain.threshold[0],
            levels,
            plain.looks[0],
            plain.structure[0],
            vector,
        )
    kind, mix, logit, magnitude = kind[told], mix[told], logit[told], magnitude[told]
    temperature, offset = fit_scale(logit, mix, kind, np.nan_to_num(magnitude, nan=20.0), offsets=offsets)
    own = replace(plain, temperature=temperature[None], offset=offset[None])
    likelihood = own.corrected(logit, np.zeros(len(kind), np.intp), magnitude)
    threshold = fit_sets(likelihood, kind, magnitude)
    looks, structure = _fit_shapes(said, labels, magnitude, told, (likelihood + mix).argmax(axis=1))
    return _Mode(temperature, offset, threshold, levels, looks, structure, vector)


def _fit_shapes(
    said: Sequence[Answer],
    labels: Sequence[Labels],
    magnitude: NDArray[np.float64],
    told: NDArray[np.bool_],
    taken_for: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Temperatures of the looks and factors of the errors of the structure, of sources taken for galaxies: who looks there asks about those."""
    look = np.concatenate([own.morphology.numpy() for own in labels])[told]
    logit = np.concatenate([a.morphology.numpy().astype(float) for a in said])[told]
    asked = (look >= 0) & (taken_for == Kind.GALAXY)
    looks = fit_looks(logit[asked], look[asked], np.nan_to_num(magnitude[asked], nan=20.0))
    value, error = (np.concatenate(parts)[told] for parts in zip(*map(structure_of, said), strict=True))
    true = np.concatenate([own.structure.numpy().astype(float) for own in labels])[told]
    own = asked & np.isfinite(true).all(axis=1)
    share = (value[:, 0] - true[:, 0]) / error[:, 0]
    index = (np.log(value[:, 1]) - true[:, 1]) * value[:, 1] / error[:, 1]  # its error is relative
    factors = [fit_errors(pull[own], magnitude[own]) for pull in (share, index)]
    return looks, np.stack(factors, axis=1)


def _levels(
    said: Sequence[Answer], labels: Sequence[Labels], magnitude: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Corrections of the cumulative densities of galaxies and of quasars; magnitudes are those of all sources in turn."""
    start = np.cumsum([0, *(len(own.kind) for own in labels)])
    out = []
    for k, kind in enumerate((Kind.GALAXY, Kind.QUASAR)):
        values, mags = [], []
        for answer, label, first in zip(said, labels, start[:-1], strict=True):
            own = ((label.known == kind) & torch.isfinite(label.redshift)).numpy()
            density = Densities.of(answer.redshift[:, k].numpy()[own])
            values.append(density.cumulative(label.redshift.numpy()[own].astype(float)))
            mags.append(magnitude[first : first + len(own)][own])
        out.append(fit_levels(np.concatenate(values), np.concatenate(mags)))
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
    before: dict[str, Any] | None = None,
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
    before : dict, optional
        Card of the weights that the training went on from.

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
        **standing_text(recipe.drawn),
        "tables": [t.name for t in tables],
        **trained.sizes(),
        "recipe": asdict(recipe),
        "metrics": {k: round(v, 5) for k, v in metrics.items()},
        "samples": list(samples),
    }
    if before is not None:
        card["before"] = {k: before[k] for k in ("sha256", "recipe", "samples", "before") if k in before}
    return write_with_card(folder, recipe.name, data, FORMAT, card)
