"""The classifier on simulated tiles that nothing was fitted to, through the whole of the main job.

Sources of a spectroscopic survey are rows of the test part of a real table (their magnitudes, classes and redshifts), put
on simulated tiles and found and measured there. Calibration is judged on tiles like those of the training, of other seeds.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification_tables import (
    CALIBRATION_EDGES,
    calibration_error,
    error_by_group,
    features,
    of_classes,
    paired,
    tuned_trees,
)
from common import data_dir, verdict
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import kstest

from imcat.classify.calibration import COVERAGE, sharp_modes
from imcat.classify.densities import Densities
from imcat.classify.network import Answer
from imcat.classify.photometry import GLOBALS
from imcat.classify.prior import MixByMagnitude
from imcat.classify.trained import TrainedClassifier
from imcat.processes import follow_parent
from imcat.simulate.scene import Models
from imcat.simulate.sources import Kind, Sources
from imcat.simulate.split import Split
from imcat.stamps import StampSettings
from imcat.train.classification import answers, take
from imcat.train.classification_data import LabelledSet, simulated_sets
from imcat.train.fine_tuning import macro_f1
from imcat.train.source_samples import (
    SampleSettings,
    SourceSample,
    build_samples,
    read_sample,
    simulated_sample,
    write_sample,
)
from imcat.train.spectroscopic import read_table

Array = NDArray[Any]

SEED = 906  # of tiles that no training saw
EDGES = (14.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0)
MODES = ((True, True, "both"), (True, False, "image"), (False, True, "photometry"))
_TURN = 360.0  # added to position angles: tells the sources of the survey from those of the sky
_PER_TILE = 2400
_FAINTEST = 23.5
_SHIFTED = 1 / 3  # of the sources, moved to fainter magnitudes
_CPU = torch.device("cpu")


def survey_sources(models: Models, rng: np.random.Generator, number: int) -> Sources:
    """Rows of the test part of the spectroscopic table, with structure for the galaxies; a third of them fainter."""
    table = read_table("sdss17", data_dir())
    mags = table.photometry.total.astype(float)
    good = np.flatnonzero((table.split == Split.TEST) & np.isfinite(mags).all(1))
    rows = rng.choice(good, number)
    mag, kind = mags[rows].copy(), table.kind[rows].astype(int)
    moved = (rng.random(number) < _SHIFTED) & (mag[:, 2] < 20.5)
    mag[moved] += (rng.uniform(20.5, _FAINTEST, number) - mag[:, 2])[moved, None]
    z = np.nan_to_num(table.redshift[rows].astype(float))
    parts = []
    for one in (Kind.STAR, Kind.QUASAR):
        own = kind == one
        parts.append(Sources.points(one, mag[own], z[own]))
    own = kind == Kind.GALAXY
    drawn = models.population.galaxies(rng, mag[own, 2])
    share, bulge, disc, bulge_axis, disc_axis = models.population.shapes.draw(rng, mag[own])
    ratio = drawn.bulge_radius.sum() / max(bulge.sum(), 1e-9)  # as the population converts radii
    parts.append(
        drawn.replace(
            mag=mag[own], redshift=z[own], bulge_fraction=share, bulge_radius=ratio * bulge, disc_radius=ratio * disc,
            bulge_axis_ratio=bulge_axis, disc_axis_ratio=disc_axis,
        )
    )  # fmt: skip
    whole = Sources.concatenate(parts)
    return whole.replace(position_angle=whole.position_angle + _TURN)


def _survey_tile(job: tuple[Path, int]) -> Path:
    path, index = job
    if not path.exists():
        models = Models.load()
        added = survey_sources(models, np.random.default_rng([SEED, index]), _PER_TILE)
        sample = simulated_sample(SampleSettings(seed=SEED), index, models, StampSettings(), added)
        kept = np.flatnonzero(sample.truth["position_angle"] >= _TURN)
        write_sample(path, _take(sample, kept))
    return path


def _take(sample: SourceSample, rows: Array) -> SourceSample:
    return replace(
        sample, columns={k: v[rows] for k, v in sample.columns.items()}, truth={k: v[rows] for k, v in sample.truth.items()},
        packed=sample.packed[rows], noise=sample.noise[rows],
    )  # fmt: skip


def survey_set(folder: Path, tiles: int) -> LabelledSet:
    """Sources of the spectroscopic survey as the main job found them."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / f"survey-{SEED}-{k:04d}.npz", k) for k in range(tiles)]
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver"), initializer=follow_parent) as pool:
        paths = list(pool.map(_survey_tile, jobs))
    return simulated_sets([read_sample(p) for p in paths])[0]


