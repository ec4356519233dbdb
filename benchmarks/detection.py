"""The detection network against SExtractor and the threshold engine: simulations, the independent one, real fields.

Completeness at purity 0.95 by true r magnitude, reliability of the scores, close pairs, positions, boxes, real SDSS
fields, speed. Every list is cut where 95 % of it is real; SExtractor works on the sum of the bands on imcat's grid,
weighted for a typical faint source, and is shown in the setting that finds most.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from common import (
    arguments,
    data_dir,
    newest,
    print_header,
    save,
    scratch,
    sextractor,
    verdict,
    write_aside,
    write_generic_tile,
)
from detection_figures import main as draw_newest
from detection_real import real_fields
from detection_tools import (
    Field,
    Lists,
    head,
    imcat_lists,
    judge,
    point_limit,
    sextractor_best,
    show,
    summed,
)
from skymaker import WAVELENGTHS, tile_entries

from imcat.config import Config
from imcat.detect.network_search import detect_network, find_boxes, load_network
from imcat.detect.network_settings import NetworkSettings
from imcat.evaluate.detection import average_precision, inside, match_lists, reliability
from imcat.evaluate.truth import read_truth
from imcat.pipeline import catalogue_tile, select_bands
from imcat.processes import single_threads
from imcat.registry import half_precision_is_fast, weights_folder
from imcat.simulate.inject import ExposureLight, inject
from imcat.simulate.scene import Models
from imcat.simulate.settings import InjectSettings, SimulateSettings
from imcat.simulate.tiles import observe, simulate_tile, stream
from imcat.surveys import find_tiles, read_tile
from imcat.tile import ArrayPixels, Band, Tile
from imcat.train.detection_packs import worker_pool
from imcat.train.detection_samples import tile_reader
from imcat.window import Window

SDSS_EDGES = (14.0, 20.0, 21.0, 21.5, 22.0, 22.5, 23.0, 23.5)
CSST_EDGES = (23.0, 23.5, 24.0, 24.5, 25.0, 25.5, 26.0, 26.5, 27.0)
#: Completeness that was aimed at on the independent tile.
AIM = (1.00, 0.99, 0.97, 0.97, 0.96, 0.88, 0.55)
SEED = 905  # of tiles that no training saw
KERNELS = {"sdss": ("gauss_3.0_7x7.conv",), "csst": ("gauss_2.0_5x5.conv", "gauss_3.0_5x5.conv")}
PAIR_EDGES = (0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.5)  # arcsec
BELOW = 2.0  # magnitudes below the 5 sigma limit of point sources: sources that make a detection real
PIXEL = {"sdss": 0.396, "csst": 0.074}
RADIUS = {"sdss": 1.0, "csst": 0.25}  # arcsec, of a match


def simulated(survey: str, number: int, shape: tuple[int, int], *, hits: bool = True) -> Iterator[Field]:
    """Tiles of imcat's simulator, as a survey has them, or without cosmic rays."""
    settings = SimulateSettings(depth_below_limit=2.5, cosmic_rays=hits)
    for k in range(number):
        item = next(stream(survey, SEED, shape, settings, start=k))
        truth, band = item.truth, "r"
        faint = truth[f"{band}_mag"] < point_limit(item.tile, band) + BELOW
        exposure = item.tile.reference_exposure
        fwhm = (exposure.psf_fwhm or 3 * PIXEL[survey]) / PIXEL[survey]
        own = truth["half_light_radius"] / PIXEL[survey]
        half = 2 * np.sqrt((fwhm / 2) ** 2 + np.nan_to_num(own) ** 2 * np.clip(truth["axis_ratio"], 0.05, 1))
        yield Field(
            item.tile, truth["x"][faint], truth["y"][faint], truth[f"{band}_mag"][faint], half[faint],
            RADIUS[survey] / PIXEL[survey],
        )  # fmt: skip


