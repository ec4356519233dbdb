"""Samples for the detection network: simulated tiles in units of their noise, and what is in them.

A tile of the simulator's stream is read as `imcat run` reads a tile: its background is measured, its bands are aligned.
What the network sees of it (`view`) is made from these bands, all of them or some, so that it learns to do without.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.align import AlignSettings, map_grids
from imcat.augment.assembly import Augmenter, augmented_stream
from imcat.augment.assembly_settings import AugmentSettings
from imcat.catalogue.fields import AB_FLUX
from imcat.detect.combine import Plane
from imcat.detect.network_input import BandPlanes, BandSet, WindowReader, blank_noise, compress, features
from imcat.errors import InputError
from imcat.noise import NoiseSettings, measure_noise
from imcat.psf import FWHM_PER_SIGMA
from imcat.simulate.scene import Models
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import stream
from imcat.tile import Tile
from imcat.window import Window

__all__ = [
    "Sample",
    "View",
    "labelled_sample",
    "lobed",
    "make_sample",
    "sample_stream",
    "some_bands",
    "tile_reader",
    "truth_snr",
    "view",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FEWER_BANDS = 0.5  # share of the samples that lack some
_SIGMA_OF_HALF_LIGHT = 1 / 1.1774  # of a Gaussian
_CORRELATED = 0.1  # share of the skies with the correlated noise of resampled images
_HIT = 0.5  # share of CSST's skies with cosmic rays: combined exposures have none
_LOBES = 5  # of a PSF, at most
_DEPTH = 2.0  # magnitudes below the 5 sigma limit of point sources
_AUGMENTED = 7  # purpose of the random stream that chooses augmented tiles
_HIGHEST = 6e4  # signal-to-noise ratio of a pixel that half precision still holds
_MATCH_ARCSEC, _MATCH_PIXELS = (
    0.25,
    2.5,
)  # EVALUATION's radii of a match: 0.25 arcsec from space, 1 from the ground


@dataclass(frozen=True, eq=False)
class Sample:
    """One tile, its bands in units of their noise, and the truth.

    Attributes
    ----------
    signal : float16 array ``[bands, y, x]``
        Sky-subtracted pixels in units of their noise, 0 without data.
    valid : bool array ``[bands, y, x]``
        Where there are data.
    wavelength, fwhm, noise : float64 arrays ``[bands]``
        Å; pixels; nJy of a pixel.
    x, y : float32 arrays ``[n]``
        Centres of the sources, pixels.
    flux : float32 array ``[n, bands]``
        nJy.
    half_light, axis_ratio : float32 arrays ``[n]``
        Pixels, along the major axis and before the PSF; minor over major axis.
    match : float
        Radius of a match, pixels.
    """

    signal: NDArray[np.float16]
    valid: NDArray[np.bool_]
    wavelength: Float64
    fwhm: Float64
    noise: Float64
    x: Float32
    y: Float32
    flux: Float32
    half_light: Float32
    axis_ratio: Float32
    match: float


@dataclass(frozen=True, eq=False)
class View:
    """What the network sees of a sample, and what it should say.

    Attributes
    ----------
    maps : float16 array ``[FEATURES, y, x]``
        See `imcat.detect.network_input.features` and `compress`.
    conditions : float32 array ``[CONDITIONS]``
        Of the set of bands.
    fwhm : float
        Of the main sum's PSF, pixels.
    x, y : float32 arrays ``[n]``
        Centres of the sources, pixels.
    snr : float32 array ``[n]``
        Signal-to-noise ratio that each would have without its neighbours, in the filter that suits it.
    radius : float32 array ``[n]``
        Half-light radius behind the PSF, pixels.
    light : float32 array ``[n]``
        Signal-to-noise ratio of a point source of the same light.
    match : float
        Radius of a match, pixels.
    """

    maps: NDArray[np.float16]
    conditions: Float32
    fwhm: float
    x: Float32
    y: Float32
    snr: Float32
    radius: Float32
    light: Float32
    match: float


def truth_snr(
    flux: Float64, half_light: Float64, axis_ratio: Float64, weights: Float64, noise: Float64, sigma: float
) -> Float64:
    """Signal-to-noise ratio of sources in the sum of the bands, each in the filter of its own shape behind the PSF.

    One filter for all, the PSF's, would call large galaxies four times as faint as they are where the PSF is narrow.

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
        Of the PSF, a Gaussian, pixels.
    """
    own = (half_light * _SIGMA_OF_HALF_LIGHT) ** 2 * np.clip(axis_ratio, 0.05, 1.0)
    total = (flux / noise) @ weights
    return np.asarray(total / (2 * math.sqrt(math.pi) * np.sqrt(sigma**2 + own)))


def make_sample(tile: Tile, truth: dict[str, NDArray[np.float64]]) -> Sample:
    """Turn a tile and its truth into a sample.

    Parameters
    ----------
    tile : Tile
        The images.
    truth : dict of arrays
        Columns ``x``, ``y``, ``{b}_mag``, ``half_light_radius`` (arcsec), ``axis_ratio``.
    """
    reader, pixel = tile_reader(tile)
    rows, columns = tile.shape
    signal, valid = reader.read(Window(0, rows - rows % 8, 0, columns - columns % 8))
    with np.errstate(over="ignore", invalid="ignore"):
        magnitude = np.stack([truth[f"{b}_mag"] for b in tile.band_names], axis=1).astype(float)
        flux = np.nan_to_num(AB_FLUX * 10 ** (-0.4 * magnitude))
    return Sample(
        np.clip(signal, -_HIGHEST, _HIGHEST).astype(np.float16), valid > 0,
        reader.bands.wavelength, reader.bands.fwhm, reader.bands.noise,
        truth["x"].astype(np.float32), truth["y"].astype(np.float32), flux.astype(np.float32),
        (np.nan_to_num(truth["half_light_radius"].astype(float)) / pixel).astype(np.float32),
        np.nan_to_num(truth["axis_ratio"].astype(float), nan=1.0).astype(np.float32),
        max(_MATCH_PIXELS, _MATCH_ARCSEC / pixel),
    )  # fmt: skip


def labelled_sample(path: str | Path) -> Sample:
    """A user's tile with its truth.

    Parameters
    ----------
    path : path
        A tile as ``imcat run`` takes it: a folder, or the TOML file of a generic tile. Beside it (in the folder) lies
        ``truth.parquet`` with the columns ``x`` and ``y`` (0-based pixels of the reference band) or ``ra`` and ``dec``,
        ``{b}_mag`` for each band, and, where known, ``half_light_radius`` (arcsec) and ``axis_ratio``: what
        ``imcat simulate`` writes has them all.

    Raises
    ------
    InputError
        If the tile or its truth cannot be read, or a column is missing.
    """
    import pyarrow.parquet as pq

    from imcat.measure.views import sky_to_pixel
    from imcat.surveys import find_tiles, read_tile

    base = Path(path)
    file = (base if base.is_dir() else base.parent) / "truth.parquet"
    try:
        table = pq.read_table(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the truth of a labelled tile cannot be read ({str(error).splitlines()[0]})", path=file,
            expected="a table with x, y or ra, dec, and magnitudes",
        ) from None  # fmt: skip
    tile = read_tile(find_tiles([base])[0])
    truth = {
        name: np.asarray(table[name].to_numpy(zero_copy_only=False))
        for name in table.column_names
        if name in ("x", "y", "ra", "dec", "half_light_radius", "axis_ratio") or name.endswith("_mag")
    }
    if not {"x", "y"} <= set(truth) and {"ra", "dec"} <= set(truth):
        truth["x"], truth["y"] = sky_to_pixel(tile.reference_exposure.wcs, truth["ra"], truth["dec"])
    missing = sorted({"x", "y", *(f"{b}_mag" for b in tile.band_names)} - set(truth))
    if missing:
        raise InputError(
            f"the truth has no column {missing[0]}",
            path=file,
            expected="x, y or ra, dec, and {band}_mag of every band",
        )
    truth.setdefault("half_light_radius", np.zeros(table.num_rows))
    truth.setdefault("axis_ratio", np.ones(table.num_rows))
    return make_sample(tile, truth)


def lobed(sample: Sample, rng: np.random.Generator, height: float) -> Sample:
    """A sample through a PSF with lobes: faint images of everything beside it, as real optics have.

    Parameters
    ----------
    sample : Sample
        Of the smooth PSFs of the simulator.
    rng : Generator
        Source of randomness.
    height : float
        Of the highest lobe at 1.5 FWHM from the centre, relative to the PSF; farther out they are lower. The noise grows
        by as little.
    """
    signal = sample.signal.astype(np.float32)
    width = float(np.median(sample.fwhm))
    out = signal.copy()
    for _ in range(int(rng.integers(1, _LOBES + 1))):
        distance, angle = rng.uniform(1.0, 3.0) * width, rng.uniform(0, 2 * np.pi)
        dx, dy = round(distance * math.cos(angle)), round(distance * math.sin(angle))
        share = height * math.exp(rng.uniform(-3.0, 0.0)) * (1.5 * width / max(distance, width)) ** 2
        moved = np.zeros_like(signal)
        rows, columns = signal.shape[1:]
        moved[:, max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)] = signal[
            :, max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : columns + min(-dx, 0)
        ]
        # About alike in all bands, not quite.
        out += (share * np.exp(rng.normal(0, 0.4, len(signal)))[:, None, None]).astype(np.float32) * moved
    return replace(
        sample, signal=np.where(sample.valid, np.clip(out, -_HIGHEST, _HIGHEST), 0).astype(np.float16)
    )


def view(sample: Sample, chosen: NDArray[np.int64] | None = None) -> View:
    """What the network sees of a sample in some of its bands.

    Parameters
    ----------
    sample : Sample
        The tile.
    chosen : int array, optional
        Indices of the bands; default: all.
    """
    at = np.arange(len(sample.wavelength)) if chosen is None else np.asarray(chosen)
    bands = BandSet(sample.wavelength[at], sample.fwhm[at], sample.noise[at])
    signal, valid = sample.signal[at].astype(np.float32), sample.valid[at].astype(np.float32)
    scale = blank_noise(features(signal, valid, bands)[0])
    maps = features(signal, valid, bands, scale)[0]
    sigma = bands.main_fwhm / FWHM_PER_SIGMA
    flux, half_light = sample.flux[:, at].astype(float), sample.half_light.astype(float)
    ratio = sample.axis_ratio.astype(float)
    snr = truth_snr(flux, half_light, ratio, bands.main_weights, bands.noise, sigma) / scale
    light = truth_snr(flux, 0 * half_light, ratio, bands.main_weights, bands.noise, sigma) / scale
    # Half of a Gaussian's light lies within half its FWHM; radii of images add about in squares.
    radius = np.sqrt((bands.main_fwhm / 2) ** 2 + half_light**2 * np.clip(ratio, 0.05, 1.0))
    return View(
        compress(maps).astype(np.float16), bands.conditions(), bands.main_fwhm, sample.x, sample.y,
        snr.astype(np.float32), radius.astype(np.float32), light.astype(np.float32), float(sample.match),
    )  # fmt: skip


def some_bands(rng: np.random.Generator, number: int) -> NDArray[np.int64] | None:
    """All bands, or some of them; the reference band is not always among them."""
    if number < 2 or rng.random() > _FEWER_BANDS:
        return None
    return np.sort(rng.choice(number, int(rng.integers(1, number)), replace=False))


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


def sample_stream(
    survey: str,
    seed: int,
    side: int,
    start: int = 0,
    step: int = 1,
    *,
    varied: bool = True,
    generated: float = 0.0,
    generators: str = "",
) -> Iterator[Sample]:
    """Samples without end: tiles start, start + step, … of the skies that `seed` decides.

    Where they are to be varied, seeing, crowding, artefacts and the texture of the noise vary more than in a survey's
    tiles. A share `generated` of them are augmented tiles, with the generators of a folder or those that come with imcat.
    """
    for index in _count(start, step):
        rng = np.random.default_rng([seed, index])
        settings = _varied(rng, survey) if varied else SimulateSettings(depth_below_limit=_DEPTH)
        if generated > 0 and np.random.default_rng([seed, index, _AUGMENTED]).random() < generated:
            augmenter = _augmenter(survey, generators or None)
            item = next(
                augmented_stream(
                    survey, seed, (side, side), settings, models=_models(), start=index, augmenter=augmenter
                )
            )
        else:
            item = next(stream(survey, seed, (side, side), settings, _models(), start=index))
        yield make_sample(item.tile, item.truth)


@functools.cache
def _models() -> Models:
    """The simulator's, once for a process: what they compute of the spectra takes longer than a sample."""
    return Models.load()