def like_training(folder: Path, survey: str, tiles: int, seed: int) -> LabelledSet:
    """Sources as those of the training, of other tiles."""
    settings = SampleSettings(tiles=tiles, seed=seed)
    if survey == "csst":
        settings = replace(
            settings, survey="csst", width=1448, height=1448, stars=200, galaxies=350, quasars=250, bright=17.0, faint=26.5,
            lenses=60000.0, lookalikes=60000.0,
        )  # fmt: skip
    return simulated_sets([read_sample(p) for p in build_samples(folder, settings, StampSettings(), 2)])[0]


def of_training(trained: TrainedClassifier, folder: Path, survey: str, tiles: int = 0) -> LabelledSet:
    """Sources of the tiles that the heads learned from, all or some, by the card."""
    (own,) = (
        SampleSettings(**s)
        for s in trained.card["samples"]
        if s["survey"] == survey and s["role"] == "training"
    )
    own = replace(own, tiles=tiles or own.tiles)
    return simulated_sets([read_sample(p) for p in build_samples(folder, own, StampSettings(), 2)])[0]


def tiles_of(own: LabelledSet) -> Array:
    """Number of the tile of each source: sources of a tile share the width of its PSF, and nothing else has it."""
    _, tile = np.unique(own.photometry.extra[:, GLOBALS.index("log_psf")], return_inverse=True)
    return np.asarray(tile)


def modes_of(own: LabelledSet, mode: int) -> Array:
    """Modes of the calibration."""
    fwhm = np.exp(own.photometry.extra[:, GLOBALS.index("log_psf")].astype(float))
    return sharp_modes(np.full(len(own), mode), fwhm)


def shares_of(
    trained: TrainedClassifier, own: LabelledSet, mix: MixByMagnitude, mode: int
) -> tuple[Array, Array, Answer]:
    """Probabilities for a mix and logarithms of likelihoods, from stamp and photometry, stamp alone, or photometry alone."""
    see, measure, _ = MODES[mode]
    said = answers(trained.network, own, np.arange(len(own)), _CPU, see=see, measure=measure)
    magnitude = own.magnitude if measure else np.full(len(own), np.nan)
    logit = trained.calibration.corrected(said.kind.numpy(), modes_of(own, mode), magnitude)
    return np.asarray(softmax(logit + np.log(mix.shares(own.magnitude)), axis=1)), logit, said


