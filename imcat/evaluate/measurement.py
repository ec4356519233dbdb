"""Bias, scatter and pull of measurements, and the check against a reference table.

Pure functions on arrays: the caller has matched the sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "MAD_TO_SIGMA",
    "ReferenceCheck",
    "Residuals",
    "check_reference",
    "error_floor",
    "residuals",
    "residuals_by_bin",
    "robust_scatter",
]

Float = NDArray[np.float64]

#: Standard deviation of a Gaussian in units of its median absolute deviation.
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Residuals:
    """Residuals of one bin.

    Attributes
    ----------
    low, high : float
        Edges of the bin.
    kind : str
        Type of the sources; ``all`` for every type.
    number : int
        Sources in the bin.
    bias, scatter : float
        Median of the residual and its robust width, in the residual's unit.
    pull_bias, pull_width : float
        Median and robust width of residual over quoted error; NaN without errors.
    pull_width_err : float
        1 sigma error of `pull_width`: the MAD of n Gaussian values scatters by
        1.17 / sqrt(n) of itself (its asymptotic efficiency is 0.37: Rousseeuw & Croux 1993,
        J. Am. Stat. Assoc. 88, 1273).
    """

    low: float
    high: float
    kind: str
    number: int
    bias: float
    scatter: float
    pull_bias: float
    pull_width: float
    pull_width_err: float


@dataclass(frozen=True, eq=False)
class ReferenceCheck:
    """Offsets of one quantity from a reference table.

    Attributes
    ----------
    quantity, unit : str
        What was compared.
    number : int
        Sources compared.
    offset, offset_err : float
        Median of measured minus reference, and its error.
    scatter : float
        Robust width of the difference.
    floor : float
        Error to add in quadrature so that the differences have the width that the quoted
        errors say; 0 where they need none, NaN where no errors are given.
    by_magnitude : tuple of Residuals
        The same by magnitude.
    floor_by_magnitude : float64 array, shape (n,)
        Error floor of each of these bins.
    grid_offset, grid_err : float64 array, shape (ny, nx)
        Median offset by position on the chip and its error, NaN where nothing was compared.
    grid_number : int64 array, shape (ny, nx)
        Sources in a cell.
    grid_floor : float
        Scatter of the cells' offsets beyond their errors: what a map of the chip would
        correct.
    """

    quantity: str
    unit: str
    number: int
    offset: float
    offset_err: float
    scatter: float
    floor: float
    by_magnitude: tuple[Residuals, ...]
    floor_by_magnitude: Float
    grid_offset: Float
    grid_err: Float
    grid_number: NDArray[np.int64]
    grid_floor: float


def robust_scatter(values: ArrayLike) -> float:
    """1.4826 times the median absolute deviation from the median; NaN where nothing is finite.

    Examples
    --------
    >>> robust_scatter([1, 2, 3, 4, 1000])
    1.4826
    """
    array = _finite(values)
    if array.size == 0:
        return np.nan
    return float(MAD_TO_SIGMA * np.median(np.abs(array - np.median(array))))


def residuals(
    difference: ArrayLike,
    error: ArrayLike | None = None,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    kind: str = "all",
) -> Residuals:
    """Bias, robust scatter and pull of a set of residuals.

    Parameters
    ----------
    difference : array, shape (n,)
        Measured minus true value.
    error : array, shape (n,), optional
        Quoted error, 1 sigma.
    low, high, kind : float, float, str
        What the set is, copied to the result.
    """
    values = np.asarray(difference, dtype=np.float64)
    good = np.isfinite(values)
    if error is not None:
        sigma = np.asarray(error, dtype=np.float64)
        good &= np.isfinite(sigma) & (sigma > 0)
    number = int(good.sum())
    if number == 0:
        return Residuals(low, high, kind, 0, np.nan, np.nan, np.nan, np.nan, np.nan)
    pull_bias = pull_width = pull_width_err = np.nan
    if error is not None:
        pull = values[good] / sigma[good]
        pull_bias, pull_width = float(np.median(pull)), robust_scatter(pull)
        pull_width_err = float(pull_width * 1.17 / np.sqrt(number))
    bias, scatter = float(np.median(values[good])), robust_scatter(values[good])
    return Residuals(low, high, kind, number, bias, scatter, pull_bias, pull_width, pull_width_err)


def residuals_by_bin(
    difference: ArrayLike,
    error: ArrayLike | None,
    by: ArrayLike,
    edges: ArrayLike,
    kind: ArrayLike | None = None,
    kinds: Sequence[str] = (),
) -> list[Residuals]:
    """Bias, scatter and pull by bin (of S/N, magnitude …) and type.

    Parameters
    ----------
    difference : array, shape (n,)
        Measured minus true value.
    error : array, shape (n,) or None
        Quoted error, 1 sigma.
    by : array, shape (n,)
        The quantity that is binned.
    edges : array, shape (m + 1,)
        Edges of its bins, the upper one excluded.
    kind : str array, shape (n,), optional
        Types of the sources.
    kinds : sequence of str
        Types that get rows of their own after those of all sources.

    Returns
    -------
    list of Residuals
        Empty bins are left out.
    """
    values, position = np.asarray(difference, dtype=np.float64), np.asarray(by, dtype=np.float64)
    sigma = None if error is None else np.asarray(error, dtype=np.float64)
    limits = np.asarray(edges, dtype=np.float64)
    labels = np.full(values.shape, "all") if kind is None else np.asarray(kind)
    rows = []
    for name in ("all", *kinds):
        for low, high in pairwise(limits):
            chosen = (position >= low) & (position < high)
            if name != "all":
                chosen &= labels == name
            part = residuals(
                values[chosen],
                None if sigma is None else sigma[chosen],
                low=float(low),
                high=float(high),
                kind=name,
            )
            if part.number:
                rows.append(part)
    return rows


def error_floor(difference: ArrayLike, error: ArrayLike, steps: int = 60) -> float:
    """Error that must be added in quadrature for the pull to have a width of one.

    Parameters
    ----------
    difference : array, shape (n,)
        Residuals; their median is taken away first.
    error : array, shape (n,)
        Quoted errors, 1 sigma.
    steps : int
        Bisections.

    Returns
    -------
    float
        In the unit of the residuals; 0 where the quoted errors suffice, NaN for fewer than
        three residuals.
    """
    values, sigma = np.asarray(difference, dtype=np.float64), np.asarray(error, dtype=np.float64)
    good = np.isfinite(values) & np.isfinite(sigma) & (sigma >= 0)
    values, sigma = values[good], sigma[good]
    if values.size < 3:
        return np.nan
    values = values - np.median(values)

    def too_wide(floor: float) -> bool:
        total = np.hypot(sigma, floor)
        return robust_scatter(values[total > 0] / total[total > 0]) > 1

    low, high = 0.0, float(np.max(np.abs(values)))
    if high == 0 or (np.all(sigma > 0) and not too_wide(0.0)):
        return 0.0
    high *= MAD_TO_SIGMA
    for _ in range(steps):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if too_wide(middle) else (low, middle)
    return high


def check_reference(
    difference: ArrayLike,
    error: ArrayLike | None,
    magnitude: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    *,
    quantity: str,
    unit: str,
    magnitude_edges: ArrayLike,
    shape: tuple[int, int],
    cells: tuple[int, int] = (4, 4),
    origin: tuple[float, float] = (0.0, 0.0),
) -> ReferenceCheck:
    """Offsets from a reference table by magnitude and by position on the chip.

    Parameters
    ----------
    difference : array, shape (n,)
        Measured minus reference.
    error : array, shape (n,) or None
        Quoted errors of both, added in quadrature.
    magnitude : array, shape (n,)
        By which offsets are binned.
    x, y : array, shape (n,)
        Pixels.
    quantity, unit : str
        Name and unit, for the report.
    magnitude_edges : array
        Edges of the bins in magnitude.
    shape : (int, int)
        Rows and columns of the chip.
    cells : (int, int)
        Rows and columns of the grid on the chip.
    origin : (float, float)
        Column and row of the grid's first corner, pixels.
    """
    values = np.asarray(difference, dtype=np.float64)
    good = np.isfinite(values)
    sigma = None if error is None else np.asarray(error, dtype=np.float64)
    mags, edges = np.asarray(magnitude, dtype=np.float64), np.asarray(magnitude_edges, dtype=np.float64)
    number = int(good.sum())
    scatter = robust_scatter(values)
    by_magnitude = residuals_by_bin(values, None, mags, edges)
    floors = []
    for index, part in enumerate(by_magnitude):
        chosen = (mags >= part.low) & (mags < part.high)
        if sigma is not None:
            with_errors = residuals(values[chosen], sigma[chosen], low=part.low, high=part.high)
            by_magnitude[index] = with_errors if with_errors.number else part
            floors.append(error_floor(values[chosen], sigma[chosen]))
        else:
            floors.append(np.nan)
    grid, grid_err, counts = _grid(
        values[good],
        np.asarray(x, dtype=np.float64)[good] - origin[0],
        np.asarray(y, dtype=np.float64)[good] - origin[1],
        shape,
        cells,
    )
    enough = counts >= 5
    return ReferenceCheck(
        quantity=quantity,
        unit=unit,
        number=number,
        offset=float(np.median(values[good])) if number else np.nan,
        offset_err=_median_error(scatter, number),
        scatter=scatter,
        floor=np.nan if sigma is None else error_floor(values, sigma),
        by_magnitude=tuple(by_magnitude),
        floor_by_magnitude=np.array(floors),
        grid_offset=grid,
        grid_err=grid_err,
        grid_number=counts,
        grid_floor=error_floor(grid[enough], grid_err[enough]),
    )


def _grid(
    values: Float, x: Float, y: Float, shape: tuple[int, int], cells: tuple[int, int]
) -> tuple[Float, Float, NDArray[np.int64]]:
    """Median, its error and the number of values in each cell of a chip."""
    row = np.clip(((y + 0.5) * cells[0] / shape[0]).astype(np.int64), 0, cells[0] - 1)
    column = np.clip(((x + 0.5) * cells[1] / shape[1]).astype(np.int64), 0, cells[1] - 1)
    offset, error = np.full(cells, np.nan), np.full(cells, np.nan)
    count = np.zeros(cells, dtype=np.int64)
    for i in range(cells[0]):
        for j in range(cells[1]):
            part = values[(row == i) & (column == j)]
            count[i, j] = part.size
            if part.size:
                offset[i, j] = np.median(part)
                error[i, j] = _median_error(robust_scatter(part), part.size)
    return offset, error, count


def _median_error(scatter: float, number: int) -> float:
    """Error of the median of Gaussian values: sqrt(pi / 2) times that of their mean."""
    return float(np.sqrt(np.pi / 2) * scatter / np.sqrt(number)) if number > 1 else np.nan


def _finite(values: ArrayLike) -> Float:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]
