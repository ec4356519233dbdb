"""Filters on the templates' grid: an independent synthetic photometry, offsets, dust, bad curves."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.errors import InputError
from imcat.simulate.filters import FilterSet
from imcat.simulate.spectra_file import grid_wavelengths
from imcat.simulate.spectra_fit import _bin
from imcat.surveys.curves import pivot_wavelength, throughput
from imcat.surveys.extinction import SDSS_COEFFICIENTS

BOX = (np.array([4000.0, 5000.0]), np.array([0.5, 0.5]))


def test_named_sets_have_the_bands_and_pivots_of_their_curves():
    csst = FilterSet.named("csst")
    assert csst.names == ("nuv", "u", "g", "r", "i", "z", "y")
    assert csst.wavelengths[3] == pytest.approx(pivot_wavelength(*throughput("csst", "r")))
    assert not csst.ab_offset.any()
    sdss = FilterSet.named("sdss")
    assert sdss.names == ("u", "g", "r", "i", "z")
    # Doi et al. (2010), table 1: 3557, 4702, 6175, 7491, 8946 Å as designed; within the 1 % of the camera columns.
    np.testing.assert_allclose(sdss.wavelengths, [3557, 4702, 6175, 7491, 8946], rtol=0.012)
    # u_AB = u_SDSS - 0.04, z_AB = z_SDSS + 0.02.
    assert sdss.ab_offset.tolist() == [-0.04, 0, 0, 0, 0.02]


def test_weights_average_a_spectrum_as_photons_do():
    """A power law has a mean that can be written down: f_nu = λ^2 over a box in dλ/λ."""
    filters = FilterSet.from_curves({"box": BOX})
    assert filters.weights.sum() == pytest.approx(1)
    mean = filters.weights[0] @ grid_wavelengths() ** 2
    assert mean == pytest.approx((5000**2 - 4000**2) / 2 / np.log(5000 / 4000), rel=5e-4)


def test_weights_agree_with_speclite():
    """An independent package: a steep spectrum with a break through the CSST curves."""
    speclite = pytest.importorskip("speclite.filters")
    import astropy.units as u

    wave = np.arange(2000.0, 11500.0, 1.0)
    f_lambda = np.where(wave < 4500, 0.3, 1.0) * (wave / 5000) ** -2.5
    csst = FilterSet.named("csst")
    on_grid = np.nan_to_num(_bin(wave, f_lambda))
    ours = -2.5 * np.log10(csst.weights @ on_grid)
    theirs = []
    for band in csst.names:
        x, y = throughput("csst", band)
        x, y = np.concatenate([[x[0] - 1], x, [x[-1] + 1]]), np.concatenate([[0], y, [0]])
        curve = speclite.FilterResponse(x * u.AA, y, {"group_name": "csst", "band_name": band})
        flux = f_lambda * u.erg / u.s / u.cm**2 / u.AA
        theirs.append(curve.get_ab_magnitude(flux, wave * u.AA))
    difference = ours - np.array(theirs)
    np.testing.assert_allclose(difference - difference.mean(), 0, atol=0.003)


def test_dust_uses_published_coefficients_for_sdss_and_the_law_elsewhere():
    sdss = FilterSet.named("sdss").extinction(0.1)
    np.testing.assert_allclose(sdss, [0.1 * SDSS_COEFFICIENTS[b] for b in "ugriz"])
    csst = FilterSet.named("csst").extinction(np.array([0.0, 0.1, 0.2]))
    assert csst.shape == (3, 7)
    assert not csst[0].any()
    assert np.all(np.diff(csst[2]) < 0)
    np.testing.assert_allclose(csst[2], 2 * csst[1])
    assert csst[1, 3] == pytest.approx(sdss[2], rel=0.05)


def test_key_tells_sets_apart():
    assert FilterSet.named("sdss").key == FilterSet.named("sdss").key
    assert FilterSet.named("sdss").key != FilterSet.named("csst").key


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (([4000, 5000, 4900], [1, 1, 1]), "do not rise"),
        (([4000, 5000], [1, -0.1]), "falls to -0.1"),
        (([4000, 5000], [0, 0]), "passes no light"),
        (([4000, np.nan], [1, 1]), "not finite"),
        (([4000, 5000], [1, 1, 1]), "shape"),
        (([4000], [1]), "at least 2"),
        ((["a", "b"], [1, 1]), "not numeric"),
        (([0.4, 0.5], [1, 1]), "are in Å"),
        (([900, 2000], [1, 1]), "outside of the template spectra"),
        (([20000, 30000], [1, 1]), "outside of the template spectra"),
    ],
)
def test_bad_curves_are_refused(curve, message):
    with pytest.raises(InputError, match=message) as error:
        FilterSet.from_curves({"g": BOX, "odd": curve})
    assert "'odd'" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tail_outside_of_the_range_is_no_obstacle():
    filters = FilterSet.from_curves({"g": ([900, 4000, 5000, 26000], [0, 1e-4, 1, 0])})
    assert len(filters) == 1


def test_no_bands_and_unknown_surveys_are_refused():
    with pytest.raises(InputError, match="without bands"):
        FilterSet.from_curves({})
    with pytest.raises(InputError, match="'hst'"):
        FilterSet.named("hst")
    with pytest.raises(InputError, match="E\\(B-V\\)"):
        FilterSet.named("sdss").extinction(-0.1)
