"""The population of the sky: stars, galaxies and quasars as real tables have them.

A compact model, fitted by `imcat.simulate.population_fit` and kept in ``weights/population.safetensors``
with its card. Stars: counts and colours by line of sight (`imcat.simulate.milky_way`,
`imcat.simulate.stellar_locus`). Galaxies: counts in r, colours given r, redshift given magnitude and
colours, structure given magnitude and colours. Quasars: a published luminosity function, colours given
redshift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.errors import UsageError
from imcat.registry import read_weights
from imcat.simulate.counts import GalaxyCounts, QuasarCounts
from imcat.simulate.density import Density
from imcat.simulate.galaxy_shapes import ShapeModel
from imcat.simulate.milky_way import StarModel
from imcat.simulate.morphology import draw_morphology
from imcat.simulate.sources import Kind, Sources
from imcat.simulate.stellar_locus import Locus

__all__ = ["BRIGHTEST", "FAINTEST", "FIELD_RADIUS", "FORMAT", "Population"]

Float64 = NDArray[np.float64]

#: Version of the format of the weights.
FORMAT = 1
#: Brightest sources that are drawn, in r: bigger galaxies and brighter stars are in every atlas.
BRIGHTEST = {"star": 8.0, "galaxy": 12.5}
#: Faintest limit in r for which there is a population. The counts were fitted to i = 26.25; fainter ones keep the
#: slope, as those of the Hubble Ultra Deep Field do to about this magnitude (Coe et al. 2006, AJ 132, 926).
FAINTEST = 29.5
# Range in r within which colours and redshifts were fitted.
_COLOUR_RANGE = (14.0, 26.5)
_REDSHIFT_RANGE = (0.002, 6.0)
# Counts of quasars are in the g of a power-law continuum of index -0.5 (Vanden Berk et al. 2001, AJ 122, 549):
# g - i of that continuum, since hydrogen takes light out of g at high redshift and not of i.
_QUASAR_CONTINUUM = 1.25 * math.log10(7480.0 / 4686.0)
#: Radii over those of the tables the shapes were fitted to. Without it the half-light radii that imcat measures of
#: galaxies of r = 18.5 to 21.5 are 5.4 ± 2.3 per cent smaller in twins than in the three fields the simulator was
#: made alike on; with the PSF in them that is 9 per cent of the intrinsic ones.
FIELD_RADIUS = 1.09
#: Edges of the bins in redshift of the colours of quasars.
QUASAR_EDGES: Float64 = np.round(np.arange(0.3, 5.51, 0.1), 10)


@dataclass(frozen=True, eq=False)
class Population:
    """Stars, galaxies and quasars of the sky.

    Attributes
    ----------
    stars : StarModel
        How many, of which colour.
    locus : Locus
        Their other colours.
    counts : GalaxyCounts
        Galaxies by r.
    colours : Density
        r; u-g, g-r, r-i, i-z.
    redshift : Density
        r, u-g, g-r, r-i, i-z; logarithm of redshift.
    shapes : ShapeModel
        Structure of galaxies.
    quasar_weights, quasar_means, quasar_covariances : float64 arrays
        Two Gaussians in the four colours in each bin of redshift.
    """

    stars: StarModel
    locus: Locus
    counts: GalaxyCounts
    colours: Density
    redshift: Density
    shapes: ShapeModel
    quasar_weights: Float64
    quasar_means: Float64
    quasar_covariances: Float64

    @staticmethod
    def load(folder: str | Path | None = None) -> Population:
        """Read the population.

        Parameters
        ----------
        folder : path, optional
            Where ``population.safetensors`` and its card lie; default: those that come with imcat.

        Raises
        ------
        InputError
            If the file is not what its card says.
        """
        from safetensors.numpy import load

        recipe = "python -m imcat.simulate.population_fit -o FOLDER"
        return Population.from_arrays(load(read_weights("population", FORMAT, recipe, folder)[0]))

    def draw(
        self,
        rng: np.random.Generator,
        area: float,
        limit: float,
        latitude: float,
        longitude: float | None = None,
        *,
        star_density: float = 1.0,
        galaxy_density: float = 1.0,
        quasar_density: float = 1.0,
    ) -> Sources:
        """Draw the sources of a patch of sky, without positions.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        area : float
            Square degrees.
        limit : float
            Faintest magnitude in r, without the dust of the Milky Way.
        latitude, longitude : float
            Galactic, degrees; without a longitude the mean over all. Near the plane (below 20 degrees) the
            star counts are an extrapolation.
        star_density, galaxy_density, quasar_density : float
            Factors on the numbers.

        Returns
        -------
        Sources
            Stars first, then galaxies, then quasars.

        Raises
        ------
        UsageError
            If the population does not reach the limit, or a number is impossible.
        """
        self._check(area, limit, latitude, longitude, (star_density, galaxy_density, quasar_density))
        drawn = self.stars.draw(rng, area, BRIGHTEST["star"], limit, latitude, longitude, star_density)
        stars = Sources.points(Kind.STAR, self.locus.magnitudes(rng, drawn))
        mag_r = self.counts.draw(rng, area, BRIGHTEST["galaxy"], limit, galaxy_density)
        return Sources.concatenate(
            [stars, self.galaxies(rng, mag_r), self._quasars(rng, area, limit, quasar_density)]
        )

    def galaxies(self, rng: np.random.Generator, mag_r: Float64) -> Sources:
        """Draw galaxies of given magnitudes.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        mag_r : float64 array, ``[n]``
            Total magnitude in r, without the dust of the Milky Way.
        """
        n = len(mag_r)
        inside = np.clip(mag_r, *_COLOUR_RANGE)[:, None]
        colours = np.clip(self.colours.draw(rng, inside), (-0.6, -0.5, -0.5, -0.5), (3.5, 2.3, 1.8, 1.2))
        mag = np.stack([mag_r] * 5, 1)
        mag[:, 1] += colours[:, 1]
        mag[:, 0] = mag[:, 1] + colours[:, 0]
        mag[:, 3] -= colours[:, 2]
        mag[:, 4] = mag[:, 3] - colours[:, 3]
        redshift = 10 ** self.redshift.draw(rng, np.concatenate([inside, colours], 1))[:, 0]
        share, bulge, disc, bulge_axis, disc_axis = self.shapes.draw(rng, mag)
        return Sources(
            kind=np.full(n, Kind.GALAXY, np.int8),
            mag=mag,
            redshift=np.clip(redshift, *_REDSHIFT_RANGE),
            bulge_fraction=share,
            bulge_radius=FIELD_RADIUS * bulge,
            disc_radius=FIELD_RADIUS * disc,
            bulge_axis_ratio=bulge_axis,
            disc_axis_ratio=disc_axis,
            bulge_index=np.full(n, 4.0),
            position_angle=rng.uniform(0.0, 180.0, n),
            morphology=draw_morphology(rng, mag_r, colours[:, 1], share, disc_axis),
        )

    def quasars(self, rng: np.random.Generator, mag_i: Float64, redshift: Float64) -> Sources:
        """Draw quasars of given magnitudes in i and redshifts, both ``[n]``."""
        place = (redshift - QUASAR_EDGES[0]) / (QUASAR_EDGES[1] - QUASAR_EDGES[0])
        # Neighbouring bins mix, so that colours do not jump at their edges.
        bins = np.clip(np.floor(place + rng.uniform(-0.5, 0.5, len(place))), 0, len(QUASAR_EDGES) - 2).astype(
            int
        )
        second = (rng.random(len(bins)) > self.quasar_weights[bins, 0]).astype(int)
        roots = np.linalg.cholesky(self.quasar_covariances)
        normal = rng.standard_normal((len(bins), 4))
        colours = self.quasar_means[bins, second] + np.einsum("nij,nj->ni", roots[bins, second], normal)
        mag = np.stack([mag_i] * 5, 1)
        mag[:, 4] -= colours[:, 3]
        for j in (2, 1, 0):
            mag[:, j] = mag[:, j + 1] + colours[:, j]
        return Sources.points(Kind.QUASAR, mag, redshift)

    def _quasars(self, rng: np.random.Generator, area: float, limit: float, factor: float) -> Sources:
        # Fainter ones in i are brought above the limit in r by their colours, rarely by more than this.
        mag_g, redshift = QuasarCounts().draw(rng, area, limit + 0.8, factor)
        drawn = self.quasars(rng, mag_g - _QUASAR_CONTINUUM, redshift)
        return drawn.take(drawn.mag[:, 2] < limit)

    def _check(
        self, area: float, limit: float, latitude: float, longitude: float | None, factors: tuple[float, ...]
    ) -> None:
        if not 0 < area < 4.2e4:
            raise UsageError(
                f"a patch of sky of {area:g} square degrees is impossible; expected a positive area"
            )
        if not BRIGHTEST["galaxy"] < limit <= FAINTEST:
            raise UsageError(
                f"there is no population for a limit of r = {limit:g}; expected {BRIGHTEST['galaxy']:g} to {FAINTEST:g}: "
                "ask for a shallower tile or a smaller depth below its limit"
            )
        if not -90 <= latitude <= 90 or (longitude is not None and not math.isfinite(longitude)):
            raise UsageError(
                f"galactic coordinates {longitude}, {latitude:g} are impossible; expected a latitude of -90 to 90 degrees"
            )
        for factor in factors:
            if not (math.isfinite(factor) and factor >= 0):
                raise UsageError(f"a density of {factor:g} times the sky's is impossible; expected 0 or more")

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The model as named arrays, the content of its file."""
        named: dict[str, Any] = {
            "stars.density": self.stars.density,
            "locus.centre": self.locus.centre,
            "locus.covariance": self.locus.covariance,
            "counts.mag": self.counts.mag,
            "counts.log_density": self.counts.log_density,
            "shapes.quantiles": self.shapes.quantiles,
            "shapes.half_light": self.shapes.half_light,
            "shapes.roundness": np.array([self.shapes.roundness]),
            "quasars.weights": self.quasar_weights,
            "quasars.means": self.quasar_means,
            "quasars.covariances": self.quasar_covariances,
        }
        for name, density in (
            ("colours", self.colours),
            ("redshift", self.redshift),
            ("shapes", self.shapes.density),
        ):
            named[f"{name}.weights"] = density.weights
            named[f"{name}.means"] = density.means
            named[f"{name}.covariances"] = density.covariances
        return {name: np.ascontiguousarray(value, np.float32) for name, value in named.items()}

    @staticmethod
    def from_arrays(named: dict[str, NDArray[Any]]) -> Population:
        """The model from what `arrays` gives."""
        a = {name: np.asarray(value, np.float64) for name, value in named.items()}

        def density(name: str) -> Density:
            return Density(a[f"{name}.weights"], a[f"{name}.means"], a[f"{name}.covariances"])

        return Population(
            stars=StarModel(a["stars.density"]),
            locus=Locus(a["locus.centre"], a["locus.covariance"]),
            counts=GalaxyCounts(a["counts.mag"], a["counts.log_density"]),
            colours=density("colours"),
            redshift=density("redshift"),
            shapes=ShapeModel(
                density("shapes"),
                a["shapes.quantiles"],
                a["shapes.half_light"],
                float(a["shapes.roundness"][0]),
            ),
            quasar_weights=a["quasars.weights"],
            quasar_means=a["quasars.means"],
            quasar_covariances=a["quasars.covariances"],
        )
