"""Colours of stars at a given g-i: the stellar locus of disc, halo and white dwarfs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.milky_way import COLOUR_NODES, COMPONENTS, StarDraw

__all__ = ["Locus"]

Float64 = NDArray[np.float64]

# Which locus each component of the Galaxy follows.
_LOCUS = {"disc": 0, "halo": 1, "horizontal branch": 1, "white dwarf": 2, "disc giant": 0, "halo giant": 1}
_STEP = float(COLOUR_NODES[1] - COLOUR_NODES[0])


@dataclass(frozen=True, eq=False)
class Locus:
    """The stellar locus without errors, at `imcat.simulate.milky_way.COLOUR_NODES` in g-i.

    Attributes
    ----------
    centre : float64 array, ``[3, nodes, 3]``
        u-g, g-r, i-z of disc, halo, white dwarfs.
    covariance : float64 array, ``[3, nodes, 3, 3]``
        Of the same at a given g-i.
    """

    centre: Float64
    covariance: Float64

    def magnitudes(self, rng: np.random.Generator, stars: StarDraw) -> Float64:
        """Draw the magnitudes of stars in u, g, r, i, z, ``[n, 5]``."""
        row = np.array([_LOCUS[name] for name in COMPONENTS])[stars.component]
        place = np.clip((stars.colour - COLOUR_NODES[0]) / _STEP, 0, len(COLOUR_NODES) - 1.001)
        low = place.astype(int)
        part = (place - low)[:, None]
        colours = (1 - part) * self.centre[row, low] + part * self.centre[row, low + 1]
        roots = np.linalg.cholesky(self.covariance)
        near = low + (part[:, 0] > 0.5)
        colours += np.einsum("nij,nj->ni", roots[row, near], rng.standard_normal(colours.shape))
        g = stars.mag_r + colours[:, 1]
        i = g - stars.colour
        return np.stack([g + colours[:, 0], g, stars.mag_r, i, i - colours[:, 2]], 1)
