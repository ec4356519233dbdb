"""What the classifier sees of a tile, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.config import Config
from imcat.measure import Layer
from imcat.measure.views import pixel_to_sky
from imcat.simulate.sdss_camera import galactic_place
from imcat.stamps import Stamps, StampSettings, stamps_by_window
from imcat.tile import Tile

__all__ = ["all_stamps", "tile_classes"]


def tile_classes(
    tile: Tile,
    layers: Sequence[Layer],
    arcsec: float,
    columns: dict[str, Any],
    config: Config,
    pool: Executor | None,
    warnings: list[str],
) -> dict[str, Any]:
    """Classes, morphology and redshifts of the sources of a tile; torch is loaded here.

    Parameters
    ----------
    tile : Tile
        The pixels.
    layers : sequence of Layer
        Its exposures.
    arcsec : float
        Size of a reference pixel.
    columns : dict of arrays
        Of the catalogue.
    config : Config
        Prior.
    pool : Executor, optional
        Threads for the windows; their number does not change the result.
    warnings : list of str
        What a user should know is added to it.
    """
    from imcat.classify.stage import class_columns

    reference = tile.reference_exposure
    rows, width = tile.shape
    ra, dec, _ = pixel_to_sky(reference.wcs, np.array([0.5 * width]), np.array([0.5 * rows]))
    latitude = galactic_place(float(ra[0]), float(dec[0]))[0]
    return class_columns(
        layers, _wavelengths(tile), reference, columns, arcsec, latitude, config.classify, warnings, pool
    )


def all_stamps(
    tile: Tile,
    layers: Sequence[Layer],
    arcsec: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    settings: StampSettings,
) -> Stamps:
    """Stamps of sources at reference pixels `x` and `y`, in their order."""
    batches = list(
        stamps_by_window(layers, _wavelengths(tile), tile.reference_exposure, x, y, arcsec, settings)
    )
    order = np.argsort(np.concatenate([index for index, _ in batches]), kind="stable")
    parts = [stamps for _, stamps in batches]
    signal, valid, noise = (
        np.concatenate([getattr(p, name) for p in parts])[order] for name in ("signal", "valid", "noise")
    )
    return replace(parts[0], signal=signal, valid=valid, noise=noise)


def _wavelengths(tile: Tile) -> dict[str, float]:
    return {band.name: band.wavelength for band in tile.bands}
