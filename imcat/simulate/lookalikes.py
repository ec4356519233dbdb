"""Galaxies that look like strong lenses and are none.

Rings, face-on spirals with blue arms around a red bulge, mergers, and chance alignments: blue elongated
galaxies beside a luminous red one. The red ones of the alignments, and the blue ones, come from the same laws
as those of lenses, so that only the arrangement tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from imcat.errors import ConfigError
from imcat.simulate import lens_populations as laws
from imcat.simulate.lens_systems import draw_deflectors
from imcat.simulate.population import Population
from imcat.simulate.sources import Kind, Morphology, Sources

__all__ = ["LookAlikes", "draw_lookalikes"]

Float64 = NDArray[np.float64]

_MORPHOLOGY = {"ring": Morphology.RING, "spiral": Morphology.SPIRAL, "merger": Morphology.MERGER}
# Shares: alignments and spirals are what people and networks take for lenses most often.
_NAMES, _SHARES = ("ring", "spiral", "merger", "chance"), (0.2, 0.3, 0.15, 0.35)
_BRIGHTEST, _FAINTEST = 16.5, 20.5  # r of the galaxies with structure
_CHOICE, _COLOUR = 5, (0.4, 0.8)  # candidates for each, and the g − r wanted of them
_SEPARATION = (0.8, 3.0)  # arcsec, of companions: Einstein radii of lenses
_COMPANION = (20.5, 24.0)  # i of companions: that of single images


@dataclass(frozen=True, eq=False)
class LookAlikes:
    """Look-alikes; one entry of each array for each galaxy that takes part.

    Attributes
    ----------
    system : int64 array, ``[m]``
        Which look-alike a galaxy belongs to, 0 to n − 1.
    name : str array, ``[m]``
        ``ring``, ``spiral``, ``merger`` or ``chance``; empty for the companions of an alignment.
    sources : Sources
        The galaxies.
    xi, eta : float64 array, ``[m]``
        Offsets from the place of the look-alike, arcsec east and north.
    """

    system: NDArray[np.int64]
    name: NDArray[np.str_]
    sources: Sources
    xi: Float64
    eta: Float64


def draw_lookalikes(rng: Generator, n: int, population: Population) -> LookAlikes:
    """Draw look-alikes.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides everything.
    n : int
        How many.
    population : Population
        Of the rings, spirals and mergers: their colours, redshifts and sizes.

    Raises
    ------
    ConfigError
        If `n` is negative.
    """
    if n < 0:
        raise ConfigError(f"{n} look-alikes are impossible; expected 0 or more")
    name = rng.choice(np.array(_NAMES, dtype="<U8"), n, p=_SHARES)
    chance = np.flatnonzero(name == "chance")
    other = np.flatnonzero(name != "chance")
    owner, companions, xi, eta = _companions(rng, chance)
    zero = np.zeros(n)
    return LookAlikes(
        system=np.concatenate([other, chance, owner]),
        name=np.concatenate([name[other], name[chance], np.full(len(owner), "", "<U8")]),
        sources=Sources.concatenate(
            [_structured(rng, name[other], population), _red(rng, len(chance)), companions]
        ),
        xi=np.concatenate([zero, xi]),
        eta=np.concatenate([zero, eta]),
    )


def _structured(rng: Generator, name: NDArray[np.str_], population: Population) -> Sources:
    n = len(name)
    # Galaxy counts rise as 10^(0.6 m) where space is Euclidean, less beyond: 0.45 at r = 18–20.
    low = 10 ** (0.45 * (_BRIGHTEST - _FAINTEST))
    mag_r = _FAINTEST + np.log10(low + (1 - low) * rng.random(_CHOICE * n)) / 0.45
    drawn = population.galaxies(rng, mag_r)
    # Of some candidates the one with the colour of a spiral: arcs are blue, and so is what is taken for them.
    colour = (drawn.mag[:, 1] - drawn.mag[:, 2]).reshape(n, _CHOICE)
    redder = (drawn.mag[:, 2] - drawn.mag[:, 3]).reshape(n, _CHOICE)
    best = np.argmin(np.abs(colour - rng.uniform(*_COLOUR, (n, 1))) + np.abs(redder - 0.3), axis=1)
    drawn = drawn.take(np.arange(n) * _CHOICE + best)
    merger = name == "merger"
    # Face-on, with a bulge like a deflector's; mergers are as the population has them.
    size = np.where(drawn.disc_radius > 0, drawn.disc_radius, drawn.bulge_radius)
    size = np.clip(size, 0.8, 2.5)
    smallest = np.clip(0.25 * size, 0.2, 0.6)
    return drawn.replace(
        bulge_fraction=np.where(merger, drawn.bulge_fraction, rng.uniform(0.2, 0.55, n)),
        bulge_radius=np.where(merger, drawn.bulge_radius, smallest),
        disc_radius=np.where(merger, drawn.disc_radius, size),
        disc_axis_ratio=np.where(merger, drawn.disc_axis_ratio, rng.uniform(0.75, 1.0, n)),
        bulge_axis_ratio=np.where(merger, drawn.bulge_axis_ratio, rng.uniform(0.8, 1.0, n)),
        morphology=np.array([_MORPHOLOGY[str(k)] for k in name], np.int8).reshape(n),
    )


def _red(rng: Generator, n: int) -> Sources:
    """Luminous red galaxies as deflectors are."""
    found: list[Sources] = []
    while sum(map(len, found)) < n or not found:
        drawn = draw_deflectors(rng, 4 * n + 100)[0]
        # Most deflectors that show arcs are closer and brighter than the volume's mean.
        likely = rng.random(len(drawn)) < np.clip(1.2 - drawn.redshift, 0, 1)
        found.append(drawn.take((drawn.mag[:, 2] < 21.5) & likely))
    return Sources.concatenate(found).take(np.arange(n))


def _companions(
    rng: Generator, systems: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Sources, Float64, Float64]:
    """One to three blue galaxies beside each, along or across the line to it."""
    owner = np.repeat(systems, 1 + rng.binomial(2, 0.3, len(systems)))
    n = len(owner)
    slope = 0.31  # of the counts, as for the sources of lenses
    low = 10 ** (slope * (_COMPANION[0] - _COMPANION[1]))
    i_mag = _COMPANION[1] + np.log10(low + (1 - low) * rng.random(n)) / slope
    redshift = np.clip(rng.gamma(3.0, 0.0417 * i_mag - 0.744), 0.1, 4.0)
    mag = laws.spectrum_magnitudes(
        i_mag, redshift, rng.normal(-1.6, 0.4, n), np.clip(rng.normal(0.4, 0.25, n), 0, None)
    )
    distance = rng.uniform(*_SEPARATION, n)
    direction = rng.uniform(0, 360, n)  # east of north
    across = 90.0 * (rng.random(n) < 0.5)
    one = np.ones(n)
    sources = Sources(
        kind=np.full(n, Kind.GALAXY, np.int8),
        mag=mag,
        redshift=redshift,
        bulge_fraction=0 * one,
        bulge_radius=0 * one,
        disc_radius=rng.uniform(0.25, 0.9, n),
        bulge_axis_ratio=one,
        disc_axis_ratio=rng.uniform(0.2, 0.6, n),
        bulge_index=4 * one,
        position_angle=(direction + across + rng.normal(0, 12, n)) % 180,
        morphology=np.full(n, Morphology.DISC, np.int8),
    )
    angle = np.deg2rad(direction)
    return owner, sources, distance * np.sin(angle), distance * np.cos(angle)
