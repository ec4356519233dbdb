"""Which rows of a table are for training, validation and test.

One rule for every table: a hash of the row's rounded magnitudes. The same object in two tables
with the same photometry falls on the same side, and no list of rows has to be kept.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split", "split_rows"]


class Split(IntEnum):
    """Role of a row."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


#: Of a hundred, how many rows are for training, and how many for training or validation.
_TRAIN_BELOW, _VALIDATION_BELOW = 80, 90
_STEPS_PER_MAG = 100  # coarser than the last digits of any table, finer than any error
_MISSING = -(2**31)
# Finaliser of splitmix64 (Steele, Lea & Flood 2014, OOPSLA, "Fast splittable pseudorandom number generators").
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def split_rows(mag: NDArray[np.floating]) -> NDArray[np.int8]:
    """Role of each row: 80 of 100 rows train, 10 validate, 10 test.

    Parameters
    ----------
    mag : float array, ``[n, bands]`` or ``[n]``
        Magnitudes as they stand in the table, in its order of bands; those that are not finite count
        as missing. They are rounded to 0.01 mag.

    Returns
    -------
    int8 array, ``[n]``
        `Split`.

    Examples
    --------
    >>> split_rows(np.array([[20.0, 21.0], [16.2, 15.9], [16.2001, 15.9]])).tolist()
    [0, 2, 2]
    """
    columns = np.atleast_2d(np.asarray(mag, np.float64).T)
    state = np.zeros(columns.shape[1], np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            known = np.isfinite(column)
            steps = np.where(
                known, np.rint(np.clip(np.where(known, column, 0), -1e4, 1e4) * _STEPS_PER_MAG), _MISSING
            )
            state = _mix(state ^ steps.astype(np.int64).view(np.uint64))
    share = (state % np.uint64(100)).astype(np.int64)
    return np.select(
        [share < _TRAIN_BELOW, share < _VALIDATION_BELOW], [Split.TRAIN, Split.VALIDATION], Split.TEST
    ).astype(np.int8)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + _GAMMA
    state = (state ^ (state >> np.uint64(30))) * _MIX1
    state = (state ^ (state >> np.uint64(27))) * _MIX2
    return state ^ (state >> np.uint64(31))
