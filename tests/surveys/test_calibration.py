"""The circles whose light magnitudes are."""

import numpy as np

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


def test_other_surveys() -> None:
    assert calibration_radius("sdss") == 7.43
    assert calibration_radius("generic") is None
