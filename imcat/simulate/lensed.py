"""Lenses and look-alikes in a scene: where they are, the light of the images, and their truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.render.components import Components
from imcat.simulate.filters import FilterSet
from imcat.simulate.lens_systems import LensSystems, draw_systems, lensed_components
from imcat.simulate.lookalikes import draw_lookalikes
from imcat.simulate.observation import Observation
from imcat.simulate.population import Population
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Kind, Sources
from imcat.simulate.spectra import SpectralLibrary

__all__ = ["Lensed", "add_lenses"]

Float64 = NDArray[np.float64]

# Einstein radii that a survey can hope to see, arcsec: about 0.4 and 1.5 of the PSF's width.
_SMALLEST = {"sdss": 0.5, "csst": 0.2}
# Faintest images worth drawing (in i): about the 5 sigma limit of an extended source.
_FAINTEST = {"sdss": 21.5, "csst": 23.5}
# Cells of the ray shooting, as a share of the PSF's width, and their smallest side, arcsec.
_CELL, _SMALLEST_CELL = 0.3, 0.03


@dataclass(frozen=True, eq=False)
class Lensed:
    """Which sources of a scene are lenses or look like one.

    Attributes
    ----------
    count : int
        Sources in the scene.
    rows : int64 array, ``[m]``
        Index of each lens among the sources.
    systems : LensSystems or None
        The lenses; None where there are none.
    lookalike : str array, ``[count]``
        What makes a source look like a lens; empty for most.
    cell : float
        Side of the cells of the ray shooting, arcsec.
    images : list of Components
        Filled by `components`: the images of each lens, in the scene's bands.
    """

    count: int
    rows: NDArray[np.int64]
    systems: LensSystems | None
    lookalike: NDArray[np.str_]
    cell: float
    images: list[Components] = field(default_factory=list)

    def components(
        self,
        spectra: SpectralLibrary,
        filters: FilterSet,
        columns: list[int],
        ebv: float,
        rng: np.random.Generator,
    ) -> tuple[Components, Float64]:
        """Light of the images.

        Parameters
        ----------
        spectra : SpectralLibrary
            Of the lensed sources.
        filters : FilterSet
            Of the camera.
        columns : list of int
            Its bands that are observed.
        ebv : float
            Of the Milky Way.
        rng : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        components : Components
            Sources are those of the scene.
        flux : float64 array, ``[count, bands]``
            Of the images of each source, nJy.
        """
        total = np.zeros((self.count, len(columns)))
        if self.systems is None:
            nothing = np.zeros(0)
            empty = np.zeros((0, len(columns)))
            return Components(np.zeros(0, np.int64), empty, *([nothing] * 5)), total
        behind = self.systems.source

        def flux_of(kind: Any, mag: Float64) -> Float64:
            template = spectra.choose(kind, mag, behind.redshift, rng)
            found = spectra.magnitudes(kind, template, behind.redshift, mag, filters, ebv=ebv)
            flux: Float64 = AB_FLUX * 10 ** (-0.4 * found[:, columns])
            return flux

        galaxies = np.full(len(behind), Kind.GALAXY, np.int8)
        light = lensed_components(
            self.systems,
            flux_of(behind.kind, behind.mag),
            flux_of(galaxies, self.systems.host_mag),
            step=self.cell,
        )
        order = np.argsort(self.rows[light.source], kind="stable")
        placed = Components(
            self.rows[light.source][order],
            *(getattr(light, name)[order] for name in ("flux", "xi", "eta", "xx", "xy", "yy")),
        )
        total[self.rows] = light.total(len(self.rows))
        self.images.append(placed)
        return placed, total

    def truth(self) -> dict[str, NDArray[Any]]:
        """Columns of the truth table, one entry for each source; the S/N of arcs is not among them."""
        columns: dict[str, NDArray[Any]] = {
            "is_lens": np.zeros(self.count, np.bool_),
            "lookalike": self.lookalike,
            "einstein_radius": np.full(self.count, np.nan),
            "lens_source": np.full(self.count, "", dtype="<U8"),
            "lens_source_z": np.full(self.count, np.nan),
            "lens_magnification": np.full(self.count, np.nan),
            "lens_images": np.zeros(self.count, np.int64),
        }
        if self.systems is None:
            return columns
        facts = self.systems.truth()
        names = {
            "einstein_radius": "einstein_radius",
            "lens_source": "lens_kind",
            "lens_source_z": "source_redshift",
            "lens_magnification": "magnification",
            "lens_images": "n_images",
        }
        for column, fact in names.items():
            columns[column][self.rows] = facts[fact]
        columns["is_lens"][self.rows] = True
        return columns


def add_lenses(
    sources: Sources,
    x: Float64,
    y: Float64,
    observation: Observation,
    settings: SimulateSettings,
    population: Population,
    rng: np.random.Generator,
) -> tuple[Sources, Float64, Float64, Lensed]:
    """Put lenses and look-alikes among the sources of a scene.

    Parameters
    ----------
    sources : Sources
        All others.
    x, y : float64 array
        Their places, pixels of the reference image.
    observation : Observation
        Says how large the tile is and how sharp.
    settings : SimulateSettings
        Rates and the smallest Einstein radius.
    population : Population
        Galaxies for look-alikes.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    sources, x, y
        With the new ones at the end.
    lensed : Lensed
        Which they are.
    """
    reference = observation.reference_exposure
    rows, columns = reference.shape
    area = rows * columns * (reference.pixel_scale / 3600.0) ** 2
    lenses = int(rng.poisson(settings.lenses_per_deg2 * area))
    alike = int(rng.poisson(settings.lookalikes_per_deg2 * area))
    places_of = _Places(rng, rows, columns, settings.lens_spacing / reference.pixel_scale)
    lenses, alike = places_of.at_most(lenses, alike)
    fwhm = min(e.psf.fwhm * e.pixel_scale for e in observation.exposures)
    cell = max(_SMALLEST_CELL, _CELL * fwhm)
    systems = None
    parts, places = [sources], [(x, y)]
    if lenses:
        smallest = settings.smallest_einstein_radius or _SMALLEST.get(observation.survey, 0.4 * fwhm)
        systems = draw_systems(
            rng,
            lenses,
            smallest_einstein_radius=smallest,
            faintest_image=_FAINTEST.get(observation.survey, _FAINTEST["sdss"]),
        )
        parts.append(systems.deflector)
        places.append(places_of.draw(lenses))
    names = [np.full(len(sources) + lenses, "", dtype="<U8")]
    if alike:
        found = draw_lookalikes(rng, alike, population)
        at = places_of.draw(alike)
        offset = reference.jacobian @ np.stack([found.xi, found.eta])
        parts.append(found.sources)
        places.append((at[0][found.system] + offset[0], at[1][found.system] + offset[1]))
        names.append(found.name)
    everything = Sources.concatenate(parts)
    lensed = Lensed(
        count=len(everything),
        rows=len(sources) + np.arange(lenses, dtype=np.int64),
        systems=systems,
        lookalike=np.concatenate(names),
        cell=cell,
    )
    return (
        everything,
        np.concatenate([p[0] for p in places]),
        np.concatenate([p[1] for p in places]),
        lensed,
    )


class _Places:
    """Places of lenses and look-alikes: anywhere, or on a grid whose cells are taken once.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    rows, columns : int
        Of the reference image.
    spacing : float
        Of the grid, pixels; 0 for anywhere.
    """

    def __init__(self, rng: np.random.Generator, rows: int, columns: int, spacing: float) -> None:
        self.rng, self.rows, self.columns, self.spacing = rng, rows, columns, spacing
        self.free = np.zeros((0, 2))
        if spacing:
            ny, nx = int(rows // spacing), int(columns // spacing)
            grid = np.stack(np.meshgrid(np.arange(nx), np.arange(ny)), axis=-1).reshape(-1, 2)
            self.free = spacing * (rng.permutation(grid) + 0.5)

    def at_most(self, lenses: int, alike: int) -> tuple[int, int]:
        """Numbers that there is room for, in the same proportion."""
        if not self.spacing or lenses + alike <= len(self.free):
            return lenses, alike
        share = len(self.free) / (lenses + alike)
        return int(lenses * share), int(alike * share)

    def draw(self, n: int) -> tuple[Float64, Float64]:
        """X and y of `n` of them, pixels."""
        if not self.spacing:
            return self.rng.uniform(0, self.columns, n) - 0.5, self.rng.uniform(0, self.rows, n) - 0.5
        # Not all in the middle of a pixel.
        taken, self.free = self.free[:n] + self.rng.uniform(-0.5, 0.5, (n, 2)), self.free[n:]
        return taken[:, 0] - 0.5, taken[:, 1] - 0.5
