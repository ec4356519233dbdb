"""How common stars, galaxies and quasars are at a magnitude: in the sky, in spectroscopic surveys, in a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EDGES", "MixByMagnitude", "SkyMix"]

Float64 = NDArray[np.float64]

#: Edges of the bins in magnitude (r, or what stands for it).
EDGES: Float64 = np.arange(12.0, 29.01, 0.5)
_SMOOTH = 0.5  # mag, of the counts of a sample
_LEAST = 1e-4  # share that no kind falls below: a sample of thousands cannot say


@dataclass(frozen=True, eq=False)
class MixByMagnitude:
    """Shares of the kinds at each magnitude.

    Attributes
    ----------
    share : float64 array ``[bins, 3]``
        Star, galaxy, quasar in the bins of `EDGES`; rows sum to one.
    """

    share: Float64

    @staticmethod
    def flat() -> MixByMagnitude:
        """As many of each."""
        return MixByMagnitude(np.full((EDGES.size - 1, 3), 1 / 3))

    @staticmethod
    def of_counts(counts: Float64) -> MixByMagnitude:
        """Of numbers ``[bins, 3]``; bins without any take the nearest that has some."""
        total = counts.sum(axis=1)
        filled = np.flatnonzero(total > 0)
        if filled.size == 0:
            return MixByMagnitude.flat()
        nearest = filled[np.abs(np.arange(len(counts))[:, None] - filled).argmin(axis=1)]
        share = counts[nearest] / total[nearest, None]
        share = np.maximum(share, _LEAST)
        return MixByMagnitude(share / share.sum(axis=1, keepdims=True))

    @staticmethod
    def of_sample(magnitude: Float64, kind: NDArray[np.integer]) -> MixByMagnitude:
        """Of sources ``[n]`` with their kinds, smoothed over neighbouring magnitudes."""
        middle = 0.5 * (EDGES[1:] + EDGES[:-1])
        known = np.isfinite(magnitude)
        counts = np.zeros((middle.size, 3))
        for k in range(3):
            own = magnitude[known & (kind == k)]
            counts[:, k] = np.histogram(np.clip(own, EDGES[0], EDGES[-1] - 1e-6), EDGES)[0]
        kernel = np.exp(-0.5 * ((middle[:, None] - middle) / _SMOOTH) ** 2)
        # The overall mix keeps nearly empty bins from saying what they do not know.
        smooth = kernel @ counts + 2 * counts.sum(axis=0) / max(counts.sum(), 1)
        return MixByMagnitude.of_counts(smooth) if counts.sum() else MixByMagnitude.flat()

    def shares(self, magnitude: Float64) -> Float64:
        """Shares at magnitudes ``[n]``, linear between bins; the mean over all where one is not known."""
        middle = 0.5 * (EDGES[1:] + EDGES[:-1])
        mag = np.asarray(magnitude, float)
        out = np.stack([np.interp(mag, middle, self.share[:, k]) for k in range(3)], axis=1)
        out[~np.isfinite(mag)] = self.share.mean(axis=0)
        return np.asarray(out / out.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class SkyMix:
    """Shares of the kinds in the sky, by magnitude and galactic latitude.

    Attributes
    ----------
    latitude : float64 array ``[k]``
        Absolute galactic latitude, degrees, rising.
    share : float64 array ``[k, bins, 3]``
        See `MixByMagnitude`.
    lens_odds : float64 array ``[bins]``
        Strong lenses over all sources.
    """

    latitude: Float64
    share: Float64
    lens_odds: Float64

    def shares(self, magnitude: Float64, latitude: Float64 | None) -> Float64:
        """Shares at magnitudes ``[n]`` and absolute latitudes ``[n]``; where there is none (NaN) the mean over the sky."""
        layers = np.stack([MixByMagnitude(s).shares(magnitude) for s in self.share])
        # Area of the sky by latitude.
        weight = np.cos(np.radians(self.latitude))
        mean = np.asarray(np.einsum("k,knj->nj", weight / weight.sum(), layers))
        if latitude is None:
            return mean
        known = np.isfinite(latitude)
        at = np.clip(np.abs(np.where(known, latitude, 0.0)), self.latitude[0], self.latitude[-1])
        k = np.clip(np.searchsorted(self.latitude, at) - 1, 0, self.latitude.size - 2)
        part = (at - self.latitude[k]) / (self.latitude[k + 1] - self.latitude[k])
        rows = np.arange(len(at))
        own = (1 - part)[:, None] * layers[k, rows] + part[:, None] * layers[k + 1, rows]
        return np.where(known[:, None], own, mean)

    def odds(self, magnitude: Float64) -> Float64:
        """Odds of a lens at magnitudes ``[n]``."""
        middle = 0.5 * (EDGES[1:] + EDGES[:-1])
        mag = np.where(np.isfinite(magnitude), magnitude, 19.0)
        return np.asarray(np.exp(np.interp(mag, middle, np.log(self.lens_odds))))
