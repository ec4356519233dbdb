"""What the calibration is worth for a table of magnitudes, which says less than imcat's own catalogues do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from classification_tables import CALIBRATION_EDGES, calibration_error
from common import verdict
from scipy.special import softmax

from imcat.classify.calibration import COVERAGE, MODES, bare_modes, sharp_modes
from imcat.classify.densities import Densities
from imcat.classify.photometry import GLOBALS, Photometry, table_photometry
from imcat.classify.predict import answer, given_parts
from imcat.classify.trained import TrainedClassifier
from imcat.simulate.sources import Kind
from imcat.train.classification_data import LabelledSet

_INTERVAL = (0.16, 0.84)


def magnitudes(trained: TrainedClassifier, own: LabelledSet, survey: str) -> dict[str, Any]:
    """Sets, probabilities and redshifts of galaxies from photometry alone: all that a catalogue has, and less and less."""
    p = own.photometry
    given = {
        "all of a catalogue": p,
        "magnitudes, errors, extinction": table_photometry(p.wavelength, p.total, p.total_err, p.extinction),
        "magnitudes, errors": table_photometry(p.wavelength, p.total, p.total_err),
        "magnitudes": table_photometry(p.wavelength, p.total),
    }
    found: dict[str, Any] = {
        "sources": len(own),
        "mix": "that of the tiles by magnitude",
        "edges": CALIBRATION_EDGES[survey],
    }
    for name, photometry in given.items():
        found[name] = _judged(trained, own, photometry, CALIBRATION_EDGES[survey])
        v = found[name]
        bins = " ".join(f"{c:.3f}" for c in v["sets by bin"].values())
        print(
            f"   {survey} {name:32} sets hold {v['coverage']:.4f} ({bins})  calibration error {v['calibration_error']:.4f}  "
            f"68 % redshift intervals of galaxies hold {v['redshifts']:.4f}  accuracy {v['accuracy']:.4f}",
            flush=True,
        )
    plain = [v for k, v in found.items() if k in given and k != "all of a catalogue"]
    worst = max(abs(v["coverage"] - COVERAGE) for v in plain)
    error = max(v["calibration_error"] for v in plain)
    found["verdicts"] = [
        verdict(f"{survey}, tables of magnitudes: coverage of sets, worst kind of table", worst, "<= 0.01 from 0.90", worst <= 0.01),
        verdict(f"{survey}, tables of magnitudes: calibration error, worst kind of table", error, "<= 0.01", error <= 0.01),
    ]  # fmt: skip
    return found


def _judged(
    trained: TrainedClassifier, own: LabelledSet, photometry: Photometry, edges: Sequence[float]
) -> dict[str, Any]:
    said = answer(trained, photometry, None, spectroscopic=False)
    magnitude = photometry.reference_magnitude()
    plain = np.full(len(own), MODES.index("photometry"))
    fwhm = np.exp(photometry.extra[:, GLOBALS.index("log_psf")].astype(float))
    mode = bare_modes(sharp_modes(plain, fwhm), *given_parts(photometry))
    logit = trained.calibration.corrected(said.kind.numpy(), mode, magnitude)
    share = softmax(logit + np.log(own.mix.shares(own.magnitude)), axis=1)
    truth = own.labels.kind.numpy()
    inside = trained.calibration.sets(logit, mode, magnitude)[np.arange(len(own)), truth]
    sure = ((own.labels.known == Kind.GALAXY) & torch.isfinite(own.labels.redshift)).numpy()
    place = Densities.of(said.redshift[sure, 0].numpy()).cumulative(
        own.labels.redshift.numpy()[sure].astype(float)
    )
    pit = trained.calibration.true_level(place, 0, mode[sure], magnitude[sure])
    return {
        "coverage": float(inside.mean()),
        "sets by bin": {
            f"{a:g} to {b:g}": float(inside[(magnitude >= a) & (magnitude < b)].mean())
            for a, b in itertools.pairwise(edges)
        },
        "accuracy": float((share.argmax(1) == truth).mean()),
        "calibration_error": calibration_error(share, truth),
        "redshifts": float(((pit > _INTERVAL[0]) & (pit < _INTERVAL[1])).mean()),
    }
