"""The file of template spectra and SDSS filter curves, and the wavelength grid they share.

``weights/spectra.safetensors`` with its card ``spectra.toml``, built by `imcat.simulate.spectra_fit`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.registry import read_weights

__all__ = ["FORMAT_VERSION", "GRID_SIZE", "GRID_STEP", "SpectraFile", "grid_wavelengths", "read_spectra"]

Float64 = NDArray[np.float64]

#: Version of the layout of the file; another one is refused.
FORMAT_VERSION = 1
#: Step of the grid in the natural logarithm of wavelength: a resolving power of 250, enough for broad bands.
GRID_STEP = 0.004
#: Number of grid points: 560 Å (quasars in the far ultraviolet) to 2.56 µm.
GRID_SIZE = 957
_GRID_START = 560.0
_NAME = "spectra"


@dataclass(frozen=True, eq=False)
class SpectraFile:
    """What the file holds.

    Attributes
    ----------
    templates : dict of str to float32 array, ``[t, GRID_SIZE]``
        ``star``, ``galaxy``, ``quasar``: AB magnitude per unit frequency at rest (``-2.5 log10 f_nu``) with
        an arbitrary zero for each template, without absorption between the galaxies.
    names : dict of str to tuple of str
        Name of each template.
    curves : dict of str to (wavelength, transmission)
        The SDSS filters u, g, r, i, z: Å, electrons per photon at 1.3 airmasses.
    """

    templates: dict[str, NDArray[np.float32]]
    names: dict[str, tuple[str, ...]]
    curves: dict[str, tuple[Float64, Float64]]


def grid_wavelengths() -> Float64:
    """Wavelengths of the grid, Å, ``[GRID_SIZE]``; also observed ones, so that a redshift is a shift."""
    wavelengths: Float64 = _GRID_START * np.exp(GRID_STEP * np.arange(GRID_SIZE))
    return wavelengths


@cache
def read_spectra(folder: str | Path | None = None) -> SpectraFile:
    """Read the file, checked against its card.

    Parameters
    ----------
    folder : path, optional
        Where the file and its card lie; default: those that come with imcat.

    Raises
    ------
    InputError
        If the file or its card is absent, of another version or not the one the card describes.
    """
    recipe = "python -m imcat.simulate.spectra_fit -o FOLDER"
    return _unpack(read_weights(_NAME, FORMAT_VERSION, recipe, folder)[0])


def _unpack(data: bytes) -> SpectraFile:
    """Arrays of the safetensors format, whose header also holds the templates' names."""
    from safetensors.numpy import load

    arrays = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    names = json.loads(header["__metadata__"]["names"])
    curves = {}
    for key, table in arrays.items():
        if key.startswith("filter."):
            wavelength, transmission = table.astype(np.float64)
            curves[key.removeprefix("filter.")] = (wavelength, transmission)
    return SpectraFile(
        templates={kind: arrays[f"template.{kind}"].astype(np.float32) for kind in names},
        names={kind: tuple(listed) for kind, listed in names.items()},
        curves={band: curves[band] for band in ("u", "g", "r", "i", "z")},
    )