def independent(folder: Path, name: str, pixel: float, radius: float, faint: float) -> Field:
    """A tile of the independent simulator."""
    base = data_dir() / "simulated" / name
    if name == "skymaker_sdss_03":
        entries = {b: tile_entries(b) for b in WAVELENGTHS}
    else:
        entries = {b: {"image": f"{base / f'frame-{b}.fits.fz'}[1]", "zero_point": 22.5, "wavelength": w}
                   for b, w in WAVELENGTHS.items()}  # fmt: skip
        for b, entry in entries.items():
            header = fits.getheader(base / f"frame-{b}.fits.fz", 1)
            entry |= {"gain": float(header["ENMGY"]), "sky": float(header["SKYE"]) / float(header["ENMGY"])}
    tile = read_tile(find_tiles([str(write_generic_tile(folder, name, entries, "r"))])[0])
    (truth,) = read_truth(base)
    assert truth.x is not None
    assert truth.y is not None
    keep = truth.magnitudes["r"] < faint
    import pyarrow.parquet as pq

    table = pq.read_table(
        base / "truth.parquet", columns=["disk_h", "bt_r", "bulge_re", "disk_q"]
    ).to_pandas()
    share = np.nan_to_num(table["bt_r"].to_numpy(float))
    # Half of an exponential disc's light lies within 1.678 scale lengths.
    size = (1 - share) * 1.678 * np.nan_to_num(table["disk_h"].to_numpy(float))
    size = (size + share * np.nan_to_num(table["bulge_re"].to_numpy(float))) / pixel
    ratio = np.clip(np.nan_to_num(table["disk_q"].to_numpy(float), nan=1.0), 0.05, 1)
    fwhm = (tile.reference_exposure.psf_fwhm or 2.5 * pixel) / pixel
    half = 2 * np.sqrt((fwhm / 2) ** 2 + size**2 * ratio)
    return Field(tile, truth.x[keep], truth.y[keep], truth.magnitudes["r"][keep], half[keep], radius / pixel)


def compare(
    folder: Path, title: str, fields: Sequence[Field], survey: str, edges: Sequence[float], *, quick: bool
) -> dict[str, Any]:
    """Network, threshold engine and SExtractor on the same tiles."""
    print(f"\n   {title}")
    head(edges)
    rows: dict[str, Any] = {}
    best, setting = sextractor_best(folder, fields, edges, KERNELS[survey], quick=quick)
    lists = {f"SExtractor, {setting}": best}
    lists["imcat, threshold"] = imcat_lists(fields, "threshold")
    # What it is worth that faint sources keep the network's places.
    lists["imcat, network, all places by windowed centroids"] = imcat_lists(
        fields, "network", centroid_snr=0.0
    )
    lists["imcat, network"] = imcat_lists(fields, "network")
    for name, found in lists.items():
        rows[name] = judge(fields, found, edges)
        show(name, rows[name])
    low = rows["imcat, network"]["lower"], rows["imcat, network"]["upper"]
    print(f"   {'  68 % interval of the last':46} {'':13} "
          + " ".join(f"{b - a:9.3f}" for a, b in zip(*low, strict=True)))  # fmt: skip
    return {"rows": rows, "truth": rows["imcat, network"]["truth"], "network": lists["imcat, network"],
            "sextractor": best}  # fmt: skip


def in_bands(fields: Sequence[Field], bands: tuple[str, ...]) -> list[Field]:
    """The same tiles with some of their bands."""
    return [replace(f, tile=select_bands(f.tile, bands)) for f in fields]


def calibration(fields: Sequence[Field], found: Lists, name: str) -> dict[str, Any]:
    """Reliability of the network's scores."""
    scores, reals = [], []
    for one, x, y, rank in zip(fields, found.x, found.y, found.rank, strict=True):
        within = inside(x, y, one.tile.shape)
        scores.append(np.clip(rank, 0, 1)[within])
        reals.append(match_lists(x, y, one.x, one.y, one.radius).used(x.size)[within])
    score, real = np.concatenate(scores), np.concatenate(reals)
    table = reliability(score, real)
    print(
        f"\n   reliability of the scores, {name}: {score.size} candidates, calibration error {table.error:.4f}"
    )
    print("   stated   " + " ".join(f"{v:6.3f}" for v in table.expected))
    print("   observed " + " ".join(f"{v:6.3f}" for v in table.observed))
    print("   number   " + " ".join(f"{v:6d}" for v in table.count))
    point = load_network().working_point
    above = score >= point
    print(
        f"   at the default working point ({point:.3f}): {above.sum()} detections, purity {real[above].mean():.3f}"
    )
    filled = table.count >= 1500
    worst = float(np.nanmax(np.abs(table.expected - table.observed)[filled])) if filled.any() else np.nan
    return {
        "expected": table.expected, "observed": table.observed, "count": table.count, "error": table.error,
        "worst_of_1500": worst, "working_point": point, "purity": float(real[above].mean()),
        "detections": int(above.sum()),
    }  # fmt: skip


