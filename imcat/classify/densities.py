"""Redshift densities: mixtures of Gaussians in ln(1 + z), their quantiles and modes, for many sources at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, ndtr

__all__ = ["Densities"]

Float64 = NDArray[np.float64]

_HIGHEST = np.log1p(7.5)
_NODES = 512  # of the grid in ln(1 + z): steps of 0.004
_FAINTEST_WIDTH = 0.002
_COARSE = 64  # nodes of the table that a quantile is looked up in
_HALVINGS = 8  # of the bracket: to 1e-4 in ln(1 + z), where the distribution is a line


@dataclass(frozen=True, eq=False)
class Densities:
    """Mixtures of n sources.

    Attributes
    ----------
    weight, mean, width : float64 arrays ``[n, components]``
        In ln(1 + z).
    """

    weight: Float64
    mean: Float64
    width: Float64

    @staticmethod
    def of(mixture: NDArray[np.floating]) -> Densities:
        """From what the network says, ``[n, 3, components]`` (`imcat.classify.network.mixture_parts`)."""
        m = np.asarray(mixture, np.float64)
        start = np.linspace(0.05, 1.6, m.shape[2])
        width = np.logaddexp(0, m[:, 2] - 2.0) + _FAINTEST_WIDTH
        return Densities(np.exp(log_softmax(m[:, 0], axis=1)), start + m[:, 1], width)

    def __len__(self) -> int:
        return len(self.weight)

    def cumulative(self, redshift: Float64) -> Float64:
        """Probability of a redshift up to the one given, ``[n]``; what lies below zero is left out."""
        u = np.log1p(np.maximum(redshift, 0.0))[:, None]
        low = self._below(np.zeros((len(self), 1)))
        return np.asarray(np.clip((self._below(u) - low) / np.maximum(1 - low, 1e-9), 0, 1))

    def _below(self, u: Float64) -> Float64:
        part = ndtr((u - self.mean) / self.width)
        return np.asarray((self.weight * part).sum(axis=1))

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        """Cumulative distributions at the coarse nodes, ``[n, nodes]``: one for all quantiles."""
        nodes = np.linspace(0.0, float(_HIGHEST), _COARSE)
        out = np.zeros((len(self), _COARSE), np.float32)
        for rows in np.array_split(np.arange(len(self)), max(1, len(self) // 4096)):
            for k in range(self.weight.shape[1]):
                w, m, s = (a[rows, k][:, None] for a in (self.weight, self.mean, self.width))
                # torch's is several times as fast as scipy's, and the table only chooses a bracket.
                place = torch.from_numpy(((nodes - m) / s).astype(np.float32))
                out[rows] += w * torch.special.ndtr(place).numpy()
        return out

    def quantile(self, level: float | Float64) -> Float64:
        """Redshifts below which the probability is `level`, ``[n]``."""
        wanted = np.broadcast_to(np.asarray(level, float), len(self))
        base = self._below(np.zeros((len(self), 1)))
        aim = base + wanted * (1 - base)
        # A coarse table first: the bracket is then halved only a few times.
        above = np.clip((self._table < aim[:, None]).sum(axis=1), 1, _COARSE - 1)
        nodes = np.linspace(0.0, float(_HIGHEST), _COARSE)
        low, high = nodes[above - 1], nodes[above]
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            less = self._below(middle[:, None]) < aim
            low, high = np.where(less, middle, low), np.where(less, high, middle)
        first, last = self._below(low[:, None]), self._below(high[:, None])
        share = np.clip((aim - first) / np.maximum(last - first, 1e-300), 0, 1)
        return np.asarray(np.expm1(low + share * (high - low)))

    def mode(self) -> Float64:
        """The redshifts of the highest peaks, ``[n]``."""
        grid = np.linspace(0.0, float(_HIGHEST), _NODES)
        at = np.empty(len(self), np.intp)
        # Single precision finds the node of the peak; what follows is in double precision.
        for rows in np.array_split(np.arange(len(self)), max(1, len(self) // 512)):
            density = np.zeros((len(rows), _NODES), np.float32)
            for k in range(self.weight.shape[1]):
                w, m, s = (
                    a[rows, k][:, None].astype(np.float32) for a in (self.weight, self.mean, self.width)
                )
                place = (grid.astype(np.float32) - m) / s
                density += w / s * np.exp(np.float32(-0.5) * place * place)
            at[rows] = density.argmax(axis=1)
        inner = np.clip(at, 1, _NODES - 2)
        left, peak, right = (np.log(self._density(grid[inner + d]) + 1e-300) for d in (-1, 0, 1))
        bend = left - 2 * peak + right
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = np.where(bend < 0, 0.5 * (left - right) / bend, 0.0)
        out = np.expm1(grid[inner] + np.clip(shift, -1, 1) * (grid[1] - grid[0]))
        return np.asarray(np.maximum(out, 0.0))

    def _density(self, place: Float64) -> Float64:
        """At one place of ln(1 + z) each, ``[n]``, but for a common factor."""
        z = (place[:, None] - self.mean) / self.width
        return np.asarray((self.weight / self.width * np.exp(-0.5 * z * z)).sum(axis=1))
