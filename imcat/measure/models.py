"""PSF and galaxy models of the sources of one window, in every band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.flags import SourceFlag
from imcat.measure.model_bias import bias_factors
from imcat.measure.model_group import Fitted, Rules, fit_groups
from imcat.measure.model_profiles import POINT, classical_profiles, index_bounds, sersic_tables
from imcat.measure.model_settings import ModelSettings
from imcat.measure.model_stack import gather
from imcat.psf.mixture import PsfMixture

__all__ = ["FitImage", "ModelFits", "Shape", "fit_models"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FitImage:
    """One exposure under one window, ready to fit; n sources.

    Attributes
    ----------
    band : int
        Index of its band.
    data : float32 array ``[y, x]``
        nJy, sky subtracted.
    variance : float32 array ``[y, x]``
        nJy², of sky and detector; 0 where the pixel must not be used.
    gain : float
        Electrons per nJy, infinite if unknown: no Poisson noise of sources then.
    psf : PsfMixture
        Of the whole exposure.
    origin : (int, int)
        x and y in the exposure of the first pixel of the window.
    rho : float64 array ``[2 r + 1, 2 r + 1]``
        Correlation of the noise by lag (dy, dx), see `imcat.noise.NoiseCovariance`.
    x, y : float64 array ``[n]``
        First guess of each position, pixels of this window; NaN outside the exposure.
    jacobian : float64 array ``[n, 2, 2]``
        (dx, dy) in pixels are this matrix times (xi, eta) in arcsec, at each source.
    """

    band: int
    data: NDArray[np.float32]
    variance: NDArray[np.float32]
    gain: float
    psf: PsfMixture
    origin: tuple[int, int]
    rho: Float64
    x: Float64
    y: Float64
    jacobian: Float64


@dataclass(frozen=True, eq=False)
class Shape:
    """Shapes of a profile, arrays ``[n]``.

    Attributes
    ----------
    radius, radius_err : float64
        Half-light radius along the major axis, arcsec.
    axis_ratio, axis_ratio_err : float64
        Minor over major axis.
    angle, angle_err : float64
        Of the major axis, degrees east of north, 0 to 180.
    """

    radius: Float64
    radius_err: Float64
    axis_ratio: Float64
    axis_ratio_err: Float64
    angle: Float64
    angle_err: Float64


@dataclass(frozen=True, eq=False)
class ModelFits:
    """What was fitted; arrays over n sources, or n sources and b bands. NaN where there is no measurement.

    Attributes
    ----------
    xi, eta : float64 ``[n]``
        Position of the better of the models, arcsec east and north of the first guess.
    position_covariance : float64 ``[n, 2, 2]``
        Of (xi, eta), arcsec².
    psf_flux, psf_variance, psf_chi2 : float64 ``[n, b]``
        nJy, nJy²; chi² of the pixels of the footprint.
    psf_pixels : int64 ``[n, b]``
        Pixels that were used.
    exponential, de_vaucouleurs : Shape
        Shapes of the two classical profiles.
    model : int8 ``[n]``
        The better one in the bands of the shapes: 0 exponential, 1 de Vaucouleurs; -1: none.
    model_flux, model_variance, model_chi2 : float64 ``[n, b]``
        Flux of that profile.
    profile_flux, profile_variance : float64 ``[n, b, 2]``
        Fluxes of the exponential and of the de Vaucouleurs profile.
    cmodel_flux, cmodel_variance, fracdev : float64 ``[n, b]``
        Flux of the mix of both profiles that fits best in each band, and the share of de Vaucouleurs.
    sersic_index, sersic_index_err : float64 ``[n]``
        Sérsic index; NaN where no such profile was fitted.
    sersic : Shape
        Shape of the Sérsic profile.
    sersic_flux, sersic_variance : float64 ``[n, b]``
        Its flux.
    spread_model, spread_model_err : float64 ``[n]``
        Linear discriminant between the PSF and a slightly wider profile (Desai et al. 2012, ApJ 757, 83).
    flags : int64 ``[n]``
        Bits of `imcat.flags.SourceFlag`.
    """

    xi: Float64
    eta: Float64
    position_covariance: Float64
    psf_flux: Float64
    psf_variance: Float64
    psf_chi2: Float64
    psf_pixels: NDArray[np.int64]
    exponential: Shape
    de_vaucouleurs: Shape
    model: NDArray[np.int8]
    model_flux: Float64
    model_variance: Float64
    model_chi2: Float64
    profile_flux: Float64
    profile_variance: Float64
    cmodel_flux: Float64
    cmodel_variance: Float64
    fracdev: Float64
    sersic_index: Float64
    sersic_index_err: Float64
    sersic: Shape
    sersic_flux: Float64
    sersic_variance: Float64
    spread_model: Float64
    spread_model_err: Float64
    flags: NDArray[np.int64]


def fit_models(
    images: Sequence[FitImage],
    group: NDArray[np.int64],
    size: Float64,
    snr: Float64,
    bands: int,
    settings: ModelSettings,
    *,
    reference: int = 0,
    fixed: bool = False,
    shapes: tuple[Shape, Shape] | None = None,
) -> ModelFits:
    """Fit every source of a window in every band.

    Parameters
    ----------
    images : sequence of FitImage
        Every exposure of every band.
    group : int64 array ``[n]``
        Label of the blend group: sources that are fitted together.
    size : float64 array ``[n]``
        First guess of the half-light radius, PSF included, arcsec.
    snr : float64 array ``[n]``
        Signal-to-noise ratio of the detection.
    bands : int
        Number of bands.
    settings : ModelSettings
        Bounds, priors, footprints.
    reference : int
        Band of positions and shapes, with ``shape_bands = "reference"``.
    fixed : bool
        Positions are forced to be those given.
    shapes : (Shape, Shape), optional
        Given shapes of the exponential and the de Vaucouleurs profile; they are not fitted then.

    Returns
    -------
    ModelFits
    """
    n = len(group)
    stack = gather(images, np.arange(n), size, snr, settings, reference)
    fitted = _empty(n, bands)
    given = np.zeros((2, n, 3))
    if shapes is not None:
        given[:] = [_parameters(shape) for shape in shapes]
    order = np.argsort(group, kind="stable")
    first = (
        np.flatnonzero(np.concatenate([[True], np.diff(group[order]) != 0, [True]]))
        if n
        else np.zeros(1, np.int64)
    )
    used = [reference] if settings.shape_bands == "reference" else sorted({image.band for image in images})
    fit_images = np.flatnonzero(np.isin(stack.band, used))
    slot = np.searchsorted(used, stack.band[fit_images])
    band_slot = np.full(bands, -1, np.int64)
    band_slot[used] = np.arange(len(used))
    band_images = np.argsort(stack.band, kind="stable")
    band_first = np.searchsorted(stack.band[band_images], np.arange(bands + 1))
    low, high = index_bounds()
    rules = Rules(
        settings.iterations, settings.tolerance, settings.smallest_radius, settings.largest_radius,
        -math.log(settings.smallest_axis_ratio), settings.radius_prior, settings.ellipticity_prior,
        settings.index_prior, settings.position_prior, low, high, settings.free_positions and not fixed,
        shapes is None, settings.sersic_snr if settings.sersic and settings.galaxies and shapes is None else math.inf, settings.joint_members,
        settings.galaxies,
    )  # fmt: skip
    exponential, de_vaucouleurs = classical_profiles()
    kernel: Any = fit_groups
    kernel(
        stack, order, first, fit_images, slot, len(used), reference, band_images, band_first, band_slot, POINT, exponential,
        de_vaucouleurs, sersic_tables(), np.asarray(size, np.float64), np.asarray(snr, np.float64), given, rules, fitted,
    )  # fmt: skip
    factors = bias_factors(fitted, rules, stack.fwhm, used)
    return _results(fitted, factors, snr, rules, used)


def _empty(n: int, b: int) -> Fitted:
    """Results before a fit."""
    nothing = np.nan
    return Fitted(
        np.zeros((4, n, 6)), np.full((4, n, 6, 6), nothing), np.full((4, n), -1, np.int64),
        np.full((4, n, b), nothing), np.full((4, n, b), nothing), np.full((4, n, b), nothing),
        np.full((4, n, b), nothing), np.zeros((n, b), np.int64), np.zeros(n, np.int8),
        np.full((n, b), nothing), np.full((n, b), nothing), np.full((n, b), nothing),
        np.full((n, b), nothing), np.full((n, b), nothing), np.full((n, b), nothing), np.full((n, 2), nothing), np.zeros(n, np.bool_),
    )  # fmt: skip


def _parameters(shape: Shape) -> Float64:
    """Shapes as the kernels take them, ``[n, 3]``: see `shape_covariance`."""
    ratio = np.clip(np.nan_to_num(shape.axis_ratio, nan=1.0), 1e-3, 1.0)
    e, twice = -np.log(ratio), 2 * np.deg2rad(np.nan_to_num(shape.angle))
    radius = np.maximum(np.nan_to_num(shape.radius), 1e-4)
    return np.stack([np.log(radius * np.sqrt(ratio)), e * np.cos(twice), e * np.sin(twice)], axis=1)


def _shape(par: Float64, covariance: Float64, known: NDArray[np.bool_]) -> Shape:
    """Shapes with errors from parameters ``[n, 3]`` and their covariances ``[n, 3, 3]``."""
    e = np.hypot(par[:, 1], par[:, 2])
    safe = np.maximum(e, 1e-12)
    cosine, sine = np.where(e > 0, par[:, 1] / safe, 1.0), par[:, 2] / safe
    ratio, radius = np.exp(-e), np.exp(par[:, 0] + 0.5 * e)
    zero, one = np.zeros_like(e), np.ones_like(e)

    def error(*slope: Float64) -> Float64:
        s = np.stack(slope, axis=1)
        variance: Float64 = np.einsum("ni,nij,nj->n", s, covariance, s)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))

    length = error(zero, cosine, sine)
    # An angle is uniform at worst: over 180 degrees, an rms of 52.
    turn = np.minimum(np.rad2deg(0.5 * error(zero, -sine, cosine) / safe), 180 / math.sqrt(12))
    columns = (
        radius, radius * error(one, 0.5 * cosine, 0.5 * sine), ratio, ratio * length,
        np.rad2deg(0.5 * np.arctan2(par[:, 2], par[:, 1])) % 180.0, turn,
    )  # fmt: skip
    return Shape(*(np.where(known, c, np.nan) for c in columns))


def _doubt(fitted: Fitted, used: list[int]) -> Float64:
    """Variance of model fluxes since the choice of the profile may be wrong, ``[n, b]``.

    With probability p, from the difference of chi², the other profile is the right one, and the flux that of the other:
    p (1 - p) times the square of the difference.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(np.nansum(fitted.chi2[1][:, used] - fitted.chi2[2][:, used], axis=1))
        p = 1 / (1 + np.exp(0.5 * difference))
        doubt = (p * (1 - p))[:, None] * (fitted.flux[1] - fitted.flux[2]) ** 2
    return np.asarray(np.nan_to_num(doubt))


