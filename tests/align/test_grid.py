"""From the reference grid to native pixels."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel
from numpy.typing import NDArray

from imcat.align import AlignSettings, local_affine, map_grids, moved_wcs, transform_positions
from imcat.errors import ConfigError
from imcat.window import Window, tile_windows

SHAPE = (300, 400)
NATIVE = (350, 330)


def _wcs(
    crpix: tuple[float, float],
    crval: tuple[float, float] = (150.0, 30.0),
    scale: float = 0.4,
    angle: float = 0.0,
    distorted: bool = False,
) -> WCS:
    wcs = WCS(naxis=2)
    sip = "-SIP" if distorted else ""
    wcs.wcs.ctype = [f"RA---TAN{sip}", f"DEC--TAN{sip}"]
    wcs.wcs.crval, wcs.wcs.crpix = crval, crpix
    wcs.wcs.cd = _cd(scale, angle)
    if distorted:
        from astropy.wcs import Sip

        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2] = 3e-6, -2e-6, 4e-6
        wcs.sip = Sip(a, b, None, None, crpix)
    return wcs


def _cd(scale: float, angle: float) -> NDArray[np.float64]:
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return scale / 3600 * np.array([[-c, s], [s, c]])


REFERENCE = _wcs((200.5, 150.5))
ROTATED = _wcs((180.0, 160.0), scale=0.5, angle=25.0)  # the same tangent point: the mapping is linear
# Another tangent point: the mapping is not linear.
OTHER = _wcs((120.0, 190.0), crval=(150.01, 30.005), scale=0.45, angle=-12.0)
MATRIX = np.linalg.inv(_cd(0.5, 25.0)) @ _cd(0.4, 0.0)


def _positions(n: int, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-20, 420, n), rng.uniform(-20, 320, n)


def test_positions_of_a_rotated_and_shifted_grid_are_those_of_the_matrix() -> None:
    x, y = _positions(50)
    tx, ty = transform_positions(REFERENCE, ROTATED, x, y)
    expected = MATRIX @ np.stack([x - 199.5, y - 149.5]) + [[179.0], [159.0]]
    np.testing.assert_allclose([tx, ty], expected, atol=1e-6)


@pytest.mark.parametrize("target", [ROTATED, OTHER, _wcs((120.0, 190.0), angle=40.0, distorted=True)])
def test_positions_agree_with_astropy(target: WCS) -> None:
    x, y = _positions(50)
    tx, ty = transform_positions(REFERENCE, target, x, y)
    np.testing.assert_allclose([tx, ty], pixel_to_pixel(REFERENCE, target, x, y), atol=1e-5)
    back = transform_positions(target, REFERENCE, tx, ty)
    np.testing.assert_allclose(back, [x, y], atol=1e-5)


def test_positions_in_the_same_grid_are_copies() -> None:
    x, y = _positions(5)
    tx, ty = transform_positions(REFERENCE, REFERENCE, x, y)
    np.testing.assert_array_equal([tx, ty], [x, y])
    tx[:] = 0
    assert x.all()


def test_jacobian_of_a_linear_mapping_is_its_matrix() -> None:
    x, y = _positions(20)
    affine = local_affine(REFERENCE, ROTATED, x, y)
    assert affine.jacobian.shape == (20, 2, 2)
    np.testing.assert_allclose(affine.jacobian, np.broadcast_to(MATRIX, (20, 2, 2)), atol=1e-6)


def test_mapping_is_linear_around_each_position() -> None:
    x, y = _positions(40)
    affine = local_affine(REFERENCE, OTHER, x, y)
    step = np.array([7.0, -5.0])
    tx, ty = transform_positions(REFERENCE, OTHER, x + step[0], y + step[1])
    expected = affine.jacobian @ step
    np.testing.assert_allclose(np.stack([tx - affine.x, ty - affine.y], -1), expected, atol=1e-3)
    # Not a transposed or swapped matrix: the determinant is the ratio of the pixels' areas.
    np.testing.assert_allclose(np.linalg.det(affine.jacobian), (0.4 / 0.45) ** 2, rtol=1e-4)


def test_jacobian_of_the_same_grid_is_one() -> None:
    affine = local_affine(REFERENCE, REFERENCE, *_positions(3))
    np.testing.assert_allclose(affine.jacobian, np.broadcast_to(np.eye(2), (3, 2, 2)), atol=1e-12)


@pytest.mark.parametrize("target", [ROTATED, OTHER])
def test_nodes_lie_where_the_wcs_says(target: WCS) -> None:
    grid = map_grids(REFERENCE, SHAPE, target, NATIVE, AlignSettings(node_spacing=64))
    assert not grid.identity
    y, x = np.indices(grid.x.shape) * 64.0
    assert x.max() >= SHAPE[1] - 1
    assert y.max() >= SHAPE[0] - 1
    np.testing.assert_allclose([grid.x, grid.y], pixel_to_pixel(REFERENCE, target, x, y), atol=1e-5)


@pytest.mark.parametrize("target", [ROTATED, OTHER])
@pytest.mark.parametrize("size", [64, 90])
def test_native_window_covers_every_pixel_of_the_window(target: WCS, size: int) -> None:
    grid = map_grids(REFERENCE, SHAPE, target, NATIVE, AlignSettings(node_spacing=32))
    seen = 0
    for window in tile_windows(SHAPE, size):
        y, x = np.mgrid[window.slices].astype(float)
        tx, ty = transform_positions(REFERENCE, target, x.ravel(), y.ravel())
        inside = (tx >= 0) & (ty >= 0) & (tx <= NATIVE[1] - 1) & (ty <= NATIVE[0] - 1)
        native = grid.native_window(window, 3)
        assert native == native.clip(NATIVE)
        if not inside.any():
            continue
        seen += 1
        tx, ty = tx[inside], ty[inside]
        assert native.y0 <= max(ty.min() - 3, 0)
        assert native.x0 <= max(tx.min() - 3, 0)
        assert native.y1 >= min(ty.max() + 4, NATIVE[0])
        assert native.x1 >= min(tx.max() + 4, NATIVE[1])
        # Not much more than needed: up to one distance of the nodes on either side.
        assert native.shape[0] <= np.ptp(ty) + 2 * 3 + 2 + 2 * 32 * 1.5
        assert native.shape[1] <= np.ptp(tx) + 2 * 3 + 2 + 2 * 32 * 1.5
    assert seen > 4


def test_native_window_of_the_same_grid_is_the_window_with_its_margin() -> None:
    grid = map_grids(REFERENCE, SHAPE, REFERENCE, SHAPE, AlignSettings())
    assert grid.identity
    assert grid.native_window(Window(10, 50, 0, 60), 3) == Window(7, 53, 0, 63)
    assert grid.overlap_fraction() == 1


def test_fields_apart_do_not_overlap() -> None:
    target = _wcs((120.0, 190.0), crval=(150.2, 30.0))
    grid = map_grids(REFERENCE, SHAPE, target, NATIVE, AlignSettings())
    assert grid.native_window(Window(0, 100, 0, 100), 3).empty
    assert grid.overlap_fraction() == 0


def test_the_other_side_of_the_sky_is_not_reached() -> None:
    target = _wcs((120.0, 190.0), crval=(330.0, -30.0))
    tx, ty = transform_positions(REFERENCE, target, *_positions(4))
    outside = ~np.isfinite(tx) | (np.hypot(tx, ty) > 1e5)
    assert outside.all()
    grid = map_grids(REFERENCE, SHAPE, target, NATIVE, AlignSettings())
    assert grid.native_window(Window(0, 100, 0, 100), 3).empty
    assert grid.overlap_fraction() == 0


def test_half_an_overlap_is_half() -> None:
    target = _wcs((200.5 - 200, 150.5))  # shifted by half of the columns
    grid = map_grids(REFERENCE, SHAPE, target, SHAPE, AlignSettings(node_spacing=4))
    assert grid.overlap_fraction() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shape", [(20, 20), (200, 9), (1, 1)])
def test_an_image_between_the_nodes_overlaps(shape: tuple[int, int]) -> None:
    small = _wcs((200.5 - 210, 150.5 - 70))  # its first pixel is (210, 70) of the reference
    grid = map_grids(REFERENCE, SHAPE, small, shape, AlignSettings(node_spacing=64))
    assert grid.overlap_fraction() > 0
    assert not grid.native_window(Window.whole(SHAPE), 3).empty
    back = map_grids(small, shape, REFERENCE, SHAPE, AlignSettings(node_spacing=64))
    assert back.overlap_fraction() == 1


@pytest.mark.parametrize("spacing", [3, 1025])
def test_impossible_spacing_is_named(spacing: int) -> None:
    with pytest.raises(ConfigError, match=f"align.node_spacing is {spacing}; expected 4 to 1024"):
        AlignSettings(node_spacing=spacing)


@pytest.mark.parametrize("wcs", [ROTATED, _wcs((120.0, 190.0), angle=40.0, distorted=True)])
def test_a_moved_wcs_puts_everything_some_pixels_farther_on(wcs: WCS) -> None:
    x, y = _positions(50)
    before = transform_positions(wcs, REFERENCE, x, y)
    moved = moved_wcs(wcs, 0.4, -0.25)
    np.testing.assert_allclose(transform_positions(moved, REFERENCE, x + 0.4, y - 0.25), before, atol=1e-6)
    np.testing.assert_allclose(transform_positions(REFERENCE, moved, *before), [x + 0.4, y - 0.25], atol=1e-5)
    np.testing.assert_allclose(transform_positions(wcs, REFERENCE, x, y), before, atol=0)
