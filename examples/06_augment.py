"""Training images with truth and boxes: galaxies and sky that networks generate among simulated ones, and rare sources.

python examples/06_augment.py
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from imcat.augment.assembly import Augmenter, augmented_stream
from imcat.augment.assembly_settings import AugmentSettings
from imcat.config import Config
from imcat.pipeline import catalogue_tile

SEED = 5


def main() -> None:
    # Every rate is a setting; these are numbers on a square degree, and the images are small.
    mix = AugmentSettings.of_survey("sdss", generated=1.0, generated_sky=1.0, lenses=2000.0, quasars=4000.0)
    augmenter = Augmenter.load("sdss", mix)
    for item in islice(augmented_stream("sdss", SEED, (400, 500), augmenter=augmenter), 2):
        truth = item.truth
        print(
            f"tile {item.tile.name}: {len(truth['ra'])} sources, {truth['generated'].sum()} of them generated galaxies, "
            f"{truth['is_lens'].sum()} lenses, {(truth['added'] == 'quasar').sum()} quasars added"
        )
        # What a detector finds, against the boxes that a training would show it.
        found = catalogue_tile(item.tile, Config(fit_models=False, classify_sources=False))
        made = np.flatnonzero(truth["generated"])
        inside = (found["x"][:, None] > truth["x_min"][made]) & (found["x"][:, None] < truth["x_max"][made])
        inside &= (found["y"][:, None] > truth["y_min"][made]) & (found["y"][:, None] < truth["y_max"][made])
        print(
            f"  {inside.any(axis=0).sum()} of the {len(made)} generated galaxies have a detection in their box"
        )

    # The space telescope's images are sharper; there is no real sky of it, so its sky is simulated.
    mix = AugmentSettings.of_survey("csst", bands=("g", "r", "i"))
    for item in islice(augmented_stream("csst", SEED, (128, 128), augment=mix), 2):
        boxes = np.stack([item.truth[name] for name in ("x_min", "y_min", "x_max", "y_max")], axis=1)
        print(f"{item.tile.name}: {'+'.join(item.bands)} {item.pixels.shape}, {len(boxes)} boxes")


if __name__ == "__main__":
    main()
