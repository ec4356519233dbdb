"""The mesh of sky level and noise, cell by cell and between cells."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from imcat.errors import ConfigError
from imcat.noise import Mesh, NoiseSettings
from imcat.noise.mesh import cell_statistics, clipped_rms_loss
from imcat.window import Window, tile_windows

SIZE = 17  # odd: the middle of a cell is the middle of a pixel
SHAPE = (5 * SIZE, 7 * SIZE)


def _mesh(nodes: NDArray[np.float64], rms: NDArray[np.float64] | None = None, size: int = SIZE) -> Mesh:
    rms = np.ones_like(nodes) if rms is None else rms
    return Mesh(size, nodes, rms, nodes, rms)


def _statistics(
    strip: NDArray[np.floating], bad: NDArray[np.bool_], size: int, clip: float = 3.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    level, rms, good = np.zeros((3, -(-strip.shape[1] // size)))
    cell_statistics(strip.astype(np.float32), bad, size, clip, level, rms, good)
    return level, rms, good


@pytest.fixture
def nodes() -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(10, 2, (5, 7))


@pytest.mark.parametrize("clip", [1.5, 2.0, 3.0, 10.0])
def test_rms_lost_by_clipping_is_that_of_a_truncated_normal(clip: float) -> None:
    assert clipped_rms_loss(clip) == pytest.approx(stats.truncnorm(-clip, clip).std(), rel=1e-9)


def test_interpolation_passes_through_the_nodes(nodes: NDArray[np.float64]) -> None:
    level = _mesh(nodes).level_at(Window.whole(SHAPE))
    np.testing.assert_allclose(level[SIZE // 2 :: SIZE, SIZE // 2 :: SIZE], nodes, rtol=1e-6)


def test_interpolation_is_continuous(nodes: NDArray[np.float64]) -> None:
    # A cell of 257 pixels: nodes differ by at most `step`, the steepest slope of the kernel is below 2 per cell.
    size = 257
    level = _mesh(nodes, size=size).level_at(Window.whole((5 * size, 7 * size)))
    step = np.ptp(nodes)
    for axis in (0, 1):
        assert np.abs(np.diff(level, axis=axis)).max() < 2 * step / size


@pytest.mark.parametrize("power", [1, 2])
def test_polynomials_are_reproduced_between_the_nodes(power: int) -> None:
    middle = (np.arange(7) * SIZE + SIZE // 2).astype(float)
    nodes = np.broadcast_to((middle / SIZE) ** power, (5, 7)) + (middle[:5, None] / SIZE) ** power
    level = _mesh(nodes).level_at(Window.whole(SHAPE))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / SIZE
    inner = np.s_[2 * SIZE : -2 * SIZE, 2 * SIZE : -2 * SIZE]  # four nodes on all sides
    np.testing.assert_allclose(level[inner], (x**power + y**power)[inner], rtol=1e-6)


def test_a_flat_mesh_is_flat_to_the_corners() -> None:
    level = _mesh(np.full((5, 7), 3.25)).level_at(Window.whole(SHAPE))
    np.testing.assert_allclose(level, 3.25, rtol=1e-6)


def test_a_mesh_of_one_cell_is_constant() -> None:
    np.testing.assert_allclose(_mesh(np.array([[4.5]])).level_at(Window(0, 9, 0, 12)), 4.5, rtol=1e-6)


def test_windows_together_equal_the_whole(nodes: NDArray[np.float64]) -> None:
    mesh = _mesh(nodes, np.abs(nodes))
    whole = Window.whole(SHAPE)
    bad = np.random.default_rng(2).random(SHAPE) < 0.1
    level, variance = mesh.level_at(whole), mesh.variance_at(whole, 1.7, bad)
    for window in tile_windows(SHAPE, 23):
        part = window.slices
        np.testing.assert_array_equal(mesh.level_at(window), level[part])
        np.testing.assert_array_equal(mesh.variance_at(window, 1.7, bad[part]), variance[part])


def test_subtraction_takes_the_level_away_and_zeroes_bad_pixels(nodes: NDArray[np.float64]) -> None:
    mesh, window = _mesh(nodes), Window(3, 50, 11, 90)
    rng = np.random.default_rng(3)
    data = rng.normal(0, 1, window.shape).astype(np.float32)
    bad = rng.random(window.shape) < 0.2
    expected = np.where(bad, 0, data - mesh.level_at(window))
    mesh.subtract_level(window, bad, data)
    np.testing.assert_array_equal(data, expected)


def test_variance_is_the_square_of_the_noise_and_never_nothing() -> None:
    rms = np.full((5, 7), 1.0)
    rms[2, 3] = 50.0  # the interpolation undershoots around it
    mesh, whole = _mesh(rms, rms), Window.whole(SHAPE)
    bad = np.zeros(SHAPE, bool)
    bad[5, 5] = True
    variance = mesh.variance_at(whole, 4.0, bad)
    assert mesh.level_at(whole).min() < 0
    assert variance[~bad].min() == pytest.approx(4 * 0.5**2)
    assert variance[5, 5] == 0
    row, column = 2 * SIZE + SIZE // 2, 3 * SIZE + SIZE // 2
    assert variance[row, column] == pytest.approx(4 * 50.0**2, rel=1e-6)


def test_statistics_of_normal_noise() -> None:
    size, cells, rng = 128, 12, np.random.default_rng(4)
    strip = rng.normal(20, 3, (size, size * cells))
    level, rms, good = _statistics(strip, np.zeros(strip.shape, bool), size)
    # Var(2.5 median - 1.5 mean) of n normal values: (6.25 pi/2 + 2.25 - 7.5) / n.
    error = 3 * np.sqrt((6.25 * np.pi / 2 + 2.25 - 7.5) / size**2)
    assert np.abs(level - 20).max() < 4 * error
    np.testing.assert_allclose(rms / clipped_rms_loss(3.0), 3, rtol=4 / np.sqrt(2 * size**2))
    assert np.abs(rms.mean() / clipped_rms_loss(3.0) / 3 - 1) < 0.005
    np.testing.assert_array_equal(good, 1)


def test_statistics_agree_with_clipping_by_scipy() -> None:
    size, rng = 64, np.random.default_rng(5)
    strip = rng.normal(5, 1, (size, size))
    strip[:12] += rng.exponential(20, (12, size))  # a fifth of the cell is sources
    level, rms, _ = _statistics(strip, np.zeros(strip.shape, bool), size)
    values = strip.ravel()
    while True:
        kept = values[np.abs(values - np.median(values)) <= 3 * values.std()]
        if kept.size == values.size:
            break
        values = kept
    assert rms[0] == pytest.approx(values.std(), rel=0.03)
    assert level[0] == pytest.approx(2.5 * np.median(values) - 1.5 * values.mean(), abs=0.05)


def test_last_cell_may_be_narrow_and_bad_pixels_are_left_out() -> None:
    size, rng = 32, np.random.default_rng(6)
    strip = rng.normal(0, 1, (size, 2 * size + 20))
    bad = np.zeros(strip.shape, bool)
    bad[:, : size // 4] = True
    strip[bad] = 1e8
    bad[:, size : 2 * size] = True
    level, rms, good = _statistics(strip, bad, size)
    np.testing.assert_allclose(good, [0.75, 0, 1])
    assert np.isnan(level[1])
    assert np.isnan(rms[1])
    assert np.abs(level[[0, 2]]).max() < 0.4
    np.testing.assert_allclose(rms[[0, 2]], 1, atol=0.15)


def test_a_cell_with_too_few_pixels_takes_the_values_of_its_neighbours() -> None:
    level, rms, good = np.full((5, 5), 7.0), np.full((5, 5), 2.0), np.ones((5, 5))
    level[2, 2], rms[2, 2], good[2, 2] = 900.0, 1.9, 0.3
    level[0, 0], rms[0, 0], good[0, 0] = np.nan, np.nan, 0.0
    mesh = Mesh.from_cells(level, rms, good, NoiseSettings(mesh_filter=1))
    assert np.isnan(mesh.raw_level[2, 2])
    assert np.isnan(mesh.raw_rms[0, 0])
    np.testing.assert_array_equal(mesh.level, 7.0)
    np.testing.assert_array_equal(mesh.rms, 2.0)
    used = Mesh.from_cells(level, rms, good, NoiseSettings(mesh_filter=1, min_good=0.2))
    assert used.level[2, 2] == 900


def test_a_crowded_cell_takes_the_values_of_its_neighbours() -> None:
    level, rms, good = np.full((6, 6), 7.0), np.full((6, 6), 2.0), np.ones((6, 6))
    level[3, 3], rms[3, 3] = 15.0, 3.5
    mesh = Mesh.from_cells(level, rms, good, NoiseSettings(mesh_filter=1))
    np.testing.assert_array_equal(mesh.level, 7.0)
    used = Mesh.from_cells(level, rms, good, NoiseSettings(mesh_filter=1, crowded_ratio=2.0))
    assert used.level[3, 3] == 15


def test_large_gaps_are_filled_from_their_borders() -> None:
    level = np.add.outer(np.zeros(4), np.arange(12.0))
    rms, good = np.ones((4, 12)), np.ones((4, 12))
    good[:, 3:9] = 0
    mesh = Mesh.from_cells(level, rms, good, NoiseSettings(mesh_filter=1))
    np.testing.assert_array_equal(mesh.level[0], [0, 1, 2, 2, 2, 2, 9, 9, 9, 9, 10, 11])


def test_median_filter_removes_one_outlying_cell() -> None:
    level, rms, good = np.full((5, 5), 7.0), np.full((5, 5), 2.0), np.ones((5, 5))
    level[2, 2] = 30.0
    assert Mesh.from_cells(level, rms, good, NoiseSettings(mesh_filter=3)).level.max() == 7
    assert Mesh.from_cells(level, rms, good, NoiseSettings(mesh_filter=1)).level.max() == 30


def test_threads_that_share_a_mesh_do_not_disturb_each_other(nodes: NDArray[np.float64]) -> None:
    mesh, windows = _mesh(nodes), tile_windows(SHAPE, 13)
    alone = [mesh.level_at(window) for window in windows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(mesh.level_at, windows))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("mesh_size", 8),
        ("mesh_filter", 4),
        ("mesh_filter", -1),
        ("clip_sigma", 1.0),
        ("min_good", 0.0),
        ("correlation_radius", 16),
        ("correlation_cells", 0),
        ("variance_tolerance", 0.0),
    ],
)
def test_impossible_settings_are_named(keyword: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"noise\.{keyword} is {value}; expected"):
        NoiseSettings(**{keyword: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0.1, 0.2, 0.35])
def test_whole_counts_do_not_shift_the_level(count: float) -> None:
    size, cells, rng = 128, 40, np.random.default_rng(8)
    # Counts of `count` times the noise, on skies that begin at any part of one.
    sky = 300 + np.repeat(np.linspace(0, 1, cells), size) * count
    strip = np.rint((sky + rng.normal(0, 1, (size, size * cells))) / count) * count - sky
    level, _, _ = _statistics(strip, np.zeros(strip.shape, bool), size)
    error = np.sqrt((6.25 * np.pi / 2 + 2.25 - 7.5) / size**2)
    assert np.abs(level).max() < 5 * error