def pairs(quick: bool) -> dict[str, Any]:
    """Both members of simulated pairs found, by separation and by difference in magnitude."""
    rng = np.random.default_rng(SEED)
    step, shape = 64, (1489, 2048)
    place = np.stack(np.meshgrid(np.arange(40, 2000, step), np.arange(40, 1450, step)), axis=-1).reshape(
        -1, 2
    )
    settings = SimulateSettings(density=0.0, star_density=0.0, lenses_per_deg2=0, lookalikes_per_deg2=0,
                                trails_per_tile=0, cosmic_rays=False, bad_columns_per_tile=0)  # fmt: skip
    models, info = Models.load(), []
    found: dict[str, list[Any]] = {"network": [], "threshold": []}
    for k in range(1 if quick else 2):
        observation = observe("sdss", k, SEED + 1, settings, shape)
        base, _ = simulate_tile(observation, settings, models, SEED + 1, k)
        n = len(place)
        separation, angle = rng.uniform(0.6, 2.5, n), rng.uniform(0, 2 * np.pi, n)
        jitter = place + rng.uniform(-0.5, 0.5, place.shape)
        half = 0.5 * separation / PIXEL["sdss"]
        x = np.concatenate([jitter[:, 0] - half * np.cos(angle), jitter[:, 0] + half * np.cos(angle)])
        y = np.concatenate([jitter[:, 1] - half * np.sin(angle), jitter[:, 1] + half * np.sin(angle)])
        lights = [ExposureLight(model.psf, 1.0, model.noise) for model in observation.exposures]
        limit = point_limit(base, "r")
        tile, added = inject(base, lights, 2 * n, InjectSettings(brighter=limit - 18.0, fainter=23.0 - limit),
                             models, places=(x, y))  # fmt: skip
        r = added.mag[:, 2]
        info.append(np.stack([separation, np.abs(r[:n] - r[n:]), np.maximum(r[:n], r[n:])]))
        for engine, results in found.items():
            catalogue = catalogue_tile(tile, Config(detector=engine, fit_models=False))
            hit = match_lists(catalogue["x"], catalogue["y"], x, y, 0.5 / PIXEL["sdss"]).found(2 * n)
            results.append(hit[:n] & hit[n:])
    separation, difference, faintest = np.concatenate(info, axis=1)
    result: dict[str, Any] = {"pairs": separation.size, "edges": PAIR_EDGES}
    print(
        f"\n   {separation.size} simulated pairs, both members brighter than r = 23; both found within 0.5 arcsec"
    )
    edges = PAIR_EDGES
    print(
        f"   {'difference':>24} " + " ".join(f"{a:g}–{b:g}″".rjust(9) for a, b in itertools.pairwise(edges))
    )
    bright = faintest < 23
    for engine, results in found.items():
        both = np.concatenate(results)
        for low, high in ((0, 1), (1, 2), (2, 5)):
            used = bright & (difference >= low) & (difference < high)
            at = np.digitize(separation[used], edges) - 1
            share = [
                float(both[used][at == k].mean()) if (at == k).any() else np.nan
                for k in range(len(edges) - 1)
            ]
            print(f"   {engine:>12} {low}–{high} mag".ljust(28) + " ".join(f"{v:9.3f}" for v in share))
            result[f"{engine} {low}-{high}"] = share
        used = bright & (difference < 2) & (separation >= 1.2)
        result[engine] = float(both[used].mean())
        result["number"] = int(used.sum())
    return result


