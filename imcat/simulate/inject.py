"""Simulated sources added to the pixels of a real tile, to see which of them come back.

The sources are drawn from the population behind `imcat simulate`, as many of each magnitude; light and its photon
noise are added to every exposure with the PSF that was measured there. Nothing else of the tile changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.align import transform_positions
from imcat.catalogue.fields import AB_FLUX
from imcat.measure.views import pixel_to_sky
from imcat.psf.mixture import PsfMixture
from imcat.render.components import Components, points
from imcat.render.draw import draw
from imcat.simulate.filters import FilterSet
from imcat.simulate.galaxies import band_bulge_fraction, galaxy_components
from imcat.simulate.population import FAINTEST
from imcat.simulate.scene import Models
from imcat.simulate.sdss_camera import galactic_place
from imcat.simulate.settings import InjectSettings
from imcat.simulate.sources import Kind, Sources
from imcat.tile import Exposure, Pixels, Tile
from imcat.window import Window

__all__ = ["ExposureLight", "Injected", "inject", "kinds"]

Float64 = NDArray[np.float64]

_SDSS_BAND = 2  # r: the band of the population's magnitudes
_BIN = 0.5  # magnitudes within which the population's mix of types and colours is kept
_TRIES = 12  # times that the area from which sources are drawn is doubled
_FIRST_AREA = 0.02  # square degrees
_FLOOR = 0.01  # wings fainter than this, in units of the noise of a pixel, are left out
_MANY = 50.0  # electrons from which on photon noise is taken as normal
_BORDER = 8.0  # pixels


@dataclass(frozen=True, eq=False)
class ExposureLight:
    """What adding light to an exposure takes.

    Attributes
    ----------
    psf : PsfMixture
        Its PSF.
    enclosed : float
        Share of the light to which magnitudes refer.
    noise : float
        Rms of a pixel, nJy.
    """

    psf: PsfMixture
    enclosed: float
    noise: float


@dataclass(frozen=True, eq=False)
class Injected:
    """The sources that were added; arrays ``[n]``.

    Attributes
    ----------
    kind : int8 array
        `imcat.simulate.sources.Kind`.
    x, y : float64 arrays
        Pixels of the reference image.
    ra, dec : float64 arrays
        ICRS degrees.
    mag : float64 array ``[n, bands]``
        AB, as a catalogue has them: dust of the Milky Way included.
    limit : float
        Magnitude of a point source of S/N 5 in the reference band.
    """

    kind: NDArray[np.int8]
    x: Float64
    y: Float64
    ra: Float64
    dec: Float64
    mag: Float64
    limit: float


@dataclass(frozen=True, eq=False)
class _Added:
    """An image with something added."""

    image: Pixels
    added: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape

    def read(self, window: Window) -> NDArray[Any]:
        return np.asarray(self.image.read(window) + self.added[window.slices], np.float32)


def inject(
    tile: Tile,
    lights: Sequence[ExposureLight],
    count: int,
    settings: InjectSettings,
    models: Models,
    ebv: float = 0.0,
    places: tuple[Float64, Float64] | None = None,
) -> tuple[Tile, Injected]:
    """Add simulated sources to a tile.

    Parameters
    ----------
    tile : Tile
        The pixels; they are not changed.
    lights : sequence of ExposureLight
        In the order of ``tile.exposures()``.
    count : int
        How many sources.
    settings : InjectSettings
        Which ones.
    models : Models
        Population and spectra.
    ebv : float
        E(B-V) of the Milky Way, mag.
    places : (float64 array, float64 array), optional
        x and y of the sources, pixels of the reference image; default: anywhere.

    Returns
    -------
    tile : Tile
        With the sources.
    injected : Injected
        What they are.
    """
    rng = np.random.default_rng([settings.seed, tile.number])
    pairs = list(tile.exposures())
    first = next(k for k, (_, exposure) in enumerate(pairs) if exposure is tile.reference_exposure)
    limit = _limit(lights[first], tile.shape)
    rows, columns = tile.shape
    border = min(_BORDER, 0.25 * min(rows, columns))
    x, y = places or (
        rng.uniform(border, columns - 1 - border, count),
        rng.uniform(border, rows - 1 - border, count),
    )
    ra, dec, _ = pixel_to_sky(tile.reference_exposure.wcs, x, y)
    place = galactic_place(float(np.median(ra)), float(np.median(dec)))
    reference = tile.band_names.index(tile.reference)
    sources, mag = _choose(tile, reference, limit, count, settings, models, place, ebv, rng)
    components = _components(tile, sources, mag, rng)
    added = {}
    for (band, exposure), light in zip(pairs, lights, strict=True):
        image = np.zeros(exposure.shape, np.float32)
        px, py = transform_positions(tile.reference_exposure.wcs, exposure.wcs, x, y)
        _, _, steps = pixel_to_sky(exposure.wcs, np.array([np.median(px)]), np.array([np.median(py)]))
        draw(
            image, components, tile.band_names.index(band.name), px, py, np.linalg.inv(steps[0]), light.psf,
            floor=_FLOOR * light.noise,
        )  # fmt: skip
        image /= np.float32(light.enclosed)
        added[id(exposure)] = _photon_noise(image, exposure, rng)
    bands = tuple(
        replace(
            band,
            exposures=tuple(replace(e, image=_Added(e.image, added[id(e)])) for e in band.exposures),
        )
        for band in tile.bands
    )
    return replace(tile, bands=bands), Injected(sources.kind, x, y, ra, dec, mag, limit)


def _limit(light: ExposureLight, shape: tuple[int, int]) -> float:
    """Magnitude of a point source of S/N 5 with optimal weights."""
    size = max(15, int(6 * light.psf.fwhm) | 1)
    image = np.asarray(light.psf.image(size, 0.5 * shape[1], 0.5 * shape[0]))
    flux = 5 * light.noise / math.sqrt(float(np.sum(image**2)))
    return 2.5 * math.log10(AB_FLUX / flux)


def _choose(
    tile: Tile,
    reference: int,
    limit: float,
    count: int,
    settings: InjectSettings,
    models: Models,
    place: tuple[float, float],
    ebv: float,
    rng: np.random.Generator,
) -> tuple[Sources, Float64]:
    """Sources with the sky's mix at each magnitude, as many of each, and their magnitudes in the tile's bands."""
    bright, faint = limit - settings.brighter, limit + settings.fainter
    edges = np.linspace(bright, faint, max(1, round((faint - bright) / _BIN)) + 1)
    wanted = rng.multinomial(count, np.full(edges.size - 1, 1 / (edges.size - 1)))
    drawn: list[Sources] = []
    mags: list[Float64] = []
    have = np.zeros(edges.size - 1, np.int64)
    area = _FIRST_AREA
    for _ in range(_TRIES):
        # The reference band may be any, the population counts in r: a margin for the colours.
        sources = models.population.draw(
            rng, area=area, limit=min(faint + 1.0, FAINTEST), latitude=place[0], longitude=place[1],
            star_density=settings.stars, galaxy_density=settings.galaxies, quasar_density=settings.quasars,
        )  # fmt: skip
        mag = _magnitudes(tile, sources, models, ebv, rng)
        at = np.searchsorted(edges, mag[:, reference], side="right") - 1
        good = (at >= 0) & (at < have.size)
        for k in np.flatnonzero(have < wanted):
            rows = np.flatnonzero(good & (at == k))[: wanted[k] - have[k]]
            drawn.append(sources.take(rows))
            mags.append(mag[rows])
            have[k] += rows.size
        if np.all(have >= wanted):
            break
        area *= 2
    order = rng.permutation(sum(map(len, drawn)))
    return Sources.concatenate(drawn).take(order), np.concatenate(mags)[order]


def _magnitudes(
    tile: Tile, sources: Sources, models: Models, ebv: float, rng: np.random.Generator
) -> Float64:
    """Magnitudes in the tile's bands; those of unknown cameras lie between the bands of SDSS."""
    filters = FilterSet.named("csst" if tile.survey == "csst" else "sdss")
    template = models.spectra.choose(sources.kind, sources.mag, sources.redshift, rng)
    mag = models.spectra.magnitudes(sources.kind, template, sources.redshift, sources.mag, filters, ebv=ebv)
    if set(tile.band_names) <= set(filters.names) and tile.survey in ("sdss", "csst"):
        return mag[:, [filters.names.index(band) for band in tile.band_names]]
    known = np.log(filters.wavelengths)
    return np.stack([_between(known, mag, math.log(band.wavelength)) for band in tile.bands], axis=1)


