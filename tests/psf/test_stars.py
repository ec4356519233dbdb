"""The PSF of an image from its own stars, against images whose PSF is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from imcat.errors import ConfigError
from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.psf.star_select import crowding, measure_moments, select_stars
from imcat.psf.stars import StarPsfSettings, measure_psf

Float64 = NDArray[np.float64]

SHAPE = (700, 800)
RMS = 1.0
GAIN = 4.0  # electrons per unit
SATURATION = 6000.0


def _truth() -> PsfMixture:
    """A PSF that turns and widens over the image, with a wing."""
    variation = np.zeros((4, 3, 5))
    variation[:3, 0, 0], variation[:3, 1, 1], variation[:3, 2, 4] = 0.25, 0.15, 0.2
    variation *= np.array([1.0, 2.0, 4.0, 0.0])[:, None, None]
    covariances = np.array([[1.8, 0.1, 1.6], [3.8, 0.3, 3.4], [9.0, 0.2, 9.0], [60.0, 0.0, 60.0]])
    return PsfMixture(np.array([0.5, 0.35, 0.12, 0.03]), covariances, variation, SHAPE)


def _add(image: Float64, psf: PsfMixture, x: float, y: float, flux: float, size: float = 0.0) -> None:
    """A star, or a round Gaussian galaxy of some variance; independent of the package's renderer."""
    reach = 70
    x0, x1 = max(int(x) - reach, 0), min(int(x) + reach + 1, SHAPE[1])
    y0, y1 = max(int(y) - reach, 0), min(int(y) + reach + 1, SHAPE[0])
    v, u = np.mgrid[y0:y1, x0:x1] - np.array([y, x])[:, None, None]
    for weight, (xx, xy, yy) in zip(psf.weights, psf.at(np.array([x]), np.array([y]))[0], strict=True):
        inverse = np.linalg.inv(np.array([[xx + size, xy], [xy, yy + size]]))
        q = inverse[0, 0] * u * u + 2 * inverse[0, 1] * u * v + inverse[1, 1] * v * v
        image[y0:y1, x0:x1] += flux * weight * np.sqrt(np.linalg.det(inverse)) / (2 * np.pi) * np.exp(-q / 2)


