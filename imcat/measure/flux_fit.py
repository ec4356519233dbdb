"""Fluxes of a blend group in one band, with positions and shapes given."""

from __future__ import annotations

import numpy as np
from numba import njit

from imcat.measure.model_blend import gram_shared, total_models
from imcat.measure.model_errors import close_neighbours, local_matrix, noise_products
from imcat.measure.model_fit import chi_squared, normal_equations, weigh
from imcat.measure.model_solve import inverse, solve_blocks

__all__ = ["band_fluxes", "flux_variances"]

#: Solutions of the linear system: the weights of each hold the Poisson noise of the model of the one before.
_TURNS = 3


@njit(cache=True, nogil=True)
def band_fluxes(  # type: ignore[no-untyped-def]
    stack, members, images, offset, start, other, columns, flux, chi2, model, weight, residual, work
):
    """Joint linear fit of the fluxes of all members in the images of one band.

    Parameters
    ----------
    stack, members, images, offset, start, other
        The group, see `layout` and `overlaps`.
    columns : float64 ``[c, pixels]``
        Images of flux 1; further rows are not used.
    flux, chi2 : float64 ``[m]``
        Set.
    model, weight, residual : float64
        Set to those of the solution.
    """
    m = members.size
    slot = np.zeros(images.size, np.int64)
    own, right = np.empty((m, 1, 1)), np.empty((m, 1))
    pair = np.empty((other.size, 1, 1))
    amplitude = np.zeros((m, images.size))
    par = np.zeros((m, 1))
    poisson = False
    for s in range(images.size):
        poisson |= np.isfinite(stack.gain[images[s]])
    model[:] = 0.0
    flux[:] = 0.0
    for _ in range(_TURNS if poisson else 1):
        weigh(stack, members, images, offset, model, weight, residual, True)
        normal_equations(
            stack, members, images, slot, 1, offset, start, other, columns[:1], weight, residual, par,
            own, right, pair, work,
        )  # fmt: skip
        for k in range(m):
            if own[k, 0, 0] <= 0.0:
                own[k, 0, 0] = 1.0
            own[k, 0, 0] *= 1.0 + 1e-12
        solve_blocks(own, start, other, pair, right)
        for k in range(m):
            flux[k] += right[k, 0]
            for s in range(images.size):
                amplitude[k, s] = flux[k]
        total_models(stack, members, images, offset, start, other, columns[0], amplitude, model)
    weigh(stack, members, images, offset, model, weight, residual, True)
    for k in range(m):
        chi2[k] = 0.0
        for s in range(images.size):
            count = stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3]
            chi2[k] += chi_squared(weight, residual, offset[k, s], count)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _product(a, b, w):  # type: ignore[no-untyped-def]
    """Weighted sum of products of two arrays."""
    total = 0.0
    for p in range(a.size):
        total += a[p] * b[p] * w[p]
    return total


@njit(cache=True, nogil=True)
def _flux_rows(stack, members, images, offset, start, other, columns, weight, flux, own, pair):  # type: ignore[no-untyped-def]
    """Rows of the normal equations that belong to the fluxes of one band, ``[m, 1, c]`` and ``[e, 1, c]``."""
    c = columns.shape[0]
    small = np.empty((1, c))
    own[:], pair[:] = 0.0, 0.0
    for k in range(members.size):
        i = members[k]
        for s in range(images.size):
            t, o = images[s], offset[k, s]
            end = o + stack.box[i, t, 2] * stack.box[i, t, 3]
            image, w = columns[0][o:end], weight[o:end]
            for a in range(c):
                own[k, 0, a] += (1.0 if a == 0 else flux[k]) * _product(image, columns[a][o:end], w)
            for e in range(start[k], start[k + 1]):
                j = other[e]
                if o == end or stack.box[members[j], t, 2] == 0:
                    continue
                gram_shared(stack, i, members[j], t, columns[:1], o, columns, offset[j, s], weight, small)
                for a in range(c):
                    pair[e, 0, a] += (1.0 if a == 0 else flux[j]) * small[0, a]


@njit(cache=True, nogil=True)
def flux_variances(  # type: ignore[no-untyped-def]
    stack, members, images, offset, start, other, columns, flux, model, weight, dense, each, nb, most, alone, variance, work,
):  # fmt: skip
    """Variances of the fluxes of `band_fluxes`.

    Parameters
    ----------
    columns : float64 ``[c, pixels]``
        With derivatives by position and shape.
    dense, each : float64
        Covariances of the parameters of the fit of positions and shapes in other bands, see `covariances`, with `nb` fluxes
        first. What these leave open of the flux is added.
    most : int
        Members that are taken together.
    alone, variance : float64 ``[m]``
        Set: at given positions and shapes, and in all.
    """
    m, c = members.size, columns.shape[0]
    q = c - 1
    slot = np.zeros(images.size, np.int64)
    own, pair = np.empty((m, 1, c)), np.empty((other.size, 1, c))
    _flux_rows(stack, members, images, offset, start, other, columns, weight, flux, own, pair)
    par = np.ones((m, 1))
    noise_own, noise_pair = np.empty((m, 1, 1)), np.empty((other.size, 1, 1))
    noise_products(
        stack, members, images, slot, 1, offset, start, other, columns[:1], weight, model, par, noise_own, noise_pair, work,
    )  # fmt: skip
    for k in range(m):
        if own[k, 0, 0] <= 0.0:
            own[k, 0, 0] = 1e-300
    together = m <= most
    everyone = np.arange(m)
    a = np.empty((0, 0))
    across, b = a, a
    for k in range(m):
        if k == 0 or not together:
            chosen = everyone if together else close_neighbours(k, own, start, other, pair, most)
            a = inverse(local_matrix(chosen, own, start, other, pair, (0, 1), (0, 1)))
            across = local_matrix(chosen, own, start, other, pair, (0, 1), (1, c))
            b = local_matrix(chosen, noise_own, start, other, noise_pair, (0, 1), (0, 1))
        n = chosen.size
        row = k if together else 0
        total = 0.0
        for i in range(n):
            for j in range(n):
                total += a[row, i] * b[i, j] * a[j, row]
        alone[k] = total
        # How the flux answers to the positions and shapes of all.
        answer = np.zeros(n * q)
        for i in range(n):
            for j in range(n * q):
                answer[j] -= a[row, i] * across[i, j]
        for i in range(n):
            for j in range(n):
                if not together and i != j:
                    continue
                for u in range(q):
                    for v in range(q):
                        if together:
                            p = q + nb
                            value = dense[chosen[i] * p + nb + u, chosen[j] * p + nb + v]
                        else:
                            value = each[chosen[i], nb + u, nb + v]
                        total += answer[i * q + u] * value * answer[j * q + v]
        variance[k] = total
