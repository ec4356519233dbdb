"""Completeness at equal purity on the independent simulation, by true magnitude.

SExtractor works on combinations of the bands, in two settings that were tuned on this kind of
image: the sum of g, r and i in units of their noise, and ugriz weighted by a typical spectrum with
small minimum area and deep deblending. The threshold of every list is then scanned to the same
purity. Matching radius 1.0 arcsec, truth down to r < 24.5, border of 8 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from common import (
    arguments,
    data_dir,
    imcat_catalogue,
    print_header,
    save,
    scratch,
    sextractor,
    write_generic_tile,
)
from numpy.typing import NDArray

from imcat.evaluate.detection import (
    completeness,
    inside,
    match_lists,
    measure_purity,
    threshold_at_purity,
)
from imcat.evaluate.truth import Truth, read_truth
from imcat.registry import weights_folder

EDGES = (14.0, 20.0, 21.0, 21.5, 22.0, 22.5, 23.0, 23.5, 24.0)
FAINT_LIMIT = 24.5
RADIUS = 1.0  # arcsec
PURITY = 0.95
WAVELENGTHS = {"u": 3551.0, "g": 4686.0, "r": 6166.0, "i": 7480.0, "z": 8932.0}
#: Flux of a typical faint source by band, relative to r.
SPECTRUM = {"u": 0.2, "g": 0.45, "r": 1.0, "i": 1.45, "z": 1.8}


def frame(band: str) -> Path:
    return data_dir() / "simulated" / "skymaker_sdss_03" / f"frame-{band}.fits.fz"


def noise_of(image: NDArray[Any]) -> tuple[float, float]:
    """Clipped median and rms."""
    values = image[::3, ::3].ravel()
    for _ in range(8):
        median, rms = np.median(values), values.std()
        values = values[np.abs(values - median) < 3 * rms]
    return float(np.median(values)), float(values.std())


def combine(folder: Path, weights: Mapping[str, float]) -> Path:
    """Sum of the bands in units of their noise with weights for the signal-to-noise ratio."""
    total: NDArray[Any] | float = 0.0
    for band, weight in weights.items():
        image = fits.getdata(frame(band), 1).astype(np.float64)
        level, rms = noise_of(image)
        total = (
            total + weight / rms * (image - level) if weight < 0 else total + (image - level) / rms * weight
        )
    path = folder / f"sum-{''.join(weights)}.fits"
    fits.PrimaryHDU(np.asarray(total, dtype=np.float32)).writeto(path, overwrite=True)
    return path


def sed_weights() -> dict[str, float]:
    """Weights of the bands in noise units: flux expected in units of the noise."""
    return {band: SPECTRUM[band] / noise_of(fits.getdata(frame(band), 1))[1] for band in SPECTRUM}


class Judge:
    """The truth of the tile, and what a list of detections is worth against it."""

    def __init__(self, truth: Truth, shape: tuple[int, int], scale: float) -> None:
        if truth.x is None or truth.y is None:
            raise ValueError("the truth has no pixel positions")
        keep = truth.magnitudes["r"] < FAINT_LIMIT
        self.x, self.y = truth.x[keep], truth.y[keep]
        self.magnitude = truth.magnitudes["r"][keep]
        self.shape, self.radius, self.scale = shape, RADIUS / scale, scale

    def __call__(self, x: NDArray[Any], y: NDArray[Any], rank: NDArray[Any]) -> dict[str, Any]:
        """Cut a list at the purity asked for and measure it; a list that is purer stays whole."""
        pairs = match_lists(x, y, self.x, self.y, self.radius)
        counted = inside(x, y, self.shape)
        cut = threshold_at_purity(rank[counted], pairs.used(x.size)[counted], PURITY)
        kept = rank >= cut if np.isfinite(cut) else np.zeros(x.size, dtype=bool)
        x, y = x[kept], y[kept]
        purity = measure_purity(x, y, self.x, self.y, radius=self.radius, shape=self.shape)
        pairs = match_lists(x, y, self.x, self.y, self.radius)
        within = inside(self.x, self.y, self.shape)
        found = pairs.found(self.x.size)
        curve = completeness(self.magnitude[within], found[within], EDGES)
        bright = self.magnitude[pairs.second] < 21
        return {
            "threshold": cut,
            "detections": purity.detections,
            "purity": purity.purity,
            "chance": purity.chance,
            "completeness": curve.fraction,
            "truth": curve.total,
            "offset_r21_arcsec": float(np.median(pairs.separation[bright])) * self.scale,
        }


def show(name: str, row: Mapping[str, Any]) -> None:
    values = " ".join(f"{v:8.3f}" for v in row["completeness"])
    print(f"   {name:42} {row['purity']:.3f} {row['detections']:5d} {row['offset_r21_arcsec']:6.3f} {values}")


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("Independent simulation: completeness at equal purity", ["source-extractor"])
    (truth,) = read_truth(frame("r").parent)
    header = fits.getheader(frame("r"), 1)
    shape = (int(header["NAXIS2"]), int(header["NAXIS1"]))
    judge = Judge(truth, shape, abs(float(header["CD2_2"])) * 3600)
    names = " ".join(f"{low:g}–{high:g}".rjust(8) for low, high in pairwise(EDGES))
    print(f"   cut to purity {PURITY}; offset: median at r < 21, arcsec")
    print(f"   {'':42} purity  dets offset {names}")
    rows: dict[str, Any] = {}
    with scratch() as folder:
        settings: dict[str, tuple[Path, dict[str, Any]]] = {
            "SExtractor, g + r + i, gauss_3.0_7x7": (
                combine(folder, {"g": 1.0, "r": 1.0, "i": 1.0}),
                {"kernel": "gauss_3.0_7x7.conv"},
            ),
            "SExtractor, SED-weighted ugriz, tuned": (
                combine(folder, sed_weights()),
                {"kernel": "gauss_3.0_7x7.conv", "DETECT_MINAREA": 5, "DEBLEND_NTHRESH": 64,
                 "DEBLEND_MINCONT": 5e-5},
            ),
        }  # fmt: skip
        for name, (image, options) in settings.items():
            rows[name] = best_threshold(folder, image, options, judge, quick=args.quick)
            show(f"{name} ({rows[name]['setting']})", rows[name])
        tile = write_generic_tile(folder, "skymaker-sdss-03", {b: tile_entries(b) for b in WAVELENGTHS}, "r")
        # Everything the engine can find, so that the scan has something to cut.
        config = folder / "deep.toml"
        config.write_text("[detect]\nmin_snr = 3.0\nthreshold = 1.8\n")
        for name, command in (
            ("imcat, threshold", ("--detector", "threshold")),
            ("imcat, threshold, deep list cut", ("--detector", "threshold", "--config", str(config))),
            ("imcat, network", ("--detector", "network")),
        ):
            network = "network" in command
            if network and not weights_folder().joinpath("detection.safetensors").is_file():
                continue
            catalogue = imcat_catalogue(folder, [tile], "--min-score", "0", "--no-classify", *command)
            rank = "detection_score" if network else "detection_snr"
            columns = (np.asarray(catalogue[key], dtype=np.float64) for key in ("x", "y", rank))
            rows[name] = judge(*columns)
            show(name, rows[name])
    save("skymaker", {**about, "edges": EDGES, "rows": rows}, quick=args.quick)


def best_threshold(
    folder: Path, image: Path, options: Mapping[str, Any], judge: Judge, *, quick: bool
) -> dict[str, Any]:
    """Run SExtractor at several thresholds, cut each list to the purity, keep the most complete."""
    best: dict[str, Any] = {}
    for threshold in (0.8, 0.9) if quick else (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2):
        table = sextractor(folder, image, DETECT_THRESH=threshold, ANALYSIS_THRESH=threshold, **options)
        # A list that is less pure is cut at the brightness of the peak, which is what a threshold does.
        row = judge(table["X_IMAGE"] - 1.0, table["Y_IMAGE"] - 1.0, table["FLUX_MAX"])
        row["setting"] = f"threshold {threshold}"
        if not best or np.nansum(row["completeness"]) > np.nansum(best["completeness"]):
            best = row
    return best


def tile_entries(band: str) -> dict[str, object]:
    """What the simulation says about a frame, for a generic tile."""
    header = fits.getheader(frame(band), 1)
    return {
        "image": f"{frame(band)}[1]",
        "zero_point": 22.5,
        "wavelength": WAVELENGTHS[band],
        "gain": float(header["ENMGY"]),
        "sky": float(header["SKYE"]) / float(header["ENMGY"]),
        "psf_fwhm": float(header["SEEING"]),
    }


if __name__ == "__main__":
    main()
