"""A scene: every source of a tile with its place, light and shape, before any exposure is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import InputError
from imcat.render.components import Components, points
from imcat.render.draw import draw
from imcat.simulate.artefacts import bright_star_light
from imcat.simulate.clustering import cluster_positions, galaxy_field, uniform_positions
from imcat.simulate.galaxies import band_bulge_fraction, galaxy_components
from imcat.simulate.lensed import Lensed, add_lenses
from imcat.simulate.observation import ExposureModel, Observation
from imcat.simulate.parts import Parts
from imcat.simulate.population import FAINTEST, Population
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Kind, Morphology, Sources
from imcat.simulate.spectra import SpectralLibrary

__all__ = ["Models", "Scene", "draw_exposure", "make_scene"]

Float64 = NDArray[np.float64]

# Sources beside the tile whose light reaches into it, arcsec; exposures of a tile are shifted by less.
_MARGIN = 25.0
# A star this many times brighter than the noise of a pixel has spikes and a ghost that show.
_BRIGHT = 3e4
# Light of a Gaussian's wing that is left out, in units of the noise of a pixel.
_FLOOR = 0.01
# Structure is drawn in galaxies this many times above the noise of one PSF (mean over half the light).
_DETAIL_SNR = 4.0


@dataclass(frozen=True, eq=False)
class Models:
    """What the simulator reads from weights.

    Attributes
    ----------
    population : Population
        Which sources there are.
    spectra : SpectralLibrary
        What they look like in other bands.
    """

    population: Population
    spectra: SpectralLibrary

    @classmethod
    def load(cls) -> Models:
        """Those that come with imcat."""
        return cls(Population.load(), SpectralLibrary.load())


@dataclass(frozen=True, eq=False)
class Scene:
    """The sky of a tile.

    Attributes
    ----------
    sources : Sources
        One entry for each source.
    ra, dec : float64 array, ``[n]``
        ICRS degrees.
    mag : float64 array, ``[n, bands]``
        Total AB magnitudes in the observation's bands, dust of the Milky Way included; with
        lenses, deflector and images together.
    components : Components
        Light; `flux` has the observation's bands.
    detailed : bool array, ``[n]``
        Whether the structure of the morphology was drawn.
    lensed : Lensed
        Lenses and look-alikes among the sources.
    added : int64 array, ``[n]``
        Index among the sources that were added to those of the sky, -1 for all others.
    replaced : bool array, ``[n]``
        Whether its light is not the simulator's own.
    spike_angle, ghost : float, (float, float)
        Direction of diffraction spikes (degrees east of north), place of ghosts (arcsec).
    """

    sources: Sources
    ra: Float64
    dec: Float64
    mag: Float64
    components: Components
    detailed: NDArray[np.bool_]
    lensed: Lensed
    added: NDArray[np.int64]
    replaced: NDArray[np.bool_]
    spike_angle: float
    ghost: tuple[float, float]

    @property
    def flux(self) -> Float64:
        """nJy, ``[n, bands]``."""
        flux: Float64 = AB_FLUX * 10 ** (-0.4 * self.mag)
        return flux


def make_scene(
    observation: Observation,
    settings: SimulateSettings,
    models: Models,
    seed: np.random.SeedSequence,
    parts: Parts | None = None,
) -> Scene:
    """Draw the sources of a tile.

    Parameters
    ----------
    observation : Observation
        Where, in which bands, how deep.
    settings : SimulateSettings
        Lenses, clustering, clusters, detail.
    models : Models
        Population and spectra.
    seed : numpy.random.SeedSequence
        Decides every random number.
    parts : Parts, optional
        Sources beyond those of the sky, and light of galaxies in place of the simulator's.

    Raises
    ------
    InputError
        If the population does not reach the depth.
    """
    rng = np.random.default_rng(seed)
    parts = parts or Parts()
    sources, x, y = _sources(observation, settings, models, rng)
    own = len(sources)
    if parts.added is not None:
        sources, x, y = _with_added(sources, x, y, parts.added, parts.places, observation, rng)
    added = np.full(len(sources), -1, np.int64)
    added[own:] = np.arange(len(sources) - own)
    sources, x, y, lensed = add_lenses(sources, x, y, observation, settings, models.population, rng)
    wcs = observation.reference_exposure.wcs
    ra, dec = wcs.all_pix2world(x, y, 0)
    filters = observation.filters
    columns = [filters.names.index(band) for band in observation.bands]
    template = models.spectra.choose(sources.kind, sources.mag, sources.redshift, rng)
    mag = models.spectra.magnitudes(
        sources.kind, template, sources.redshift, sources.mag, filters, ebv=observation.ebv
    )[:, columns]
    flux = AB_FLUX * 10 ** (-0.4 * mag)
    detailed = _detailed(sources, flux, observation, settings) | _structured_lookalike(sources, lensed)
    fraction = band_bulge_fraction(sources, flux, filters.wavelengths[columns])
    light = [points(flux[sources.kind != Kind.GALAXY], np.flatnonzero(sources.kind != Kind.GALAXY))]
    replaced = np.zeros(len(sources), np.bool_)
    if parts.light is not None:
        # Lenses and look-alikes are what they are by the light that they were given.
        free = (sources.kind == Kind.GALAXY) & (lensed.lookalike == "")
        free[lensed.rows] = False
        asked = np.flatnonzero(free)
        made = parts.light(sources.take(asked), flux[asked], filters.wavelengths[columns])
        replaced[asked[made.rows]] = True
        detailed[asked[made.rows]] &= made.structured
        light.append(_renumbered(made.components, asked[made.rows]))
    galaxies = np.flatnonzero((sources.kind == Kind.GALAXY) & ~replaced)
    drawn = galaxy_components(
        sources.take(galaxies), flux[galaxies], fraction[galaxies], rng, detail=detailed[galaxies],
        wavelengths=filters.wavelengths[columns],
    )  # fmt: skip
    light.append(_renumbered(drawn, galaxies))
    images, image_flux = lensed.components(models.spectra, filters, columns, observation.ebv, rng)
    light.append(images)
    components = Components.concatenate([p for p in light if len(p)] or light[:1])
    total = flux + image_flux
    with np.errstate(divide="ignore"):
        mag = -2.5 * np.log10(total / AB_FLUX)
    angle = float(rng.uniform(0, 90))
    ghost = tuple(float(v) for v in rng.normal(0, 8.0, 2))
    return Scene(
        sources,
        np.asarray(ra),
        np.asarray(dec),
        mag,
        components,
        detailed,
        lensed,
        np.concatenate([added, np.full(len(sources) - len(added), -1, np.int64)]),
        replaced,
        angle,
        (ghost[0], ghost[1]),
    )


def draw_exposure(
    scene: Scene,
    observation: Observation,
    model: ExposureModel,
    settings: SimulateSettings,
    only: Components | None = None,
) -> NDArray[np.float32]:
    """Light of all sources on the pixels of an exposure, without noise.

    Parameters
    ----------
    scene : Scene
        The sky.
    observation : Observation
        That the scene was made for.
    model : ExposureModel
        One of its exposures.
    settings : SimulateSettings
        Whether there are ghosts.
    only : Components, optional
        Draw these in place of all.

    Returns
    -------
    float32 array, ``[y, x]``
        nJy per pixel.
    """
    image = np.zeros(model.shape, np.float32)
    band = observation.bands.index(model.band)
    x, y = model.wcs.all_world2pix(scene.ra, scene.dec, 0)
    floor = _FLOOR * model.noise
    draw(image, only or scene.components, band, x, y, model.jacobian, model.psf, floor=floor)
    if settings.ghosts and only is None:
        stars = scene.sources.kind == Kind.STAR
        light = bright_star_light(
            np.where(stars, scene.flux[:, band], 0.0)[:, None],
            _BRIGHT * model.noise,
            scene.spike_angle,
            model.psf.fwhm * model.pixel_scale / 2.3548,
            scene.ghost,
        )
        if len(light):
            draw(image, light, 0, x, y, model.jacobian, model.psf, floor=floor)
    return image


def _sources(
    observation: Observation, settings: SimulateSettings, models: Models, rng: np.random.Generator
) -> tuple[Sources, Float64, Float64]:
    """Sources and their places in pixels of the reference image."""
    reference = observation.reference_exposure
    scale = reference.pixel_scale
    margin = _MARGIN
    width, height = (n * scale + 2 * margin for n in (reference.shape[1], reference.shape[0]))
    field = galaxy_field(rng, width, height)
    density = float(field.density().mean()) if settings.clustering else 1.0
    # The population is drawn by magnitude in the SDSS r band, which every survey's r resembles.
    band = "r" if "r" in observation.bands else observation.reference
    faintest = _faintest(observation.limit(band), settings.depth_below_limit)
    sources = models.population.draw(
        rng,
        area=width * height / 3600.0**2,
        limit=faintest,
        latitude=observation.latitude,
        longitude=observation.longitude,
        star_density=observation.star_density,
        galaxy_density=observation.galaxy_density * density,
        quasar_density=settings.density,
    )
    if settings.galaxy_size != 1:
        sources = replace(
            sources,
            bulge_radius=sources.bulge_radius * settings.galaxy_size,
            disc_radius=sources.disc_radius * settings.galaxy_size,
        )
    u, v = uniform_positions(rng, len(sources), width, height)
    galaxy = sources.kind == Kind.GALAXY
    if settings.clustering:
        u[galaxy], v[galaxy] = field.positions(rng, sources.mag[galaxy, 2])
    if settings.cluster_stars:
        stars = _cluster(models.population, settings.cluster_stars, observation, rng, faintest)
        cu, cv = cluster_positions(rng, len(stars), width, height, settings.cluster_radius)
        sources = Sources.concatenate([sources, stars])
        u, v = np.concatenate([u, cu]), np.concatenate([v, cv])
    return sources, (u - margin) / scale - 0.5, (v - margin) / scale - 0.5


def _with_added(
    sources: Sources,
    x: Float64,
    y: Float64,
    added: Sources,
    places: tuple[Float64, Float64] | None,
    observation: Observation,
    rng: np.random.Generator,
) -> tuple[Sources, Float64, Float64]:
    """Sources and their places with more of them at the end."""
    height, width = observation.reference_exposure.shape
    at = places or (
        rng.uniform(-0.5, width - 0.5, len(added)),
        rng.uniform(-0.5, height - 0.5, len(added)),
    )
    return Sources.concatenate([sources, added]), np.concatenate([x, at[0]]), np.concatenate([y, at[1]])


def _faintest(limit: float, below: float) -> float:
    """Magnitude down to which sources are drawn."""
    if limit + below > FAINTEST:
        raise InputError(
            f"a tile with a 5 sigma limit of r = {limit:.1f} asks for sources to {limit + below:.1f}",
            expected=f"at most r = {FAINTEST:g}, where the population ends",
            hint="set simulate.depth_below_limit lower, or make the tile shallower",
        )
    return limit + below


def _cluster(
    population: Population, count: int, observation: Observation, rng: np.random.Generator, faintest: float
) -> Sources:
    """Stars with the colours of the field's, at one distance: the counts rise steadily to the faint end."""
    field = population.draw(
        rng, area=max(0.05, count / 2000.0), limit=faintest,
        latitude=observation.latitude, longitude=observation.longitude, galaxy_density=0.0, quasar_density=0.0,
    )  # fmt: skip
    stars = field.take(field.kind == Kind.STAR)
    weight = 10 ** (0.25 * (stars.mag[:, 2] - 20.0))
    return stars.take(rng.choice(len(stars), count, p=weight / weight.sum()))


