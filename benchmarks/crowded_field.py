"""A ugriz field of 2048 × 1489 pixels in the galactic plane: 15,000 stars, wall time and memory.

The recovered fraction by magnitude stands beside, since a run that finds little is quick.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from common import (
    arguments,
    imcat_run,
    print_costs,
    print_header,
    run_timed,
    save,
    scratch,
    sextractor_command,
    verdict,
    write_generic_tile,
)
from synthetic import ZERO_POINT, draw_sources, write_frame

from imcat.catalogue import match_xy, read_run

SHAPE = (1489, 2048)
STARS = 15_000
SEED = 31
#: Noise of a pixel (image units) and flux relative to r of a star of solar colours, by band.
BANDS = {
    "u": (3551.0, 0.030, 0.12), "g": (4686.0, 0.015, 0.62), "r": (6166.0, 0.020, 1.0),
    "i": (7480.0, 0.030, 1.12), "z": (8932.0, 0.080, 1.17),
}  # fmt: skip


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header(f"A crowded ugriz field with {STARS} stars", ["source-extractor"])
    with scratch() as folder:
        entries = {}
        truth = np.empty((0, 4))
        for band, (wavelength, noise, relative) in BANDS.items():
            # The same stars in every band: the generator of the sources starts anew, that of the noise does not.
            image = np.random.default_rng([SEED, int(wavelength)]).standard_normal(SHAPE, dtype=np.float32)
            image *= np.float32(noise)
            truth = draw_sources(
                image, np.random.default_rng(SEED), STARS, sigma_psf=1.4, faint_flux=0.4 * relative,
                bright_flux=4000.0 * relative, slope=0.6, stars=1.0,
            )  # fmt: skip
            write_frame(folder / f"{band}.fits", image)
            entries[band] = {"image": f"{band}.fits", "zero_point": ZERO_POINT, "wavelength": wavelength}
            if band == "r":
                stars = truth
        tile = write_generic_tile(folder, "crowded", entries, "r")
        peer = run_timed([sextractor_command(folder, "r.fits")], cwd=folder)
        cost = run_timed([imcat_run(folder / "out", [tile], "--no-report")])
        catalogue = read_run(folder / "out")
    rows = print_costs(
        {"SExtractor, r alone, once": [peer], "imcat, ugriz": [cost]}, "SExtractor, r alone, once"
    )
    found = np.zeros(len(stars), dtype=bool)
    found[match_xy(catalogue["x"], catalogue["y"], stars[:, 0], stars[:, 1], 2.5).second] = True
    magnitude = ZERO_POINT - 2.5 * np.log10(stars[:, 2])
    edges = np.arange(np.floor(magnitude.min()), np.ceil(magnitude.max()) + 1)
    print(f"   {len(catalogue)} detections")
    recovered = {}
    for low, high in pairwise(edges):
        chosen = (magnitude >= low) & (magnitude < high)
        if chosen.any():
            recovered[f"{low:.0f}-{high:.0f}"] = float(found[chosen].mean())
    print("   found by magnitude: " + ", ".join(f"{name} {value:.2f}" for name, value in recovered.items()))
    verdicts = [
        verdict("wall time (s)", cost.wall, "< 300", cost.wall < 300),
        verdict("peak memory (GB)", cost.peak * 2**20 / 1e9, "< 4", cost.peak * 2**20 < 4e9),
    ]
    save(
        "crowded_field",
        {**about, "rows": rows, "detections": len(catalogue), "found": recovered, "verdicts": verdicts},
        quick=args.quick,
    )


if __name__ == "__main__":
    main()
