"""The PSF of an exposure: given models, stars, and what remains without either."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.psf.exposure_psf import measure_exposure_psf
from imcat.psf.given_psf import given_mixture, supported
from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import points
from imcat.render.draw import draw

Float64 = NDArray[np.float64]
SHAPE = (400, 420)


@dataclass(frozen=True)
class Given:
    """A PSF that is a mixture, with parts that an image may not have."""

    mixture: PsfMixture
    ripples: int = 0  # each a ring of light that grows along x

    def image(self, x: float, y: float) -> Float64:
        image = self.mixture.image(51, x, y)
        v, u = np.mgrid[-25:26, -25:26]
        for k in range(self.ripples):
            ring = np.exp(-0.5 * ((np.hypot(u, v) - 5 - 3 * k) / 1.5) ** 2)
            image = image + 0.15 * (x / SHAPE[1]) * ring / ring.sum()
        return image / image.sum()

    def simpler(self) -> Given | None:
        return replace(self, ripples=self.ripples - 1) if self.ripples else None


def _field(psf: PsfMixture, n: int = 30) -> tuple[NDArray[np.float32], NDArray[np.float32], Float64, Float64]:
    rng = np.random.default_rng(3)
    x, y = (
        g.ravel() + rng.uniform(-2, 2, g.size)
        for g in np.meshgrid(np.arange(35, 385, 58), np.arange(35, 370, 58))
    )
    x, y = x[:n], y[:n]
    flux = np.geomspace(600, 20000, x.size)
    light = np.zeros(SHAPE)
    draw(light, points(flux[:, None]), 0, x, y, np.eye(2), psf, floor=1e-4)
    image = light + rng.normal(0, 1, SHAPE)
    return image.astype(np.float32), np.ones(SHAPE, np.float32), x, y


def test_a_given_model_becomes_the_same_mixture() -> None:
    truth = moffat_mixture(3.2, 3.0, (0.05, 0.02))
    mixture, chi2 = given_mixture(Given(truth), SHAPE)
    assert chi2 < 0.5
    np.testing.assert_allclose(
        mixture.image(31, 200.0, 200.0), truth.image(31), atol=0.01 * truth.image(31).max()
    )
    assert mixture.fwhm == pytest.approx(truth.fwhm, rel=0.01)


def test_parts_that_the_stars_contradict_are_left_out() -> None:
    truth = moffat_mixture(3.2, 3.0)
    data, variance, x, y = _field(truth)
    bad = np.zeros(SHAPE, bool)
    kept = supported(Given(truth, ripples=2), data, variance, bad, x, y)
    assert isinstance(kept, Given)
    assert kept.ripples == 0
    # A part that is real stays.
    image = np.zeros(SHAPE)
    rng = np.random.default_rng(5)
    model = Given(truth, ripples=1)
    for px, py, flux in zip(
        np.rint(x).astype(int), np.rint(y).astype(int), np.geomspace(600, 20000, x.size), strict=True
    ):
        image[py - 25 : py + 26, px - 25 : px + 26] += flux * model.image(px, py)
    noisy = (image + rng.normal(0, 1, SHAPE)).astype(np.float32)
    kept = supported(replace(model, ripples=2), noisy, variance, bad, np.rint(x), np.rint(y))
    assert isinstance(kept, Given)
    assert kept.ripples == 1


def test_method_and_circle() -> None:
    truth = moffat_mixture(3.2, 3.0)
    data, variance, x, y = _field(truth)
    bad = np.zeros(SHAPE, bool)
    given = measure_exposure_psf(data, variance, bad, x, y, given=Given(truth), circle=8.0)
    assert given.method == "file"
    assert given.enclosed == pytest.approx(truth.encircled_energy(np.array([8.0]))[0], abs=0.01)
    stars = measure_exposure_psf(data, variance, bad, x, y, fwhm=3.0)
    assert stars.method == "stars"
    assert stars.stars >= 20
    assert stars.quality == pytest.approx(1, abs=0.3)
    assert stars.locus is not None
    assert stars.locus.all()
    assert stars.mixture.fwhm == pytest.approx(truth.fwhm, rel=0.02)
    none = measure_exposure_psf(data, variance, bad, x[:1], y[:1], fwhm=3.0)
    assert none.method == "assumed"
    assert none.locus is None
    assert none.mixture.fwhm == pytest.approx(moffat_mixture(3.0, 3.0).fwhm, rel=0.02)


def test_candidates_of_another_band_keep_galaxies_out() -> None:
    truth = moffat_mixture(3.0, 3.0)
    data, variance, x, y = _field(truth, 36)
    wide = moffat_mixture(3.9, 3.0)
    extra, _, _, _ = _field(wide, 36)
    star = np.arange(36) % 6 == 0
    # One in six is a star, all others are a little wider: together they would pass for the locus.
    mixed = data.copy()
    for k in np.flatnonzero(~star):
        part = (slice(int(y[k]) - 25, int(y[k]) + 26), slice(int(x[k]) - 25, int(x[k]) + 26))
        mixed[part] = extra[part]
    bad = np.zeros(SHAPE, bool)
    alone = measure_exposure_psf(mixed, variance, bad, x, y, fwhm=3.0)
    told = measure_exposure_psf(mixed, variance, bad, x, y, fwhm=3.0, candidates=star)
    assert alone.mixture.fwhm > 1.15 * truth.fwhm
    assert told.mixture.fwhm == pytest.approx(truth.fwhm, rel=0.02)


def test_three_galaxies_are_no_psf() -> None:
    galaxies = moffat_mixture(14.0, 3.0)
    data, variance, x, y = _field(galaxies, 36)
    bad = np.zeros(SHAPE, bool)
    few = [34, 35, 33]
    believed = measure_exposure_psf(data, variance, bad, x[few], y[few])
    assert believed.method == "stars"  # nothing is known against it
    assert np.isnan(believed.quality)
    assert believed.mixture.fwhm > 10
    refused = measure_exposure_psf(data, variance, bad, x[few], y[few], fwhm=3.0)
    assert refused.method == "assumed"
    assert refused.stars == 0
    assert refused.locus is None
    assert refused.mixture.fwhm == pytest.approx(moffat_mixture(3.0, 3.0).fwhm, rel=0.02)
    # Stars of about that width are believed, few as they are.
    stars = measure_exposure_psf(data, variance, bad, x[few], y[few], fwhm=11.0)
    assert stars.method == "stars"
