"""Do generated images help the detector: short trainings with and without.

Arms, at equal steps: (a) analytic images alone, (b) with classical augmentation, (c) with half of the images augmented.
Judged on the independent tile, on rare sources in analytic tiles, and on real fields that no generator learned from; one of
these, 001992-1-0087, chose which step of the generators was kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augmentation_use import ARMS, arms_table
from common import Kept, data_dir
from detection import SDSS_EDGES, independent
from detection_real import negative
from detection_tools import Field, Lists, judge
from torch import nn

from imcat.augment.assembly import augmented_stream
from imcat.augment.assembly_settings import RARE, AugmentSettings
from imcat.augment.trained import load_light, load_sky
from imcat.detect.network import DetectionNet
from imcat.detect.network_search import TrainedNetwork, find_boxes
from imcat.detect.network_settings import NetworkSettings
from imcat.evaluate.detection import threshold_at_purity
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import stream
from imcat.surveys import find_tiles, read_tile
from imcat.tile import Tile
from imcat.train.detection_samples import View, make_sample, tile_reader, view
from imcat.train.detection_targets import Batch, batches, detection_loss, whole

#: Real fields that neither generator learned from.
REAL = ("003918-3-0213", "001992-1-0087")
_PIXEL, _RADIUS = 0.396, 1.0  # arcsec
_NEGATIVES = 0.05  # detections in the negatives over those in the fields
_OFTEN = 20  # rare sources in the tiles that they are judged on, times those of augmented tiles
_RARE_LIMIT = 22.5  # r magnitude
_LEAST, _HIGHEST = -4.0, 400.0  # logits of a candidate
_SETTINGS = SimulateSettings(depth_below_limit=2.0)


@dataclass(frozen=True, eq=False)
class Tests:
    """What the networks are judged on: independent tile, tiles with rare sources, real fields with negatives, samples."""

    independent: Field
    rare: list[Field]
    real: list[tuple[Tile, Tile]]
    validation: list[View]

    @classmethod
    def load(cls, folder: Path, *, quick: bool) -> Tests:
        """Read and simulate them."""
        base = data_dir() / "sdss" / "fields"
        tiles = [read_tile(find_tiles([str(base / name)])[0]) for name in REAL[: 1 if quick else None]]
        return cls(
            independent(folder, "skymaker_sdss_03", _PIXEL, _RADIUS, 24.5),
            rare_fields(1 if quick else 6),
            [(tile, negative(tile)) for tile in tiles],
            [_view(k, 9300, generate=False) for k in range(8)],
        )


def rare_fields(number: int) -> list[Field]:
    """Analytic tiles with many lenses, look-alikes, mergers, quasars and close pairs; only these have a magnitude."""
    mix = AugmentSettings.of_survey("sdss", generated=0.0, generated_sky=0.0)
    mix = replace(mix, **{name: _OFTEN * getattr(mix, name) for name in RARE})
    made = []
    for k in range(number):
        item = next(augmented_stream("sdss", 9400, (512, 512), _SETTINGS, mix, start=k))
        truth = item.truth
        rare = (truth["added"] != "") | truth["is_lens"] | (truth["lookalike"] != "")
        magnitude = np.where(rare, truth["r_mag"], 99.0)
        half = (truth["x_max"] - truth["x_min"]) / 2
        made.append(Field(item.tile, truth["x"], truth["y"], magnitude, half, _RADIUS / _PIXEL))
    return made


def detector(folder: Path, kept: Kept, seeds: int, steps: int, number: int, *, quick: bool) -> dict[str, Any]:
    """Short trainings of a small detection network."""
    width, weights = 16, f"{load_light('light_sdss').card['sha256']}, {load_sky('sky_sdss').card['sha256']}"
    tests: list[Tests] = []  # read when the first network is there
    rows: dict[str, dict[str, list[float]]] = {arm: {} for arm in ARMS}
    shared: dict[int, list[View]] = {}
    # The arms that are compared come first.
    jobs = [(seed, arm) for seed in range(seeds) for arm in ARMS[1:]]
    jobs += [(seed, ARMS[0]) for seed in range(seeds)]
    for seed, arm in jobs:

        def told(seed: int = seed, arm: str = arm) -> dict[str, float]:
            network = _short(_drawn(arm, seed, number, shared), width, steps, seed)
            if not tests:
                tests.append(Tests.load(folder, quick=quick))
            return _judge(network, tests[0])

        own = kept.get(
            f"{arm}, {seed}, {number} samples, {steps} steps, {width} wide, {quick}, {weights}", told
        )
        for name, value in own.items():
            rows[arm].setdefault(name, []).append(value)
        print(
            f"   detector seed {seed} {arm:10} " + "  ".join(f"{k} {v:.4f}" for k, v in own.items()),
            flush=True,
        )
    each = {f"each {arm}": row for arm, row in rows.items()}
    return arms_table("detector", rows) | {"steps": steps, "samples": number} | each


def _drawn(arm: str, seed: int, number: int, shared: dict[int, list[View]]) -> Iterator[Batch]:
    """Batches of an arm; `shared` keeps the samples that the arms of a seed have in common."""
    if seed not in shared:
        shared.clear()
        shared[seed] = [_view(k, 9100 + seed, generate=False) for k in range(number)]
    views = shared[seed]
    if arm == "generated":
        made = [_view(k, 9200 + seed, generate=True) for k in range(number // 2)]
        views = views[: number - len(made)] + made
    return _plain(views, seed) if arm == "analytic" else batches(views, 8, 128, seed, 0)


def _view(index: int, seed: int, *, generate: bool) -> View:
    """What the network sees of a sample."""
    make = augmented_stream if generate else stream
    item = next(make("sdss", seed, (256, 256), _SETTINGS, start=index))
    return view(make_sample(item.tile, item.truth))


def _plain(views: Sequence[View], seed: int) -> Iterator[Batch]:
    """Crops that are neither turned nor mirrored: always the same four of each sample."""
    rng = np.random.default_rng(seed)
    cut = []
    for one in views:
        for y in (0, 128):
            for x in (0, 128):
                maps = one.maps[:, y : y + 128, x : x + 128]
                cut.append(type(one)(**(vars(one) | {"maps": maps, "x": one.x - x, "y": one.y - y})))
    while True:
        parts = [whole(cut[k]) for k in rng.integers(len(cut), size=8)]
        yield Batch(
            torch.cat([p.maps for p in parts]), torch.cat([p.conditions for p in parts]),
            torch.cat([p.heat for p in parts]), torch.cat([p.place for p in parts]), [c for p in parts for c in p.crops],
        )  # fmt: skip


def _short(drawn: Iterator[Batch], width: int, steps: int, seed: int) -> DetectionNet:
    torch.manual_seed(seed)
    network = DetectionNet(width)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = (
                3e-3 * min(1.0, (step + 1) / 30) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / steps)))
            )
        batch = next(drawn)
        loss = detection_loss(network(batch.maps, batch.conditions), batch).total(0.1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return network.eval()


def _judge(network: DetectionNet, tests: Tests) -> dict[str, float]:
    """Completeness of faint sources and of rare ones at a purity of 0.95, detections in a real field, loss."""
    # Ranks, not probabilities: where a network is sure of everything, those would be equal.
    logit = np.array([-_HIGHEST, _HIGHEST])
    trained = TrainedNetwork(network, logit, np.array([0.0, 1.0]), 0.5, (1400.0, 11000.0), {})
    row = judge([tests.independent], _found([tests.independent.tile], trained), SDSS_EDGES)
    shares, numbers = np.array(row["completeness"], float)[2:], np.array(row["truth"], float)[2:]
    rare = judge(tests.rare, _found([f.tile for f in tests.rare], trained), (10.0, _RARE_LIMIT))
    with torch.no_grad():
        loss = [
            float(detection_loss(network(b.maps, b.conditions), b).total(0.1))
            for b in map(whole, tests.validation)
        ]
    return {
        "completeness": float((shares * numbers).sum() / numbers.sum()),
        "rare_completeness": float(rare["completeness"][0]),
        "real_detections": _real_detections(tests.real, trained),
        "loss": float(np.mean(loss)),
    }


def _found(tiles: Sequence[Tile], trained: TrainedNetwork) -> Lists:
    """Every candidate of a network."""
    lists = Lists()
    for tile in tiles:
        reader, _ = tile_reader(tile)
        found = find_boxes(reader, trained, NetworkSettings(least_score=0.5 + 0.5 * _LEAST / _HIGHEST))
        lists.add(found.x, found.y, found.score)
    return lists


def _real_detections(pairs: Sequence[tuple[Tile, Tile]], trained: TrainedNetwork) -> float:
    """Detections in a field beyond those in its negative, cut where these are one in twenty."""
    sky, wrong = (np.concatenate(_found([p[k] for p in pairs], trained).rank) for k in range(2))
    # Cut as if the negatives' stood in the same list: of the field's detections, as many are wrong as the negatives hold.
    ranks, real = np.concatenate([sky, wrong]), np.repeat([True, False], [sky.size, wrong.size])
    cut = threshold_at_purity(ranks, real, 1 / (1 + _NEGATIVES))
    return float((sky >= cut).sum() - (wrong >= cut).sum()) / len(pairs)
