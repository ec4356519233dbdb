"""From survey files to a catalogue in Python: the tile in ``examples/tile``, compared with its truth.

python examples/01_first_catalogue.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from imcat.config import Config
from imcat.flags import decode
from imcat.pipeline import catalogue_tile
from imcat.surveys import find_tiles, read_tile

TILE = Path(__file__).parent / "tile"


def main() -> None:
    # A folder, files or globs; frames of one run, camera column and field make one tile.
    (source,) = find_tiles([TILE])
    tile = read_tile(source)
    print(f"tile {tile.name}: bands {' '.join(tile.band_names)}, {tile.shape[1]} x {tile.shape[0]} pixels")

    # Everything that decides what a catalogue holds is in the configuration.
    catalogue = catalogue_tile(tile, Config())
    flux, error = catalogue["r_kron_flux"], catalogue["r_kron_flux_err"]
    unit = catalogue.schema["r_kron_flux"].unit
    print(f"{len(catalogue)} sources, {np.sum(flux > 5 * error)} of them with r_kron_flux above 5 sigma")

    brightest = np.argsort(-np.nan_to_num(flux))[:3]
    for k in brightest:
        print(
            f"  ra {catalogue['ra'][k]:.5f}  dec {catalogue['dec'][k]:.5f}  r {flux[k]:.0f} ± {error[k]:.0f} {unit}"
            f"  flags {decode(int(catalogue['flags'][k])) or 'none'}"
        )

    # The tile is simulated, so the answer is known: which of its sources were found?
    truth = pq.read_table(TILE / "truth.parquet")
    mag = truth["r_mag"].to_numpy()
    dx = catalogue["x"][:, None] - truth["x"].to_numpy()
    dy = catalogue["y"][:, None] - truth["y"].to_numpy()
    found = (np.hypot(dx, dy) < 1.0 / 0.396).any(axis=0)  # within 1 arcsec; pixels are 0.396 arcsec
    for low in range(17, 24):
        chosen = (mag >= low) & (mag < low + 1)
        print(f"  r {low} to {low + 1}: {found[chosen].sum():3d} of {chosen.sum():3d} found")


if __name__ == "__main__":
    main()
