"""Absorption by hydrogen between the galaxies, the mean over lines of sight.

Inoue, Shimizu, Iwata & Tanaka (2014, MNRAS 442, 1805): Lyman series and Lyman continuum of the
Lyman α forest (LAF) and of damped systems (DLA), equations 21 to 29. Of the series' 39 lines the
first eleven are taken: the others lie within 6 Å of the limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["transmission"]

Float64 = NDArray[np.float64]

# Inoue et al. 2014, table 2: wavelength (Å), A(LAF, 1), A(DLA, 1) of Lyman α, β, ... The further columns of
# that table follow, since the power laws meet at the breaks.
_SERIES = np.array(
    [
        (1215.67, 1.690e-2, 1.617e-4),
        (1025.72, 4.692e-3, 1.545e-4),
        (972.537, 2.239e-3, 1.498e-4),
        (949.743, 1.319e-3, 1.460e-4),
        (937.803, 8.707e-4, 1.429e-4),
        (930.748, 6.178e-4, 1.402e-4),
        (926.226, 4.609e-4, 1.377e-4),
        (923.150, 3.569e-4, 1.355e-4),
        (920.963, 2.843e-4, 1.335e-4),
        (919.352, 2.318e-4, 1.316e-4),
        (918.129, 1.923e-4, 1.298e-4),
    ]
)
_LIMIT = 911.8  # Å, Lyman limit
_LAF_BREAKS = (2.2, 5.7)  # 1 + z where the number of forest absorbers changes its slope
_DLA_BREAK = 3.0


def transmission(redshift: float, wavelength: Float64) -> Float64:
    """Share of a source's light that passes.

    Parameters
    ----------
    redshift : float
        Of the source, 0 or more.
    wavelength : array, ``[n]``
        Observed, Å.

    Returns
    -------
    array, ``[n]``
        0 to 1.
    """
    x = np.asarray(wavelength, np.float64) / _LIMIT
    beyond = x < 1 + redshift
    continuum = np.where(beyond, _forest_continuum(x, 1 + redshift) + _damped_continuum(x, 1 + redshift), 0.0)
    # The fits dip below 0 by a few 1e-3 at low redshift.
    passed: Float64 = np.exp(-_series(wavelength, redshift) - np.maximum(continuum, 0.0))
    return passed


def _series(wavelength: Float64, redshift: float) -> Float64:
    """Optical depth of the lines (equations 21 and 22)."""
    ratio = np.asarray(wavelength, np.float64)[:, None] / _SERIES[:, 0]
    first, second = _LAF_BREAKS
    forest = np.where(
        ratio < first,
        ratio**1.2,
        np.where(
            ratio < second,
            first ** (1.2 - 3.7) * ratio**3.7,
            first ** (1.2 - 3.7) * second ** (3.7 - 5.5) * ratio**5.5,
        ),
    )
    damped = np.where(ratio < _DLA_BREAK, ratio**2.0, ratio**3.0 / _DLA_BREAK)
    depth = _SERIES[:, 1] * forest + _SERIES[:, 2] * damped
    lies_between = (ratio > 1) & (ratio < 1 + redshift)
    total: Float64 = np.where(lies_between, depth, 0.0).sum(axis=1)
    return total


def _forest_continuum(x: Float64, source: float) -> Float64:
    """Optical depth of the forest in the Lyman continuum (equations 25 to 27); source: its 1 + z."""
    first, second = _LAF_BREAKS
    depth: Float64
    if source < first:
        depth = 0.325 * (x**1.2 - source**-0.9 * x**2.1)
    elif source < second:
        far = 2.55e-2 * source**1.6 * x**2.1
        depth = far + np.where(x < first, 0.325 * x**1.2 - 0.250 * x**2.1, -2.55e-2 * x**3.7)
    else:
        far = 5.22e-4 * source**3.4 * x**2.1
        middle = np.where(x < second, 0.218 * x**2.1 - 2.55e-2 * x**3.7, -5.22e-4 * x**5.5)
        depth = far + np.where(x < first, 0.325 * x**1.2 - 3.14e-2 * x**2.1, middle)
    return depth


def _damped_continuum(x: Float64, source: float) -> Float64:
    """Optical depth of damped systems in the Lyman continuum (equations 28 and 29)."""
    depth: Float64
    if source < _DLA_BREAK:
        depth = 0.211 * source**2 - 7.66e-2 * source**2.3 * x**-0.3 - 0.135 * x**2
    else:
        far = 4.70e-2 * source**3 - 1.78e-2 * source**3.3 * x**-0.3
        depth = far + np.where(x < _DLA_BREAK, 0.634 - 0.135 * x**2 - 0.291 * x**-0.3, -2.92e-2 * x**3)
    return depth
