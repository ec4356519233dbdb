"""Makes a process ready for its first tile; the fork server imports it before workers are forked.

Importing astropy's parts and loading the compiled kernels from numba's cache takes longer than
measuring a small field, and would be done by every worker for itself. Catalogues do not depend
on it: what is loaded here is loaded on first use otherwise.
"""

from __future__ import annotations

import logging
import os

import numpy as np

from imcat.config import Config
from imcat.pipeline import process_tile
from imcat.surveys.fits_header import Header
from imcat.surveys.sky_wcs import celestial_wcs
from imcat.tile import ArrayPixels, Band, Exposure, Tile

__all__ = ["practice_tile"]

_SIZE = 192  # pixels: room for the sources below, and for a mesh of the noise
_SPACING = 32
_FWHM = 3.0  # pixels


def practice_tile() -> Tile:
    """A small tile of two bands with round sources, some of which touch."""
    y, x = np.mgrid[:_SIZE, :_SIZE].astype(np.float32)
    noise = np.random.default_rng(0).normal(size=(2, _SIZE, _SIZE)).astype(np.float32)
    square = (x % _SPACING - 12.0) ** 2 + (y % _SPACING - 12.0) ** 2
    beside = (x % (3 * _SPACING) - 18.0) ** 2 + (y % _SPACING - 14.0) ** 2
    scale = np.float32(2.0 * (_FWHM / 2.3548) ** 2)
    stars = 300.0 * np.exp(-square / scale) + 200.0 * np.exp(-beside / scale)
    header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 180.0, "CRVAL2": 10.0}
    header |= {"CRPIX1": 96.0, "CRPIX2": 96.0, "CD1_1": -1.1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1.1e-4}
    bands = []
    for index, (name, wavelength) in enumerate((("g", 4750.0), ("r", 6200.0))):
        shifted = header | {"CRPIX1": header["CRPIX1"] + 0.4 * index}  # type: ignore[operator]
        exposure = Exposure(
            name=f"practice-{name}",
            image=ArrayPixels((stars + noise[index]).astype(np.float32)),
            wcs=celestial_wcs(Header(shifted), (_SIZE, _SIZE), "practice"),
            variance=ArrayPixels(np.ones((_SIZE, _SIZE), np.float32)),
            mask=ArrayPixels(np.zeros((_SIZE, _SIZE), np.uint16)),
            zero_point=31.4,
            gain=1.0,
        )
        bands.append(Band(name, wavelength, (exposure,)))
    return Tile(name="practice", survey="generic", number=0, bands=tuple(bands), reference="r")


def _practise() -> None:
    try:
        # Kernels of the fits and torch take longest to load, and not every run needs them.
        needed = os.environ.get("IMCAT_PRACTICE", "fits").split()
        config = Config(
            detector="network" if "network" in needed else "threshold",
            fit_models="fits" in needed,
            classify_sources="classes" in needed,
        )
        process_tile(practice_tile(), config, threads=1)
    except Exception:  # it only saves time; what is wrong here is told when a tile needs it
        logging.getLogger(__name__).debug("the practice tile failed", exc_info=True)


if __name__ != "__main__":  # the fork server imports it for this
    _practise()
