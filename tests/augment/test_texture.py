"""Statistics of sky: white noise, noise with a known correlation, bands with light in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imcat.augment.texture import LAGS, power_spectrum, texture_of


@pytest.fixture(scope="module")
def white() -> torch.Tensor:
    return torch.randn(20, 2, 64, 64, generator=torch.Generator().manual_seed(2))


def test_white_noise_is_white(white: torch.Tensor) -> None:
    found = texture_of(white, torch.ones_like(white))
    np.testing.assert_allclose(found.rms, 1.0, atol=0.01)
    np.testing.assert_allclose(found.correlation, 0.0, atol=0.015)
    np.testing.assert_allclose(found.blocks, 1.0, atol=0.15)
    assert float(found.distance(texture_of(-white, torch.ones_like(white)))) < 1.0


def test_the_correlation_of_smoothed_noise_is_found_through_holes(white: torch.Tensor) -> None:
    smooth = (white[..., :-1] + 0.5 * white[..., 1:]) / np.sqrt(1.25)
    valid = torch.ones_like(smooth)
    valid[:, :, 20:40, 10:30] = 0
    spoilt = torch.where(valid > 0, smooth, torch.full_like(smooth, 9.0))
    found = texture_of(spoilt, valid)
    # x_i + x_{i+1} / 2 has a correlation of 0.5 / 1.25 with its neighbour along the row, and none with others.
    np.testing.assert_allclose(found.correlation[:, LAGS.index((0, 1))], 0.4, atol=0.015)
    np.testing.assert_allclose(found.correlation[:, LAGS.index((1, 0))], 0.0, atol=0.015)
    assert float(found.distance(texture_of(white, torch.ones_like(white)))) > 20


def test_light_in_both_bands_is_seen_between_them(white: torch.Tensor) -> None:
    common = white.clone()
    common[:, 1] = 0.6 * white[:, 0] + 0.8 * white[:, 1]
    assert float(texture_of(common, torch.ones_like(common)).between[0, 1]) == pytest.approx(0.6, abs=0.02)


def test_derivatives_reach_the_pixels(white: torch.Tensor) -> None:
    sky = white.clone().requires_grad_(True)
    ones = torch.ones_like(sky)
    texture_of(sky, ones).distance(texture_of(1.1 * white, ones)).backward()
    assert sky.grad is not None
    assert bool(torch.isfinite(sky.grad).all())
    assert float(sky.grad.abs().max()) > 0


def test_power_of_white_noise_is_flat_and_that_of_smoothed_noise_falls(white: torch.Tensor) -> None:
    wavelength, power = power_spectrum(white[:, 0].numpy())
    assert wavelength[0] > 20
    assert wavelength[-1] < 3
    np.testing.assert_allclose(power[np.isfinite(power)], 1.0, atol=0.25)
    smooth = (white[:, 0] + white[:, 0].roll(1, 2) + white[:, 0].roll(1, 1)).numpy()
    assert power_spectrum(smooth)[1][-1] < 0.5 * np.nanmax(power_spectrum(smooth)[1])
