"""The two engines that find the sources of a tile, behind one function."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Protocol

import numpy as np

from imcat.config import Config
from imcat.detect import Combiner, Detections, Plane, band_weights, detect_threshold
from imcat.products import Prepared
from imcat.tile import Tile

__all__ = ["Seen", "find_sources"]


class Seen(Prepared, Protocol):
    """An exposure with its noise, its place on the reference grid, and the width of its PSF."""

    @property
    def fwhm(self) -> float:
        """Of the PSF, arcsec."""
        ...

    @property
    def pixel(self) -> float:
        """Side of a pixel, arcsec."""
        ...


def find_sources(
    tile: Tile,
    prepared: Sequence[Seen],
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> Detections:
    """Sources of a tile above the smallest score, found by the engine that the configuration names.

    Parameters
    ----------
    tile : Tile
        The pixels.
    prepared : sequence of Seen
        Its exposures.
    config : Config
        Engine, its settings, smallest score; absent, the engine's own working point holds.
    pool : Executor, optional
        Threads for the windows.
    warnings : list of str
        What a user should know is added to it.
    """
    weights = band_weights({band.name: band.wavelength for band in tile.bands}, config.detect)
    pixel = next(p.pixel for p in prepared if p.exposure is tile.reference_exposure)
    planes = [
        Plane(p.exposure, p.noise, p.grid, (pixel / p.pixel) ** 2, weights[p.band.name]) for p in prepared
    ]
    used = [p.fwhm for p in prepared if weights[p.band.name] > 0]
    fwhm = config.detect.kernel_fwhm or float(np.median(used))
    if config.detector == "network":
        found, least = _detect_with_network(tile, prepared, planes, pixel, config, pool, warnings)
    else:
        combiner = Combiner(planes, tile.shape, fwhm / pixel)
        combiner.calibrate(pool)
        found, least = detect_threshold(combiner, config.detect, pool), 0.0
    return found.select(found.score >= (least if config.min_score is None else config.min_score))


def _detect_with_network(
    tile: Tile,
    prepared: Sequence[Seen],
    planes: Sequence[Plane],
    pixel: float,
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> tuple[Detections, float]:
    """Sources that the network finds, and the score of its working point; torch is loaded here alone."""
    from imcat.detect.network_input import BandPlanes, WindowReader
    from imcat.detect.network_search import detect_network, load_network

    trained, bands = load_network(), []
    low, high = trained.wavelengths
    for band in tile.bands:
        if not low <= band.wavelength <= high:
            warnings.append(
                f"band {band.name} at {band.wavelength:g} angstrom lies outside {low:g} to {high:g}, which the detection "
                "network was trained on"
            )
        own = [k for k, p in enumerate(prepared) if p.band.name == band.name]
        width = float(np.median([prepared[k].fwhm for k in own])) / pixel
        bands.append(BandPlanes(band.wavelength, width, tuple(planes[k] for k in own)))
    found = detect_network(WindowReader(bands, tile.shape), trained, config.network, pool)
    return found, trained.working_point
