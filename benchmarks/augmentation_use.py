"""Do generated images help: heads on the frozen backbone, with and without, five seeds.

Arms, at equal steps: (a) analytic images alone, (b) with classical augmentation, (c) with generated images beside it. The
gain is that of (c) over (b), paired by seed, with its 95 % interval (Student's t).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import data_dir, verdict
from detection import independent as independent_field
from numpy.typing import NDArray
from torch import Tensor, nn

from imcat.augment.observed import ObservedStamps
from imcat.augment.trained import TrainedLight, load_light
from imcat.backbones.choice import Backbone
from imcat.backbones.files import load_backbone
from imcat.config import Config
from imcat.evaluate.detection import match_lists
from imcat.evaluate.truth import read_truth
from imcat.pipeline import process_tile
from imcat.simulate.sources import Morphology
from imcat.stamps import Stamps, StampSettings, band_conditions, compress
from imcat.surveys import find_tiles, read_tile
from imcat.tile import Tile
from imcat.train.light_data import sharp_stamps
from imcat.train.light_training import generated
from imcat.train.source_samples import SampleSettings, build_samples, read_sample, stamps_of

ARMS = ("analytic", "classical", "generated")
LABELS = (100, 300, 1000)
SEEDS = 5
RARE = (Morphology.BARRED, Morphology.RING, Morphology.IRREGULAR, Morphology.MERGER)
FIELD, INDEPENDENT = "003918-3-0213", "skymaker_sdss_03"
_SDSS_PIXEL = 0.396
_FWHM, _PIXEL, _SNR = 0.15, 0.074, 20.0  # of CSST-like stamps: arcsec, arcsec, of half the light
_COPIES = 4  # augmented or generated stamps for each label
_STEPS, _BATCH, _HIDDEN, _RATE = 500, 128, 96, 3e-3
_NOISE, _SHIFT = 0.5, 1  # of augmented copies: rms added, largest shift in pixels
_AT_ONCE = 256
_T95 = {1: float("nan"), 2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # Student's t of 95 % by number of seeds

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Vectors:
    """What the backbone sees of stamps, and their labels."""

    seen: Tensor
    label: Tensor

    def join(self, other: Vectors) -> Vectors:
        """Both."""
        return Vectors(torch.cat([self.seen, other.seen]), torch.cat([self.label, other.label]))


@torch.no_grad()
def see(backbone: Backbone, stamps: Stamps) -> Tensor:
    """Vectors of stamps."""
    parts = []
    conditions = band_conditions(stamps)
    for k in range(0, len(stamps), _AT_ONCE):
        rows = slice(k, k + _AT_ONCE)
        parts.append(
            backbone(
                torch.from_numpy(compress(stamps.signal[rows])),
                torch.from_numpy(stamps.valid[rows].astype(np.float32)),
                torch.from_numpy(conditions[rows]),
            )
        )
    return torch.cat(parts)


def as_stamps(own: ObservedStamps, signal: Array, fwhm: float, pixel: float) -> Stamps:
    """Pixels as the backbone takes them."""
    waves = own.asked.wavelength
    return Stamps(
        signal * own.valid,
        own.valid.astype(np.uint8),
        own.noise,
        waves,
        np.full(len(waves), fwhm),
        pixel,
    )


def classical(stamps: Stamps, rng: np.random.Generator) -> Stamps:
    """Copies with noise, shifts and turns."""
    turn = int(rng.integers(8))

    def turned(values: Array) -> Array:
        out = np.rot90(values, turn % 4, axes=(2, 3))
        return out[..., ::-1] if turn >= 4 else out

    signal, valid = turned(stamps.signal), turned(stamps.valid)
    dy, dx = (int(v) for v in rng.integers(-_SHIFT, _SHIFT + 1, 2))
    signal, valid = (np.roll(v, (dy, dx), axis=(2, 3)) for v in (signal, valid))
    noise = np.float32(np.sqrt(1 + _NOISE**2))
    signal = (signal + np.float32(_NOISE) * rng.standard_normal(signal.shape, np.float32)) / noise
    return Stamps(
        np.ascontiguousarray(signal * valid), np.ascontiguousarray(valid), stamps.noise * noise,
        stamps.wavelength, stamps.fwhm, stamps.pixel,
    )  # fmt: skip


def made_stamps(light: TrainedLight, own: ObservedStamps, seed: int) -> Array:
    """Generated pixels under the conditions of stamps."""
    rng, chance, parts = np.random.default_rng(seed), torch.Generator().manual_seed(seed), []
    for k in range(0, len(own), 64):
        seen = own.batch(np.arange(k, min(k + 64, len(own))), rng)
        parts.append(generated(light.generator, seen, chance).numpy())
    return np.concatenate(parts)


def train_head(sets: Sequence[Vectors], classes: int, seed: int) -> nn.Module:
    """A small head; every step takes as many from each set."""
    torch.manual_seed(seed)
    every = torch.cat([s.seen for s in sets])
    middle, scale = every.mean(0), every.std(0).clamp_min(1e-4)
    head = nn.Sequential(
        nn.Linear(every.shape[1], _HIDDEN), nn.GELU(), nn.Dropout(0.3), nn.Linear(_HIDDEN, classes)
    )
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=0.05)
    chance = torch.Generator().manual_seed(seed)
    for _ in range(_STEPS):
        rows = [torch.randint(len(s.label), (_BATCH // len(sets),), generator=chance) for s in sets]
        seen = torch.cat([s.seen[r] for s, r in zip(sets, rows, strict=True)])
        label = torch.cat([s.label[r] for s, r in zip(sets, rows, strict=True)])
        loss = nn.functional.cross_entropy(head((seen - middle) / scale), label)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return _Scaled(head.eval(), middle, scale)


class _Scaled(nn.Module):
    """A head with the scale of what it sees."""

    def __init__(self, head: nn.Module, middle: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.head, self.middle, self.scale = head, middle, scale

    def forward(self, seen: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.head((seen - self.middle) / self.scale)
        return out


def scores(head: nn.Module, test: Vectors, rare: Sequence[int]) -> dict[str, float]:
    """Accuracy, mean F1 of the classes, mean recall of the rare ones."""
    with torch.no_grad():
        said = head(test.seen).argmax(1).numpy()
    label = test.label.numpy()
    f1, recall = [], []
    for k in np.unique(label):
        hit = int(((said == k) & (label == k)).sum())
        f1.append(2 * hit / max(int((said == k).sum() + (label == k).sum()), 1))
        if k in rare:
            recall.append(hit / int((label == k).sum()))
    return {
        "accuracy": float((said == label).mean()),
        "macro_f1": float(np.mean(f1)),
        "rare_recall": float(np.mean(recall)) if recall else float("nan"),
    }


def gain(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Mean of paired differences, and half the width of its 95 % interval."""
    apart = np.array(second) - np.array(first)
    half = _T95[len(apart)] * apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else float("nan")
    return {"mean": float(apart.mean()), "half_width": float(half)}


