"""Positions and shapes of a blend group, by the method of Levenberg and Marquardt.

Every member has its own damping and its own verdict on a step, so that one that does not converge holds up nobody.
Weights are those of the model of the last accepted step, never of the noisy pixel.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from imcat.measure.model_blend import gram, gram_shared, mirror, total_models
from imcat.measure.model_kernels import evaluate, shape_covariance
from imcat.measure.model_profiles import sersic_profile
from imcat.measure.model_solve import solve_blocks

__all__ = ["draw_members", "fit_members", "normal_equations", "weigh"]

#: Damping at the start, its factors after a good and a bad step, and where a fit gives up.
_DAMPING, _BETTER, _WORSE, _LOST = 1e-3, 0.2, 10.0, 1e6
#: Least damping after a bad step: less hardly changes the next one.
_NOTICED = 0.1
#: Largest change in a step of the logarithm of the radius, of the ellipticity and of the logarithm of the index.
_LONGEST = 1.0
#: Largest change in a step of a coordinate, in units of the width of its prior.
_FARTHEST = 1.0
#: A share of the normal matrix's own diagonal that is always added: a parameter that nothing determines stays.
_RIDGE = 1e-9


@njit(cache=True, nogil=True)
def draw_members(stack, members, images, offset, par, nb, columns, profile, tables, which, out):  # type: ignore[no-untyped-def]
    """Set the columns of the members marked in `which`, see `evaluate`.

    Parameters
    ----------
    par : float64 ``[m, p]``
        Fluxes of `nb` bands, xi, eta, the shape unless they are points, and for Sérsic profiles the logarithm of the index.
    columns : int
        See `evaluate`.
    profile : float64 ``[k, 4]``
        Of all members; a Sérsic profile is each member's own, from `tables`.
    """
    value, slope = np.zeros(3), np.zeros((3, 3))
    parameters = par.shape[1] - nb
    mine = profile.copy() if parameters < 6 else np.empty((tables.shape[2], 4))
    for k in range(members.size):
        if not which[k]:
            continue
        if parameters > 2:
            shape_covariance(par[k, nb + 2 : nb + 5], value, slope)
        if parameters > 5:
            sersic_profile(par[k, nb + 5], tables, mine)
        for s in range(images.size):
            if stack.box[members[k], images[s], 2] > 0:
                evaluate(
                    stack, members[k], images[s], par[k, nb], par[k, nb + 1], value, slope, mine, columns,
                    out, offset[k, s],
                )  # fmt: skip


@njit(cache=True, nogil=True)
def weigh(stack, members, images, offset, model, weight, residual, renew):  # type: ignore[no-untyped-def]
    """Residuals and, if asked, weights: the inverse of sky variance plus Poisson noise of the model."""
    for k in range(members.size):
        for s in range(images.size):
            i, t = members[k], images[s]
            o, first = offset[k, s], stack.start[i, t]
            gain = 1.0 / stack.gain[t]
            for p in range(stack.box[i, t, 2] * stack.box[i, t, 3]):
                residual[o + p] = stack.data[first + p] - model[o + p]
                if renew:
                    v = stack.variance[first + p]
                    weight[o + p] = 1.0 / (v + max(model[o + p], 0.0) * gain) if v > 0.0 else 0.0


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def chi_squared(weight, residual, first, count):  # type: ignore[no-untyped-def]
    """Weighted sum of squares over a footprint."""
    w, r = weight[first : first + count], residual[first : first + count]
    total = 0.0
    for p in range(count):
        total += w[p] * r[p] * r[p]
    return total


@njit(cache=True, nogil=True)
def _chi_squares(stack, members, images, offset, weight, residual, par, centre, stiff, out):  # type: ignore[no-untyped-def]
    """Chi² of each member on its footprints, with its priors."""
    for k in range(members.size):
        total = 0.0
        for s in range(images.size):
            count = stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3]
            total += chi_squared(weight, residual, offset[k, s], count)
        for a in range(par.shape[1]):
            total += stiff[k, a] * (par[k, a] - centre[k, a]) ** 2
        out[k] = total


@njit(cache=True, nogil=True)
def normal_equations(  # type: ignore[no-untyped-def]
    stack, members, images, slot, nb, offset, start, other, columns, weight, residual, par, own, right, pair, work,
):  # fmt: skip
    """Blocks of the normal equations of all parameters, without priors.

    Parameters
    ----------
    slot : int64 ``[t]``
        Which of the fluxes belongs to each image.
    columns : float64 ``[c, pixels]``
        See `draw_members`.
    own, right, pair : float64 ``[m, p, p]``, ``[m, p]``, ``[e, p, p]``
        Set.
    """
    c = columns.shape[0]
    small, vector = np.empty((c, c)), np.empty(c)
    own[:], right[:], pair[:] = 0.0, 0.0, 0.0
    for k in range(members.size):
        i = members[k]
        for s in range(images.size):
            t, b = images[s], slot[s]
            count = stack.box[i, t, 2] * stack.box[i, t, 3]
            if count == 0:
                continue
            gram(columns, weight, residual, offset[k, s], count, small, vector, work)
            f = par[k, b]
            for a in range(c):
                pa, fa = (b, 1.0) if a == 0 else (nb + a - 1, f)
                right[k, pa] += fa * vector[a]
                for d in range(c):
                    pd, fd = (b, 1.0) if d == 0 else (nb + d - 1, f)
                    own[k, pa, pd] += fa * fd * small[a, d]
            for e in range(start[k], start[k + 1]):
                j = other[e]
                # On the pixels that both have, both have the same weights: the block of the other is the transpose.
                if j < k or stack.box[members[j], t, 2] == 0:
                    continue
                gram_shared(
                    stack, i, members[j], t, columns, offset[k, s], columns, offset[j, s], weight, small
                )  # fmt: skip
                g = par[j, b]
                for a in range(c):
                    pa, fa = (b, 1.0) if a == 0 else (nb + a - 1, f)
                    for d in range(c):
                        pd, fd = (b, 1.0) if d == 0 else (nb + d - 1, g)
                        pair[e, pa, pd] += fa * fd * small[a, d]
    mirror(start, other, pair)


@njit(cache=True, nogil=True)
def freeze(frozen, start, other, own, right, pair):  # type: ignore[no-untyped-def]
    """Take parameters out of the normal equations: their step is zero."""
    m, p = right.shape
    for k in range(m):
        for a in range(p):
            if frozen[k, a]:
                right[k, a] = 0.0
                for d in range(p):
                    own[k, a, d] = 0.0
                    own[k, d, a] = 0.0
                own[k, a, a] = 1.0
        for e in range(start[k], start[k + 1]):
            for a in range(p):
                for d in range(p):
                    if frozen[k, a] or frozen[other[e], d]:
                        pair[e, a, d] = 0.0


@njit(cache=True, nogil=True)
def _bound(par, nb, centre, low, high, longest):  # type: ignore[no-untyped-def]
    """Bring the parameters of one source back within their bounds; whether any was outside."""
    hit = False
    for a in range(nb, par.size):
        if a == nb + 3 or a == nb + 4:
            continue
        if par[a] < low[a] or par[a] > high[a]:
            par[a] = min(max(par[a], low[a]), high[a])
            hit = True
    if par.size > nb + 3:
        e = math.hypot(par[nb + 3], par[nb + 4])
        if e > longest:
            par[nb + 3] *= longest / e
            par[nb + 4] *= longest / e
            hit = True
    return hit


@njit(cache=True, nogil=True)
def _blocked(par, nb, low, high, right, frozen):  # type: ignore[no-untyped-def]
    """Mark parameters that lie on a bound and would leave it."""
    for a in range(nb, par.size):
        if a == nb + 3 or a == nb + 4:
            continue
        if (par[a] <= low[a] and right[a] < 0.0) or (par[a] >= high[a] and right[a] > 0.0):
            frozen[a] = True


@njit(cache=True, nogil=True)
def _copy_columns(stack, i, images, offset, source, target):  # type: ignore[no-untyped-def]
    """Copy the columns of one source."""
    for s in range(images.size):
        end = offset[s] + stack.box[i, images[s], 2] * stack.box[i, images[s], 3]
        for a in range(source.shape[0]):
            for p in range(offset[s], end):
                target[a, p] = source[a, p]


@njit(cache=True, nogil=True)
def fit_members(  # type: ignore[no-untyped-def]
    stack, members, images, slot, nb, offset, start, other, profile, tables, par, free, centre, stiff, low, high,
    longest, iterations, tolerance, columns, model, weight, residual, own, right, pair, status, work,
):  # fmt: skip
    """Fit the parameters of all members of a group.

    Parameters
    ----------
    stack, members, images, slot, nb, offset, start, other
        The group, see `layout`, `overlaps` and `normal_equations`.
    profile, tables
        See `draw_members`.
    par : float64 ``[m, p]``
        First guess; becomes the solution. Fluxes need no guess.
    free : bool ``[p]``
        Which parameters are fitted.
    centre, stiff : float64 ``[m, p]``
        Priors: means and inverse variances.
    low, high : float64 ``[m, p]``
        Bounds of all but fluxes and ellipticities.
    longest : float
        Largest ellipticity.
    iterations, tolerance : int, float
        Steps, and the change of chi² that no longer counts.
    columns, model, weight, residual : float64
        Buffers of the group; they hold the solution's when done.
    own, right, pair : float64
        Normal equations at the solution, priors included.
    status : int64 ``[m]``
        Set: bit 1 not converged, bit 2 at a bound.
    """
    m, p = par.shape
    c = columns.shape[0]
    every = np.ones(m, np.bool_)
    amplitude = np.zeros((m, images.size))
    frozen = np.zeros((m, p), np.bool_)
    damping = np.full(m, _DAMPING)
    done, settled = np.zeros(m, np.bool_), np.zeros(m, np.bool_)
    active = np.ones(m, np.bool_)
    old, new = np.empty(m), np.empty(m)
    before = par.copy()
    drawn = np.empty_like(columns)
    draw_members(stack, members, images, offset, par, nb, c, profile, tables, every, columns)
    # Fluxes first, at the first guess of the rest.
    for k in range(m):
        for b in range(nb):
            par[k, b] = 0.0
        for a in range(p):
            frozen[k, a] = a >= nb
    model[:] = 0.0
    for _ in range(2):
        weigh(stack, members, images, offset, model, weight, residual, True)
        normal_equations(
            stack, members, images, slot, nb, offset, start, other, columns, weight, residual, par, own, right, pair,
            work,
        )  # fmt: skip
        freeze(frozen, start, other, own, right, pair)
        _ridge(own, stiff, nb)
        solve_blocks(own, start, other, pair, right)
        for k in range(m):
            for b in range(nb):
                par[k, b] += right[k, b]
        _amplitudes(par, slot, amplitude)
        total_models(stack, members, images, offset, start, other, columns[0], amplitude, model)
    weigh(stack, members, images, offset, model, weight, residual, True)
    _chi_squares(stack, members, images, offset, weight, residual, par, centre, stiff, old)
    for _ in range(iterations):
        normal_equations(
            stack, members, images, slot, nb, offset, start, other, columns, weight, residual, par, own, right, pair,
            work,
        )  # fmt: skip
        for k in range(m):
            for a in range(p):
                own[k, a, a] += stiff[k, a]
                right[k, a] += stiff[k, a] * (centre[k, a] - par[k, a])
                frozen[k, a] = not free[a] or not active[k]
            _blocked(par[k], nb, low[k], high[k], right[k], frozen[k])
        freeze(frozen, start, other, own, right, pair)
        slope = right.copy()
        for k in range(m):
            for a in range(p):
                own[k, a, a] *= 1.0 + damping[k] + _RIDGE
                if own[k, a, a] == 0.0:
                    own[k, a, a] = 1.0
        solve_blocks(own, start, other, pair, right)
        moving = False
        for k in range(m):
            if active[k]:
                predicted = dot_row(slope[k], right[k])
                done[k] = damping[k] < 1.0 and predicted < tolerance
                # A parameter that matters little, such as the radius of a star, may go on sliding.
                done[k] |= settled[k] or damping[k] > _LOST or not np.isfinite(predicted)
                moving |= not done[k]
        if not moving:
            break
        for k in range(m):
            active[k] = not done[k]
            for e in range(start[k], start[k + 1]):
                active[k] |= not done[other[e]]
        for k in range(m):
            before[k, :] = par[k, :]
            if active[k]:
                _copy_columns(stack, members[k], images, offset[k], columns, drawn)
                _step(par[k], nb, right[k], stiff[k])
                _bound(par[k], nb, centre[k], low[k], high[k], longest)
        draw_members(stack, members, images, offset, par, nb, c, profile, tables, active, columns)
        _amplitudes(par, slot, amplitude)
        total_models(stack, members, images, offset, start, other, columns[0], amplitude, model)
        weigh(stack, members, images, offset, model, weight, residual, False)
        _chi_squares(stack, members, images, offset, weight, residual, par, centre, stiff, new)
        any_worse = False
        for k in range(m):
            if not active[k]:
                continue
            # Rounding, and the light of neighbours that move at the same time.
            slack = 1e-9 * old[k] + (tolerance if start[k + 1] > start[k] else 0.0)
            if new[k] <= old[k] + slack:
                settled[k] = damping[k] < 1.0 and abs(old[k] - new[k]) < tolerance
                damping[k] = max(damping[k] * _BETTER, 1e-9)
            else:
                settled[k] = False
                any_worse = True
                damping[k] = max(damping[k] * _WORSE, _NOTICED)
                par[k, :] = before[k, :]
                _copy_columns(stack, members[k], images, offset[k], drawn, columns)
        if any_worse:
            _amplitudes(par, slot, amplitude)
            total_models(stack, members, images, offset, start, other, columns[0], amplitude, model)
        weigh(stack, members, images, offset, model, weight, residual, True)
        _chi_squares(stack, members, images, offset, weight, residual, par, centre, stiff, old)
    normal_equations(
        stack, members, images, slot, nb, offset, start, other, columns, weight, residual, par, own, right, pair, work,
    )  # fmt: skip
    for k in range(m):
        status[k] = 0 if done[k] and damping[k] <= _LOST else 1
        edge = par[k].copy()
        for a in range(p):
            own[k, a, a] += stiff[k, a]
            frozen[k, a] = not free[a]
            edge[a] = par[k, a]
        _blocked(par[k], nb, low[k], high[k], right[k], frozen[k])
        for a in range(nb, p):
            if free[a] and frozen[k, a]:
                status[k] |= 2
        if p > nb + 3 and free[nb + 3] and math.hypot(par[k, nb + 3], par[k, nb + 4]) > 0.999 * longest:
            status[k] |= 2
    freeze(frozen, start, other, own, right, pair)


@njit(cache=True, nogil=True)
def dot_row(a, b):  # type: ignore[no-untyped-def]
    """Sum of products of two short arrays."""
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(cache=True, nogil=True)
def _ridge(own, stiff, nb):  # type: ignore[no-untyped-def]
    """Keep the diagonal positive."""
    for k in range(own.shape[0]):
        for a in range(own.shape[1]):
            own[k, a, a] *= 1.0 + _RIDGE
            if own[k, a, a] <= 0.0:
                own[k, a, a] = 1.0


@njit(cache=True, nogil=True)
def _amplitudes(par, slot, amplitude):  # type: ignore[no-untyped-def]
    """Flux of each member in each image."""
    for k in range(par.shape[0]):
        for s in range(slot.size):
            amplitude[k, s] = par[k, slot[s]]


@njit(cache=True, nogil=True)
def _step(par, nb, step, stiff):  # type: ignore[no-untyped-def]
    """Take a step, shortened where it is longer than the model is trusted."""
    factor = 1.0
    for a in range(nb, par.size):
        limit = _LONGEST
        if a < nb + 2:
            limit = _FARTHEST / math.sqrt(stiff[a]) if stiff[a] > 0.0 else 1e30
        if abs(step[a]) > limit:
            factor = min(factor, limit / abs(step[a]))
    for a in range(par.size):
        par[a] += factor * step[a]
