"""Speed of PSF and model photometry: sources per second, five bands, on all cores.

Stars of simulated tiles are fitted as point sources alone; the sources of a real field (the mix that it has) as points
and as galaxies, without and with Sérsic profiles. Times are of the fits (`imcat.measure.model_stage.model_sources`),
pixels and PSFs at hand; each is the median of some runs after a first one.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from common import arguments, data_dir, print_header, save, verdict
from model_photometry import star_scene
from sdss_field_detection import FIELD

import imcat.pipeline as pipeline
from imcat.config import Config
from imcat.measure.model_settings import ModelSettings
from imcat.surveys import find_tiles, read_tile
from imcat.tile import Tile

CORES = os.cpu_count() or 1


def captured(tile: Tile) -> tuple[Any, ...]:
    """The arguments with which a tile's sources are fitted."""
    kept: list[tuple[Any, ...]] = []
    original = pipeline.model_sources

    def keep(*positional: Any, **named: Any) -> Any:
        kept.append(positional)
        return original(*positional, **named)

    pipeline.model_sources = keep
    try:
        pipeline.process_tile(tile, Config())
    finally:
        pipeline.model_sources = original
    return kept[0]


def rate(call: tuple[Any, ...], settings: ModelSettings, runs: int) -> tuple[int, float]:
    """Sources, and how many per second."""
    seconds = []
    with ThreadPoolExecutor(CORES) as pool:
        for _ in range(runs + 1):
            start = time.perf_counter()
            pipeline.model_sources(*call[:4], settings, pool)
            seconds.append(time.perf_counter() - start)
    count = len(call[3].x)
    return count, count / float(np.median(seconds[1:]))


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("Speed of the fits")
    runs = 1 if args.quick else 5
    base = ModelSettings()
    stars = captured(star_scene(0, 0.0).tile)
    field = captured(read_tile(find_tiles([str(data_dir() / "sdss" / "fields" / FIELD)])[0]))
    rows: dict[str, Any] = {"cores": CORES}
    for name, call, settings in (
        ("stars, point sources", stars, replace(base, galaxies=False)),
        (f"{FIELD}, points and cModel", field, replace(base, sersic=False)),
        (f"{FIELD}, Sérsic too", field, base),
    ):
        count, speed = rate(call, settings, runs)
        rows[name] = {"sources": count, "per second": speed}
        print(f"   {name:40} {count:5d} sources, {speed:7.0f} per second")
    point = rows["stars, point sources"]["per second"]
    mixed = rows[f"{FIELD}, points and cModel"]["per second"]
    verdicts = [
        verdict("stars per second, five bands", point, ">= 3000", point >= 3000),
        verdict("sources of a real field per second, five bands, cModel", mixed, ">= 600", mixed >= 600),
    ]
    save("fit_speed", {**about, "rows": rows, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
