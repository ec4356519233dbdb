"""Bands on the reference grid."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.align.grid import GridMap
from imcat.align.resample import KERNEL_MARGIN, align
from imcat.window import Window, tile_windows

SHAPE = (120, 150)
NATIVE = (140, 130)
Float = NDArray[np.floating]


def _grid(angle: float, offset: tuple[float, float], scale: float = 1.0, spacing: int = 16) -> GridMap:
    """A linear mapping: rotation by `angle` degrees around the origin, then a shift."""
    c, s = scale * np.cos(np.deg2rad(angle)), scale * np.sin(np.deg2rad(angle))
    rows, columns = -(-(SHAPE[0] - 1) // spacing) + 1, -(-(SHAPE[1] - 1) // spacing) + 1
    y, x = np.mgrid[:rows, :columns] * float(spacing)
    return GridMap(spacing, c * x - s * y + offset[0], s * x + c * y + offset[1], NATIVE, False)


def _native_positions(angle: float, offset: tuple[float, float], scale: float = 1.0) -> tuple[Float, Float]:
    c, s = scale * np.cos(np.deg2rad(angle)), scale * np.sin(np.deg2rad(angle))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return c * x - s * y + offset[0], s * x + c * y + offset[1]


def _align(data: Float, variance: Float, grid: GridMap, window: Window) -> tuple[Float, Float]:
    native = grid.native_window(window, KERNEL_MARGIN)
    return align(
        data[native.slices].astype(np.float32),
        variance[native.slices].astype(np.float32),
        native,
        grid,
        window,
    )


WHOLE = Window.whole(SHAPE)
MAPPINGS = [(0.0, (0.37, -0.61), 1.0), (20.0, (40.3, -9.2), 1.0), (-35.0, (-12.6, 70.1), 0.8)]


@pytest.mark.parametrize(("angle", "offset", "scale"), MAPPINGS)
def test_a_quadratic_field_is_reproduced(angle: float, offset: tuple[float, float], scale: float) -> None:
    def field(x: Float, y: Float) -> Float:
        return 3 + 0.02 * x - 0.03 * y + (x - 60) ** 2 / 400 - (y - 70) ** 2 / 300 + (x - 60) * (y - 70) / 500

    y, x = np.mgrid[: NATIVE[0], : NATIVE[1]]
    out, variance = _align(field(x, y), np.full(NATIVE, 2.5), _grid(angle, offset, scale), WHOLE)
    px, py = _native_positions(angle, offset, scale)
    inner = (px >= 1) & (py >= 1) & (px <= NATIVE[1] - 2) & (py <= NATIVE[0] - 2)
    assert inner.mean() > 0.4
    np.testing.assert_allclose(out[inner], field(px, py)[inner], atol=2e-4)
    np.testing.assert_array_equal(variance[inner], 2.5)


def test_outside_of_the_native_image_nothing_is_said() -> None:
    angle, offset, scale = MAPPINGS[1]
    out, variance = _align(np.ones(NATIVE), np.ones(NATIVE), _grid(angle, offset, scale), WHOLE)
    px, py = _native_positions(angle, offset, scale)
    outside = (px < -0.51) | (py < -0.51) | (px > NATIVE[1] - 0.49) | (py > NATIVE[0] - 0.49)
    assert outside.mean() > 0.1
    assert (out[outside] == 0).all()
    assert (variance[outside] == 0).all()
    # Right up to the edge of the outermost pixels a constant stays one.
    inside = (px > 0) & (py > 0) & (px < NATIVE[1] - 1) & (py < NATIVE[0] - 1)
    np.testing.assert_allclose(out[inside], 1, rtol=1e-5)


@pytest.mark.parametrize(("angle", "offset", "scale"), MAPPINGS)
def test_flux_and_position_of_a_star_are_kept(
    angle: float, offset: tuple[float, float], scale: float
) -> None:
    grid, (px, py) = _grid(angle, offset, scale), _native_positions(angle, offset, scale)
    row, column = 58, 71  # of the reference grid
    x0, y0 = px[row, column] + 0.3, py[row, column] - 0.2
    y, x = np.mgrid[: NATIVE[0], : NATIVE[1]]
    sigma = 2.0
    star = 1e4 / (2 * np.pi * sigma**2) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
    out, _ = _align(star, np.ones(NATIVE), grid, WHOLE)
    # Values are per native pixel: a finer grid has more of them.
    assert out.sum() * scale**2 == pytest.approx(1e4, rel=2e-3)
    weight = out / out.sum()
    assert (weight * px).sum() == pytest.approx(x0, abs=0.01)
    assert (weight * py).sum() == pytest.approx(y0, abs=0.01)
    # The kernel keeps the second moment of what it interpolates, too.
    assert (weight * (px - x0) ** 2).sum() == pytest.approx(sigma**2, rel=0.02)


def test_a_shift_by_whole_pixels_is_exact() -> None:
    rng = np.random.default_rng(1)
    data, variance = rng.normal(0, 1, NATIVE).astype(np.float32), rng.uniform(1, 2, NATIVE).astype(np.float32)
    out, out_variance = _align(data, variance, _grid(0, (-20, 10)), WHOLE)
    np.testing.assert_array_equal(out[:, 20:], data[10:130, :130])
    np.testing.assert_array_equal(out_variance[:, 20:], variance[10:130, :130])
    assert not out[:, :20].any()


def test_the_same_grid_gives_the_same_pixels() -> None:
    rng = np.random.default_rng(2)
    data, variance = rng.normal(0, 1, SHAPE).astype(np.float32), rng.uniform(1, 2, SHAPE).astype(np.float32)
    y, x = np.mgrid[:9, :11] * 16.0
    grid = GridMap(16, x, y, SHAPE, True)
    out, out_variance = _align(data, variance, grid, WHOLE)
    np.testing.assert_array_equal(out, data)
    np.testing.assert_array_equal(out_variance, variance)
    window = Window(30, 77, 0, 100)  # read with a margin
    out, out_variance = _align(data, variance, grid, window)
    np.testing.assert_allclose(out, data[window.slices], atol=1e-6)
    np.testing.assert_array_equal(out_variance, variance[window.slices])


def test_no_overlap_gives_nothing() -> None:
    grid = _grid(0, (1000, 1000))
    assert grid.native_window(WHOLE, KERNEL_MARGIN).empty
    out, variance = _align(np.ones(NATIVE), np.ones(NATIVE), grid, WHOLE)
    assert out.shape == variance.shape == SHAPE
    assert out.dtype == variance.dtype == np.float32
    assert not out.any()
    assert not variance.any()


def test_positions_that_do_not_exist_give_nothing() -> None:
    grid = _grid(0, (0.5, 0.5))
    grid.x[:, 0] = np.nan
    grid.y[:, 0] = np.nan
    out, variance = _align(np.ones(NATIVE), np.ones(NATIVE), grid, WHOLE)
    assert not variance[:, :16].any()
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[:, 20:100], 1, rtol=1e-5)


def test_bad_pixels_are_zero_and_do_not_leak() -> None:
    rng = np.random.default_rng(3)
    bad = rng.random(NATIVE) < 0.02
    bad[60:70, 60:70] = True
    data, variance = np.where(bad, 1e6, 5.0), np.where(bad, 0.0, 2.0)
    offset = (0.37, -0.61)
    out, out_variance = _align(data, variance, _grid(0, offset), WHOLE)
    used = out_variance > 0
    np.testing.assert_allclose(out[used], 5, rtol=1e-5)
    assert (out[~used] == 0).all()
    px, py = _native_positions(0, offset)
    row, column = np.floor(py + 0.5).astype(int), np.floor(px + 0.5).astype(int)
    inside = (row >= 0) & (row < NATIVE[0]) & (column >= 0) & (column < NATIVE[1])
    nearest = np.zeros(SHAPE, bool)
    nearest[inside] = bad[row[inside], column[inside]]
    assert nearest.sum() > 200
    assert not used[nearest].any()
    # One bad neighbour out of sixteen does not make a pixel bad.
    assert used[inside & ~nearest].mean() > 0.9


def test_windows_together_equal_the_whole() -> None:
    rng = np.random.default_rng(4)
    data, variance = rng.normal(0, 1, NATIVE), rng.uniform(1, 2, NATIVE)
    grid = _grid(20.0, (40.3, -9.2))
    whole = _align(data, variance, grid, WHOLE)
    for window in tile_windows(SHAPE, 50):
        for part, full in zip(_align(data, variance, grid, window), whole, strict=True):
            np.testing.assert_allclose(part, full[window.slices], atol=1e-5)
