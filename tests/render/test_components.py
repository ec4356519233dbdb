"""Sources as sums of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.render.components import Components, ellipses, points, sky_covariance
from imcat.render.profiles import EXPONENTIAL, Mixture, sersic_mixture, sersic_mixtures

ONE = Mixture(np.array([1.0]), np.array([0.5]))


def test_points() -> None:
    stars = points(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert len(stars) == 2
    assert stars.bands == 2
    assert not np.any([stars.xx, stars.xy, stars.yy, stars.xi, stars.eta])
    np.testing.assert_array_equal(stars.total(3), [[1, 2], [3, 4], [0, 0]])


@pytest.mark.parametrize(
    ("angle", "expected"), [(0.0, (0.25, 0, 1)), (90.0, (1, 0, 0.25)), (45.0, (0.625, 0.375, 0.625))]
)
def test_the_major_axis_points_east_of_north(angle: float, expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(sky_covariance(0.5, angle), expected, atol=1e-12)


def test_ellipses() -> None:
    found = ellipses([0], [[6.0]], [3.0], [0.5], [90.0], ONE, xi=1.5, eta=-2.0)
    assert (found.xx[0], found.yy[0]) == pytest.approx((4.5, 1.125))
    assert (found.xi[0], found.eta[0]) == (1.5, -2.0)
    assert found.flux[0, 0] == 6


def test_each_ellipse_may_have_its_own_profile() -> None:
    found = ellipses([0, 1], [[1.0], [2.0]], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0], sersic_mixtures([1.0, 4.0]))
    np.testing.assert_allclose(found.total(2), [[1], [2]])
    steep, flat = (found.xx[found.source == s].min() for s in (1, 0))
    assert steep < flat


def test_flux_is_shared_by_weight_and_sources_are_in_order() -> None:
    profile = sersic_mixture(EXPONENTIAL)
    found = ellipses([2, 0], [[1.0], [5.0]], [1.0, 2.0], [1.0, 0.4], [0.0, 30.0], profile)
    np.testing.assert_array_equal(found.source, [0] * len(profile.weights) + [2] * len(profile.weights))
    np.testing.assert_allclose(found.flux[:, 0], np.concatenate([5 * profile.weights, profile.weights]))


def test_concatenate_sorts_by_source_and_keeps_the_order_of_lists() -> None:
    first = ellipses([0, 1], [[1.0], [2.0]], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0], ONE)
    second = points(np.array([[-3.0], [4.0]]))
    both = Components.concatenate([first, second])
    np.testing.assert_array_equal(both.source, [0, 0, 1, 1])
    np.testing.assert_array_equal(both.flux[:, 0], [1, -3, 2, 4])


def test_wrong_shapes_are_refused() -> None:
    zero = np.zeros(2)
    source = np.array([0, 1])
    with pytest.raises(ValueError, match=r"xi has shape \(3,\); expected \(2,\)"):
        Components(source, np.ones((2, 1)), np.zeros(3), zero, zero, zero, zero)
    with pytest.raises(ValueError, match=r"flux has shape \(2,\)"):
        Components(source, np.ones(2), zero, zero, zero, zero, zero)
    with pytest.raises(ValueError, match="order of their sources"):
        Components(source[::-1], np.ones((2, 1)), zero, zero, zero, zero, zero)
    with pytest.raises(ValueError, match="at least one"):
        Components.concatenate([])
