"""Covariances of fitted parameters when the noise of neighbouring pixels is correlated.

Pixels are weighted as if independent, so the covariance is the sandwich A⁻¹ (Jᵀ W C W J + P) A⁻¹ with the normal
matrix A = Jᵀ W J + P, the weights W, the inverse variances P of the priors and the covariance of the pixels
C = sqrt(v v') rho(lag) plus the Poisson noise of the model on the diagonal. With independent pixels it is A⁻¹.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from imcat.measure.model_blend import dot, gram_shared
from imcat.measure.model_fit import normal_equations
from imcat.measure.model_solve import inverse

__all__ = ["close_neighbours", "covariances", "local_matrix", "noise_gram", "noise_products"]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _correlate(source, wide, high, rho, out):  # type: ignore[no-untyped-def]
    """Set `out` to the correlation of a footprint with a small kernel that is symmetric under reversal."""
    reach = rho.shape[0] // 2
    # With empty pixels between the rows every lag is one pass over all of them, and serves its opposite too.
    pitch = wide + reach
    first, length = reach * pitch + reach, high * pitch
    # Single precision is more than the errors of pixels are known to, and twice as fast.
    padded, total = np.zeros(length + 2 * first, np.float32), np.empty(length, np.float32)
    for y in range(high):
        at = first + y * pitch
        for x in range(wide):
            padded[at + x] = source[y * wide + x]
    middle, here = np.float32(rho[reach, reach]), padded[first : first + length]
    for p in range(length):
        total[p] = middle * here[p]
    for ly in range(reach + 1):
        for lx in range(-reach, reach + 1):
            r = np.float32(rho[ly + reach, lx + reach])
            if r == 0.0 or (ly == 0 and lx <= 0):
                continue
            shift = ly * pitch + lx
            after = padded[first + shift : first + shift + length]
            before = padded[first - shift : first - shift + length]
            for p in range(length):
                total[p] += r * (after[p] + before[p])
    for y in range(high):
        for x in range(wide):
            out[y * wide + x] = total[y * pitch + x]


@njit(cache=True, nogil=True)
def noise_products(  # type: ignore[no-untyped-def]
    stack, members, images, slot, nb, offset, start, other, columns, weight, model, par, own, pair, work,
):  # fmt: skip
    """Blocks of Jᵀ W C W J, as `normal_equations` sets those of Jᵀ W J."""
    c = columns.shape[0]
    white = True
    for s in range(images.size):
        white &= stack.white[images[s]]
    if white:
        right = np.empty((members.size, own.shape[1]))
        normal_equations(
            stack, members, images, slot, nb, offset, start, other, columns, weight, model, par, own, right, pair, work,
        )  # fmt: skip
        return
    total = model.size
    scaled, spread = np.zeros((c, total)), np.zeros((c, total))
    poisson = np.zeros(total)
    small = np.empty((c, c))
    other_part = np.empty((c, c))
    for k in range(members.size):
        for s in range(images.size):
            i, t = members[k], images[s]
            o, first = offset[k, s], stack.start[i, t]
            wide, high = stack.box[i, t, 2], stack.box[i, t, 3]
            count = wide * high
            gain = 1.0 / stack.gain[t]
            for p in range(count):
                w = weight[o + p]
                deviation = math.sqrt(stack.variance[first + p]) if w > 0.0 else 0.0
                poisson[o + p] = w * w * max(model[o + p], 0.0) * gain
                for a in range(c):
                    scaled[a, o + p] = columns[a, o + p] * w * deviation
            for a in range(c):
                _correlate(scaled[a][o : o + count], wide, high, stack.rho[t], spread[a][o : o + count])
    ones = np.ones(total)
    own[:], pair[:] = 0.0, 0.0
    for k in range(members.size):
        for s in range(images.size):
            i, t, b = members[k], images[s], slot[s]
            o = offset[k, s]
            count = stack.box[i, t, 2] * stack.box[i, t, 3]
            if count == 0:
                continue
            f = par[k, b]
            for a in range(c):
                product = work[:count]
                for p in range(count):
                    product[p] = columns[a, o + p] * poisson[o + p]
                for d in range(c):
                    small[a, d] = dot(scaled[a][o : o + count], spread[d][o : o + count])
                    small[a, d] += dot(product, columns[d][o : o + count])
            for a in range(c):
                pa, fa = (b, 1.0) if a == 0 else (nb + a - 1, f)
                for d in range(c):
                    pd, fd = (b, 1.0) if d == 0 else (nb + d - 1, f)
                    own[k, pa, pd] += fa * fd * 0.5 * (small[a, d] + small[d, a])
            for e in range(start[k], start[k + 1]):
                j = other[e]
                if stack.box[members[j], t, 2] == 0:
                    continue
                gram_shared(stack, i, members[j], t, scaled, o, spread, offset[j, s], ones, small)
                gram_shared(stack, i, members[j], t, columns, o, columns, offset[j, s], poisson, other_part)
                g = par[j, b]
                for a in range(c):
                    pa, fa = (b, 1.0) if a == 0 else (nb + a - 1, f)
                    for d in range(c):
                        pd, fd = (b, 1.0) if d == 0 else (nb + d - 1, g)
                        pair[e, pa, pd] += fa * fd * (small[a, d] + other_part[a, d])


@njit(cache=True, nogil=True)
def noise_gram(stack, i, t, columns, weight, offset, matrix):  # type: ignore[no-untyped-def]
    """Products of some columns on one footprint over the covariance of the weighted pixels, W C W."""
    c = columns.shape[0]
    wide, high = stack.box[i, t, 2], stack.box[i, t, 3]
    count, first = wide * high, stack.start[i, t]
    scaled, spread, poisson = np.empty((c, count)), np.empty((c, count)), np.empty(count)
    for p in range(count):
        w, v = weight[offset + p], stack.variance[first + p]
        # What the weight holds beyond the variance of the sky is the source's.
        poisson[p] = max(w - v * w * w, 0.0)
        for a in range(c):
            scaled[a, p] = columns[a, offset + p] * w * math.sqrt(v)
    for a in range(c):
        _correlate(scaled[a], wide, high, stack.rho[t], spread[a])
    for a in range(c):
        for d in range(c):
            total = dot(scaled[a], spread[d])
            for p in range(count):
                total += columns[a, offset + p] * columns[d, offset + p] * poisson[p]
            matrix[a, d] = total


@njit(cache=True, nogil=True)
def close_neighbours(k, own, start, other, pair, most):  # type: ignore[no-untyped-def]
    """The member k and its neighbours that share most with it, at most `most` in all, k first."""
    count = min(start[k + 1] - start[k] + 1, most)
    chosen = np.empty(count, np.int64)
    chosen[0] = k
    taken = np.zeros(start[k + 1] - start[k], np.bool_)
    for place in range(1, count):
        best, where = -1.0, -1
        for e in range(start[k], start[k + 1]):
            if taken[e - start[k]]:
                continue
            share = abs(pair[e, 0, 0]) / math.sqrt(max(own[k, 0, 0] * own[other[e], 0, 0], 1e-300))
            if share > best:
                best, where = share, e
            elif where < 0:  # a share that is no number is below all others, but some neighbour is chosen
                where = e
        taken[where - start[k]] = True
        chosen[place] = other[where]
    return chosen


@njit(cache=True, nogil=True)
def local_matrix(chosen, own, start, other, pair, rows, columns):  # type: ignore[no-untyped-def]
    """Matrix of some members: parameters `rows` against parameters `columns` (first, last + 1)."""
    n = chosen.size
    r0, r1, c0, c1 = rows[0], rows[1], columns[0], columns[1]
    pr, pc = r1 - r0, c1 - c0
    matrix = np.zeros((n * pr, n * pc))
    for i in range(n):
        k = chosen[i]
        for j in range(n):
            if i == j:
                for a in range(pr):
                    for d in range(pc):
                        matrix[i * pr + a, j * pc + d] = own[k, r0 + a, c0 + d]
                continue
            for e in range(start[k], start[k + 1]):
                if other[e] == chosen[j]:
                    for a in range(pr):
                        for d in range(pc):
                            matrix[i * pr + a, j * pc + d] = pair[e, r0 + a, c0 + d]
    return matrix


@njit(cache=True, nogil=True)
def covariances(own, pair, noise_own, noise_pair, start, other, most, dense, each):  # type: ignore[no-untyped-def]
    """Covariances of the parameters of a group.

    Parameters
    ----------
    own, pair : float64 ``[m, p, p]``, ``[e, p, p]``
        Normal equations, priors included.
    noise_own, noise_pair : float64
        The same of Jᵀ W C W J, priors included.
    start, other : int64
        Neighbours.
    most : int
        Members that are taken together.
    dense : float64 ``[m p, m p]``
        Set, if the group has no more than that many members.
    each : float64 ``[m, p, p]``
        Set to the blocks of the members.
    """
    m, p = own.shape[0], own.shape[1]
    every = (0, p)
    if m <= most:
        chosen = np.arange(m)
        a = inverse(local_matrix(chosen, own, start, other, pair, every, every))
        b = local_matrix(chosen, noise_own, start, other, noise_pair, every, every)
        _sandwich(a, b, dense)
        for k in range(m):
            for i in range(p):
                for j in range(p):
                    each[k, i, j] = dense[k * p + i, k * p + j]
        return
    for k in range(m):
        chosen = close_neighbours(k, own, start, other, pair, most)
        a = inverse(local_matrix(chosen, own, start, other, pair, every, every))
        b = local_matrix(chosen, noise_own, start, other, noise_pair, every, every)
        n = a.shape[0]
        for i in range(p):
            for j in range(p):
                total = 0.0
                for q in range(n):
                    for r in range(n):
                        total += a[i, q] * b[q, r] * a[r, j]
                each[k, i, j] = total


@njit(cache=True, nogil=True)
def _sandwich(a, b, out):  # type: ignore[no-untyped-def]
    """Product a b a."""
    n = a.shape[0]
    half = np.zeros((n, n))
    for i in range(n):
        for q in range(n):
            f = a[i, q]
            if f != 0.0:
                for j in range(n):
                    half[i, j] += f * b[q, j]
    for i in range(n):
        for j in range(n):
            total = 0.0
            for q in range(n):
                total += half[i, q] * a[j, q]
            out[i, j] = total
