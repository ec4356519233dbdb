"""Sérsic index and half-light radius of simulated galaxies: imcat beside statmorph and photutils, on the same pixels.

Galaxies of 17 < r < 21 of `model_photometry.galaxy_scene`, r band. imcat fits the whole tile, with the PSF that it measures;
statmorph (Rodriguez-Gomez et al. 2019, MNRAS 483, 4140) fits a stamp of each galaxy with the true PSF; photutils has half-light
radii alone, with the PSF in them, here taken out in quadrature. Bias and scatter are medians and robust widths of ratios to
the truth, by magnitude; failures and fits that statmorph flags as bad are counted, not used.
"""

from __future__ import annotations

import time
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from common import arguments, print_header, save, verdict
from model_photometry import BANDS, SCALE, Scene, column, galaxy_scene, measured, psf_of
from numpy.typing import NDArray
from photutils.segmentation import SegmentationImage, SourceCatalog
from scipy.ndimage import gaussian_filter, label

from imcat.evaluate.measurement import robust_scatter
from imcat.window import Window

Float64 = NDArray[np.float64]
EDGES = (17.0, 19.0, 20.0, 21.0)
HALF = 30  # pixels: half side of a stamp
_HALF_LIGHT_OF_FWHM = 0.6  # of the PSF, wings included


def stamps(scene: Scene) -> tuple[NDArray[np.int64], list[Float64]]:
    """Galaxies away from the borders, and their pixels in r."""
    exposure = scene.tile.reference_exposure
    rows, columns = exposure.shape
    image = exposure.image.read(Window.whole((rows, columns)))
    inside = (
        (scene.x > HALF + 2)
        & (scene.x < columns - HALF - 3)
        & (scene.y > HALF + 2)
        & (scene.y < rows - HALF - 3)
    )
    index = np.flatnonzero((scene.kind > 0) & inside)
    cut = []
    for i in index:
        x, y = round(float(scene.x[i])), round(float(scene.y[i]))
        cut.append(np.asarray(image[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1], np.float64))
    return index, cut


def others(pixels: list[Float64]) -> tuple[Float64, Float64, Float64, float]:
    """Index and radius of statmorph, radius of photutils (arcsec), and statmorph's seconds."""
    import statmorph

    rms, gain = BANDS["r"][2], BANDS["r"][3]
    psf = psf_of("r").image(41)
    index, radius, plain = (np.full(len(pixels), np.nan) for _ in range(3))
    seconds = 0.0
    for k, image in enumerate(pixels):
        smooth = gaussian_filter(image, 1.5)
        parts, _ = label(smooth > 1.5 * rms / (2 * np.sqrt(np.pi) * 1.5))
        own = parts == parts[HALF, HALF] if parts[HALF, HALF] else np.zeros(image.shape, bool)
        if own.sum() < 9:
            continue
        segments = SegmentationImage(own.astype(np.int32))
        half = np.atleast_1d(SourceCatalog(image, segments).flux_radius(0.5))[0]
        own_size = (
            float(getattr(half, "value", half)) ** 2 - (_HALF_LIGHT_OF_FWHM * BANDS["r"][1] / SCALE) ** 2
        )
        plain[k] = SCALE * np.sqrt(max(own_size, 0.0))
        start = time.perf_counter()
        weight = np.sqrt(rms**2 + np.maximum(image, 0) / gain)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fit = statmorph.SourceMorphology(image, segments, 1, weightmap=weight, psf=psf)
            except Exception:  # whatever stops it is its failure
                continue
        seconds += time.perf_counter() - start
        if fit.flag_sersic == 0 and fit.sersic_rhalf > 0:
            index[k], radius[k] = fit.sersic_n, SCALE * fit.sersic_rhalf
    return index, radius, plain, seconds


def compare(name: str, found: Float64, true: Float64, mag: Float64) -> list[dict[str, Any]]:
    rows = []
    for low, high in pairwise(EDGES):
        use = (mag >= low) & (mag < high)
        ratio = found[use] / true[use] - 1
        good = np.isfinite(ratio)
        rows.append({"low": low, "high": high, "galaxies": int(use.sum()), "measured": int(good.sum()),
                     "bias": float(np.median(ratio[good])), "scatter": robust_scatter(ratio[good])})  # fmt: skip
    print(
        f"   {name:28} "
        + "  ".join("{measured}/{galaxies}: {bias:+.3f} ± {scatter:.3f}".format(**r) for r in rows)
    )
    return rows


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("Sérsic index and radius of simulated galaxies")
    if find_spec("statmorph") is None:
        print("   statmorph is not installed: pip install statmorph")
        return
    about["versions"]["statmorph"] = version("statmorph")
    scene = galaxy_scene(0, 0.0)
    index, pixels = stamps(scene)
    if args.quick:
        index, pixels = index[::6], pixels[::6]
    catalogue, rows, truth = measured(scene)
    place = {int(t): int(r) for r, t in zip(rows, truth, strict=True)}
    row = np.array([place.get(int(i), -1) for i in index])

    def ours(name: str) -> Float64:
        return np.where(row >= 0, column(catalogue, name, np.maximum(row, 0)), np.nan)

    n, radius, plain, seconds = others(pixels)
    true_n, true_radius, mag = (scene.shape[k][index] for k in ("index", "radius", "mag"))
    print("   r " + ", ".join(f"{a:g}-{b:g}" for a, b in pairwise(EDGES)))
    tables = {
        "index, imcat": compare("index, imcat", ours("sersic_index"), true_n, mag),
        "index, statmorph": compare("index, statmorph", n, true_n, mag),
        "radius, imcat": compare("radius, imcat", ours("sersic_radius"), true_radius, mag),
        "radius, statmorph": compare("radius, statmorph", radius, true_radius, mag),
        "radius, photutils": compare("radius, photutils", plain, true_radius, mag),
    }
    print(f"   statmorph: {len(pixels) / seconds:.1f} galaxies per second, one band, one core")
    verdicts = [
        verdict(f"scatter of {what} over that of statmorph, r {r['low']:g}-{r['high']:g}", r["scatter"] / s["scatter"], "<= 1",
                r["scatter"] <= s["scatter"])
        for what in ("index", "radius")
        for r, s in zip(tables[f"{what}, imcat"], tables[f"{what}, statmorph"], strict=True)
    ]  # fmt: skip
    rows_out = {name: {f"{r['low']:g}-{r['high']:g}": r for r in rows} for name, rows in tables.items()}
    save("sersic_recovery", {**about, "rows": rows_out, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