def positions(folder: Path, one: Field) -> dict[str, Any]:
    """Offsets of the catalogue's places, SExtractor's, and the bound for isolated stars, on common sources."""
    catalogue = catalogue_tile(one.tile, Config(detector="network"))
    path = folder / "sum.fits"
    fits.PrimaryHDU(summed(one.tile)).writeto(path, overwrite=True)
    table = sextractor(folder, path, DETECT_THRESH=0.85, ANALYSIS_THRESH=0.85, kernel=KERNELS["sdss"][0],
                       DETECT_MINAREA=5, DEBLEND_NTHRESH=64, DEBLEND_MINCONT=5e-5)  # fmt: skip
    lists = {
        "imcat": (np.asarray(catalogue["x"]), np.asarray(catalogue["y"])),
        "SExtractor": (table["X_IMAGE"] - 1.0, table["Y_IMAGE"] - 1.0),
        "SExtractor, windowed": (table["XWIN_IMAGE"] - 1.0, table["YWIN_IMAGE"] - 1.0),
    }
    offset = {}
    for name, (x, y) in lists.items():
        pair = match_lists(x, y, one.x, one.y, one.radius)
        offset[name] = np.full(one.x.size, np.nan)
        offset[name][pair.second] = pair.separation * PIXEL["sdss"]
    common = np.all(np.isfinite(list(offset.values())), axis=0)
    edges = (14, 20, 21, 22, 23)
    print("\n   median offset (arcsec) of sources that both found, independent simulation")
    print(f"   {'':24}" + " ".join(f"{a}–{b}".rjust(8) for a, b in itertools.pairwise(edges)) + "     < 21")
    result: dict[str, Any] = {}
    for name, values in offset.items():
        row = [float(np.median(values[common & (one.magnitude >= a) & (one.magnitude < b)]))
               for a, b in zip((*edges[:-1], 14), (*edges[1:], 21), strict=True)]  # fmt: skip
        print(f"   {name:24}" + " ".join(f"{v:8.4f}" for v in row))
        result[name] = row
    return result


def boxes(fields: Sequence[Field]) -> float:
    """Mean average precision at IoU 0.5 of the network's boxes for r < 22."""
    trained, values = load_network(), []
    for one in fields:
        reader, _ = tile_reader(one.tile)
        found = find_boxes(reader, trained, NetworkSettings())
        wanted = (one.magnitude < 22) & inside(one.x, one.y, one.tile.shape)
        kept = inside(found.x, found.y, one.tile.shape)
        values.append(
            average_precision(
                found.x[kept], found.y[kept], found.half_width[kept], found.score[kept], one.x, one.y,
                one.half_width, wanted=wanted,
            )
        )  # fmt: skip
    return float(np.mean(values))


def wide_tile(one: Field, bands: int) -> Tile:
    """A tile of 9216 x 9232 pixels and several bands, the same image in all."""
    single = select_bands(one.tile, ("r",)).bands[0]
    exposure = single.exposures[0]
    values = exposure.image.read(Window.whole(exposure.shape))
    image = ArrayPixels(np.tile(values, (7, 5))[:9232, :9216])
    assert exposure.variance is not None
    level = float(np.median(exposure.variance.read(Window.whole(exposure.shape))))
    variance = ArrayPixels(np.broadcast_to(np.float32(level), (9232, 9216)))
    same = replace(exposure, image=image, variance=variance, mask=None)
    made = tuple(Band(f"b{k}", 4000.0 + 900 * k, (same,)) for k in range(bands))
    return Tile("wide", "generic", 1, made, "b0")


