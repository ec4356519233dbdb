"""Stamps of many tiles as batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcat.stamps import band_conditions
from imcat.train.source_samples import SourceSample, stamps_of, unpack

__all__ = ["StampBatch", "StampSet", "stamp_batches", "turned"]


@dataclass(frozen=True, eq=False)
class StampBatch:
    """Stamps as the network takes them; see `imcat.backbones.vit.Vit.tokens`."""

    values: Tensor
    valid: Tensor
    conditions: Tensor


@dataclass(frozen=True, eq=False)
class StampSet:
    """Stamps of many tiles with the same number of bands.

    Attributes
    ----------
    packed : int8 array ``[n, bands, y, x]``
        See `imcat.train.source_samples.pack`.
    conditions : float32 array ``[n, bands, CONDITIONS]``
        Of the bands.
    """

    packed: NDArray[np.int8]
    conditions: NDArray[np.float32]

    @staticmethod
    def gather(samples: Sequence[SourceSample]) -> list[StampSet]:
        """Sets of the samples, one for each number of bands."""
        groups: dict[int, list[SourceSample]] = {}
        for sample in samples:
            groups.setdefault(len(sample.bands), []).append(sample)
        return [
            StampSet(
                np.concatenate([s.packed for s in group]),
                np.concatenate([_conditions(s) for s in group]),
            )
            for group in groups.values()
        ]

    def __len__(self) -> int:
        return len(self.packed)

    def batch(self, rows: NDArray[np.int64], turn: int = 0) -> StampBatch:
        """Some of the stamps, turned by one of the eight symmetries of the square."""
        packed = turned(self.packed[rows], turn)
        values, valid = unpack(np.ascontiguousarray(packed))
        return StampBatch(
            torch.from_numpy(values), torch.from_numpy(valid), torch.from_numpy(self.conditions[rows])
        )


def turned(images: NDArray[np.int8], turn: int) -> NDArray[np.int8]:
    """Images ``[..., y, x]`` rotated by ``turn % 4`` quarters, and mirrored from 4 on."""
    out = np.rot90(images, turn % 4, axes=(-2, -1))
    return out[..., ::-1] if turn >= 4 else out


def _conditions(sample: SourceSample) -> NDArray[np.float32]:
    step = 4096
    rows = np.arange(len(sample))
    parts = [band_conditions(stamps_of(sample, rows[k : k + step])) for k in range(0, len(rows), step)]
    return np.concatenate(parts)


def stamp_batches(
    sets: Sequence[StampSet], size: int, rng: np.random.Generator
) -> Iterator[tuple[int, NDArray[np.int64], int]]:
    """Which set, which rows of it and how they are turned, without end; sets in proportion to their size."""
    share = np.array([len(s) for s in sets], float)
    while True:
        which = int(rng.choice(len(sets), p=share / share.sum()))
        rows = rng.choice(len(sets[which]), min(size, len(sets[which])), replace=False)
        yield which, rows, int(rng.integers(8))
