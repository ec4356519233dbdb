"""How stamps look in numbers: analytic profiles, hidden pixels, and distances that tell like from unlike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imcat.augment.looks import SHAPES, Looks, distance_ratios, look_at

SIDE = 41


def gaussians(sigma: float, ratio: float = 1.0, n: int = 3, bands: int = 2) -> tuple[torch.Tensor, ...]:
    """Elliptical Gaussians at places between pixels, without noise."""
    rng = np.random.default_rng(4)
    x, y = (rng.uniform(19.6, 20.4, (n, 1)).repeat(bands, 1) for _ in range(2))
    v, u = np.mgrid[:SIDE, :SIDE]
    q = (u - x[..., None, None]) ** 2 + ((v - y[..., None, None]) / ratio) ** 2
    signal = 1000 * np.exp(-0.5 * q / sigma**2)
    return tuple(
        torch.from_numpy(a).float() for a in (signal, np.ones_like(signal), x, y, np.ones((n, bands)))
    )


def test_a_gaussian_has_its_radius_its_concentration_and_no_asymmetry() -> None:
    looks = look_at(*gaussians(3.0), 0, "gr")
    named = dict(zip(looks.names, looks.values.T, strict=True))
    np.testing.assert_allclose(np.exp(named["size"]), 3.0 * 1.1774, rtol=0.02)
    # Radii that hold shares p of a Gaussian's light are sigma sqrt(-2 ln(1 - p)).
    np.testing.assert_allclose(
        named["concentration"], 5 * np.log10(np.sqrt(np.log(0.2) / np.log(0.8))), rtol=0.07
    )
    assert (named["asymmetry"] < 0.03).all()
    assert (named["ellipticity"] < 0.02).all()
    np.testing.assert_allclose(named["g-r"], 0.0, atol=1e-4)


def test_a_flat_gaussian_is_elliptical_and_one_with_a_knot_asymmetric() -> None:
    signal, *rest = gaussians(4.0, 0.5)
    knotty = signal.clone()
    knotty[:, :, 24:26, 24:26] += 600
    plain, other = (look_at(s, *rest, 0, "gr").values for s in (signal, knotty))
    assert (plain[:, SHAPES.index("ellipticity")] > 0.3).all()
    assert (other[:, SHAPES.index("asymmetry")] > plain[:, SHAPES.index("asymmetry")] + 0.05).all()
    assert (other[:, SHAPES.index("smoothness")] > plain[:, SHAPES.index("smoothness")] + 0.01).all()


def test_pixels_that_are_hidden_change_little() -> None:
    signal, valid, *rest = gaussians(3.0)
    spoilt, holes = signal.clone(), valid.clone()
    spoilt[:, :, 27:33, 8:14] = 5000
    holes[:, :, 27:33, 8:14] = 0
    whole = look_at(signal, valid, *rest, 0, "gr").values
    hidden = look_at(spoilt, holes, *rest, 0, "gr").values
    np.testing.assert_allclose(hidden, whole, atol=0.05)


def test_colours_are_those_of_the_fluxes() -> None:
    signal, *rest = gaussians(3.0)
    signal[:, 1] *= 2
    looks = look_at(signal, *rest, 0, "gr")
    np.testing.assert_allclose(looks.values[:, -1], 2.5 * np.log10(2), atol=0.01)


def test_samples_of_one_distribution_are_as_near_as_halves_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    real, same, other = (
        Looks(rng.normal(m, 1, (n, 1)), ("size",)) for m, n in ((0, 400), (0, 400), (1, 400))
    )
    assert distance_ratios(real, same)["size"][1] < 2.0
    apart, ratio = distance_ratios(real, other)["size"]
    assert apart == pytest.approx(1.0, abs=0.2)
    assert ratio > 5