class Sky:
    """An image with stars, galaxies and a few saturated stars."""

    def __init__(self, stars: int = 60, galaxies: int = 60, bright: int = 3, seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.psf = _truth()
        image = np.zeros(SHAPE)
        n = stars + galaxies + bright
        cells = rng.permutation(110)[:n] if n <= 110 else np.arange(n)
        # Sources on a jittered grid, so that few overlap.
        self.x = 60 + 68.0 * (cells % 11) + rng.uniform(-20, 20, n)
        self.y = 60 + 64.0 * (cells // 11 % 10) + rng.uniform(-20, 20, n)
        self.flux = np.exp(rng.uniform(np.log(1500), np.log(30000), n))
        self.flux[-bright:] = 400000.0 if bright else self.flux[-bright:]
        self.is_star = np.ones(n, bool)
        self.is_star[:galaxies] = False
        for i in range(n):
            size = 0.0 if self.is_star[i] else float(rng.uniform(1.0, 12.0))
            _add(image, self.psf, self.x[i], self.y[i], float(self.flux[i]), size)
        noise = np.sqrt(RMS**2 + np.maximum(image, 0) / GAIN)
        self.data = (image + rng.normal(size=SHAPE) * noise).astype(np.float32)
        self.bad = self.data > SATURATION
        self.data[self.bad] = np.float32(SATURATION)
        self.variance = np.full(SHAPE, RMS**2, np.float32)
        self.bright = bright

    def measure(self, **keywords: object):  # type: ignore[no-untyped-def]
        return measure_psf(
            self.data, self.variance, self.bad, self.x, self.y, gain=GAIN, fwhm=3.6, **keywords
        )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sky() -> Sky:
    return Sky(stars=70, galaxies=35, bright=4)


@pytest.fixture(scope="module")
def measured(sky: Sky):  # type: ignore[no-untyped-def]
    return sky.measure()


def test_only_stars_are_taken(sky: Sky, measured) -> None:  # type: ignore[no-untyped-def]
    assert measured.method == "stars"
    assert measured.degree >= 2
    assert len(measured.stars) >= 35
    assert sky.is_star[measured.stars].mean() > 0.97
    # The saturated ones tell the wings.
    saturated = np.arange(len(sky.x))[-sky.bright :]
    assert np.isin(saturated, measured.wings).all()
    assert not np.isin(saturated, measured.stars).any()


def test_enclosed_flux_is_right_to_half_a_per_cent(sky: Sky, measured) -> None:  # type: ignore[no-untyped-def]
    radius = np.array([2.0, 4.0, 8.0, 12.0, 20.0])
    for x, y in ((400, 350), (100, 80), (700, 600)):
        true = sky.psf.encircled_energy(radius, x, y) / sky.psf.encircled_energy(np.array([25.0]), x, y)
        found = measured.mixture.encircled_energy(radius, x, y)
        found = found / measured.mixture.encircled_energy(np.array([25.0]), x, y)
        assert np.abs(found - true).max() < 0.005


def test_shape_follows_the_image(sky: Sky, measured) -> None:  # type: ignore[no-untyped-def]
    x, y = np.meshgrid([100.0, 400.0, 700.0], [90.0, 350.0, 610.0])
    moments = []
    for psf in (sky.psf, measured.mixture):
        image = np.concatenate([psf.image(31, *p) for p in zip(x.ravel(), y.ravel(), strict=True)])
        places = 31.0 * np.arange(x.size) + 15.0
        pad = np.pad(image, 12).astype(np.float32)
        found = measure_moments(
            pad, np.zeros(pad.shape, bool), np.full(x.size, 27.0), places + 12, 1.0, start=1.5
        )
        moments.append((found.size, *found.ellipticity))
    true, found = np.array(moments)
    assert np.abs(found[0] / true[0] - 1).max() < 0.01
    assert np.abs(found[1:] - true[1:]).max() < 0.006
    assert np.ptp(true[1]) > 0.04  # there is something to follow


def test_stars_held_out_are_explained_to_their_noise(measured) -> None:  # type: ignore[no-untyped-def]
    assert 0.85 < measured.chi2 < 1.15


def test_the_same_every_time(sky: Sky, measured) -> None:  # type: ignore[no-untyped-def]
    again = sky.measure()
    np.testing.assert_array_equal(again.mixture.covariances, measured.mixture.covariances)
    np.testing.assert_array_equal(again.mixture.weights, measured.mixture.weights)


def test_a_flat_core_is_followed() -> None:
    """A camera out of focus: the light is in a ring, which positive Gaussians with one centre do not make."""
    sky = Sky(stars=5, galaxies=0, bright=0)
    ring = PsfMixture(
        np.array([-0.6, 1.5, 0.1]), np.array([[2.0, 0, 2.0], [3.5, 0.3, 3.0], [12.0, 0, 12.0]]), None, SHAPE
    )
    rng = np.random.default_rng(2)
    image = np.zeros(SHAPE)
    x = (60 + 75.0 * (np.arange(80) % 10) + rng.uniform(-15, 15, 80)).astype(float)
    y = (60 + 75.0 * (np.arange(80) // 10) + rng.uniform(-15, 15, 80)).astype(float)
    for i in range(80):
        _add(image, ring, x[i], y[i], 20000.0)
    sky.data = (image + rng.normal(size=SHAPE) * np.sqrt(1 + np.maximum(image, 0) / GAIN)).astype(np.float32)
    sky.bad, sky.x, sky.y = np.zeros(SHAPE, bool), x, y
    found = sky.measure().mixture
    difference = np.abs(found.image(15) - ring.image(15)).max() / ring.image(15).max()
    assert difference < 0.02


def test_few_stars_make_a_poorer_model() -> None:
    five = Sky(stars=6, galaxies=0, bright=0).measure()
    assert five.method == "stars"
    assert five.degree == 0
    assert np.isnan(five.chi2)
    true = Sky(stars=1, galaxies=0, bright=0).psf
    assert five.mixture.fwhm == pytest.approx(true.fwhm, rel=0.06)


def test_without_stars_the_width_is_the_callers() -> None:
    empty = Sky(stars=1, galaxies=0, bright=0)
    found = empty.measure()
    assert found.method == "assumed"
    assert found.mixture.fwhm == pytest.approx(moffat_mixture(3.6, 3.0).fwhm)
    none = measure_psf(empty.data, empty.variance, empty.bad, np.empty(0), np.empty(0))
    assert none.method == "assumed"
    assert len(none.stars) == 0


def pixel_gaussian(sigma: float) -> Callable[[int, float, float], NDArray[np.float64]]:
    """A round Gaussian integrated over pixels: an image of that size, off its middle by x and y, with a sum of 1."""

    def image(size: int, dx: float, dy: float) -> NDArray[np.float64]:
        edges = np.arange(size + 1) - size / 2
        row, column = (np.diff(0.5 * erf((edges - d) / (np.sqrt(2) * sigma))) for d in (dy, dx))
        return np.outer(row, column)

    return image


def test_selection_keeps_to_the_locus() -> None:
    rng = np.random.default_rng(3)
    n = 400
    x, y = rng.uniform(0, 1000, (2, n))
    snr = np.exp(rng.uniform(np.log(20), np.log(500), n))
    is_star = np.arange(n) < 120
    size = 1.6 * (1 + 0.1 * x / 1000) * (1 + rng.normal(0, 1 / snr))
    size[~is_star] *= np.exp(rng.uniform(0.05, 1.2, (~is_star).sum()))
    rays = rng.permutation(n)[:20]
    size[rays], is_star[rays] = 0.6, False
    usable = np.ones(n, bool)
    usable[5] = False
    star = select_stars(x, y, size, snr, usable)
    assert is_star[star].mean() > 0.9
    assert (star & is_star).sum() > 0.7 * (is_star & (snr > 40)).sum()
    assert not star[5]
    assert not select_stars(x[:2], y[:2], size[:2], snr[:2], usable[:2]).any()


def test_the_narrow_heap_is_the_stars_where_galaxies_are_more() -> None:
    rng = np.random.default_rng(5)
    stars, galaxies = 30, 300
    size = np.concatenate(
        [0.8 * np.exp(rng.normal(0, 0.02, stars)), 2.0 * np.exp(rng.normal(0, 0.25, galaxies))]
    )
    x, y = rng.uniform(0, 1000, (2, size.size))
    snr, usable = np.full(size.size, 200.0), np.ones(size.size, bool)
    assert np.flatnonzero(select_stars(x, y, size, snr, usable)).tolist() == list(range(stars))
    # Half as many again at one size: only the width that is known of the image tells which are stars.
    size[stars : stars + 45] = 2.0 * np.exp(rng.normal(0, 0.02, 45))
    assert select_stars(x, y, size, snr, usable)[:stars].sum() == 0
    told = select_stars(x, y, size, snr, usable, fwhm=2.3548 * 0.75)
    assert np.flatnonzero(told).tolist() == list(range(stars))


@pytest.mark.parametrize("sigma", [0.5, 0.6, 1.5])
def test_moments_of_stars_anywhere_in_their_pixel(sigma: float) -> None:
    # Stars narrower than a pixel have moments too, wherever in the pixel they lie.
    truth = pixel_gaussian(sigma)
    rng = np.random.default_rng(7)
    x, y = (np.array(divmod(np.arange(49), 7)) * 30 + 25 + rng.uniform(-0.5, 0.5, (2, 49))).astype(float)
    data = np.zeros((240, 240), np.float32)
    for a, b in zip(x, y, strict=True):
        column, row = round(a), round(b)
        data[row - 12 : row + 13, column - 12 : column + 13] += 1e4 * truth(25, a - column, b - row)
    found = measure_moments(data, np.zeros(data.shape, bool), x, y, 1.0, start=sigma)
    assert np.isfinite(found.size).all()
    # Of the sharpest, size and flux depend on where they lie, and that is all that is lost.
    rough = 0.01 if sigma > 1 else 0.1 if sigma > 0.55 else 0.4
    assert np.median(found.size) == pytest.approx(np.hypot(sigma, 12**-0.5), rel=rough)
    assert found.size.std() / np.median(found.size) < rough
    np.testing.assert_allclose(np.hypot(found.x - x, found.y - y), 0, atol=rough)
    assert np.median(found.flux) == pytest.approx(1e4, rel=rough)


def test_crowding_counts_neighbours() -> None:
    x, y = np.array([10.0, 12.0, 50.0]), np.zeros(3)
    near = crowding(x, y, np.array([100.0, 10.0, 5.0]), 10.0)
    assert near[0] == pytest.approx(0.1 * 0.96**2)
    assert near[1] == pytest.approx(10 * 0.96**2)
    assert near[2] == 0
    assert crowding(x, y, np.array([1.0, np.nan, -1.0]), 10.0)[1:].tolist() == [np.inf, np.inf]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"psf.radius is -1; expected a positive number"):
        StarPsfSettings(radius=-1)
    with pytest.raises(ConfigError, match="max_stars"):
        StarPsfSettings(max_stars=1)
