"""PSF and model photometry as the columns of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.measure.models import ModelFits, Shape

__all__ = ["MODEL_NAMES", "model_columns", "model_offsets"]

Float64 = NDArray[np.float64]

#: Values of the column ``model`` by the numbers of `ModelFits.model`.
MODEL_NAMES = ("exponential", "de Vaucouleurs")
# Chi² by which an extended source must be better than a point: that of three more parameters at 99 %.
_EXTENDED = 11.3


def model_columns(fits: ModelFits, bands: Sequence[str], reference: int) -> dict[str, NDArray[Any]]:
    """Columns of fluxes and shapes, by name.

    Parameters
    ----------
    fits : ModelFits
        Of n sources.
    bands : sequence of str
        Names, in the order of the fits.
    reference : int
        Index of the reference band.
    """
    columns: dict[str, NDArray[Any]] = {}
    for k, band in enumerate(bands):
        columns[f"{band}_psf_flux"] = fits.psf_flux[:, k]
        columns[f"{band}_psf_flux_err"] = _root(fits.psf_variance[:, k])
        columns[f"{band}_psf_chi2"] = fits.psf_chi2[:, k]
        columns[f"{band}_model_flux"] = fits.model_flux[:, k]
        columns[f"{band}_model_flux_err"] = _root(fits.model_variance[:, k])
        columns[f"{band}_model_chi2"] = fits.model_chi2[:, k]
        columns[f"{band}_model_pixels"] = fits.psf_pixels[:, k]
        columns[f"{band}_cmodel_flux"] = fits.cmodel_flux[:, k]
        columns[f"{band}_cmodel_flux_err"] = _root(fits.cmodel_variance[:, k])
        columns[f"{band}_fracdev"] = fits.fracdev[:, k]
        for j, profile in enumerate(("exponential", "de_vaucouleurs")):
            columns[f"{band}_{profile}_flux"] = fits.profile_flux[:, k, j]
            columns[f"{band}_{profile}_flux_err"] = _root(fits.profile_variance[:, k, j])
    known = fits.model >= 0
    columns["model"] = np.where(known, np.array(MODEL_NAMES)[np.maximum(fits.model, 0)], "")
    best = _chosen(fits)
    columns |= _shape("model", best)
    columns |= _shape("exponential", fits.exponential) | _shape("de_vaucouleurs", fits.de_vaucouleurs)
    columns["sersic_index"] = fits.sersic_index
    columns["sersic_index_err"] = fits.sersic_index_err
    columns |= _shape("sersic", fits.sersic)
    columns["spread_model"] = fits.spread_model
    columns["spread_model_err"] = fits.spread_model_err
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = fits.psf_flux[:, reference] / fits.cmodel_flux[:, reference]
        columns["psf_minus_model"] = np.where(
            ratio > 0, -2.5 * np.log10(np.where(ratio > 0, ratio, 1.0)), np.nan
        )
    return columns


def model_offsets(fits: ModelFits, reference: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which positions of the fits are good, and whose they are.

    Returns
    -------
    good : bool array ``[n]``
        A position was fitted, with an error.
    source : str array ``[n]``
        ``model`` where a galaxy is better than a point in the reference band, else ``psf``.
    """
    error = fits.position_covariance[:, [0, 1], [0, 1]]
    good = (
        np.isfinite(fits.xi)
        & np.isfinite(fits.eta)
        & np.isfinite(error).all(axis=1)
        & (error > 0).all(axis=1)
    )
    with np.errstate(invalid="ignore"):
        extended = fits.model_chi2[:, reference] < fits.psf_chi2[:, reference] - _EXTENDED
    return good, np.where(extended, "model", "psf")


def _root(variance: Float64) -> Float64:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(variance))


def _chosen(fits: ModelFits) -> Shape:
    """The shape of the better of the two profiles."""
    deep = fits.model == 1
    pairs = zip(_values(fits.de_vaucouleurs), _values(fits.exponential), strict=True)
    return Shape(*(np.where(fits.model < 0, np.nan, np.where(deep, d, e)) for d, e in pairs))


def _values(shape: Shape) -> tuple[Float64, ...]:
    return (
        shape.radius, shape.radius_err, shape.axis_ratio, shape.axis_ratio_err, shape.angle, shape.angle_err
    )  # fmt: skip


def _shape(prefix: str, shape: Shape) -> dict[str, NDArray[Any]]:
    names = ("radius", "radius_err", "axis_ratio", "axis_ratio_err", "angle", "angle_err")
    return {f"{prefix}_{name}": values for name, values in zip(names, _values(shape), strict=True)}
