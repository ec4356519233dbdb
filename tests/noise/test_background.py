"""Sky level and noise of an exposure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import sep
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.flags import PixelFlag
from imcat.noise import NoiseSettings, measure_noise
from imcat.tile import ArrayPixels, Exposure
from imcat.window import Window, tile_windows

SETTINGS = NoiseSettings(mesh_size=64)
N = 512
WHOLE = Window(0, N, 0, N)
INNER = np.s_[96:-96, 96:-96]  # where the filter and the interpolation have cells on all sides


def _exposure(image: NDArray[Any], **arrays: NDArray[Any]) -> Exposure:
    pixels = {kind: ArrayPixels(array) for kind, array in arrays.items()}
    return Exposure("field.fits", ArrayPixels(image.astype(np.float32)), None, **pixels)  # type: ignore[arg-type]


def _gradient() -> NDArray[np.float64]:
    y, x = np.mgrid[:N, :N]
    return 50 + 0.02 * x - 0.01 * y


def _noise(seed: int, rms: float = 2.5) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, rms, (N, N))


def _sources(seed: int, count: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    image, (y, x) = np.zeros((N, N)), np.mgrid[-12:13, -12:13]
    for _ in range(count):
        cy, cx = rng.integers(12, N - 12, 2)
        width = rng.uniform(1.3, 3)
        height = 5 * rng.pareto(1.2) + 5
        image[cy - 12 : cy + 13, cx - 12 : cx + 13] += height * np.exp(-(x**2 + y**2) / (2 * width**2))
    return image


def test_gradient_and_noise_are_recovered() -> None:
    model = measure_noise(_exposure(_gradient() + _noise(1)), SETTINGS)
    difference = model.mesh.level_at(WHOLE) - _gradient()
    # A cell's mode has an error of 2.1 * 2.5 / 64 = 0.08; the median filter takes some of it.
    assert np.abs(difference[INNER]).max() < 3.5 * 0.08
    assert abs(difference[INNER].mean()) < 0.05
    # Towards the border the level continues flat: off by less than what the sky changes in a cell.
    assert np.abs(difference).max() < 64 * (0.02 + 0.01)
    assert model.rms == pytest.approx(2.5, rel=0.02)  # the gradient itself adds 1 % in a cell
    assert np.isnan(model.rms_ratio)


def test_error_of_the_level_has_the_size_it_claims() -> None:
    settings = NoiseSettings(mesh_size=32)
    levels = [measure_noise(_exposure(_noise(s)), settings).mesh.level for s in range(3)]
    claimed = measure_noise(_exposure(_noise(0)), settings).level_variance
    assert 0.3 < np.var(levels) / claimed < 1.5


def test_big_galaxy_does_not_raise_the_sky() -> None:
    y, x = np.mgrid[:N, :N]
    galaxy = 500 * np.exp(-np.hypot(y - 250, x - 270) / 14)
    model = measure_noise(_exposure(20 + galaxy + _noise(2)), SETTINGS)
    # Without rejection of its cells the level under the galaxy would be higher by dozens.
    assert np.abs(model.mesh.level_at(WHOLE) - 20).max() < 1.0
    assert model.rms == pytest.approx(2.5, rel=0.03)


def test_masked_garbage_is_not_seen() -> None:
    image = 20 + _noise(3)
    mask = np.zeros((N, N), np.uint16)
    mask[100:300, 60:420] = PixelFlag.BAD
    mask[400, :] = PixelFlag.HOT
    image[mask != 0] = 1e7
    image[:20, :20] = np.nan
    model = measure_noise(_exposure(image, mask=mask), SETTINGS)
    assert np.abs(model.mesh.level_at(WHOLE) - 20).max() < 0.3
    assert model.rms == pytest.approx(2.5, rel=0.02)
    assert np.isnan(model.mesh.raw_level[2, 3])


def test_sky_under_sources_is_as_good_as_that_of_sep() -> None:
    image = (_gradient() + _noise(4) + _sources(5, 500)).astype(np.float32)
    model = measure_noise(_exposure(image), SETTINGS)
    other = sep.Background(image, bw=64, bh=64, fw=3, fh=3)
    ours = (model.mesh.level_at(WHOLE) - _gradient())[INNER]
    theirs = (other.back() - _gradient())[INNER]
    assert np.sqrt(np.mean(ours**2)) < 1.1 * np.sqrt(np.mean(theirs**2))
    assert np.abs(ours - theirs).max() < 0.3  # an eighth of the noise of a pixel, in the worst cell
    assert model.rms == pytest.approx(other.globalrms, rel=0.05)


@pytest.mark.parametrize(("level", "rms", "step"), [(900.0, 1.0, 0.5), (900.0, 3.0, 0.5), (0.0, 1.0, 0.0)])
def test_noise_that_was_rounded_to_ten_bits(level: float, rms: float, step: float) -> None:
    image = np.random.default_rng(6).normal(level, rms, (N, N))
    mantissa, exponent = np.frexp(image)
    rounded = np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)  # leading bit and ten more
    if step:
        assert np.unique(np.diff(np.unique(rounded))).min() == step
    model = measure_noise(_exposure(rounded), SETTINGS)
    assert model.mesh.level.mean() == pytest.approx(level, abs=0.03 * rms)
    assert np.abs(model.mesh.level - level).max() < 0.25 * rms
    assert model.rms == pytest.approx(np.hypot(rms, step / np.sqrt(12)), rel=0.02)


def test_windows_together_equal_the_whole() -> None:
    image, mask = _gradient() + _noise(7), np.zeros((N, N), np.uint16)
    mask[40:60, 40:200] = PixelFlag.COSMIC_RAY
    exposure = _exposure(image, mask=mask)
    model = measure_noise(exposure, SETTINGS)
    whole = model.read(exposure, WHOLE)
    for window in tile_windows((N, N), 200):
        part = model.read(exposure, window)
        for name in ("data", "variance", "mask", "bad"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[window.slices])


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(threads: int) -> None:
    exposure = _exposure(_gradient() + _noise(8) + _sources(8, 100), variance=np.full((N, N), 6.0))
    alone = measure_noise(exposure, SETTINGS)
    with ThreadPoolExecutor(threads) as pool:
        shared = measure_noise(exposure, SETTINGS, pool)
    np.testing.assert_array_equal(alone.mesh.level, shared.mesh.level)
    np.testing.assert_array_equal(alone.mesh.rms, shared.mesh.rms)
    assert alone.rms_ratio == shared.rms_ratio


def test_pixels_are_read_without_sky_and_with_their_variance() -> None:
    image = (30 + _noise(9)).astype(np.float32)
    image[5, 7] = np.nan
    before = image.copy()
    exposure = _exposure(image)
    cutout = measure_noise(exposure, SETTINGS).read(exposure, WHOLE)
    assert cutout.data.mean() == pytest.approx(0, abs=0.05)
    np.testing.assert_allclose(cutout.variance[~cutout.bad].mean(), 2.5**2, rtol=0.03)
    assert cutout.bad.sum() == 1
    assert (cutout.data[5, 7], cutout.variance[5, 7]) == (0, 0)
    assert cutout.mask[5, 7] == PixelFlag.NO_DATA
    np.testing.assert_array_equal(image, before)


def test_given_variance_is_compared_with_the_noise() -> None:
    variance = np.full((N, N), 2.5**2 / 4)
    variance[:8, :8] = 0  # pixels without variance do not count
    exposure = _exposure(_noise(10), variance=variance)
    model = measure_noise(exposure, SETTINGS)
    assert model.rms_ratio == pytest.approx(2.0, rel=0.01)
    read = model.read(exposure, WHOLE).variance
    np.testing.assert_allclose(read[100, 100], 2.5**2, rtol=0.02)
    assert read[3, 3] == 0


def test_level_may_be_left_alone() -> None:
    image = 30 + _noise(11)
    exposure = _exposure(image)
    model = measure_noise(exposure, NoiseSettings(mesh_size=64, subtract_background=False))
    np.testing.assert_array_equal(model.read(exposure, WHOLE).data, image.astype(np.float32))
    assert model.rms == pytest.approx(2.5, rel=0.01)


def test_an_image_smaller_than_a_cell_has_a_level() -> None:
    image = np.random.default_rng(12).normal(8, 1, (40, 30))
    model = measure_noise(_exposure(image), NoiseSettings())
    assert model.mesh.level.shape == (1, 1)
    assert model.mesh.level[0, 0] == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e7])
def test_a_constant_image_is_refused(value: float) -> None:
    with pytest.raises(
        InputError, match=r"^field\.fits: the image is constant \(.*\); expected an image with noise"
    ):
        measure_noise(_exposure(np.full((100, 130), value)), SETTINGS)


@pytest.mark.parametrize("given", [False, True])
def test_an_image_without_data_is_refused(given: bool) -> None:
    arrays = {"variance": np.ones((100, 130))} if given else {}
    with pytest.raises(InputError, match=r"^field\.fits: no pixel is usable.*expected an image with data"):
        measure_noise(_exposure(np.full((100, 130), np.nan), **arrays), SETTINGS)


def test_an_image_whose_pixels_are_all_masked_is_refused() -> None:
    with pytest.raises(InputError, match="no pixel is usable"):
        measure_noise(_exposure(_noise(13), mask=np.full((N, N), PixelFlag.BAD, np.uint16)), SETTINGS)
