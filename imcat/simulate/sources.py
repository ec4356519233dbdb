"""Sources of a simulated sky: what a population draws, and spectra, structure and truth read.

Magnitudes are total, in the five bands of SDSS and on its system (u and z are off AB by a few
hundredths), without the dust of the Milky Way; those in other filters follow from the spectra
(`imcat.simulate.spectra`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kind", "Morphology", "Sources"]

Float64 = NDArray[np.float64]


class Kind(IntEnum):
    """What a source is; names in lower case are the values of ``type`` in a truth table."""

    STAR = 0
    GALAXY = 1
    QUASAR = 2


class Morphology(IntEnum):
    """How a source looks; names in lower case are the values of ``morphology`` in a truth table."""

    POINT = 0
    SMOOTH = 1
    DISC = 2
    SPIRAL = 3
    BARRED = 4
    EDGE_ON = 5
    RING = 6
    IRREGULAR = 7
    MERGER = 8


@dataclass(frozen=True, eq=False)
class Sources:
    """Sources without positions, one entry of each array for each source.

    Attributes
    ----------
    kind : int8 array, ``[n]``
        `Kind`.
    mag : float64 array, ``[n, 5]``
        SDSS u, g, r, i, z.
    redshift : float64 array, ``[n]``
        0 for stars.
    bulge_fraction : float64 array, ``[n]``
        Share of the bulge in the flux in r, 0 to 1; 0 for points.
    bulge_radius, disc_radius : float64 array, ``[n]``
        Half-light radius along the major axis, arcsec; 0 for points.
    bulge_axis_ratio, disc_axis_ratio : float64 array, ``[n]``
        Minor over major axis, 0 to 1; 1 for points.
    bulge_index : float64 array, ``[n]``
        Sérsic index of the bulge; the disc is exponential.
    position_angle : float64 array, ``[n]``
        Of the major axis, degrees east of north.
    morphology : int8 array, ``[n]``
        `Morphology`.
    """

    kind: NDArray[np.int8]
    mag: Float64
    redshift: Float64
    bulge_fraction: Float64
    bulge_radius: Float64
    disc_radius: Float64
    bulge_axis_ratio: Float64
    disc_axis_ratio: Float64
    bulge_index: Float64
    position_angle: Float64
    morphology: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, which: NDArray[Any]) -> Sources:
        """Some of the sources, by index or by mask."""
        return Sources(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def replace(self, **columns: NDArray[Any]) -> Sources:
        """The same sources with other values in some columns."""
        return replace(self, **columns)

    @staticmethod
    def concatenate(parts: list[Sources]) -> Sources:
        """Sources of several lists, in order."""
        return Sources(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Sources)}
        )

    @staticmethod
    def points(kind: Kind, mag: Float64, redshift: Float64 | None = None) -> Sources:
        """Stars or quasars.

        Parameters
        ----------
        kind : Kind
            Of all of them.
        mag : float64 array, ``[n, 5]``
            SDSS u, g, r, i, z.
        redshift : float64 array, ``[n]``, optional
            Default: 0.
        """
        n = len(mag)
        zero, one = np.zeros(n), np.ones(n)
        return Sources(
            kind=np.full(n, kind, np.int8),
            mag=np.asarray(mag, np.float64),
            redshift=zero if redshift is None else np.asarray(redshift, np.float64),
            bulge_fraction=zero,
            bulge_radius=zero,
            disc_radius=zero,
            bulge_axis_ratio=one,
            disc_axis_ratio=one,
            bulge_index=np.full(n, 4.0),
            position_angle=zero,
            morphology=np.full(n, Morphology.POINT, np.int8),
        )
