"""Absorption between the galaxies against measured means and its own limits."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.simulate.intergalactic import transmission

WAVES = np.linspace(1000.0, 9000.0, 4001)


def test_nothing_is_absorbed_at_redshift_zero_or_redward_of_lyman_alpha():
    assert transmission(0.0, WAVES) == pytest.approx(1)
    assert transmission(3.0, WAVES)[WAVES > 4 * 1216] == pytest.approx(1)


@pytest.mark.parametrize(("z", "depth"), [(2.0, 0.127), (3.0, 0.362), (4.0, 0.854)])
def test_lyman_alpha_depth_is_the_measured_one(z, depth):
    """Becker et al. (2013, MNRAS 430, 2067), table 2 and eq. 5: effective depths, here within 25 %."""
    assert -np.log(transmission(z + 0.15, np.array([1215.0 * (1 + z)]))[0]) == pytest.approx(depth, rel=0.25)


def test_absorption_grows_with_redshift_and_is_a_share():
    rest = np.linspace(600.0, 1200.0, 200)
    means = [transmission(z, rest * (1 + z)).mean() for z in (0.5, 1.5, 2.5, 3.5, 4.6, 4.8, 6.0)]
    assert np.all(np.diff(means) < 0)
    for z in (0.1, 1.19, 1.21, 2.01, 4.69, 4.71, 7.0):
        passed = transmission(z, WAVES)
        assert np.all((passed >= 0) & (passed <= 1))


@pytest.mark.parametrize("z", [1.2, 2.0, 4.7])
def test_pieces_of_the_fit_meet(z):
    np.testing.assert_allclose(
        transmission(z - 1e-6, WAVES), transmission(z + 1e-6, WAVES), atol=0.015
    )  # fits
