"""Probability of a detection to be real against its signal-to-noise ratio.

Prints the lines ``score_snr`` and ``score_probability`` of the table
``[detect]``, measured on simulated SDSS tiles of random seeing. Run it again
when the detection or the simulation changes.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from imcat.catalogue.match import match_xy
from imcat.config import Config
from imcat.detect import DetectSettings
from imcat.pipeline import catalogue_tile

_EDGES = np.array([3.2, 3.5, 3.8, 4.0, 4.2, 4.4, 4.7, 5.0, 5.5, 6.0, 7.0, 9.0, 15.0])
_RADIUS = 1.0  # arcsec
_SHIFT = 20.0  # pixels, for the rate of chance matches
_BORDER = 8.0  # pixels
_FAINTEST = 24.5  # r; two magnitudes below the 5 sigma limit of a frame


def _scene_maker() -> Any:
    path = Path(__file__).resolve().parents[1] / "examples" / "make_example_tile.py"
    spec = importlib.util.spec_from_file_location("make_example_tile", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _detections(maker: Any, seed: int, config: Config) -> np.ndarray:
    """Signal-to-noise ratio, match and chance match of every detection of one tile, ``[3, n]``."""
    rng = np.random.default_rng([seed, 20260])
    shape = (1000, 1400)
    scene = maker.make_scene(rng, shape, seeing=float(rng.uniform(1.0, 1.6)), faintest=_FAINTEST)
    found = catalogue_tile(maker.to_tile(scene), config)
    x, y, snr = found["x"], found["y"], found["detection_snr"]
    inside = (x > _BORDER) & (x < shape[1] - _BORDER) & (y > _BORDER) & (y < shape[0] - _BORDER)
    x, y, snr = x[inside], y[inside], snr[inside]
    radius = _RADIUS / found.meta["pixel_scale"]
    real, chance = np.zeros(x.size), np.zeros(x.size)
    real[match_xy(x, y, scene.truth["x"], scene.truth["y"], radius).first] = 1
    chance[match_xy(x + _SHIFT, y + _SHIFT, scene.truth["x"], scene.truth["y"], radius).first] = 1
    return np.stack([snr, real, chance])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=8)
    tiles = parser.parse_args().tiles
    maker = _scene_maker()
    default = DetectSettings()
    low = Config().replace(detect={"threshold": 3.2, "min_snr": 3.2, "clean": default.clean})
    parts = []
    for seed in range(tiles):
        deep, shallow = _detections(maker, seed, low), _detections(maker, seed, Config())
        # The engine at its own threshold where it has detections, a lower one below.
        parts += [deep[:, deep[0] < default.min_snr], shallow]
    snr, real, chance = np.concatenate(parts, axis=1)
    print(f"{tiles} tiles, {snr.size} detections")
    centres, scores = [], []
    for low_edge, high_edge in itertools.pairwise(_EDGES):
        here = (snr >= low_edge) & (snr < high_edge)
        if here.sum() < 30:
            continue
        by_chance = chance[here].mean()
        score = float(np.clip((real[here].mean() - by_chance) / (1 - by_chance), 0, 0.999))
        error = np.sqrt(max(score * (1 - score), 0.01) / here.sum())
        print(
            f"S/N {low_edge:4.1f} to {high_edge:4.1f}: {score:.3f} ± {error:.3f} of {here.sum()}, chance {by_chance:.3f}"
        )
        centres.append(round(float(np.median(snr[here])), 2))
        scores.append(round(score, 3))
    rising = np.maximum.accumulate(scores)
    print("score_snr =", centres)
    print("score_probability =", [float(p) for p in rising])


if __name__ == "__main__":
    main()
