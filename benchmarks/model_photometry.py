"""PSF and model fluxes of simulated stars, galaxies and pairs: bias, scatter, pulls, and the Cramér–Rao bound.

Sources of known flux, place and shape stand on a grid in five bands like those of SDSS (a PSF, an offset and a noise
for each). Noise is white, or smoothed by a Gaussian of sigma 0.8 pixel as resampling does. The PSF that imcat uses is the
one that it measures on the stars of the tile. The Cramér–Rao bound is that of flux and position together, for the true
PSF, sky and photon noise; its curve and the figures go to ``docs/_static/photometry-*.png``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, print_header, save, verdict
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from imcat.catalogue import match_xy
from imcat.config import Config
from imcat.evaluate.measurement import robust_scatter
from imcat.pipeline import measure_positions, process_tile
from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import Components, ellipses, points
from imcat.render.draw import draw
from imcat.render.profiles import sersic_mixture
from imcat.simulate.sdss_camera import tangent_wcs
from imcat.tile import ArrayPixels, Band, Exposure, Tile

Float64 = NDArray[np.float64]

SCALE = 0.396  # arcsec per pixel
SHAPE = (1489, 2048)
#: Band: wavelength (Å), FWHM (arcsec), rms of a pixel (nJy), electrons per nJy; of the order of real frames'.
BANDS = {
    "u": (3543.0, 1.45, 155.0, 0.045),
    "g": (4770.0, 1.40, 60.0, 0.25),
    "r": (6231.0, 1.30, 97.0, 0.25),
    "i": (7625.0, 1.25, 150.0, 0.18),
    "z": (9134.0, 1.25, 575.0, 0.04),
}
#: Flux of a star relative to r; of a galaxy.
STAR_COLOURS = {"u": 0.35, "g": 0.7, "r": 1.0, "i": 1.15, "z": 1.2}
GALAXY_COLOURS = {"u": 0.12, "g": 0.45, "r": 1.0, "i": 1.45, "z": 1.9}
SMOOTHING = {"white": 0.0, "correlated": 0.8}
_BOUNDED = {
    "flux": "flux over the Cramér–Rao bound",
    "position": "position over the Cramér–Rao bound of the reference band",
    "position of all bands": "position over the Cramér–Rao bound of all bands",
}
_STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"


@dataclass(frozen=True, eq=False)
class Scene:
    """A tile and its truth: x and y in r, fluxes ``[n, bands]``, and which sources count."""

    tile: Tile
    x: Float64
    y: Float64
    flux: Float64
    kind: NDArray[Any]
    shape: dict[str, Float64]


def psf_of(band: str) -> PsfMixture:
    """The PSF of a band, a little elliptical."""
    return moffat_mixture(BANDS[band][1] / SCALE, 3.2, ellipticity=(0.03, -0.02))


def make_scene(
    name: str,
    x: Float64,
    y: Float64,
    flux: Float64,
    components: Components,
    *,
    seed: int,
    smoothing: float = 0.0,
    kind: NDArray[Any] | None = None,
    shape: dict[str, Float64] | None = None,
) -> Scene:
    """Draw sources in all bands, and add the noise of sky and photons."""
    rng = np.random.default_rng(seed)
    bands, reference = [], None
    for k, (band, (wavelength, _, rms, gain)) in enumerate(BANDS.items()):
        offset = np.zeros(2) if band == "r" else rng.uniform(-5, 5, 2)
        wcs = tangent_wcs(150.0, 2.0, 0.0, SHAPE, offset, SCALE)
        if band == "r":
            reference = wcs
        at_x, at_y = x + offset[0], y + offset[1]  # the same tangent point, moved
        light = np.zeros(SHAPE, np.float32)
        jacobian = np.array([[-1.0, 0.0], [0.0, 1.0]]) / SCALE
        draw(light, components, k, at_x, at_y, jacobian, psf_of(band), floor=1e-3 * rms)
        noise = rng.normal(0, 1, SHAPE)
        if smoothing:
            noise = gaussian_filter(noise, smoothing, mode="wrap")
            noise /= noise.std()
        photons = rng.normal(0, 1, SHAPE) * np.sqrt(np.maximum(light, 0) / gain)
        image = (light + rms * noise + photons).astype(np.float32)
        variance = np.full(SHAPE, rms**2, np.float32)
        exposure = Exposure(
            f"{name}-{band}", ArrayPixels(image), wcs, variance=ArrayPixels(variance), gain=gain
        )
        bands.append(Band(band, wavelength, (exposure,)))
    assert reference is not None
    tile = Tile(name, "generic", seed + 1, tuple(bands), "r")
    return Scene(tile, x, y, flux, np.zeros(x.size, int) if kind is None else kind, shape or {})


def grid(spacing: float, seed: int, margin: float = 60.0) -> tuple[Float64, Float64]:
    """Places on a grid, each moved by up to half a pixel."""
    rng = np.random.default_rng(seed)
    gx, gy = np.meshgrid(
        np.arange(margin, SHAPE[1] - margin, spacing), np.arange(margin, SHAPE[0] - margin, spacing)
    )
    return (g.ravel() + rng.uniform(-0.5, 0.5, g.size) for g in (gx, gy))  # type: ignore[return-value]


def flux_of_snr(snr: Float64, band: str = "r") -> Float64:
    """Flux of a star with a matched-filter S/N in sky noise only."""
    return np.asarray(snr * BANDS[band][2] / math.sqrt(float(np.sum(psf_of(band).image(41) ** 2))))


def colours(table: dict[str, float]) -> Float64:
    return np.array([table[b] for b in BANDS])


def star_scene(seed: int, smoothing: float) -> Scene:
    """Stars of S/N 8 to 400 in r, 48 pixels apart, and a tenth that are brighter: a field's stars for the PSF."""
    rng = np.random.default_rng([seed, 1])
    x, y = grid(48, seed)
    snr = np.exp(rng.uniform(np.log(8), np.log(400), x.size))
    snr[rng.random(x.size) < 0.1] *= 10
    flux = flux_of_snr(snr)[:, None] * colours(STAR_COLOURS)
    return make_scene(f"stars-{seed}", x, y, flux, points(flux), seed=seed, smoothing=smoothing)


