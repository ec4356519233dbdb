"""Fluxes of one band of a blend group, of all kinds of models and of mixes of them."""

from __future__ import annotations

import numpy as np
from numba import njit

from imcat.measure.flux_fit import band_fluxes, flux_variances
from imcat.measure.model_blend import dot, layout, overlaps
from imcat.measure.model_errors import noise_gram
from imcat.measure.model_fit import draw_members
from imcat.measure.model_kernels import evaluate

__all__ = ["fit_band"]

#: Scale length, in units of the FWHM, of the profile that `spread_model` compares with the PSF
#: (Desai et al. 2012, ApJ 757, 83), and half-light radius of an exponential in units of its scale length.
_SPREAD, _HALF = 1.0 / 16.0, 1.678347
#: Chi² by which an extended profile must be better than a point: that of three more parameters at 99 %.
_EXTENDED = 11.3


@njit(cache=True, nogil=True)
def _joint(  # type: ignore[no-untyped-def]
    stack, members, images, offset, start, other, columns, flux, chi2, model, weight, residual, most, alone, work,
):  # fmt: skip
    """Joint fluxes of given profiles, and their variances."""
    band_fluxes(
        stack, members, images, offset, start, other, columns, flux, chi2, model, weight, residual, work
    )
    nothing = np.zeros((0, 0))
    nobody = np.zeros((0, 0, 0))
    flux_variances(
        stack, members, images, offset, start, other, columns, flux, model, weight,
        nothing, nobody, 0, most, alone, alone.copy(), work,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _spread(  # type: ignore[no-untyped-def]
    stack, members, images, offset, wider, tables, columns, own, flux, weight, residual, fitted,
):  # fmt: skip
    """Spread model of each member, its neighbours taken away, and whether it is extended.

    With the PSF f, the wider profile g, the pixels p and weights W it is
    (g W p) / (f W p) - (g W f) / (f W f); Desai et al. (2012, ApJ 757, 83) give its variance too.
    """
    total = columns.shape[2]
    pair = np.zeros((2, total))
    broad = np.zeros((1, total))
    value, slope = np.zeros(3), np.zeros((3, 3))
    noise = np.zeros((2, 2))
    for k in range(members.size):
        i = members[k]
        value[0] = value[2] = (_SPREAD * _HALF * stack.fwhm[i]) ** 2
        gp, fp, gf, ff = 0.0, 0.0, 0.0, 0.0
        vgg, vgf, vff = 0.0, 0.0, 0.0
        rest, squares = 0.0, 0.0
        for s in range(images.size):
            t = images[s]
            count = stack.box[i, t, 2] * stack.box[i, t, 3]
            if count == 0:
                continue
            o = offset[k, s]
            evaluate(stack, i, t, fitted.par[0, i, 0], fitted.par[0, i, 1], value, slope, wider, 1, broad, o)
            for p in range(o, o + count):
                f, g, w = columns[0, 0, p], broad[0, p], weight[p]
                pair[0, p], pair[1, p] = f, g
                data = residual[p] + flux[k] * own[0, p]
                gp += g * w * data
                fp += f * w * data
                gf += g * w * f
                ff += f * w * f
                rest += residual[p] * residual[p] * w
                squares += data * data * w
            noise_gram(stack, i, t, pair, weight, o, noise)
            vff, vgf, vgg = vff + noise[0, 0], vgf + noise[0, 1], vgg + noise[1, 1]
        if ff > 0.0 and fp != 0.0:
            fitted.spread[i, 0] = gp / fp - gf / ff
            fitted.spread[i, 1] = max(vgg * fp * fp + vff * gp * gp - 2.0 * vgf * gp * fp, 0.0) / fp**4
            fitted.extended[i] = squares - fp * fp / ff - rest > _EXTENDED


@njit(cache=True, nogil=True)
def _mix(columns, offset, count, share, out):  # type: ignore[no-untyped-def]
    """Set the image on a footprint to a mix of those of the exponential and the de Vaucouleurs profile."""
    e, d = columns[1, 0][offset : offset + count], columns[2, 0][offset : offset + count]
    o = out[0][offset : offset + count]
    for p in range(count):
        o[p] = (1.0 - share) * e[p] + share * d[p]


@njit(cache=True, nogil=True)
def _mix_share(columns, flux, weight, residual, offset, count, chosen):  # type: ignore[no-untyped-def]
    """Sums of the fit of both profiles at once, on pixels without the neighbours."""
    r, w = np.empty(count), weight[offset : offset + count]
    e, d = columns[1, 0][offset : offset + count], columns[2, 0][offset : offset + count]
    own = e if chosen == 0 else d
    for p in range(count):
        r[p] = (residual[offset + p] + flux * own[p]) * w[p]
    be, bd = dot(e, r), dot(d, r)
    for p in range(count):
        r[p] = e[p] * w[p]
    ee, ed = dot(e, r), dot(d, r)
    for p in range(count):
        r[p] = d[p] * w[p]
    return ee, ed, dot(d, r), be, bd


@njit(cache=True, nogil=True)
def _share_of(ee, ed, dd, be, bd):  # type: ignore[no-untyped-def]
    """Share of de Vaucouleurs, and how much a free share adds to the variance of the flux (a factor)."""
    determinant = ee * dd - ed * ed
    if ee <= 0.0 or dd <= 0.0:
        return 0.0, 1.0
    if determinant > 1e-9 * ee * dd:
        fe, fd = (dd * be - ed * bd) / determinant, (ee * bd - ed * be) / determinant
        if fe > 0.0 and fd > 0.0:
            share = fd / (fe + fd)
            single = (1 - share) ** 2 * ee + 2 * share * (1 - share) * ed + share**2 * dd
            return share, max((ee + dd - 2 * ed) / determinant * single, 1.0)
    return (1.0, 1.0) if bd * bd * ee > be * be * dd else (0.0, 1.0)


@njit(cache=True, nogil=True)
def _points_among_galaxies(  # type: ignore[no-untyped-def]
    stack, members, images, band, offset, start, other, columns, chosen, point, tables, rules, fitted, extra,
    flux, chi2, model, weight, residual, alone, work,
):  # fmt: skip
    """PSF fluxes of those members that are points, when others are not: these are taken as galaxies."""
    m = members.size
    points = np.zeros(m, np.bool_)
    for k in range(m):
        points[k] = not fitted.extended[members[k]]
    if points.all() or not points.any():
        return
    par = np.zeros((m, 3))
    for k in range(m):
        i = members[k]
        # The position of its profile, which was fitted with its neighbours as galaxies too.
        par[k, 1], par[k, 2] = fitted.par[1 + fitted.better[i], i, 0], fitted.par[1 + fitted.better[i], i, 1]
    unit = columns[0][:1]
    draw_members(stack, members, images, offset, par, 1, 1, point, tables, points, unit)
    both = np.empty((1, chosen.shape[1]))
    for k in range(m):
        for s in range(images.size):
            o = offset[k, s]
            end = o + stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3]
            both[0, o:end] = unit[0, o:end] if points[k] else chosen[0, o:end]
    _joint(
        stack, members, images, offset, start, other, both, flux, chi2, model, weight, residual, rules.most, alone, work,
    )  # fmt: skip
    for k in range(m):
        if points[k]:
            i = members[k]
            fitted.flux[0, i, band], fitted.chi2[0, i, band] = flux[k], chi2[k]
            fitted.variance[0, i, band] = alone[k] + extra[k]


