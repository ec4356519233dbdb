"""A globular cluster: PSF photometry of imcat and of photutils' iterative fit on the same image.

Stars follow a King profile (King 1962, AJ 67, 471) on a uniform field, with up to 100 stars above the limit in a square
arcminute. photutils gets the true PSF, groups within two FWHM, and its iterative mode; imcat measures the PSF itself.
Times are of the calls alone, after a first one on another image. Sources are compared where both codes found them.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from common import arguments, print_header, save, verdict
from numpy.typing import NDArray

from imcat.catalogue import match_xy
from imcat.config import Config
from imcat.evaluate.measurement import robust_scatter
from imcat.pipeline import process_tile
from imcat.psf.mixture import moffat_mixture
from imcat.render.components import points
from imcat.render.draw import draw
from imcat.simulate.sdss_camera import tangent_wcs
from imcat.tile import ArrayPixels, Band, Exposure, Tile

Float64 = NDArray[np.float64]

SCALE, FWHM, BETA = 0.396, 1.3, 3.2  # arcsec, arcsec, Moffat's exponent
RMS, GAIN = 97.0, 0.25  # nJy, electrons per nJy
SIDE = 620  # pixels: 4.1 arcmin
CORE, TIDAL = 0.6, 4.0  # arcmin
FAINTER = 1.5  # magnitudes below the limit to which stars go
#: Points alone, as photutils is asked for: neither galaxies nor what belongs to them.
STARS = Config().replace(
    models={"galaxies": False}, measure={"survey_quantities": False}, classify_sources=False
)
EDGES = (17.0, 18.0, 19.0, 20.0, 21.0, 22.0)


@dataclass(frozen=True, eq=False)
class Field:
    """An image, and the stars in it: x, y, flux."""

    image: NDArray[np.float32]
    stars: Float64


def limit() -> float:
    """Flux of an isolated star of S/N 5."""
    image = moffat_mixture(FWHM / SCALE, BETA).image(41)
    return 5 * RMS / math.sqrt(float(np.sum(image**2)))


def cluster(seed: int, density: float) -> Field:
    """A cluster with that many stars above the limit in the arcminute around its centre."""
    rng = np.random.default_rng(seed)
    edge = limit() * 10 ** (-0.4 * FAINTER)
    # Cumulative counts N(> f) ~ f^-0.5, to r = 15.
    share = (edge / limit()) ** 0.5
    number = int(density * math.pi * 4 / share)
    radius = np.linspace(0, TIDAL, 2000)
    profile = (1 / np.sqrt(1 + (radius / CORE) ** 2) - 1 / math.sqrt(1 + (TIDAL / CORE) ** 2)) ** 2
    cumulative = np.cumsum(profile * radius)
    cumulative /= cumulative[-1]
    inside = np.interp(0.5, radius, cumulative)  # of the half arcmin around the centre
    number = int(density * math.pi * 0.25 / share / inside)
    r = np.interp(rng.random(number), cumulative, radius) * 60 / SCALE
    angle = rng.uniform(0, 2 * np.pi, number)
    x, y = SIDE / 2 + r * np.cos(angle), SIDE / 2 + r * np.sin(angle)
    bright = 3631e9 * 10 ** (-0.4 * 15.0)
    low, high = edge**-0.5, bright**-0.5
    flux = (low + rng.random(number) * (high - low)) ** -2.0
    near = (x > -10) & (y > -10) & (x < SIDE + 10) & (y < SIDE + 10)
    x, y, flux = x[near], y[near], flux[near]
    light = np.zeros((SIDE, SIDE), np.float32)
    jacobian = np.array([[-1.0, 0.0], [0.0, 1.0]]) / SCALE
    draw(
        light, points(flux[:, None]), 0, x, y, jacobian, moffat_mixture(FWHM / SCALE, BETA), floor=1e-3 * RMS
    )
    variance = RMS**2 + light / GAIN
    image = light + rng.standard_normal(light.shape) * np.sqrt(variance)
    return Field(image.astype(np.float32), np.column_stack([x, y, flux]))


def measure_imcat(field: Field, seed: int) -> tuple[Float64, float]:
    """X, y, flux, error of the sources, and seconds."""
    wcs = tangent_wcs(150.0, 2.0, 0.0, field.image.shape, (0.0, 0.0), SCALE)
    exposure = Exposure(
        "cluster", ArrayPixels(field.image), wcs, gain=GAIN,
        variance=ArrayPixels(np.full(field.image.shape, RMS**2, np.float32)),
    )  # fmt: skip
    tile = Tile(f"cluster-{seed}", "generic", seed, (Band("r", 6231.0, (exposure,)),), "r")
    start = time.perf_counter()
    catalogue = process_tile(tile, STARS, threads=2).catalogue
    seconds = time.perf_counter() - start
    names = ("x", "y", "r_psf_flux", "r_psf_flux_err")
    return np.column_stack([np.asarray(catalogue[n], np.float64) for n in names]), seconds


def measure_photutils(field: Field) -> tuple[Float64, float]:
    """The same of photutils' iterative PSF photometry with the true PSF."""
    from photutils.detection import DAOStarFinder
    from photutils.psf import ImagePSF, IterativePSFPhotometry, SourceGrouper

    size, fine = 31, 4
    # The effective PSF, sampled four times a pixel: a mixture of Gaussians is known everywhere.
    base = moffat_mixture(FWHM / SCALE, BETA)
    big = type(base)(base.weights, base.covariances * fine**2)
    model = ImagePSF(big.image(size * fine) * fine**2, oversampling=fine)
    start = time.perf_counter()
    # Its threshold is one on the amplitude that it fits, in units of that amplitude's own noise.
    finder = DAOStarFinder(threshold=3.5 * RMS, fwhm=FWHM / SCALE)
    fit = IterativePSFPhotometry(
        model, (9, 9), finder, grouper=SourceGrouper(2 * FWHM / SCALE), aperture_radius=4, maxiters=3,
        mode="new", sub_shape=(size, size),
    )  # fmt: skip
    error = np.sqrt(RMS**2 + np.maximum(field.image, 0) / GAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits that stop at their limit of steps
        table = fit(np.asarray(field.image, np.float64), error=np.asarray(error, np.float64))
    seconds = time.perf_counter() - start
    columns = [np.asarray(table[n], np.float64) for n in ("x_fit", "y_fit", "flux_fit", "flux_err")]
    return np.column_stack(columns), seconds


def judge(field: Field, found: Float64) -> dict[str, Any]:
    """Completeness by magnitude, false detections, bias and scatter of fluxes, pull."""
    stars = field.stars
    mag = 31.4 - 2.5 * np.log10(stars[:, 2])
    good = np.isfinite(found[:, :3]).all(axis=1) & (found[:, 2] > 0)
    found = found[good]
    order = np.argsort(-stars[:, 2], kind="stable")
    pairs = match_xy(found[:, 0], found[:, 1], stars[order, 0], stars[order, 1], 1.0 / SCALE * 0.6)
    true = order[pairs.second]
    off = -2.5 * np.log10(found[pairs.first, 2] / stars[true, 2])
    pull = (found[pairs.first, 2] - stars[true, 2]) / found[pairs.first, 3]
    inside = (stars[:, 0] > 8) & (stars[:, 1] > 8) & (stars[:, 0] < SIDE - 9) & (stars[:, 1] < SIDE - 9)
    rows = []
    for low, high in pairwise(EDGES):
        here = inside & (mag >= low) & (mag < high)
        matched = np.isin(np.flatnonzero(here), true)
        chosen = np.isin(true, np.flatnonzero(here))
        rows.append(
            {
                "low": low,
                "high": high,
                "stars": int(here.sum()),
                "completeness": float(matched.mean()),
                "bias": float(np.median(off[chosen])),
                "scatter": robust_scatter(off[chosen]),
                "pull": robust_scatter(pull[chosen]),
            }
        )
    return {"rows": rows, "found": len(found), "matched": int(pairs.first.size), "index": true, "off": off}


def completeness(rows: list[dict[str, Any]]) -> float:
    """Share of the stars of some bins that were found."""
    return sum(r["completeness"] * r["stars"] for r in rows) / sum(r["stars"] for r in rows)


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("A globular cluster: PSF photometry")
    density = 40.0 if args.quick else 100.0
    measure_imcat(cluster(1, density), 0)
    field = cluster(7, density)
    ours, our_seconds = measure_imcat(field, 1)
    theirs, their_seconds = measure_photutils(field)
    results = {"imcat": judge(field, ours), "photutils": judge(field, theirs)}
    for name, result in results.items():
        print(f"   {name}: {result['found']} found, {result['matched']} of them stars")
        for row in result["rows"]:
            print(
                "     {low:.0f}-{high:.0f} ({stars}): completeness {completeness:.3f}, bias {bias:+.3f}, "
                "scatter {scatter:.3f}, pull {pull:.2f}".format(**row)
            )
    both = np.intersect1d(results["imcat"]["index"], results["photutils"]["index"])
    scatter = {name: robust_scatter(r["off"][np.isin(r["index"], both)]) for name, r in results.items()}
    ratio = their_seconds / our_seconds
    print(
        f"   seconds: imcat {our_seconds:.2f}, photutils {their_seconds:.1f}; scatter of stars both found: {scatter}"
    )
    complete = {n: completeness(r["rows"]) for n, r in results.items()}
    bright = {n: completeness(r["rows"][:4]) for n, r in results.items()}
    verdicts = [
        verdict("time of photutils over that of imcat", ratio, ">= 10", ratio >= 10),
        verdict("completeness over that of photutils", complete["imcat"] / complete["photutils"], ">= 1",
                complete["imcat"] >= complete["photutils"]),
        verdict("completeness over that of photutils, r < 21", bright["imcat"] / bright["photutils"], ">= 1",
                bright["imcat"] >= bright["photutils"]),
        verdict("scatter of fluxes over that of photutils", scatter["imcat"] / scatter["photutils"], "<= 1",
                scatter["imcat"] <= scatter["photutils"]),
    ]  # fmt: skip
    rows = {
        n: {"found": r["found"], "matched": r["matched"], "by magnitude": r["rows"]}
        for n, r in results.items()
    }
    seconds = {"imcat": our_seconds, "photutils": their_seconds}
    save("crowded_psf", {**about, "rows": rows, "seconds": seconds, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
