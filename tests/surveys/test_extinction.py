"""Galactic extinction by band."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from imcat.errors import ImcatError
from imcat.surveys.extinction import SDSS_COEFFICIENTS, band_extinction, ebv_from_maps

# Effective wavelengths of the SDSS filters in angstrom (Fukugita et al. 1996, AJ 111, 1748, table 2a).
SDSS = {"u": 3557.0, "g": 4825.0, "r": 6261.0, "i": 7672.0, "z": 9097.0}
CSST = {"nuv": 2870.0, "u": 3600.0, "g": 4750.0, "r": 6200.0, "i": 7600.0, "z": 9000.0, "y": 9900.0}


def _cardelli(wavelength: float) -> float:
    """A(wavelength) / A(V) for R_V = 3.1: Cardelli, Clayton & Mathis (1989, ApJ 345, 245), eq. 3, optical."""
    y = 1e4 / wavelength - 1.82
    a = [1, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999]
    b = [0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002]
    return float(np.polyval(a[::-1], y) + np.polyval(b[::-1], y) / 3.1)


def test_sdss_has_its_published_coefficients() -> None:
    extinction = band_extinction("sdss", SDSS, 0.1)
    assert extinction == pytest.approx({"u": 0.4239, "g": 0.3303, "r": 0.2285, "i": 0.1698, "z": 0.1263})
    assert list(extinction) == list(SDSS)


def test_only_the_bands_of_the_tile_are_there() -> None:
    assert band_extinction("sdss", {"r": SDSS["r"]}, 1.0) == {"r": SDSS_COEFFICIENTS["r"]}


def test_no_dust_no_extinction() -> None:
    assert set(band_extinction("sdss", SDSS, 0.0).values()) == {0.0}


def test_law_decreases_with_wavelength_and_grows_with_dust() -> None:
    pytest.importorskip("dust_extinction")
    one, two = band_extinction("csst", CSST, 0.1), band_extinction("csst", CSST, 0.2)
    values = list(one.values())
    assert values == sorted(values, reverse=True)
    assert min(values) > 0
    np.testing.assert_allclose(list(two.values()), 2 * np.array(values))


@pytest.mark.parametrize("wavelength", [3600.0, 4400.0, 5500.0, 6500.0, 8000.0, 9000.0])
def test_law_is_close_to_that_of_others(wavelength: float) -> None:
    pytest.importorskip("dust_extinction")
    ours = band_extinction("generic", {"b": wavelength}, 1.0)["b"]
    assert ours == pytest.approx(0.86 * 3.1 * _cardelli(wavelength), rel=0.15)


def test_law_is_close_to_the_coefficients_of_sdss() -> None:
    pytest.importorskip("dust_extinction")
    for band, value in band_extinction("generic", SDSS, 1.0).items():
        assert value == pytest.approx(SDSS_COEFFICIENTS[band], rel=0.1), band


def test_missing_package_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dust_extinction", "dust_extinction.parameter_averages"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImcatError, match=r"needs the package dust_extinction, which is not installed.*surveys\.ebv"
    ):
        band_extinction("csst", CSST, 0.1)
    assert band_extinction("sdss", SDSS, 0.1)["r"] == pytest.approx(0.2285)  # does not need it


def test_without_maps_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dustmaps", "dustmaps.sfd"):
        monkeypatch.setitem(sys.modules, name, None)
    assert ebv_from_maps(150.0, 2.0) is None
