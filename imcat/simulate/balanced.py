"""As many sources of each kind at each magnitude as are asked for: what training needs and the sky does not have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from imcat.errors import UsageError
from imcat.simulate.population import Population
from imcat.simulate.sources import Kind, Sources

__all__ = ["balanced_sources"]

Float64 = NDArray[np.float64]

_BIN = 0.5  # magnitudes within which the sky's mix of colours, redshifts and shapes is kept
_FIRST_AREA = 0.02  # square degrees
_LARGEST_AREA = 300.0
_R = 2  # of the population's magnitudes


def balanced_sources(
    population: Population,
    rng: np.random.Generator,
    numbers: Mapping[Kind, int],
    bright: float,
    faint: float,
    latitude: float,
    longitude: float | None = None,
    slope: float = 0.0,
) -> Sources:
    """Draw sources of each kind, as many at every magnitude in r, or with a set slope.

    Parameters
    ----------
    population : Population
        Colours, redshifts and shapes at a magnitude are its own.
    rng : numpy.random.Generator
        Source of randomness.
    numbers : mapping of Kind to int
        How many of each kind. There may be fewer: the sky has no quasars and few stars as bright as some galaxies.
    bright, faint : float
        Range in r, without the dust of the Milky Way.
    latitude, longitude : float
        Galactic, degrees: which stars.
    slope : float
        Of the logarithm of the number with magnitude (the sky's is 0.2 to 0.6); 0 for as many of every magnitude.

    Returns
    -------
    Sources
        In no particular order.

    Raises
    ------
    UsageError
        If the range is empty.
    """
    if not faint > bright:
        raise UsageError(f"sources of r = {bright:g} to {faint:g} are none; expected a range of magnitudes")
    edges = np.linspace(bright, faint, max(1, round((faint - bright) / _BIN)) + 1)
    share = 10 ** (slope * edges[:-1])
    drawn = []
    for kind, number in numbers.items():
        wanted = rng.multinomial(number, share / share.sum())
        if kind is Kind.GALAXY:
            mag = np.repeat(edges[:-1], wanted) + rng.random(number) * (edges[1] - edges[0])
            drawn.append(population.galaxies(rng, mag))
            continue
        for low, high, n in zip(edges[:-1], edges[1:], wanted.tolist(), strict=True):
            drawn.append(_points(population, rng, kind, low, high, n, latitude, longitude))
    sources = Sources.concatenate(drawn)
    return sources.take(rng.permutation(len(sources)))


def _points(
    population: Population,
    rng: np.random.Generator,
    kind: Kind,
    low: float,
    high: float,
    number: int,
    latitude: float,
    longitude: float | None,
) -> Sources:
    """Stars or quasars of one bin of magnitude, from as large a patch of sky as it takes."""
    area, found = _FIRST_AREA, Sources.points(kind, np.zeros((0, 5)))
    factors = {"star_density": float(kind is Kind.STAR), "quasar_density": float(kind is Kind.QUASAR)}
    while len(found) < number and area < _LARGEST_AREA:
        sources = population.draw(
            rng, area=area, limit=high, latitude=latitude, longitude=longitude, galaxy_density=0.0, **factors
        )
        good = (sources.kind == kind) & (sources.mag[:, _R] >= low)
        found = Sources.concatenate([found, sources.take(good)])
        area *= 3
    return found.take(np.arange(min(number, len(found))))
