"""The detection benchmark on real SDSS fields: listed sources, the negative image, saturated stars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sep
from common import data_dir
from numpy.typing import NDArray
from sdss_field_detection import FIELD, PIXEL, read_list

from imcat.align import transform_positions
from imcat.catalogue.match import match_xy
from imcat.config import Config
from imcat.flags import SourceFlag
from imcat.noise import NoiseSettings, measure_noise
from imcat.pipeline import catalogue_tile
from imcat.surveys import find_tiles, read_tile
from imcat.tile import Pixels, Tile
from imcat.window import Window

APERTURE = 4.0  # pixels
_BRIGHT, _BESIDE = 500.0, (1.0, 4.0)  # signal-to-noise ratio; arcsec
_NEAR = (3.0, 30.0)  # arcsec around saturated stars


@dataclass(frozen=True, eq=False)
class _Negative:
    """An image with its sign changed."""

    image: Pixels

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape

    def read(self, window: Window) -> NDArray[Any]:
        return -self.image.read(window)


def negative(tile: Tile) -> Tile:
    """The negative of a tile: what is found there is no source."""
    bands = tuple(
        replace(
            band,
            exposures=tuple(replace(e, image=_Negative(e.image), saturation=None) for e in band.exposures),
        )
        for band in tile.bands
    )
    return replace(tile, bands=bands)


def highest_snr(tile: Tile, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Largest signal-to-noise ratio over the bands within a circle of 4 pixels around places of the reference image."""
    best = np.zeros(x.size)
    for _, exposure in tile.exposures():
        noise = measure_noise(exposure, NoiseSettings())
        cutout = noise.read(exposure, Window.whole(exposure.shape))
        px, py = transform_positions(tile.reference_exposure.wcs, exposure.wcs, x, y)
        flux, error, _ = sep.sum_circle(
            np.ascontiguousarray(cutout.data), px, py, APERTURE, var=np.ascontiguousarray(cutout.variance)
        )
        best = np.maximum(best, flux / np.maximum(error, 1e-30))
    return best


def around_saturated(catalogue: Any, tile: Tile) -> tuple[float, int]:
    """Density of detections within 30 arcsec of saturated stars over that of the field, and the number of stars."""
    flags = np.asarray(catalogue["flags"])
    x, y = np.asarray(catalogue["x"]), np.asarray(catalogue["y"])
    bright = (flags & int(SourceFlag.SATURATED)) != 0
    if not bright.any():
        return float("nan"), 0
    rng = np.random.default_rng(1)
    shape = tile.shape
    u, v = rng.uniform(0, shape[1], 200_000), rng.uniform(0, shape[0], 200_000)

    def near(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        d = np.min(np.hypot(a[:, None] - x[bright], b[:, None] - y[bright]), axis=1) * PIXEL
        return np.asarray((d > _NEAR[0]) & (d < _NEAR[1]))

    area = near(u, v).mean()
    inside = near(x[~bright], y[~bright])
    far = (~inside).sum() / max(1 - area, 1e-9)
    return float(inside.sum() / max(area, 1e-9) / max(far, 1e-9)), int(bright.sum())


def satellites(catalogue: Any, tile: Tile) -> tuple[float, float]:
    """Detections within 1 to 4 arcsec of a source of S/N 500 or more: how many each has, and what chance gives."""
    x, y = np.asarray(catalogue["x"]), np.asarray(catalogue["y"])
    bright = np.asarray(catalogue["detection_snr"]) > _BRIGHT
    d = np.hypot(x[:, None] - x[bright], y[:, None] - y[bright]) * PIXEL
    number = ((d > _BESIDE[0]) & (d < _BESIDE[1]) & ~bright[:, None]).sum() / max(int(bright.sum()), 1)
    density = len(x) / (tile.shape[0] * tile.shape[1] * PIXEL**2)
    return float(number), float(density * np.pi * (_BESIDE[1] ** 2 - _BESIDE[0] ** 2))


def real_fields(quick: bool) -> dict[str, Any]:
    """Numbers of the real fields."""
    base = data_dir() / "sdss" / "fields"
    tile = read_tile(find_tiles([str(base / FIELD)])[0])
    lists = {"galaxies": read_list("gals"), "stars": read_list("stars")}
    result: dict[str, Any] = {}
    print(f"\n   real field {FIELD}, default working points; listed entries of S/N > 5 in any band")
    for engine in ("threshold", "network"):
        catalogue = catalogue_tile(tile, Config(detector=engine, fit_models=False))
        row: dict[str, Any] = {"detections": len(catalogue)}
        for kind, listed in lists.items():
            strong = highest_snr(tile, listed[:, 0], listed[:, 1]) > 5
            found = match_xy(catalogue["x"], catalogue["y"], listed[:, 0], listed[:, 1], 1 / PIXEL)
            hit = np.zeros(len(listed), bool)
            hit[found.second] = True
            row[kind], row[f"{kind} listed"] = float(hit[strong].mean()), int(strong.sum())
            row[f"all {kind}"] = float(hit.mean())
        print(
            f"   {engine:10} {row['detections']:5d} detections, galaxies {row['galaxies']:.4f} of "
            f"{row['galaxies listed']}, stars {row['stars']:.4f} of {row['stars listed']} "
            f"(of all listed {row['all galaxies']:.3f}, {row['all stars']:.3f})"
        )
        result[engine] = row
    result |= {key: result["network"][key] for key in ("detections", "galaxies", "stars")}
    names = sorted(p.name for p in base.iterdir() if p.is_dir() and p.name != FIELD)
    totals = {"threshold": [0, 0], "network": [0, 0]}
    for name in names[:1] if quick else names:
        tile = read_tile(find_tiles([str(base / name)])[0])
        for engine, total in totals.items():
            config = Config(detector=engine, fit_models=False)
            catalogue = catalogue_tile(tile, config)
            wrong = len(catalogue_tile(negative(tile), config))
            ratio, stars = around_saturated(catalogue, tile)
            beside, chance = satellites(catalogue, tile)
            total[0] += len(catalogue)
            total[1] += wrong
            result[f"{name} {engine}"] = {
                "sky": len(catalogue),
                "negative": wrong,
                "saturated": ratio,
                "stars": stars,
                "satellites": beside,
                "satellites by chance": chance,
            }
            print(
                f"   {name} {engine:10} {len(catalogue):5d} in the sky, {wrong:4d} in its negative; density within "
                f"30 arcsec of {stars} saturated stars {ratio:.2f} times that elsewhere; {beside:.2f} within 1 to 4 arcsec "
                f"of a bright source, by chance {chance:.2f}"
            )
    for engine, (sky, wrong) in totals.items():
        print(f"   {engine}: {wrong / sky:.4f} of the detections in the sky appear in the negatives")
        result[f"negative {engine}"] = wrong / sky
    result["negative"] = result["negative network"]
    return result
