"""Learn one's own classes from labelled stamps, then sort new ones; here with stamps that are made up.

python examples/05_own_classes.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from imcat.scale.classified import classify_with
from imcat.train.recipes import run_recipe

RECIPE = """
[fine_tuning]
name = "rings"
data = "labelled.npz"
images = "images"
labels = "kind"
wavelengths = [6166]
pixel = 0.396
epochs = 8
batch = 32
"""


def stamps(number: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Round galaxies, half of them with a ring."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(x, y)
    ring = rng.random(number) < 0.5
    light = 40 * np.exp(-radius / rng.uniform(2, 4, (number, 1, 1)))
    light += (
        ring[:, None, None] * 8 * np.exp(-0.5 * ((radius - rng.uniform(8, 12, (number, 1, 1))) / 1.5) ** 2)
    )
    return light + rng.normal(0, 1, light.shape), np.where(ring, "ring", "plain")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, kind = stamps(300, 1)
        np.savez(folder / "labelled.npz", images=images, kind=kind)
        (folder / "rings.toml").write_text(RECIPE)
        card = run_recipe(folder / "rings.toml", folder / "trained")

        images, kind = stamps(200, 2)
        np.savez(folder / "new.npz", images=images)
        classify_with(folder / "new.npz", folder / "classes.fits", card)
        table = Table.read(folder / "classes.fits")
        print(table[:3])
        print(
            f"{np.mean(np.asarray(table['class']).astype(str) == kind):.0%} of {len(kind)} new stamps are right"
        )


if __name__ == "__main__":
    main()
