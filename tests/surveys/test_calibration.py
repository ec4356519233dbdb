"""The circles whose light magnitudes are."""

import tomllib

import numpy as np
import pytest

from imcat.errors import InputError
from imcat.psf.mixture import PsfMixture
from imcat.simulate.csst_camera import csst_psf
from imcat.simulate.csst_psf_fit import fit_band, mixture_text
from imcat.surveys.calibration import calibration_radius
from imcat.surveys.csst_constants import BANDS, PIXEL_SCALE
from imcat.surveys.curves import psf_gaussians, psf_image


def test_circle_of_csst_holds_the_light_of_every_band() -> None:
    radius = calibration_radius("csst")
    assert radius is not None
    for band in BANDS:
        image = psf_image("csst", band)
        y, x = np.indices(image.shape)
        away = np.hypot(x - (x * image).sum(), y - (y * image).sum())
        inside = away * 0.5 * PIXEL_SCALE < radius  # two of its pixels are one of the detector's
        assert image[inside].sum() > 0.99, band


def test_light_within_the_circle_and_within_six_widths() -> None:
    circle = calibration_radius("csst")
    assert circle is not None
    held = {
        b: csst_psf(b).encircled_energy(np.array([circle / PIXEL_SCALE, 6 * csst_psf(b).fwhm])) for b in BANDS
    }
    assert min(held, key=lambda b: held[b][0]) == "nuv"
    assert held["nuv"] == pytest.approx([0.994, 0.943], abs=6e-4)
    assert min(held[b][0] for b in BANDS[1:]) == pytest.approx(0.998, abs=6e-4)
    assert max(held[b][1] for b in BANDS) == pytest.approx(held["i"][1]) == pytest.approx(0.991, abs=6e-4)


def test_other_surveys() -> None:
    assert calibration_radius("sdss") == 7.43
    assert calibration_radius("generic") is None


@pytest.mark.parametrize("band", BANDS)
def test_packaged_gaussians_follow_the_packaged_images(band: str) -> None:
    image = psf_image("csst", band)
    middle = image.shape[0] // 2
    own = image[middle - 24 : middle + 24, middle - 24 : middle + 24]
    weights, covariances = psf_gaussians("csst", band)
    assert weights.sum() == pytest.approx(1)
    psf = PsfMixture(weights, covariances, subpixels=2)
    y, x = np.indices(own.shape)
    away = np.hypot(x - (x * own).sum() / own.sum(), y - (y * own).sum() / own.sum())
    # Whole pixels make rough circles: not small ones.
    for radius in (4.0, 6.0, 10.0, 16.0):
        held = own[away < radius].sum() / own.sum()
        assert psf.encircled_energy(np.array([radius]))[0] == pytest.approx(held, abs=0.025)


def test_gaussians_are_packaged_with_all_digits() -> None:
    mixtures = {band: csst_psf(band) for band in BANDS}
    read = tomllib.loads(mixture_text(mixtures))
    for band in BANDS:
        weights, covariances = psf_gaussians("csst", band)
        assert (np.array(read[band]["weights"]) == weights).all()
        assert (np.array(read[band]["covariances"]) == covariances).all()
    with pytest.raises(InputError, match="no band"):
        psf_gaussians("csst", "H")


def test_a_fit_is_about_what_is_packaged() -> None:
    # Where the search ends depends on the processor; the core does not.
    fitted, packaged = fit_band("g"), csst_psf("g")
    assert fitted.fwhm == pytest.approx(packaged.fwhm, rel=0.05)
    radius = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(fitted.encircled_energy(radius), packaged.encircled_energy(radius), atol=0.02)
