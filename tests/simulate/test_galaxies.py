"""Galaxies as Gaussians: light kept, sizes as stated, structure that shows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.render.components import Components
from imcat.render.profiles import sersic_mixture
from imcat.simulate.galaxies import band_bulge_fraction, galaxy_components, half_light_radius
from imcat.simulate.sources import Kind, Morphology, Sources

WAVELENGTHS = np.array([3551.0, 4686.0, 6166.0, 7480.0, 8932.0])
STRUCTURED = [
    Morphology.SPIRAL, Morphology.BARRED, Morphology.RING, Morphology.IRREGULAR, Morphology.EDGE_ON, Morphology.MERGER,
]  # fmt: skip
Float64 = NDArray[np.float64]


def make(n: int, kind: Morphology, seed: int = 1, axis_ratio: float | None = None) -> tuple[Sources, Float64]:
    """Galaxies of one morphology and their fluxes in ugriz."""
    rng = np.random.default_rng(seed)
    q = rng.uniform(0.3, 1.0, n) if axis_ratio is None else np.full(n, axis_ratio)
    disc = rng.uniform(1.0, 5.0, n)
    mag = 18 + rng.normal(0, 0.3, (n, 5)) + np.array([2.0, 0.7, 0.0, -0.3, -0.5])
    sources = Sources(
        kind=np.full(n, Kind.GALAXY, np.int8), mag=mag, redshift=np.full(n, 0.1),
        bulge_fraction=rng.uniform(0, 0.5, n), bulge_radius=disc * rng.uniform(0.2, 1, n), disc_radius=disc,
        bulge_axis_ratio=q if axis_ratio else np.clip(1.2 * q, 0, 1), disc_axis_ratio=q,
        bulge_index=np.full(n, 4.0), position_angle=rng.uniform(0, 180, n), morphology=np.full(n, kind, np.int8),
    )  # fmt: skip
    return sources, 3631e9 * 10 ** (-0.4 * mag)


def draw(sources: Sources, flux: Float64, seed: int = 2) -> Components:
    """With detail and colours."""
    fraction = band_bulge_fraction(sources, flux, WAVELENGTHS)
    return galaxy_components(
        sources, flux, fraction, np.random.default_rng(seed), detail=np.ones(len(sources), bool),
        wavelengths=WAVELENGTHS,
    )  # fmt: skip


def brightness(
    parts: Components, row: int, band: int, xi: Float64, eta: Float64, blur: float = 0.0
) -> Float64:
    """Surface brightness of one galaxy at points on the sky, summed Gaussian by Gaussian."""
    total = np.zeros(xi.shape)
    for k in np.flatnonzero(parts.source == row):
        xx, xy, yy = parts.xx[k] + blur, parts.xy[k], parts.yy[k] + blur
        det = xx * yy - xy**2
        dx, dy = xi - parts.xi[k], eta - parts.eta[k]
        form = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / det
        total += parts.flux[k, band] * np.exp(-0.5 * form) / (2 * np.pi * np.sqrt(det))
    return total


def samples(parts: Components, row: int, sources: Sources, n: int = 200) -> tuple[Float64, Float64]:
    """Radius along the major axis, and weight in r, of points drawn from a galaxy's Gaussians."""
    rng = np.random.default_rng(0)
    which = np.flatnonzero(parts.source == row)
    a = np.sqrt(parts.xx[which])
    b = parts.xy[which] / a
    c = np.sqrt(np.maximum(parts.yy[which] - b**2, 0))
    g = rng.normal(size=(2, len(which), n))
    xi = parts.xi[which][:, None] + a[:, None] * g[0]
    eta = parts.eta[which][:, None] + b[:, None] * g[0] + c[:, None] * g[1]
    angle = np.deg2rad(sources.position_angle[row])
    major, minor = xi * np.sin(angle) + eta * np.cos(angle), xi * np.cos(angle) - eta * np.sin(angle)
    radius = np.hypot(major, minor / sources.disc_axis_ratio[row])
    weight = np.repeat(parts.flux[which, 2] / n, n)
    return radius.ravel(), weight


