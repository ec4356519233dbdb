"""One frame of 9216 × 9232 pixels with 15,000 sources: wall time and memory of whole processes.

Beside imcat (a generic tile without anything but the image) stand SExtractor with its default
settings and a script of sep on the whole image. Whether torch was imported is checked in a run
of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from common import (
    IMCAT,
    Cost,
    arguments,
    imcat_run,
    in_turn,
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

SHAPE = (9232, 9216)
SOURCES = 15_000
SEED = 20
NOISE = 0.02  # image units

_SEP = """
import sys, numpy as np, sep
from astropy.io import fits
image = fits.getdata(sys.argv[1]).astype(np.float32)
background = sep.Background(image)
background.subfrom(image)
found = sep.extract(image, 1.5, err=background.globalrms, minarea=3)
found = found[found["b"] > 0]
x, y, a, b = (found[k].astype(np.float64) for k in ("x", "y", "a", "b"))
# In single precision some angles lie a little beyond a right angle, which sep refuses.
t = np.clip(found["theta"].astype(np.float64), -np.pi / 2, np.pi / 2)
kron, _ = sep.kron_radius(image, x, y, a, b, t, 6.0)
sep.sum_ellipse(image, x, y, a, b, t, np.maximum(2.5 * np.nan_to_num(kron), 3.5), err=background.globalrms)
sep.sum_circle(image, x, y, 3.8, err=background.globalrms)
sep.winpos(image, x, y, np.sqrt(a * b))
print(len(found))
"""


def write_big_frame(path: Path) -> None:
    rng = np.random.default_rng(SEED)
    image = rng.standard_normal(SHAPE, dtype=np.float32)
    image *= np.float32(NOISE)
    image += np.float32(1.0)
    draw_sources(image, rng, SOURCES, sigma_psf=1.4, faint_flux=1.0, bright_flux=2000.0, slope=0.8, stars=0.4)
    write_frame(path, image)


def imports_torch(folder: Path, tile: Path) -> bool:
    """Whether a run imports torch, from the interpreter's own list of imports."""
    command = [
        sys.executable,
        "-X",
        "importtime",
        *IMCAT[1:],
        *imcat_run(folder / "check", [tile], "--no-report")[3:],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {
        line.rsplit("|", 1)[-1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    if "imcat.pipeline" not in names:
        raise RuntimeError("the list of imports does not hold imcat itself: the check is void")
    return "torch" in names


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header(f"One frame of {SHAPE[1]} x {SHAPE[0]} with {SOURCES} sources", ["source-extractor"])
    with scratch() as folder:
        write_big_frame(folder / "frame.fits")
        entries = {"image": "frame.fits", "zero_point": ZERO_POINT, "wavelength": 6166.0}
        tile = write_generic_tile(folder, "big", {"r": entries}, "r")
        (folder / "run_sep.py").write_text(_SEP)
        sextractor_line = sextractor_command(folder, "frame.fits")

        def run_imcat() -> Cost:
            return run_timed([imcat_run(folder / "out", [tile], "--no-report")])

        jobs = {
            "SExtractor": lambda: run_timed([sextractor_line], cwd=folder),
            "sep": lambda: run_timed([[sys.executable, "run_sep.py", "frame.fits"]], cwd=folder),
            "imcat --no-report": run_imcat,
        }
        costs = in_turn(jobs, 1 if args.quick else 3)
        rows = print_costs(costs, "SExtractor")
        torch = imports_torch(folder, tile)
    own = rows["imcat --no-report"]
    verdicts = [
        verdict("wall time, imcat / SExtractor", own["wall_ratio"], "<= 1.2", own["wall_ratio"] <= 1.2),
        verdict(
            "peak memory (GB)", own["peak_mib"] * 2**20 / 1e9, "<= 1.2", own["peak_mib"] * 2**20 <= 1.2e9
        ),
        verdict("torch imported", float(torch), "0", not torch),
    ]
    save("big_frame", {**about, "rows": rows, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
