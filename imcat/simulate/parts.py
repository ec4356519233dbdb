"""What a tile can be given in place of, or beside, what the simulator makes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imcat.render.components import Components
from imcat.simulate.sources import Sources

__all__ = ["DrawnGalaxies", "GalaxyLight", "Parts"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DrawnGalaxies:
    """Light of some of the galaxies that were asked about.

    Attributes
    ----------
    rows : int64 array, ``[n]``
        Which of them, rising.
    components : Components
        Their light: sources 0 to n − 1, fluxes those of the galaxies.
    structured : bool array, ``[n]``
        Whether the light shows the morphology that the galaxy has.
    """

    rows: NDArray[np.int64]
    components: Components
    structured: NDArray[np.bool_]


class GalaxyLight(Protocol):
    """Draws some galaxies, in place of a bulge, a disc and their structure."""

    def __call__(self, sources: Sources, flux: Float64, wavelengths: Float64) -> DrawnGalaxies:
        """Choose galaxies and make their light.

        Parameters
        ----------
        sources : Sources
            Galaxies that are neither lenses nor look-alikes.
        flux : float64 array, ``[n, bands]``
            Total, nJy.
        wavelengths : float64 array, ``[bands]``
            Effective, Å.
        """
        ...


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts of one tile that the simulator does not make.

    Attributes
    ----------
    added : Sources or None
        Sources beyond those of the sky.
    places : (float64 array, float64 array) or None
        x and y of these, pixels of the reference image; None puts them anywhere.
    light : GalaxyLight or None
        Draws some of the galaxies.
    skies : tuple of float32 array ``[y, x]`` or None
        For each exposure its empty sky in units of the noise of a pixel, or None for the simulator's own; an empty
        tuple: none.
    """

    added: Sources | None = None
    places: tuple[Float64, Float64] | None = None
    light: GalaxyLight | None = None
    skies: tuple[Float32 | None, ...] = ()
