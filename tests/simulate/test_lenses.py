"""Lenses against lenstronomy, closed formulae and brute force."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from imcat.errors import ConfigError, InputError
from imcat.simulate.arcs import ClumpyDiscs, shoot_rays
from imcat.simulate.lens_populations import einstein_radius, spectrum_magnitudes
from imcat.simulate.lens_systems import (
    LensSystems,
    arc_snr,
    draw_deflectors,
    draw_systems,
    lensed_components,
)
from imcat.simulate.lenses import (
    Deflectors,
    caustics,
    deflection,
    find_images,
    magnification,
    source_plane,
)
from imcat.simulate.lookalikes import draw_lookalikes
from imcat.simulate.population import Population
from imcat.simulate.sources import Kind, Morphology


def _random(n: int, seed: int = 1, *, shear: float = 0.05) -> Deflectors:
    rng = np.random.default_rng(seed)
    return Deflectors(
        rng.uniform(0.3, 3, n),
        rng.uniform(0.3, 1, n),
        rng.uniform(0, 180, n),
        rng.rayleigh(shear, n) if shear else np.zeros(n),
        rng.uniform(0, 180, n),
    )


def _spheres(n: int, b: float = 1.0) -> Deflectors:
    return Deflectors(np.full(n, b), np.ones(n), np.zeros(n), np.zeros(n), np.zeros(n))


def _same(lens: Deflectors, n: int) -> Deflectors:
    return lens.take(np.zeros(n, int))


def _lenstronomy(lens: Deflectors, k: int) -> list[dict[str, float]]:
    util = pytest.importorskip("lenstronomy.Util.param_util")
    # lenstronomy counts angles from its x axis, which is east here.
    e1, e2 = util.phi_q2_ellipticity(np.deg2rad(90 - lens.position_angle[k]), lens.axis_ratio[k])
    g1, g2 = util.shear_polar2cartesian(np.deg2rad(90 - lens.shear_angle[k]), lens.shear[k])
    return [
        {"theta_E": lens.einstein_radius[k], "e1": e1, "e2": e2, "center_x": 0.0, "center_y": 0.0},
        {"gamma1": g1, "gamma2": g2},
    ]


def _inside(x: float, y: float, curve: np.ndarray) -> bool:
    """Whether a point lies inside a closed curve, by its winding number."""
    dx, dy = curve[:, 0] - x, curve[:, 1] - y
    turn = np.diff(np.unwrap(np.arctan2(np.r_[dy, dy[:1]], np.r_[dx, dx[:1]])))
    return abs(turn.sum()) > np.pi


def test_deflection_and_magnification_as_lenstronomy() -> None:
    model = pytest.importorskip("lenstronomy.LensModel.lens_model").LensModel(["SIE", "SHEAR"])
    lens = _random(40)
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 1.5, (2, 40))
    east, north = deflection(lens, x, y)
    gain = magnification(lens, x, y)
    for k in range(40):
        a, b = model.alpha(x[k], y[k], _lenstronomy(lens, k))
        assert abs(a - east[k]) < 1e-6
        assert abs(b - north[k]) < 1e-6
        # lenstronomy's ellipsoid has a small core.
        theirs = 1 / model.magnification(x[k], y[k], _lenstronomy(lens, k))
        assert 1 / gain[k] == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("q", [0.2, 0.9, 1 - 1e-5, 1 - 4e-7, 1.0])
def test_deflection_is_steady_towards_the_sphere(q: float) -> None:
    """The closed formula and its series for round lenses, against an integral over the convergence."""
    lens = Deflectors(*(np.array([v]) for v in (1.3, q, 30.0, 0.0, 0.0)))
    sphere = Deflectors(*(np.array([v]) for v in (1.3, 1.0, 30.0, 0.0, 0.0)))
    at = (np.array([0.7]), np.array([-0.4]))
    difference = np.hypot(*np.subtract(deflection(lens, *at), deflection(sphere, *at)))
    assert difference[0] < 1.3 * (1 - q) + 1e-12
    assert np.hypot(*deflection(sphere, *at))[0] == pytest.approx(1.3)


def test_einstein_radius_is_that_of_the_area() -> None:
    lens = _random(20, shear=0.0)
    _, _, critical = caustics(lens, 2000)
    x, y = critical[:, :, 0], critical[:, :, 1]
    area = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(axis=1))
    np.testing.assert_allclose(area, np.pi * lens.einstein_radius**2, rtol=1e-4)


def test_images_as_lenstronomy() -> None:
    module = pytest.importorskip("lenstronomy.LensModel.Solver.lens_equation_solver")
    model = pytest.importorskip("lenstronomy.LensModel.lens_model").LensModel(["SIE", "SHEAR"])
    lens = _random(12, 7)
    rng = np.random.default_rng(8)
    x, y = rng.uniform(-0.35, 0.35, (2, 12)) * lens.einstein_radius
    images = find_images(lens, x, y)
    assert set(images.count) == {2, 4}
    for k in range(12):
        values = _lenstronomy(lens, k)
        east, north = module.LensEquationSolver(model).image_position_from_source(
            x[k], y[k], values, min_distance=0.05, search_window=14, precision_limit=1e-12, num_iter_max=200
        )
        assert len(east) == images.count[k]
        gain = model.magnification(east, north, values)
        mine, theirs = (np.argsort(v) for v in (images.xi[k, : len(east)], east))
        np.testing.assert_allclose(images.xi[k][mine], east[theirs], atol=1e-7)
        np.testing.assert_allclose(images.eta[k][mine], north[theirs], atol=1e-7)
        np.testing.assert_allclose(images.magnification[k][mine], gain[theirs], rtol=2e-4)


def test_images_solve_the_lens_equation() -> None:
    lens = _random(3000, 3)
    x, y = np.random.default_rng(4).uniform(-0.6, 0.6, (2, 3000)) * lens.einstein_radius
    images = find_images(lens, x, y)
    for j in range(4):
        rows = np.flatnonzero(images.count > j)
        some = lens.take(rows)
        back = source_plane(some, images.xi[rows, j], images.eta[rows, j])
        assert np.abs(back[0] - x[rows]).max() < 1e-11
        assert np.abs(back[1] - y[rows]).max() < 1e-11


def test_number_of_images_changes_at_the_caustics() -> None:
    lens = _random(400, 5)
    x, y = np.random.default_rng(6).uniform(-1.2, 1.2, (2, 400)) * lens.einstein_radius
    tangential, cut, _ = caustics(lens, 4000)
    images = find_images(lens, x, y)
    expected = [
        1 + _inside(x[k], y[k], cut[k]) + 2 * _inside(x[k], y[k], tangential[k]) for k in range(len(lens))
    ]
    np.testing.assert_array_equal(images.count, expected)
    assert {1, 2, 4} <= set(expected)


def test_two_images_close_to_a_fold_are_found() -> None:
    lens = _random(200, 9)
    tangential, _, critical = caustics(lens, 360)
    k = np.arange(200)
    fold = tangential[k, 31], critical[k, 31]
    # A step from the fold towards the centre of the caustic, 1e-6 of the way.
    place = fold[0] * (1 - 1e-6)
    images = find_images(lens, place[:, 0], place[:, 1])
    near = (
        np.hypot(images.xi - fold[1][:, :1], images.eta - fold[1][:, 1:])
        < 0.02 * lens.einstein_radius[:, None]
    )
    assert (near.sum(axis=1) == 2).mean() > 0.95


def test_sphere_magnifies_as_the_formula() -> None:
    beta = np.array([0.05, 0.3, 0.9])
    images = find_images(_spheres(3), beta, np.zeros(3))
    np.testing.assert_allclose(images.total, 2 / beta, rtol=1e-9)
    alone = find_images(_spheres(1), 2.0, 0.0)
    assert alone.count[0] == 1
    assert alone.total[0] == pytest.approx(1.5)


def _brute(lens: Deflectors, galaxy: ClumpyDiscs, h: float) -> float:
    """Lensed flux by a sum over a fine grid, from the definition of the source."""
    half = 2.6 * lens.einstein_radius[0] + 3
    axis = np.arange(-half, half, h) + 0.37 * h
    total = 0.0
    for row in axis:
        x, y = source_plane(_same(lens, len(axis)), axis, np.full(len(axis), row))
        dx, dy = x - galaxy.xi[0], y - galaxy.eta[0]
        angle = np.deg2rad(galaxy.position_angle[0])
        u = dx * np.sin(angle) + dy * np.cos(angle)
        v = (dy * np.sin(angle) - dx * np.cos(angle)) / galaxy.axis_ratio[0]
        r = np.hypot(u, v) / galaxy.radius[0] * 1.6783469900166605
        scale = galaxy.radius[0] / 1.6783469900166605
        light = np.exp(-r) * (r < 4 * 1.6783469900166605)
        # The disc is cut at four half-light radii: 0.9907 of an infinite one.
        shares = galaxy.clump_share[0]
        light *= (1 - shares.sum()) / (2 * np.pi * scale**2 * galaxy.axis_ratio[0]) / 0.990657
        for j, share in enumerate(shares):
            sigma = galaxy.clump_sigma[0, j]
            far = (dx - galaxy.clump_xi[0, j]) ** 2 + (dy - galaxy.clump_eta[0, j]) ** 2
            light += share / (2 * np.pi * sigma**2) * np.exp(-0.5 * far / sigma**2)
        total += float(light.sum()) * h * h
    return total


@pytest.mark.parametrize("seed", range(4))
def test_arcs_hold_the_magnified_flux(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lens = _random(1, 20 + seed)
    radius = rng.uniform(0.1, 0.5)
    galaxy = ClumpyDiscs(
        *(
            np.array([v])
            for v in (*rng.uniform(-0.3, 0.3, 2), radius, rng.uniform(0.3, 1), rng.uniform(0, 180))
        ),
        clump_xi=rng.normal(0, radius, (1, 3)),
        clump_eta=rng.normal(0, radius, (1, 3)),
        clump_sigma=np.array([[0.02, 0.03, 0.05]]),
        clump_share=np.array([[0.1, 0.05, 0.2]]),
    )
    truth = _brute(lens, galaxy, 0.01)
    for step, tolerance in ((0.04, 0.01), (0.12, 0.05)):
        assert shoot_rays(lens, galaxy, step).light.sum() == pytest.approx(truth, rel=tolerance)


def test_small_disc_is_magnified_as_a_point() -> None:
    beta = 0.5
    disc = ClumpyDiscs.smooth(*(np.array([v]) for v in (beta, 0.0, 0.04, 1.0, 0.0)))
    assert shoot_rays(_spheres(1), disc, 0.02).light.sum() == pytest.approx(2 / beta, rel=0.01)


def test_arcs_lie_where_the_images_are() -> None:
    lens = _random(1, 31)
    disc = ClumpyDiscs.smooth(*(np.array([v]) for v in (0.4, 0.3, 0.02, 1.0, 0.0)))
    cells = shoot_rays(lens, disc, 0.01)
    images = find_images(lens, 0.4, 0.3)
    n = images.count[0]
    distance = np.hypot(cells.xi[:, None] - images.xi[0, :n], cells.eta[:, None] - images.eta[0, :n])
    share = np.bincount(distance.argmin(axis=1), cells.light, minlength=n)
    np.testing.assert_allclose(share, np.abs(images.magnification[0, :n]), rtol=0.03)


def test_systems_are_consistent() -> None:
    systems = draw_systems(np.random.default_rng(1), 300, quasar_fraction=0.3)
    b = systems.mass.einstein_radius
    assert len(systems) == 300
    assert b.min() >= 0.5
    assert b.max() <= 3.0
    lens, source = systems.deflector.redshift, systems.source.redshift
    assert (source > lens).all()
    assert source.min() >= 0.8
    np.testing.assert_allclose(b, einstein_radius(systems.dispersion, lens, source), rtol=1e-9)
    assert (systems.n_images >= 2).all()
    assert systems.magnification.min() > 1
    assert 0.2 < systems.is_quasar.mean() < 0.4
    # Mass follows light, with scatter.
    turn = (systems.mass.position_angle - systems.deflector.position_angle + 90) % 180 - 90
    assert 5 < turn.std() < 15
    assert np.corrcoef(systems.mass.axis_ratio, systems.deflector.bulge_axis_ratio)[0, 1] > 0.6
    # Deflectors are red, their sources are blue.
    g_r = systems.deflector.mag[:, 1] - systems.deflector.mag[:, 2]
    assert np.median(g_r) - np.median(systems.source.mag[:, 1] - systems.source.mag[:, 2]) > 0.8


def test_brighter_deflectors_have_larger_radii() -> None:
    """Given galaxies get their mass from their light (Faber–Jackson)."""
    rng = np.random.default_rng(5)
    given, _ = draw_deflectors(rng, 4000)
    systems = draw_systems(rng, 200, deflectors=given.take(given.mag[:, 2] < 21))
    known = set(map(float, given.mag[:, 2]))
    assert all(float(m) in known for m in systems.deflector.mag[:, 2])
    from imcat.simulate.lens_populations import absolute_r

    absolute = absolute_r(systems.deflector.mag[:, 2], systems.deflector.redshift)
    assert np.corrcoef(absolute, np.log(systems.dispersion))[0, 1] < -0.3


def test_components_hold_the_flux_of_the_images() -> None:
    systems = draw_systems(np.random.default_rng(2), 60, quasar_fraction=0.4)
    flux = np.random.default_rng(3).uniform(1, 5, (60, 3))
    quasar = systems.is_quasar
    parts = lensed_components(systems, flux, step=0.05)
    assert (np.diff(parts.source) >= 0).all()
    total = parts.total(60)
    np.testing.assert_allclose(total[quasar], (flux * systems.magnification[:, None])[quasar], rtol=1e-9)
    np.testing.assert_allclose(total[~quasar], (flux * systems.magnification[:, None])[~quasar], rtol=0.03)
    # Points have no extent; hosts come on top.
    assert (parts.xx[quasar[parts.source]] == 0).all()
    with_hosts = lensed_components(systems, flux, flux, step=0.05).total(60)
    assert (with_hosts[quasar] > 1.2 * total[quasar]).all()
    np.testing.assert_array_equal(with_hosts[~quasar], total[~quasar])


def _arrays(thing: Any) -> list[np.ndarray]:
    values = [getattr(thing, f.name) for f in fields(thing)]
    return [a for v in values for a in ([v] if isinstance(v, np.ndarray) else _arrays(v))]


def test_seed_decides_everything() -> None:
    one, same, other = (draw_systems(np.random.default_rng(s), 30) for s in (1, 1, 2))
    for a, b in zip(_arrays(one), _arrays(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.mass.einstein_radius != other.mass.einstein_radius).any()
    first, second = (lensed_components(s, s.source.mag) for s in (one, same))
    for a, b in zip(_arrays(first), _arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parts_do_not_depend_on_the_batch() -> None:
    systems = draw_systems(np.random.default_rng(4), 12)
    flux = np.ones((12, 2))
    whole = lensed_components(systems, flux)
    alone = lensed_components(systems.take(np.array([7])), flux[:1])
    rows = whole.source == 7
    np.testing.assert_array_equal(whole.flux[rows], alone.flux)
    np.testing.assert_array_equal(whole.xi[rows], alone.xi)


def test_no_lens_is_a_fair_request() -> None:
    systems = draw_systems(np.random.default_rng(1), 0)
    assert len(systems) == 0
    assert len(lensed_components(systems, np.zeros((0, 5)))) == 0
    assert set(systems.truth()) == {
        "lens_kind", "einstein_radius", "lens_redshift", "source_redshift", "magnification", "n_images",
    }  # fmt: skip


def test_arc_snr() -> None:
    arcs = np.zeros((2, 8, 8))
    arcs[0, 2:4, 3] = 6.0
    variance = np.full((8, 8), 9.0)
    variance[0, 0] = 0  # no data there
    np.testing.assert_allclose(arc_snr(arcs, variance), [np.sqrt(2) * 2, 0])


def test_lookalikes_are_no_lenses() -> None:
    found = draw_lookalikes(np.random.default_rng(1), 200, Population.load())
    assert sorted(set(found.system)) == list(range(200))
    named = found.name != ""
    assert len(set(found.system[named])) == named.sum() == 200
    assert set(found.name) == {"ring", "spiral", "merger", "chance", ""}
    for name, morphology in (("ring", Morphology.RING), ("spiral", Morphology.SPIRAL)):
        assert (found.sources.morphology[found.name == name] == morphology).all()
        assert (found.sources.disc_axis_ratio[found.name == name] >= 0.75).all()
    distance = np.hypot(found.xi, found.eta)
    assert (distance[named] == 0).all()
    assert (distance[~named] >= 0.8).all()
    assert (distance[~named] <= 3).all()
    chance = set(found.system[found.name == "chance"])
    assert set(found.system[~named]) == chance
    colour = found.sources.mag[:, 1] - found.sources.mag[:, 2]
    assert np.median(colour[found.name == "chance"]) - np.median(colour[~named]) > 0.8
    # As many lie along the line to the galaxy as across it.
    line = np.rad2deg(np.arctan2(found.xi, found.eta))[~named]
    turn = np.abs((found.sources.position_angle[~named] - line + 90) % 180 - 90)
    assert 0.3 < (turn < 45).mean() < 0.7


def test_lyman_break_reddens_far_sources() -> None:
    z = np.array([1.0, 3.5])
    mag = spectrum_magnitudes(np.full(2, 24.0), z, np.full(2, -1.6), np.zeros(2))
    np.testing.assert_array_equal(mag[:, 3], 24.0)
    u_g = mag[:, 0] - mag[:, 1]
    assert abs(u_g[0]) < 0.3
    assert u_g[1] > 1.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 0.7, 0, 0, 0), "deflector 0 has Einstein radius 0; expected a positive one"),
        ((np.nan, 0.7, 0, 0, 0), "has Einstein radius nan"),
        ((1.0, 0.0, 0, 0, 0), "has axis ratio 0; expected above 0 and at most 1"),
        ((1.0, 1.1, 0, 0, 0), "has axis ratio 1.1"),
        ((1.0, 0.7, 0, 1.0, 0), "has shear 1; expected at least 0 and below 1"),
    ],
)
def test_impossible_deflectors(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Deflectors(*(np.array([float(v)]) for v in values))


def test_impossible_systems() -> None:
    systems = draw_systems(np.random.default_rng(1), 2)
    columns = {f.name: getattr(systems, f.name) for f in fields(LensSystems)}
    columns["source"] = systems.source.replace(redshift=np.full(2, 0.05))
    with pytest.raises(InputError, match=r"source at redshift 0.05 .* expected the source behind"):
        LensSystems(**columns)
    columns["source"] = systems.source.take(np.array([0]))
    with pytest.raises(InputError, match="1 entries of source for 2 deflectors"):
        LensSystems(**columns)


def test_impossible_requests() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(ConfigError, match="Einstein radii from 0 to 3 are impossible"):
        draw_systems(rng, 1, smallest_einstein_radius=0)
    with pytest.raises(ConfigError, match="-1 lenses are impossible"):
        draw_systems(rng, -1)
    with pytest.raises(ConfigError, match="quasar fraction of 2 is impossible"):
        draw_systems(rng, 1, quasar_fraction=2)
    given, _ = draw_deflectors(rng, 5)
    with pytest.raises(InputError, match="no galaxy to be a lens"):
        draw_systems(rng, 1, deflectors=given.replace(kind=np.full(5, Kind.STAR, np.int8)))
    with pytest.raises(InputError, match="2 galaxies behind 1 deflectors"):
        shoot_rays(_spheres(1), ClumpyDiscs.smooth(*(np.full(2, 0.3) for _ in range(5))))
    with pytest.raises(ConfigError, match="step of the rays is not positive"):
        shoot_rays(_spheres(1), ClumpyDiscs.smooth(*(np.full(1, 0.3) for _ in range(5))), 0.0)
    with pytest.raises(InputError, match=r"fluxes of shape \(3, 2\) for 2 lenses"):
        lensed_components(draw_systems(rng, 2), np.ones((3, 2)))


def test_faint_deflectors_are_told_to_be_no_lenses() -> None:
    rng = np.random.default_rng(1)
    given, _ = draw_deflectors(rng, 50)
    with pytest.raises(
        InputError, match=r"0 of 1 lenses were found among .* candidates; expected deflectors"
    ):
        draw_systems(rng, 1, deflectors=given.replace(mag=given.mag + 12))
