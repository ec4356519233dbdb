"""Widths of the pulls of fluxes and positions, in white and in correlated noise.

Stars of known flux and position stand on a grid in Gaussian noise; the noise is white, or
smoothed by a Gaussian of sigma 0.8 pixel as resampling does. A pull is residual over quoted
error, its robust width must be 1. sep quotes errors for white noise with the rms it measures.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import sep
from astropy.wcs import WCS
from common import arguments, print_header, save, verdict
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from imcat.catalogue import match_xy
from imcat.config import Config
from imcat.evaluate.measurement import Residuals, residuals
from imcat.pipeline import process_tile
from imcat.tile import ArrayPixels, Band, Exposure, Tile

SCALE = 0.4  # arcsec per pixel
SIGMA_PSF = 1.4  # pixels
SPACING = 32
RMS = 10.0  # nJy
SMOOTHING = {"white": 0.0, "correlated": 0.8}
EDGES = (20.0, 40.0, 80.0, 200.0)  # S/N of the profile-weighted flux in white noise


def field(seed: int, side: int, smoothing: float) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """An image of stars and its truth: columns x, y, flux."""
    rng = np.random.default_rng(seed)
    nodes = np.arange(SPACING, side - SPACING // 2, SPACING, dtype=np.float64)
    x, y = (grid.ravel() + rng.uniform(-0.5, 0.5, grid.size) for grid in np.meshgrid(nodes, nodes))
    # The optimal S/N of a Gaussian in white noise is flux / (2 sqrt(pi) sigma rms).
    snr = np.exp(rng.uniform(np.log(EDGES[0]), np.log(EDGES[-1]), x.size))
    flux = snr * 2 * np.sqrt(np.pi) * SIGMA_PSF * RMS
    noise = rng.normal(0, 1, (side, side))
    if smoothing:
        noise = gaussian_filter(noise, smoothing, mode="wrap")
    image = noise / noise.std() * RMS
    half = 12
    offsets = np.arange(-half, half + 1)
    for xs, ys, f in zip(x, y, flux, strict=True):
        i, j = round(xs), round(ys)
        profile = np.exp(-0.5 * ((offsets + i - xs) / SIGMA_PSF) ** 2)
        across = np.exp(-0.5 * ((offsets + j - ys) / SIGMA_PSF) ** 2)
        stamp = np.outer(across, profile) * f / (2 * np.pi * SIGMA_PSF**2)
        rows, columns = j + offsets, i + offsets
        inside = np.ix_((rows >= 0) & (rows < side), (columns >= 0) & (columns < side))
        image[np.ix_(rows[(rows >= 0) & (rows < side)], columns[(columns >= 0) & (columns < side)])] += stamp[
            inside
        ]
    return image.astype(np.float32), np.column_stack([x, y, flux, snr])


def enclosed(radius: float) -> float:
    """Fraction of a Gaussian star's light within a radius in pixels."""
    return float(1 - np.exp(-0.5 * (radius / SIGMA_PSF) ** 2))


def measure_imcat(image: NDArray[np.float32], seed: int) -> dict[str, NDArray[Any]]:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = (
        ["RA---TAN", "DEC--TAN"],
        [150.0, 2.0],
        [image.shape[1] / 2, image.shape[0] / 2],
    )
    wcs.wcs.cd = np.diag([-SCALE, SCALE]) / 3600
    exposure = Exposure("synthetic", ArrayPixels(image), wcs)
    tile = Tile(f"pulls-{seed}", "generic", seed, (Band("r", 6166.0, (exposure,)),), "r")
    catalogue = process_tile(tile, Config()).catalogue
    columns = {name: np.asarray(catalogue[name]) for name in ("x", "y")}
    for name in ("ra_err", "dec_err", "r_kron_flux", "r_kron_flux_err", "r_aper_flux_3", "r_aper_flux_3_err"):
        columns[name] = np.asarray(catalogue[name], dtype=np.float64)
    return {
        "x": columns["x"],
        "y": columns["y"],
        # North is up and east to the left, so that the errors along the axes are those on the sky.
        "x_err": columns["ra_err"] / SCALE,
        "y_err": columns["dec_err"] / SCALE,
        "aperture": columns["r_aper_flux_3"],
        "aperture_err": columns["r_aper_flux_3_err"],
        "kron": columns["r_kron_flux"],
        "kron_err": columns["r_kron_flux_err"],
    }