def measured_radius(parts: Components, row: int, sources: Sources) -> float:
    """Half-light radius of what was drawn, in ellipses of the disc's shape."""
    radius, weight = samples(parts, row, sources, 400)
    order = np.argsort(radius)
    growth = np.cumsum(weight[order])
    return float(radius[order][np.searchsorted(growth, 0.5 * growth[-1])])


@pytest.mark.parametrize("kind", [Morphology.SMOOTH, Morphology.DISC, *STRUCTURED])
def test_total_flux_is_kept_in_every_band(kind: Morphology) -> None:
    sources, flux = make(40, kind, axis_ratio=0.18 if kind == Morphology.EDGE_ON else None)
    parts = draw(sources, flux)
    np.testing.assert_allclose(parts.total(40), flux, rtol=1e-12)
    assert np.isfinite(parts.flux).all()
    assert (parts.xx > 0).all()
    assert (parts.xx * parts.yy - parts.xy**2 > 0).all()


@pytest.mark.parametrize("kind", STRUCTURED)
def test_nothing_is_negative_on_the_sky(kind: Morphology) -> None:
    sources, flux = make(4, kind, axis_ratio=0.18 if kind == Morphology.EDGE_ON else 0.6)
    parts = draw(sources, flux)
    xi, eta = np.meshgrid(*(np.linspace(-12, 12, 121),) * 2)
    for row in range(4):
        for band in (0, 2, 4):
            assert brightness(parts, row, band, xi, eta).min() >= 0
    if kind != Morphology.EDGE_ON:
        assert (parts.flux >= 0).all()


def test_smooth_galaxies_cost_bulge_and_disc_only() -> None:
    sources, flux = make(50, Morphology.SPIRAL)
    fraction = band_bulge_fraction(sources, flux, WAVELENGTHS)
    rng = np.random.default_rng(0)
    plain = galaxy_components(sources, flux, fraction, rng)
    disc, bulge = len(sersic_mixture(1.0).weights), len(sersic_mixture(4.0).weights)
    assert len(plain) == 50 * (disc + bulge) <= 50 * 17
    # No random number is used up, and a part without light is left out.
    assert rng.random() == np.random.default_rng(0).random()
    assert len(galaxy_components(sources, flux, np.zeros_like(flux), rng)) == 50 * disc
    assert len(galaxy_components(sources, flux, np.ones_like(flux), rng)) == 50 * bulge


@pytest.mark.parametrize("kind", STRUCTURED)
def test_structure_numbers_tens_of_pieces(kind: Morphology) -> None:
    sources, flux = make(10, kind)
    per_galaxy = np.bincount(draw(sources, flux).source)
    assert per_galaxy.min() >= 20
    assert per_galaxy.max() <= 170


def test_half_light_radius_agrees_with_brute_force() -> None:
    sources, _ = make(30, Morphology.DISC, axis_ratio=0.6)
    radius = half_light_radius(sources)
    # Growth curve in common ellipses, on a fine grid along the major axis: flux within r of each Gaussian.
    grid = np.linspace(0, 30, 60001)[1:]
    bulge, disc = sersic_mixture(4.0), sersic_mixture(1.0)
    for row in range(30):
        share = sources.bulge_fraction[row]
        growth = np.zeros_like(grid)
        for part, held, size in (
            (bulge, share, sources.bulge_radius),
            (disc, 1 - share, sources.disc_radius),
        ):
            for weight, variance in zip(part.weights, part.variances, strict=True):
                profile = (
                    np.exp(-0.5 * grid**2 / (variance * size[row] ** 2)) * grid / (variance * size[row] ** 2)
                )
                growth += held * weight * np.cumsum(profile) * (grid[1] - grid[0])
        assert radius[row] == pytest.approx(np.interp(0.5, growth, grid), rel=2e-3)


