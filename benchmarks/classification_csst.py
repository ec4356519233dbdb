"""Redshifts of CSST-like galaxies, against trees on the same photometry, and against what true magnitudes would tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from classification_simulated import modes_of, tiles_of
from classification_tables import crps, features, nmad, paired, tuned_trees
from common import verdict

from imcat.classify.densities import Densities
from imcat.classify.trained import TrainedClassifier
from imcat.simulate.filters import FilterSet
from imcat.simulate.scene import Models
from imcat.simulate.sources import Kind
from imcat.train.classification import answers
from imcat.train.classification_data import LabelledSet

_SIGNAL = 10.0  # to noise, in the best band
_CPU = torch.device("cpu")


def noiseless_redshifts(galaxies: int = 60_000, faintest: float = 24.0) -> dict[str, float]:
    """What the true magnitudes of the simulator's galaxies tell trees of their redshift: no measurement can tell more."""
    models, rng = Models.load(), np.random.default_rng(5)
    low, slope = 17.0, 0.12  # as the tiles have them
    mag = low + np.log10(1 + rng.random(galaxies) * (10 ** (slope * (faintest - low)) - 1)) / slope
    drawn = models.population.galaxies(rng, mag)
    parts = []
    for rows in np.array_split(np.arange(galaxies), max(1, galaxies // 20_000)):
        own = drawn.take(rows)
        template = models.spectra.choose(own.kind, own.mag, own.redshift, rng)
        filters = FilterSet.named("csst")
        parts.append(models.spectra.magnitudes(own.kind, template, own.redshift, own.mag, filters))
    x = np.concatenate(parts)
    x = np.hstack([x, np.diff(x, axis=1)])
    z = drawn.redshift
    train, held, test = np.split(np.arange(galaxies), [galaxies * 8 // 10, galaxies * 9 // 10])
    trees = tuned_trees(
        x, np.log1p(z), train, held, 1, objective="regression_l1", metric="l1", trials=3
    )  # fmt: skip
    dz = (np.expm1(np.asarray(trees.predict(x[test]))) - z[test]) / (1 + z[test])
    found = {"nmad": nmad(dz), "beyond_0.15": float((np.abs(dz) > 0.15).mean()), "galaxies": galaxies}
    print(
        f"   true magnitudes, r < {faintest:g}: trees' NMAD {found['nmad']:.4f}, beyond 0.15 {found['beyond_0.15']:.4f}"
    )
    return found


def csst_redshifts(trained: TrainedClassifier, own: LabelledSet, training: LabelledSet) -> dict[str, Any]:
    """Galaxies of CSST-like tiles above S/N 10 in the best band, against trees on the same photometry."""
    galaxy = own.labels.kind.numpy() == Kind.GALAXY
    noise = np.nanmin(own.photometry.total_err.astype(float), axis=1)
    bright = galaxy & (noise < 2.5 / np.log(10) / _SIGNAL)
    said = answers(trained.network, own, np.flatnonzero(bright), _CPU)
    z = own.labels.redshift.numpy()[bright].astype(float)
    density = Densities.of(said.redshift[:, 0].numpy())
    mode, magnitude = modes_of(own, 0)[bright], own.magnitude[bright]
    point = density.quantile(trained.calibration.stated_level(0.5, 0, mode, magnitude))
    x, train_z = features(training.photometry), training.labels.redshift.numpy().astype(float)
    known = np.flatnonzero((training.labels.kind.numpy() == Kind.GALAXY) & np.isfinite(train_z))
    held = np.random.default_rng(2).random(len(known)) < 0.1
    trees = tuned_trees(
        x,
        np.log1p(np.nan_to_num(train_z)),
        known[~held],
        known[held],
        1,
        objective="regression_l1",
        metric="l1",
        trials=6,
    )
    other = np.expm1(np.asarray(trees.predict(features(own.photometry)[bright])))
    found: dict[str, Any] = {
        "galaxies": int(bright.sum()),
        "z": z[:3000].round(4).tolist(),
        "z_phot": point[:3000].round(4).tolist(),
        "crps": crps(
            lambda at: trained.calibration.true_level(density.cumulative(at), 0, mode, magnitude), z
        ),
        "trees_mean_distance": float(np.abs(other - z).mean()),
    }
    away = {}
    for label, value in (("", point), ("trees_", other)):
        dz = away[label] = (value - z) / (1 + z)
        found |= {
            f"{label}nmad": nmad(dz),
            f"{label}beyond_0.05": float((np.abs(dz) > 0.05).mean()),
            f"{label}beyond_0.15": float((np.abs(dz) > 0.15).mean()),
            f"{label}bias": float(np.median(dz)),
        }
    found["difference"] = paired(away[""], away["trees_"], nmad, group=tiles_of(own)[bright])
    print(
        f"   {found['galaxies']} galaxies: NMAD {found['nmad']:.4f} (trees {found['trees_nmad']:.4f}), beyond 0.15 "
        f"{found['beyond_0.15']:.4f} ({found['trees_beyond_0.15']:.4f})"
    )
    found["noiseless"] = noiseless_redshifts()
    found["verdicts"] = [
        verdict("CSST-like redshifts: NMAD", found["nmad"], "< 0.020", found["nmad"] < 0.02),
        verdict(
            "CSST-like redshifts: beyond 0.15", found["beyond_0.15"], "< 0.009", found["beyond_0.15"] < 0.009
        ),
        verdict(
            "CSST-like redshifts: NMAD against the trees'",
            found["nmad"],
            f"< {found['trees_nmad']:.4f}",
            found["nmad"] < found["trees_nmad"],
        ),
    ]
    return found
