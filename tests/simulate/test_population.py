"""The population: what is drawn, and how it compares with the real tables."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from imcat.errors import InputError, UsageError
from imcat.simulate.counts import GalaxyCounts, QuasarCounts, angular_amplitude, cosmic_variance
from imcat.simulate.deconvolve import MISSING_VARIANCE, fit_density
from imcat.simulate.density import Density
from imcat.simulate.galaxy_shapes import composite_radius, half_light_table
from imcat.simulate.milky_way import absolute_magnitude, line_of_sight
from imcat.simulate.morphology import draw_morphology
from imcat.simulate.population import FAINTEST, Population
from imcat.simulate.population_check import check_population
from imcat.simulate.sources import Kind, Morphology, Sources


@pytest.fixture(scope="module")
def population() -> Population:
    return Population.load()


@pytest.fixture(scope="module")
def drawn(population: Population) -> Sources:
    return population.draw(np.random.default_rng(1), 2.0, 22.5, -50.0, 120.0)


def test_a_draw_is_complete_and_possible(drawn: Sources) -> None:
    assert set(np.unique(drawn.kind)) == set(Kind)
    for name in ("mag", "redshift", "bulge_fraction", "bulge_radius", "disc_radius", "position_angle"):
        assert np.isfinite(getattr(drawn, name)).all(), name
    assert (drawn.mag[:, 2] <= 22.5).all()
    galaxy, star = drawn.kind == Kind.GALAXY, drawn.kind == Kind.STAR
    assert (drawn.redshift[star] == 0).all()
    assert (drawn.redshift[~star] > 0).all()
    assert (drawn.bulge_radius[galaxy] > 0).all()
    assert (drawn.disc_radius[galaxy] > 0).all()
    for axis in (drawn.bulge_axis_ratio, drawn.disc_axis_ratio):
        assert ((axis > 0) & (axis <= 1)).all()
    assert ((drawn.bulge_fraction >= 0) & (drawn.bulge_fraction <= 1)).all()
    assert (drawn.morphology[~galaxy] == Morphology.POINT).all()
    assert (drawn.morphology[galaxy] != Morphology.POINT).all()
    assert ((drawn.position_angle >= 0) & (drawn.position_angle < 180)).all()


def test_the_seed_decides(population: Population) -> None:
    a, b, c = (population.draw(np.random.default_rng(s), 0.05, 23.0, 60.0) for s in (4, 4, 5))
    np.testing.assert_array_equal(a.mag, b.mag)
    assert len(a) != len(c) or not np.array_equal(a.mag, c.mag)


def test_numbers_follow_the_counts(population: Population, drawn: Sources) -> None:
    edges = np.arange(16.0, 22.6, 0.5)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for kind, expected in (
        (Kind.GALAXY, population.counts.density(middle)),
        (Kind.STAR, population.stars.counts(middle, -50.0, 120.0)),
    ):
        seen = np.histogram(drawn.mag[drawn.kind == kind, 2], edges)[0]
        mean = expected * 0.5 * 2.0
        assert (np.abs(seen - mean) < 5 * np.sqrt(mean) + 0.02 * mean).all()


def test_factors_scale_each_kind(population: Population) -> None:
    draws = population.draw(
        np.random.default_rng(2), 1.0, 21.0, 50.0, star_density=3.0, galaxy_density=0.0, quasar_density=0.0
    )
    assert (draws.kind == Kind.STAR).all()
    mean = 3.0 * population.stars.counts(np.arange(8.05, 21.0, 0.1), 50.0).sum() * 0.1
    assert abs(len(draws) - mean) < 5 * np.sqrt(mean)


def test_more_stars_towards_the_plane_and_redder_faint_ones(population: Population) -> None:
    mag = np.array([16.0, 18.0, 20.0])
    low, high = population.stars.counts(mag, 25.0), population.stars.counts(mag, 80.0)
    assert (low > 2 * high).all()
    draws = population.draw(
        np.random.default_rng(3), 20.0, 20.5, 60.0, galaxy_density=0.0, quasar_density=0.0
    )
    colour = draws.mag[:, 1] - draws.mag[:, 3]
    bright, faint = (np.abs(draws.mag[:, 2] - m) < 0.5 for m in (15.0, 20.0))
    assert np.median(colour[faint]) > np.median(colour[bright]) + 0.3


def test_a_draw_is_fast(population: Population) -> None:
    population.draw(np.random.default_rng(1), 0.01, 25.5, -50.0)
    begin = time.process_time()
    drawn = population.draw(np.random.default_rng(1), 0.15, 25.5, -50.0)
    seconds = time.process_time() - begin
    assert len(drawn) > 15000
    assert seconds < 1.0  # of one core; 0.1 s alone


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"limit": 31.0}, f"no population for a limit of r = 31; expected 12.5 to {FAINTEST:g}"),
        ({"limit": 9.0}, "no population"),
        ({"limit": float("nan")}, "no population"),
        ({"area": 0.0}, "square degrees is impossible"),
        ({"latitude": 95.0}, "galactic coordinates"),
        ({"galaxy_density": -1.0}, "density of -1"),
        ({"star_density": float("inf")}, "density of inf"),
    ],
)
def test_impossible_requests(population: Population, keywords: dict[str, float], message: str) -> None:
    request = {"area": 0.1, "limit": 22.0, "latitude": 50.0, **keywords}
    with pytest.raises(UsageError, match=message):
        population.draw(np.random.default_rng(1), **request)


def test_weights_are_checked(population: Population, tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = tmp_path / "population.safetensors"
    with pytest.raises(InputError, match=r"there is no population\.safetensors"):
        Population.load(tmp_path)
    path.write_bytes(save(population.arrays()))
    card = path.with_suffix(".toml")
    card.write_text('format = 1\nsha256 = "0"\n')
    with pytest.raises(InputError, match="checksum"):
        Population.load(tmp_path)
    card.write_text("format = 99\n")
    with pytest.raises(InputError, match="format 99"):
        Population.load(tmp_path)
    assert len(path.read_bytes()) < 500_000


def test_quasars_have_the_published_density() -> None:
    # Palanque-Delabrouille et al. (2016), table 7 and section 6: 0.68 < z < 4 and g < 22.5, about 200 deg^-2;
    # Richards et al. (2006, AJ 131, 2766), figure 14: i < 19.1, about 9 deg^-2 (g < 19.35 or so).
    counts = QuasarCounts()
    bright = counts.mean[counts.mag_edges[:-1] < 22.45]
    assert 170 < bright[:, counts.redshift_edges[:-1] > 0.67].sum() < 240
    assert 6 < counts.mean[counts.mag_edges[:-1] < 19.3].sum() < 14


def test_galaxies_have_the_published_density(population: Population) -> None:
    mag = np.arange(10.005, 24.0, 0.01)
    total = np.cumsum(population.counts.density(mag)) * 0.01
    assert np.interp(17.77, mag, total) == pytest.approx(92, rel=0.08)  # Strauss et al. (2002)
    assert np.interp(19.5, mag, total) == pytest.approx(864, rel=0.15)  # Hahn et al. (2023), DESI


def test_counts_are_drawn_within_their_range() -> None:
    counts = GalaxyCounts(np.array([10.0, 20.0]), np.array([0.0, 3.0]))
    assert counts.density(np.array([21.0]))[0] == pytest.approx(10**3.3)
    mag = counts.draw(np.random.default_rng(1), 5.0, 15.0, 20.0)
    mean = 5 * (1000 - 10**1.5) / (0.3 * np.log(10))
    assert abs(len(mag) - mean) < 5 * np.sqrt(mean)
    assert mag.min() > 15
    assert mag.max() < 20


def test_clustering_fades_with_area_and_magnitude() -> None:
    assert 0.1 < cosmic_variance(0.034) < 0.3
    assert cosmic_variance(1.0) < cosmic_variance(0.034)
    assert cosmic_variance(0.034, 17.0) > cosmic_variance(0.034, 22.0)
    # The variance is the mean correlation of two random points of the square.
    a, b = np.random.default_rng(1).random((2, 2, 400_000)) * 0.2
    mean = angular_amplitude(20.5) * np.mean(np.hypot(*(a - b)) ** -0.8)
    assert cosmic_variance(0.04) ** 2 == pytest.approx(mean, rel=0.02)


def test_the_line_of_sight_at_the_pole() -> None:
    # Jurić et al. (2008): at 1 kpc above the Sun the thin disc has fallen by exp(-1000/300).
    disc, halo = line_of_sight(np.array([0.0, 1000.0]), 90.0, 0.0)
    thin, thick = np.exp(-1025 / 300), np.exp(-1025 / 900)
    assert disc[1] == pytest.approx((thin + 0.12 * thick) / 1.12, rel=1e-9)
    assert halo[0] == pytest.approx(1.0, abs=1e-4)
    # The Sun (g-i = 0.55, [Fe/H] = 0) has M_r = 4.6.
    assert absolute_magnitude(np.array([0.55]), 0.0)[0] == pytest.approx(4.5, abs=0.2)


def test_a_composite_has_its_half_light_radius() -> None:
    table = half_light_table()
    one = composite_radius(table, np.array([0.0, 1.0]), np.array([0.2, 0.2]))
    np.testing.assert_allclose(one, [1.0, 10**0.2], rtol=0.01)
    mixed = composite_radius(table, np.array([0.5]), np.array([0.3]))[0]
    assert 1.0 < mixed < 10**0.3


def test_a_density_is_drawn_as_given() -> None:
    cov = np.array([[1.0, 0.8], [0.8, 1.0]])
    density = Density(np.array([0.5, 0.5]), np.array([[0.0, 0.0], [10.0, 5.0]]), np.array([cov, cov]))
    draws = density.draw(np.random.default_rng(1), np.full((40000, 1), 9.0))[:, 0]
    assert draws.mean() == pytest.approx(5 + 0.8 * (9 - 10), abs=0.02)
    assert draws.std() == pytest.approx(0.6, abs=0.02)


def test_errors_are_taken_out_and_missing_values_filled() -> None:
    rng = np.random.default_rng(2)
    truth = rng.multivariate_normal([1.0, 2.0], [[0.04, 0.03], [0.03, 0.04]], 4000)
    sigma = rng.uniform(0.1, 0.4, truth.shape)
    values, variances = truth + sigma * rng.standard_normal(truth.shape), sigma**2
    lost = rng.random(len(truth)) < 0.3
    values[lost, 1], variances[lost, 1] = 0.0, MISSING_VARIANCE
    fit = fit_density(values, variances, 1, rng=rng, floor=1e-6, iterations=80)
    np.testing.assert_allclose(fit.means[0], [1.0, 2.0], atol=0.03)
    np.testing.assert_allclose(fit.covariances[0], [[0.04, 0.03], [0.03, 0.04]], atol=0.007)


def test_morphology_follows_bulge_and_inclination() -> None:
    rng, n = np.random.default_rng(3), 20000
    r, colour = np.full(n, 17.0), np.full(n, 0.7)
    round_ = np.full(n, 0.8)
    ellipticals = draw_morphology(rng, r, colour, np.full(n, 0.95), round_)
    discs = draw_morphology(rng, r, colour, np.full(n, 0.1), round_)
    thin = draw_morphology(rng, r, colour, np.full(n, 0.1), np.full(n, 0.2))
    assert (ellipticals == Morphology.SMOOTH).mean() > 0.9
    assert (thin == Morphology.EDGE_ON).mean() > 0.9
    # 29 % of disc galaxies are barred (Masters et al. 2011).
    assert (discs == Morphology.BARRED).mean() == pytest.approx(0.29, abs=0.05)
    assert 0.005 < (discs == Morphology.RING).mean() < 0.05
    assert 0.01 < (discs == Morphology.MERGER).mean() < 0.05


@pytest.mark.realdata
def test_draws_agree_with_rows_that_were_held_out(population: Population, data_dir: Path) -> None:
    metrics, report = check_population(population, data_dir)
    assert "validation rows" in report
    # Few validation rows are stars, or galaxies with a shape: for those the bounds are wide, and the fit itself is held
    # to what it was made from.
    assert metrics["locus_ridge_gr_validation"] < 0.04
    assert metrics["locus_ridge_gr_training"] < 0.02
    assert metrics["locus_ridge_iz_training"] < 0.02
    assert 0.85 < metrics["locus_width_median_validation"] < 1.2
    assert metrics["galaxy_gr_median_validation"] < 0.1
    assert metrics["galaxy_gr_median_training"] < 0.05
    assert metrics["galaxy_ri_median_validation"] < 0.05
    assert metrics["galaxy_size_median_validation"] < 0.25
    assert metrics["galaxy_size_largest_training"] < 0.10
    assert metrics["redshift_median_main"] < 0.01
    assert metrics["quasar_gr"] < 0.15
