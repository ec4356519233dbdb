"""Sérsic profiles as mixtures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from imcat.render.profiles import (
    DE_VAUCOULEURS,
    EXPONENTIAL,
    Mixture,
    half_light_ratio,
    sersic_mixture,
    sersic_mixtures,
    truncation_radius,
)


def _inside(profile: Mixture, radius: float) -> float:
    return float(profile.weights @ (1 - np.exp(-0.5 * radius**2 / profile.variances)))


@pytest.mark.parametrize("index", [0.5, 0.7, 1.0, 1.7, 2.5, 4.0, 6.0, 8.0])
def test_half_of_the_light_is_within_the_half_light_radius(index: float) -> None:
    profile = sersic_mixture(index)
    assert profile.weights.sum() == pytest.approx(1)
    assert (profile.weights > 0).all()
    assert brentq(lambda r: _inside(profile, r) - 0.5, 0.1, 5) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("index", "most"), [(0.5, 2), (EXPONENTIAL, 6), (DE_VAUCOULEURS, 8), (8.0, 8)])
def test_few_gaussians_are_enough(index: float, most: int) -> None:
    assert len(sersic_mixture(index).weights) <= most


def test_brightness_of_an_exponential() -> None:
    profile = sersic_mixture(EXPONENTIAL, truncation=12.0)
    r = np.linspace(0.05, 3.5, 40)
    found = np.exp(-0.5 * r[:, None] ** 2 / profile.variances) @ (
        profile.weights / (2 * np.pi * profile.variances)
    )
    b = 1.678346990  # half-light radius over scale length (Graham & Driver 2005, PASA 22, 118)
    exact = b**2 / (2 * np.pi) * np.exp(-b * r)
    np.testing.assert_allclose(found, exact, atol=0.01 * exact[0])


def test_a_gaussian_is_one_gaussian() -> None:
    profile = sersic_mixture(0.5, truncation=20.0)
    main = profile.weights.argmax()
    assert profile.weights[main] > 0.99
    assert profile.variances[main] == pytest.approx(1 / (2 * np.log(2)), rel=0.01)


def test_truncation_is_that_of_sdss() -> None:
    assert truncation_radius(EXPONENTIAL) == pytest.approx(4)
    assert truncation_radius(DE_VAUCOULEURS) == pytest.approx(8)
    # Photons beyond the end of a profile: none, so nearly none of the mixture either.
    for index in (EXPONENTIAL, DE_VAUCOULEURS):
        end = truncation_radius(index) / half_light_ratio(index)
        assert 1 - _inside(sersic_mixture(index), end) < 0.007


def test_truncation_moves_the_half_light_radius() -> None:
    assert half_light_ratio(EXPONENTIAL, 20.0) == pytest.approx(1, abs=1e-3)
    # De Vaucouleurs loses 7 % of the light, exponentials less than 2.
    assert half_light_ratio(DE_VAUCOULEURS) == pytest.approx(0.89, abs=0.01)
    assert half_light_ratio(EXPONENTIAL) == pytest.approx(0.98, abs=0.01)
    longer = sersic_mixture(DE_VAUCOULEURS, truncation=30.0)
    assert longer.variances.max() > 2 * sersic_mixture(DE_VAUCOULEURS).variances.max()


def test_smooth_in_the_index() -> None:
    n = np.linspace(0.6, 6, 400)
    profiles = sersic_mixtures(n)
    assert profiles.weights.shape == profiles.variances.shape == (400, 8)
    r = np.array([0.05, 0.3, 1.0, 3.0])[:, None, None]
    inside = (profiles.weights * (1 - np.exp(-0.5 * r**2 / profiles.variances))).sum(-1)
    # Second differences are small everywhere: no jumps, no kinks.
    assert np.abs(np.diff(inside, 2, axis=1)).max() < 4e-4


def test_many_are_the_same_as_one() -> None:
    many = sersic_mixtures([1.0, 2.3])
    one = sersic_mixture(2.3)
    keep = many.weights[1] > 1e-5
    np.testing.assert_allclose(many.weights[1][keep] / many.weights[1][keep].sum(), one.weights)
    assert sersic_mixture(2.3) is one


def test_impossible_profiles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Sérsic index of 0\.2; expected 0\.5 to 8"):
        sersic_mixture(0.2)
    with pytest.raises(ValueError, match="Sérsic index of nan"):
        sersic_mixtures([1.0, np.nan])
    with pytest.raises(ValueError, match="expected 1"):
        Mixture(np.array([0.5]), np.array([1.0]))
