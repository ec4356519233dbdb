"""Throughput curves and point-spread functions that are packaged."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.errors import InputError
from imcat.surveys.curves import ab_zero_point, pivot_wavelength, psf_image, throughput

# Zero points for a 2 m aperture as stated beside the public data (1 e-/s, AB).
ZERO_POINTS = {"nuv": 24.74, "u": 25.19, "g": 26.26, "r": 26.03, "i": 25.86, "z": 25.20, "y": 23.85}


@pytest.mark.parametrize("band", ZERO_POINTS)
def test_zero_point_is_that_of_a_two_metre_aperture(band: str) -> None:
    assert ab_zero_point(*throughput("csst", band), diameter=2.0) == pytest.approx(
        ZERO_POINTS[band], abs=0.05
    )


def test_bands_lie_in_order_of_wavelength() -> None:
    pivots = [pivot_wavelength(*throughput("csst", band)) for band in ZERO_POINTS]
    assert pivots == sorted(pivots)
    # Edges of the survey's wavelength range (Zhan 2021, Chinese Science Bulletin 66, 1290: 255-1000 nm).
    assert 2550 < pivots[0] < 3200
    assert 9000 < pivots[-1] < 10000


@pytest.mark.parametrize("band", ZERO_POINTS)
def test_curve_is_a_transmission(band: str) -> None:
    wavelength, transmission = throughput("csst", band)
    assert (np.diff(wavelength) > 0).all()
    assert transmission.min() >= 0
    assert 0 < transmission.max() < 1


def test_a_narrow_band_has_its_pivot_in_its_middle() -> None:
    wavelength = np.linspace(4990.0, 5010.0, 21)
    assert pivot_wavelength(wavelength, np.ones(21)) == pytest.approx(5000.0, abs=0.01)


def test_name_of_a_band_may_be_written_as_the_survey_does() -> None:
    assert throughput("csst", "NUV")[0] is throughput("csst", "NUV")[0]
    np.testing.assert_array_equal(throughput("csst", "NUV")[1], throughput("csst", "nuv")[1])


def test_cached_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        throughput("csst", "r")[1][0] = 1.0


@pytest.mark.parametrize("band", ZERO_POINTS)
def test_psf_is_normalised_and_centred(band: str) -> None:
    image = psf_image("csst", band)
    assert image.sum() == pytest.approx(1.0)
    middle = [(n - 1) / 2 for n in image.shape]
    peak = np.unravel_index(int(image.argmax()), image.shape)
    np.testing.assert_allclose(peak, middle, atol=1.5)


def test_unknown_survey_and_band_are_named() -> None:
    with pytest.raises(InputError, match=r"survey 'lsst'.*one of csst"):
        throughput("lsst", "r")
    with pytest.raises(InputError, match=r"no band 'h'.*one of nuv, u, g, r, i, z, y"):
        throughput("csst", "h")