def galaxy_scene(seed: int, smoothing: float) -> Scene:
    """Galaxies of 17 < r < 21 among stars, about as many as a field has: exponentials, de Vaucouleurs, Sérsic profiles."""
    rng = np.random.default_rng([seed, 2])
    x, y = grid(84, seed)
    n = x.size
    kind = rng.choice(4, n, p=[0.45, 0.25, 0.13, 0.17])  # star, exponential, de Vaucouleurs, Sérsic
    mag = 21 - np.minimum(rng.exponential(1.1, n), 4.0)
    index = np.select([kind == 1, kind == 2], [1.0, 4.0], rng.uniform(0.7, 3.5, n))
    # Median and scatter of half-light radii of SDSS galaxies near these magnitudes (Shen et al. 2003 at z ~ 0.1-0.3).
    radius = np.exp(rng.normal(math.log(1.1), 0.35, n)) * 10 ** (-0.12 * (mag - 20))
    axis_ratio, angle = np.clip(rng.normal(0.65, 0.2, n), 0.2, 1), rng.uniform(0, 180, n)
    total = 3631e9 * 10 ** (-0.4 * mag)
    flux = total[:, None] * np.where(kind[:, None] == 0, colours(STAR_COLOURS), colours(GALAXY_COLOURS))
    parts = [points(np.where(kind[:, None] == 0, flux, 0.0))]
    for value in np.unique(np.round(index[kind > 0], 2)):
        one = np.flatnonzero((kind > 0) & (np.round(index, 2) == value))
        parts.append(
            ellipses(one, flux[one], radius[one], axis_ratio[one], angle[one], sersic_mixture(float(value)))
        )
    shape = {"index": np.round(index, 2), "radius": radius, "axis_ratio": axis_ratio, "mag": mag}
    return make_scene(
        f"galaxies-{seed}", x, y, flux, Components.concatenate(parts), seed=seed, smoothing=smoothing,
        kind=kind, shape=shape,
    )  # fmt: skip