def classes(trained: TrainedClassifier, own: LabelledSet, training: LabelledSet) -> dict[str, Any]:
    """Star, galaxy, quasar of the spectroscopic survey; trees learn from the photometry of the training's tiles."""
    truth = own.labels.kind.numpy()
    mix = MixByMagnitude.of_sample(own.magnitude, truth)
    found: dict[str, Any] = {"sources": len(own), "mix": "that of the test sources by magnitude"}
    shares = {name: shares_of(trained, own, mix, k)[0] for k, (_, _, name) in enumerate(MODES)}
    rng = np.random.default_rng(1)
    x, y = features(training.photometry), training.labels.kind.numpy()
    held = rng.random(len(x)) < 0.1
    trees = tuned_trees(
        x, y, np.flatnonzero(~held), np.flatnonzero(held), 1, objective="multiclass", num_class=3,
        metric="multi_logloss", trials=6,
    )  # fmt: skip
    given = np.asarray(trees.predict(features(own.photometry)))
    # The trees learned the mix of the training; theirs too are for that of the test.
    ratio = mix.shares(own.magnitude) / training.mix.shares(own.magnitude)
    shares["trees"] = given * ratio / (given * ratio).sum(1, keepdims=True)
    said = {name: share.argmax(1) for name, share in shares.items()}
    true_mag, tile = own.true_magnitude, tiles_of(own)
    bins = [("r < 20", true_mag < 20), ("14 to 25", (true_mag >= 14) & (true_mag < 25))]
    bins += [(f"{a:g} to {b:g}", (true_mag >= a) & (true_mag < b)) for a, b in itertools.pairwise(EDGES)]
    for label, rows in bins:
        if rows.sum() < 500:
            continue
        scores = {k: macro_f1(truth[rows], v[rows], 3) for k, v in said.items()}
        right = {k: (v[rows] == truth[rows]).astype(float) for k, v in said.items()}
        found[label] = {
            "n": int(rows.sum()), "macro_f1": scores, "accuracy": {k: float(v.mean()) for k, v in right.items()},
            "over_trees": paired(right["both"], right["trees"], lambda v: float(v.mean()), group=tile[rows]),
            "over_image": paired(right["both"], right["image"], lambda v: float(v.mean()), group=tile[rows]),
        }  # fmt: skip
        line = "  ".join(f"{k} {v:.4f}" for k, v in scores.items())
        print(f"   {label:10s} {int(rows.sum()):6d} sources   macro-F1 {line}")
        if label in ("r < 20", "14 to 25"):
            found[label] |= _named(of_classes(shares["both"][rows], truth[rows]))
            found[label]["confusion"] = [
                [int(((truth == a) & (said["both"] == b) & rows).sum()) for b in range(3)] for a in range(3)
            ]
    found["verdicts"] = [
        verdict("macro-F1 at r < 20", found["r < 20"]["macro_f1"]["both"], "> 0.971", found["r < 20"]["macro_f1"]["both"] > 0.971),
        verdict("macro-F1 over 14 to 25", found["14 to 25"]["macro_f1"]["both"], "> 0.91", found["14 to 25"]["macro_f1"]["both"] > 0.91),
        verdict(
            "magnitude bins in which fusion beats trees and the image alone",
            sum(v["macro_f1"]["both"] > max(v["macro_f1"]["trees"], v["macro_f1"]["image"]) for v in _bins(found)),
            f"{len(_bins(found))}", all(v["macro_f1"]["both"] > max(v["macro_f1"]["trees"], v["macro_f1"]["image"]) for v in _bins(found)),
        ),
    ]  # fmt: skip
    return found