def measure_sep(image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    background = sep.Background(image, bw=128, bh=128)
    data = image - background.back()
    rms = background.globalrms
    found = sep.extract(data, 1.5, err=rms, minarea=5)
    # sep refuses ellipses of its own that are a line, or whose angle is rounded beyond its bounds.
    found = found[found["b"] > 0]
    found["theta"] = np.clip(found["theta"], -np.pi / 2, np.pi / 2)
    x, y = found["x"], found["y"]
    size = np.hypot(found["a"], found["b"]) / np.sqrt(2)
    wx, wy, _ = sep.winpos(data, x, y, size)
    aperture, aperture_err, _ = sep.sum_circle(data, wx, wy, 1.5 / SCALE, err=rms)
    kron_radius, _ = sep.kron_radius(data, x, y, found["a"], found["b"], found["theta"], 6.0)
    radius = np.fmax(2.5 * kron_radius, 3.5)  # where noise has no radius, the smallest
    kron, kron_err, _ = sep.sum_ellipse(
        data, wx, wy, found["a"], found["b"], found["theta"], radius, err=rms, subpix=5
    )
    return {
        "x": wx,
        "y": wy,
        "x_err": np.sqrt(found["errx2"]),
        "y_err": np.sqrt(found["erry2"]),
        "aperture": aperture,
        "aperture_err": aperture_err,
        "kron": kron,
        "kron_err": kron_err,
    }


def residuals_of(measured: dict[str, NDArray[Any]], truth: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Residuals and errors of the matched stars, by quantity, shape (n, 2); and their S/N."""
    pairs = match_xy(measured["x"], measured["y"], truth[:, 0], truth[:, 1], 1.5)
    i, true = pairs.first, truth[pairs.second]
    share = enclosed(1.5 / SCALE)
    pairs_of = {
        "aperture flux": (measured["aperture"][i] - share * true[:, 2], measured["aperture_err"][i]),
        # A Kron ellipse leaves out a constant part of a star's light; the median takes it away.
        "Kron flux": (measured["kron"][i] / true[:, 2], measured["kron_err"][i] / true[:, 2]),
        "x": (measured["x"][i] - true[:, 0], measured["x_err"][i]),
        "y": (measured["y"][i] - true[:, 1], measured["y_err"][i]),
    }
    return {name: np.column_stack(values) for name, values in pairs_of.items()} | {"snr": true[:, 3]}


def pull_widths(parts: list[dict[str, NDArray[Any]]]) -> dict[str, list[Residuals]]:
    """Pulls of all fields together: all stars, then by S/N."""
    snr = np.concatenate([part["snr"] for part in parts])
    table = {}
    for name in ("aperture flux", "Kron flux", "x", "y"):
        values = np.concatenate([part[name] for part in parts])
        difference = values[:, 0]
        bins = [(EDGES[0], EDGES[-1]), *pairwise(EDGES)]
        rows = []
        for low, high in bins:
            chosen = (snr >= low) & (snr < high)
            # The median of the bin is its bias, which a width must not hold.
            centred = difference[chosen] - np.median(difference[chosen])
            rows.append(residuals(centred, values[chosen, 1], low=low, high=high))
        table[name] = rows
    return table


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("Pulls in white and correlated noise")
    side, fields = (1024, 2) if args.quick else (1536, 4)
    rows: dict[str, Any] = {}
    verdicts = []
    for kind, smoothing in SMOOTHING.items():
        parts: dict[str, list[dict[str, NDArray[Any]]]] = {"imcat": [], "sep": []}
        for seed in range(fields):
            image, truth = field(seed, side, smoothing)
            parts["imcat"].append(residuals_of(measure_imcat(image, seed), truth))
            parts["sep"].append(residuals_of(measure_sep(image), truth))
        limits = (0.95, 1.05) if kind == "white" else (0.9, 1.1)
        for code, found in parts.items():
            table = pull_widths(found)
            rows[f"{kind}, {code}"] = {
                name: [(r.low, r.high, r.number, r.pull_width, r.pull_width_err) for r in values]
                for name, values in table.items()
            }
            for name, values in table.items():
                by_bin = "  ".join(f"{r.pull_width:.2f}" for r in values[1:])
                first = values[0]
                print(
                    f"   {kind:10} {code:5} {name:13} pull width {first.pull_width:.3f} ± {first.pull_width_err:.3f} "
                    f"of {first.number}; S/N 20–40, 40–80, 80–200: {by_bin}"
                )
                if code == "imcat":
                    reached = limits[0] <= first.pull_width <= limits[1]
                    verdicts.append(
                        verdict(f"{kind} {name}", first.pull_width, f"{limits[0]}–{limits[1]}", reached)
                    )
    save("pulls", {**about, "rows": rows, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
