"""Strong lenses against look-alikes: tiles are rendered, stamps cut and scored, and thrown away, one after the other.

Half of the images are lenses. The classifier sees the stamps alone. TPR0 and TPR10 are the shares of the lenses above the
highest, and the tenth highest, score of anything else (Metcalf et al. 2019, A&A 625, A119), per 100,000 images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from common import verdict
from numpy.typing import NDArray
from scipy.stats import rankdata

from imcat.align import AlignSettings, map_grids
from imcat.classify.network import measured
from imcat.classify.photometry import table_photometry
from imcat.classify.predict import look
from imcat.classify.trained import TrainedClassifier, load_classifier
from imcat.measure import Layer
from imcat.noise import NoiseSettings, measure_noise
from imcat.simulate.scene import Models
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import observe, simulate_tile
from imcat.simulate.truth_columns import truth_columns
from imcat.stamps import Stamps, StampSettings, cut_stamps
from imcat.tile import Tile

SEED = 907
SHAPE = {"sdss": (1489, 2048), "csst": (1536, 1536)}
PIXEL = {"sdss": 0.396, "csst": 0.074}
_EACH = 500  # lenses on a tile, and look-alikes
_REFERENCE = "r"

Array = NDArray[Any]
_kept: dict[str, Any] = {}


def _layers(tile: Tile) -> list[Layer]:
    reference = tile.reference_exposure
    out = []
    for band in tile.bands:
        for exposure in band.exposures:
            grid = map_grids(reference.wcs, reference.shape, exposure.wcs, exposure.shape, AlignSettings())
            noise = measure_noise(exposure, NoiseSettings())
            fwhm = exposure.psf_fwhm or 3 * PIXEL[tile.survey]
            out.append(Layer(band.name, exposure, noise, grid, fwhm / 2.3548, 1.0))
    return out


def stamps_of_tile(survey: str, index: int, models: Models) -> tuple[Stamps, dict[str, Array]]:
    """Stamps and truth of the lenses and look-alikes of a tile."""
    area = np.prod(SHAPE[survey]) * (PIXEL[survey] / 3600) ** 2
    settings = SimulateSettings(
        lenses_per_deg2=_EACH / area, lookalikes_per_deg2=_EACH / area, trails_per_tile=0.0
    )
    observation = observe(survey, index, SEED, settings, SHAPE[survey])
    tile, scene = simulate_tile(observation, settings, models, SEED, index)
    truth = truth_columns(scene, observation, settings)
    chosen = truth["is_lens"] | (truth["lookalike"] != "")
    truth = {k: v[chosen] for k, v in truth.items()}
    waves = {band.name: band.wavelength for band in tile.bands}
    parts = []
    layers = _layers(tile)
    for rows in np.array_split(np.arange(len(truth["x"])), 2):
        parts.append(
            cut_stamps(
                layers,
                waves,
                tile.reference_exposure,
                truth["x"][rows],
                truth["y"][rows],
                PIXEL[survey],
                StampSettings(),
            )
        )
    whole = Stamps(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("signal", "valid", "noise")),
        parts[0].wavelength, parts[0].fwhm, parts[0].pixel,
    )  # fmt: skip
    return whole, truth


def _score(job: tuple[str, int]) -> dict[str, Array]:
    if not _kept:
        torch.set_num_threads(1)
        _kept.update(models=Models.load(), trained=load_classifier())
    survey, index = job
    stamps, truth = stamps_of_tile(survey, index, _kept["models"])
    trained: TrainedClassifier = _kept["trained"]
    vision = torch.from_numpy(look(trained, stamps))
    blank = np.full((len(stamps), len(stamps.wavelength)), np.nan, np.float32)
    given = measured(table_photometry(list(stamps.wavelength), blank))
    with torch.inference_mode():
        said = trained.network.classifier(given, vision, torch.ones(len(stamps)))
    names = ("is_lens", "einstein_radius", "arc_snr", f"{_REFERENCE}_mag")
    return {"score": said.lens.numpy(), **{name: truth[name] for name in names}}


def scores(survey: str, images: int) -> Iterator[dict[str, Array]]:
    """Scores and truth, tile by tile."""
    tiles = -(-images // (2 * _EACH))
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        yield from pool.map(_score, [(survey, k) for k in range(tiles)])


def auroc(score: Array, positive: Array) -> float:
    """Area below the ROC curve."""
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def lens_search(images: dict[str, int]) -> dict[str, Any]:
    """AUROC, TPR0, TPR10, by Einstein radius and S/N of the arcs."""
    out: dict[str, Any] = {"verdicts": []}
    for survey, number in images.items():
        parts = list(scores(survey, number))
        all_of = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        lens = all_of["is_lens"].astype(bool)
        other = np.sort(all_of["score"][~lens])
        allowed = max(1, round(10 * len(lens) / 100_000))
        found: dict[str, Any] = {
            "images": len(lens), "lenses": int(lens.sum()), "auroc": auroc(all_of["score"], lens),
            "tpr0": float((all_of["score"][lens] > other[-1]).mean()),
            "tpr10": float((all_of["score"][lens] > other[-allowed]).mean()), "bins": [],
        }  # fmt: skip
        snr, radius = all_of["arc_snr"], all_of["einstein_radius"]
        edges = (0.5, 0.75, 1.0, 1.5, 2.0, 3.5) if survey == "sdss" else (0.2, 0.5, 0.75, 1.0, 1.5, 3.5)
        for name, value, steps in (
            ("arc S/N", snr, (0, 5, 10, 20, 50, 1e9)),
            ("Einstein radius", radius, edges),
        ):
            for a, b in itertools.pairwise(steps):
                own = lens & (value >= a) & (value < b)
                if own.sum() < 50:
                    continue
                pick = own | ~lens
                found["bins"].append(
                    {
                        "by": name,
                        "from": a,
                        "to": b,
                        "n": int(own.sum()),
                        "auroc": auroc(all_of["score"][pick], own[pick]),
                    }
                )
                print(
                    f"   {survey} {name} {a:g} to {b:g}: {int(own.sum()):6d} lenses  AUROC {found['bins'][-1]['auroc']:.4f}"
                )
        print(
            f"   {survey}: {found['images']} images, {found['lenses']} lenses  AUROC {found['auroc']:.4f}  TPR0 {found['tpr0']:.4f}  "
            f"TPR10 {found['tpr10']:.4f}"
        )
        out[survey] = found
        out["verdicts"].append(
            verdict(
                f"{survey}: AUROC of lenses against look-alikes",
                found["auroc"],
                "> 0.98",
                found["auroc"] > 0.98,
            )
        )
    return out