def _bins(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [v for k, v in found.items() if " to " in k and k != "14 to 25"]


def _named(values: dict[str, float]) -> dict[str, float]:
    print("      " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return values


def calibration(trained: TrainedClassifier, own: LabelledSet, survey: str) -> dict[str, Any]:
    """Probabilities and sets on sources like those that the calibration was fitted to, of other tiles."""
    truth, mix = own.labels.kind.numpy(), own.mix
    share, logit, said = shares_of(trained, own, mix, 0)
    mag, every = own.magnitude, np.arange(len(own))
    sets = trained.calibration.sets(logit, modes_of(own, 0), mag)
    inside = sets[every, truth]
    # Sources of each class count as the sky has them at their magnitude.
    sky = trained.sky.shares(mag, None)[every, truth] / mix.shares(mag)[every, truth]
    tile = tiles_of(own)  # seeing and depth are a tile's, and its sources share them
    found: dict[str, Any] = {
        "sources": len(own),
        "mix": "that of the tiles by magnitude; of sky_coverage the sky's",
        "calibration_error": calibration_error(share, truth),
        "bins": [],
    }
    for a, b in itertools.pairwise(CALIBRATION_EDGES[survey]):
        rows = (mag >= a) & (mag < b)
        found["bins"].append(
            {
                "from": a, "to": b, "n": int(rows.sum()), "coverage": float(inside[rows].mean()),
                "coverage_error": error_by_group(inside[rows], tile[rows]),
                "of_each_class": {k.name.lower(): float(inside[rows & (truth == k)].mean()) for k in Kind},
                "sky_coverage": float(np.average(inside[rows], weights=sky[rows])),
                "mean_size": float(sets[rows].sum(1).mean()),
                "accuracy": float((share[rows].argmax(1) == truth[rows]).mean()),
                "calibration_error": calibration_error(share[rows], truth[rows]),
            }
        )  # fmt: skip
        v = found["bins"][-1]
        print(
            f"   {survey} {a:g} to {b:g}: {v['n']:6d} sources  sets hold {v['coverage']:.4f} ± {v['coverage_error']:.4f}, "
            f"of stars, galaxies, quasars {' '.join(f'{c:.3f}' for c in v['of_each_class'].values())}, in the sky's mix "
            f"{v['sky_coverage']:.4f}; {v['mean_size']:.2f} classes each  calibration error {v['calibration_error']:.4f}"
        )
    top, right = share.max(1), share.argmax(1) == truth
    which = np.minimum((top * 15).astype(int), 14)
    found["reliability"] = [
        [float(top[which == k].mean()), float(right[which == k].mean()), int((which == k).sum())]
        for k in range(15) if (which == k).any()
    ]  # fmt: skip
    for k, kind in enumerate((Kind.GALAXY, Kind.QUASAR)):
        sure = ((own.labels.known == kind) & torch.isfinite(own.labels.redshift)).numpy()
        density = Densities.of(said.redshift[sure, k].numpy())
        stated = density.cumulative(own.labels.redshift.numpy()[sure].astype(float))
        pit = trained.calibration.true_level(stated, k, modes_of(own, 0)[sure], mag[sure])
        kind_name = kind.name.lower()
        held, known = (pit > 0.05) & (pit < 0.95), int(sure.sum())
        found[f"z_{kind_name}_coverage"] = float(held.mean())
        found[f"z_{kind_name}_coverage_error"] = error_by_group(held, tile[sure])
        found[f"z_{kind_name}_pit_ks"] = float(kstest(pit, "uniform").statistic)
        print(
            f"   {survey} redshift intervals of {kind_name}: 90 % hold {held.mean():.4f} ± {found[f'z_{kind_name}_coverage_error']:.4f} "
            f"of {known}, PIT KS {found[f'z_{kind_name}_pit_ks']:.4f}"
        )
    reached = abs(found["calibration_error"]) <= 0.01
    worst, other = (max(abs(v[k] - COVERAGE) for v in found["bins"]) for k in ("coverage", "sky_coverage"))
    found["verdicts"] = [
        verdict(f"{survey}: calibration error", found["calibration_error"], "<= 0.01", reached),
        verdict(f"{survey}: coverage of sets, worst bin", worst, "<= 0.01 from 0.90", worst <= 0.01),
        verdict(f"{survey}: the same in the sky's mix", other, "<= 0.01 from 0.90", other <= 0.01),
    ]
    return found


def rotations(trained: TrainedClassifier, own: LabelledSet, number: int = 4000) -> dict[str, Any]:
    """Share of the sources whose class changes when the stamp is turned or mirrored."""
    rows = np.arange(min(number, len(own)))
    mix = np.log(own.mix.shares(own.magnitude[rows]))
    given = take(own.measured, torch.from_numpy(rows))
    said = []
    for turn in range(8):
        stamps = own.stamps.batch(rows, turn)
        with torch.inference_mode():
            parts = [
                trained.network.vision(stamps.values[k : k + 512], stamps.valid[k : k + 512], stamps.conditions[k : k + 512])
                for k in range(0, len(rows), 512)
            ]  # fmt: skip
            answer = trained.network.classifier(given, torch.cat(parts), torch.ones(len(rows)))
        said.append((answer.kind.numpy() + mix).argmax(1))
    changed = float(np.mean([(s != said[0]).mean() for s in said[1:]]))
    return {
        "sources": len(rows), "changed": changed,
        "verdicts": [verdict("classes that a turn or a mirror changes", changed, "< 0.01", changed < 0.01)],
    }  # fmt: skip
