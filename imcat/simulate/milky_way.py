"""Stars of the Milky Way: how many of which colour and magnitude in a direction.

Densities along the line of sight are the thin disc, thick disc and halo of Jurić et al. (2008, ApJ
673, 864); the absolute magnitude follows from colour and metallicity by the photometric parallax of
Ivezić et al. (2008, ApJ 684, 287). How many stars there are of each colour in the solar
neighbourhood (the luminosity function, in g-i) is fitted to star counts, see
`imcat.simulate.population_fit`. White dwarfs follow the disc with the luminosity function of Harris
et al. (2006, AJ 131, 571), blue horizontal-branch stars the halo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COLOUR_NODES",
    "COMPONENTS",
    "METALLICITY",
    "StarDraw",
    "StarModel",
    "absolute_magnitude",
    "giant_density",
    "line_of_sight",
    "white_dwarf_density",
]

Float64 = NDArray[np.float64]

#: The components of the Galaxy, in the order of arrays.
COMPONENTS = ("disc", "halo", "horizontal branch", "white dwarf", "disc giant", "halo giant")

#: Nodes in g-i of the luminosity functions and of the stellar locus.
COLOUR_NODES: Float64 = np.round(np.arange(-0.9, 3.75, 0.1), 10)
COLOUR_NODES.flags.writeable = False

#: [Fe/H] of disc and halo in the photometric parallax (Ivezić et al. 2008, section 4: medians far
#: from and near to the plane -0.78 and -0.54 for the disc, -1.46 for the halo; nearby M dwarfs are richer).
METALLICITY = {"disc": -0.5, "halo": -1.46}

# Jurić et al. (2008), table 10, "bias-corrected": pc.
_SUN_RADIUS, _SUN_HEIGHT = 8000.0, 25.0
_THIN_HEIGHT, _THIN_LENGTH = 300.0, 2600.0
_THICK_HEIGHT, _THICK_LENGTH, _THICK_SHARE = 900.0, 3600.0, 0.12
_HALO_SLOPE, _HALO_FLATTENING = 2.77, 0.64
_FARTHEST = 1.0e5  # pc: beyond, the halo is not followed
# Absolute magnitude in r of blue horizontal-branch stars (Sirko et al. 2004, AJ 127, 899).
_HORIZONTAL_BRANCH = 0.7
# White dwarfs: g-i, absolute magnitude in r, logarithm of the number per pc³ and magnitude
# (cooling track of Holberg & Bergeron 2006, AJ 132, 1221, log g = 8; Harris et al. 2006, figure 4).
_WHITE_DWARFS = np.array(
    [
        [-0.90, 10.2, -4.2],
        [-0.70, 11.0, -3.8],
        [-0.45, 11.7, -3.5],
        [-0.15, 12.3, -3.3],
        [0.10, 12.8, -3.1],
        [0.40, 13.4, -3.0],
        [0.80, 14.1, -2.7],
        [1.10, 14.7, -2.5],
    ]
)
# Red giant branches: g-i and absolute magnitude in r of clusters like 47 Tucanae (disc) and M13 (halo), after
# the fiducial sequences of An et al. (2008, ApJS 179, 326).
_DISC_GIANTS = np.array([[0.55, 3.5], [0.75, 2.3], [0.95, 1.0], [1.15, 0.0], [1.45, -1.0]])
_HALO_GIANTS = np.array([[0.45, 3.3], [0.60, 2.2], [0.75, 1.0], [0.90, 0.0], [1.15, -1.2]])
# Stars a magnitude along the branch grow as 10^(0.32 M) (Zoccali & Piotto 2000, A&A 358, 943).
_BRANCH_SLOPE = 0.32
_IN_HALO = ("halo", "horizontal branch", "halo giant")
_SQUARE_DEGREE = (math.pi / 180) ** 2
_MAG_STEP = 0.1


def absolute_magnitude(colour: Float64, metallicity: float) -> Float64:
    """Absolute magnitude in r of main-sequence stars (Ivezić et al. 2008, equations A2, A3 and A7).

    Parameters
    ----------
    colour : float64 array
        g-i; taken to be at least 0.2 and at most 4, the range of the relation.
    metallicity : float
        [Fe/H].
    """
    x = np.clip(colour, 0.2, 4.0)
    main = -5.06 + 14.32 * x - 12.97 * x**2 + 6.127 * x**3 - 1.267 * x**4 + 0.0967 * x**5
    result: Float64 = main + 4.50 - 1.11 * metallicity - 0.18 * metallicity**2
    return result


def line_of_sight(distance: Float64, latitude: float, longitude: float | None) -> tuple[Float64, Float64]:
    """Density of disc and halo relative to the solar neighbourhood.

    Parameters
    ----------
    distance : float64 array
        pc.
    latitude, longitude : float
        Galactic, degrees; without a longitude the mean over all.

    Returns
    -------
    disc, halo : float64 arrays
        Each 1 at the Sun, up to the Sun's own height.
    """
    if longitude is None:
        parts = [line_of_sight(distance, latitude, at) for at in np.arange(15.0, 360.0, 30.0)]
        return np.mean([p[0] for p in parts], axis=0), np.mean([p[1] for p in parts], axis=0)
    b, along = math.radians(latitude), math.radians(longitude)
    flat = distance * math.cos(b)
    radius = np.sqrt(_SUN_RADIUS**2 + flat**2 - 2 * _SUN_RADIUS * flat * math.cos(along))
    height = np.abs(distance * math.sin(b) + _SUN_HEIGHT)
    thin = np.exp((_SUN_RADIUS - radius) / _THIN_LENGTH - height / _THIN_HEIGHT)
    thick = np.exp((_SUN_RADIUS - radius) / _THICK_LENGTH - height / _THICK_HEIGHT)
    disc = (thin + _THICK_SHARE * thick) / (1 + _THICK_SHARE)
    halo = (_SUN_RADIUS / np.sqrt(radius**2 + (height / _HALO_FLATTENING) ** 2)) ** _HALO_SLOPE
    near = distance < _FARTHEST
    return disc * near, halo * near


@dataclass(frozen=True, eq=False)
class StarDraw:
    """Stars drawn: one entry of each array for each star.

    Attributes
    ----------
    mag_r : float64 array
        Magnitude in r.
    colour : float64 array
        g-i.
    component : int64 array
        Place in `COMPONENTS`.
    """

    mag_r: Float64
    colour: Float64
    component: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StarModel:
    """Local luminosity functions, by colour.

    Attributes
    ----------
    density : float64 array, ``[components, nodes]``
        Stars per pc³ and magnitude of g-i at the Sun, at `COLOUR_NODES`.
    """

    density: Float64

    def kernel(self, mag: Float64, latitude: float, longitude: float | None) -> Float64:
        """Stars per square degree, magnitude of r and magnitude of g-i for a local density of 1.

        Parameters
        ----------
        mag : float64 array, ``[m]``
            In r, without the dust of the Milky Way.
        latitude, longitude : float
            Galactic, degrees.

        Returns
        -------
        float64 array, ``[components, m, nodes]``
        """
        out = np.zeros((len(COMPONENTS), len(mag), len(COLOUR_NODES)))
        bright = absolute_magnitudes()
        for k, absolute in enumerate(bright):
            distance = 10 ** ((mag[:, None] - absolute[None, :]) / 5 + 1)
            disc, halo = line_of_sight(distance, latitude, longitude)
            place = halo if COMPONENTS[k] in _IN_HALO else disc
            out[k] = place * distance**3 * (math.log(10) / 5 * _SQUARE_DEGREE)
        return out

    def counts(self, mag: Float64, latitude: float, longitude: float | None = None) -> Float64:
        """Stars per square degree and magnitude.

        Parameters
        ----------
        mag : float64 array, ``[m]``
            In r, without the dust of the Milky Way.
        latitude, longitude : float
            Galactic, degrees.

        Returns
        -------
        float64 array, ``[m]``
        """
        step = COLOUR_NODES[1] - COLOUR_NODES[0]
        result: Float64 = np.einsum("kmn,kn->m", self.kernel(mag, latitude, longitude), self.density) * step
        return result

    def draw(
        self,
        rng: np.random.Generator,
        area: float,
        bright: float,
        limit: float,
        latitude: float,
        longitude: float | None = None,
        factor: float = 1.0,
    ) -> StarDraw:
        """Draw the stars of a patch of sky.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        area : float
            Square degrees.
        bright, limit : float
            Range in r, without the dust of the Milky Way.
        latitude, longitude : float
            Galactic, degrees.
        factor : float
            On the number of stars.
        """
        steps = max(1, math.ceil((limit - bright) / _MAG_STEP))
        width = (limit - bright) / steps
        mag: Float64 = bright + width * (np.arange(steps, dtype=np.float64) + 0.5)
        node = COLOUR_NODES[1] - COLOUR_NODES[0]
        mean = self.kernel(mag, latitude, longitude) * self.density[:, None, :] * width * node * area * factor
        n = int(rng.poisson(mean.sum()))
        share = np.cumsum(mean.ravel())
        cell = np.minimum(np.searchsorted(share, rng.random(n) * share[-1], side="right"), mean.size - 1)
        component, row, column = np.unravel_index(cell, mean.shape)
        return StarDraw(
            mag_r=mag[row] + width * (rng.random(n) - 0.5),
            colour=COLOUR_NODES[column] + node * (rng.random(n) - 0.5),
            component=np.asarray(component, np.int64),
        )


def absolute_magnitudes() -> Float64:
    """Absolute magnitude in r at the nodes of each component, ``[components, nodes]``."""
    x = COLOUR_NODES
    return np.stack(
        [
            absolute_magnitude(x, METALLICITY["disc"]),
            absolute_magnitude(x, METALLICITY["halo"]),
            np.full(len(x), _HORIZONTAL_BRANCH),
            np.interp(x, _WHITE_DWARFS[:, 0], _WHITE_DWARFS[:, 1]),
            np.interp(x, _DISC_GIANTS[:, 0], _DISC_GIANTS[:, 1]),
            np.interp(x, _HALO_GIANTS[:, 0], _HALO_GIANTS[:, 1]),
        ]
    )


def giant_density() -> Float64:
    """Giants per magnitude of g-i at `COLOUR_NODES`, ``[2, nodes]``: disc and halo, each 1 in all."""
    out = np.zeros((2, len(COLOUR_NODES)))
    for row, branch in zip(out, (_DISC_GIANTS, _HALO_GIANTS), strict=True):
        inside = (branch[0, 0] <= COLOUR_NODES) & (branch[-1, 0] >= COLOUR_NODES)
        absolute = np.interp(COLOUR_NODES, branch[:, 0], branch[:, 1])
        slope = -np.gradient(absolute, COLOUR_NODES)
        row[:] = np.where(inside, 10 ** (_BRANCH_SLOPE * absolute) * slope, 0.0)
        row /= row.sum() * (COLOUR_NODES[1] - COLOUR_NODES[0])
    return out


def white_dwarf_density() -> Float64:
    """White dwarfs per pc³ and magnitude of g-i at the Sun, at `COLOUR_NODES`."""
    track = _WHITE_DWARFS
    slope = np.gradient(track[:, 1], track[:, 0])
    density = 10 ** track[:, 2] * slope
    result: Float64 = np.interp(COLOUR_NODES, track[:, 0], density, left=0.0, right=0.0)
    return result