def _detailed(
    sources: Sources, flux: Float64, observation: Observation, settings: SimulateSettings
) -> NDArray[np.bool_]:
    """Galaxies that are large and bright enough to show structure."""
    reference = observation.reference_exposure
    fwhm = reference.psf.fwhm * reference.pixel_scale
    radius = np.maximum(sources.disc_radius, sources.bulge_radius)
    area = math.pi * np.maximum(radius, 0.1) ** 2 * np.maximum(sources.disc_axis_ratio, 0.1)
    band = observation.bands.index(observation.reference)
    patch = math.pi * (0.5 * fwhm) ** 2
    signal = 0.5 * flux[:, band] * np.minimum(1.0, patch / area)
    snr = signal / (reference.noise * math.sqrt(patch) / reference.pixel_scale)
    structured = ~np.isin(sources.morphology, (Morphology.POINT, Morphology.SMOOTH, Morphology.DISC))
    return structured & (radius > settings.detail_from * 0.5 * fwhm) & (snr > _DETAIL_SNR)


def _structured_lookalike(sources: Sources, lensed: Lensed) -> NDArray[np.bool_]:
    """Rings, spirals and mergers that look like a lens: without their structure they would not."""
    structured = ~np.isin(sources.morphology, (Morphology.POINT, Morphology.SMOOTH, Morphology.DISC))
    named: NDArray[np.bool_] = structured & (lensed.lookalike != "")
    return named


def _renumbered(components: Components, rows: NDArray[Any]) -> Components:
    from dataclasses import replace

    return replace(components, source=rows[components.source].astype(np.int64))
