"""Stamps that a user brings: resampled by area, sky and noise from the frame, clear words for wrong shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imcat.errors import InputError, UsageError
from imcat.stamps.given import given_stamps, read_arrays, read_images


def noisy(n: int, bands: int, side: int, sigma: float = 2.0, sky: float = 100.0) -> np.ndarray:
    return np.random.default_rng(1).normal(sky, sigma, (n, bands, side, side))


def test_sky_and_noise_come_from_the_frame() -> None:
    images = noisy(6, 2, 40)
    images[:, :, 15:25, 15:25] += 1e4  # a source is not sky
    stamps = given_stamps(images, (5000.0, 6000.0), 0.4, 40)
    assert stamps.noise == pytest.approx(np.full((6, 2), 2.0), rel=0.25)
    assert stamps.signal[:, :, 15:25, 15:25].mean() == pytest.approx(1e4 / 2.0, rel=0.1)
    assert np.abs(stamps.signal[:, :, :4].mean()) < 0.1
    assert stamps.pixel == pytest.approx(0.4)


def test_light_is_averaged_over_larger_pixels() -> None:
    images = noisy(1, 1, 80, sigma=1e-6, sky=0.0)
    images[0, 0, 40:42, 30:32] = 8.0  # one pixel of the stamp, whole
    stamps = given_stamps(images, (6000.0,), 0.2, 40)
    flux = stamps.signal[0, 0] * stamps.noise[0, 0]
    assert flux[20, 15] == pytest.approx(8.0, rel=1e-3)
    assert flux.sum() == pytest.approx(8.0, rel=1e-2)
    assert stamps.pixel == pytest.approx(0.4)


def test_a_size_that_does_not_divide_keeps_the_mean() -> None:
    images = np.broadcast_to(np.arange(64.0), (1, 1, 64, 64)).copy()
    stamps = given_stamps(images, (6000.0,), 0.2, 40)
    flux = stamps.signal[0, 0] * stamps.noise[0, 0]
    assert np.abs(np.diff(flux, axis=1) - 1.6).max() < 0.3  # of whole pixels and parts of them
    assert float((flux[0, -1] - flux[0, 0]) / 39) == pytest.approx(1.6, rel=0.02)


def test_the_middle_keeps_its_pixels_and_the_sky_of_the_whole() -> None:
    images = noisy(4, 1, 64)
    images[:, :, 10:54, 10:54] += 50.0  # a galaxy that fills the middle: the frame tells the sky
    images[:, :, 32, 30] += 1e4
    stamps = given_stamps(images, (6000.0,), 0.7, 40, middle=40)
    assert stamps.signal.shape == (4, 1, 40, 40)
    assert stamps.pixel == pytest.approx(0.7)
    assert stamps.noise == pytest.approx(np.full((4, 1), 2.0), rel=0.25)
    whole = (images - 100.0)[:, :, 12:52, 12:52]
    np.testing.assert_allclose(stamps.signal * stamps.noise[..., None, None], whole, atol=1.0)
    coarse = given_stamps(images, (6000.0,), 0.7, 20, middle=40)
    assert coarse.pixel == pytest.approx(1.4)
    with pytest.raises(UsageError, match="middle 65"):
        given_stamps(images, (6000.0,), 0.7, 40, middle=65)


def test_missing_pixels_are_masked_and_constant_images_have_a_noise() -> None:
    images = noisy(2, 1, 40)
    images[0, 0, 10:20, 10:20] = np.nan
    images[1] = 0.0
    images[1, 0, 20, 20] = 100.0
    stamps = given_stamps(images, (6000.0,), 0.4, 40)
    assert not stamps.valid[0, 0, 10:20, 10:20].any()
    assert stamps.valid[0].sum() == 1600 - 100
    assert stamps.noise[1, 0] == pytest.approx(0.5)  # of the range
    assert np.isfinite(stamps.signal).all()


def test_an_image_without_data_or_contrast_is_nothing() -> None:
    images = np.stack([np.full((1, 40, 40), np.nan), np.full((1, 40, 40), 7.0)])
    stamps = given_stamps(images, (6000.0,), 0.4, 40)
    assert not stamps.valid.any()
    assert np.isnan(stamps.noise).all()
    assert (stamps.signal == 0).all()


def test_shapes_are_checked() -> None:
    with pytest.raises(UsageError, match="2 wavelengths"):
        given_stamps(np.zeros((1, 3, 8, 8)), (1.0, 2.0), 0.4, 8)
    with pytest.raises(UsageError, match="square"):
        given_stamps(np.zeros((1, 1, 8, 9)), (1.0,), 0.4, 8)


@pytest.mark.parametrize(("shape", "bands"), [((5, 8, 8), 1), ((5, 3, 8, 8), 3), ((5, 8, 8, 3), 3)])
def test_images_in_any_order_of_axes(tmp_path: Path, shape: tuple[int, ...], bands: int) -> None:
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    np.savez(tmp_path / "s.npz", images=values)
    images = read_images(tmp_path / "s.npz", "images", bands)
    assert images.shape == (5, bands, 8, 8)
    wanted = np.moveaxis(values, 3, 1) if shape[-1] == bands and bands > 1 else values.reshape(images.shape)
    assert np.array_equal(images, wanted)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="the stamps cannot be read"):
        read_arrays(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="the stamps cannot be read"):
        read_arrays(tmp_path / "absent.npz")
    np.savez(tmp_path / "s.npz", other=np.zeros((3, 8, 9)), words=np.array(["a", "b"]))
    with pytest.raises(InputError, match=r"no array 'images'.*other, words"):
        read_images(tmp_path / "s.npz", "images", 1)
    with pytest.raises(InputError, match=r"array 'other' has shape \(3, 8, 9\)"):
        read_images(tmp_path / "s.npz", "other", 1)
