"""The bias of the largest likelihood: a fit that may move and deform its model finds too much light.

Of all places and shapes the fit takes those at which the noise adds most. With S, the signal-to-noise ratio of the flux at
a given place and shape, and ν free parameters besides the flux, fluxes come out too large by ν / (2 S²), and those of
other bands, which are measured at that place, too small (Portillo, Speagle & Finkbeiner 2020, AJ 159, 165: 1 % for a point
at 10 σ, 2.5 % for a galaxy). Both are taken out here, with the number of parameters that the pixels decide, not the
priors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from imcat.measure.model_group import Fitted, Rules

__all__ = ["bias_factors"]

Float64 = NDArray[np.float64]


def bias_factors(fitted: Fitted, rules: Rules, fwhm: Float64, used: list[int]) -> Float64:
    """Factors that take the bias out of fluxes.

    Parameters
    ----------
    fitted : Fitted
        What the fits left.
    rules : Rules
        Which parameters were free, and their priors.
    fwhm : float64 array ``[n]``
        Of the PSF, arcsec, the unit of the prior on positions.
    used : list of int
        Bands in which positions and shapes were fitted.

    Returns
    -------
    float64 array ``[4, n, b]``
        For every kind of model: point, exponential, de Vaucouleurs, Sérsic.
    """
    kinds, n, bands = fitted.flux.shape
    factors = np.ones((kinds, n, bands))
    stiff = np.zeros((n, 6))
    if rules.free_positions:
        stiff[:, :2] = 1.0 / (rules.position_prior * fwhm[:, None]) ** 2
    if rules.free_shapes:
        stiff[:, 2] = 1.0 / rules.radius_prior**2
        stiff[:, 3:5] = 1.0 / rules.ellipticity_prior**2
        stiff[:, 5] = 1.0 / rules.index_prior**2
    inside = np.isin(np.arange(bands), used)
    for kind in range(kinds):
        variance = np.einsum("naa->na", fitted.covariance[kind])
        # What lies on its bound, or was not free, has no variance.
        with np.errstate(invalid="ignore", divide="ignore"):
            decided = np.where((variance > 0) & (stiff > 0), np.clip(1.0 - stiff * variance, 0.0, 1.0), 0.0)
            signal = np.sum(fitted.flux[kind][:, used] ** 2 / fitted.alone[kind][:, used], axis=1)
            half = 0.5 / np.where(signal > 0, signal, np.inf)
        count = np.array([2, 5, 5, 6])[kind]
        too_much = half * decided[:, :count].sum(axis=1)
        too_little = half * decided[:, :2].sum(axis=1)
        # Bounded where the expansion no longer holds.
        factors[kind] = np.where(
            inside, 1 / (1 + too_much)[:, None], (1 + np.minimum(too_little, 1))[:, None]
        )
    return factors
