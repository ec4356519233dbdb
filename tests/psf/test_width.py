"""Width of the PSF from the stars of an image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from imcat.psf import FWHM_PER_SIGMA, half_sample_mode, star_widths

Float64 = NDArray[np.float64]


def _edges(n: int, centre: float, sigma: float) -> Float64:
    steps = (np.arange(n + 1) - 0.5 - centre) / (np.sqrt(2) * sigma)
    return 0.5 * np.diff(erf(steps))


def _add(image: Float64, x: float, y: float, flux: float, sigma: float) -> None:
    """Add a round Gaussian, integrated over each pixel."""
    rows, columns = image.shape
    image += flux * np.outer(_edges(rows, y, sigma), _edges(columns, x, sigma))


def _widths(image: Float64, **keywords: object) -> Float64:
    nothing = np.zeros(image.shape, bool)
    arguments: dict[str, object] = {"rms": 1.0, "saturated": nothing, "bad": nothing, **keywords}
    return star_widths(image.astype(np.float32), **arguments)  # type: ignore[arg-type]


def _field(sigma: float, seed: int, side: int = 5, flux: float = 1e5) -> Float64:
    """Stars on a wide raster, each somewhere within its pixel."""
    rng = np.random.default_rng(seed)
    image = np.zeros((40 * side, 40 * side))
    for k in range(side * side):
        x, y = (np.array(divmod(k, side)) + 0.5) * 40 + rng.uniform(-0.5, 0.5, 2)
        _add(image, x, y, flux, sigma)
    return image


def test_fwhm_of_a_gaussian() -> None:
    assert np.exp(-0.5 * (FWHM_PER_SIGMA / 2) ** 2) == pytest.approx(0.5)


@pytest.mark.parametrize("sigma", [0.9, 1.2, 1.8, 2.6])
def test_width_of_pixelised_gaussians(sigma: float) -> None:
    widths = _widths(_field(sigma, 1))
    assert widths.size == 25
    # A pixel is a box of variance 1/12 that the image carries in addition.
    np.testing.assert_allclose(widths, np.hypot(sigma, 12**-0.5), rtol=0.01)


def test_stars_of_a_sharp_image_have_a_width() -> None:
    # A weight that saw light at the centres of pixels would shrink to a point on every second one.
    widths = _widths(_field(0.6, 4))
    assert widths.size == 25
    assert np.median(widths) == pytest.approx(np.hypot(0.6, 12**-0.5), rel=0.02)
    assert widths.std() / widths.mean() < 0.08


def test_width_does_not_depend_on_brightness_and_survives_noise() -> None:
    image = _field(1.5, 2, flux=3000)
    noisy = image + np.random.default_rng(3).normal(0, 1, image.shape)
    widths = _widths(noisy)
    assert widths.size == 25
    assert np.median(widths) == pytest.approx(np.hypot(1.5, 12**-0.5), rel=0.015)
    assert widths.std() / widths.mean() < 0.05


def test_mode_of_the_widths_is_that_of_stars_among_galaxies() -> None:
    sigma, rng = 1.5, np.random.default_rng(4)
    image = rng.normal(0, 1, (600, 600))
    for k in range(225):
        x, y = (np.array(divmod(k, 15)) + 0.5) * 40 + rng.uniform(-0.5, 0.5, 2)
        star = k % 5 < 2  # more galaxies than stars
        width = sigma if star else rng.uniform(1.8, 4.0)
        _add(image, x, y, rng.uniform(4e3, 3e4), width)
    widths = _widths(image)
    assert widths.size > 200
    truth = np.hypot(sigma, 12**-0.5)
    assert np.median(widths) > 1.2 * truth
    assert half_sample_mode(widths) == pytest.approx(truth, rel=0.02)


def test_sources_near_saturated_or_bad_pixels_are_left_out() -> None:
    image = _field(1.5, 5, side=3)
    saturated, bad = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    saturated[20, 20] = True
    bad[60 + 8, 100 - 8] = True
    assert _widths(image).size == 9
    assert _widths(image, saturated=saturated).size == 8
    assert _widths(image, saturated=saturated, bad=bad).size == 7


def test_faint_sources_and_those_at_the_edge_are_left_out() -> None:
    image = np.zeros((80, 120))
    _add(image, 40.0, 40.0, 2000.0, 1.5)  # peak 136
    _add(image, 80.0, 40.0, 200.0, 1.5)  # peak 13.6
    _add(image, 115.0, 40.0, 2000.0, 1.5)
    assert _widths(image).size == 1
    assert _widths(image, min_snr=10.0).size == 2
    assert _widths(image, min_snr=10.0, rms=5.0).size == 1
    assert _widths(image, min_snr=200.0).size == 0


def test_number_of_sources_may_be_limited() -> None:
    image = _field(1.5, 6)
    np.testing.assert_array_equal(_widths(image, limit=7), _widths(image)[:7])


def test_a_plateau_is_one_peak_and_a_pair_is_not_two_stars() -> None:
    image = np.zeros((60, 60))
    for x in (29, 30):  # two equal pixels
        image[30, x] = 1000
    assert _widths(image).size <= 1


def test_an_image_too_small_has_no_stars() -> None:
    image = np.zeros((20, 200))
    _add(image, 100.0, 10.0, 1e4, 1.5)
    assert _widths(image).size == 0


@pytest.mark.parametrize(
    ("values", "mode"),
    [([4.0], 4.0), ([1.0, 2.0], 1.5), ([9.0, 1.0, 1.5], 1.25), ([0.0, 3.0, 3.1, 3.3, 8.0, 20.0], 3.05)],
)
def test_half_sample_mode_of_a_few(values: list[float], mode: float) -> None:
    assert half_sample_mode(np.array(values)) == pytest.approx(mode)
    assert half_sample_mode(np.array(values[::-1])) == half_sample_mode(np.array(values))


def test_half_sample_mode_finds_the_peak_of_a_skewed_sample() -> None:
    samples = np.random.default_rng(7).gamma(2.0, 1.0, (100, 2000))  # mode 1, median 1.68, mean 2
    assert np.mean([half_sample_mode(values) for values in samples]) == pytest.approx(1.0, abs=0.15)


def test_half_sample_mode_moves_and_grows_with_its_sample() -> None:
    values = np.random.default_rng(8).normal(0, 1, 101)
    assert half_sample_mode(10 + 3 * values) == pytest.approx(10 + 3 * half_sample_mode(values), abs=1e-9)


def test_a_bright_trail_is_no_row_of_stars() -> None:
    rng = np.random.default_rng(3)
    image = _field(1.4, seed=2)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    away = (x + 0.6 * y - 120.0) / np.hypot(1, 0.6)
    image += 2000.0 * np.exp(-0.5 * (away / 2.0) ** 2) + rng.normal(0, 20, image.shape)
    widths = _widths(image, rms=20.0)
    assert half_sample_mode(widths) == pytest.approx(half_sample_mode(_widths(_field(1.4, seed=2))), rel=0.03)
    assert (widths > 1.9).mean() < 0.2
