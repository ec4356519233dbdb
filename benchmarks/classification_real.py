"""Stars and galaxies of a real field by stamp and photometry, and of the independent simulator's tiles."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from classification_tables import calibration_error
from common import data_dir, verdict
from detection import independent as independent_field
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.config import Config
from imcat.evaluate.detection import match_lists
from imcat.evaluate.truth import read_truth
from imcat.pipeline import catalogue_tile
from imcat.surveys import find_tiles, read_tile

FIELD = "003918-3-0213"
_CUT = 0.145  # mag
_SET_EDGES = (14.0, 18.0, 20.0, 21.0, 22.0, 23.5)  # r


def star_galaxy_field() -> dict[str, Any]:
    """The field whose stars and galaxies SDSS lists: looked at once per model."""
    base = data_dir() / "sdss"
    (source,) = find_tiles([str(base / "fields" / FIELD)])
    catalogue = catalogue_tile(read_tile(source), Config())
    places, kinds = [], []
    for name, kind in (("gals", "galaxy"), ("stars", "star")):
        xy = np.loadtxt(base / "catalogues" / f"{FIELD}_{name}.csv", delimiter=",")
        places.append(xy)
        kinds += [kind] * len(xy)
    xy, kind = np.concatenate(places), np.array(kinds)
    pairs = match_lists(
        np.asarray(catalogue["x"]), np.asarray(catalogue["y"]), xy[:, 0], xy[:, 1], 1.0 / 0.396
    )
    mag = -2.5 * np.log10(
        np.maximum(np.asarray(catalogue["r_cmodel_flux"], float)[pairs.first], 1e-3) / AB_FLUX
    )
    p = {k: np.asarray(catalogue[f"p_{k}"], float)[pairs.first] for k in ("star", "galaxy", "quasar")}
    truth = kind[pairs.second] == "galaxy"
    said = p["galaxy"] > p["star"] + p["quasar"]
    bright = mag < 21
    found: dict[str, Any] = {
        "matched": len(truth), "bright": int(bright.sum()), "accuracy": float((said == truth)[bright].mean()),
        "accuracy_all": float((said == truth).mean()), "mix": "the sky's",
        **_plain_cut(catalogue, pairs.first, truth, bright), **_unlike(catalogue),
        "confusion": [[int(((truth == a) & (said == b) & bright).sum()) for b in (False, True)] for a in (False, True)],
    }  # fmt: skip
    sets = np.asarray(catalogue["class_set"])[pairs.first]
    inside = np.array(
        [("galaxy" if g else "star") in s.split(",") for g, s in zip(truth, sets, strict=True)], bool
    )
    found["bins"] = [
        {"name": name, "from": a, "to": b, "n": int(rows.sum()), "coverage": float(inside[rows].mean())}
        for a, b in itertools.pairwise(_SET_EDGES) for name, galaxy in (("star", False), ("galaxy", True))
        if (rows := (mag >= a) & (mag < b) & (truth == galaxy)).any()
    ]  # fmt: skip
    for v in found["bins"]:
        print(
            f"   {FIELD} {v['from']:g} to {v['to']:g}: sets of {v['n']:3d} {v['name']:6s} hold {v['coverage']:.3f}"
        )
    found["coverage"] = float(inside.mean())
    print(
        f"   {FIELD}: {found['bright']} matched at r < 21, accuracy {found['accuracy']:.4f} (a cut in PSF minus model magnitude "
        f"{found['cut accuracy']:.4f}); all {found['matched']}: {found['accuracy_all']:.4f} ({found['cut accuracy_all']:.4f})   "
        f"unlike the training above 0.99: {found['unlike above 0.99']:.4f}"
    )
    found["verdicts"] = [
        verdict(
            "003918-3-0213: star or galaxy at r < 21",
            found["accuracy"],
            ">= 0.985",
            found["accuracy"] >= 0.985,
        )
    ]
    return found


def _plain_cut(
    catalogue: Any, rows: NDArray[Any], truth: NDArray[Any], bright: NDArray[Any]
) -> dict[str, float]:
    """Galaxies by SDSS's cut: psfMag - cmodelMag > 0.145 in r (Abazajian et al. 2004, AJ 128, 502)."""
    psf, model = (np.asarray(catalogue[f"r_{k}_flux"], float)[rows] for k in ("psf", "cmodel"))
    with np.errstate(invalid="ignore", divide="ignore"):
        extended = 2.5 * np.log10(model / psf) > _CUT
    return {
        "cut accuracy": float((extended == truth)[bright].mean()),
        "cut accuracy_all": float((extended == truth).mean()),
    }


def _unlike(catalogue: Any) -> dict[str, float]:
    """Of all sources that were found."""
    score = np.asarray(catalogue["unlike_training"], float)
    score = score[np.isfinite(score)]
    return {"unlike median": float(np.median(score)), "unlike above 0.99": float((score > 0.99).mean())}


def independent(folder: Path) -> dict[str, Any]:
    """Star or galaxy on the independent simulator's tiles, as it is."""
    out: dict[str, Any] = {}
    for name in ("skymaker_sdss_03", "skymaker_csst_02"):
        pixel, radius = (0.396, 1.0) if "sdss" in name else (0.074, 0.25)
        own = independent_field(folder, name, pixel, radius, 99.0)
        catalogue = catalogue_tile(own.tile, Config())
        (truth,) = read_truth(data_dir() / "simulated" / name)
        assert truth.x is not None
        assert truth.y is not None
        pairs = match_lists(
            np.asarray(catalogue["x"]), np.asarray(catalogue["y"]), truth.x, truth.y, radius / pixel
        )
        galaxy = np.asarray(truth.kind)[pairs.second] == "galaxy"
        mag = truth.magnitudes["r"][pairs.second]
        share = np.stack(
            [np.asarray(catalogue[f"p_{k}"], float)[pairs.first] for k in ("star", "galaxy", "quasar")], 1
        )
        two = np.stack([share[:, 0] + share[:, 2], share[:, 1]], 1)
        sets = np.asarray(catalogue["class_set"])[pairs.first]
        held = np.array(
            [("galaxy" if g else "star") in s.split(",") for g, s in zip(galaxy, sets, strict=True)]
        )
        found: dict[str, Any] = {
            "matched": len(galaxy),
            "calibration_error": calibration_error(two, galaxy.astype(int)),
            "mix": "the sky's",
            **_unlike(catalogue),
            "bins": [],
        }
        edges = (14, 18, 20, 21, 22, 23) if "sdss" in name else (18, 21, 23, 24, 25, 26)
        for a, b in itertools.pairwise(edges):
            rows = (mag >= a) & (mag < b)
            if rows.sum() < 20:
                continue
            found["bins"].append(
                {"from": a, "to": b, "n": int(rows.sum()), "galaxies": int(galaxy[rows].sum()),
                 "accuracy": float(((two[rows, 1] > 0.5) == galaxy[rows]).mean()), "coverage": float(held[rows].mean())}
            )  # fmt: skip
            v = found["bins"][-1]
            print(
                f"   {name} {a} to {b}: {v['n']:5d} sources ({v['galaxies']} galaxies)  accuracy {v['accuracy']:.4f}  sets hold {v['coverage']:.4f}"
            )
        print(
            f"   {name}: calibration error {found['calibration_error']:.4f}, unlike the training above 0.99: "
            f"{found['unlike above 0.99']:.4f}"
        )
        out[name] = found
    return out
