"""Do generated galaxies help to tell real spirals: pictures of SDSS galaxies that people called spiral or not.

Arms, on the frozen backbone at equal steps: (a) labelled pictures alone, (b) with classical augmentation, (c) with generated
galaxies of known looks beside them, turned into pictures as SDSS does it (Lupton et al. 2004, PASP 116, 133). Analytic galaxies in
place of the generated ones are the comparison. One picture in five judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from astropy.visualization import make_lupton_rgb
from augmentation_use import (
    Vectors,
    arms_table,
    copies_of,
    gain,
    made_stamps,
    rows_of,
    scores,
    see,
    train_head,
)
from classification_labels import drawn
from common import data_dir
from numpy.typing import NDArray

from imcat.augment.observed import ObservedStamps
from imcat.augment.trained import load_light
from imcat.backbones.choice import Backbone
from imcat.backbones.files import load_backbone
from imcat.simulate.filters import FilterSet
from imcat.simulate.sources import Morphology
from imcat.stamps import Stamps
from imcat.stamps.given import given_stamps, read_arrays, read_images
from imcat.train.fine_tuning import split_objects
from imcat.train.light_data import sharp_stamps

Array = NDArray[Any]

_WAVES, _PIXEL = (7480.0, 6166.0, 4686.0), 0.396  # Å of i, r, g; arcsec
_BANDS = ("i", "r", "g")  # of CSST, in the place of SDSS's
_SPIRAL = (Morphology.SPIRAL, Morphology.BARRED)
_OTHER = (Morphology.SMOOTH, Morphology.DISC, Morphology.EDGE_ON, Morphology.IRREGULAR, Morphology.MERGER)
# Pixels of CSST stand for SDSS's: with a PSF of two pixels, galaxies of five or more are as resolved as those people looked at.
_LEAST_RADIUS = 0.4  # arcsec at CSST's scale
_SNR = 250.0
_SOFTENING, _FAINTEST = 8.0, 0.5  # Q; noise below zero that is black
_COPIES, _MOST, _CENTRE = 4, 1200, 4
_HELD, _SPLIT_SEED = 0.2, 7


def spirals(seeds: int, labels: Sequence[int]) -> dict[str, Any]:
    """Accuracy by number of labels with each arm."""
    backbone = load_backbone()
    path = data_dir() / "stamps" / "gz2_spiral_or_not.npz"
    pictures = read_images(path, "rgb", 3)
    label = read_arrays(path)["is_spiral"].astype(np.int64)
    stamps = given_stamps(pictures, _WAVES, _PIXEL, _size(backbone), middle=_size(backbone))
    rows, test = split_objects(label, None, _HELD, _SPLIT_SEED)
    seen = see(backbone, stamps)
    judged = Vectors(seen[test], torch.from_numpy(label[test]))
    bright = _centre(pictures[rows])
    every: dict[int, dict[str, dict[str, list[float]]]] = {number: {} for number in labels}
    for seed in range(seeds):
        pool = _simulated(backbone, min(_COPIES * max(labels), _MOST), seed, bright)
        for number in labels:
            chosen = rows[drawn(label[rows], number, seed)]
            plain = Vectors(seen[chosen], torch.from_numpy(label[chosen]))
            more = plain.join(copies_of(backbone, rows_of(stamps, chosen.tolist()), plain.label, seed))
            made, analytic = (_first(p, _COPIES * number) for p in pool)
            arms = {
                "analytic": [plain], "classical": [more], "generated": [more, made], "with analytic": [more, analytic],
            }  # fmt: skip
            for arm, sets in arms.items():
                told = scores(train_head(sets, 2, seed), judged, [1])
                for name in ("accuracy", "macro_f1"):
                    every[number].setdefault(arm, {}).setdefault(name, []).append(told[name])
    found: dict[str, Any] = {"test": len(test)}
    for number, scored in every.items():
        own = arms_table(f"real spirals, {number} labels", scored)
        own["gain of accuracy of analytic images"] = gain(
            scored["classical"]["accuracy"], scored["with analytic"]["accuracy"]
        )
        print(
            f"   {'':28} with analytic images in their place {own['with analytic']['accuracy']:.4f}",
            flush=True,
        )
        found[str(number)] = own
    return found


def _first(pool: Vectors, number: int) -> Vectors:
    """As many spirals as others."""
    half = min(number, len(pool.label)) // 2
    rows = torch.cat([torch.nonzero(pool.label == k)[:half, 0] for k in (1, 0)])
    return Vectors(pool.seen[rows], pool.label[rows])


def _size(backbone: Backbone) -> int:
    return int(backbone.settings.size)


def _centre(pictures: Array) -> Array:
    """Median of the middle pixels of each band."""
    half = (pictures.shape[2] - _CENTRE) // 2
    inner = pictures[:, :, half : half + _CENTRE, half : half + _CENTRE]
    return np.asarray(np.median(inner, axis=(0, 2, 3)))


def _simulated(backbone: Backbone, number: int, seed: int, bright: Array) -> tuple[Vectors, Vectors]:
    """Generated galaxies, and the analytic ones whose conditions they were given; as many spirals as others."""
    light = load_light("light_csst")
    own = sharp_stamps(8 * number, 8100 + 10 * seed, snr=_SNR)
    own = own.take(light.ranges.inside(own.asked))
    spiral, other = (np.isin(own.asked.morphology, looks) for looks in (_SPIRAL, _OTHER))
    wide = own.asked.radius >= _LEAST_RADIUS
    parts = [np.flatnonzero(wide & kind)[: number // 2] for kind in (spiral, other)]
    least = min(len(p) for p in parts)
    own = own.take(np.concatenate([p[:least] for p in parts]))
    label = torch.from_numpy(np.repeat([1, 0], least))
    both = (made_stamps(light, own, seed), np.asarray(own.signal, np.float32))
    made, analytic = (Vectors(see(backbone, _pictures(own, s, _size(backbone), bright)), label) for s in both)
    return made, analytic


def _pictures(own: ObservedStamps, signal: Array, size: int, bright: Array) -> Stamps:
    """Pictures whose middle is as bright in every band as that of the real ones, read as those are."""
    names = list(FilterSet.named("csst").names)
    index = [names.index(b) for b in _BANDS]
    # Fluxes, for the colours; in units of the noise of the middle band.
    chosen = np.stack(
        [signal[:, k] * (own.noise[:, k] / own.noise[:, index[1]])[:, None, None] for k in index]
    )
    weight = np.full(3, 0.1)
    for _ in range(12):  # an arcsinh of the light: brightness rises more slowly than the weights
        flat = [w * band.reshape(-1, band.shape[-1]) for w, band in zip(weight, chosen, strict=True)]
        rgb = make_lupton_rgb(*flat, minimum=-weight.mean() * _FAINTEST, stretch=1.0, Q=_SOFTENING)
        image = np.moveaxis(rgb.reshape(*signal.shape[:1], *signal.shape[2:], 3), -1, 1)
        weight *= (bright / _centre(image)) ** 1.5
    return given_stamps(image, _WAVES, _PIXEL, size)
