"""All models of one blend group: positions and shapes, then the fluxes of every band."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.measure.model_bands import fit_band
from imcat.measure.model_blend import layout, overlaps
from imcat.measure.model_errors import covariances, noise_products
from imcat.measure.model_fit import chi_squared, fit_members

__all__ = [
    "DE_VAUCOULEURS_KIND",
    "EXPONENTIAL_KIND",
    "POINT_KIND",
    "SERSIC_KIND",
    "Fitted",
    "Rules",
    "fit_groups",
]

#: Kinds of models, in the order in which they are fitted.
POINT_KIND, EXPONENTIAL_KIND, DE_VAUCOULEURS_KIND, SERSIC_KIND = 0, 1, 2, 3
#: Logarithm of the Sérsic index at which a fit starts, when the exponential or the de Vaucouleurs profile is better.
_START = (math.log(1.3), math.log(3.0))
#: Centre of the prior on the index.
_MIDDLE = math.log(2.0)
#: Centre of the prior on the half-light radius, and least radius at the start of a fit, in units of the FWHM.
_TYPICAL, _SMALL = 0.5, 0.15
#: Half-light radius of a PSF in units of its FWHM (0.5 for a Gaussian; wings make it larger).
_HALF_LIGHT = 0.6
#: Largest half-light radius in units of that of the light that is seen: more is the light of a neighbour, a halo.
_LARGEST = 5.0
#: A de Vaucouleurs profile with the same light near the centre is larger than an exponential one by about this.
_LARGER = 1.2


class Rules(NamedTuple):
    """Settings of `imcat.measure.model_settings.ModelSettings` that the kernels need."""

    iterations: int
    tolerance: float
    smallest_radius: float
    largest_radius: float
    longest: float
    radius_prior: float
    ellipticity_prior: float
    index_prior: float
    position_prior: float
    index_low: float
    index_high: float
    free_positions: bool
    free_shapes: bool
    sersic_snr: float
    most: int
    galaxies: bool


class Fitted(NamedTuple):
    """Results, arrays over 4 kinds, n sources and b bands.

    Attributes
    ----------
    par : float64 ``[4, n, 6]``
        xi, eta, shape (see `shape_covariance`), logarithm of the Sérsic index.
    covariance : float64 ``[4, n, 6, 6]``
        Of these.
    status : int64 ``[4, n]``
        See `fit_members`; -1: not fitted.
    flux, variance, chi2 : float64 ``[4, n, b]``
        Of each kind; all members of a group are of that kind.
    alone : float64 ``[4, n, b]``
        Variance at given positions and shapes.
    pixels : int64 ``[n, b]``
        Pixels that were used.
    better : int8 ``[n]``
        1: de Vaucouleurs has the smaller chi² in the bands of the shapes, 0: exponential.
    model_flux, model_variance, model_chi2 : float64 ``[n, b]``
        Each member with the better of the two.
    cmodel_flux, cmodel_variance, fracdev : float64 ``[n, b]``
        The mix of both.
    spread : float64 ``[n, 2]``
        Spread model and its variance.
    extended : bool ``[n]``
        Whether the better profile fits better than a point.
    """

    par: NDArray[np.float64]
    covariance: NDArray[np.float64]
    status: NDArray[np.int64]
    flux: NDArray[np.float64]
    variance: NDArray[np.float64]
    chi2: NDArray[np.float64]
    alone: NDArray[np.float64]
    pixels: NDArray[np.int64]
    better: NDArray[np.int8]
    model_flux: NDArray[np.float64]
    model_variance: NDArray[np.float64]
    model_chi2: NDArray[np.float64]
    cmodel_flux: NDArray[np.float64]
    cmodel_variance: NDArray[np.float64]
    fracdev: NDArray[np.float64]
    spread: NDArray[np.float64]
    extended: NDArray[np.bool_]


@njit(cache=True, nogil=True)
def _first_guess(stack, members, kind, nb, size, given, rules, fitted, par, centre, stiff, low, high):  # type: ignore[no-untyped-def]
    """First guess, priors and bounds of the parameters of one kind of model."""
    centre[:], stiff[:] = 0.0, 0.0
    par[:] = 0.0
    for k in range(members.size):
        i = members[k]
        fwhm = stack.fwhm[i]
        width = rules.position_prior * fwhm
        for a in range(nb, nb + 2):
            stiff[k, a] = 1.0 / width**2
            low[k, a], high[k, a] = -3.0 * width, 3.0 * width
            par[k, a] = fitted.par[0, i, a - nb] if kind > 0 else 0.0
        if kind == 0:
            continue
        low[k, nb + 2] = math.log(rules.smallest_radius * fwhm)
        largest = rules.largest_radius
        if rules.free_shapes and np.isfinite(size[i]):
            largest = min(largest, _LARGEST * size[i])
        high[k, nb + 2] = math.log(max(largest, fwhm))
        low[k, nb + 3 : nb + 5], high[k, nb + 3 : nb + 5] = -rules.longest, rules.longest
        centre[k, nb + 2] = math.log(_TYPICAL * fwhm)
        stiff[k, nb + 2] = 1.0 / rules.radius_prior**2
        stiff[k, nb + 3] = stiff[k, nb + 4] = 1.0 / rules.ellipticity_prior**2
        if kind == 3:
            low[k, nb + 5], high[k, nb + 5] = rules.index_low, rules.index_high
            centre[k, nb + 5], stiff[k, nb + 5] = _MIDDLE, 1.0 / rules.index_prior**2
            source = 1 + fitted.better[i]
            for a in range(5):
                par[k, nb + a] = fitted.par[source, i, a]
            par[k, nb + 5] = _START[0] if source == 1 else _START[1]
        elif not rules.free_shapes:
            for a in range(3):
                par[k, nb + 2 + a] = given[kind - 1, i, a]
        elif kind == 1:
            seen = size[i] if np.isfinite(size[i]) else _HALF_LIGHT * fwhm
            own = max(seen * seen - (_HALF_LIGHT * fwhm) ** 2, (_SMALL * fwhm) ** 2)
            par[k, nb + 2] = min(0.5 * math.log(own), high[k, nb + 2])
        else:
            for a in range(5):
                par[k, nb + a] = fitted.par[1, i, a]
            par[k, nb + 2] = min(par[k, nb + 2] + math.log(_LARGER), high[k, nb + 2])


@njit(cache=True, nogil=True)
def _fit_kind(  # type: ignore[no-untyped-def]
    stack, members, images, slot, nb, kind, profile, tables, size, given, rules, fitted, dense, each, chi2,
):  # fmt: skip
    """Fit positions and shapes of one kind; fills `fitted`, `dense`, `each` (see `covariances`) and `chi2`."""
    m = members.size
    c = 3 if kind == 0 else (7 if kind == 3 else 6)
    p = nb + c - 1
    offset = np.zeros((m, images.size), np.int64)
    total = layout(stack, members, images, offset)
    start, other = overlaps(stack, members, images)
    par, centre, stiff = np.empty((m, p)), np.empty((m, p)), np.empty((m, p))
    low, high = np.full((m, p), -1e30), np.full((m, p), 1e30)
    _first_guess(stack, members, kind, nb, size, given, rules, fitted, par, centre, stiff, low, high)
    free = np.ones(p, np.bool_)
    free[nb : nb + 2] = rules.free_positions
    if not rules.free_shapes:
        # Forced shapes keep the position of the point source.
        free[nb : nb + 2] = rules.free_positions and kind == 0
        free[nb + 2 :] = False
    largest = 0
    for k in range(m):
        for s in range(images.size):
            largest = max(largest, stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3])
    work = np.empty(largest)
    columns = np.zeros((c, total))
    model, weight, residual = np.zeros(total), np.zeros(total), np.zeros(total)
    own, right, pair = np.zeros((m, p, p)), np.zeros((m, p)), np.zeros((other.size, p, p))
    status = np.zeros(m, np.int64)
    fit_members(
        stack, members, images, slot, nb, offset, start, other, profile, tables, par, free, centre, stiff, low, high,
        rules.longest, rules.iterations, rules.tolerance, columns, model, weight, residual, own, right, pair, status, work,
    )  # fmt: skip
    noise_own, noise_pair = np.zeros((m, p, p)), np.zeros((other.size, p, p))
    noise_products(
        stack, members, images, slot, nb, offset, start, other, columns, weight, model, par, noise_own, noise_pair,
        work,
    )  # fmt: skip
    for k in range(m):
        for a in range(p):
            noise_own[k, a, a] += stiff[k, a]
            # A parameter that was taken out: its row of the normal equations is that of the unit matrix.
            alone = own[k, a, a] == 1.0
            for d in range(p):
                alone &= a == d or own[k, a, d] == 0.0
            if alone:
                noise_own[k, a, :] = 0.0
                noise_own[k, :, a] = 0.0
                for e in range(start[k], start[k + 1]):
                    noise_pair[e, a, :] = 0.0
                    for e2 in range(start[other[e]], start[other[e] + 1]):
                        if other[e2] == k:
                            noise_pair[e2, :, a] = 0.0
    covariances(own, pair, noise_own, noise_pair, start, other, rules.most, dense, each)
    for k in range(m):
        i = members[k]
        fitted.status[kind, i] = status[k]
        for a in range(c - 1):
            fitted.par[kind, i, a] = par[k, nb + a]
            for d in range(c - 1):
                fitted.covariance[kind, i, a, d] = each[k, nb + a, nb + d]
        chi2[k] = 0.0
        for s in range(images.size):
            count = stack.box[i, images[s], 2] * stack.box[i, images[s], 3]
            chi2[k] += chi_squared(weight, residual, offset[k, s], count)


@njit(cache=True, nogil=True)
def _fit_group(  # type: ignore[no-untyped-def]
    stack, members, fit_images, slot, nb, reference, band_images, band_first, band_slot, profiles, tables, size, snr, given, rules,
    fitted,
):  # fmt: skip
    """Fit one group."""
    m = members.size
    largest = nb + 6
    n = m * largest if m <= rules.most else 0
    dense = np.zeros((4, n, n))
    each = np.zeros((4, m, largest, largest))
    chi2 = np.zeros((4, m))
    for kind in range(3 if rules.galaxies else 1):
        _fit_kind(
            stack, members, fit_images, slot, nb, kind, profiles[kind], tables, size, given, rules, fitted,
            dense[kind], each[kind], chi2[kind],
        )  # fmt: skip
    for k in range(m):
        fitted.better[members[k]] = 1 if chi2[2, k] < chi2[1, k] else 0
    deep = False
    for k in range(m):
        deep |= snr[members[k]] >= rules.sersic_snr
    if deep:
        _fit_kind(
            stack, members, fit_images, slot, nb, 3, profiles[1], tables, size, given, rules, fitted,
            dense[3], each[3], chi2[3],
        )  # fmt: skip
    # The reference band says which members are extended, so it comes first.
    for place in range(band_first.size - 1):
        band = reference if place == 0 else (place - 1 if place <= reference else place)
        images = band_images[band_first[band] : band_first[band + 1]]
        for turn in range(2 if deep else 1):
            fit_band(
                stack, members, images, band, band_slot[band], nb, profiles, tables, rules, fitted, dense, each,
                turn == 1, place == 0,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def fit_groups(  # type: ignore[no-untyped-def]
    stack, order, first, fit_images, slot, nb, reference, band_images, band_first, band_slot, point, exponential, de_vaucouleurs,
    tables, size, snr, given, rules, fitted,
):  # fmt: skip
    """Fit groups one after the other.

    Parameters
    ----------
    stack : Stack
        Footprints of all sources.
    order, first : int64
        Sources group by group, and where each group begins (one more than groups).
    fit_images, slot : int64 ``[t]``
        Images that positions and shapes are fitted on, and which of their `nb` bands each is of.
    reference : int
        Band of the spread model.
    band_images, band_first : int64
        Images band by band, and where each band begins (one more than bands).
    band_slot : int64 ``[b]``
        Place of each band among those of the fit of shapes, or -1.
    point, exponential, de_vaucouleurs : float64 ``[k, 4]``
        Profiles, see `evaluate`.
    tables : float64
        See `sersic_tables`.
    size, snr : float64 ``[n]``
        Half-light radius, PSF included, arcsec; signal-to-noise ratio.
    given : float64 ``[2, n, 3]``
        Shapes, where they are not fitted.
    rules : Rules
        Settings.
    fitted : Fitted
        Filled.
    """
    profiles = (point, exponential, de_vaucouleurs)
    for g in range(first.size - 1):
        members = order[first[g] : first[g + 1]]
        _fit_group(
            stack, members, fit_images, slot, nb, reference, band_images, band_first, band_slot, profiles, tables, size, snr,
            given, rules, fitted,
        )  # fmt: skip