def resident() -> float:
    """Memory of this process now, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def watch(levels: list[float], over: threading.Event) -> None:
    """Follow the memory of this process."""
    while not over.wait(0.05):
        levels.append(resident())


def speed(one: Field, quick: bool) -> dict[str, float]:
    """Seconds that finding takes once the network is loaded, on two threads, and the memory it adds."""
    trained, result = load_network(), {"half precision": float(half_precision_is_fast())}
    print(f"   half precision by instructions of the processor: {half_precision_is_fast()}")
    tiles = {"2048 x 1489 x 5": one.tile, "9216 x 9232 x 1": wide_tile(one, 1)}
    if not quick:
        tiles["9216 x 9232 x 7"] = wide_tile(one, 7)
    with ThreadPoolExecutor(2) as pool:
        for name, tile in tiles.items():
            reader, _ = tile_reader(tile)
            times, highest, over = [], [resident()], threading.Event()
            watcher = threading.Thread(target=watch, args=(highest, over))
            watcher.start()
            for _ in range(4 if tile is one.tile else 1):
                begin = time.perf_counter()
                detect_network(reader, trained, NetworkSettings(), pool)
                times.append(time.perf_counter() - begin)
            over.set()
            watcher.join()
            result[name] = float(np.median(times[1:] or times))
            result[f"{name} MiB"] = max(highest) - highest[0]
            print(
                f"   finding, two threads, {name}: {result[name]:.2f} s, {result[f'{name} MiB']:.0f} MiB beyond the tile"
            )
    return result


def own_sdss(quick: bool) -> dict[str, Any]:
    """SDSS as imcat simulates it: completeness, reliability, boxes."""
    number = 2 if quick else 6
    own = list(simulated("sdss", number, (1489, 2048)))
    with scratch() as folder:
        title = f"imcat's simulation, SDSS, {number} fields, ugriz"
        table = compare(folder, title, own, "sdss", SDSS_EDGES, quick=quick)
    result = {
        "simulation": table["rows"],
        "reliability": calibration(own, table["network"], "imcat's simulation"),
        "map": boxes(own[: 2 if quick else 5]),
    }
    print(f"\n   mAP at IoU 0.5, r < 22, imcat's simulation: {result['map']:.3f}")
    return result


def independent_sdss(quick: bool) -> dict[str, Any]:
    """The independent simulation of SDSS: completeness in several sets of bands, reliability, boxes, positions."""
    result: dict[str, Any] = {}
    with scratch() as folder:
        sky = sdss_tile(folder)
        for bands in (("u", "g", "r", "i", "z"), ("g", "r"), ("r",)):
            label = "".join(bands)
            chosen = in_bands([sky], bands)
            title = f"independent simulation, {label}"
            table = compare(folder, title, chosen, "sdss", SDSS_EDGES, quick=quick)
            result[f"independent {label}"] = table["rows"]
            if label == "ugriz":
                result["independent reliability"] = calibration(
                    chosen, table["network"], "independent simulation"
                )
        result["independent map"] = boxes([sky])
        print(f"\n   mAP at IoU 0.5, r < 22, independent simulation: {result['independent map']:.3f}")
        result["positions"] = positions(folder, sky)
    return result


def sdss_tile(folder: Path) -> Field:
    """The independent tile like SDSS."""
    return independent(folder, "skymaker_sdss_03", 0.396, 1.0, 24.5)


def own_csst(quick: bool, *, hits: bool = False) -> dict[str, Any]:
    """CSST as imcat simulates it, without or with cosmic rays."""
    number = 3 if quick else 10
    what = "cosmic rays, one in twenty of them unmasked" if hits else "no cosmic rays"
    tiles = list(simulated("csst", number, (1024, 1024), hits=hits))
    with scratch() as folder:
        table = compare(folder, f"imcat's simulation, CSST, {what}", tiles, "csst", CSST_EDGES, quick=quick)
    return {"csst with cosmic rays" if hits else "csst": table["rows"]}


def independent_csst(quick: bool) -> dict[str, Any]:
    """The independent simulation of CSST."""
    with scratch() as folder:
        far = independent(folder, "skymaker_csst_02", 0.074, 0.25, 28.5)
        title = "independent simulation, CSST"
        return {"independent csst": compare(folder, title, [far], "csst", CSST_EDGES, quick=quick)["rows"]}


#: What can run side by side.
PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "own sdss": own_sdss,
    "real": lambda quick: {"real": real_fields(quick)},
    "csst": own_csst,
    "csst with cosmic rays": lambda quick: own_csst(quick, hits=True),
    "independent sdss": independent_sdss,
    "pairs": lambda quick: {"pairs": pairs(quick)},
    "independent csst": independent_csst,
}
_SPEED = "speed"  # needs the machine for itself: last, and in this process


def run_part(name: str, quick: bool) -> tuple[dict[str, Any], str]:
    """One of `PARTS` in a process of its own, and what it prints."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        return PARTS[name](quick), told.getvalue()


def _workers(parser: ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=2, help="parts that run side by side (2)")
    every = ",".join([*PARTS, _SPEED])
    parser.add_argument(
        "--parts", default=every, help=f"some of {every}; others stay as they were measured before"
    )


