"""The split of rows into train, validation and test."""

from __future__ import annotations

import numpy as np

from imcat.simulate.split import Split, split_rows


def _magnitudes(n: int = 20000) -> np.ndarray:
    return np.random.default_rng(5).uniform(14, 24, (n, 5))


def test_shares() -> None:
    counts = np.bincount(split_rows(_magnitudes()), minlength=3) / 20000
    np.testing.assert_allclose(counts, [0.8, 0.1, 0.1], atol=0.01)


def test_a_row_keeps_its_role_in_any_table() -> None:
    mag = _magnitudes(500)
    role = split_rows(mag)
    order = np.random.default_rng(6).permutation(len(mag))
    np.testing.assert_array_equal(split_rows(mag[order]), role[order])
    rounded = np.round(mag, 2)
    # Another table that lists the same object with other digits.
    np.testing.assert_array_equal(split_rows(rounded + 0.004), split_rows(rounded))
    np.testing.assert_array_equal(split_rows(rounded.astype(np.float32)), split_rows(rounded))


def test_every_band_counts() -> None:
    mag = _magnitudes(2000)
    for band in range(5):
        other = mag.copy()
        other[:, band] += 0.5
        assert (split_rows(other) != split_rows(mag)).mean() > 0.2


def test_missing_values_and_one_band() -> None:
    mag = np.array([[19.0, np.nan], [19.0, np.inf], [19.0, np.nan]])
    role = split_rows(mag)
    assert role[0] == role[1] == role[2]
    assert set(np.unique(split_rows(_magnitudes(3000)[:, 0]))) == set(Split)
    assert len(split_rows(np.empty((0, 5)))) == 0


def test_the_split_is_for_ever() -> None:
    # What stands on record: a change of the hash would mix the rows of published metrics.
    rows = np.array([[19.21, 18.4], [20.0, 21.0], [18.1, 22.3], [17.7, 17.1], [16.2, 15.9]])
    assert split_rows(rows).tolist() == [0, 0, 0, 0, 2]