def pair_scene(seed: int) -> Scene:
    """Pairs of stars 1 to 3 FWHM apart, S/N of 30 to 200, and single stars that tell the PSF."""
    rng = np.random.default_rng([seed, 3])
    x, y = grid(64, seed)
    n = x.size
    fwhm = BANDS["r"][1] / SCALE
    apart, angle = rng.uniform(1, 3, n) * fwhm, rng.uniform(0, 2 * np.pi, n)
    single = rng.random(n) < 0.3
    bx, by = x + apart * np.cos(angle), y + apart * np.sin(angle)
    snr = np.exp(rng.uniform(np.log(30), np.log(200), (2, n)))
    snr[0, single] *= 2
    flux = np.concatenate([flux_of_snr(snr[0]), flux_of_snr(snr[1, ~single])])[:, None] * colours(
        STAR_COLOURS
    )
    separation = np.concatenate([np.where(single, np.nan, apart / fwhm), apart[~single] / fwhm])
    pair = np.concatenate([np.arange(n), np.flatnonzero(~single)]) + 1e6 * seed
    return make_scene(
        f"pairs-{seed}", np.concatenate([x, bx[~single]]), np.concatenate([y, by[~single]]), flux, points(flux),
        seed=seed, shape={"separation": separation, "pair": pair},
    )  # fmt: skip


def cramer_rao(flux: float, band: str) -> tuple[float, float]:
    """Smallest errors of flux (nJy) and of one coordinate (arcsec) of a star; flux and position fitted together."""
    size, step = 41, 1e-3
    psf = psf_of(band)
    image = psf.image(size)
    shifted = moffat_shifted(psf, size, step)
    slope = [(flux / (2 * step)) * (plus - minus) for plus, minus in shifted]
    variance = BANDS[band][2] ** 2 + flux * image / BANDS[band][3]
    derivatives = [image, *slope]
    fisher = np.array([[float(np.sum(a * b / variance)) for a in derivatives] for b in derivatives])
    covariance = np.linalg.inv(fisher)
    return math.sqrt(covariance[0, 0]), math.sqrt(0.5 * (covariance[1, 1] + covariance[2, 2])) * SCALE


def moffat_shifted(psf: PsfMixture, size: int, step: float) -> list[tuple[Float64, Float64]]:
    """The PSF moved by plus and minus a step along x and along y."""
    result = []
    for axis in (0, 1):
        images = []
        for sign in (1, -1):
            image = np.zeros((size, size))
            at = [np.array([(size - 1) / 2])] * 2
            at[axis] = at[axis] + sign * step
            draw(image, points(np.array([[1.0]])), 0, at[0], at[1], np.eye(2), psf, floor=1e-12)
            images.append(image)
        result.append((images[0], images[1]))
    return result


def measured(scene: Scene) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]]:
    """The catalogue of a scene, and the pairs of its rows with the truth."""
    catalogue = process_tile(scene.tile, Config()).catalogue
    pairs = match_xy(np.asarray(catalogue["x"]), np.asarray(catalogue["y"]), scene.x, scene.y, 1.5)
    return catalogue, pairs.first, pairs.second


def column(catalogue: Any, name: str, rows: NDArray[np.int64]) -> Float64:
    return np.asarray(catalogue[name], dtype=np.float64)[rows]


def collect(scenes: list[Scene], names: list[str]) -> tuple[dict[str, Float64], dict[str, Float64]]:
    """Columns of matched sources of several scenes, and their truth."""
    found: dict[str, list[Float64]] = {name: [] for name in names}
    truth: dict[str, list[Float64]] = {}
    for scene in scenes:
        catalogue, rows, true = measured(scene)
        for name in names:
            found[name].append(column(catalogue, name, rows))
        facts = {"x": scene.x, "y": scene.y, "kind": scene.kind.astype(float), **scene.shape}
        facts |= {f"flux_{b}": scene.flux[:, k] for k, b in enumerate(BANDS)}
        for name, values in facts.items():
            truth.setdefault(name, []).append(values[true])
    return (
        {k: np.concatenate(v) for k, v in found.items()},
        {k: np.concatenate(v) for k, v in truth.items()},
    )


