"""The circles whose light magnitudes are."""

import numpy as np
import pytest

from imcat.simulate.csst_camera import csst_psf
from imcat.surveys.calibration import calibration_radius
from imcat.surveys.csst_constants import BANDS, PIXEL_SCALE
from imcat.surveys.curves import psf_image


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
