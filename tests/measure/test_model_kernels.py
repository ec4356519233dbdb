"""Images of models and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.measure.model_blend import layout, mirror, overlaps
from imcat.measure.model_fit import normal_equations
from imcat.measure.model_gaussians import STRIDE
from imcat.measure.model_kernels import Stack, evaluate, shape_covariance
from imcat.measure.model_profiles import classical_profiles, sersic_profile, sersic_tables
from imcat.measure.model_settings import LARGEST_LIMIT
from imcat.measure.model_solve import inverse, solve_blocks
from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import ellipses
from imcat.render.draw import draw
from imcat.render.profiles import sersic_mixture, sersic_mixtures

Float64 = NDArray[np.float64]
JACOBIAN = np.array([[-2.4, 0.3], [0.2, 2.6]])


def _stack(side: int, psf: PsfMixture) -> Stack:
    return Stack(
        np.zeros(side * side, np.float32), np.ones(side * side, np.float32), np.zeros((1, 1), np.int64),
        np.array([[[0, 0, side, side]]]), np.array([[side / 2 - 0.3]]), np.array([[side / 2 + 0.2]]),
        JACOBIAN[None, None].copy(), np.zeros(1, np.int64), np.array([np.inf]), np.ones((1, 1, 1)),
        np.ones(1, np.bool_), psf.weights[None].copy(), psf.centres[None].copy(), psf.covariances[None, None].copy(),
        np.array([psf.subpixels]), np.array([1.3]),
    )  # fmt: skip


def _parameters(radius: float, ratio: float, angle: float) -> Float64:
    e, twice = -np.log(ratio), 2 * np.deg2rad(angle)
    return np.array([np.log(radius * np.sqrt(ratio)), e * np.cos(twice), e * np.sin(twice)])


def _columns(stack: Stack, place: Float64, shape: Float64, profile: Float64, columns: int) -> Float64:
    value, slope = np.zeros(3), np.zeros((3, 3))
    shape_covariance(shape, value, slope)
    count = int(stack.box[0, 0, 2] * stack.box[0, 0, 3])
    out = np.zeros((columns, count + 5))
    evaluate(stack, 0, 0, place[0], place[1], value, slope, profile, columns, out, 5)
    assert not out[:, :5].any()
    return out[:, 5:]


@pytest.mark.parametrize(
    "psf",
    [
        moffat_mixture(3.3, 3.0, (0.05, 0.02)),
        moffat_mixture(1.6, 3.0),
        PsfMixture(
            np.array([0.7, 0.3]),
            np.array([[1.4, 0.2, 1.1], [6.0, -1.0, 5.0]]),
            offsets=np.array([[-0.3, 0.3], [0.7, -0.7]]),
        ),
    ],
    ids=["wide", "sharp", "off-centre"],
)
@pytest.mark.parametrize(("radius", "ratio", "angle"), [(0.02, 0.5, 30), (0.5, 0.3, 70), (3.0, 0.05, 120)])
@pytest.mark.parametrize("kind", [0, 1])
def test_images_are_those_of_the_renderer(
    psf: PsfMixture, radius: float, ratio: float, angle: float, kind: int
) -> None:
    # Gaussians with whole rows, and with the parts of them that they reach.
    for side in (24, 100):
        stack = _stack(side, psf)
        place = np.array([0.1, -0.2])
        mine = _columns(stack, place, _parameters(radius, ratio, angle), classical_profiles()[kind], 6)[0]
        image = np.zeros((side, side))
        source = ellipses(
            [0],
            [[1.0]],
            [radius],
            [ratio],
            [angle],
            sersic_mixture((1.0, 4.0)[kind]),
            xi=place[0],
            eta=place[1],
        )
        draw(image, source, 0, stack.x[0], stack.y[0], JACOBIAN, psf, floor=1e-12)
        assert np.abs(mine.reshape(side, side) - image).max() < 1e-4 * image.max()


# Gaussians of large footprints end where they have fallen to 1e-5, which moves with the parameters.
@pytest.mark.parametrize(("side", "percent", "error"), [(24, 100, 1e-6), (100, 99, 3e-4)])
@pytest.mark.parametrize("radius", [0.02, 0.5, 3.0])
def test_derivatives_are_those_of_the_image(radius: float, side: int, percent: float, error: float) -> None:
    stack = _stack(side, moffat_mixture(3.3, 3.0, (0.05, 0.02)))
    for profile in classical_profiles():
        p = np.array([0.1, -0.2, *_parameters(radius, 0.4, 25.0)])
        columns = _columns(stack, p[:2], p[2:], profile, 6)
        for k in range(5):
            step = np.zeros(5)
            step[k] = 1e-4
            up, down = p + step, p - step
            numerical = (
                _columns(stack, up[:2], up[2:], profile, 6)[0]
                - _columns(stack, down[:2], down[2:], profile, 6)[0]
            ) / 2e-4
            off = np.percentile(np.abs(columns[k + 1] - numerical), percent)
            assert off < error * np.abs(numerical).max()


def test_the_widest_footprints_have_room() -> None:
    # A row of these is longer than a block of rows; pixels that a narrow footprint has too are the same.
    wide = 2 * LARGEST_LIMIT + 1
    assert wide <= STRIDE
    narrow, tables = _stack(24, moffat_mixture(3.3, 3.0)), sersic_tables()
    profile = np.empty((tables.shape[2], 4))
    sersic_profile(np.log(1.5), tables, profile)
    left = wide // 2 - 12
    broad = narrow._replace(box=np.array([[[0, 0, wide, 24]]]), x=narrow.x + left)
    for columns in (1, 3, 6, 7):
        few, many = (
            _columns(stack, np.zeros(2), _parameters(1.0, 0.6, 40.0), profile, columns).reshape(
                columns, 24, -1
            )
            for stack in (narrow, broad)
        )
        for mine, theirs in zip(few, many[:, :, left : left + 24], strict=True):
            np.testing.assert_allclose(theirs, mine, atol=1e-4 * np.abs(mine).max())


def test_the_derivative_by_the_index_is_that_of_the_image() -> None:
    stack, tables = _stack(24, moffat_mixture(3.3, 3.0)), sersic_tables()
    place, shape = np.zeros(2), _parameters(1.0, 0.6, 40.0)

    def columns(u: float) -> Float64:
        profile = np.empty((tables.shape[2], 4))
        sersic_profile(u, tables, profile)
        return _columns(stack, place, shape, profile, 7)

    for index in (0.7, 1.3, 2.2, 5.5):
        u = np.log(index)
        numerical = (columns(u + 1e-4)[0] - columns(u - 1e-4)[0]) / 2e-4
        np.testing.assert_allclose(columns(u)[6], numerical, atol=1e-4 * np.abs(numerical).max())


def test_sersic_profiles_are_those_of_the_renderer() -> None:
    tables = sersic_tables()
    profile = np.empty((tables.shape[2], 4))
    for index in (0.5, 0.9, 1.7, 4.0, 8.0):
        sersic_profile(np.log(index), tables, profile)
        expected = sersic_mixtures([index])
        np.testing.assert_allclose(profile[:, 0], expected.weights[0], atol=1e-12)
        np.testing.assert_allclose(profile[:, 1], expected.variances[0], rtol=1e-12)


def test_shapes_are_ellipses() -> None:
    value, slope = np.zeros(3), np.zeros((3, 3))
    shape_covariance(_parameters(2.0, 0.25, 30.0), value, slope)
    major, minor = 4.0, 0.25
    s, c = np.sin(np.pi / 6), np.cos(np.pi / 6)
    expected = [major * s * s + minor * c * c, (major - minor) * s * c, major * c * c + minor * s * s]
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_blocks_of_pairs_are_mirrored() -> None:
    # Members 0 and 2 are neighbours of 1, not of each other.
    start, other = np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1])
    pair = np.random.default_rng(3).normal(size=(4, 5, 5))
    first, second = pair[0].copy(), pair[2].copy()
    mirror(start, other, pair)
    np.testing.assert_array_equal(pair[1], first.T)
    np.testing.assert_array_equal(pair[3], second.T)
    np.testing.assert_array_equal(pair[0], first)


def test_blocks_of_pairs_do_not_depend_on_the_order() -> None:
    # Each block is worked out for one of both members; weights are those of the pixels, which both have.
    rng, side = np.random.default_rng(5), 20
    pixels, first = rng.uniform(0.5, 2.0, (40, 40)), _stack(side, moffat_mixture(3.3, 3.0))
    places = [(0, 0), (7, 4), (9, 12)]
    box = np.array([[[x, y, side, side]] for x, y in places])
    stack = first._replace(box=box, start=np.arange(3)[:, None] * side * side)
    weight = [pixels[y : y + side, x : x + side].ravel() for x, y in places]
    columns, residual = rng.normal(size=(3, 3, side * side)), rng.normal(size=(3, side * side))
    par, image = rng.uniform(1, 2, (3, 3)), np.zeros(1, np.int64)

    def blocks(order: list[int]) -> dict[tuple[int, int], Float64]:
        members, offset = np.array(order), np.zeros((3, 1), np.int64)
        layout(stack, members, image, offset)
        start, other = overlaps(stack, members, image)
        own, right, pair = np.empty((3, 3, 3)), np.empty((3, 3)), np.empty((other.size, 3, 3))
        normal_equations(
            stack, members, image, image, 1, offset, start, other, np.concatenate(columns[order], axis=1),
            np.concatenate([weight[k] for k in order]), residual[order].ravel(), par[order], own, right, pair,
            np.empty(side * side),
        )  # fmt: skip
        return {(order[k], order[other[e]]): pair[e] for k in range(3) for e in range(start[k], start[k + 1])}

    ahead, back = blocks([0, 1, 2]), blocks([2, 1, 0])
    assert len(ahead) == len(back) == 6
    for key, block in ahead.items():
        assert np.abs(block).max() > 0
        np.testing.assert_allclose(back[key], block, rtol=1e-9, atol=1e-9)


def test_large_groups_are_solved_as_small_ones() -> None:
    rng = np.random.default_rng(0)
    m, p = 90, 3  # above the limit of the direct solution
    own = np.zeros((m, p, p))
    start = np.arange(0, 2 * m + 1, 2)
    other = np.stack([(np.arange(m) - 1) % m, (np.arange(m) + 1) % m], axis=1).ravel()
    pair = np.zeros((2 * m, p, p))
    full = np.zeros((m * p, m * p))
    for k in range(m):
        own[k] = np.eye(p) * rng.uniform(3, 5, p)
        full[k * p : k * p + p, k * p : k * p + p] = own[k]
        block = rng.uniform(-0.5, 0.5, (p, p))
        j = (k + 1) % m
        pair[2 * k + 1] = block
        pair[2 * j] = block.T
        full[k * p : k * p + p, j * p : j * p + p] = block
        full[j * p : j * p + p, k * p : k * p + p] = block.T
    right = rng.normal(size=(m, p))
    expected = np.linalg.solve(full, right.ravel())
    solve_blocks(own, start, other, pair, right)
    np.testing.assert_allclose(right.ravel(), expected, atol=1e-5)
    small = full[:30, :30]
    np.testing.assert_allclose(inverse(small) @ small, np.eye(30), atol=1e-9)
