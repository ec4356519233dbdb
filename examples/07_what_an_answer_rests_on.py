"""Which pixels a class rests on: attribution maps of sources of a tile, as a figure.

    python examples/07_what_an_answer_rests_on.py [FOLDER]

The tile is measured and classified as `imcat run` does it; the maps say what each pixel adds to the log odds that the stamp alone gives
to the source's class.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from imcat.classify.attribution import attribute
from imcat.classify.predict import KINDS
from imcat.classify.trained import load_classifier
from imcat.config import Config
from imcat.pipeline import process_tile
from imcat.stamps import StampSettings
from imcat.surveys import find_tiles, read_tile

TILE = Path(__file__).parent / "tile"


def main(folder: Path) -> None:
    (source,) = find_tiles([TILE])
    tile = read_tile(source)
    done = process_tile(tile, Config(), stamps=StampSettings())
    catalogue, stamps = done.catalogue, done.stamps
    assert stamps is not None

    # Any rows of the catalogue will do; the stamps have its order. Here: the brightest source of each class.
    flux, said = np.asarray(catalogue["r_kron_flux"]), np.asarray(catalogue["class"])
    rows = np.array(
        [np.nanargmax(np.where(said == name, flux, -np.inf)) for name in KINDS if (said == name).any()]
    )
    chosen = replace(stamps, signal=stamps.signal[rows], valid=stamps.valid[rows], noise=stamps.noise[rows])
    found = attribute(load_classifier(), chosen, None, [KINDS.index(name) for name in said[rows]])

    figure, axes = plt.subplots(2, len(rows), figsize=(3 * len(rows), 6), layout="constrained", squeeze=False)
    band = tile.band_names.index(tile.reference)
    for k, row in enumerate(rows):
        axes[0, k].imshow(np.arcsinh(chosen.signal[k, band]), origin="lower", cmap="gray")
        axes[0, k].set_title(f"{said[row]}, source {catalogue['source_id'][row]}", fontsize=8)
        whole = found.maps[k].sum(axis=0)
        reach = np.abs(whole).max()
        axes[1, k].imshow(whole, origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach)
        axes[1, k].set_title(
            f"log odds {found.empty[k]:+.1f} of an empty\nstamp, {found.answer[k]:+.1f} of this one",
            fontsize=8,
        )
    figure.savefig(folder / "attribution.png", dpi=110)
    print(f"{len(rows)} sources in {folder / 'attribution.png'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