def pull_width(residual: Float64, error: Float64) -> float:
    good = np.isfinite(residual) & (error > 0)
    pull = residual[good] / error[good]
    return robust_scatter(pull - np.median(pull))


def stars(seeds: int, noise: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Isolated stars: bias, pulls, variance against the Cramér–Rao bound."""
    names = ["x", "y", "ra_err", "dec_err", *(f"{b}_psf_flux{e}" for b in BANDS for e in ("", "_err"))]
    found, true = collect([star_scene(s, SMOOTHING[noise]) for s in range(seeds)], names)
    rows: dict[str, Any] = {"number": int(found["x"].size)}
    verdicts = []
    low, high = (0.95, 1.05) if noise == "white" else (0.9, 1.1)
    for band in BANDS:
        flux, error, exact = found[f"{band}_psf_flux"], found[f"{band}_psf_flux_err"], true[f"flux_{band}"]
        bright = exact > 50 * np.median(error[exact < np.percentile(exact, 30)])
        bias = float(np.median(flux[bright] / exact[bright] - 1))
        width = pull_width(flux - exact, error)
        rows[band] = {"bias": bias, "pull": width}
        print(f"   stars, {noise:10} {band}: bias at S/N > 50 {bias:+.4f}, pull width {width:.3f}")
        verdicts.append(
            verdict(f"stars, {noise}, {band}: pull width", width, f"{low}–{high}", low <= width <= high)
        )
        if noise == "white":
            verdicts.append(verdict(f"stars, {band}: bias at S/N > 50", bias, "<= 0.003", abs(bias) <= 0.003))
    for axis, err in (("x", "ra_err"), ("y", "dec_err")):
        width = pull_width((found[axis] - true[axis]) * SCALE, found[err])
        verdicts.append(
            verdict(f"stars, {noise}, {axis}: pull width", width, f"{low}–{high}", low <= width <= high)
        )
    if noise == "white":
        rows["bound"] = bound_table(found, true)
        for row in rows["bound"]:
            print(
                "   S/N {low:.0f}-{high:.0f}: variance over the bound: flux {flux:.2f}, position {position:.2f}, "
                "of all bands {position of all bands:.2f}".format(**row)
            )
        counted = [row for row in rows["bound"] if row["low"] >= 10 and row["high"] <= 100]
        for name in ("flux", "position", "position of all bands"):
            value = float(np.average([r[name] for r in counted], weights=[r["number"] for r in counted]))
            verdicts.append(verdict(f"stars: variance of {_BOUNDED[name]}", value, "<= 1.1", value <= 1.1))
        draw_stars(found, true)
    return rows, verdicts


def bounds(r: Float64) -> tuple[Float64, Float64, Float64]:
    """Smallest errors of r fluxes (nJy), and of a coordinate (arcsec) in r and in all bands, of stars of some r flux."""
    each = {b: np.array([cramer_rao(float(f) * STAR_COLOURS[b], b) for f in r]) for b in BANDS}
    # Independent images: their information about the place adds up.
    joint = 1 / np.sqrt(np.sum([1 / values[:, 1] ** 2 for values in each.values()], axis=0))
    return each["r"][:, 0], each["r"][:, 1], joint


def bound_table(found: dict[str, Float64], true: dict[str, Float64]) -> list[dict[str, Any]]:
    """Variance of r fluxes and of positions over the bound, by S/N."""
    exact = true["flux_r"]
    snr = exact / flux_of_snr(np.array(1.0))
    of_flux, of_place, joint = bounds(exact)
    flux = (found["r_psf_flux"] - exact) / of_flux
    away = {a: (found[a] - true[a]) * SCALE for a in ("x", "y")}
    place, every = (np.concatenate([away[a] / one for a in away]) for one in (of_place, joint))
    rows = []
    for low, high in ((10, 20), (20, 40), (40, 100), (100, 400)):
        use = (snr >= low) & (snr < high) & np.isfinite(flux)
        rows.append(
            {
                "low": low,
                "high": high,
                "number": int(use.sum()),
                "flux": robust_scatter(flux[use]) ** 2,
                "position": robust_scatter(place[np.tile(use, 2)]) ** 2,
                "position of all bands": robust_scatter(every[np.tile(use, 2)]) ** 2,
            }
        )
    return rows


def galaxies(seeds: int, noise: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Isolated galaxies: biases of fluxes and colours, pulls, recovery of Sérsic's parameters."""
    flux_names = [
        f"{b}_{k}{e}" for b in BANDS for k in ("model_flux", "cmodel_flux", "kron_flux") for e in ("", "_err")
    ]
    names = [*flux_names, "sersic_index", "sersic_index_err", "sersic_radius", "psf_minus_model"]
    found, true = collect([galaxy_scene(s, SMOOTHING[noise]) for s in range(seeds)], names)
    galaxy = true["kind"] > 0
    rows: dict[str, Any] = {"number": int(galaxy.sum())}
    verdicts = []
    low, high = (0.95, 1.05) if noise == "white" else (0.9, 1.1)
    for band in BANDS:
        exact = true[f"flux_{band}"]
        row = {}
        for kind in ("model_flux", "cmodel_flux", "kron_flux"):
            ratio = found[f"{band}_{kind}"][galaxy] / exact[galaxy]
            row[kind] = float(np.nanmedian(ratio) - 1)
            # A profile that is neither of the two leaves a bias of its own: pulls of those that are one of them.
            pure = (true["kind"] == 1) | (true["kind"] == 2)
            residual = found[f"{band}_{kind}"][pure] - exact[pure]
            row[f"{kind} pull"] = pull_width(residual, found[f"{band}_{kind}_err"][pure])
        rows[band] = row
        print(f"   galaxies, {noise:10} {band}: " + ", ".join(f"{k} {v:+.3f}" for k, v in row.items()))
        width = row["model_flux pull"]
        verdicts.append(
            verdict(f"galaxies, {noise}, {band}: pull width", width, f"{low}–{high}", low <= width <= high)
        )
    if noise == "correlated":
        return rows, verdicts
    bias = rows["r"]["cmodel_flux"]
    verdicts.append(verdict("galaxies, r < 21: bias of cModel flux", bias, "<= 0.02", abs(bias) <= 0.02))
    for blue, red in (("g", "r"), ("r", "i")):
        colour = -2.5 * np.log10(found[f"{blue}_model_flux"] / found[f"{red}_model_flux"])
        exact = -2.5 * np.log10(true[f"flux_{blue}"] / true[f"flux_{red}"])
        value = float(np.nanmedian((colour - exact)[galaxy]))
        verdicts.append(
            verdict(f"galaxies, r < 21: bias of {blue}-{red}", value, "<= 0.01", abs(value) <= 0.01)
        )
    rows["sersic"] = sersic_table(found, true)
    for row in rows["sersic"]:
        print(
            "   Sérsic, r {low:.0f}-{high:.0f} ({number}): index {index:+.3f} ± {index_scatter:.3f}, radius {radius:+.3f} ± {radius_scatter:.3f}".format(
                **row
            )
        )
    draw_galaxies(found, true)
    return rows, verdicts


def sersic_table(found: dict[str, Float64], true: dict[str, Float64]) -> list[dict[str, Any]]:
    """Relative bias and scatter of Sérsic index and radius by magnitude."""
    rows = []
    index = found["sersic_index"] / true["index"] - 1
    radius = found["sersic_radius"] / true["radius"] - 1
    for low in range(17, 21):
        use = (
            (true["kind"] > 0) & (true["mag"] >= low) & (true["mag"] < low + 1) & np.isfinite(index + radius)
        )
        if use.sum() < 5:
            continue
        rows.append(
            {
                "low": low,
                "high": low + 1,
                "number": int(use.sum()),
                "index": float(np.median(index[use])),
                "index_scatter": robust_scatter(index[use]),
                "radius": float(np.median(radius[use])),
                "radius_scatter": robust_scatter(radius[use]),
            }
        )
    return rows


def pairs(seeds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pairs: pulls of PSF fluxes by separation where both stars were detected, beside sep's deblended fluxes.

    A pair that was detected as one source has one flux, that of both: the number says how many those are. Forced
    photometry at the true places shows the fit alone.
    """
    scenes = [pair_scene(s) for s in range(seeds)]
    found, true = collect(scenes, ["r_psf_flux", "r_psf_flux_err"])
    _, place, number = np.unique(true["pair"], return_inverse=True, return_counts=True)
    both = number[place] == 2
    other = [sep_fluxes(scene) for scene in scenes]
    sep_ratio, sep_apart = np.concatenate([o[0] for o in other]), np.concatenate([o[1] for o in other])
    apart = np.concatenate([s.shape["separation"] for s in scenes])
    forced = [forced_fluxes(scene) for scene in scenes]
    forced_residual, forced_error = (np.concatenate([f[k] for f in forced]) for k in (0, 1))
    residual, error = found["r_psf_flux"] - true["flux_r"], found["r_psf_flux_err"]
    rows = []
    for low, high in ((1, 1.5), (1.5, 2), (2, 3)):
        within = (true["separation"] >= low) & (true["separation"] < high)
        use, all_of_them = within & both, (apart >= low) & (apart < high)
        theirs = sep_ratio[(sep_apart >= low) & (sep_apart < high)]
        rows.append(
            {
                "low": low,
                "high": high,
                "stars": int(all_of_them.sum()),
                "number": int(use.sum()),
                "pull": pull_width(residual[use], error[use]),
                "scatter": robust_scatter(residual[use] / true["flux_r"][use]),
                "bias": float(np.median(residual[use] / true["flux_r"][use])),
                "forced_pull": pull_width(forced_residual[all_of_them], forced_error[all_of_them]),
                "sep_number": int(theirs.size),
                "sep_scatter": robust_scatter(theirs),
                "sep_bias": float(np.median(theirs)),
            }
        )
        print(
            "   pairs {low}-{high} FWHM: {stars} stars, {number} in pairs that were separated: pull {pull:.2f}, flux "
            "{bias:+.3f} ± {scatter:.3f}; forced pull {forced_pull:.2f}; sep: {sep_number} found, {sep_bias:+.3f} ± "
            "{sep_scatter:.3f}".format(**rows[-1])
        )
    separated = np.isfinite(true["separation"]) & both
    paired = np.isfinite(apart)
    width = pull_width(residual[separated], error[separated])
    forced_width = pull_width(forced_residual[paired], forced_error[paired])
    return {"rows": rows, "stars": int(paired.sum())}, [
        verdict("pairs at 1 to 3 FWHM: pull width of PSF fluxes", width, "<= 1.3", width <= 1.3),
        verdict("the same, forced at true places", forced_width, "<= 1.3", forced_width <= 1.3),
    ]


def forced_fluxes(scene: Scene) -> tuple[Float64, Float64]:
    """Residuals and errors of r PSF fluxes at the true places."""
    world = scene.tile.reference_exposure.wcs.all_pix2world(scene.x, scene.y, 0)
    columns, _ = measure_positions(scene.tile, Config(), world[0], world[1])
    exact = scene.flux[:, list(BANDS).index("r")]
    return columns["r_psf_flux"] - exact, columns["r_psf_flux_err"]


def sep_fluxes(scene: Scene) -> tuple[Float64, Float64]:
    """Relative errors of sep's deblended automatic fluxes of the stars in pairs, and the separations."""
    import sep

    exposure = scene.tile.reference_exposure
    image = np.ascontiguousarray(exposure.image.read(_whole()))
    found = sep.extract(image, 1.5, err=BANDS["r"][2], minarea=5, deblend_cont=0.001, deblend_nthresh=64,
                        filter_kernel=psf_of("r").image(7))  # fmt: skip
    match = match_xy(found["x"], found["y"], scene.x, scene.y, 1.5)
    radius, _ = sep.kron_radius(image, found["x"], found["y"], found["a"], found["b"], found["theta"], 6.0)
    flux, _, _ = sep.sum_ellipse(
        image,
        found["x"],
        found["y"],
        found["a"],
        found["b"],
        found["theta"],
        np.maximum(2.5 * radius, 3.5),
        subpix=5,
    )
    apart = scene.shape["separation"][match.second]
    exact = scene.flux[match.second, list(BANDS).index("r")]
    ratio = flux[match.first] / exact - 1
    return ratio[np.isfinite(apart)], apart[np.isfinite(apart)]


def _whole() -> Any:
    from imcat.window import Window

    return Window.whole(SHAPE)


def draw_stars(found: dict[str, Float64], true: dict[str, Float64]) -> None:
    """Errors of stars against S/N, with the bound drawn in."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    exact = true["flux_r"]
    snr = exact / flux_of_snr(np.array(1.0))
    curve = np.geomspace(8, 400, 40)
    of_flux, of_place, joint = bounds(flux_of_snr(curve))
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    relative = (found["r_psf_flux"] - exact) / exact
    place = np.hypot(found["x"] - true["x"], found["y"] - true["y"]) * SCALE
    axes[0].semilogx(snr, relative, ".", ms=2, alpha=0.5)
    for sign in (1, -1):
        axes[0].plot(
            curve,
            sign * of_flux / flux_of_snr(curve),
            "k-",
            lw=1,
            label="Cramér–Rao" if sign > 0 else None,
        )
    axes[0].set(xlabel="S/N in r", ylabel="relative error of PSF flux", ylim=(-0.4, 0.4))
    axes[0].legend()
    axes[1].loglog(snr, place, ".", ms=2, alpha=0.5)
    axes[1].plot(curve, 1.177 * of_place, "k--", lw=1, label="median at the bound of r")
    axes[1].plot(curve, 1.177 * joint, "k-", lw=1, label="median at the bound of all bands")
    axes[1].set(xlabel="S/N in r", ylabel="distance (arcsec)")
    axes[1].legend()
    pull = (found["r_psf_flux"] - exact) / found["r_psf_flux_err"]
    axes[2].hist(pull, np.linspace(-5, 5, 51), density=True, color="0.7")
    x = np.linspace(-5, 5, 200)
    axes[2].plot(x, np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi), "k-", lw=1)
    axes[2].set(xlabel="pull of PSF flux in r", ylabel="density")
    figure.savefig(_STATIC / "photometry-stars.png", dpi=110)
    plt.close(figure)


def draw_galaxies(found: dict[str, Float64], true: dict[str, Float64]) -> None:
    """Biases of galaxies' fluxes against magnitude, and Sérsic's parameters."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    use = true["kind"] > 0
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for kind, colour in (("kron_flux", "0.6"), ("cmodel_flux", "C0")):
        axes[0].plot(
            true["mag"][use],
            -2.5 * np.log10(found[f"r_{kind}"] / true["flux_r"])[use],
            ".",
            ms=2,
            color=colour,
            label=kind,
        )
    axes[0].axhline(0, color="k", lw=0.8)
    axes[0].set(xlabel="true r", ylabel="measured - true r", ylim=(-0.4, 0.6))
    axes[0].legend()
    axes[1].plot(true["index"][use], found["sersic_index"][use], ".", ms=2)
    axes[1].plot([0.5, 5], [0.5, 5], "k-", lw=0.8)
    axes[1].set(xlabel="true Sérsic index", ylabel="measured", xlim=(0.4, 5), ylim=(0.4, 8))
    axes[2].loglog(true["radius"][use], found["sersic_radius"][use], ".", ms=2)
    axes[2].plot([0.3, 6], [0.3, 6], "k-", lw=0.8)
    axes[2].set(xlabel="true half-light radius (arcsec)", ylabel="measured")
    figure.savefig(_STATIC / "photometry-galaxies.png", dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("PSF and model fluxes of simulated sources")
    seeds = 1 if args.quick else 3
    result: dict[str, Any] = {}
    verdicts: list[dict[str, Any]] = []
    for noise in SMOOTHING:
        for name, section in (("stars", stars), ("galaxies", galaxies)):
            # A field has fewer galaxies than stars.
            count = seeds if section is stars else 4 * seeds
            result[f"{name}, {noise}"], judged = section(count, noise)
            verdicts += judged
    result["pairs"], judged = pairs(seeds)
    save("model_photometry", {**about, "rows": result, "verdicts": verdicts + judged}, quick=args.quick)


if __name__ == "__main__":
    main()
