"""What the detection benchmark is made of: tiles with truth, SExtractor at its best, tables, verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from common import sextractor
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.config import Config
from imcat.evaluate.detection import (
    completeness,
    inside,
    match_lists,
    measure_purity,
    purity_curve,
    threshold_at_purity,
)
from imcat.pipeline import catalogue_tile
from imcat.tile import Tile
from imcat.train.detection_samples import tile_reader
from imcat.window import Window

PURITY = 0.95
_SETTINGS: tuple[Mapping[str, Any], ...] = (
    {"DETECT_MINAREA": 5, "DEBLEND_NTHRESH": 64, "DEBLEND_MINCONT": 5e-5},
    {"DETECT_MINAREA": 3, "DEBLEND_NTHRESH": 64, "DEBLEND_MINCONT": 5e-4},
)
_THRESHOLDS = (0.75, 0.85, 0.95, 1.1)


@dataclass(eq=False)
class Field:
    """A tile with its truth.

    Attributes
    ----------
    tile : Tile
        The pixels.
    x, y, magnitude : arrays ``[n]``
        True places (pixels) and r magnitudes of all sources that make a detection real.
    half_width : array ``[n]``
        Of their boxes: twice the half-light radius behind the PSF, pixels.
    radius : float
        Of a match, pixels.
    """

    tile: Tile
    x: NDArray[Any]
    y: NDArray[Any]
    magnitude: NDArray[Any]
    half_width: NDArray[Any]
    radius: float


@dataclass
class Lists:
    """Detections of one engine in all fields of a set: places, rank, and the field of each."""

    x: list[NDArray[Any]] = field(default_factory=list)
    y: list[NDArray[Any]] = field(default_factory=list)
    rank: list[NDArray[Any]] = field(default_factory=list)

    def add(self, x: NDArray[Any], y: NDArray[Any], rank: NDArray[Any]) -> None:
        """Append those of one field."""
        for values, new in ((self.x, x), (self.y, y), (self.rank, rank)):
            values.append(np.asarray(new, dtype=np.float64))


def point_limit(tile: Tile, band: str) -> float:
    """Magnitude of a point source of S/N 5 with a Gaussian PSF of the stated width."""
    exposure = tile.band(band).exposures[0]
    window = Window.whole(exposure.shape)
    assert exposure.variance is not None
    variance = float(np.median(exposure.variance.read(window)))
    pixel = abs(float(np.linalg.det(exposure.wcs.pixel_scale_matrix))) ** 0.5 * 3600
    sigma = (exposure.psf_fwhm or 3 * pixel) / pixel / 2.3548
    flux = 5 * np.sqrt(variance * 4 * np.pi) * sigma
    return float(2.5 * np.log10(AB_FLUX / flux))


def summed(tile: Tile) -> NDArray[np.float32]:
    """Sum of the bands on the reference grid, in units of noise, weighted for a typical faint source."""
    reader, _ = tile_reader(tile)
    signal, _ = reader.read(Window.whole(tile.shape))
    return np.asarray(np.tensordot(reader.bands.main_weights.astype(np.float32), signal, 1))


def sextractor_best(
    folder: Path, fields: Sequence[Field], edges: Sequence[float], kernels: Sequence[str], *, quick: bool
) -> tuple[Lists, str]:
    """SExtractor on the best sum of the bands in its best setting, by completeness at the purity."""
    best, name, most = Lists(), "", -1.0
    sums = [summed(f.tile) for f in fields]
    paths = []
    for k, image in enumerate(sums):
        path = folder / f"sum-{k}.fits"
        fits.PrimaryHDU(image).writeto(path, overwrite=True)
        paths.append(path)
    for kernel in kernels[:1] if quick else kernels:
        for setting in _SETTINGS[:1] if quick else _SETTINGS:
            for threshold in _THRESHOLDS[1:2] if quick else _THRESHOLDS:
                found = Lists()
                for path in paths:
                    table = sextractor(
                        folder,
                        path,
                        DETECT_THRESH=threshold,
                        ANALYSIS_THRESH=threshold,
                        kernel=kernel,
                        **setting,
                    )
                    found.add(table["X_IMAGE"] - 1.0, table["Y_IMAGE"] - 1.0, table["FLUX_MAX"])
                row = judge(fields, found, edges)
                score = float(np.nansum(row["completeness"]))
                if score > most:
                    best, most = found, score
                    name = f"{kernel}, threshold {threshold}, area {setting['DETECT_MINAREA']}"
    return best, name


def imcat_lists(fields: Sequence[Field], detector: str, **measure: float) -> Lists:
    """Every candidate of an engine, measured as a run does without fits, or with other settings `measure`."""
    found = Lists()
    config = Config(detector=detector, min_score=0.0, fit_models=False, classify_sources=False)
    config = config.replace(measure=measure)
    for one in fields:
        catalogue = catalogue_tile(one.tile, config)
        rank = catalogue["detection_score"] if detector == "network" else catalogue["detection_snr"]
        tie = 1e-6 * np.clip(np.asarray(catalogue["detection_snr"], float), 0, 1e3)
        found.add(
            catalogue["x"], catalogue["y"], np.asarray(rank, float) + (tie if detector == "network" else 0)
        )
    return found


def judge(
    fields: Sequence[Field], found: Lists, edges: Sequence[float], purity: float = PURITY
) -> dict[str, Any]:
    """Cut the lists of all fields at one rank to a purity, and measure them together."""
    real, rank = [], []
    for one, x, y, r in zip(fields, found.x, found.y, found.rank, strict=True):
        counted = inside(x, y, one.tile.shape)
        real.append(match_lists(x, y, one.x, one.y, one.radius).used(x.size)[counted])
        rank.append(r[counted])
    ranks, reals = np.concatenate(rank), np.concatenate(real)
    cut = threshold_at_purity(ranks, reals, purity)
    magnitude, hit, number, right, offset = [], [], 0, 0, []
    chance = 0.0
    for one, x, y, r in zip(fields, found.x, found.y, found.rank, strict=True):
        kept = r >= cut
        pairs = match_lists(x[kept], y[kept], one.x, one.y, one.radius)
        within = inside(one.x, one.y, one.tile.shape)
        magnitude.append(one.magnitude[within])
        hit.append(pairs.found(one.x.size)[within])
        measured = measure_purity(x[kept], y[kept], one.x, one.y, radius=one.radius, shape=one.tile.shape)
        number += measured.detections
        right += round(measured.purity * measured.detections) if measured.detections else 0
        chance += measured.chance * measured.detections if measured.detections else 0
        offset.append(pairs.separation[one.magnitude[pairs.second] < edges[0] + 7])
    curve = completeness(np.concatenate(magnitude), np.concatenate(hit), edges)
    thresholds, purities, numbers = purity_curve(ranks, reals)
    step = max(1, thresholds.size // 200)
    return {
        "cut": float(cut), "detections": number, "purity": right / max(number, 1), "chance": chance / max(number, 1),
        **{f"{a:g}–{b:g}": round(float(v), 4) for a, b, v in zip(edges[:-1], edges[1:], curve.fraction, strict=True)},
        "completeness": curve.fraction, "truth": curve.total, "lower": curve.lower, "upper": curve.upper,
        "curve": {"purity": purities[::step], "found": numbers[::step]},
    }  # fmt: skip


def head(edges: Sequence[float]) -> None:
    """Print the head of a table of completeness."""
    names = " ".join(f"{a:g}–{b:g}".rjust(9) for a, b in itertools.pairwise(edges))
    print(f"   {'':46} purity  dets {names}")


def show(name: str, row: Mapping[str, Any]) -> None:
    """Print a row of it."""
    values = " ".join(f"{v:9.3f}" for v in row["completeness"])
    print(f"   {name[:46]:46} {row['purity']:.3f} {row['detections']:6d} {values}")
