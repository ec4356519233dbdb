"""Rare sources for training: mergers, quasars and close pairs, many more than the sky has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.augment.assembly_settings import AugmentSettings
from imcat.simulate.balanced import balanced_sources
from imcat.simulate.observation import Observation
from imcat.simulate.population import Population
from imcat.simulate.sources import Kind, Morphology, Sources

__all__ = ["RareSources", "draw_rare"]

Float64 = NDArray[np.float64]

_R = 2  # of the population's magnitudes
# Magnitudes above the 5 sigma limit of points between which they lie: mergers show their structure, quasars can be told
# from stars, both of a pair can be found.
_MERGERS, _QUASARS, _PAIRS = (6.0, 2.0), (6.0, 0.5), (6.0, 1.0)
_BRIGHTEST = 15.0
_SLOPE = 0.12  # of the logarithm of their number with magnitude
_FAINTER = 2.0  # magnitudes by which the second of a pair is fainter, at most
# Separations in units of the PSF's FWHM, but up to so many pixels where that is sharp, and never wider than what counts
# as a pair in evaluation.
_CLOSE, _WIDE, _WIDE_PIXELS, _WIDEST = 0.6, 2.0, 10.0, 2.5
_STARS = 0.5  # share of the sources in pairs
_POOL = 64  # stars from which those of pairs are taken, at least


@dataclass(frozen=True, eq=False)
class RareSources:
    """Sources to add to a tile.

    Attributes
    ----------
    sources : Sources
        What they are.
    x, y : float64 arrays, ``[n]``
        Pixels of the reference image.
    name : str array, ``[n]``
        ``merger``, ``quasar`` or ``pair``; empty for what was added for another reason.
    """

    sources: Sources
    x: Float64
    y: Float64
    name: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sources)

    def with_others(
        self, sources: Sources, observation: Observation, rng: np.random.Generator
    ) -> RareSources:
        """These, and sources that are not rare, anywhere on the tile."""
        x, y = _anywhere(rng, len(sources), *observation.reference_exposure.shape)
        return RareSources(
            Sources.concatenate([self.sources, sources]),
            np.concatenate([self.x, x]),
            np.concatenate([self.y, y]),
            np.concatenate([self.name, np.full(len(sources), "", self.name.dtype)]),
        )


def draw_rare(
    population: Population, settings: AugmentSettings, observation: Observation, rng: np.random.Generator
) -> RareSources:
    """Draw the rare sources of a tile.

    Parameters
    ----------
    population : Population
        Their colours, redshifts and shapes.
    settings : AugmentSettings
        How many.
    observation : Observation
        How large the tile is, how sharp and how deep.
    rng : numpy.random.Generator
        Source of randomness.
    """
    reference = observation.reference_exposure
    rows, columns = reference.shape
    area = rows * columns * (reference.pixel_scale / 3600.0) ** 2
    mergers, quasars, pairs = (
        int(rng.poisson(rate * area)) for rate in (settings.mergers, settings.quasars, settings.pairs)
    )
    limit = observation.limit("r" if "r" in observation.bands else observation.reference)
    parts = [
        _mergers(population, rng, mergers, limit),
        _quasars(population, rng, quasars, limit, observation),
    ]
    places = [_anywhere(rng, len(part), rows, columns) for part in parts]
    parts.append(_pairs(population, rng, pairs, limit, observation))
    places.append(_beside_each_other(rng, pairs, rows, columns, reference.psf.fwhm, reference.pixel_scale))
    names = ("merger", "quasar", "pair")
    return RareSources(
        Sources.concatenate(parts),
        np.concatenate([place[0] for place in places]),
        np.concatenate([place[1] for place in places]),
        np.repeat(np.array(names, "<U8"), [len(part) for part in parts]),
    )


def _range(limit: float, above: tuple[float, float]) -> tuple[float, float]:
    """Bright and faint end in r."""
    bright = max(_BRIGHTEST, limit - above[0])
    return bright, max(limit - above[1], bright + 0.5)


def _magnitudes(rng: np.random.Generator, n: int, limit: float, above: tuple[float, float]) -> Float64:
    bright, faint = _range(limit, above)
    low = 10 ** (_SLOPE * (bright - faint))
    return np.asarray(faint + np.log10(low + (1 - low) * rng.random(n)) / _SLOPE)


def _mergers(population: Population, rng: np.random.Generator, n: int, limit: float) -> Sources:
    drawn = population.galaxies(rng, _magnitudes(rng, n, limit, _MERGERS))
    return drawn.replace(morphology=np.full(n, Morphology.MERGER, np.int8))


def _quasars(
    population: Population, rng: np.random.Generator, n: int, limit: float, observation: Observation
) -> Sources:
    return balanced_sources(
        population, rng, {Kind.QUASAR: n}, *_range(limit, _QUASARS), observation.latitude, observation.longitude, _SLOPE,
    )  # fmt: skip


def _pairs(
    population: Population, rng: np.random.Generator, n: int, limit: float, observation: Observation
) -> Sources:
    """Two sources for each pair, one after the other."""
    first = _magnitudes(rng, n, limit, _PAIRS)
    second = np.minimum(first + rng.uniform(0, _FAINTER, n), limit - 0.5 * _PAIRS[1])
    wanted = np.stack([first, second], axis=1).reshape(-1)
    if not n:
        return Sources.points(Kind.STAR, np.zeros((0, 5)))
    pool = balanced_sources(
        population, rng, {Kind.STAR: max(_POOL, 2 * n)}, *_range(limit, _PAIRS), observation.latitude,
        observation.longitude, _SLOPE,
    )  # fmt: skip
    if not len(pool):
        return population.galaxies(rng, wanted)
    galaxies = population.galaxies(rng, wanted)
    pool = pool.take(np.argsort(pool.mag[:, _R], kind="stable"))
    nearest = np.clip(np.searchsorted(pool.mag[:, _R], wanted), 0, len(pool) - 1)
    stars = pool.take(nearest)
    # A star of about this magnitude with its colours, as bright as is wanted.
    stars = stars.replace(mag=stars.mag + (wanted - stars.mag[:, _R])[:, None])
    is_star = rng.random(2 * n) < _STARS
    both = Sources.concatenate([galaxies, stars])
    return both.take(np.arange(2 * n) + 2 * n * is_star)


def _anywhere(rng: np.random.Generator, n: int, rows: int, columns: int) -> tuple[Float64, Float64]:
    return rng.uniform(-0.5, columns - 0.5, n), rng.uniform(-0.5, rows - 0.5, n)


def _beside_each_other(
    rng: np.random.Generator, n: int, rows: int, columns: int, fwhm: float, pixel: float
) -> tuple[Float64, Float64]:
    """Places of the members of pairs, one after the other; `fwhm` in pixels of `pixel` arcsec."""
    x, y = _anywhere(rng, n, rows, columns)
    wide = min(max(_WIDE * fwhm, _WIDE_PIXELS), _WIDEST / pixel)
    apart = rng.uniform(min(_CLOSE * fwhm, 0.5 * wide), wide, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    dx, dy = apart * np.cos(angle), apart * np.sin(angle)
    # Both inside: a companion beyond an edge lies on the other side.
    dx = np.where((x + dx < -0.5) | (x + dx > columns - 0.5), -dx, dx)
    dy = np.where((y + dy < -0.5) | (y + dy > rows - 0.5), -dy, dy)
    return np.stack([x, x + dx], axis=1).reshape(-1), np.stack([y, y + dy], axis=1).reshape(-1)
