"""Fluxes in fibres."""

from __future__ import annotations

from collections.abc import Callable

import galsim
import numpy as np
import pytest
import sep

from imcat.measure.fibre import fibre_fluxes
from imcat.measure.pixels import MIRROR
from imcat.measure.views import View
from imcat.noise import NoiseCovariance
from imcat.psf import FWHM_PER_SIGMA

PIXEL = 0.396
MakeView = Callable[..., View]


@pytest.mark.parametrize("fwhm", [1.2, 1.6])
def test_fluxes_are_those_of_a_convolved_image(make_view: MakeView, fwhm: float) -> None:
    psf = galsim.Gaussian(fwhm=fwhm / PIXEL)
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=3, flux=1e4).shear(g1=0.3), psf)
    offset = (0.3, -0.2)
    image = galaxy.drawImage(nx=81, ny=81, scale=1.0, offset=offset, dtype=float).array
    more = galsim.Gaussian(fwhm=np.sqrt(2.0**2 - fwhm**2) / PIXEL)
    wide = galsim.Convolve(galaxy, more).drawImage(nx=81, ny=81, scale=1.0, offset=offset, dtype=float).array
    at = np.array([40.3]), np.array([39.8])
    view = make_view(image, *at, psf_sigma=fwhm / FWHM_PER_SIGMA, rms=0.01)
    flux, _ = fibre_fluxes([view], ("r",), np.array([1]), MIRROR, np.zeros(1), np.zeros(1))
    for k, diameter in enumerate((3.0, 2.0)):
        expected = sep.sum_circle(wide, *at, 0.5 * diameter / PIXEL, subpix=0)[0][0]
        # sep spreads the light of a pixel evenly over it.
        assert flux[0, 0, k] == pytest.approx(expected, rel=0.03)


def test_wide_seeing_is_left_as_it_is(make_view: MakeView) -> None:
    image = galsim.Gaussian(fwhm=2.5 / PIXEL, flux=1e4).drawImage(nx=81, ny=81, scale=1.0, dtype=float).array
    at = np.array([40.0]), np.array([40.0])
    view = make_view(image, *at, psf_sigma=2.5 / FWHM_PER_SIGMA)
    flux, _ = fibre_fluxes([view], ("r",), np.array([1]), MIRROR, np.zeros(1), np.zeros(1))
    expected = sep.sum_circle(image, *at, 1.5 / PIXEL, subpix=0)[0][0]
    assert flux[0, 0, 0] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("gain", [None, 3.0])
def test_errors_are_true(make_view: MakeView, gain: float | None) -> None:
    rng = np.random.default_rng(1)
    n, side = 400, 41
    image = galsim.Moffat(3.2, fwhm=1.3 / PIXEL, flux=400).drawImage(nx=side, ny=side, scale=1.0).array
    whole = np.concatenate([image] * n, axis=1)
    whole = whole + rng.normal(size=whole.shape) * np.sqrt(1 + (0 if gain is None else whole / gain))
    view = make_view(whole, 20.0 + side * np.arange(n), np.full(n, 20.0), gain=gain)
    flux, variance = fibre_fluxes([view], ("r",), np.arange(1, n + 1), MIRROR, np.zeros(n), np.zeros(n))
    pull = (flux - flux.mean(axis=0)) / np.sqrt(variance)
    assert pull[:, 0, 0].std() == pytest.approx(1, abs=0.13)
    assert pull[:, 0, 1].std() == pytest.approx(1, abs=0.13)


def test_correlated_noise_counts(make_view: MakeView) -> None:
    at = np.array([20.0, 30.0])
    rho = np.array([[0.1, 0.3, 0.1], [0.3, 1.0, 0.3], [0.1, 0.3, 0.1]])
    image = np.zeros((60, 60))
    white, correlated = (
        fibre_fluxes(
            [make_view(image, at, at, covariance=c)],
            ("r",),
            np.array([1, 2]),
            MIRROR,
            np.zeros(2),
            np.zeros(2),
        )[1]
        for c in (NoiseCovariance.white(), NoiseCovariance(rho))
    )
    # A wide weight sees all of the covariance, 2.6 times that of independent pixels.
    assert ((correlated / white > 1.9) & (correlated / white < 2.6)).all()


def test_outside_there_is_nothing(make_view: MakeView) -> None:
    view = make_view(np.ones((20, 20)), np.array([-30.0]), np.array([5.0]))
    flux, variance = fibre_fluxes([view], ("r", "i"), np.array([1]), MIRROR, np.zeros(1), np.zeros(1))
    assert flux.shape == (1, 2, 2)
    assert np.isnan(flux).all()
    assert np.isnan(variance).all()
