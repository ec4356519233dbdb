"""Bias, scatter, pulls and error floors of numbers drawn from known distributions."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.evaluate import measurement as m


def test_robust_scatter_is_that_of_a_gaussian_and_ignores_outliers() -> None:
    values = np.random.default_rng(0).normal(3, 2, 20_000)
    values[:500] = 1e6
    assert m.robust_scatter(values) == pytest.approx(2, rel=0.06)
    assert np.isnan(m.robust_scatter([np.nan]))


def test_residuals_of_gaussian_errors() -> None:
    rng = np.random.default_rng(1)
    error = rng.uniform(0.5, 2, 20_000)
    difference = 0.3 + rng.normal(0, error)
    result = m.residuals(difference, error)
    assert result.pull_width == pytest.approx(1, abs=4 * result.pull_width_err)
    assert result.pull_width_err == pytest.approx(1.17 / np.sqrt(20_000), rel=0.05)
    assert result.bias == pytest.approx(0.3, abs=0.03)
    assert m.residuals(difference, error / 2).pull_width == pytest.approx(2, rel=0.05)


def test_spread_of_the_pull_width_is_as_stated() -> None:
    rng = np.random.default_rng(8)
    widths = [m.residuals(rng.normal(size=400), np.ones(400)).pull_width for _ in range(400)]
    assert np.std(widths) == pytest.approx(1.17 / np.sqrt(400), rel=0.15)


def test_bins_and_types() -> None:
    snr = np.array([4.0, 4, 20, 20, 20])
    kind = np.array(["star", "galaxy", "star", "star", "galaxy"])
    difference = np.array([0.0, 1, 2, 2, 5])
    rows = m.residuals_by_bin(difference, None, snr, [3, 10, np.inf], kind, ["galaxy", "star"])
    table = {(r.kind, r.low): (r.number, r.bias) for r in rows}
    assert table == {
        ("all", 3): (2, 0.5),
        ("all", 10): (3, 2),
        ("galaxy", 3): (1, 1),
        ("galaxy", 10): (1, 5),
        ("star", 3): (1, 0),
        ("star", 10): (2, 2),
    }
    assert all(np.isnan(r.pull_width) for r in rows)


def test_error_floor_is_recovered() -> None:
    rng = np.random.default_rng(2)
    error = rng.uniform(0.002, 0.03, 5_000)
    difference = 0.1 + rng.normal(0, np.hypot(error, 0.02))
    assert m.error_floor(difference, error) == pytest.approx(0.02, rel=0.1)
    assert m.error_floor(rng.normal(0, error), 1.2 * error) == 0
    assert m.error_floor(difference, np.zeros(5_000)) == pytest.approx(m.robust_scatter(difference), rel=1e-6)
    assert np.isnan(m.error_floor([1.0, 2.0], [1.0, 1.0]))


def test_reference_check_finds_offset_trend_and_map() -> None:
    rng = np.random.default_rng(4)
    n = 8_000
    x, y, mag = rng.uniform(0, 2000, n), rng.uniform(0, 1500, n), rng.uniform(16, 20, n)
    error = np.full(n, 0.01)
    difference = 0.05 + rng.normal(0, error) + np.where(x > 1000, 0.02, -0.02)
    check = m.check_reference(
        difference,
        error,
        mag,
        x,
        y,
        quantity="r",
        unit="mag",
        magnitude_edges=np.arange(16, 20.1, 1),
        shape=(1500, 2000),
        cells=(2, 2),
    )
    assert check.offset == pytest.approx(0.05, abs=0.005)
    np.testing.assert_allclose(check.grid_offset, [[0.03, 0.07]] * 2, atol=0.002)
    assert check.grid_number.sum() == n
    assert check.grid_floor == pytest.approx(0.0297, abs=0.004)  # 1.4826 times the MAD of ±0.02
    assert len(check.by_magnitude) == len(check.floor_by_magnitude) == 4
    assert check.floor > 0.015
