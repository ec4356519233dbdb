"""How galaxies look, by published fractions.

Fractions for bright galaxies are those of Galaxy Zoo 2 (Willett et al. 2013, MNRAS 435, 2835) and its bar
paper (Masters et al. 2011, MNRAS 411, 2026: 29 % of disc galaxies are barred, rising with redness); rings
and mergers after Nair & Abraham (2010, ApJS 186, 427) and Darg et al. (2010, MNRAS 401, 1043);
irregulars and mergers grow towards faint magnitudes as in Abraham et al. (1996, MNRAS 279, L47).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.sources import Morphology

__all__ = ["draw_morphology"]

Float64 = NDArray[np.float64]

_EDGE_ON = 0.27  # axis ratio of a disc seen at 75 degrees and more (intrinsic thickness 0.2)
_RING, _MERGER, _SPIRAL = 0.03, 0.02, 0.60
_BLUE, _RED = 0.45, 0.85  # g-r of the blue cloud and of the red sequence, bright galaxies


def draw_morphology(
    rng: np.random.Generator, mag_r: Float64, colour: Float64, bulge_fraction: Float64, axis_ratio: Float64
) -> NDArray[np.int8]:
    """Draw how galaxies look.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    mag_r : float64 array, ``[n]``
        In r.
    colour : float64 array, ``[n]``
        g-r.
    bulge_fraction : float64 array, ``[n]``
        Share of the bulge in the flux.
    axis_ratio : float64 array, ``[n]``
        Of the disc.

    Returns
    -------
    int8 array, ``[n]``
        `Morphology`.
    """
    n = len(mag_r)
    red = np.clip((colour - _BLUE) / (_RED - _BLUE), 0.0, 1.5)
    faint = np.clip((mag_r - 17.0) / 8.0, 0.0, 1.0)
    # The fraction is that of SDSS composite models, where early types have more than 0.8 (Bernardi et al. 2005, AJ 129, 61).
    smooth = 1 / (1 + np.exp(-(bulge_fraction - 0.8 + 0.15 * (red - 0.75)) / 0.05))
    irregular = (1 - np.minimum(red, 1.0)) * (0.03 + 0.30 * faint)
    merger = _MERGER + 0.06 * faint
    barred = np.clip(0.12 + 0.30 * red, 0.0, 0.5)
    step = rng.random((n, 5))
    kind = np.full(n, Morphology.DISC, np.int8)
    # Later rules override earlier ones.
    kind[step[:, 0] < _SPIRAL] = Morphology.SPIRAL
    kind[step[:, 1] < barred] = Morphology.BARRED
    kind[step[:, 2] < _RING] = Morphology.RING
    kind[step[:, 3] < irregular] = Morphology.IRREGULAR
    kind[(axis_ratio < _EDGE_ON)] = Morphology.EDGE_ON
    kind[step[:, 4] < smooth] = Morphology.SMOOTH
    kind[rng.random(n) < merger] = Morphology.MERGER
    return kind
