"""Generated sky for the exposures of a tile: one canvas, which every band sees at its own place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imcat.augment.trained import TrainedSky
from imcat.errors import InputError
from imcat.simulate.observation import Observation

__all__ = ["blank_skies", "check_sky_bands", "offsets_from_reference"]

Float32 = NDArray[np.float32]


def check_sky_bands(trained: TrainedSky, bands: Sequence[str]) -> None:
    """Refuse bands whose sky a generator does not make.

    Raises
    ------
    InputError
        With the bands that it makes.
    """
    unknown = [band for band in bands if band not in trained.bands]
    if unknown:
        raise InputError(
            f"sky of band {unknown[0]} was asked for",
            expected=f"bands among {', '.join(trained.bands)}, which the generator was trained on",
        )


def offsets_from_reference(observation: Observation) -> list[tuple[int, int]]:
    """By how many whole pixels along x and y what the middle of the reference image shows is shifted in each exposure."""
    reference = observation.reference_exposure
    middle = 0.5 * (reference.shape[1] - 1), 0.5 * (reference.shape[0] - 1)
    ra, dec = reference.wcs.all_pix2world(*middle, 0)
    found = []
    for exposure in observation.exposures:
        x, y = exposure.wcs.all_world2pix(ra, dec, 0)
        found.append((round(float(x) - middle[0]), round(float(y) - middle[1])))
    return found


def blank_skies(trained: TrainedSky, observation: Observation, seed: int) -> tuple[Float32, ...]:
    """Empty sky of every exposure of a tile, in units of the noise of a pixel.

    The bands of one canvas belong together: faint sources and gradients are at one place of the sky in all of them.

    Parameters
    ----------
    trained : TrainedSky
        The generator.
    observation : Observation
        The exposures: one of each band at most sees its own noise.
    seed : int
        Decides every pixel.

    Returns
    -------
    tuple of float32 array, ``[y, x]``
        In the order of the exposures.

    Raises
    ------
    InputError
        If the generator does not make a band.
    """
    import torch

    torch.set_num_threads(1)  # sums over more of them differ in their last bits
    check_sky_bands(trained, observation.bands)
    offsets = offsets_from_reference(observation)
    # Pixel (x, y) of an exposure shows pixel (x - dx, y - dy) of the reference image.
    boxes = [
        (-dy, e.shape[0] - dy, -dx, e.shape[1] - dx)
        for e, (dx, dy) in zip(observation.exposures, offsets, strict=True)
    ]
    top, bottom = min(b[0] for b in boxes), max(b[1] for b in boxes)
    left, right = min(b[2] for b in boxes), max(b[3] for b in boxes)
    canvas = trained.sky(bottom - top, right - left, seed)
    return tuple(
        np.ascontiguousarray(
            canvas[trained.bands.index(e.band), b[0] - top : b[1] - top, b[2] - left : b[3] - left]
        )
        for e, b in zip(observation.exposures, boxes, strict=True)
    )
