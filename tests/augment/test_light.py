"""The generator of galaxies: fluxes and sizes as asked for, any bands, any angle; derivatives reach it through the pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from imcat.augment.conditions import NUMBERS, Conditions, Ranges
from imcat.augment.light import LightGenerator, LightSettings, components_of, half_light_scale
from imcat.errors import InputError
from imcat.psf.mixture import moffat_mixture
from imcat.render.stamps import StampPsf, render_stamps
from imcat.simulate.sources import Morphology

WAVES = np.array([3560.0, 4720.0, 6170.0, 7490.0, 8950.0])
SMALL = LightSettings(latent=8, width=32, depth=2, patches=6)


def conditions(n: int, bands: int = 5, seed: int = 1) -> Conditions:
    rng = np.random.default_rng(seed)
    return Conditions(
        10 ** rng.uniform(3, 5, (n, bands)), WAVES[:bands], rng.uniform(0.3, 3, n), rng.uniform(0.15, 1, n),
        rng.uniform(0, 180, n), rng.uniform(0, 1, n), rng.uniform(0, 1, n),
        rng.choice([-1, int(Morphology.SPIRAL)], n).astype(np.int8),
    )  # fmt: skip


@pytest.fixture
def generator() -> LightGenerator:
    torch.manual_seed(3)
    made = LightGenerator(SMALL)
    with torch.no_grad():  # away from the start, where all galaxies are smooth
        made.parts.weight.mul_(20)
        made.whole.weight.mul_(30)
    return made


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_fluxes_are_those_asked_for_in_any_bands(generator: LightGenerator, bands: int) -> None:
    asked = conditions(7, bands)
    light = generator(asked, generator.draw(7))
    np.testing.assert_allclose(light.flux.sum(1).detach().numpy(), asked.flux, rtol=1e-5)
    np.testing.assert_allclose(components_of(light, asked).total(7), asked.flux, rtol=1e-12)


def test_half_of_the_light_lies_within_the_radius_asked_for(generator: LightGenerator) -> None:
    asked = conditions(5)
    made = components_of(generator(asked, generator.draw(5)), asked)
    rng = np.random.default_rng(2)
    for k in range(5):
        own = made.source == k
        share = made.flux[own, 2] / made.flux[own, 2].sum()
        pick = rng.choice(int(own.sum()), 60_000, p=share)
        covariance = np.array([[made.xx[own], made.xy[own]], [made.xy[own], made.yy[own]]]).transpose(2, 0, 1)
        root = np.linalg.cholesky(covariance + 1e-9 * np.eye(2))
        at = np.einsum("nij,nj->ni", root[pick], rng.normal(size=(60_000, 2)))
        at += np.stack([made.xi[own], made.eta[own]], axis=1)[pick]
        angle = np.deg2rad(asked.position_angle[k])
        along = at[:, 0] * np.sin(angle) + at[:, 1] * np.cos(angle)
        across = -at[:, 0] * np.cos(angle) + at[:, 1] * np.sin(angle)
        radius = np.median(np.hypot(along, across / asked.axis_ratio[k]))
        assert radius == pytest.approx(asked.radius[k], rel=0.02)


def test_the_angle_turns_the_galaxy_and_nothing_else(generator: LightGenerator) -> None:
    first = conditions(3)
    names = [name for name in Conditions.__dataclass_fields__ if name != "position_angle"]
    second = Conditions(
        position_angle=first.position_angle + 30, **{name: getattr(first, name) for name in names}
    )
    latent = generator.draw(3, torch.Generator().manual_seed(1))
    one, two = (components_of(generator(asked, latent), asked) for asked in (first, second))
    turn = np.deg2rad(30)
    east = one.xi * np.cos(turn) + one.eta * np.sin(turn)
    north = -one.xi * np.sin(turn) + one.eta * np.cos(turn)
    np.testing.assert_allclose(two.xi, east, atol=1e-5)
    np.testing.assert_allclose(two.eta, north, atol=1e-5)
    np.testing.assert_allclose(two.xx + two.yy, one.xx + one.yy, rtol=1e-4)
    np.testing.assert_allclose(two.flux, one.flux, rtol=1e-5)


def test_every_gaussian_is_one(generator: LightGenerator) -> None:
    asked = conditions(40, seed=5)
    light = generator(asked, 3 * generator.draw(40))
    assert bool((light.flux > 0).all())
    assert bool((light.xx * light.yy - light.xy**2 > 0).all())
    assert bool((half_light_scale(light, asked, 2) > 0.1).all())


def test_other_random_numbers_make_other_galaxies(generator: LightGenerator) -> None:
    asked = conditions(2)
    one, two = (generator(asked, generator.draw(2, torch.Generator().manual_seed(k))) for k in (1, 2))
    assert float((one.xi - two.xi).detach().abs().max()) > 0.05


def test_derivatives_reach_the_generator_through_psf_and_pixels(generator: LightGenerator) -> None:
    asked = conditions(4, 2)
    psf = StampPsf.stack([moffat_mixture(3.0, 3.0)] * 2)
    light = generator(asked, generator.draw(4))
    middle = torch.full((4,), 15.5)
    matrix = torch.tensor([[-2.5, 0.0], [0.0, 2.5]])
    image = render_stamps(light, middle, middle, matrix, psf, (32, 32))
    image.square().sum().backward()
    for parameter in generator.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 0
    # Most of the light is on the stamp.
    share = image.detach().sum((2, 3)).numpy() / asked.flux
    assert (share > 0.5).all()
    assert (share < 1.01).all()


class TestConditions:
    def test_the_vector_is_finite_and_does_not_know_the_angle(self) -> None:
        asked = conditions(6)
        vector = asked.vector()
        assert vector.shape == (6, NUMBERS)
        assert bool(torch.isfinite(vector).all())
        names = [name for name in Conditions.__dataclass_fields__ if name != "position_angle"]
        turned = Conditions(
            position_angle=asked.position_angle + 50, **{name: getattr(asked, name) for name in names}
        )
        assert torch.equal(turned.vector(), vector)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"radius": np.array([9.0])}, "radius 9 was asked for.*0.2 to 4"),
            ({"axis_ratio": np.array([0.01])}, "axis ratio 0.01"),
            ({"flux": np.array([[1e9]])}, "magnitude 8.9"),
            ({"wavelength": np.array([20000.0])}, "wavelength 2e.04"),
            ({"morphology": np.array([int(Morphology.MERGER)], np.int8)}, "morphology merger.*one of spiral"),
            ({"bulge_fraction": np.array([1.1])}, "bulge fraction 1.1 was asked for; expected 0 to 1"),
            ({"redshift": np.array([50.0])}, "redshift 50 was asked for; expected 0.1 to 2.5"),
        ],
    )
    def test_what_lies_outside_of_the_training_is_refused(
        self, changes: dict[str, np.ndarray], message: str
    ) -> None:
        ranges = Ranges((15.0, 20.0), (0.2, 4.0), (0.1, 1.0), (3000.0, 11000.0), ("spiral",), (0.1, 2.5))
        fine: dict[str, np.ndarray] = {
            "flux": np.array([[3631e9 * 10 ** (-0.4 * 18)]]), "wavelength": np.array([6200.0]), "radius": np.array([1.0]),
            "axis_ratio": np.array([0.5]), "position_angle": np.array([10.0]), "bulge_fraction": np.array([0.5]),
            "redshift": np.array([np.nan]), "morphology": np.array([-1], np.int8),
        }  # fmt: skip
        ranges.check(Conditions(**fine))
        assert ranges.inside(Conditions(**fine)).all()
        asked = Conditions(**(fine | changes))
        with pytest.raises(InputError, match=message):
            ranges.check(asked)
        assert not ranges.inside(asked).any()
        known = Conditions(**(fine | {"redshift": np.array([0.3])}))
        ranges.check(known)
        with pytest.raises(
            InputError, match=r"redshift 0\.3 was asked for; expected NaN: the generator was trained without"
        ):
            replace(ranges, redshift=()).check(known)
