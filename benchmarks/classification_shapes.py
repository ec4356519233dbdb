"""Morphology, bulge fraction and Sérsic index of simulated galaxies; what is unlike the training; what an answer rests on."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from classification_simulated import tiles_of
from classification_tables import auc, calibration_error, error_by_group, features, tuned_trees
from common import verdict
from numpy.typing import NDArray

from imcat.classify.attribution import attribute, deletion_curve
from imcat.classify.network import MORPHOLOGIES
from imcat.classify.photometry import Photometry
from imcat.classify.predict import KINDS, classify, look
from imcat.classify.trained import TrainedClassifier
from imcat.simulate.sources import Kind
from imcat.stamps import Stamps
from imcat.train.classification_data import LabelledSet
from imcat.train.fine_tuning import macro_f1
from imcat.train.source_samples import SourceSample, stamps_of

_EDGES = {"sdss": (14.0, 18.0, 19.5, 21.0, 24.0), "csst": (17.0, 21.0, 23.0, 24.5, 26.5)}  # r
_POINT = MORPHOLOGIES.index("point_like")  # the last
_FEW = 100
_SURE = 0.99  # share of the training's sources that are less unusual
_DELETED = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
_LENSES, _GALAXIES = 200, 300

Array = NDArray[Any]


def seen(trained: TrainedClassifier, own: LabelledSet) -> Array:
    """What the backbone sees of all stamps of a set."""
    parts = []
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(own)), max(1, len(own) // 512)):
            s = own.stamps.batch(rows)
            vision = trained.network.vision(s.values, s.valid, s.conditions).float()
            parts.append((vision * s.valid.flatten(1).any(1)[:, None]).numpy())  # as `look` does
    return np.concatenate(parts)


def morphology(
    trained: TrainedClassifier, own: LabelledSet, training: LabelledSet, survey: str
) -> dict[str, Any]:
    """Looks and structure of galaxies of tiles that nothing was fitted to; trees read the looks off the photometry."""
    answer = classify(trained, own.photometry, seen(trained, own))
    share = np.stack([answer[f"morph_{m}"] for m in MORPHOLOGIES], axis=1)
    truth, galaxy = own.labels.morphology.numpy(), own.labels.kind.numpy() == Kind.GALAXY
    tile = tiles_of(own)
    others = _trees(own, training)
    found: dict[str, Any] = {"galaxies": int(galaxy.sum()), "mix": "that of the tiles", "bins": []}
    for a, b in itertools.pairwise(_EDGES[survey]):
        rows = galaxy & (own.true_magnitude >= a) & (own.true_magnitude < b)
        if rows.sum() < _FEW:
            continue
        # Of a galaxy, as the trees are told: which look, if it is not a point.
        said, theirs = share[rows][:, :_POINT].argmax(1), others[rows]
        right = said == truth[rows]
        entry = {
            "from": a, "to": b, "n": int(rows.sum()), "accuracy": float(right.mean()),
            "accuracy_error": error_by_group(right.astype(float), tile[rows]),
            "trees_accuracy": float((theirs == truth[rows]).mean()),
            "commonest": float(np.bincount(truth[rows]).max() / rows.sum()),
            "macro_f1": macro_f1(truth[rows], said, _POINT), "trees_macro_f1": macro_f1(truth[rows], theirs, _POINT),
            "calibration_error": calibration_error(share[rows], truth[rows]),
        }  # fmt: skip
        for k, (name, label) in enumerate(
            (("morph_bulge_fraction", "bulge fraction"), ("morph_sersic_index", "index"))
        ):
            true = own.labels.structure.numpy()[rows, k].astype(float)
            value, error = answer[name][rows], answer[f"{name}_err"][rows]
            if k:  # errors of the index are relative
                value, error = np.log(value), error / value
            entry |= _against(value - true, error, label)
        found["bins"].append(entry)
        print(
            f"   {survey} {a:g} to {b:g}: {entry['n']:6d} galaxies  look right {entry['accuracy']:.4f} ± {entry['accuracy_error']:.4f} "
            f"(trees {entry['trees_accuracy']:.4f}, commonest {entry['commonest']:.4f}), macro-F1 {entry['macro_f1']:.4f} "
            f"({entry['trees_macro_f1']:.4f}), calibration error {entry['calibration_error']:.4f}   bulge fraction "
            f"{entry['bulge fraction bias']:+.3f} ± {entry['bulge fraction scatter']:.3f}, pull {entry['bulge fraction pull']:.2f}"
            f"   ln index {entry['index bias']:+.3f} ± {entry['index scatter']:.3f}, pull {entry['index pull']:.2f}",
            flush=True,
        )
    bright = galaxy & (own.true_magnitude < _EDGES[survey][2])
    found["confusion"] = [
        [int((bright & (truth == a) & (share.argmax(1) == b)).sum()) for b in range(len(MORPHOLOGIES))]
        for a in range(len(MORPHOLOGIES))
    ]
    found["points called point-like"] = float((share[~galaxy].argmax(1) == _POINT).mean())
    # Whoever asks for a look asks it of what is taken for a galaxy, here by the mix of the tiles.
    likelihood = np.stack([answer[f"class_loglike_{k}"] for k in KINDS], axis=1)
    taken = (likelihood + np.log(own.mix.shares(own.magnitude))).argmax(1) == Kind.GALAXY
    error = calibration_error(share[taken], truth[taken])
    found["verdicts"] = [verdict(f"{survey}: calibration error of looks", error, "<= 0.01", error <= 0.01)]
    return found


def _trees(own: LabelledSet, training: LabelledSet) -> Array:
    x, y = features(training.photometry), training.labels.morphology.numpy()
    learned = np.flatnonzero(training.labels.kind.numpy() == Kind.GALAXY)
    held = np.random.default_rng(4).random(len(learned)) < 0.1
    trees = tuned_trees(
        x, y, learned[~held], learned[held], 1, trials=3, objective="multiclass", num_class=len(MORPHOLOGIES),
        metric="multi_logloss",
    )  # fmt: skip
    return np.asarray(trees.predict(features(own.photometry)).argmax(1))


def _against(off: Array, error: Array, label: str) -> dict[str, float]:
    """Median, robust scatter, robust width over the stated errors, and the share within these: 0.683 of a normal distribution."""
    return {
        f"{label} bias": float(np.median(off)),
        f"{label} scatter": float(1.4826 * np.median(np.abs(off - np.median(off)))),
        f"{label} pull": float(1.4826 * np.median(np.abs(off / error - np.median(off / error)))),
        f"{label} within error": float((np.abs(off) < error).mean()),
    }


def unlike(
    trained: TrainedClassifier, sample: SourceSample, own: LabelledSet, seed: int = 3
) -> dict[str, Any]:
    """The score for what is unlike the training, of sources as they are and of the same ones spoiled."""
    rng = np.random.default_rng(seed)
    stamps, p = stamps_of(sample, np.arange(len(sample))), own.photometry
    given: dict[str, tuple[Stamps, Photometry]] = {
        "as they are": (stamps, p),
        "one pixel of 300 sigma in all bands": (_hit(stamps, rng), p),
        "pixels in a random order": (_shuffled(stamps, rng), p),
        "the stamp of another source": (_exchanged(stamps, rng), p),
        "a band two magnitudes off": (stamps, _moved(p, rng)),
    }
    found: dict[str, Any] = {"sources": len(own)}
    score: dict[str, Array] = {}
    for name, (cut, photometry) in given.items():
        score[name] = classify(trained, photometry, look(trained, cut))["unlike_training"]
        found[name] = {
            "median": float(np.median(score[name])),
            "above 0.99": float((score[name] > _SURE).mean()),
            "AUC": auc(
                np.concatenate([score[name], score["as they are"]]),
                np.repeat([True, False], len(own)),
            ),
        }
        v = found[name]
        print(
            f"   {name:36} median {v['median']:.3f}   above 0.99: {v['above 0.99']:.4f}   AUC {v['AUC']:.4f}"
        )
    alike = found["as they are"]["above 0.99"]
    found["verdicts"] = [
        verdict("sources of test tiles less usual than 99 %", alike, "<= 0.02", alike <= 0.02)
    ]
    return found


def _hit(stamps: Stamps, rng: np.random.Generator) -> Stamps:
    signal = stamps.signal.copy()
    y, x = rng.integers(8, signal.shape[-1] - 8, (2, len(signal)))
    signal[np.arange(len(signal)), :, y, x] += 300.0
    return replace(stamps, signal=signal)


def _shuffled(stamps: Stamps, rng: np.random.Generator) -> Stamps:
    flat = stamps.signal.reshape(*stamps.signal.shape[:2], -1)
    order = rng.permuted(np.tile(np.arange(flat.shape[-1]), (len(flat), 1)), axis=1)
    moved = {
        name: np.take_along_axis(values.reshape(flat.shape), order[:, None], 2).reshape(values.shape)
        for name, values in (("signal", stamps.signal), ("valid", stamps.valid))
    }
    return replace(stamps, **moved)


def _exchanged(stamps: Stamps, rng: np.random.Generator) -> Stamps:
    order = rng.permutation(len(stamps))
    return replace(stamps, signal=stamps.signal[order], valid=stamps.valid[order], noise=stamps.noise[order])


def _moved(photometry: Photometry, rng: np.random.Generator) -> Photometry:
    """One band of each source fainter, by all of its magnitudes."""
    shift = np.zeros(photometry.total.shape)
    shift[np.arange(len(shift)), rng.integers(0, shift.shape[1], len(shift))] = 2.0
    return replace(
        photometry, total=photometry.total + shift, psf=photometry.psf + shift, aperture=photometry.aperture + shift
    )  # fmt: skip


def attributions(trained: TrainedClassifier, sample: SourceSample) -> dict[str, Any]:
    """Deletion curves of maps of attributions, of lenses and of galaxies, beside those of pixels at random."""
    found: dict[str, Any] = {"shares": list(_DELETED)}
    verdicts = []
    for name, (stamps, classes) in explained(sample).items():
        total = attribute(trained, stamps, None, classes).maps.sum(1)
        chance = np.random.default_rng(1).random(total.shape).astype(np.float32)
        curves = {
            label: deletion_curve(trained, stamps, None, classes, order, _DELETED).mean(0).tolist()
            for label, order in (("by attribution", total), ("at random", chance))
        }
        found[name] = {
            "stamps": len(stamps),
            **{
                f"log odds, {100 * s:g} % emptied {k}": v[j]
                for k, v in curves.items()
                for j, s in enumerate(_DELETED)
            },
            "curves": [curves["by attribution"], curves["at random"]],
        }
        fall, plain = (c[0] - c[1] for c in curves.values())
        verdicts.append(
            verdict(
                f"{name}: fall of the log odds, 2 % of the pixels emptied",
                fall,
                f"> {plain:.4g}",
                fall > plain,
            )
        )
    return found | {"verdicts": verdicts}


def explained(sample: SourceSample) -> dict[str, tuple[Stamps, Array | None]]:
    """Brightest lenses and galaxies of a tile, and which class of theirs is explained (None: a lens)."""
    order = np.argsort(np.asarray(sample.truth["r_mag"], float))
    lens = np.asarray(sample.truth["is_lens"])[order].astype(bool)
    galaxy = (np.asarray(sample.truth["type"])[order] == "galaxy") & ~lens
    lenses, galaxies = order[lens][:_LENSES], order[galaxy][:_GALAXIES]
    return {
        "lens": (stamps_of(sample, lenses), None),
        "galaxy": (stamps_of(sample, galaxies), np.full(len(galaxies), Kind.GALAXY)),
    }
