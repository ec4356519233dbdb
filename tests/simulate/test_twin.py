"""What a tile is like, measured on tiles whose makings are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imcat.simulate.blank_sky import interpolated_columns, measure_blank_sky
from imcat.simulate.twin import measure_profile
from imcat.surveys import find_tiles, read_tile


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(512, 512)).astype(np.float32)


def test_white_noise(noise: np.ndarray) -> None:
    sky = measure_blank_sky(1.1 * noise, np.ones(noise.shape, bool), amplifiers=True)
    assert sky.ratio == pytest.approx(1.1, rel=0.01)
    assert sky.scale == pytest.approx(np.full(512, 1.1), rel=0.02)
    assert np.abs(sky.correlation).max() < 0.01
    assert sky.columns == ()
    assert sky.rms < 0.015
    assert sky.column_scatter == pytest.approx(1, abs=0.12)
    assert sky.kurtosis == pytest.approx(0, abs=0.05)


def test_two_amplifiers_are_told_apart(noise: np.ndarray) -> None:
    gain = np.where(np.arange(512) < 256, 1.1, 0.9).astype(np.float32)
    sky = measure_blank_sky(noise * gain, np.ones(noise.shape, bool), amplifiers=True)
    assert sky.scale == pytest.approx(gain, rel=0.02)
    one = measure_blank_sky(noise * gain, np.ones(noise.shape, bool))
    assert np.ptp(one.scale) == 0


def test_background_is_measured_without_the_noise(noise: np.ndarray) -> None:
    y, x = np.mgrid[:512, :512]
    wave = (0.2 * np.sqrt(2) * np.sin(2 * np.pi * x / 400) + 0 * y).astype(np.float32)
    sky = measure_blank_sky(noise + wave + np.float32(0.3), np.ones(noise.shape, bool))
    # The MAD of a sine is that of a normal distribution of 1.05 times its rms.
    assert sky.rms == pytest.approx(0.2, rel=0.3)
    assert 50 < sky.length < 200
    assert sky.mean == pytest.approx(0.3, abs=0.2)
    assert sky.ratio == pytest.approx(1, rel=0.01)


def test_levels_of_rows_are_those_of_each_amplifier() -> None:
    rng = np.random.default_rng(6)
    rows, columns = 1000, 600
    own, common = rng.normal(size=(rows, 2)), rng.normal(size=(rows, 1))
    # Variances of 1 (half of it common) and 0.5 (all of it common) in units of a mean of half a row.
    level = np.stack([own[:, 0] + common[:, 0], common[:, 0]], axis=1) * np.sqrt(0.5 / (columns / 2))
    values = rng.normal(size=(rows, columns)) + np.repeat(level, columns // 2, axis=1)
    sky = measure_blank_sky(values.astype(np.float32), np.ones(values.shape, bool))
    assert sky.row_scatter == pytest.approx((np.sqrt(2), np.sqrt(1.5)), rel=0.07)
    assert sky.row_link == pytest.approx(np.sqrt(0.5), abs=0.2)
    assert sky.column_scatter == pytest.approx(1, abs=0.12)


def test_interpolated_columns_do_not_correlate_the_noise(noise: np.ndarray) -> None:
    values = noise.copy()
    for c in range(20, 500, 25):
        near, far = values[:, c - 1] + values[:, c + 1], values[:, c - 2] + values[:, c + 2]
        values[:, c] = 0.7737 * near - 0.2737 * far
    assert measure_blank_sky(values, np.ones(values.shape, bool)).correlation[0] == pytest.approx(0, abs=0.01)


def test_interpolated_columns_are_found(noise: np.ndarray) -> None:
    values = noise.copy()
    for c in (100, 300):
        near, far = values[:, c - 1] + values[:, c + 1], values[:, c - 2] + values[:, c + 2]
        values[:, c] = 0.7737 * near - 0.2737 * far
    assert interpolated_columns(values, np.ones(values.shape, bool)) == (100, 300)
    assert interpolated_columns(noise, np.ones(noise.shape, bool)) == ()


def test_resampled_noise_is_recognised(noise: np.ndarray) -> None:
    smooth = (noise + np.roll(noise, 1, axis=1)) / np.sqrt(2).astype(np.float32)
    sky = measure_blank_sky(smooth, np.ones(noise.shape, bool))
    assert sky.correlation[0] == pytest.approx(0.5, abs=0.02)
    assert sky.ratio == pytest.approx(1, rel=0.02)


def test_a_generic_tile_needs_no_tables(tmp_path: Path, write_tile: Callable[..., Path]) -> None:
    path = write_tile(tmp_path, "field", size=256, stars=30, gain=2.0)
    tile = read_tile(find_tiles([path])[0])
    profile = measure_profile(tile, ebv=0.05)
    assert profile.name == "field"
    assert profile.bands == ("g", "r")
    assert (profile.ebv, profile.ebv_source) == (0.05, "given")
    assert profile.area == pytest.approx((256 * 0.4 / 3600) ** 2, rel=0.01)
    for exposure in profile.exposures:
        assert exposure.shape == (256, 256)
        # Noise of 1 unit, which is 3631 nJy; Gaussian stars of sigma 1.5 pixels.
        assert exposure.rms == pytest.approx(3631, rel=0.08)
        assert exposure.psf.mixture.fwhm == pytest.approx(3.53, rel=0.05)
        best = 22.5 - 2.5 * np.log10(5 * np.sqrt(4 * np.pi) * 1.5)
        assert exposure.depth == pytest.approx(best, abs=0.15)
        electrons = exposure.sky_electrons.values.mean() + exposure.read_variance
        assert np.sqrt(electrons) / exposure.electrons_per_njy[0] == pytest.approx(3631, rel=0.08)
    assert profile.stars + profile.galaxies <= profile.sources


@pytest.mark.realdata
def test_a_real_field(data_dir: Path) -> None:
    tile = read_tile(find_tiles([data_dir / "sdss" / "fields" / "007264-3-0111"], bands=("r",))[0])
    profile = measure_profile(tile)
    (r,) = profile.exposures
    assert profile.latitude == pytest.approx(-58, abs=3)
    assert 0.01 < profile.ebv < 0.1
    assert r.gain == 4.72
    assert r.dark_variance == 1.3225
    assert r.psf.method == "stars"
    assert r.psf.mixture.fwhm == pytest.approx(3.5, abs=0.25)
    assert r.psf.mixture.encircled_energy(np.array([18.76]))[0] > 0.93
    assert 0.8 < r.psf.chi2 < 1.3
    assert r.depth == pytest.approx(22.7, abs=0.4)
    assert r.blank.ratio == pytest.approx(1.02, abs=0.03)
    assert 3 <= len(r.blank.columns) <= 20
    assert 500 < profile.star_density < 4000
    assert 300 < profile.galaxy_density < 3000