@functools.cache
def _augmenter(survey: str, folder: str | None) -> Augmenter:
    """Of the survey's own mix, once for a process."""
    return Augmenter.load(survey, AugmentSettings.of_survey(survey), folder)


def _count(start: int, step: int) -> Iterator[int]:
    while True:
        yield start
        start += step


def _varied(rng: np.random.Generator, survey: str) -> SimulateSettings:
    """What the skies of one sample hold."""
    base = SimulateSettings(depth_below_limit=_DEPTH)
    crowded = rng.random() < 0.08
    return replace(
        base,
        # Faint galaxies of other populations are smaller or larger than ours.
        galaxy_size=float(np.exp(rng.uniform(np.log(0.7), np.log(2.0)))),
        density=float(np.exp(rng.uniform(np.log(0.6), np.log(2.5)))),
        star_density=float(np.exp(rng.uniform(np.log(0.5), np.log(8.0)))),
        cluster_stars=int(rng.integers(60, 400)) if crowded else 0,
        seeing=float(rng.uniform(0.9, 1.9)) if survey == "sdss" else 0.0,
        psf_stretch=float(rng.uniform(1.0, 1.5)) if survey == "csst" else 1.0,
        noise_correlation=float(rng.uniform(0.4, 1.0)) if rng.random() < _CORRELATED else 0.0,
        lookalikes_per_deg2=200.0,
        lenses_per_deg2=60.0,
        cosmic_rays=survey == "sdss" or bool(rng.random() < _HIT),
        trails_per_tile=0.15,
        bad_columns_per_tile=10.0,
    )
