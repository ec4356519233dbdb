"""Samples of strong lenses and of what looks like them, many on a tile, cut at their true places.

Lenses are rare even where the simulator is asked for many, since those of one tile must not overlap; and what tells
them from look-alikes is in the pixels. So these tiles are filled with both on a grid, and are not measured: their stamps
teach the networks without photometry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.align import AlignSettings, map_grids
from imcat.measure import Layer
from imcat.noise import NoiseSettings, measure_noise
from imcat.simulate.scene import Models
from imcat.simulate.tiles import observe, simulate_tile
from imcat.simulate.truth_columns import truth_columns
from imcat.stamps import Stamps, StampSettings, stamps_by_window
from imcat.tile import Tile
from imcat.train.source_samples import SampleSettings, SourceSample, pack, sky_of

__all__ = ["lens_sample", "lens_stamps"]

Array = NDArray[Any]

_SPAWN = 92
_OTHERS = 0.25  # other sources for each lens or look-alike
_FAINTEST = 21.5  # of these, in the reference band: that of deflectors
_JITTER = 0.4  # pixels by which centres are found wrong


def lens_stamps(
    settings: SampleSettings, index: int, models: Models, stamps: StampSettings
) -> Iterator[tuple[tuple[str, ...], Stamps, dict[str, Array]]]:
    """Bands, stamps and truth of the lenses, the look-alikes and some other sources of a tile, part by part.

    Parameters
    ----------
    settings : SampleSettings
        What the tile holds.
    index : int
        Number of the tile.
    models : Models
        Of the simulator.
    stamps : StampSettings
        Size of the stamps.
    """
    rng = np.random.default_rng([settings.seed, index, _SPAWN])
    sky = sky_of(settings, rng)
    observation = observe(settings.survey, index, settings.seed, sky, (settings.height, settings.width))
    tile, scene = simulate_tile(observation, sky, models, settings.seed, index)
    truth = truth_columns(scene, observation, sky)
    rows = _chosen(truth, tile, rng)
    truth = {name: values[rows] for name, values in truth.items()}
    x, y = (truth[axis] + rng.normal(0, _JITTER, len(rows)) for axis in "xy")
    waves = {band.name: band.wavelength for band in tile.bands}
    reference = tile.reference_exposure
    arcsec = observation.reference_exposure.pixel_scale
    own = replace(stamps, binning=settings.binning)
    for part, cut in stamps_by_window(_layers(tile), waves, reference, x, y, arcsec, own):
        yield tile.band_names, cut, {name: values[part] for name, values in truth.items()}


def lens_sample(settings: SampleSettings, index: int, models: Models, stamps: StampSettings) -> SourceSample:
    """The same as a sample without measured columns; parameters are those of `lens_stamps`."""
    parts = list(lens_stamps(settings, index, models, stamps))
    bands, first, _ = parts[0]
    return SourceSample(
        {},
        {name: np.concatenate([truth[name] for _, _, truth in parts]) for name in parts[0][2]},
        bands,
        first.wavelength,
        first.fwhm,
        np.concatenate([pack(cut) for _, cut, _ in parts]),
        np.concatenate([cut.noise for _, cut, _ in parts]),
        first.pixel,
    )


def _chosen(truth: dict[str, Array], tile: Tile, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of lenses, look-alikes and others inside the tile."""
    rows, columns = tile.reference_exposure.shape
    inside = (truth["x"] >= 0) & (truth["y"] >= 0) & (truth["x"] < columns) & (truth["y"] < rows)
    wanted = np.asarray(truth["is_lens"]) | (truth["lookalike"] != "")
    bright = truth[f"{tile.reference}_mag"] < _FAINTEST
    others = np.flatnonzero(inside & ~wanted & bright)
    number = min(len(others), round(_OTHERS * int(wanted.sum())))
    return np.sort(np.concatenate([np.flatnonzero(inside & wanted), rng.permutation(others)[:number]]))


def _layers(tile: Tile) -> list[Layer]:
    reference = tile.reference_exposure
    out = []
    for band in tile.bands:
        for exposure in band.exposures:
            grid = map_grids(reference.wcs, reference.shape, exposure.wcs, exposure.shape, AlignSettings())
            noise = measure_noise(exposure, NoiseSettings())
            assert exposure.psf_fwhm is not None
            out.append(Layer(band.name, exposure, noise, grid, exposure.psf_fwhm / 2.3548, 1.0))
    return out
