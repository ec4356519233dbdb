"""Samples for the detection network: simulated tiles as the network sees them, and what it should say.

A tile of the simulator's stream is read as `imcat run` reads a tile: its background is measured, its bands are aligned
and summed. Some samples lack bands, so that the network learns to do without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imcat.align import AlignSettings, map_grids
from imcat.catalogue.fields import AB_FLUX
from imcat.detect.combine import Plane
from imcat.detect.network_input import BandPlanes, WindowReader, compress
from imcat.noise import NoiseSettings, measure_noise
from imcat.psf import FWHM_PER_SIGMA
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import StreamItem, stream
from imcat.tile import Tile
from imcat.window import Window

__all__ = ["Sample", "make_sample", "sample_stream", "truth_snr"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_PIXEL = {"sdss": 0.396, "csst": 0.074}  # arcsec
_FEWER_BANDS = 0.5  # share of the samples that lack some
_SIGMA_OF_HALF_LIGHT = 1 / 1.1774  # of a Gaussian


@dataclass(frozen=True, eq=False)
class Sample:
    """One tile as the network sees it.

    Attributes
    ----------
    maps : float16 array ``[FEATURES, y, x]``
        See `imcat.detect.network_input.features` and `compress`.
    conditions : float32 array ``[CONDITIONS]``
        Of the set of bands.
    x, y : float32 arrays ``[n]``
        Centres of the sources, pixels.
    snr : float32 array ``[n]``
        Signal-to-noise ratio that each would have in the filtered sum without its neighbours.
    """

    maps: NDArray[np.float16]
    conditions: Float32
    x: Float32
    y: Float32
    snr: Float32


def truth_snr(
    flux: Float64, half_light: Float64, axis_ratio: Float64, weights: Float64, noise: Float64, sigma: float
) -> Float64:
    """Signal-to-noise ratio of sources in the sum of the bands, filtered with a Gaussian PSF.

    Parameters
    ----------
    flux : float64 array ``[n, bands]``
        nJy.
    half_light, axis_ratio : float64 arrays ``[n]``
        Pixels, along the major axis; minor over major axis.
    weights : float64 array ``[bands]``
        Of the bands in units of their noise, squares sum to one.
    noise : float64 array ``[bands]``
        Of a pixel, nJy.
    sigma : float
        Of the PSF, pixels.
    """
    own = (half_light * _SIGMA_OF_HALF_LIGHT) ** 2 * np.clip(axis_ratio, 0.05, 1.0)
    total = (flux / noise) @ weights
    return np.asarray(total * sigma / (math.sqrt(math.pi) * (2 * sigma**2 + own)))


def make_sample(
    tile: Tile, truth: dict[str, NDArray[np.float64]], bands: tuple[str, ...] | None = None
) -> Sample:
    """Turn a tile and its truth into a sample.

    Parameters
    ----------
    tile : Tile
        The images.
    truth : dict of arrays
        Columns ``x``, ``y``, ``{b}_mag``, ``half_light_radius``, ``axis_ratio``.
    bands : tuple of str, optional
        The bands that are used; default: all.
    """
    reader, pixel = tile_reader(tile, bands)
    reader.calibrate()
    rows, columns = tile.shape
    seen = reader(Window(0, rows - rows % 8, 0, columns - columns % 8))
    names = bands or tile.band_names
    with np.errstate(over="ignore", invalid="ignore"):
        flux = AB_FLUX * 10 ** (-0.4 * np.stack([truth[f"{b}_mag"] for b in names], axis=1).astype(float))
    weights = reader.bands.weights[1]
    snr = truth_snr(
        np.nan_to_num(flux), np.asarray(truth["half_light_radius"], float) / pixel,
        np.asarray(truth["axis_ratio"], float), weights, reader.bands.noise,
        reader.bands.main_fwhm / FWHM_PER_SIGMA,
    )  # fmt: skip
    return Sample(
        compress(seen.maps).astype(np.float16), reader.bands.conditions(), truth["x"].astype(np.float32),
        truth["y"].astype(np.float32), (snr / reader.noise_scale).astype(np.float32),
    )  # fmt: skip


def tile_reader(tile: Tile, bands: tuple[str, ...] | None = None) -> tuple[WindowReader, float]:
    """What reads a tile's windows for the network, and the size of a reference pixel, arcsec."""
    reference = tile.reference_exposure
    pixel = _pixel(reference.wcs)
    chosen = []
    for band in tile.bands:
        if bands is not None and band.name not in bands:
            continue
        planes, widths = [], []
        for exposure in band.exposures:
            noise = measure_noise(exposure, NoiseSettings())
            grid = map_grids(reference.wcs, reference.shape, exposure.wcs, exposure.shape, AlignSettings())
            planes.append(Plane(exposure, noise, grid, (pixel / _pixel(exposure.wcs)) ** 2, 1.0))
            widths.append(exposure.psf_fwhm or 3.0 * pixel)
        chosen.append(BandPlanes(band.wavelength, float(np.median(widths)) / pixel, tuple(planes)))
    return WindowReader(chosen, tile.shape), pixel


def _pixel(wcs: object) -> float:
    from astropy.wcs.utils import proj_plane_pixel_scales

    return float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs))) * 3600)


def sample_stream(survey: str, seed: int, side: int, start: int = 0, step: int = 1) -> Iterator[Sample]:
    """Samples without end: tiles start, start + step, … of the skies that `seed` decides.

    Seeing, crowding and artefacts vary more than in a survey's average tile.
    """
    for index in _count(start, step):
        rng = np.random.default_rng([seed, index])
        settings = _varied(rng, survey)
        item = next(stream(survey, seed, (side, side), settings, start=index))
        yield make_sample(item.tile, item.truth, _some_bands(rng, item))


def _count(start: int, step: int) -> Iterator[int]:
    while True:
        yield start
        start += step


def _varied(rng: np.random.Generator, survey: str) -> SimulateSettings:
    """What the skies of one sample hold."""
    base = SimulateSettings(depth_below_limit=1.5)
    crowded = rng.random() < 0.08
    return replace(
        base,
        density=float(np.exp(rng.uniform(np.log(0.7), np.log(3.0)))),
        star_density=float(np.exp(rng.uniform(np.log(0.5), np.log(8.0)))),
        cluster_stars=int(rng.integers(60, 400)) if crowded else 0,
        seeing=float(rng.uniform(0.9, 1.9)) if survey == "sdss" else 0.0,
        lookalikes_per_deg2=200.0,
        lenses_per_deg2=60.0,
        trails_per_tile=0.15,
        bad_columns_per_tile=10.0,
    )


def _some_bands(rng: np.random.Generator, item: StreamItem) -> tuple[str, ...] | None:
    """All bands, or some of them; the reference band is not always among them."""
    if rng.random() > _FEWER_BANDS:
        return None
    number = int(rng.integers(1, len(item.bands)))
    chosen = np.sort(rng.choice(len(item.bands), number, replace=False))
    return tuple(item.bands[k] for k in chosen)
