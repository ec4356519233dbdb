"""Normal equations of a blend group: blocks of each member and of each pair of neighbours."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["cholesky", "cholesky_solve", "inverse", "solve_blocks"]

#: Unknowns up to which a system is solved directly.
_DIRECT = 240
#: Steps of conjugate gradients, and relative residual at which they end.
_STEPS, _RESIDUAL = 80, 1e-6
#: Pivots below this share of the diagonal mean that a parameter is not determined: it stays as it is.
_PIVOT = 1e-12


@njit(cache=True, nogil=True)
def cholesky(a, n):  # type: ignore[no-untyped-def]
    """Replace the lower triangle of a symmetric matrix by its Cholesky factor."""
    for j in range(n):
        diagonal = a[j, j]
        pivot = diagonal
        for k in range(j):
            pivot -= a[j, k] * a[j, k]
        if not pivot > _PIVOT * abs(diagonal):
            pivot = 1e30 * max(abs(diagonal), 1e-30)
        root = np.sqrt(pivot)
        a[j, j] = root
        for i in range(j + 1, n):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            a[i, j] = total / root


@njit(cache=True, nogil=True)
def cholesky_solve(a, n, b):  # type: ignore[no-untyped-def]
    """Solve in place with the factor that `cholesky` leaves."""
    for i in range(n):
        total = b[i]
        for k in range(i):
            total -= a[i, k] * b[k]
        b[i] = total / a[i, i]
    for i in range(n - 1, -1, -1):
        total = b[i]
        for k in range(i + 1, n):
            total -= a[k, i] * b[k]
        b[i] = total / a[i, i]


@njit(cache=True, nogil=True)
def inverse(matrix):  # type: ignore[no-untyped-def]
    """Inverse of a symmetric positive matrix."""
    n = matrix.shape[0]
    # Scaled to a diagonal of 1, since fluxes and angles differ by many orders.
    scale = np.empty(n)
    for i in range(n):
        scale[i] = 1.0 / np.sqrt(matrix[i, i]) if matrix[i, i] > 0.0 else 1.0
    factor = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            factor[i, j] = matrix[i, j] * scale[i] * scale[j]
    cholesky(factor, n)
    result = np.empty((n, n))
    column = np.empty(n)
    for j in range(n):
        column[:] = 0.0
        column[j] = 1.0
        cholesky_solve(factor, n, column)
        for i in range(n):
            result[i, j] = column[i] * scale[i] * scale[j]
    return result


@njit(cache=True, nogil=True)
def solve_blocks(own, start, other, pair, right):  # type: ignore[no-untyped-def]
    """Solve the normal equations of a group.

    Parameters
    ----------
    own : float64 ``[m, p, p]``
        Blocks of the members.
    start, other : int64
        Neighbours, see `overlaps`.
    pair : float64 ``[e, p, p]``
        Blocks of member and neighbour.
    right : float64 ``[m, p]``
        Right side; becomes the solution.
    """
    m, p = right.shape
    if m == 1 or m * p <= _DIRECT:
        n = m * p
        matrix, vector = np.zeros((n, n)), np.empty(n)
        for k in range(m):
            for a in range(p):
                vector[k * p + a] = right[k, a]
                for c in range(p):
                    matrix[k * p + a, k * p + c] = own[k, a, c]
                    for e in range(start[k], start[k + 1]):
                        matrix[k * p + a, other[e] * p + c] = pair[e, a, c]
        scale = np.empty(n)
        for i in range(n):
            scale[i] = 1.0 / np.sqrt(matrix[i, i]) if matrix[i, i] > 0.0 else 1.0
        for i in range(n):
            vector[i] *= scale[i]
            for j in range(n):
                matrix[i, j] *= scale[i] * scale[j]
        cholesky(matrix, n)
        cholesky_solve(matrix, n, vector)
        for k in range(m):
            for a in range(p):
                right[k, a] = vector[k * p + a] * scale[k * p + a]
        return
    _conjugate_gradients(own, start, other, pair, right)


@njit(cache=True, nogil=True)
def _precondition(factor, residual, out):  # type: ignore[no-untyped-def]
    m, p = residual.shape
    for k in range(m):
        out[k, :] = residual[k, :]
        cholesky_solve(factor[k], p, out[k])


@njit(cache=True, nogil=True)
def _conjugate_gradients(own, start, other, pair, right):  # type: ignore[no-untyped-def]
    """Conjugate gradients, each block of a member solved exactly (Hestenes & Stiefel 1952)."""
    m, p = right.shape
    factor = own.copy()
    for k in range(m):
        cholesky(factor[k], p)
    x, residual = np.zeros((m, p)), right.copy()
    z, applied = np.empty((m, p)), np.empty((m, p))
    _precondition(factor, residual, z)
    direction = z.copy()
    rho = np.sum(residual * z)
    first = rho
    for _ in range(_STEPS):
        if not rho > _RESIDUAL**2 * first:
            break
        for k in range(m):
            for a in range(p):
                total = 0.0
                for c in range(p):
                    total += own[k, a, c] * direction[k, c]
                    for e in range(start[k], start[k + 1]):
                        total += pair[e, a, c] * direction[other[e], c]
                applied[k, a] = total
        curvature = np.sum(direction * applied)
        if not curvature > 0.0:
            break
        step = rho / curvature
        for k in range(m):
            for a in range(p):
                x[k, a] += step * direction[k, a]
                residual[k, a] -= step * applied[k, a]
        _precondition(factor, residual, z)
        last = rho
        rho = np.sum(residual * z)
        for k in range(m):
            for a in range(p):
                direction[k, a] = z[k, a] + rho / last * direction[k, a]
    right[:, :] = x
