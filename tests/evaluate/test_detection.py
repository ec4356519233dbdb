"""Completeness, purity and their kin on lists whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.evaluate import detection as d

SHAPE = (1000, 1200)


@pytest.fixture
def sky(rng_seed: int = 5) -> dict[str, np.ndarray]:
    """A grid of sources 20 pixels apart, so that no chance match is possible at 2 pixels."""
    rng = np.random.default_rng(rng_seed)
    x, y = (v.ravel().astype(float) for v in np.meshgrid(np.arange(30, 1170, 25), np.arange(30, 970, 25)))
    return {"x": x, "y": y, "mag": rng.uniform(18, 24, x.size)}


def test_matches_are_one_to_one_and_nearest_first() -> None:
    pairs = d.match_lists([0.0, 1.0], [0.0, 0.0], [0.9], [0.0], 2.0)
    assert pairs.first.tolist() == [1]
    assert pairs.found(1).tolist() == [True]
    assert pairs.used(2).tolist() == [False, True]


def test_border_is_measured_from_the_edge_of_the_pixels() -> None:
    x = np.array([7.4, 7.5, 1191.4, 1191.5])
    assert d.inside(x, np.full(4, 500.0), SHAPE, 8).tolist() == [False, True, True, False]


def test_completeness_of_a_known_cut(sky: dict[str, np.ndarray]) -> None:
    found = sky["mag"] < 22
    curve = d.completeness(sky["mag"], found, np.arange(18, 24.1, 0.5))
    assert curve.total.sum() == sky["mag"].size
    np.testing.assert_array_equal(curve.fraction[:8], 1.0)
    np.testing.assert_array_equal(curve.fraction[8:], 0.0)
    assert np.all(curve.lower <= curve.fraction)
    assert np.all(curve.upper[8:] > 0)


def test_completeness_leaves_out_magnitudes_that_are_missing() -> None:
    curve = d.completeness([18.2, np.nan, 30.0], [True, True, True], [18, 19])
    assert curve.total.tolist() == [1]


def test_purity_counts_false_detections_and_wrong_magnitudes(sky: dict[str, np.ndarray]) -> None:
    real = sky["x"].size
    x = np.append(sky["x"], [500.0] * 10)
    y = np.append(sky["y"], 42.0 + 25 * np.arange(10))
    mag = np.append(sky["mag"], np.full(10, 20.0))
    mag[:100] += 1.5
    purity = d.measure_purity(
        x, y, sky["x"], sky["y"], radius=2.0, shape=SHAPE, magnitude=mag, truth_magnitude=sky["mag"]
    )
    assert purity.detections == real + 10
    assert purity.purity == pytest.approx(real / (real + 10))
    assert purity.purity_one_mag == pytest.approx((real - 100) / (real + 10))
    assert purity.chance == 0


def test_chance_rate_of_random_lists() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 1000, (2, 20_000))
    found = rng.uniform(0, 1000, (2, 2_000))
    purity = d.measure_purity(*found, *truth, radius=2.0, shape=(1000, 1000))
    # Density times area, for detections so sparse that they do not compete.
    expected = 1 - np.exp(-0.02 * np.pi * 4)
    assert purity.chance == pytest.approx(expected, abs=0.03)
    assert purity.purity == pytest.approx(purity.chance, abs=0.04)


def test_no_detection_at_all() -> None:
    purity = d.measure_purity([], [], [1.0], [1.0], radius=1.0, shape=SHAPE)
    assert purity.detections == 0
    assert np.isnan(purity.purity)


def test_scan_finds_the_deepest_cut_with_the_purity() -> None:
    score = np.arange(100, 0, -1.0)
    real = np.ones(100, bool)
    real[80:] = False
    cut = d.threshold_at_purity(score, real, 0.9)
    kept = score >= cut
    assert real[kept].mean() >= 0.9
    assert real[score >= cut - 1].mean() < 0.9
    assert np.isnan(d.threshold_at_purity(score, ~real, 0.9))


def test_curve_keeps_equal_scores_together() -> None:
    threshold, purity, number = d.purity_curve([1.0, 1.0, 2.0], [True, False, True])
    assert threshold.tolist() == [2, 1]
    assert purity.tolist() == [1, pytest.approx(2 / 3)]
    assert number.tolist() == [1, 3]


def test_pairs_count_only_when_both_are_found() -> None:
    x = np.array([100.0, 103, 200, 205, 300, 300, 400])
    y = np.array([100.0, 100, 200, 200, 300, 380, 400])
    found = np.array([True, True, True, False, True, True, True])
    pairs = d.close_pairs(x, y, np.full(7, 20.0), found, separation=6, faint_limit=22, edges=[0, 4, 6])
    assert pairs.total.tolist() == [1, 1]
    assert pairs.hits.tolist() == [1, 0]
    faint = d.close_pairs(x, y, np.full(7, 23.0), found, separation=6, faint_limit=22, edges=[0, 6])
    assert faint.total.tolist() == [0]


def test_reliability_of_calibrated_and_of_shifted_scores() -> None:
    rng = np.random.default_rng(3)
    score = rng.uniform(0, 1, 40_000)
    real = rng.uniform(0, 1, score.size) < score
    assert d.reliability(score, real).error < 0.015
    shifted = d.reliability(np.full(1000, 0.9), np.arange(1000) < 600)
    assert shifted.error == pytest.approx(0.3)
    assert shifted.count.sum() == 1000


def test_average_precision() -> None:
    x, y, w = np.array([100.0, 200, 300]), np.array([100.0, 100, 100]), np.full(3, 5.0)
    assert d.average_precision(x, y, w, [3, 2, 1], x, y, w) == pytest.approx(1)
    # A false detection ranked first halves the precision at the first hit, and so on.
    with_false = d.average_precision([500, *x], [500, *y], [5, *w], [9, 3, 2, 1], x, y, w)
    assert with_false == pytest.approx(3 / 4)
    # Squares of equal size shifted by a third of the side have an IoU of 1/2.
    shift = 10 / 3
    assert d.average_precision(x + shift * 0.99, y, w, [3, 2, 1], x, y, w) == pytest.approx(1)
    assert d.average_precision(x + shift * 1.01, y, w, [3, 2, 1], x, y, w) == 0
    # A source that need not be found counts neither way.
    wanted = np.array([True, True, False])
    assert d.average_precision(x, y, w, [3, 2, 9], x, y, w, wanted=wanted) == pytest.approx(1)
    assert d.average_precision(x[:2], y[:2], w[:2], [3, 2], x, y, w) == pytest.approx(2 / 3)