def _between(known: Float64, mag: Float64, wanted: float) -> Float64:
    """Linear in the logarithm of wavelength; constant beyond the ends."""
    right = int(np.clip(np.searchsorted(known, wanted), 1, known.size - 1))
    share = np.clip((wanted - known[right - 1]) / (known[right] - known[right - 1]), 0.0, 1.0)
    return np.asarray((1 - share) * mag[:, right - 1] + share * mag[:, right])


def _components(tile: Tile, sources: Sources, mag: Float64, rng: np.random.Generator) -> Components:
    """Light of the sources: points, and galaxies with their bulges, discs and structure."""
    flux = AB_FLUX * 10 ** (-0.4 * mag)
    wavelengths = np.array([band.wavelength for band in tile.bands])
    fraction = band_bulge_fraction(sources, flux, wavelengths)
    galaxy = sources.kind == Kind.GALAXY
    parts = [points(flux[~galaxy], np.flatnonzero(~galaxy))]
    if galaxy.any():
        rows = np.flatnonzero(galaxy)
        own = galaxy_components(
            sources.take(rows), flux[rows], fraction[rows], rng, detail=np.zeros(rows.size, bool),
            wavelengths=wavelengths,
        )  # fmt: skip
        parts.append(replace(own, source=rows[own.source].astype(np.int64)))
    return Components.concatenate([p for p in parts if len(p)] or parts[:1])


def _photon_noise(
    image: NDArray[np.float32], exposure: Exposure, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add the photon noise of the light itself; the noise of sky and detector is there already."""
    if not exposure.gain:
        return image
    lit = np.flatnonzero(image > 0)
    expected = image.ravel()[lit].astype(float) * exposure.gain
    few = expected < _MANY
    electrons = expected + np.sqrt(expected) * rng.standard_normal(expected.size)
    electrons[few] = rng.poisson(expected[few])
    image.ravel()[lit] = electrons / exposure.gain
    return image


def kinds(values: NDArray[np.int8]) -> Mapping[str, NDArray[np.bool_]]:
    """Which sources are of each kind, by name."""
    return {kind.name.lower(): values == kind for kind in Kind}
