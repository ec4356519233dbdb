"""A small simulated field in memory: its truth, its catalogue, and a stream of tiles for training.

python examples/03_simulate.py
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from imcat.config import Config
from imcat.pipeline import catalogue_tile
from imcat.simulate.scene import Models
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import observe, simulate_tile, stream
from imcat.simulate.truth_columns import truth_columns

SEED = 5


def main() -> None:
    models = Models.load()
    # Many lenses, so that a small field has some; every rate is a setting.
    settings = SimulateSettings(lenses_per_deg2=2500.0)
    observation = observe("sdss", 0, SEED, settings, shape=(400, 500))
    tile, scene = simulate_tile(observation, settings, models, SEED)
    truth = truth_columns(scene, observation, settings)
    kinds, counts = np.unique(truth["type"], return_counts=True)
    print(
        f"tile {tile.name}:", ", ".join(f"{n} of type {kind}" for kind, n in zip(kinds, counts, strict=True))
    )
    for k in np.flatnonzero(truth["is_lens"]):
        print(
            f"  lens: Einstein radius {truth['einstein_radius'][k]:.2f} arcsec, arcs at S/N {truth['arc_snr'][k]:.0f}"
        )

    catalogue = catalogue_tile(tile, Config())
    bright = truth["r_mag"] < 21
    found = np.hypot(
        catalogue["x"][:, None] - truth["x"][bright], catalogue["y"][:, None] - truth["y"][bright]
    ).min(axis=0)
    print(f"{len(catalogue)} sources found; {np.mean(found < 2.5):.0%} of those with r < 21 within 1 arcsec")

    # The same without end, for training: pixels, their variance, and truth.
    for item in islice(stream("csst", SEED, shape=(96, 96), models=models), 2):
        print(
            f"{item.tile.name}: {'+'.join(item.bands)} {item.pixels.shape}, {len(item.truth['ra'])} sources"
        )


if __name__ == "__main__":
    main()