def test_half_light_radius_of_single_parts_and_points() -> None:
    sources, _ = make(5, Morphology.DISC)
    disc = half_light_radius(sources.replace(bulge_fraction=np.zeros(5)))
    bulge = half_light_radius(sources.replace(bulge_fraction=np.ones(5)))
    np.testing.assert_allclose(disc, sources.disc_radius, rtol=0.01)
    np.testing.assert_allclose(bulge, sources.bulge_radius, rtol=0.02)
    assert (half_light_radius(Sources.points(Kind.STAR, np.full((3, 5), 20.0))) == 0).all()


@pytest.mark.parametrize("kind", STRUCTURED)
def test_structured_galaxies_have_the_stated_size(kind: Morphology) -> None:
    # The size of a merger, which has no plane, is that of circles.
    axis_ratio = {Morphology.EDGE_ON: 0.18, Morphology.MERGER: 1.0}.get(kind, 0.6)
    sources, flux = make(24, kind, axis_ratio=axis_ratio)
    parts = draw(sources, flux)
    measured = np.array([measured_radius(parts, row, sources) for row in range(24)])
    ratio = measured / half_light_radius(sources)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    assert np.abs(ratio - 1).max() < 0.1


def test_bulges_are_redder() -> None:
    sources, flux = make(200, Morphology.DISC)
    fraction = band_bulge_fraction(sources, flux, WAVELENGTHS)
    np.testing.assert_allclose(fraction[:, 2], sources.bulge_fraction)
    assert (np.diff(fraction, axis=1) >= 0).all()
    assert (fraction[:, 0] < fraction[:, 4]).mean() > 0.9
    assert ((fraction >= 0) & (fraction <= 1)).all()
    ends = sources.replace(bulge_fraction=np.repeat([0.0, 1.0], 100))
    np.testing.assert_array_equal(
        band_bulge_fraction(ends, flux, WAVELENGTHS)[:, 0], np.repeat([0.0, 1.0], 100)
    )
    with pytest.raises(ValueError, match="expected \\(200, 4\\)"):
        band_bulge_fraction(sources, flux, WAVELENGTHS[:4])


def test_spiral_arms_are_two_sided_and_blue() -> None:
    sources, flux = make(30, Morphology.SPIRAL, axis_ratio=1.0)
    parts = draw(sources, flux)
    grid = np.linspace(-8, 8, 81)
    xi, eta = np.meshgrid(grid, grid)
    angle, radius = np.arctan2(eta, xi), np.hypot(xi, eta)
    contrast, colour = [], []
    for row in range(30):
        size = sources.disc_radius[row]
        zone = (radius > 0.7 * size) & (radius < 1.2 * size)
        g, i = (brightness(parts, row, band, xi, eta, 0.05)[zone] for band in (1, 3))
        wave = [abs(np.sum(g * np.exp(1j * m * angle[zone]))) / g.sum() for m in (1, 2, 3, 4)]
        contrast.append(max(wave[1:]))
        bright = g > np.quantile(g, 0.8)
        colour.append((g / i)[bright].mean() / (g / i)[~bright].mean())
    assert np.median(contrast) > 0.08
    assert np.median(colour) > 1.01


def test_dust_lanes_dim_the_middle_more_in_blue_bands() -> None:
    sources, flux = make(20, Morphology.EDGE_ON, axis_ratio=0.15)
    parts = draw(sources, flux)
    dark = parts.flux[:, 1].copy()
    assert (dark < 0).any()
    taken = parts.flux < 0
    share = np.array([-parts.flux[taken[:, b], b].sum() / flux[:, b].sum() for b in range(5)])
    assert share[0] > share[2] > share[4] > 0.01


def test_same_seed_same_galaxies() -> None:
    sources, flux = make(6, Morphology.BARRED)
    first, second, third = (draw(sources, flux, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.xi, second.xi)
    assert len(first) != len(third) or (first.xi != third.xi).any()