@njit(cache=True, nogil=True)
def fit_band(  # type: ignore[no-untyped-def]
    stack, members, images, band, slot, nb, profiles, tables, rules, fitted, dense, each, sersic, spread,
):  # fmt: skip
    """Fluxes of one band: of all kinds of models and of mixes of them, or of the Sérsic profile alone.

    `slot` is the place of the band among those of the fit of shapes, -1 if it is none of them; `spread`
    asks for the spread model.
    """
    m = members.size
    offset = np.zeros((m, images.size), np.int64)
    total = layout(stack, members, images, offset)
    start, other = overlaps(stack, members, images)
    largest = 1
    for k in range(m):
        for s in range(images.size):
            largest = max(largest, stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3])
    work = np.empty(largest)
    every = np.ones(m, np.bool_)
    flux, chi2, variance, alone = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    model, weight, residual = np.empty(total), np.empty(total), np.empty(total)
    first, last = (3, 4) if sersic else (0, 3 if rules.galaxies else 1)
    width = 7 if sersic else 6
    columns = np.zeros((3 if rules.galaxies else 1, width, total))
    extra = np.zeros((3, m))
    for kind in range(first, last):
        c = 3 if kind == 0 else width
        place = kind % 3
        par = np.zeros((m, c))
        for k in range(m):
            for a in range(c - 1):
                par[k, 1 + a] = fitted.par[kind, members[k], a]
        # In bands of the shapes the errors are known; elsewhere the derivatives carry those of places and shapes on.
        c = 1 if slot >= 0 else c
        mine = columns[place][:c]
        draw_members(stack, members, images, offset, par, 1, c, profiles[place], tables, every, mine)
        band_fluxes(
            stack, members, images, offset, start, other, mine, flux, chi2, model, weight, residual, work
        )
        flux_variances(
            stack, members, images, offset, start, other, mine, flux, model, weight,
            dense[kind], each[kind], nb, rules.most, alone, variance, work,
        )  # fmt: skip
        for k in range(m):
            i = members[k]
            if slot >= 0:
                variance[k] = max(each[kind][k, slot, slot], alone[k])
            fitted.flux[kind, i, band] = flux[k]
            fitted.variance[kind, i, band] = variance[k]
            fitted.chi2[kind, i, band] = chi2[k]
            fitted.alone[kind, i, band] = alone[k]
            extra[place, k] = variance[k] - alone[k]
            if kind == 0:
                for s in range(images.size):
                    q = stack.start[i, images[s]]
                    for p in range(stack.box[i, images[s], 2] * stack.box[i, images[s], 3]):
                        fitted.pixels[i, band] += stack.variance[q + p] > 0.0
    if sersic or not rules.galaxies:
        return
    chosen = np.zeros((1, total))
    for k in range(m):
        for s in range(images.size):
            count = stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3]
            _mix(columns, offset[k, s], count, float(fitted.better[members[k]]), chosen)
    _joint(
        stack, members, images, offset, start, other, chosen, flux, chi2, model, weight, residual,
        rules.most, alone, work,
    )  # fmt: skip
    mixing = np.ones(m)
    for k in range(m):
        i = members[k]
        better = fitted.better[i]
        fitted.model_flux[i, band], fitted.model_chi2[i, band] = flux[k], chi2[k]
        fitted.model_variance[i, band] = alone[k] + extra[1 + better, k]
        ee, ed, dd, be, bd = 0.0, 0.0, 0.0, 0.0, 0.0
        for s in range(images.size):
            count = stack.box[i, images[s], 2] * stack.box[i, images[s], 3]
            sums = _mix_share(columns, flux[k], weight, residual, offset[k, s], count, better)
            ee, ed, dd, be, bd = ee + sums[0], ed + sums[1], dd + sums[2], be + sums[3], bd + sums[4]
        share, mixing[k] = _share_of(ee, ed, dd, be, bd)
        fitted.fracdev[i, band] = share
    if spread:
        _spread(
            stack,
            members,
            images,
            offset,
            profiles[1],
            tables,
            columns,
            chosen,
            flux,
            weight,
            residual,
            fitted,
        )
    if m > 1:
        _points_among_galaxies(
            stack, members, images, band, offset, start, other, columns, chosen, profiles[0], tables, rules, fitted,
            extra[0], flux, chi2, model, weight, residual, alone, work,
        )  # fmt: skip
    for k in range(m):
        for s in range(images.size):
            count = stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3]
            _mix(columns, offset[k, s], count, fitted.fracdev[members[k], band], chosen)
    _joint(
        stack, members, images, offset, start, other, chosen, flux, chi2, model, weight, residual,
        rules.most, alone, work,
    )  # fmt: skip
    for k in range(m):
        i = members[k]
        share = fitted.fracdev[i, band]
        fitted.cmodel_flux[i, band] = flux[k]
        # A free share matters no more than the difference of the two profiles.
        doubt = (fitted.flux[1, i, band] - fitted.flux[2, i, band]) ** 2 / 12.0
        fitted.cmodel_variance[i, band] = (
            alone[k]
            + min(alone[k] * (mixing[k] - 1.0), doubt)
            + (1.0 - share) * extra[1, k]
            + share * extra[2, k]
        )
