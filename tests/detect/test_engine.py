"""The parts of the threshold engine against analytic truths and other packages."""

from __future__ import annotations

import numpy as np
import pytest
import sep
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve, label

from imcat.detect import DetectSettings, Footprints, band_weights, score
from imcat.detect.clean import explained_by_halo
from imcat.detect.combine import gaussian_kernel, matched_filter
from imcat.detect.segment import segment
from imcat.errors import ConfigError
from imcat.window import Window


def _gaussian(shape: tuple[int, int], x: float, y: float, peak: float, sigma: float) -> np.ndarray:
    v, u = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(peak * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2)), dtype=np.float32)


@pytest.mark.parametrize("even", [False, True])
def test_filtered_white_noise_has_unit_rms(even: bool) -> None:
    rng = np.random.default_rng(1)
    variance = np.full((400, 420), 9.0, np.float32)
    data = rng.normal(0, 3, variance.shape).astype(np.float32)
    out = np.empty((360, 380), np.float32)
    kernel = gaussian_kernel(1.3)
    matched_filter(data / variance, 1 / variance, kernel, np.float32(1), even, 20, 20, out)
    assert out.std() == pytest.approx(1.0, abs=0.02)
    dense = convolve(data / variance, np.outer(kernel, kernel), mode="constant")
    noise = np.sqrt(convolve(1 / variance, np.outer(kernel, kernel) ** 2, mode="constant"))
    np.testing.assert_allclose(out, (dense / noise)[20:380, 20:400], rtol=2e-4, atol=2e-5)


def test_matched_filter_reaches_the_best_ratio_for_its_source() -> None:
    flux, sigma = 500.0, 1.5
    data = _gaussian((61, 61), 30, 30, flux / (2 * np.pi * sigma**2), sigma)
    variance = np.full(data.shape, 16.0, np.float32)
    out = np.empty(data.shape, np.float32)
    matched_filter(data / variance, 1 / variance, gaussian_kernel(sigma), np.float32(1), False, 0, 0, out)
    # Of a Gaussian in white noise: flux over noise times sqrt(4 pi) sigma.
    assert out.max() == pytest.approx(flux / (4 * np.sqrt(4 * np.pi) * sigma), rel=0.01)
    assert np.unravel_index(out.argmax(), out.shape) == (30, 30)


def test_pixels_without_data_say_nothing() -> None:
    data = np.ones((40, 40), np.float32)
    weight = np.ones((40, 40), np.float32)
    data[10:15, 10:15] = weight[10:15, 10:15] = 0
    out = np.empty((40, 40), np.float32)
    matched_filter(data, weight, gaussian_kernel(1.0), np.float32(1), False, 0, 0, out)
    assert (out[10:15, 10:15] == 0).all()
    assert (out[20:30, 20:30] > 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
def test_components_are_those_of_scipy(seed: int, filling: float) -> None:
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((23, 31)) < filling, rng.uniform(5, 9, (23, 31)), 0).astype(np.float32)
    found, n = segment(image, DetectSettings(deblend_contrast=1.0))
    expected, count = label(image > 4.0, np.ones((3, 3)))
    assert n == count
    # The same partition, whatever the numbers.
    pairs = {(a, b) for a, b in zip(found.ravel(), expected.ravel(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_two_peaks_come_apart_as_in_sep() -> None:
    image = _gaussian((50, 60), 25, 25, 60, 2.5) + _gaussian((50, 60), 33, 27, 40, 2.5)
    image += _gaussian((50, 60), 10, 40, 20, 2.0)
    settings_ = DetectSettings()
    found, n = segment(image, settings_)
    objects, expected = sep.extract(
        image, settings_.threshold, minarea=1, filter_kernel=None, clean=False, segmentation_map=True,
        deblend_nthresh=settings_.deblend_levels, deblend_cont=settings_.deblend_contrast,
    )  # fmt: skip
    assert n == len(objects) == 3
    pairs = {(a, b) for a, b in zip(found.ravel(), expected.ravel(), strict=True)}
    assert len(pairs) == 4


def test_footprints_of_a_window_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, (30, 40)).astype(np.int32)
    at = np.nonzero(labels.ravel())[0]
    order = rng.permutation(at.size)
    prints = Footprints.build(labels.shape, at[order], labels.ravel()[at][order])
    np.testing.assert_array_equal(prints.at(Window(7, 22, 3, 39)), labels[7:22, 3:39])
    kept = prints.renumber(np.array([-1, 1, 0]))  # the first goes, the others change places
    expected = np.array([0, 0, 2, 1])[labels]
    np.testing.assert_array_equal(kept.at(Window.whole(labels.shape)), expected)


def test_a_halo_explains_what_does_not_stand_above_it() -> None:
    x, y = np.array([100.0, 112.0, 112.0, 300.0]), np.array([100.0, 100.0, 90.0, 100.0])
    snr, area = np.array([900.0, 4.5, 60.0, 4.5]), np.array([314, 9, 40, 9])
    one = np.ones(4)
    gone = explained_by_halo(x, y, 16 * one, 16 * one, 0 * one, snr, area, 4.0, 3.0)
    assert gone.tolist() == [False, True, False, False]


def test_score_follows_its_table() -> None:
    settings_ = DetectSettings(score_snr=(4.0, 6.0), score_probability=(0.5, 0.9))
    np.testing.assert_allclose(score(np.array([3.0, 5.0, 9.0]), settings_), [0.5, 0.7, 0.9])


def test_weights_follow_the_slope_and_what_replaces_it() -> None:
    weights = band_weights({"g": 4000.0, "i": 9000.0}, DetectSettings(sed_slope=2.0))
    assert weights["i"] / weights["g"] == pytest.approx((9 / 4) ** 2)
    given_ = band_weights({"g": 4000.0, "i": 9000.0}, DetectSettings(sed_weights={"g": 0.0}))
    assert given_["g"] == 0
    with pytest.raises(ConfigError, match="names the band 'k'"):
        band_weights({"g": 4000.0}, DetectSettings(sed_weights={"k": 1.0}))
    with pytest.raises(ConfigError, match="leaves no band"):
        band_weights({"g": 4000.0}, DetectSettings(sed_weights={"g": 0.0}))
