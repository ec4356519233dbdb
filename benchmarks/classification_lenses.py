"""Strong lenses against look-alikes: tiles are rendered, stamps cut and scored, and thrown away, one after the other.

Half of the images are lenses. The classifier sees the stamps alone. TPR0 and TPR10 are the shares of the lenses above the
highest, and the tenth highest, score of anything else (Metcalf et al. 2019, A&A 625, A119), per 100,000 images.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification_tables import auc
from common import verdict
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.classify.network import measured
from imcat.classify.photometry import table_photometry
from imcat.classify.predict import lens_binning, look
from imcat.classify.trained import TrainedClassifier, load_classifier
from imcat.processes import follow_parent
from imcat.simulate.scene import Models
from imcat.stamps import StampSettings
from imcat.train.lens_samples import lens_stamps
from imcat.train.source_samples import SampleSettings

SEED = 907
_PIXEL = {"sdss": 0.396, "csst": 0.074}
_SIZE = {"sdss": (2048, 1489), "csst": (2048, 2048)}
_SPACING = {"sdss": 16.0, "csst": 6.5}  # arcsec: stamps of neighbours do not overlap
_LIKELY = 0.97  # of the places of the grid that are in the tile
_CLEAR = {"sdss": 1.0, "csst": 0.3}  # arcsec: Einstein radii that the PSF leaves apart from the deflector
_REFERENCE = "r"

Array = NDArray[Any]
_kept: dict[str, Any] = {}


def sky(survey: str, binning: int) -> SampleSettings:
    """Tiles filled with lenses and as many look-alikes."""
    each = 0.5 * (3600 / _SPACING[survey]) ** 2
    width, height = _SIZE[survey]
    return SampleSettings(
        survey=survey, seed=SEED, width=width, height=height, lenses=each, lookalikes=each,
        spacing=_SPACING[survey], binning=binning, role="lenses",
    )  # fmt: skip


def _vectors(job: tuple[str, int, Path | None]) -> dict[str, Array]:
    """What the backbone sees of the images of one tile, and their truth, kept in a file: a run that was stopped goes on."""
    survey, index, folder = job
    if not _kept:
        torch.set_num_threads(1)
        trained = load_classifier()
        _kept.update(models=Models.load(), trained=trained, key=_key(trained))
    path = None if folder is None else folder / f"lenses-{survey}-{SEED}-{_kept['key']}-{index:04d}.npz"
    if path is not None and path.is_file():
        with np.load(path) as file:
            return dict(file)
    seen = _see_tile(survey, index)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **seen)
    return seen


def _key(trained: TrainedClassifier) -> str:
    """Of the backbone: other heads and another calibration see the same."""
    digest = hashlib.sha256()
    for name, value in sorted(trained.network.vision.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:8]


def _see_tile(survey: str, index: int) -> dict[str, Array]:
    trained: TrainedClassifier = _kept["trained"]
    settings = sky(survey, lens_binning(trained.size, _PIXEL[survey]))
    parts = []
    for _, stamps, truth in lens_stamps(settings, index, _kept["models"], StampSettings(size=trained.size)):
        counted = truth["is_lens"] | (truth["lookalike"] != "")
        names = ("is_lens", "lookalike", "einstein_radius", "arc_snr", f"{_REFERENCE}_mag")
        waves = np.broadcast_to(stamps.wavelength, (int(counted.sum()), len(stamps.wavelength)))
        parts.append(
            {
                "vision": look(trained, stamps)[counted],
                "wavelength": waves,
                **{name: truth[name][counted] for name in names},
            }
        )
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _scored(trained: TrainedClassifier, seen: dict[str, Array]) -> dict[str, Array]:
    """The lens score of each image, from its stamp alone."""
    out = {name: value for name, value in seen.items() if name not in ("vision", "wavelength")}
    blank = np.full(seen["wavelength"].shape, np.nan, np.float32)
    given = measured(table_photometry(seen["wavelength"][0].tolist(), blank))
    with torch.inference_mode():
        said = trained.network.classifier(given, torch.from_numpy(seen["vision"]), torch.ones(len(blank)))
    return out | {"score": said.lens.numpy()}


def scores(survey: str, images: int, folder: Path | None) -> Iterator[dict[str, Array]]:
    """Scores and truth, tile by tile; those that the folder holds are not made again."""
    width, height = (n * _PIXEL[survey] // _SPACING[survey] for n in _SIZE[survey])
    tiles = int(-(-images // (_LIKELY * width * height)))
    trained = load_classifier()
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver"), initializer=follow_parent) as pool:
        for seen in pool.map(_vectors, [(survey, k, folder) for k in range(tiles)]):
            yield _scored(trained, seen)


def lens_search(images: dict[str, int], folder: Path | None = None) -> dict[str, Any]:
    """AUROC, TPR0, TPR10, by Einstein radius and S/N of the arcs."""
    out: dict[str, Any] = {"verdicts": []}
    for survey, number in images.items():
        parts = list(scores(survey, number, folder))
        all_of = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        lens = all_of["is_lens"].astype(bool)
        other = np.sort(all_of["score"][~lens])
        allowed = max(1, round(10 * len(lens) / 100_000))
        found: dict[str, Any] = {
            "images": len(lens), "lenses": int(lens.sum()), "auroc": auc(all_of["score"], lens),
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
                        "auroc": auc(all_of["score"][pick], own[pick]),
                    }
                )
                print(
                    f"   {survey} {name} {a:g} to {b:g}: {int(own.sum()):6d} lenses  AUROC {found['bins'][-1]['auroc']:.4f}"
                )
        for name in np.unique(all_of["lookalike"][~lens]):
            pick = lens | (all_of["lookalike"] == name)
            found["bins"].append(
                {"by": "look-alike", "name": str(name), "n": int((all_of["lookalike"] == name).sum()),
                 "auroc": auc(all_of["score"][pick], lens[pick])}
            )  # fmt: skip
            print(f"   {survey} against {name}: AUROC {found['bins'][-1]['auroc']:.4f}")
        clear = lens & (snr > 20) & (radius > _CLEAR[survey])
        found["clear"] = {
            "n": int(clear.sum()),
            "auroc": auc(all_of["score"][clear | ~lens], clear[clear | ~lens]),
        }
        print(
            f"   {survey}: arcs above S/N 20, {_CLEAR[survey]} arcsec or more from the middle: {found['clear']['n']} lenses  "
            f"AUROC {found['clear']['auroc']:.4f}"
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