def arms_table(title: str, rows: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Print and keep the scores of the arms and the gain of the last over the one before."""
    out: dict[str, Any] = {arm: {k: float(np.mean(v)) for k, v in row.items()} for arm, row in rows.items()}
    for name in rows[ARMS[0]]:
        own = gain(rows["classical"][name], rows["generated"][name])
        out[f"gain of {name}"] = own
        print(
            f"   {title:28} {name:14} "
            + "  ".join(f"{arm} {np.mean(rows[arm][name]):.4f}" for arm in ARMS)
            + f"   gain {own['mean']:+.4f} ± {own['half_width']:.4f}",
            flush=True,
        )
    return out


def morphology(seeds: int, labels: Sequence[int], tests: int = 2000) -> dict[str, Any]:
    """CSST-like galaxies: looks, from few labels."""
    backbone, light = load_backbone(), load_light("light_csst")
    fwhm = _FWHM
    test = sharp_stamps(tests, 7700, fwhm=fwhm, snr=_SNR)
    judged = _labelled(backbone, test, np.asarray(test.signal, np.float32))
    found: dict[str, Any] = {"test": tests}
    for number in labels:
        rows: dict[str, dict[str, list[float]]] = {arm: {} for arm in ARMS}
        for seed in range(seeds):
            own = sharp_stamps(number, 7800 + 10 * seed, fwhm=fwhm, snr=_SNR)
            signal = np.asarray(own.signal, np.float32)
            plain = _labelled(backbone, own, signal)
            copies = copies_of(backbone, as_stamps(own, signal, fwhm, _PIXEL), plain.label, seed)
            more = sharp_stamps(_COPIES * number, 7900 + 10 * seed, fwhm=fwhm, snr=_SNR)
            more = more.take(light.ranges.inside(more.asked))
            made = _labelled(backbone, more, made_stamps(light, more, seed))
            arms = {
                "analytic": [plain],
                "classical": [plain.join(copies)],
                "generated": [plain.join(copies), made],
            }
            for arm, sets in arms.items():
                told = scores(train_head(sets, len(Morphology), seed), judged, [int(m) for m in RARE])
                for name, value in told.items():
                    rows[arm].setdefault(name, []).append(value)
        found[str(number)] = arms_table(f"morphology, {number} labels", rows)
    return found


def _labelled(backbone: Backbone, own: ObservedStamps, signal: Array) -> Vectors:
    seen = see(backbone, as_stamps(own, signal, _FWHM, _PIXEL))
    return Vectors(seen, torch.from_numpy(own.asked.morphology.astype(np.int64)))


def copies_of(backbone: Backbone, stamps: Stamps, label: Tensor, seed: int) -> Vectors:
    """Augmented copies of stamps."""
    rng = np.random.default_rng(seed)
    seen = torch.cat([see(backbone, classical(stamps, rng)) for _ in range(_COPIES)])
    return Vectors(seen, label.repeat(_COPIES))


def classes(folder: Path, seeds: int, labels: Sequence[int], workers: int) -> dict[str, Any]:
    """SDSS-like sources: star, galaxy or quasar from the stamp, judged on other tiles, on a real field and the independent simulator's."""
    from imcat.train.light_data import real_stamps

    backbone, light = load_backbone(), load_light("light_sdss")
    paths = list(build_samples(folder, SampleSettings(tiles=4, seed=71), StampSettings(), workers))
    samples = [read_sample(p) for p in paths]
    kinds = ("star", "galaxy", "quasar")
    stamps = [stamps_of(s, np.arange(len(s))) for s in samples]
    label = [np.array([kinds.index(k) for k in s.truth["type"].tolist()]) for s in samples]
    seen = [see(backbone, s) for s in stamps]
    held = Vectors(seen[-1], torch.from_numpy(label[-1]))
    others = {"real": _real_field(backbone), "independent": _independent(backbone, folder)}
    sdss = real_stamps(
        [f"sdss/fields/{n}" for n in ("001035-6-0017", "002820-3-0122", "007264-3-0111")], folder
    )
    sdss = sdss.take(light.ranges.inside(sdss.asked))
    fwhm, pixel = float(np.median(samples[0].fwhm)), samples[0].pixel
    found: dict[str, Any] = {"test": len(held.label), **{k: len(v.label) for k, v in others.items()}}
    for number in labels:
        rows: dict[str, dict[str, list[float]]] = {arm: {} for arm in ARMS}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            which = [(k, i) for k in range(3) for i in range(len(label[k]))]
            chosen = [which[j] for j in rng.permutation(len(which))[:number]]
            plain = Vectors(
                torch.stack([seen[k][i] for k, i in chosen]),
                torch.tensor([int(label[k][i]) for k, i in chosen]),
            )
            copies = [
                copies_of(backbone, rows_of(stamps[k], [i for j, i in chosen if j == k]), torch.tensor([int(label[k][i]) for j, i in chosen if j == k]), seed)
                for k in range(3) if any(j == k for j, _ in chosen)
            ]  # fmt: skip
            more = plain
            for part in copies:
                more = more.join(part)
            made = see(backbone, as_stamps(sdss, made_stamps(light, sdss, seed), fwhm, pixel))
            # Galaxies alone would shift the mix: they take the place of a third of each batch, others fill the rest.
            extra = Vectors(made, torch.full((len(made),), kinds.index("galaxy")))
            arms = {
                "analytic": [plain],
                "classical": [more],
                "generated": [more, more, extra.join(_fill(more, extra))],
            }
            for arm, sets in arms.items():
                head = train_head(sets, 3, seed)
                told = scores(head, held, [kinds.index("quasar")])
                for name, other in others.items():
                    with torch.no_grad():
                        said = head(other.seen).argmax(1) == 1
                    told[f"{name}_accuracy"] = float((said == (other.label == 1)).float().mean())
                for name, value in told.items():
                    rows[arm].setdefault(name, []).append(value)
        found[str(number)] = arms_table(f"classes, {number} labels", rows)
    return found


def _fill(more: Vectors, extra: Vectors) -> Vectors:
    """As many stars and quasars for the generated galaxies as the labels have for theirs."""
    galaxies = int((more.label == 1).sum())
    others = torch.nonzero(more.label != 1)[:, 0]
    times = max(1, round(len(extra.label) / max(galaxies, 1)))
    return Vectors(more.seen[others].repeat(times, 1), more.label[others].repeat(times))


def rows_of(stamps: Stamps, rows: list[int]) -> Stamps:
    """Some of the stamps."""
    return Stamps(
        stamps.signal[rows],
        stamps.valid[rows],
        stamps.noise[rows],
        stamps.wavelength,
        stamps.fwhm,
        stamps.pixel,
    )


def _real_field(backbone: Backbone) -> Vectors:
    """Listed stars and galaxies of a real field."""
    base = data_dir() / "sdss"
    (source,) = find_tiles([str(base / "fields" / FIELD)])
    xy, galaxy = [], []
    for name, is_galaxy in (("gals", True), ("stars", False)):
        own = np.loadtxt(base / "catalogues" / f"{FIELD}_{name}.csv", delimiter=",")
        xy.append(own)
        galaxy += [is_galaxy] * len(own)
    return _listed(backbone, read_tile(source), np.concatenate(xy), np.array(galaxy))


def _independent(backbone: Backbone, folder: Path) -> Vectors:
    """Stars and galaxies of a tile of the independent simulator."""
    tile = independent_field(folder, INDEPENDENT, _SDSS_PIXEL, 1.0, 99.0).tile
    (truth,) = read_truth(data_dir() / "simulated" / INDEPENDENT)
    assert truth.x is not None
    assert truth.y is not None
    return _listed(backbone, tile, np.stack([truth.x, truth.y], 1), np.asarray(truth.kind) == "galaxy")


def _listed(backbone: Backbone, tile: Tile, place: Array, galaxy: Array) -> Vectors:
    """Detected sources within an arcsec of listed ones ``[n, 2]``: 1 galaxy, 0 star."""
    done = process_tile(tile, Config(classify_sources=False, fit_models=False), stamps=StampSettings())
    assert done.stamps is not None
    x, y = np.asarray(done.catalogue["x"]), np.asarray(done.catalogue["y"])
    pairs = match_lists(x, y, place[:, 0], place[:, 1], 1.0 / _SDSS_PIXEL)
    seen = see(backbone, rows_of(done.stamps, pairs.first.tolist()))
    return Vectors(seen, torch.from_numpy(galaxy[pairs.second].astype(np.int64)))


def verdicts(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Gains whose interval excludes zero, where generated images are meant to help."""
    out = []
    for part, numbers, names in (
        ("morphology", LABELS, ("rare_recall", "macro_f1")),
        ("spirals", LABELS, ("accuracy",)),
        ("classes", LABELS, ("real_accuracy", "independent_accuracy")),
    ):
        for number in numbers:
            row = found.get(part, {}).get(str(number))
            for name in names if row else ():
                own = row.get(f"gain of {name}")
                if own is None:
                    continue
                low = own["mean"] - own["half_width"]
                out.append(
                    verdict(f"{part}, {number} labels: lower end of the gain of {name}", low, "> 0", low > 0)
                )
    if "detector" in found:
        for name in ("completeness", "rare_completeness", "real_detections"):
            own = found["detector"].get(f"gain of {name}")
            if own is None:
                continue
            low = own["mean"] - own["half_width"]
            out.append(verdict(f"detector: lower end of the gain of {name}", low, "> 0", low > 0))
    return out
