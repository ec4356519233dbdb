"""Correlation of the noise of neighbouring pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from imcat.noise import NoiseCovariance, NoiseModel, NoiseSettings, measure_covariance, measure_noise
from imcat.noise.covariance import lag_products
from imcat.tile import ArrayPixels, Exposure
from imcat.window import Window

N = 512
SETTINGS = NoiseSettings()


def _blank(window: Window) -> NDArray[np.bool_]:
    return np.zeros(window.shape, bool)


def _white(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 1, (N, N))


def _smooth(seed: int, sigma: float) -> NDArray[np.float64]:
    smoothed = gaussian_filter(_white(seed), sigma, mode="wrap", truncate=6)
    return smoothed / smoothed.std()


def _measure(
    image: NDArray[np.float64], variance: float | None = None, settings: NoiseSettings = SETTINGS
) -> NoiseModel:
    given = None if variance is None else ArrayPixels(np.full(image.shape, variance, np.float32))
    exposure = Exposure("field.fits", ArrayPixels(image.astype(np.float32)), None, variance=given)
    return measure_covariance(exposure, measure_noise(exposure, settings), _blank, settings)


def test_white_noise_is_uncorrelated() -> None:
    model = _measure(5 + 3 * _white(1))
    rho = model.covariance.rho
    assert rho.shape == (11, 11)
    assert rho[5, 5] == 1
    rho = np.where(np.arange(121).reshape(11, 11) == 60, 0, rho)
    assert np.abs(rho).max() < 5 / N
    assert model.covariance.total == pytest.approx(1, abs=4 * np.sqrt(2 * 120) / N)
    assert model.variance_scale == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.3])
def test_smoothed_noise_has_the_correlation_of_its_kernel(sigma: float) -> None:
    covariance = _measure(40 * _smooth(2, sigma)).covariance
    # White noise through a kernel: its autocorrelation, for a Gaussian one wider by sqrt(2).
    dy, dx = np.mgrid[-5:6, -5:6]
    expected = np.exp(-(dy**2 + dx**2) / (4 * sigma**2))
    np.testing.assert_allclose(covariance.rho, expected, atol=0.03)
    np.testing.assert_array_equal(covariance.rho, covariance.rho[::-1, ::-1])
    assert covariance.total == pytest.approx(4 * np.pi * sigma**2, rel=0.1)


def test_lopsided_correlation_keeps_its_orientation() -> None:
    white = _white(3)
    image = white + np.roll(white, (1, 2), (0, 1))  # correlated at lag (1, 2), not at (1, -2)
    rho = _measure(image).covariance.rho
    assert rho[5 + 1, 5 + 2] == pytest.approx(0.5, abs=0.02)
    assert rho[5 - 1, 5 - 2] == pytest.approx(0.5, abs=0.02)
    assert rho[5 + 1, 5 - 2] == pytest.approx(0.0, abs=0.02)
    assert rho[5, 5 + 1] == pytest.approx(0.0, abs=0.02)


def test_total_is_the_variance_of_a_large_sum() -> None:
    image = _smooth(4, 1.0)
    sums = image.reshape(N // 32, 32, N // 32, 32).sum(axis=(1, 3))
    # Sums of 32 x 32 lack a part of the pairs at their border: (1 - <|d|> / 32)^2 with <|d|> = 2 sigma / sqrt(pi).
    border = (1 - 2 / np.sqrt(np.pi) / 32) ** 2
    assert _measure(image).covariance.total == pytest.approx(sums.var() / 32**2 / border, rel=0.25)


def test_lag_products_equal_sums_of_numpy() -> None:
    rng = np.random.default_rng(5)
    used = (rng.random((23, 31)) < 0.8).astype(np.float32)
    values = (rng.normal(0, 1, used.shape) * used).astype(np.float32)
    products, pairs = np.ones((4, 7)), np.ones((4, 7))  # added to
    lag_products(values, used, 3, products, pairs)
    for dy in range(4):
        for dx in range(-3, 4):
            if dy == 0 and dx < 0:
                assert (products[dy, dx + 3], pairs[dy, dx + 3]) == (1, 1)
                continue
            a = np.s_[: 23 - dy, max(0, -dx) : min(31, 31 - dx)]
            b = np.s_[dy:, max(0, dx) : min(31, 31 + dx)]
            assert pairs[dy, dx + 3] == 1 + (used[a] * used[b]).sum()
            assert products[dy, dx + 3] == pytest.approx(1 + (values[a] * values[b]).sum(), abs=1e-3)


def test_lags_without_pairs_and_samples_without_pixels_are_white() -> None:
    products, pairs = np.full((2, 3), 50.0), np.full((2, 3), 1000.0)
    products[0, 1] = 1000.0
    pairs[1, 2] = 3
    rho = NoiseCovariance.from_products(products, pairs).rho
    np.testing.assert_allclose(rho, [[0, 0.05, 0.05], [0.05, 1, 0.05], [0.05, 0.05, 0]])
    assert NoiseCovariance.from_products(products, np.full((2, 3), 99.0)).radius == 0
    assert NoiseCovariance.from_products(-products, pairs).total == 1


def test_lags_leave_out_the_middle() -> None:
    rho = np.arange(9.0).reshape(3, 3)
    dy, dx, values = NoiseCovariance(rho).lags
    np.testing.assert_array_equal(values, rho[(dy + 1).astype(int), (dx + 1).astype(int)])
    assert values.size == 8
    assert 4 not in values
    white = NoiseCovariance.white()
    assert (white.total, white.radius, white.lags[2].size) == (1, 0, 0)


@pytest.mark.parametrize("wrong", [0.9, 1.1, 2.0])
def test_given_noise_that_is_wrong_is_rescaled(wrong: float) -> None:
    model = _measure(3 * _white(6), variance=(3 * wrong) ** 2)
    assert model.rms_ratio == pytest.approx(1 / wrong, rel=0.01)
    assert model.variance_scale == pytest.approx(1 / wrong**2, rel=0.02)


@pytest.mark.parametrize("wrong", [0.97, 1.0, 1.03])
def test_given_noise_that_is_nearly_right_is_kept(wrong: float) -> None:
    model = _measure(3 * _white(7), variance=(3 * wrong) ** 2)
    assert model.rms_ratio == pytest.approx(1 / wrong, rel=0.01)
    assert model.variance_scale == 1


def test_tolerance_decides_what_is_kept() -> None:
    strict = NoiseSettings(variance_tolerance=0.01)
    assert _measure(3 * _white(7), (3 * 1.03) ** 2, strict).variance_scale == pytest.approx(
        1.03**-2, rel=0.01
    )


def test_sources_are_left_out_where_they_are_known() -> None:
    rng = np.random.default_rng(8)
    truth = np.zeros((N, N))
    truth[tuple(rng.integers(0, N, (2, 400)))] = 2000
    sources = gaussian_filter(truth, 2.0)
    area = binary_dilation(truth > 0, iterations=8)
    image = (_white(9) + sources).astype(np.float32)
    exposure = Exposure("field.fits", ArrayPixels(image), None)
    first = measure_noise(exposure, SETTINGS)
    known = measure_covariance(exposure, first, lambda w: area[w.slices], SETTINGS)
    unknown = measure_covariance(exposure, first, _blank, SETTINGS)
    assert known.covariance.total == pytest.approx(1, abs=0.3)
    assert known.variance_scale * known.rms**2 == pytest.approx(1, abs=0.02)
    assert unknown.covariance.total > 3


def test_nowhere_blank_leaves_the_noise_as_it_was() -> None:
    exposure = Exposure("field.fits", ArrayPixels(_white(10).astype(np.float32)), None)
    first = measure_noise(exposure, SETTINGS)
    model = measure_covariance(exposure, first, lambda w: np.ones(w.shape, bool), SETTINGS)
    assert model.variance_scale == first.variance_scale
    assert model.covariance.total == 1


def test_correlated_noise_makes_the_level_less_certain() -> None:
    white, smooth = _measure(_white(11)), _measure(_smooth(11, 1.0))
    assert smooth.level_variance / white.level_variance == pytest.approx(4 * np.pi, rel=0.15)
