"""Figures of the augmenter: generated beside real stamps and sky, same stretch; distances; what helps.

Draws from the newest results of benchmarks/augmentation.py and the weights that come with imcat.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from augmentation_quality import TEST, of_generator, of_simulator
from common import data_dir, newest
from numpy.typing import NDArray

from imcat.augment.observed import ObservedStamps
from imcat.augment.trained import load_sky
from imcat.surveys import find_tiles, read_tile
from imcat.train.light_data import sharp_stamps, tile_stamps
from imcat.train.sky_data import SkyPatches, tile_sky

mpl.use("Agg")
import matplotlib.pyplot as plt

STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"
_COLUMNS = 10
_STRETCH = 3.0  # noise rms

Array = NDArray[Any]


def _rgb(signal: Array, bands: tuple[int, int, int], top: Array) -> Array:
    """Colours of three bands, arcsinh, each galaxy up to its own brightest pixel: the same for real and made ones."""
    chosen = np.stack([signal[:, b] for b in bands], axis=-1)
    value = np.arcsinh(np.clip(chosen, 0, None) / _STRETCH) / np.arcsinh(top / _STRETCH)[:, None, None, None]
    return np.asarray(np.clip(value, 0, 1))


def _rows(stamps: ObservedStamps, makers: dict[str, Any], bands: tuple[int, int, int]) -> dict[str, Array]:
    seen = stamps.batch(np.arange(len(stamps)), np.random.default_rng(3))
    real = seen.signal.numpy() * seen.valid.numpy()
    top = np.maximum(real[:, list(bands)].max(axis=(1, 2, 3)), 10)
    out = {"real": _rgb(real, bands, top)}
    for name, make in makers.items():
        with torch.no_grad():
            out[name] = _rgb(make(seen, 11).numpy() * seen.valid.numpy(), bands, top)
    return out


def stamps_figure(folder: Path) -> None:
    """Grids of galaxies."""
    path = folder / f"light-{TEST}.npz"
    if not path.exists():
        (source,) = find_tiles([str(data_dir() / "sdss" / "fields" / TEST)])
        tile_stamps(read_tile(source)).write(path)
    test = ObservedStamps.read(path)
    bright = np.argsort(test.asked.magnitude)[:_COLUMNS]
    sdss = _rows(
        test.take(bright),
        {"generated (gan)": of_generator("light_sdss"), "generated (vae)": of_generator("light_sdss_vae"), "analytic": of_simulator},
        (3, 2, 1),
    )  # fmt: skip
    csst = _rows(
        sharp_stamps(_COLUMNS, 912),
        {"generated (vae)": of_generator("light_csst"), "generated (gan)": of_generator("light_csst_gan"), "analytic": of_simulator},
        (5, 4, 2),
    )  # fmt: skip
    csst = {("simulated" if k == "real" else k): v for k, v in csst.items()}
    figure, axes = plt.subplots(8, _COLUMNS, figsize=(_COLUMNS, 8.4))
    for row, (name, images) in enumerate([*sdss.items(), *csst.items()]):
        for column in range(_COLUMNS):
            own = axes[row, column]
            own.imshow(images[column], origin="lower")
            own.set_xticks([])
            own.set_yticks([])
        axes[row, 0].set_ylabel(name, fontsize=7)
    figure.suptitle(
        f"SDSS, {TEST} (above); CSST's bands, an ideal camera (below): each column one set of conditions",
        fontsize=9,
    )
    figure.tight_layout(pad=0.4)
    figure.savefig(STATIC / "generated-galaxies.png", dpi=110)
    plt.close(figure)


def sky_figure(folder: Path, result: dict[str, Any]) -> None:
    """Sky, and its power."""
    path = folder / f"sky-{TEST}.npz"
    if not path.exists():
        (source,) = find_tiles([str(data_dir() / "sdss" / "fields" / TEST)])
        tile_sky(read_tile(source)).write(path)
    test = SkyPatches.read(path)
    clear = np.argsort(-test.valid.mean(axis=(1, 2, 3)))[:3]
    made = load_sky("sky_sdss").sky(96, 288, 12)
    figure, axes = plt.subplots(2, 4, figsize=(11, 4.4), width_ratios=(1, 1, 1, 1.6))
    figure.subplots_adjust(left=0.04, right=0.98, wspace=0.05, hspace=0.05)
    for k in range(3):
        real = np.where(test.valid[clear[k], 2], test.pixels(clear[k : k + 1])[0, 2], np.nan)
        for row, image in enumerate((real, made[2, :, 96 * k : 96 * k + 96])):
            axes[row, k].imshow(image, vmin=-3, vmax=3, cmap="gray", origin="lower")
            axes[row, k].set_xticks([])
            axes[row, k].set_yticks([])
    axes[0, 0].set_ylabel("real, r")
    axes[1, 0].set_ylabel("generated, r")
    for row in (0, 1):
        axes[row, 3].remove()
    own = figure.add_subplot(1, 4, 4)
    own.set_position([0.74, 0.14, 0.24, 0.76])
    for name, row in result["sky"].items():
        if isinstance(row, dict) and "power_ratio" in row:
            own.semilogx(result["sky"]["wavelength"], row["power_ratio"], label=name)
    own.axhspan(0.95, 1.05, color="0.85")
    own.set(xlabel="wavelength, pixels", ylabel="power over that of the test field", ylim=(0.6, 1.6))
    own.set_xticks([3, 5, 10, 20], ["3", "5", "10", "20"])
    own.minorticks_off()
    own.legend(fontsize=7)
    figure.savefig(STATIC / "generated-sky.png", dpi=110)
    plt.close(figure)


def use_figure(result: dict[str, Any]) -> None:
    """Gains of generated images over classical augmentation, with their 95 % intervals."""
    names, means, halves = [], [], []
    for part in ("morphology", "spirals", "classes"):
        for number, row in result.get(part, {}).items():
            if not isinstance(row, dict):
                continue
            for key, own in row.items():
                if key.startswith("gain of "):
                    names.append(f"{part}, {number} labels: {key[8:]}")
                    means.append(own["mean"])
                    halves.append(own["half_width"])
    if "detector" in result:
        detector = result["detector"]
        found = detector["classical"]["real_detections"]  # as a share of these
        for key, what, unit in (
            ("completeness", "completeness", 1.0),
            ("rare_completeness", "completeness of rare sources", 1.0),
            ("real_detections", "detections in real fields, over those without", found),
        ):
            own = detector[f"gain of {key}"]
            names.append(f"detector: {what}")
            means.append(own["mean"] / unit)
            halves.append(own["half_width"] / unit)
    figure, axis = plt.subplots(figsize=(7.5, 0.28 * len(names) + 1))
    at = np.arange(len(names))[::-1]
    axis.errorbar(means, at, xerr=halves, fmt="o", ms=4)
    axis.axvline(0, color="0.6", lw=1)
    axis.set_yticks(at, names, fontsize=7)
    axis.set_xlabel("gain of generated images over classical augmentation")
    figure.tight_layout()
    figure.savefig(STATIC / "generated-use.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--folder", type=Path, required=True, help="that keeps stamps and samples")
    parser.add_argument("--quick", action="store_true", help="draw from the newest quick results")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    draw(options.folder, newest("augmentation", quick=options.quick))


def draw(folder: Path, result: dict[str, Any]) -> None:
    """All figures, of stamps in a folder and of results."""
    stamps_figure(folder)
    if "sky" in result:
        sky_figure(folder, result)
    if {"morphology", "spirals", "classes", "detector"} & set(result):
        use_figure(result)


if __name__ == "__main__":
    main()
