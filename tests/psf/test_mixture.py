"""PSFs as mixtures of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.psf.mixture import (
    PIXEL_VARIANCE,
    PsfMixture,
    calmed,
    fit_mixture,
    moffat_mixture,
    polynomial_terms,
    subpixel_offsets,
)
from imcat.surveys.curves import psf_image

Float64 = NDArray[np.float64]
ROUND = np.array([[2.0, 0.0, 2.0]])


def _moffat_image(size: int, fwhm: float, beta: float, fine: int = 11) -> Float64:
    """A Moffat profile integrated over pixels by brute force."""
    core = 0.5 * fwhm / np.sqrt(2 ** (1 / beta) - 1)
    at = (np.arange(size * fine) + 0.5) / fine - size / 2
    profile = (1 + (at[:, None] ** 2 + at**2) / core**2) ** -beta * (beta - 1) / (np.pi * core**2)
    return profile.reshape(size, fine, size, fine).mean((1, 3))


def test_image_of_one_gaussian() -> None:
    psf = PsfMixture(np.array([1.0]), np.array([[3.0, 0.8, 2.0]]))
    image = psf.image(31)
    y, x = np.mgrid[-15:16, -15:16]
    assert image.sum() == pytest.approx(1)
    for a, b, value in ((x, x, 3.0), (x, y, 0.8), (y, y, 2.0)):
        assert (image * a * b).sum() == pytest.approx(value, rel=1e-6)


def test_fwhm_and_energy_of_one_gaussian() -> None:
    psf = PsfMixture(np.array([1.0]), ROUND)
    assert psf.fwhm == pytest.approx(2.354820 * np.sqrt(2), rel=1e-6)
    r = np.array([0.0, 1.0, 3.0, 20.0])
    np.testing.assert_allclose(psf.encircled_energy(r), 1 - np.exp(-(r**2) / 4), atol=1e-12)


def test_energy_of_an_elliptical_mixture() -> None:
    psf = PsfMixture(np.array([0.7, 0.3]), np.array([[4.0, 1.5, 3.0], [20.0, -5.0, 12.0]]))
    step = 0.05
    at = np.arange(-12, 12, step) + step / 2
    x, y = np.meshgrid(at, at)
    xx, xy, yy = psf.covariances.T[..., None, None]
    determinant = xx * yy - xy**2
    distance = (yy * x**2 - 2 * xy * x * y + xx * y**2) / determinant
    height = psf.weights[:, None, None] / (2 * np.pi * np.sqrt(determinant)) * step**2
    light = (height * np.exp(-0.5 * distance)).sum(axis=0)
    for r in (1.7, 5.3, 9.3):
        inside = light[np.hypot(x, y) < r].sum()
        assert psf.encircled_energy(np.array([r]))[0] == pytest.approx(inside, abs=1e-3)


def test_a_moffat_seen_through_pixels() -> None:
    for fwhm, beta in ((2.6, 3.0), (3.5, 4.765), (1.4, 3.5)):
        truth = _moffat_image(61, fwhm, beta)
        psf = moffat_mixture(fwhm, beta)
        image = psf.image(61)
        assert np.abs(image - truth / truth.sum()).max() < 0.006 * truth.max()
        # Four Gaussians are enough, up to five.
        assert 3 <= len(psf) <= 5


def test_ellipticity_of_a_moffat() -> None:
    image = moffat_mixture(6.0, 4.0, ellipticity=(0.1, -0.2)).image(81)
    y, x = np.mgrid[-40:41, -40:41]
    xx, xy, yy = ((image * a * b).sum() for a, b in ((x, x), (x, y), (y, y)))
    # The pixel makes it a little rounder.
    assert (xx - yy) / (xx + yy) == pytest.approx(0.1, rel=0.03)
    assert 2 * xy / (xx + yy) == pytest.approx(-0.2, rel=0.03)


def test_fit_finds_a_mixture_again() -> None:
    truth = PsfMixture(np.array([0.75, 0.25]), np.array([[1.5, 0.2, 1.3], [7.0, -0.5, 8.0]]))
    found = fit_mixture(truth.image(41), components=2)
    assert np.abs(found.image(41) - truth.image(41)).max() < 1e-3 * truth.image(41).max()
    np.testing.assert_allclose(found.weights, truth.weights, atol=0.01)


def test_fit_of_an_oversampled_image_off_centre() -> None:
    y, x = np.mgrid[:120, :120] / 3.0
    xx, yy = 1.8, 1.2  # native pixels²
    image = np.exp(-0.5 * ((x - 20.1) ** 2 / xx + (y - 19.7) ** 2 / yy))
    found = fit_mixture(image, oversampling=3, components=1)
    np.testing.assert_allclose(found.covariances, [[xx, 0, yy]], atol=2e-3)


def test_fit_of_noise_stays_near_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = moffat_mixture(3.0, 3.5)
    image = truth.image(35)
    noisy = image + rng.normal(0, 3e-3 * image.max(), image.shape)
    found = fit_mixture(noisy)
    assert np.abs(found.image(35) - image).max() < 0.015 * image.max()
    assert found.fwhm == pytest.approx(truth.fwhm, rel=0.01)


@pytest.mark.parametrize("band", ["nuv", "r", "y"])
def test_the_packaged_psfs_of_csst(band: str) -> None:
    image = psf_image("csst", band)
    psf = fit_mixture(image, components=5, subpixels=2, concentric=False)
    # Half of the light within 1.3 pixels: 80 % within 0.108 to 0.13 arcsec of 0.074 each.
    energy = psf.encircled_energy(np.array([0.108 / 0.074, 0.13 / 0.074]))
    assert energy[0] < 0.85
    assert energy[1] > 0.72
    # The centroid of the light is the position of the source.
    np.testing.assert_allclose(psf.weights @ psf.centres, 0, atol=1e-12)


def test_parts_of_a_pixel_integrate_a_narrow_gaussian() -> None:
    from scipy.special import erf

    sigma = 0.35
    psf = PsfMixture(np.array([1.0]), (sigma**2 + PIXEL_VARIANCE) * np.array([[1.0, 0.0, 1.0]]), subpixels=2)
    edges = np.arange(12) - 5.5
    row = 0.5 * np.diff(erf(edges / (np.sqrt(2) * sigma)))
    exact = np.outer(row, row)
    assert np.abs(psf.image(11) - exact).max() < 0.002 * exact.max()
    # In one piece it would be wrong.
    single = PsfMixture(psf.weights, psf.covariances)
    assert np.abs(single.image(11) - exact).max() > 0.005 * exact.max()


def test_parts_of_a_pixel() -> None:
    np.testing.assert_allclose(subpixel_offsets(1), [0])
    np.testing.assert_allclose(subpixel_offsets(2), [-0.25, 0.25])


def test_variation_over_an_image() -> None:
    variation = np.zeros((1, 3, 2))
    variation[0, 0] = [0.5, -0.25]  # xx grows with x, falls with y
    psf = PsfMixture(np.array([1.0]), ROUND, variation, shape=(101, 201))
    at = psf.at(np.array([100.0, 200.0, 0.0]), np.array([50.0, 50.0, 100.0]))
    np.testing.assert_allclose(at[:, 0, 0], [2.0, 2.5, 1.25])
    np.testing.assert_allclose(at[:, 0, 1:], [[0, 2]] * 3)
    assert psf.fwhm_at(200.0, 50.0) > psf.fwhm > psf.fwhm_at(0.0, 100.0)
    assert psf.image(15, 200.0, 50.0).max() < psf.image(15).max()


def test_terms_of_polynomials() -> None:
    terms = polynomial_terms(np.array([10.0]), np.array([0.0]), (11, 11), 9)[:, 0]
    # x' = 1, y' = -1: x, y, x², xy, y², x³, x²y, xy², y³
    np.testing.assert_allclose(terms, [1, -1, 1, -1, 1, 1, -1, 1, -1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([0.5, 0.4]), np.tile(ROUND, (2, 1))), "sum to 0.9"),
        ((np.array([1.0]), ROUND[:, :2]), r"expected shapes \(1,\) and \(1, 3\)"),
        ((np.array([1.0]), np.array([[1.0, 2.0, 1.0]])), "not that of a Gaussian"),
        ((np.array([1.0]), ROUND, np.zeros((1, 3, 2))), "unknown size"),
        ((np.array([1.0]), ROUND, np.zeros((1, 3, 4)), (9, 9)), "m one of 2, 5, 9"),
        ((np.array([1.0]), ROUND, np.full((1, 3, 2), 3.0), (9, 9)), "not that of a Gaussian"),
    ],
)
def test_impossible_mixtures_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PsfMixture(*arguments)  # type: ignore[arg-type]


def test_impossible_fits_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5 pixels"):
        fit_mixture(np.ones((3, 9)))
    with pytest.raises(InputError, match="positive, finite sum"):
        fit_mixture(np.zeros((9, 9)))
    with pytest.raises(InputError, match=r"expected FWHM above 0, beta above 1\.5"):
        moffat_mixture(3.0, 1.2)


def test_a_variation_that_leaves_no_width_is_calmed() -> None:
    covariances = np.array([[2.0, 0.0, 2.0], [30.0, 5.0, 40.0]])
    variation = np.zeros((2, 3, 9))
    variation[0, 0, 0] = 0.5
    # Up and down between the edges and the middle: a wide Gaussian that is none at some places.
    variation[1, 0, 5], variation[1, 1, 8] = 60.0, 30.0
    shape = (500, 400)
    with pytest.raises(InputError, match="Gaussian 1 of a PSF"):
        PsfMixture(np.array([0.8, 0.2]), covariances, variation, shape)
    calm = calmed(covariances, variation, shape)
    np.testing.assert_array_equal(calm[0], variation[0])
    ratio = calm[1, 0, 5] / variation[1, 0, 5]
    assert 0 < ratio < 1
    np.testing.assert_allclose(calm[1], ratio * variation[1])
    psf = PsfMixture(np.array([0.8, 0.2]), covariances, calm, shape)
    rng = np.random.default_rng(1)
    xx, xy, yy = np.moveaxis(psf.at(rng.uniform(0, 399, 4000), rng.uniform(0, 499, 4000)), -1, 0)
    assert (xx * yy > xy**2).all()


def test_beyond_the_image_a_psf_is_that_of_its_edge() -> None:
    variation = np.zeros((1, 3, 9))
    variation[0, :, 5] = [0.9, 0.1, 0.9]
    psf = PsfMixture(np.ones(1), np.array([[2.0, 0.3, 2.0]]), variation, (300, 200))
    np.testing.assert_array_equal(
        psf.at(np.array([-80.0]), np.array([120.0])), psf.at(np.zeros(1), np.array([120.0]))
    )
    np.testing.assert_array_equal(
        psf.at(np.array([1e4]), np.array([-1e4])), psf.at(np.array([199.0]), np.array([0.0]))
    )