def main() -> None:
    args = arguments(__doc__ or "", _workers)
    about = print_header("Detection: network, threshold engine, SExtractor", ["source-extractor"])
    result = newest("detection", quick=args.quick) | {"edges": {"sdss": SDSS_EDGES, "csst": CSST_EDGES}}
    asked = args.parts.split(",")
    if unknown := set(asked) - {*PARTS, _SPEED}:
        raise SystemExit(
            f"--parts: {', '.join(sorted(unknown))}; expected some of {', '.join([*PARTS, _SPEED])}"
        )
    with single_threads(), worker_pool(args.workers) as pool:
        for part, told in pool.map(run_part, [p for p in asked if p != _SPEED], itertools.repeat(args.quick)):
            print(told, end="", flush=True)
            result |= part
    print()
    if _SPEED in asked:
        with scratch() as folder:
            result["speed"] = speed(sdss_tile(folder), args.quick)
    # Which machine and versions a part was measured with.
    result["measured"] = result.get("measured", {}) | dict.fromkeys(asked, about)
    whole = set(result["measured"]) >= {*PARTS, _SPEED}
    result["verdicts"] = verdicts(result) if whole else []
    save("detection", {**result, **about}, quick=args.quick)
    if whole and not args.quick:
        draw_newest()
        write_card(result["verdicts"])


def write_card(done: Sequence[dict[str, Any]]) -> None:
    """Put the numbers into the card of the weights, in place of earlier ones."""
    path = weights_folder() / "detection.toml"
    text = path.read_text(encoding="utf-8").split("\n[metrics]")[0].rstrip()
    lines = [f"{json.dumps(one['what'], ensure_ascii=False)} = {float(one['value']):.5g}" for one in done]
    write_aside(path, "\n".join([text, "", "[metrics]", *lines, ""]))


def verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers beside what was aimed at."""
    print()
    done = []
    row = result["independent ugriz"]["imcat, network"]["completeness"]
    for k, (value, aim) in enumerate(zip(row, AIM, strict=True)):
        name = f"completeness, independent tile, r {SDSS_EDGES[k]:g}–{SDSS_EDGES[k + 1]:g}"
        done.append(verdict(name, float(value), f">= {aim}", bool(round(float(value), 2) >= aim)))
    for key in ("independent ugriz", "independent gr", "independent r", "csst", "independent csst"):
        rows = result[key]
        peer = next(rows[n] for n in rows if n.startswith("SExtractor"))
        worst = float(np.nanmin(np.asarray(rows["imcat, network"]["completeness"]) - peer["completeness"]))
        done.append(verdict(f"least lead over SExtractor in any bin, {key}", worst, ">= 0", worst >= 0))
    done.append(
        verdict(
            "pairs of r < 23, at least 1.2 arcsec apart, within 2 mag: both found",
            result["pairs"]["network"],
            ">= 0.5",
            result["pairs"]["network"] >= 0.5,
        )
    )
    value = result["positions"]["imcat"][-1]
    done.append(verdict("median offset at r < 21, arcsec", value, "<= 0.015", value <= 0.015))
    done.append(verdict("mAP at IoU 0.5, r < 22", result["map"], ">= 0.90", result["map"] >= 0.90))
    value = result["reliability"]["worst_of_1500"]
    done.append(verdict("largest miscalibration of a bin of 1,500", value, "<= 0.03", value <= 0.03))
    real = result["real"]
    for what, key, aim, more in (
        ("detections in 003918-3-0213", "detections", 1500, False),
        ("listed galaxies of S/N > 5", "galaxies", 0.975, True),
        ("listed stars of S/N > 5", "stars", 0.98, True),
        ("detections in the negative of the other fields", "negative", 0.05, False),
    ):
        good = real[key] >= aim if more else real[key] <= aim
        done.append(verdict(what, real[key], f"{'>=' if more else '<='} {aim}", good))
    for name, aim in (("2048 x 1489 x 5", 1.5), ("9216 x 9232 x 1", 30.0)):
        done.append(
            verdict(f"seconds, {name}", result["speed"][name], f"<= {aim}", result["speed"][name] <= aim)
        )
    if "9216 x 9232 x 7 MiB" in result["speed"]:
        memory = result["speed"]["9216 x 9232 x 7 MiB"]
        done.append(verdict("MiB beyond the tile, 9216 x 9232 x 7", memory, "<= 2048", memory <= 2048))
    return done


if __name__ == "__main__":
    main()
