"""Stamps with all that is known of how they were taken: drawn as the other renderer draws, batched, kept in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from imcat.augment.conditions import Conditions
from imcat.augment.encode import LightEncoder, gaussian_divergence, pixel_misfit
from imcat.augment.light import LightGenerator, LightSettings, components_of
from imcat.augment.observed import ObservedStamps, join_psfs, observe
from imcat.psf.mixture import moffat_mixture
from imcat.render.draw import draw_stamps
from imcat.render.stamps import StampPsf, stamp_gaussians

SIDE, BANDS = 24, 2


def stamps(n: int = 5, width: float = 3.5, seed: int = 1) -> ObservedStamps:
    rng = np.random.default_rng(seed)
    asked = Conditions(
        10 ** rng.uniform(4, 5, (n, BANDS)), np.array([4700.0, 6200.0]), rng.uniform(0.5, 1, n), rng.uniform(0.3, 1, n),
        rng.uniform(0, 180, n), rng.uniform(0, 1, n), np.full(n, np.nan), np.full(n, -1, np.int8),
    )  # fmt: skip
    psf = StampPsf.stack([moffat_mixture(width, 3.5)] * BANDS)
    matrix = np.broadcast_to(np.array([[-2.5, 0], [0, 2.5]], np.float32), (n, BANDS, 2, 2)).copy()
    place = rng.uniform(11, 13, (2, n, BANDS)).astype(np.float32)
    return ObservedStamps(
        rng.normal(0, 1, (n, BANDS, SIDE, SIDE)).astype(np.float16), rng.random((n, BANDS, SIDE, SIDE)) > 0.1,
        np.full((n, BANDS), 50, np.float32), np.full((n, BANDS), 1e5, np.float32), place[0], place[1], matrix,
        **join_psfs(psf, n), blank=np.zeros((3, BANDS, SIDE, SIDE), np.float16), asked=asked, field=np.zeros(n, np.int16),
    )  # fmt: skip


def test_light_is_observed_as_the_other_renderer_draws_it() -> None:
    own = stamps()
    generator = LightGenerator(LightSettings(latent=4, width=16, depth=2, patches=3))
    made = components_of(generator(own.asked, generator.draw(5)), own.asked)
    seen = own.batch(np.arange(5), np.random.default_rng(1))
    stamp = observe(stamp_gaussians(made, 5), seen, torch.Generator().manual_seed(1)).numpy()
    images = np.zeros((5, BANDS, SIDE, SIDE), np.float32)
    psf = moffat_mixture(3.5, 3.5)
    draw_stamps(
        images, np.arange(5), made, own.x.T.astype(float), own.y.T.astype(float), [own.jacobian[0, 0]] * BANDS, [psf] * BANDS
    )  # fmt: skip
    light = images / 50
    # With the photon noise of 1e5 electrons for one nJy there is next to no noise.
    assert np.abs(stamp - light).max() < 0.01 * light.max()


def test_photon_noise_is_that_of_the_gain() -> None:
    own = stamps(1)
    own = ObservedStamps(**(vars(own) | {"gain": np.full((1, BANDS), 0.01, np.float32)}))
    generator = LightGenerator(LightSettings(latent=4, width=16, depth=2, patches=3))
    light = stamp_gaussians(components_of(generator(own.asked, generator.draw(1)), own.asked), 1)
    seen = own.batch(np.zeros(1, int), np.random.default_rng(1))
    chance = torch.Generator().manual_seed(1)
    many = torch.stack([observe(light, seen, chance) for _ in range(400)]) * 50
    mean, variance = many.mean(0), many.var(0)
    bright = mean > 0.3 * mean.max()
    assert float((variance / (mean / 0.01))[bright].mean()) == pytest.approx(1.0, abs=0.03)


def test_files_and_lists_keep_everything(tmp_path: Path) -> None:
    one, two = stamps(4), stamps(3, seed=2)
    one.write(tmp_path / "own.npz")
    back = ObservedStamps.read(tmp_path / "own.npz")
    np.testing.assert_array_equal(back.signal, one.signal)
    np.testing.assert_array_equal(back.asked.flux, one.asked.flux)
    both = ObservedStamps.concatenate([one, two])
    assert len(both) == 7
    np.testing.assert_array_equal(both.take(np.array([5])).covariances[0], two.covariances[1])
    np.testing.assert_array_equal(both.asked.radius[4:], two.asked.radius)


def test_psfs_with_fewer_gaussians_are_padded_without_weight() -> None:
    few, many = stamps(2), stamps(2, width=2.0)
    more = np.concatenate([many.weights, many.weights[..., :1]], 2), np.concatenate([many.covariances, many.covariances[:, :, :1]], 2)  # fmt: skip
    wider = ObservedStamps(
        **(
            vars(many)
            | {"weights": more[0], "covariances": more[1]}
            | {n: np.concatenate([getattr(many, n), getattr(many, n)[:, :, :1]], 2) for n in ("centres", "parts", "resolved")}
        )
    )  # fmt: skip
    both = ObservedStamps.concatenate([few, wider])
    np.testing.assert_allclose(both.weights[0].sum(-1), few.weights[0].sum(-1))
    assert both.weights.shape[2] == wider.weights.shape[2]


def test_the_encoder_gives_a_distribution_and_its_divergence() -> None:
    seen = stamps(4).batch(np.arange(4), np.random.default_rng(1))
    mean, spread = LightEncoder(BANDS, 6, 8, 2)(seen.signal, seen.valid, seen.vector)
    assert mean.shape == spread.shape == (4, 6)
    assert bool((gaussian_divergence(mean, spread) > 0).all())
    assert float(gaussian_divergence(torch.zeros(1, 6), torch.zeros(1, 6))) == pytest.approx(0.0)


def test_the_misfit_of_noise_is_half_a_pixel() -> None:
    noise = torch.randn(3, 2, 50, 50, generator=torch.Generator().manual_seed(1))
    misfit = pixel_misfit(torch.zeros_like(noise), noise, torch.ones_like(noise), torch.ones(3, 2))
    np.testing.assert_allclose(misfit / (2 * 50 * 50), 0.5, rtol=0.05)
