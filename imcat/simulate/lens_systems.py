"""Strong lenses of a simulated sky: deflectors, what lies behind them, their images and truth.

A system is a luminous galaxy, drawn like any other source, and a star-forming galaxy or a quasar
with its host behind it. Systems are drawn in proportion to their cross section, and kept if their images
are bright enough, so that magnification bias comes by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from imcat.errors import ConfigError, InputError
from imcat.render.components import Components
from imcat.simulate import lens_populations as laws
from imcat.simulate.arcs import ClumpyDiscs, shoot_rays
from imcat.simulate.lenses import Deflectors, find_images
from imcat.simulate.sources import Kind, Morphology, Sources

__all__ = ["LensSystems", "arc_snr", "draw_deflectors", "draw_systems", "lensed_components"]

Float64 = NDArray[np.float64]

_CLUMPS = 6
_MOST_MAGNIFIED = 30.0  # a galaxy of 0.1″ is hardly magnified more; used to bound what is drawn
_ROUNDS = 400
_SMALLEST_CLUMP = 0.02  # arcsec; smaller ones look like points to every survey
# A Gaussian of half its cell's side: a field of them is flat to 3 %, and to far less behind any PSF.
_SPREAD = 0.5


@dataclass(frozen=True, eq=False)
class LensSystems:
    """Strong lenses, one entry of each array for each.

    Attributes
    ----------
    deflector : Sources
        The lensing galaxies: their light.
    mass : Deflectors
        Their mass.
    dispersion : float64 array, ``[n]``
        Velocity dispersion, km/s.
    source : Sources
        What lies behind, unlensed: galaxies, or quasars (points; the host is in `galaxy`).
    host_mag : float64 array, ``[n, 5]``
        SDSS ugriz of the galaxy behind, unlensed: of the source itself, or of the quasar's host.
    galaxy : ClumpyDiscs
        Its shape and its place (also the quasar's).
    magnification : float64 array, ``[n]``
        Total: lensed over unlensed flux of the source.
    n_images : int64 array, ``[n]``
        Of the centre of the source.

    Raises
    ------
    InputError
        If a source is not behind its deflector, or lengths differ.
    """

    deflector: Sources
    mass: Deflectors
    dispersion: Float64
    source: Sources
    host_mag: Float64
    galaxy: ClumpyDiscs
    magnification: Float64
    n_images: NDArray[np.int64]

    def __post_init__(self) -> None:
        for f in fields(self):
            length = len(getattr(self, f.name))
            if length != len(self.deflector):
                raise InputError(f"{length} entries of {f.name} for {len(self.deflector)} deflectors")
        lens, source = self.deflector.redshift, self.source.redshift
        if not (source > lens).all():
            k = int(np.argmin(source > lens))
            raise InputError(
                f"system {k} has a source at redshift {source[k]:g} and a deflector at {lens[k]:g}",
                expected="the source behind the deflector",
            )

    def __len__(self) -> int:
        return len(self.deflector)

    @property
    def is_quasar(self) -> NDArray[np.bool_]:
        """Where the source is a quasar."""
        return np.asarray(self.source.kind == Kind.QUASAR)

    def take(self, which: NDArray[Any]) -> LensSystems:
        """Some of them, by index or by mask."""
        columns: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            columns[f.name] = value[which] if isinstance(value, np.ndarray) else value.take(which)
        return LensSystems(**columns)

    @staticmethod
    def concatenate(parts: list[LensSystems]) -> LensSystems:
        """Systems of several lists, in order."""
        columns: dict[str, Any] = {}
        for f in fields(LensSystems):
            values = [getattr(p, f.name) for p in parts]
            if f.name in ("deflector", "source"):
                columns[f.name] = Sources.concatenate(values)
            elif f.name in ("mass", "galaxy"):
                kind = type(values[0])
                columns[f.name] = kind(
                    **{g.name: np.concatenate([getattr(v, g.name) for v in values]) for g in fields(kind)}
                )
            else:
                columns[f.name] = np.concatenate(values)
        return LensSystems(**columns)

    def truth(self) -> dict[str, NDArray[Any]]:
        """Columns of a truth table, without the arcs' S/N (`arc_snr`)."""
        return {
            "lens_kind": np.where(self.is_quasar, "quasar", "galaxy"),
            "einstein_radius": self.mass.einstein_radius,
            "lens_redshift": self.deflector.redshift,
            "source_redshift": self.source.redshift,
            "magnification": self.magnification,
            "n_images": self.n_images,
        }


def draw_systems(
    rng: Generator,
    n: int,
    *,
    deflectors: Sources | None = None,
    smallest_einstein_radius: float = 0.5,
    largest_einstein_radius: float = 3.0,
    quasar_fraction: float = 0.15,
    faintest_deflector: float = 21.5,
    faintest_image: float = 23.5,
) -> LensSystems:
    """Draw strong lenses.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides everything.
    n : int
        How many.
    deflectors : Sources, optional
        Galaxies to lens, such as the luminous red ones of a population: each system takes one of them, in
        proportion to its cross section, and its mass follows from its luminosity. Default: galaxies drawn
        from the velocity-dispersion function.
    smallest_einstein_radius, largest_einstein_radius : float
        arcsec. Survey images of 1.3″ show arcs from about 0.5″, those of 0.15″ from 0.2″.
    quasar_fraction : float
        Share of quasars among the sources.
    faintest_deflector : float
        Limit in r.
    faintest_image : float
        Limit in i of the sum of the images: arcs brighter than 21.5 are seen in one SDSS frame (S/N above
        5 or so), to 23.5 in CSST's.

    Raises
    ------
    ConfigError
        If a number is impossible.
    InputError
        If none of the deflectors can be a lens within those limits.
    """
    _check_request(n, smallest_einstein_radius, largest_einstein_radius, quasar_fraction)
    einstein = (smallest_einstein_radius, largest_einstein_radius)
    limits = (faintest_deflector, faintest_image)
    quasars = int(rng.binomial(n, quasar_fraction))
    systems = LensSystems.concatenate(
        [
            _draw_kind(rng, n - quasars, Kind.GALAXY, deflectors, einstein, limits),
            _draw_kind(rng, quasars, Kind.QUASAR, deflectors, einstein, limits),
        ]
    )
    return systems.take(rng.permutation(n))


def _draw_kind(
    rng: Generator,
    n: int,
    kind: Kind,
    deflectors: Sources | None,
    einstein: tuple[float, float],
    limits: tuple[float, float],
) -> LensSystems:
    """Lenses of one kind of source."""
    candidates = int(min(max(4000, 60 * n), 200_000))
    parts: list[LensSystems] = []
    found = 0
    for _ in range(_ROUNDS):
        parts.append(_draw_behind(rng, *draw_deflectors(rng, candidates, deflectors), kind, einstein, limits))
        found += len(parts[-1])
        if found >= n:
            # The first n of a random sequence are a random sample.
            return _with_magnification(LensSystems.concatenate(parts).take(np.arange(n)))
    raise InputError(
        f"{found} of {n} lenses were found among {_ROUNDS * candidates} candidates",
        expected=f"deflectors with Einstein radii from {einstein[0]:g}″ to {einstein[1]:g}″, "
        f"brighter than r = {limits[0]:g}",
        hint="give more luminous deflectors, or fainter limits",
    )


def _check_request(n: int, smallest: float, largest: float, quasars: float) -> None:
    if n < 0:
        raise ConfigError(f"{n} lenses are impossible; expected 0 or more")
    if not 0 < smallest < largest:
        raise ConfigError(
            f"Einstein radii from {smallest:g} to {largest:g} are impossible; expected 0 < smallest < largest"
        )
    if not 0 <= quasars <= 1:
        raise ConfigError(f"a quasar fraction of {quasars:g} is impossible; expected 0 to 1")


def draw_deflectors(rng: Generator, n: int, given: Sources | None = None) -> tuple[Sources, Float64]:
    """Draw galaxies in proportion to σ⁴, as their cross sections go.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    given : Sources, optional
        Galaxies to choose from; default: luminous red galaxies, uniform in volume.

    Returns
    -------
    deflectors : Sources
    dispersion : float64 array, ``[n]``
        Velocity dispersion, km/s.

    Raises
    ------
    InputError
        If no galaxy with a redshift is given.
    """
    if given is None:
        dispersion = laws.draw_dispersions(rng, n)
        redshift = laws.draw_deflector_redshifts(rng, n)
        absolute = laws.luminosity_of_dispersion(rng, dispersion)
        kpc = laws.size_of_dispersion(rng, dispersion)
        shape = laws.draw_shapes(rng, dispersion)
        none = np.zeros(n)
        return (
            Sources(
                kind=np.full(n, Kind.GALAXY, np.int8),
                mag=laws.deflector_colours(rng, absolute, redshift),
                redshift=redshift,
                bulge_fraction=none + 1.0,
                bulge_radius=kpc / laws.kpc_per_arcsec(redshift),
                disc_radius=none,
                bulge_axis_ratio=shape,
                disc_axis_ratio=none + 1.0,
                bulge_index=none + 4.0,
                position_angle=rng.uniform(0, 180, n),
                morphology=np.full(n, Morphology.SMOOTH, np.int8),
            ),
            dispersion,
        )
    galaxies = np.flatnonzero((given.kind == Kind.GALAXY) & (given.redshift > 0.02))
    if len(galaxies) == 0:
        raise InputError(
            "no galaxy to be a lens", expected="sources of kind galaxy with a redshift above 0.02"
        )
    rows = given.take(galaxies)
    absolute = laws.absolute_r(rows.mag[:, 2], rows.redshift)
    weight = laws.dispersion_of_luminosity(rng, absolute) ** 4
    chosen = rng.choice(len(galaxies), n, p=weight / weight.sum())
    # The scatter belongs to the galaxy: the weight's fourth root is its dispersion.
    return rows.take(chosen), weight[chosen] ** 0.25


def _draw_behind(
    rng: Generator,
    deflector: Sources,
    dispersion: Float64,
    kind: Kind,
    einstein: tuple[float, float],
    limits: tuple[float, float],
) -> LensSystems:
    """Put a source behind each candidate, and keep those that are lenses to be seen."""
    n = len(deflector)
    quasar = np.full(n, kind == Kind.QUASAR)
    deepest = limits[1] + 2.5 * math.log10(_MOST_MAGNIFIED)
    i_mag, redshift, radius = laws.draw_galaxy_sources(rng, n, deepest)
    if kind == Kind.QUASAR:
        i_mag, redshift = laws.draw_quasar_sources(rng, n, deepest)
    b = laws.einstein_radius(dispersion, deflector.redshift, redshift)
    # The cross section is σ⁴ (D_ls/D_s)²; σ⁴ is in the draw of the deflector already.
    share = b / laws.einstein_radius(dispersion, 0.0, 1.0)
    keep = (rng.random(n) < share**2) & (b >= einstein[0]) & (b <= einstein[1])
    keep &= (redshift >= 0.8) & (redshift <= 4.0) & (redshift > deflector.redshift + 0.1)
    keep &= deflector.mag[:, 2] <= limits[0]
    rows = np.flatnonzero(keep)
    mass = _draw_mass(rng, deflector.take(rows), b[rows])
    x, y, images_count, gain, kept = _place(rng, mass)
    # Extended sources saturate; points do not.
    limited = np.where(quasar[rows][kept], gain, np.minimum(gain, _MOST_MAGNIFIED))
    with np.errstate(divide="ignore"):
        bright = i_mag[rows][kept] - 2.5 * np.log10(limited) <= limits[1]
    kept, x, y, images_count, gain = kept[bright], x[bright], y[bright], images_count[bright], gain[bright]
    rows = rows[kept]
    source, host_mag, galaxy = _draw_source(
        rng, quasar[rows], i_mag[rows], redshift[rows], radius[rows], x, y
    )
    return LensSystems(
        deflector.take(rows), mass.take(kept), dispersion[rows], source, host_mag, galaxy, gain, images_count
    )


def _draw_mass(rng: Generator, light: Sources, b: Float64) -> Deflectors:
    """Mass that follows the light: Koopmans et al. 2006 (ApJ 649, 599): q ratio 0.99 ± 0.11, angles ± 10°."""
    n = len(light)
    bulge = light.bulge_fraction >= 0.5
    q_light = np.where(bulge, light.bulge_axis_ratio, np.maximum(light.disc_axis_ratio, 0.4))
    q = np.clip(q_light * rng.normal(0.99, 0.11, n), 0.35, 0.99)
    angle = light.position_angle + rng.normal(0, 10, n)
    # Rayleigh of 0.05 (Collett 2015); stronger shears belong to clusters.
    shear = np.minimum(rng.rayleigh(0.05, n), 0.3)
    return Deflectors(b, q, angle % 180, shear, rng.uniform(0, 180, n))


def _place(
    rng: Generator, mass: Deflectors
) -> tuple[Float64, Float64, NDArray[np.int64], Float64, NDArray[np.int64]]:
    """Places in the source plane with two images or more; what is kept, by index of `mass`."""
    n = len(mass)
    # A circle of this radius holds the cut and (for shears below 0.3) nearly all of the tangential caustic.
    distance = 1.2 * mass.einstein_radius * np.sqrt(rng.random(n))
    phi = rng.uniform(0, 2 * np.pi, n)
    x, y = distance * np.cos(phi), distance * np.sin(phi)
    images = find_images(mass, x, y)
    kept = np.flatnonzero(images.count >= 2)
    return x[kept], y[kept], images.count[kept], images.total[kept], kept


def _draw_source(
    rng: Generator,
    quasar: NDArray[np.bool_],
    i_mag: Float64,
    redshift: Float64,
    radius: Float64,
    x: Float64,
    y: Float64,
) -> tuple[Sources, Float64, ClumpyDiscs]:
    n = len(quasar)
    # Hosts: 2 mag fainter than the quasar, redder than the star-forming galaxies at large.
    host_i = np.where(quasar, np.minimum(i_mag + rng.normal(2.0, 0.7, n), 26.0), i_mag)
    # Ultraviolet slopes −1.6 ± 0.4 (Bouwens et al. 2009, ApJ 705, 936, luminous galaxies at z = 2.5).
    slope = np.where(quasar, -1.2, -1.6) + rng.normal(0, 0.4, n)
    jump = np.clip(rng.normal(0.4, 0.25, n), 0, None)
    host_mag = laws.spectrum_magnitudes(host_i, redshift, slope, jump)
    # Quasars: f_λ ∝ λ^-1.56 (Vanden Berk et al. 2001), scatter 0.25.
    blue = rng.normal(-1.56, 0.25, n)
    points = laws.spectrum_magnitudes(i_mag, redshift, blue, np.zeros(n), lines=True)
    # Discs of thickness 0.2 at random inclination.
    cosine = rng.random(n)
    axis_ratio = np.sqrt(0.04 + 0.96 * cosine**2)
    angle = rng.uniform(0, 180, n)
    galaxy = _draw_clumps(rng, ClumpyDiscs.smooth(x, y, radius, axis_ratio, angle))
    one = np.ones(n)
    source = Sources(
        kind=np.where(quasar, Kind.QUASAR, Kind.GALAXY).astype(np.int8),
        mag=np.where(quasar[:, None], points, host_mag),
        redshift=redshift,
        bulge_fraction=np.zeros(n),
        bulge_radius=np.zeros(n),
        disc_radius=np.where(quasar, 0.0, radius),
        bulge_axis_ratio=one,
        disc_axis_ratio=np.where(quasar, 1.0, axis_ratio),
        bulge_index=4 * one,
        position_angle=np.where(quasar, 0.0, angle),
        morphology=np.where(quasar, Morphology.POINT, Morphology.IRREGULAR).astype(np.int8),
    )
    return source, host_mag, galaxy


def _draw_clumps(rng: Generator, discs: ClumpyDiscs) -> ClumpyDiscs:
    """Up to six clumps with 10–50 % of the light (Guo et al. 2015, ApJ 800, 39), inside the disc."""
    n = len(discs)
    there = np.arange(_CLUMPS) < rng.poisson(3.0, n)[:, None]
    share = rng.exponential(1.0, (n, _CLUMPS)) * there
    total = np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
    share *= rng.uniform(0.1, 0.5, (n, 1)) / total
    distance = discs.radius[:, None] * rng.gamma(2.0, 0.5, (n, _CLUMPS)).clip(0, 2.5)
    phi = rng.uniform(0, 2 * np.pi, (n, _CLUMPS))
    u, v = distance * np.cos(phi), distance * np.sin(phi) * discs.axis_ratio[:, None]
    sine, cosine = (f(np.deg2rad(discs.position_angle))[:, None] for f in (np.sin, np.cos))
    sigma = discs.radius[:, None] * rng.uniform(0.1, 0.25, (n, _CLUMPS))
    sigma = np.maximum(sigma, _SMALLEST_CLUMP) * there
    return ClumpyDiscs(
        discs.xi, discs.eta, discs.radius, discs.axis_ratio, discs.position_angle,
        u * sine - v * cosine, u * cosine + v * sine, sigma, share,
    )  # fmt: skip


def _with_magnification(systems: LensSystems) -> LensSystems:
    """Galaxies' magnification is that of the whole, not of the centre."""
    rows = np.flatnonzero(~systems.is_quasar)
    cells = shoot_rays(systems.mass.take(rows), systems.galaxy.take(rows), 0.15)
    gain = systems.magnification.copy()
    gain[rows] = np.bincount(cells.system, cells.light, minlength=len(rows))
    columns = {f.name: getattr(systems, f.name) for f in fields(systems)}
    return LensSystems(**{**columns, "magnification": gain})


def lensed_components(
    systems: LensSystems, source_flux: ArrayLike, host_flux: ArrayLike | None = None, *, step: float = 0.05
) -> Components:
    """The images of the sources, without the deflectors.

    Parameters
    ----------
    systems : LensSystems
        ``n`` of them.
    source_flux : array, ``[n, bands]``
        Unlensed flux of `LensSystems.source`, nJy.
    host_flux : array, ``[n, bands]``, optional
        Unlensed flux of the hosts of the quasars (from `LensSystems.host_mag`); only the rows of quasars are
        read. Default: quasars without hosts.
    step : float
        Side of the finest cells, arcsec. About 0.3 of the PSF's FWHM is enough: 0.05 for images of 0.15″,
        0.12 for the SDSS (a sixth of the components).

    Returns
    -------
    Components
        ``source`` is the row of the system, positions are relative to the deflector.
    """
    flux = np.asarray(source_flux, np.float64)
    if flux.ndim != 2 or len(flux) != len(systems):
        raise InputError(
            f"fluxes of shape {flux.shape} for {len(systems)} lenses", expected="[lenses, bands]"
        )
    quasar = systems.is_quasar
    host = np.zeros_like(flux) if host_flux is None else np.asarray(host_flux, np.float64)
    extended = np.where(quasar[:, None], host, flux)
    rows = np.flatnonzero((extended > 0).any(axis=1))
    cells = shoot_rays(systems.mass.take(rows), systems.galaxy.take(rows), step)
    index = rows[cells.system]
    variance = (_SPREAD * cells.size) ** 2
    arcs = Components(
        index, cells.light[:, None] * extended[index], cells.xi, cells.eta,
        variance, np.zeros_like(variance), variance,
    )  # fmt: skip
    which = np.flatnonzero(quasar)
    if len(which) == 0:
        return arcs
    images = find_images(systems.mass.take(which), systems.galaxy.xi[which], systems.galaxy.eta[which])
    seen = np.arange(images.xi.shape[1]) < images.count[:, None]
    owner = np.broadcast_to(which[:, None], seen.shape)[seen]
    zero = np.zeros(len(owner))
    gain = np.abs(images.magnification[seen])
    points = Components(
        owner, gain[:, None] * flux[owner], images.xi[seen], images.eta[seen], zero, zero, zero
    )
    return Components.concatenate([points, arcs])


def arc_snr(arcs: ArrayLike, variance: ArrayLike) -> Float64:
    """Matched signal-to-noise ratio of arcs: the root of the sum of flux² / variance over pixels.

    Parameters
    ----------
    arcs : array, ``[..., y, x]``
        Images of the arcs alone, PSF included.
    variance : array, broadcast to `arcs`
        Of a pixel, same units squared; pixels where it is not positive are left out.

    Returns
    -------
    float64 array, ``[...]``
    """
    image, noise = np.asarray(arcs, np.float64), np.asarray(variance, np.float64)
    fine = np.isfinite(noise) & (noise > 0)
    weight = np.where(fine, 1 / np.where(fine, noise, 1.0), 0.0)
    return np.asarray(np.sqrt((image**2 * weight).sum(axis=(-2, -1))))
