"""Petrosian quantities of profiles whose Petrosian radius is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import galsim
import numpy as np
import pytest
import sep
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv

from imcat.errors import ConfigError
from imcat.measure.petrosian import Petrosian, PetrosianSettings, aperture_limit, measure_petrosian
from imcat.measure.pixels import MASK, MIRROR
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import View

Float64 = NDArray[np.float64]
PIXEL = 0.396
MakeView = Callable[..., View]


def _inside(r: float, n: float) -> float:
    """Share of the light of a Sérsic profile within r half-light radii."""
    return float(gammainc(2 * n, gammaincinv(2 * n, 0.5) * r ** (1 / n)))


def _exact(n: float) -> tuple[float, float, float, float]:
    """Petrosian radius, share of the light in the Petrosian flux, R50 and R90, in half-light radii."""

    def ratio(r: float) -> float:
        ring = _inside(1.25 * r, n) - _inside(0.8 * r, n)
        return ring / (1.25**2 - 0.8**2) / _inside(r, n)

    radius = brentq(lambda r: ratio(r) - 0.2, 0.3, 20)
    flux = _inside(2 * radius, n)
    r50, r90 = (brentq(lambda r, s=s: _inside(r, n) - s * flux, 0.01, 20) for s in (0.5, 0.9))
    return radius, flux, r50, r90


def _measure(views: list[View], n: int, mode: int = MIRROR, limit: Any = 90.0, **changes: Any) -> Petrosian:
    bands = tuple(dict.fromkeys(view.layer.band for view in views)) or ("r",)
    settings = changes.pop("settings", PetrosianSettings())
    arguments: dict[str, Any] = {
        "bands": bands, "reference": "r", "label": np.arange(1, n + 1), "mode": mode, "dx": np.zeros(n),
        "dy": np.zeros(n), "limit": np.broadcast_to(np.asarray(limit, np.float64), n).copy(), "settings": settings,
    } | changes  # fmt: skip
    return measure_petrosian(views, **arguments)


def _draw(profile: Any, side: int, x: float, y: float) -> Float64:
    offset = x - (side - 1) / 2, y - (side - 1) / 2
    image = profile.drawImage(nx=side, ny=side, scale=1.0, offset=offset, dtype=float)
    return np.asarray(image.array)


@pytest.mark.parametrize("n", [0.7, 1.0, 2.0, 4.0])
def test_sersic_profiles_are_measured_as_computed(make_view: MakeView, n: float) -> None:
    size, side = 12.0, 401
    sersic = galsim.Sersic(n, half_light_radius=size, flux=1e6)
    # A sharp PSF, since the exact values are of the profile alone.
    image = _draw(galsim.Convolve(sersic, galsim.Gaussian(sigma=0.5)), side, 200.2, 199.7)
    view = make_view(image, np.array([200.2]), np.array([199.7]), rms=1e-3, psf_sigma=0.5 * PIXEL)
    found = _measure([view], 1, limit=195.0)
    radius, flux, r50, r90 = _exact(n)
    assert not found.fallback[0]
    assert not found.several[0]
    assert found.radius[0] == pytest.approx(radius * size * PIXEL, rel=0.005)
    assert found.flux[0, 0] == pytest.approx(flux * 1e6, rel=0.003)
    assert found.r50[0] == pytest.approx(r50 * size * PIXEL, rel=0.01)
    assert found.r90[0] == pytest.approx(r90 * size * PIXEL, rel=0.005)


def test_a_small_source_is_measured_with_its_psf(make_view: MakeView) -> None:
    # SDSS's stars: FWHM of 1.32 arcsec, at any place within a pixel.
    rng = np.random.default_rng(1)
    n, side = 12, 61
    x, y = rng.uniform(29, 31, (2, n))
    psf = galsim.Moffat(beta=3.2, fwhm=1.32 / PIXEL, flux=1e5)
    whole = np.concatenate([_draw(psf, side, *at) for at in zip(x, y, strict=True)], axis=1)
    view = make_view(whole, x + side * np.arange(n), y, rms=0.1)
    found = _measure([view], n, limit=29.0)
    # Of a large image of the PSF with small pixels.
    # Light is spread evenly over a pixel that a circle cuts: the pixel acts a second time.
    fine = galsim.Convolve(psf, galsim.Pixel(1.0), galsim.Pixel(1.0)).drawImage(
        nx=1201, ny=1201, scale=0.05, method="no_pixel"
    )
    v, u = np.mgrid[-600:601, -600:601] * 0.05
    distance, light = np.hypot(u, v), fine.array
    inside = np.array([light[distance < r].sum() for r in np.linspace(0.5, 30, 600)])

    def within(r: float) -> float:
        return float(np.interp(r, np.linspace(0.5, 30, 600), inside))

    radius = brentq(
        lambda r: (within(1.25 * r) - within(0.8 * r)) / (1.25**2 - 0.8**2) / within(r) - 0.2, 1, 10
    )
    r50, r90 = (brentq(lambda r, s=s: within(r) - s * within(2 * radius), 0.6, 10) for s in (0.5, 0.9))
    np.testing.assert_allclose(found.radius, radius * PIXEL, rtol=0.01)
    np.testing.assert_allclose(found.r50, r50 * PIXEL, rtol=0.02)
    np.testing.assert_allclose(found.r90, r90 * PIXEL, rtol=0.02)
    np.testing.assert_allclose(found.flux[:, 0], within(2 * radius), rtol=0.003)


def test_fluxes_of_all_bands_are_of_the_same_circle(make_view: MakeView) -> None:
    at = np.array([100.0]), np.array([99.4])
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=6, flux=1e5), galsim.Gaussian(sigma=1.4))
    red = _draw(galaxy, 201, 100.0, 99.4)
    # The g exposure has smaller pixels and lies turned.
    turn = np.array([[0.0, -1.5], [1.5, 0.0]])
    blue = _draw((0.3 * galaxy).transform(*turn.ravel()) / 1.5**2, 301, 150.0, 151.0)
    views = [
        make_view(red, *at),
        make_view(blue, np.array([150.0]), np.array([151.0]), band="g", jacobian=turn, scale=PIXEL / 1.5),
    ]
    found = _measure(views, 1, limit=90.0)
    circle = 2 * found.radius[0] / PIXEL
    expected = [
        sep.sum_circle(red, *at, circle, subpix=0)[0][0],
        sep.sum_circle(blue, [150.0], [151.0], 1.5 * circle, subpix=0)[0][0],
    ]
    np.testing.assert_allclose(found.flux[0], expected, rtol=1e-3)
    assert found.flux[0, 1] / found.flux[0, 0] == pytest.approx(0.3, rel=2e-3)


def test_neighbours_are_replaced(make_view: MakeView) -> None:
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=5, flux=1e5), galsim.Gaussian(sigma=1.4))
    image = _draw(galaxy, 201, 100.0, 100.0)
    at = np.array([100.0])
    rows, columns = np.mgrid[:201, :201]
    taken = np.hypot(columns - 112, rows - 106) < 6
    owner = np.where(taken, 7, 0).astype(np.int32)
    alone = _measure([make_view(image, at, at, rms=0.1)], 1)
    for mode in (MASK, MIRROR):
        found = _measure([make_view(image + 500.0 * taken, at, at, owner=owner, rms=0.1)], 1, mode)
        assert found.radius[0] == pytest.approx(alone.radius[0], rel=0.02)
        assert found.flux[0, 0] == pytest.approx(alone.flux[0, 0], rel=0.01)
        assert found.r50[0] == pytest.approx(alone.r50[0], rel=0.02)


def test_errors_are_true(make_view: MakeView) -> None:
    rng = np.random.default_rng(2)
    n, side = 300, 71
    galaxy = galsim.Convolve(galsim.Exponential(half_light_radius=3, flux=1500), galsim.Moffat(3.2, fwhm=3.3))
    whole = np.concatenate([_draw(galaxy, side, 35.0, 35.0)] * n, axis=1)
    x, y = 35.0 + side * np.arange(n), np.full(n, 35.0)
    gain = 2.0
    whole = whole + rng.normal(size=whole.shape) * np.sqrt(1 + whole / gain)
    found = _measure([make_view(whole, x, y, gain=gain)], n, limit=34.0)
    good = ~found.fallback
    assert good.mean() > 0.98

    def scatter(values: Float64) -> float:
        return float(1.4826 * np.median(np.abs(values - np.median(values))))

    # The scatter of the radius makes that of the flux larger than the error for the circle that was measured.
    for values, error, most in (
        (found.radius, found.radius_err, 1.3),
        (found.flux[:, 0], np.sqrt(found.variance[:, 0]), 1.3),
        (found.r50, found.r50_err, 1.7),
        (found.r90, found.r90_err, 1.7),
    ):
        assert 0.75 < scatter(values[good]) / np.median(error[good]) < most


def test_without_a_radius_the_fallback_is_taken(make_view: MakeView) -> None:
    rng = np.random.default_rng(3)
    at = np.array([60.0])
    noise = rng.normal(size=(121, 121))
    found = _measure([make_view(noise, at, at)], 1, limit=55.0)
    assert found.fallback[0]
    assert np.isnan(found.radius_err[0])
    fwhm = 0.55 * 2.3548
    assert found.radius[0] == pytest.approx(2.25 * fwhm, rel=1e-3)
    assert np.isfinite(found.flux[0, 0])
    # Light that does not end within the limit: half of it.
    flat = _measure([make_view(np.full((121, 121), 50.0), at, at)], 1, limit=40.0)
    assert flat.fallback[0]
    assert flat.radius[0] == pytest.approx(20 * PIXEL)


def test_outside_and_without_reference(make_view: MakeView) -> None:
    image = np.ones((50, 50))
    lost = _measure([make_view(image, np.array([np.nan]), np.array([20.0]))], 1)
    assert lost.fallback[0]
    assert np.isnan(lost.flux).all()
    other = _measure([make_view(image, np.array([20.0]), np.array([20.0]), band="g")], 1)
    assert np.isnan(other.radius).all()
    assert other.flux.shape == (1, 1)


def test_a_source_does_not_depend_on_others(make_view: MakeView) -> None:
    rng = np.random.default_rng(4)
    n, side = 8, 81
    parts = [
        _draw(
            galsim.Convolve(
                galsim.Exponential(half_light_radius=h, flux=10 ** rng.uniform(2.5, 5)),
                galsim.Gaussian(sigma=1.4),
            ),
            side, 40.0, 40.0,
        )
        for h in rng.uniform(1, 7, n)
    ]  # fmt: skip
    whole = np.concatenate(parts, axis=1) + rng.normal(size=(side, n * side))
    view = make_view(whole, 40.0 + side * np.arange(n), np.full(n, 40.0))
    limits = np.linspace(25.0, 39.0, n)
    every = _measure([view], n, limit=limits)
    for k in range(n):
        index = np.array([k])
        one = _measure([view.take(index)], 1, label=index + 1, limit=limits[index])
        for name in ("radius", "r50", "r90", "flux", "variance", "radius_err"):
            np.testing.assert_array_equal(getattr(one, name)[0], getattr(every, name)[k])


def test_the_limit_has_room_for_the_fallback() -> None:
    settings, petrosian = MeasureSettings(), PetrosianSettings()
    limit = aperture_limit(np.array([1.0, 4.0, 100.0]), np.full(3, PIXEL), 1.32, settings, petrosian)
    assert limit[0] > 2 * 2.25 * 1.32 / PIXEL
    assert limit[1] == pytest.approx(60.0)
    assert limit[2] == pytest.approx(0.9 * settings.margin)


@pytest.mark.parametrize(
    ("name", "value"), [("ratio", 1.0), ("aperture", 1.0), ("min_snr", 0.0), ("fallback", 0.1)]
)
def test_impossible_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"petrosian.{name} is {value}"):
        PetrosianSettings(**{name: value})
