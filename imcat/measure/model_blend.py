"""Footprints that overlap: sums of models and of products over the pixels that two sources share."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Pixels of a strip: eight numbers of double precision for each are 26 kB.
_STRIP = 400

__all__ = ["add_model", "dot", "gram", "gram_shared", "layout", "mirror", "overlaps", "total_models"]


@njit(cache=True, nogil=True)
def layout(stack, members, images, offset):  # type: ignore[no-untyped-def]
    """Places of the footprints of a group in a buffer, and the length of that.

    Parameters
    ----------
    stack : Stack
        Footprints.
    members, images : int64 ``[m]``, ``[t]``
        Sources of the group, and images.
    offset : int64 ``[m, t]``
        Set to the first element of each.
    """
    total = 0
    for k in range(members.size):
        for s in range(images.size):
            offset[k, s] = total
            total += stack.box[members[k], images[s], 2] * stack.box[members[k], images[s], 3]
    return total


@njit(cache=True, nogil=True)
def _shared(stack, i, j, t):  # type: ignore[no-untyped-def]
    """Pixels that two footprints share: x from, to, y from, to."""
    bi, bj = stack.box[i, t], stack.box[j, t]
    return (
        max(bi[0], bj[0]),
        min(bi[0] + bi[2], bj[0] + bj[2]),
        max(bi[1], bj[1]),
        min(bi[1] + bi[3], bj[1] + bj[3]),
    )


@njit(cache=True, nogil=True)
def overlaps(stack, members, images):  # type: ignore[no-untyped-def]
    """Members whose footprints overlap.

    Returns
    -------
    start : int64 ``[m + 1]``
        First place in `other` of each member.
    other : int64
        Places in `members` of its neighbours.
    """
    m = members.size
    start = np.zeros(m + 1, np.int64)
    other = np.empty(0, np.int64)
    for turn in range(2):
        count = 0
        for k in range(m):
            start[k] = count
            for j in range(m):
                if j == k:
                    continue
                for s in range(images.size):
                    x0, x1, y0, y1 = _shared(stack, members[k], members[j], images[s])
                    if x1 > x0 and y1 > y0:
                        if turn == 1:
                            other[count] = j
                        count += 1
                        break
        start[m] = count
        if turn == 0:
            other = np.empty(count, np.int64)
    return start, other


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def dot(a, b):  # type: ignore[no-untyped-def]
    """Sum of products of two arrays."""
    total = 0.0
    for p in range(a.size):
        total += a[p] * b[p]
    return total


@njit(cache=True, nogil=True)
def add_model(stack, i, j, t, factor, source, first, target, second):  # type: ignore[no-untyped-def]
    """Add to the footprint of source j what source i has on the pixels that they share.

    `source` holds the footprint of i from element `first` on, `target` that of j from `second` on.
    """
    x0, x1, y0, y1 = _shared(stack, i, j, t)
    for y in range(y0, y1):
        p = np.uint64(first + (y - stack.box[i, t, 1]) * stack.box[i, t, 2] + x0 - stack.box[i, t, 0])
        q = np.uint64(second + (y - stack.box[j, t, 1]) * stack.box[j, t, 2] + x0 - stack.box[j, t, 0])
        for d in range(np.uint64(max(x1 - x0, 0))):
            target[q + d] += factor * source[p + d]


@njit(cache=True, nogil=True)
def total_models(stack, members, images, offset, start, other, column, amplitude, model):  # type: ignore[no-untyped-def]
    """Sum of the models of all members on the footprint of each.

    Parameters
    ----------
    stack, members, images, offset, start, other
        The group, see `layout` and `overlaps`.
    column : float64
        Image of each member of flux 1, on its own footprint.
    amplitude : float64 ``[m, t]``
        Fluxes.
    model : float64
        Set to the sums.
    """
    for k in range(members.size):
        i = members[k]
        for s in range(images.size):
            o = offset[k, s]
            count = stack.box[i, images[s], 2] * stack.box[i, images[s], 3]
            mine, factor = model[o : o + count], amplitude[k, s]
            unit = column[o : o + count]
            for p in range(count):
                mine[p] = factor * unit[p]
            for e in range(start[k], start[k + 1]):
                j = other[e]
                if amplitude[j, s] != 0.0:
                    add_model(
                        stack, members[j], i, images[s], amplitude[j, s], column, offset[j, s], model, o
                    )


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def gram(columns, weight, residual, first, count, matrix, vector, work):  # type: ignore[no-untyped-def]
    """Weighted products of the columns of a footprint with each other and with its residuals.

    Parameters
    ----------
    columns : float64 ``[c, pixels]``
        Model and derivatives.
    weight, residual : float64 ``[pixels]``
        Of the pixels.
    first, count : int
        Pixels of the footprint.
    matrix, vector : float64 ``[c, c]``, ``[c]``
        Set to the products.
    work : float64
        Scratch for a footprint.
    """
    end = first + count
    w, r, product = weight[first:end], residual[first:end], work[:count]
    for a in range(columns.shape[0]):
        column = columns[a][first:end]
        for p in range(count):
            product[p] = column[p] * w[p]
        vector[a] = dot(product, r)
        for c in range(a + 1):
            matrix[a, c] = dot(product, columns[c][first:end])
            matrix[c, a] = matrix[a, c]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def gram_shared(stack, i, j, t, left, first, right, second, weight, matrix):  # type: ignore[no-untyped-def]
    """Weighted products of the columns of two sources over the pixels that they share.

    `left` holds the columns of i from element `first` on, `right` those of j from `second` on; `weight`
    lies as `left` does.
    """
    x0, x1, y0, y1 = _shared(stack, i, j, t)
    matrix[:] = 0.0
    wide, high = x1 - x0, y1 - y0
    if wide <= 0 or high <= 0:
        return
    # Copied, so that each product is a long sum and not many short ones; in strips that the nearest cache holds.
    rows = min(max(_STRIP // wide, 1), high)
    mine, theirs = np.empty(rows * wide), np.empty((right.shape[0], rows * wide))
    for top in range(y0, y1, rows):
        lines = min(rows, y1 - top)
        count = lines * wide
        p0 = first + (top - stack.box[i, t, 1]) * stack.box[i, t, 2] + x0 - stack.box[i, t, 0]
        q0 = second + (top - stack.box[j, t, 1]) * stack.box[j, t, 2] + x0 - stack.box[j, t, 0]
        for c in range(right.shape[0]):
            for y in range(lines):
                q = q0 + y * stack.box[j, t, 2]
                theirs[c, y * wide : (y + 1) * wide] = right[c][q : q + wide]
        for a in range(left.shape[0]):
            for y in range(lines):
                p = p0 + y * stack.box[i, t, 2]
                target, values, w = (
                    mine[y * wide : (y + 1) * wide],
                    left[a][p : p + wide],
                    weight[p : p + wide],
                )
                for x in range(wide):
                    target[x] = values[x] * w[x]
            for c in range(right.shape[0]):
                matrix[a, c] += dot(mine[:count], theirs[c, :count])


@njit(cache=True, nogil=True)
def mirror(start, other, pair):  # type: ignore[no-untyped-def]
    """Set the blocks of members and earlier ones to the transposes of those of the earlier ones and them."""
    for k in range(start.size - 1):
        for e in range(start[k], start[k + 1]):
            j = other[e]
            if j > k:
                for back in range(start[j], start[j + 1]):
                    if other[back] == k:
                        pair[back] = pair[e].T
