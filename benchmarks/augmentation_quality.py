"""Generated galaxies and sky beside real ones: looks, distances, two-sample tests, copies, and the texture of sky."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import data_dir, verdict
from numpy.typing import NDArray

from imcat.augment.analytic import analytic_components
from imcat.augment.assembly import augmented_stream
from imcat.augment.assembly_settings import AugmentSettings
from imcat.augment.looks import Looks, distance_ratios, look_at
from imcat.augment.observed import ObservedStamps, Seen, observe
from imcat.augment.quality import nearest_distances, precision_recall, standardised, two_sample_area
from imcat.augment.texture import LAGS, power_spectrum, texture_of
from imcat.augment.trained import load_light, load_sky
from imcat.config import Config
from imcat.pipeline import catalogue_tile
from imcat.render.stamps import render_stamps, stamp_gaussians
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import stream
from imcat.surveys import find_tiles, read_tile
from imcat.train.light_data import real_stamps, sharp_stamps, tile_stamps
from imcat.train.light_training import LightRecipe, generated, training_stamps
from imcat.train.sky_data import SkyPatches, real_sky, tile_sky

TEST = "003918-3-0213"
TRAINING = ("001035-6-0017", "002820-3-0122", "007264-3-0111")
VALIDATION = ("001992-1-0087", "008162-6-0080")
CSST_RECIPE = Path(__file__).resolve().parents[1] / "weights" / "recipes" / "light_csst.toml"
REPEATS = 4  # generated galaxies for each real one, in other random numbers
_BATCH = 48
_DETAIL = 30.0  # signal-to-noise ratio of a PSF above which the simulator draws structure
_CLOSEST = 0.05  # share of the stamps that lie nearest to one of the training
_SIDE = 48  # pixels of sky without gaps, for power spectra

Array = NDArray[Any]
Maker = Callable[[Seen, int], torch.Tensor]


def of_generator(name: str) -> Maker:
    """Stamps of the generator that comes with imcat."""
    light = load_light(name)

    def make(seen: Seen, seed: int) -> torch.Tensor:
        return generated(light.generator, seen, torch.Generator().manual_seed(seed))

    return make


def of_simulator(seen: Seen, seed: int) -> torch.Tensor:
    """Stamps of the analytic simulator under the same conditions."""
    rng = np.random.default_rng(seed)
    band = seen.asked.reference
    peak = seen.signal[:, band].amax((1, 2)).numpy()
    # Where the look is asked for it is drawn, as for the galaxies that the simulator made these conditions with.
    made = analytic_components(seen.asked, rng, detail=(peak > _DETAIL) | (seen.asked.morphology >= 0))
    return observe(stamp_gaussians(made, len(seen)), seen, torch.Generator().manual_seed(seed))


def make_all(stamps: ObservedStamps, make: Maker, repeats: int) -> tuple[Array, list[Seen]]:
    """Generated pixels for all stamps, several times, and how they were observed."""
    rng, pixels, seens = np.random.default_rng(8), [], []
    for repeat in range(repeats):
        for start in range(0, len(stamps), _BATCH):
            seen = stamps.batch(np.arange(start, min(start + _BATCH, len(stamps))), rng)
            with torch.no_grad():
                pixels.append(make(seen, 1000 * repeat + start).numpy())
            seens.append(seen)
    return np.concatenate(pixels), seens


def looks_of(pixels: Array, seens: list[Seen], band: int, bands: list[str]) -> Looks:
    """Numbers of stamps."""
    parts, at = [], 0
    for seen in seens:
        own = torch.from_numpy(pixels[at : at + len(seen)])
        parts.append(look_at(own, seen.valid, seen.x, seen.y, seen.noise, band, bands))
        at += len(seen)
    return Looks(np.concatenate([p.values for p in parts]), parts[0].names)


def compare(
    title: str, stamps: ObservedStamps, training: ObservedStamps, makers: dict[str, Maker], bands: list[str], repeats: int
) -> dict[str, Any]:  # fmt: skip
    """Every way of making galaxies beside the real ones of a list."""
    band = stamps.asked.reference
    rng = np.random.default_rng(8)
    own = [
        stamps.batch(np.arange(k, min(k + _BATCH, len(stamps))), rng) for k in range(0, len(stamps), _BATCH)
    ]
    real_pixels = np.concatenate([s.signal.numpy() for s in own])
    real = looks_of(real_pixels, own, band, bands)
    found: dict[str, Any] = {"real": len(stamps)}
    print(
        f"\n   {title}: {len(stamps)} galaxies, {repeats} made for each; ratios of Wasserstein distances to those of halves"
    )
    print(
        "   "
        + " " * 16
        + " ".join(f"{n:>9.9}" for n in real.names)
        + "     mean     area  precision  recall  nearest  closest  flux"
    )
    training_vectors = _vectors(training.signal.astype(np.float32), training.valid, band)
    real_near = nearest_distances(_vectors(real_pixels, stamps.valid, band), training_vectors)
    for name, make in makers.items():
        pixels, seens = make_all(stamps, make, repeats)
        made = looks_of(pixels, seens, band, bands)
        first = Looks(made.values[: len(stamps)], made.names)
        ratios = {k: r for k, (_, r) in distance_ratios(real, made).items()}
        area, error = two_sample_area(real, first)
        ours, theirs = standardised(real, first)
        precision, recall = precision_recall(ours, theirs)
        valid = np.tile(stamps.valid, (repeats, 1, 1, 1))
        near = nearest_distances(_vectors(pixels, valid, band), training_vectors)
        flux = flux_bias(pixels, seens, make)
        row = {
            "ratios": ratios, "mean_ratio": float(np.nanmean(list(ratios.values()))), "area": area, "area_error": error,
            "precision": precision, "recall": recall, "nearest_over_real": float(np.median(near) / np.median(real_near)),
            # Of a few copies among many a median tells nothing.
            "closest_over_real": float(np.quantile(near, _CLOSEST) / np.quantile(real_near, _CLOSEST)), "flux": flux,
        }  # fmt: skip
        found[name] = row
        print(f"   {name:16}" + " ".join(f"{v:9.2f}" for v in ratios.values())
              + f"{row['mean_ratio']:9.2f} {area:.3f}±{error:.3f} {precision:8.2f} {recall:7.2f} {row['nearest_over_real']:8.2f} {row['closest_over_real']:8.2f} {flux:+7.4f}")  # fmt: skip
    return found


def flux_bias(pixels: Array, seens: list[Seen], make: Maker) -> float:
    """Median of the light on the stamps over that of a bulge and a disc of the same conditions there, less one."""
    del make
    ours, theirs, at = [], [], 0
    for seen in seens:
        plain = analytic_components(seen.asked, np.random.default_rng(1), detail=np.zeros(len(seen), bool))
        shape = (int(seen.signal.shape[2]), int(seen.signal.shape[3]))
        drawn = render_stamps(
            stamp_gaussians(plain, len(seen)), seen.x, seen.y, seen.jacobian, seen.psf, shape
        )
        band = seen.asked.reference
        theirs.append((drawn[:, band] / seen.noise[:, band, None, None]).sum((1, 2)).numpy())
        ours.append(
            (torch.from_numpy(pixels[at : at + len(seen)])[:, band] - seen.blank[:, band]).sum((1, 2)).numpy()
        )
        at += len(seen)
    return float(np.median(np.concatenate(ours) / np.concatenate(theirs)) - 1)


def _vectors(signal: Array, valid: Array, band: int) -> Array:
    """Compressed pixels of the reference band, for distances between stamps."""
    return (np.arcsinh(signal[:, band] / 2) * valid[:, band]).reshape(len(signal), -1).astype(np.float32)


def galaxies(folder: Path, *, quick: bool) -> dict[str, Any]:
    """SDSS-like and CSST-like galaxies."""
    base = "sdss/fields/"
    training = real_stamps([base + n for n in TRAINING], folder)
    validation = real_stamps([base + n for n in VALIDATION], folder)
    (source,) = find_tiles([str(data_dir() / "sdss" / "fields" / TEST)])
    path = folder / f"light-{TEST}.npz"
    if not path.exists():
        tile_stamps(read_tile(source)).write(path)
    test = ObservedStamps.read(path)
    repeats = 1 if quick else REPEATS
    sdss = {
        "gan": of_generator("light_sdss"),
        "vae": of_generator("light_sdss_vae"),
        "analytic": of_simulator,
    }
    csst = {
        "vae": of_generator("light_csst"),
        "gan": of_generator("light_csst_gan"),
        "analytic": of_simulator,
    }
    ugriz = list("ugriz")
    found = {
        "sdss test": compare(f"real, {TEST}", test, training, sdss, ugriz, repeats),
        "sdss validation": compare("real, validation fields", validation, training, sdss, ugriz, repeats),
    }
    number = 100 if quick else 400
    bands = ["nuv", "u", "g", "r", "i", "z", "y"]
    recipe = LightRecipe(**tomllib.loads(CSST_RECIPE.read_text(encoding="utf-8"))["light"])
    learned, _ = training_stamps(replace(recipe, galaxies=200) if quick else recipe, folder)
    found["csst"] = compare("simulated, ideal camera", sharp_stamps(number, 909), learned, csst, bands, 1)
    verdicts = []
    for name, default in (("sdss test", "gan"), ("csst", "vae")):
        row = found[name][default]
        worst = max(row["ratios"].values())
        verdicts += [
            verdict(f"{name}: largest ratio of distances", worst, "<= 1.5", worst <= 1.5),
            verdict(f"{name}: mean ratio of distances", row["mean_ratio"], "<= 1.5", row["mean_ratio"] <= 1.5),
            verdict(f"{name}: bias of the flux", row["flux"], "<= 0.02", abs(row["flux"]) <= 0.02),
            verdict(f"{name}: nearest training stamp, over that of real ones", row["nearest_over_real"], ">= 0.9", row["nearest_over_real"] >= 0.9),
            verdict(f"{name}: closest twentieth to a training stamp, over that of real ones", row["closest_over_real"], ">= 0.9", row["closest_over_real"] >= 0.9),
            verdict(f"{name}: recall of real looks", row["recall"], ">= 0.8", row["recall"] >= 0.8),
            verdict(f"{name}: area of the two-sample test", row["area"], "<= 0.6", row["area"] <= 0.6),
        ]  # fmt: skip
    return found | {"verdicts": verdicts}


def skies(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Sky: generated, analytic, and two real fields against the test field and each other."""
    base = "sdss/fields/"
    training = real_sky([base + n for n in TRAINING], folder)
    validation = real_sky([base + n for n in VALIDATION], folder)
    (source,) = find_tiles([str(data_dir() / "sdss" / "fields" / TEST)])
    path = folder / f"sky-{TEST}.npz"
    if not path.exists():
        tile_sky(read_tile(source)).write(path)
    test = SkyPatches.read(path)
    sky = load_sky("sky_sdss")
    side = 384 if quick else 768
    made = (
        sky.sky(side, side, 5)
        .reshape(5, side // 96, 96, side // 96, 96)
        .transpose(1, 3, 0, 2, 4)
        .reshape(-1, 5, 96, 96)
    )
    lists = {
        "gan": (made, np.ones(made.shape, bool)),
        "augmented tiles": _sky_of_tiles(2 if quick else 4, generated=True),
        "analytic": _sky_of_tiles(2 if quick else 4, generated=False),
        "real, training": (training.pixels(), training.valid),
        "real, validation": (validation.pixels(), validation.valid),
    }
    wanted = _texture(test.pixels(), test.valid)
    wave, power = _power(test.pixels(), test.valid)
    found: dict[str, Any] = {"patches": len(test), "wavelength": wave.tolist()}
    print(f"\n   sky of {TEST}, {len(test)} patches: what others differ by")
    print("   " + " " * 18 + "autocorrelation  bands alike  skewness  excess   blocks  histogram  power")
    near = np.array([max(abs(a), abs(b)) <= 2 for a, b in LAGS])
    for name, (pixels, valid) in lists.items():
        own = _texture(pixels, valid)
        _, theirs = _power(pixels, valid)
        ratio = theirs / power
        row = {
            "autocorrelation": float((own.correlation - wanted.correlation).abs().numpy()[:, near].max()),
            "between": float((own.between - wanted.between).abs().max()),
            "skewness": float((own.skewness - wanted.skewness).abs().max()),
            "excess": float((own.excess - wanted.excess).abs().max()),
            "blocks": float((own.blocks / wanted.blocks).log().abs().max()),
            "histogram": _histogram(pixels, valid, test.pixels(), test.valid),
            "power": float(np.nanmax(np.abs(ratio - 1))), "power_ratio": ratio.tolist(),
        }  # fmt: skip
        found[name] = row
        print(f"   {name:18} {row['autocorrelation']:12.4f} {row['between']:12.4f} {row['skewness']:9.3f} {row['excess']:7.3f} "
              f"{row['blocks']:8.3f} {row['histogram']:10.4f} {row['power']:6.3f}")  # fmt: skip
    own = found["gan"]
    found["verdicts"] = [
        verdict("sky: autocorrelation, largest difference to 2 pixels", own["autocorrelation"], "<= 0.01", own["autocorrelation"] <= 0.01),
        verdict("sky: power spectrum, largest deviation", own["power"], "<= 0.05", own["power"] <= 0.05),
        verdict("sky: distance of histograms, noise rms", own["histogram"], "<= 0.02", own["histogram"] <= 0.02),
    ]  # fmt: skip
    return found


def _sky_of_tiles(tiles: int, *, generated: bool) -> tuple[Array, Array]:
    """Sky of simulated SDSS fields, or of augmented ones with generated sky, cut as the real ones are."""
    parts, shape = [], (768, 768)
    mix = AugmentSettings.of_survey("sdss", generated_sky=1.0)
    for k in range(tiles):
        many = (
            augmented_stream("sdss", 910, shape, augment=mix, start=k)
            if generated
            else stream("sdss", 910, shape, SimulateSettings(), start=k)
        )
        tile = next(many).tile
        catalogue = catalogue_tile(tile, Config(classify_sources=False, fit_models=False))
        parts.append(tile_sky(tile, catalogue))
    return np.concatenate([p.pixels() for p in parts]), np.concatenate([p.valid for p in parts])


def _texture(pixels: Array, valid: Array) -> Any:
    return texture_of(torch.from_numpy(pixels), torch.from_numpy(valid.astype(np.float32)))


def _power(pixels: Array, valid: Array) -> tuple[Array, Array]:
    """Mean power spectrum over the bands of squares without gaps."""
    whole = []
    for y in (0, _SIDE):
        for x in (0, _SIDE):
            cut = (slice(None), slice(None), slice(y, y + _SIDE), slice(x, x + _SIDE))
            free = valid[cut].all(axis=(1, 2, 3))
            whole.append(pixels[cut][free])
    every = np.concatenate(whole)
    rms = np.sqrt((np.clip(every, -4, 4) ** 2).mean(axis=(0, 2, 3)))
    spectra = [power_spectrum(every[:, b] / rms[b], 8) for b in range(every.shape[1])]
    return spectra[0][0], np.mean([p for _, p in spectra], axis=0)


def _histogram(pixels: Array, valid: Array, others: Array, holds: Array) -> float:
    """Largest Wasserstein distance between the pixels of a band, in units of the noise, beyond a difference of the means."""
    from scipy.stats import wasserstein_distance

    rng, worst = np.random.default_rng(1), 0.0
    for b in range(pixels.shape[1]):
        ours, theirs = (rng.choice(p[:, b][v[:, b]], 100_000) for p, v in ((pixels, valid), (others, holds)))
        # Pixels are kept in steps: their median is one of these, their mean is not.
        ours, theirs = (v - v[np.abs(v) < 4].mean() for v in (ours, theirs))
        worst = max(worst, float(wasserstein_distance(ours, theirs)))
    return worst