def _results(fitted: Fitted, factors: Float64, snr: Float64, rules: Rules, used: list[int]) -> ModelFits:
    """Columns from what the kernels leave, and the factors of `bias_factors`."""
    n = len(fitted.pixels)
    seen = fitted.pixels > 0
    row = np.arange(n)
    better = fitted.better.astype(np.int64)
    kind = np.where(fitted.extended, 1 + better, 0)
    some: NDArray[np.bool_] = np.asarray(np.any(seen[:, used], axis=1))
    deep = some & (snr >= rules.sersic_snr) & (fitted.status[3] >= 0)

    def flux(values: Float64, where: NDArray[np.bool_] = seen) -> Float64:
        return np.where(where, values, np.nan)

    of_better = factors[1 + better, row]
    of_mix = factors[1] + np.nan_to_num(fitted.fracdev) * (factors[2] - factors[1])
    flags = np.zeros(n, np.int64)
    status = np.maximum(fitted.status, 0)
    tried = status[:3] if rules.free_shapes else status[:1]
    flags[(tried & 1).any(axis=0)] |= int(SourceFlag.MODEL_NOT_CONVERGED)
    flags[(status[1 + better, row] & 2) > 0] |= int(SourceFlag.MODEL_AT_BOUND)
    flags[~some] |= int(SourceFlag.MODEL_FALLBACK)
    known: NDArray[np.bool_] = some & np.isfinite(fitted.model_flux[:, used]).any(axis=1)
    sersic = deep[:, None] & seen
    # No error for an index on its bound.
    index_error = np.exp(fitted.par[3, :, 5]) * np.sqrt(
        np.maximum(np.nan_to_num(fitted.covariance[3, :, 5, 5]), 0.0)
    )
    return ModelFits(
        xi=fitted.par[kind, row, 0], eta=fitted.par[kind, row, 1],
        position_covariance=np.where(some[:, None, None], fitted.covariance[kind, row, :2, :2], np.nan),
        psf_flux=flux(factors[0] * fitted.flux[0]), psf_variance=flux(fitted.variance[0]), psf_chi2=flux(fitted.chi2[0]),
        psf_pixels=fitted.pixels,
        exponential=_shape(fitted.par[1, :, 2:5], fitted.covariance[1, :, 2:5, 2:5], known),
        de_vaucouleurs=_shape(fitted.par[2, :, 2:5], fitted.covariance[2, :, 2:5, 2:5], known),
        model=np.where(known, fitted.better, -1).astype(np.int8),
        model_flux=flux(of_better * fitted.model_flux), model_variance=flux(fitted.model_variance + _doubt(fitted, used)),
        model_chi2=flux(fitted.model_chi2),
        profile_flux=np.stack([flux(factors[k] * fitted.flux[k]) for k in (1, 2)], axis=-1),
        profile_variance=np.stack([flux(fitted.variance[k]) for k in (1, 2)], axis=-1),
        cmodel_flux=flux(of_mix * fitted.cmodel_flux), cmodel_variance=flux(fitted.cmodel_variance),
        fracdev=flux(fitted.fracdev),
        sersic_index=np.where(deep, np.exp(fitted.par[3, :, 5]), np.nan),
        sersic_index_err=np.where(deep & (index_error > 0), index_error, np.nan),
        sersic=_shape(fitted.par[3, :, 2:5], fitted.covariance[3, :, 2:5, 2:5], deep),
        sersic_flux=flux(factors[3] * fitted.flux[3], sersic), sersic_variance=flux(fitted.variance[3], sersic),
        spread_model=fitted.spread[:, 0], spread_model_err=np.sqrt(fitted.spread[:, 1]),
        flags=flags,
    )  # fmt: skip
