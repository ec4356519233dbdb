"""Tables drawn from the simulator: kinds, errors and dust as they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imcat.catalogue.fields import AB_FLUX
from imcat.classify.photometry import GLOBALS, SHARP
from imcat.errors import ConfigError
from imcat.simulate.filters import FilterSet
from imcat.simulate.scene import Models
from imcat.simulate.sources import Kind
from imcat.train.classification_data import TableSet
from imcat.train.drawn_tables import Depths, _measured, depths_of, drawn_table
from imcat.train.source_training import _drawn

DEPTHS = Depths(
    np.array([19.0, 20.0, 13.0, 19.0, 27.0, 42.0, 70.0]), np.array([0.8, 1.0, 0.4, 0.5, 0.6, 1.2, 2.2]), 6.0,
    np.linspace(0.75, 0.82, 7), (0.04, 0.3), (0.09, 0.13),
)  # fmt: skip


@pytest.fixture(scope="module")
def table() -> TableSet:
    return drawn_table(1200, Models.load(), DEPTHS)


def test_every_kind_is_there_with_what_is_known_of_it(table: TableSet) -> None:
    kind = table.labels.kind.numpy()
    assert 1000 < len(table) <= 1200
    assert (np.bincount(kind, minlength=3) > 150).all()
    star = kind == Kind.STAR
    z = table.labels.redshift.numpy()
    assert np.isnan(z[star]).all()
    assert (z[~star] > 0).all()
    assert torch.isnan(table.labels.lens).all()
    assert (table.labels.morphology == -1).all()
    np.testing.assert_array_equal(table.labels.known.numpy(), kind)
    assert (table.measured.spectroscopic == 0).all()  # the sky's, not a survey's choice


def test_it_looks_like_a_table_of_an_image_from_space(table: TableSet) -> None:
    p = table.photometry
    np.testing.assert_allclose(p.wavelength, FilterSet.named("csst").wavelengths)
    assert np.isfinite(p.total).all()
    assert np.isnan(p.psf).all()
    assert (np.exp(p.extra[:, GLOBALS.index("log_psf")]) < SHARP).all()
    assert 0.4 < np.isnan(p.aperture).all(axis=1).mean() < 0.6
    unknown = np.isnan(p.extinction)
    assert 0.3 < unknown.all(axis=1).mean() < 0.5
    assert (unknown.any(axis=1) == unknown.all(axis=1)).all()


def test_light_that_is_missing_around_the_centre_is_the_galaxies(table: TableSet) -> None:
    p, kind = table.photometry, table.labels.kind.numpy()
    bright = (p.total_err[:, 3] < 0.03) & np.isfinite(p.aperture[:, 3])
    lost = (p.aperture - p.total)[:, 3]
    assert np.median(lost[bright & (kind == Kind.STAR)]) == pytest.approx(
        -2.5 * np.log10(DEPTHS.central[3]), abs=0.03
    )
    assert 1.0 < np.median(lost[bright & (kind == Kind.GALAXY)]) < 3.5


def test_errors_are_those_of_the_fluxes() -> None:
    """The same truth seen twice differs by as much as the errors say, where these are above the misfit."""
    n = 4000
    filters = FilterSet.named("csst")
    true = np.tile(np.linspace(22.5, 24.0, n)[:, None], (1, 7))
    kind = np.full(n, int(Kind.STAR))
    seen = _measured(true, kind, filters, np.zeros(n), np.random.default_rng(1), DEPTHS)
    # Chosen by the truth: rows chosen by what was measured would be the ones scattered one way.
    flux = AB_FLUX * 10 ** (-0.4 * true)
    share = np.sqrt(DEPTHS.point**2 + DEPTHS.light * flux) / flux
    pull = ((seen.total - true) / seen.total_err)[(share > 0.05) & (share < 0.1)]
    assert pull.size > 1000
    assert np.std(pull) == pytest.approx(1.0, abs=0.12)
    assert np.median(pull) == pytest.approx(0.0, abs=0.12)


def test_the_same_table_each_time(table: TableSet) -> None:
    again = drawn_table(1200, Models.load(), DEPTHS)
    np.testing.assert_array_equal(again.photometry.total, table.photometry.total)


def test_depths_are_those_that_a_table_was_drawn_with() -> None:
    n, rng = 6000, np.random.default_rng(2)
    true = np.tile(rng.uniform(18.0, 26.0, (n, 1)), (1, 7))
    kind = rng.choice([int(Kind.STAR), int(Kind.GALAXY)], n)
    seen = _measured(true, kind, FilterSet.named("csst"), np.zeros(n), rng, DEPTHS)
    found = depths_of(seen, kind)
    np.testing.assert_allclose(found.point, DEPTHS.point, rtol=0.1)
    np.testing.assert_allclose(found.light, DEPTHS.light, rtol=0.15)
    np.testing.assert_allclose(found.central, DEPTHS.central, rtol=0.02)
    assert found.widest == pytest.approx(DEPTHS.widest, rel=0.3)
    np.testing.assert_allclose(found.galaxy, DEPTHS.galaxy, atol=0.03)
    np.testing.assert_allclose(found.psf, DEPTHS.psf, rtol=0.02)


def test_without_bright_stars_nothing_tells_the_depths() -> None:
    n, rng = 300, np.random.default_rng(2)
    seen = _measured(
        np.full((n, 7), 22.0), np.full(n, int(Kind.GALAXY)), FilterSet.named("csst"), np.zeros(n), rng, DEPTHS
    )
    with pytest.raises(
        ConfigError, match=r"fewer than 20 bright stars or galaxies.*expected more tiles of csst"
    ):
        depths_of(seen, np.full(n, int(Kind.GALAXY)))


def test_a_band_with_few_bright_stars_takes_the_share_of_all() -> None:
    n, rng = 2000, np.random.default_rng(3)
    kind = rng.choice([int(Kind.STAR), int(Kind.GALAXY)], n)
    true = np.tile(rng.uniform(18.0, 23.0, (n, 1)), (1, 7))
    true[:, 0] += np.where(kind == Kind.STAR, 8.0, 0.0)  # stars that are cool
    found = depths_of(_measured(true, kind, FilterSet.named("csst"), np.zeros(n), rng, DEPTHS), kind)
    np.testing.assert_allclose(found.central[1:], DEPTHS.central[1:], rtol=0.02)
    assert found.central[0] == pytest.approx(np.median(DEPTHS.central[1:]), rel=0.02)


def test_a_drawn_table_needs_tiles_of_the_survey() -> None:
    with pytest.raises(ConfigError, match=r"drawn is 500, and no samples of csst.*or drawn = 0"):
        _drawn(500, [])
