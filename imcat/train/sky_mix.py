"""The mix of stars, galaxies, quasars and lenses of the sky, from the population behind the simulator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.classify.prior import EDGES, MixByMagnitude, SkyMix
from imcat.simulate.population import FAINTEST, Population
from imcat.simulate.settings import SimulateSettings

__all__ = ["sky_mix"]

Float64 = NDArray[np.float64]

_LATITUDES = (20.0, 30.0, 45.0, 60.0, 90.0)
# Areas in square degrees, each for magnitudes down to a limit in r: few sources are bright, and many are faint.
_AREAS = ((300.0, 15.0), (60.0, 18.0), (10.0, 21.0), (1.0, 24.0), (0.1, FAINTEST))
_R = 2


def sky_mix(population: Population, lens_magnitude: Float64, rng: np.random.Generator) -> SkyMix:
    """Shares of the kinds by magnitude and galactic latitude, and odds of a lens by magnitude.

    Parameters
    ----------
    population : Population
        Of the sky.
    lens_magnitude : float64 array
        Magnitudes in r of simulated lenses, deflector and images together.
    rng : numpy.random.Generator
        Source of randomness.
    """
    layers, total = [], np.zeros(EDGES.size - 1)
    for latitude in _LATITUDES:
        counts = _counts(population, latitude, rng)
        layers.append(MixByMagnitude.of_counts(counts).share)
        total += counts.sum(axis=1) / len(_LATITUDES)
    rate = SimulateSettings().lenses_per_deg2
    lenses = np.histogram(lens_magnitude, EDGES)[0] / max(1, len(lens_magnitude)) * rate
    with np.errstate(invalid="ignore", divide="ignore"):
        odds = np.where(total > 0, lenses / total, 0.0)
    return SkyMix(np.array(_LATITUDES), np.stack(layers), np.clip(odds, 1e-6, 0.5))


def _counts(population: Population, latitude: float, rng: np.random.Generator) -> Float64:
    """Sources on a square degree by magnitude and kind."""
    counts = np.zeros((EDGES.size - 1, 3))
    brighter = -np.inf
    for area, limit in _AREAS:
        sources = population.draw(rng, area=area, limit=limit, latitude=latitude)
        r = sources.mag[:, _R]
        for kind in range(3):
            own = r[(sources.kind == kind) & (r >= brighter)]
            counts[:, kind] += np.histogram(own, EDGES)[0] / area
        brighter = limit
    return counts
