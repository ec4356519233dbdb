"""Apertures against photutils and analytic sums; lag sums against pixels; ellipses against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from photutils.aperture import CircularAperture, EllipticalAperture, aperture_photometry
from scipy.ndimage import gaussian_filter

from imcat.flags import SourceFlag
from imcat.measure.apertures import Fluxes, measure_apertures
from imcat.measure.errors import centroid_lag_sum, ellipse_lag_sum, gaussian_lag_sum
from imcat.measure.pixels import MASK, MIRROR
from imcat.measure.settings import MeasureSettings
from imcat.measure.shapes import Ellipses, half_light, kron_radius, moment_ellipses, sky_angle
from imcat.noise import NoiseCovariance

SIDE = 120
SCALE = 0.4  # arcsec
X, Y = np.array([40.3, 80.0, 59.7]), np.array([50.2, 90.4, 20.6])


def gaussian(x: float, y: float, sx: float, sy: float, turn: float = 0.0) -> NDArray[np.float64]:
    v, u = np.mgrid[:SIDE, :SIDE]
    c, s = np.cos(turn), np.sin(turn)
    a, b = (u - x) * c + (v - y) * s, -(u - x) * s + (v - y) * c
    return np.asarray(np.exp(-0.5 * ((a / sx) ** 2 + (b / sy) ** 2)) / (2 * np.pi * sx * sy))


def image() -> NDArray[np.float64]:
    return sum(1000 * gaussian(x, y, 3.0, 2.0, 0.4) for x, y in zip(X, Y, strict=True))  # type: ignore[return-value]


def ellipses(n: int = 3, a: float = 3.0, b: float = 2.0, turn: float = 0.4) -> Ellipses:
    c, s = np.cos(turn), np.sin(turn)
    return moment_ellipses(
        np.full(n, a * a * c * c + b * b * s * s), np.full(n, a * a * s * s + b * b * c * c),
        np.full(n, (a * a - b * b) * c * s),
    )  # fmt: skip


def measured(view: object, mode: int = MIRROR, kron: float = 2.5, **settings: object) -> Fluxes:
    zero, label = np.zeros(len(X)), np.arange(1, len(X) + 1)
    return measure_apertures(
        view, label, mode, zero, zero, ellipses().form, np.full(len(X), kron), 1.2,  # type: ignore[arg-type]
        MeasureSettings(**settings),  # type: ignore[arg-type]
    )  # fmt: skip


def test_circles_are_those_of_photutils_in_the_order_of_the_settings(make_view) -> None:
    view = make_view(image(), X, Y, scale=SCALE)
    found = measured(view, apertures=(3.0, 1.0, 7.43))
    for k, diameter in enumerate((3.0, 1.0, 7.43)):
        circles = CircularAperture(np.stack([X, Y], axis=1), 0.5 * diameter / SCALE)
        expected = aperture_photometry(image(), circles, method="exact")["aperture_sum"]
        np.testing.assert_allclose(found.flux[:, 2 + k], expected, rtol=5e-3)
        # White noise of unit variance: a pixel on the rim counts for no less than the square of its share, and no more
        # than all of it.
        squares = [float((mask.data**2).sum()) for mask in circles.to_mask(method="exact")]
        own = found.variance[:, 2 + k] - circles.area**2 * view.layer.noise.level_variance
        assert (own > 0.98 * np.array(squares)).all()
        assert (own < 1.02 * circles.area).all()


def test_ellipses_are_those_of_photutils(make_view) -> None:
    found = measured(make_view(image(), X, Y, scale=SCALE))
    own = EllipticalAperture(np.stack([X, Y], axis=1), 2.5 * 3.0, 2.5 * 2.0, theta=0.4)
    expected = aperture_photometry(image(), own, method="exact")["aperture_sum"]
    np.testing.assert_allclose(found.flux[:, 0], expected, rtol=2e-3)
    np.testing.assert_allclose(expected, 1000 * (1 - np.exp(-0.5 * 2.5**2)), rtol=5e-3)


def test_photons_of_the_source_add_to_the_variance(make_view) -> None:
    quiet, loud = (measured(make_view(image(), X, Y, scale=SCALE, gain=gain)) for gain in (None, 4.0))
    np.testing.assert_allclose((loud.variance - quiet.variance)[:, 2:], quiet.flux[:, 2:] / 4, rtol=1e-6)


def test_the_colour_aperture_does_not_depend_on_the_psf(make_view) -> None:
    # The same sky before two PSFs: a point.
    fluxes = []
    for psf in (0.5, 0.7):
        blurred = sum(1000 * gaussian(x, y, psf / SCALE, psf / SCALE) for x, y in zip(X, Y, strict=True))
        fluxes.append(measured(make_view(blurred, X, Y, scale=SCALE, psf_sigma=psf)).flux[:, 1])
    np.testing.assert_allclose(fluxes[0], fluxes[1], rtol=5e-3)
    np.testing.assert_allclose(fluxes[0], 1000, rtol=5e-3)


def test_neighbours_are_mirrored_left_out_or_kept(make_view) -> None:
    light = image()
    neighbour = 5000 * gaussian(X[0] + 6, Y[0], 1.0, 1.0)
    owner = np.zeros((SIDE, SIDE), np.int32)
    owner[neighbour > 0.01] = 99
    view = make_view(light + neighbour, X, Y, scale=SCALE, owner=owner)
    out, mirror = (measured(view, mode).flux[0, 4] for mode in (MASK, MIRROR))
    kept = measured(make_view(light + neighbour, X, Y, scale=SCALE)).flux[0, 4]
    alone = measured(make_view(light, X, Y, scale=SCALE)).flux[0, 4]
    assert kept > 1.05 * alone
    assert out < alone
    assert mirror == pytest.approx(alone, rel=0.05)


def test_a_local_background_takes_a_pedestal_away(make_view) -> None:
    rng = np.random.default_rng(1)
    sky = 3.0 + rng.normal(0, 0.01, (SIDE, SIDE))
    plain = measured(make_view(image(), X, Y, scale=SCALE))
    local = measured(make_view(image() + sky, X, Y, scale=SCALE), local_background=True)
    np.testing.assert_allclose(local.flux[:, 2:], plain.flux[:, 2:], atol=0.3)
    assert (local.variance > 0).all()


def test_positions_outside_and_at_the_edge_are_flagged(make_view) -> None:
    x, y = np.array([1.0, -30.0, 60.0]), np.array([60.0, 60.0, 60.0])
    found = measured(make_view(image(), x, y, scale=SCALE))
    assert found.flags[0] & int(SourceFlag.EDGE)
    assert found.flags[1] & int(SourceFlag.OUTSIDE)
    assert found.flags[2] == 0
    assert np.isnan(found.flux[1]).all()
    assert np.isfinite(found.flux[[0, 2]]).all()


class TestLagSums:
    SIGMA = 0.8

    def covariance(self) -> NoiseCovariance:
        lag = np.arange(-4, 5)
        line = np.exp(-(lag**2) / (4 * self.SIGMA**2))
        return NoiseCovariance(np.outer(line, line))

    def variances(self, weight: NDArray[np.float64]) -> float:
        """Of a weighted sum of pixels, in units of what independent ones give."""
        rng, values = np.random.default_rng(3), []
        for _ in range(4000):
            noise = gaussian_filter(rng.normal(0, 1, weight.shape), self.SIGMA, mode="wrap", truncate=6)
            values.append((noise * weight).sum())
        one = 1 / (4 * np.pi * self.SIGMA**2)  # variance of a pixel after the filter
        return float(np.var(values) / one / (weight**2).sum())

    def test_of_an_ellipse(self) -> None:
        v, u = np.mgrid[:40, :40] - 19.5
        weight = ((u / 8) ** 2 + (v / 5) ** 2 < 1).astype(float)
        form = np.array([[1 / 8**2, 1 / 5**2, 0.0]])
        expected = 1 + ellipse_lag_sum(self.covariance(), form, np.ones(1))[0]
        assert self.variances(weight) == pytest.approx(expected, rel=0.08)

    def test_of_a_gaussian_and_its_moments(self) -> None:
        v, u = np.mgrid[:40, :40] - 19.5
        weight = np.exp(-(u**2 + v**2) / (2 * 3.0**2))
        width = np.array([3.0])
        assert self.variances(weight) == pytest.approx(
            1 + gaussian_lag_sum(self.covariance(), width)[0], rel=0.08
        )
        along = centroid_lag_sum(self.covariance(), width)
        assert self.variances(weight * u) == pytest.approx(1 + along[0][0], rel=0.08)
        assert along[0] == pytest.approx(along[1])

    def test_of_white_noise_there_is_none(self) -> None:
        white = NoiseCovariance.white()
        assert ellipse_lag_sum(white, np.ones((2, 3)), np.ones(2)).tolist() == [0, 0]
        assert gaussian_lag_sum(white, np.ones(2)).tolist() == [0, 0]


class TestShapes:
    def test_moments_make_their_ellipse(self) -> None:
        found = ellipses(1, 5.0, 2.0, 0.7)
        assert (found.a[0], found.b[0], found.theta[0]) == pytest.approx((5.0, 2.0, 0.7))
        on = 5 * np.array([np.cos(0.7), np.sin(0.7)])
        assert found.form[0] @ [on[0] ** 2, on[1] ** 2, on[0] * on[1]] == pytest.approx(1)
        line = moment_ellipses(np.array([9.0]), np.array([0.0]), np.array([0.0]))
        assert line.b[0] == pytest.approx(0.05 * 3)

    def test_the_kron_radius_of_a_gaussian(self, make_view) -> None:
        zero, label = np.zeros(3), np.arange(1, 4)
        view = make_view(image(), X, Y, scale=SCALE, rms=1e-3)
        settings = MeasureSettings()
        found = kron_radius([view], label, MIRROR, zero, zero, ellipses(), np.full(3, 1e4), 100.0, settings)
        assert not found.fallback.any()
        # The mean radius of a Gaussian weighted by its light, within the search ellipse.
        r = np.linspace(0, settings.kron_search, 4001)
        light = r * np.exp(-0.5 * r**2)
        moment = (r * light).sum() / light.sum()
        np.testing.assert_allclose(
            found.radius, max(settings.kron_factor * moment, settings.kron_minimum), rtol=0.02
        )

    def test_half_of_the_light_of_a_gaussian(self, make_view) -> None:
        zero, label = np.zeros(3), np.arange(1, 4)
        view = make_view(image(), X, Y, scale=SCALE)
        radius = half_light([view], label, MIRROR, zero, zero, ellipses(), np.full(3, 5.0))
        np.testing.assert_allclose(radius, 3.0 * np.sqrt(2 * np.log(2)), rtol=0.02)

    def test_angles_are_east_of_north(self) -> None:
        # East is towards smaller x, north towards larger y.
        jacobian = np.broadcast_to(np.diag([-1.0, 1.0]), (3, 2, 2))
        angle = sky_angle(np.array([0.0, np.pi / 2, 3 * np.pi / 4]), jacobian)
        assert (angle - np.array([90, 0, 45]) + 90) % 180 == pytest.approx(90)
