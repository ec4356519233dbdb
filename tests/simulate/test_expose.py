"""Noise and detector: variances, third moments, charge, correlation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imcat.flags import PixelFlag
from imcat.psf.mixture import moffat_mixture
from imcat.simulate.artefacts import bleed, bright_star_light, interpolate_columns
from imcat.simulate.expose import expose
from imcat.simulate.observation import ExposureModel, sky_plane
from imcat.simulate.sdss_camera import tangent_wcs
from imcat.window import Window

SHAPE = (300, 400)


def model(**changes: Any) -> ExposureModel:
    base = ExposureModel(
        name="m",
        band="r",
        wcs=tangent_wcs(150.0, 2.0, 30.0, SHAPE, (0, 0), 0.4),
        shape=SHAPE,
        psf=moffat_mixture(3.0, 3.5),
        electrons_per_njy=np.full(SHAPE[1], 2.0, np.float32),
        sky=sky_plane(SHAPE, 400.0),
        read_variance=25.0,
        full_well=50_000.0,
        noise_scale=np.ones(SHAPE[1], np.float32),
    )
    return replace(base, **changes)


def sky_only(m: ExposureModel, seed: int = 1) -> np.ndarray:
    return expose(np.zeros(SHAPE, np.float32), m, np.random.SeedSequence(seed)).image


@pytest.mark.parametrize("level", [0.6, 20.0, 400.0])
def test_noise_has_variance_and_skewness_of_poisson_and_read_noise(level: float) -> None:
    electrons = sky_only(model(sky=sky_plane(SHAPE, level), read_variance=4.0)).astype(np.float64) * 2.0
    variance = level + 4.0
    assert electrons.var() == pytest.approx(variance, rel=0.02)
    assert abs(electrons.mean()) < 4 * np.sqrt(variance / electrons.size)
    third = np.mean((electrons - electrons.mean()) ** 3)
    # The third central moment of a Poisson variate is its mean; that of the read noise is 0.
    assert third == pytest.approx(level, abs=5 * np.sqrt(15 * variance**3 / electrons.size))


def test_a_source_adds_its_own_poisson_noise() -> None:
    light = np.full(SHAPE, 300.0, np.float32)  # nJy: 600 electrons
    image = expose(light, model(), np.random.SeedSequence(2)).image * 2.0
    assert image.var() == pytest.approx(400 + 25 + 600, rel=0.02)
    assert image.mean() == pytest.approx(600, rel=0.001)


def test_columns_get_their_own_noise() -> None:
    scale = np.where(np.arange(SHAPE[1]) < 200, 1.0, 1.2).astype(np.float32)
    image = sky_only(model(noise_scale=scale))
    assert image[:, 200:].std() / image[:, :200].std() == pytest.approx(1.2, rel=0.02)


def test_smoothed_noise_keeps_its_rms_and_is_correlated_as_a_gaussian_makes_it() -> None:
    sigma = 0.8
    image = sky_only(model(correlation=sigma)).astype(np.float64)
    assert image.std() * 2.0 == pytest.approx(np.sqrt(425.0), rel=0.03)
    line = np.exp(-0.5 * (np.arange(-9, 10) / sigma) ** 2)
    expected = np.sum(line[1:] * line[:-1]) / np.sum(line**2)
    measured = np.mean(image[:, 1:] * image[:, :-1]) / np.mean(image**2)
    assert measured == pytest.approx(expected, abs=0.02)


def test_residual_background_has_the_rms_that_was_asked_for() -> None:
    plain, structured = sky_only(model()), sky_only(model(residual_rms=0.5, residual_length=20.0))
    left = (structured - plain) * 2.0
    assert left.std() == pytest.approx(0.5 * np.sqrt(425.0), rel=0.25)
    smooth = np.mean(left[:, 3:] * left[:, :-3]) / np.mean(left**2)
    assert smooth > 0.9


def test_bleeding_keeps_the_charge_and_marks_full_pixels() -> None:
    image = np.zeros((200, 9), np.float32)
    image[100:103, 4] = [3000, 9000, 2000]
    mask = np.zeros(image.shape, np.uint16)
    bleed(image, mask, np.float32(1000.0), np.uint16(PixelFlag.SATURATED))
    assert image.sum() == pytest.approx(14000, rel=1e-6)
    assert image.max() == 1000
    assert (mask[:, 4] == int(PixelFlag.SATURATED)).sum() == 13  # and half a pixel at either end
    assert mask[:, [3, 5]].sum() == 0
    assert abs(np.flatnonzero(mask[:, 4]).mean() - 101) < 1.0


def test_bleeding_over_the_edge_loses_charge_and_ends() -> None:
    image = np.full((10, 1), 990.0, np.float32)
    image[5, 0] = 1e6
    mask = np.zeros(image.shape, np.uint16)
    bleed(image, mask, np.float32(1000.0), np.uint16(8))
    assert (image == 1000).all()


def test_single_bad_pixels_are_filled_exactly_on_a_parabola_free_slope() -> None:
    x = np.arange(20, dtype=np.float32)
    image = np.repeat((3 * x + 1)[None], 4, axis=0)
    damaged, filled = image.copy(), np.zeros(image.shape, bool)
    filled[0, 5] = filled[1, 9:12] = filled[2, 0] = filled[3, 19] = True
    damaged[filled] = -500
    interpolate_columns(damaged, filled)
    np.testing.assert_allclose(damaged[:2], image[:2], rtol=1e-4)
    assert damaged[2, 0] == image[2, 1]
    assert damaged[3, 19] == image[3, 18]


def test_cosmic_rays_are_marked_where_the_pipeline_finds_them() -> None:
    quiet = sky_only(model())
    hit = expose(
        np.zeros(SHAPE, np.float32), model(cosmic_rays=60.0, marks_cosmic_rays=1.0), np.random.SeedSequence(1)
    )
    marked = (hit.mask & int(PixelFlag.COSMIC_RAY)) != 0
    assert marked.sum() > 60
    assert np.median((hit.image - quiet)[marked]) > 5 * quiet.std()


def test_light_around_bright_stars_is_a_small_share_of_them() -> None:
    flux = np.array([[1e6], [10.0], [3e6]])
    light = bright_star_light(flux, 1e3, 20.0, 0.5, (3.0, -2.0))
    assert set(light.source.tolist()) == {0, 2}
    share = light.total(3)[:, 0] / flux[:, 0]
    assert share[0] == pytest.approx(share[2])
    assert 1e-3 < share[0] < 1e-2
    assert share[1] == 0


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    m = model(cosmic_rays=20.0, residual_rms=0.1, trails=2.0)
    first = sky_only(m, 5)
    assert first.tobytes() == sky_only(m, 5).tobytes()
    assert first.tobytes() != sky_only(m, 6).tobytes()


def test_pixels_are_whole_counts_before_the_sky_was_subtracted() -> None:
    sky = sky_plane(SHAPE, 400.0, (20.0, -30.0))
    m = model(sky=sky, quantum=4.0)
    electrons = sky_only(m).astype(np.float64) * 2.0
    counts = (electrons + sky.read(Window.whole(SHAPE))) / 4.0
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    assert electrons.std() == pytest.approx(np.sqrt(425.0 + 16 / 12), rel=0.01)


def test_the_sky_takes_the_light_of_sources_that_nobody_detects() -> None:
    light = np.full(SHAPE, 1.0, np.float32)  # nJy: 2 electrons, a tenth of the noise
    light[100:110, 100:110] = 500.0
    image = expose(light, model(), np.random.SeedSequence(2)).image * 2.0
    assert image[200:].mean() == pytest.approx(0, abs=4 * 20.6 / np.sqrt(image[200:].size))
    assert image[101:109, 101:109].mean() == pytest.approx(998, rel=0.02)


def test_rows_have_levels_by_half() -> None:
    image = sky_only(model(row_rms=(0.5, 0.0), row_link=0.0)).astype(np.float64) * 2.0
    half = SHAPE[1] // 2
    left, right = image[:, :half].mean(axis=1), image[:, half:].mean(axis=1)
    unit = np.sqrt(425.0)
    assert left.std() == pytest.approx(unit * np.sqrt(0.25 + 1 / half), rel=0.15)
    assert right.std() == pytest.approx(unit * np.sqrt(1 / half), rel=0.15)
