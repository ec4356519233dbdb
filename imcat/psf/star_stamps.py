"""Pixels of stars, cut from an image for a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stamps", "cut_stamps", "joined"]

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

_BLOCK = 4  # pixels


@dataclass(frozen=True, eq=False)
class Stamps:
    """Pixels of stars, one after the other.

    Attributes
    ----------
    start : int64 array, ``[n + 1]``
        Where each star's pixels begin.
    u, v : float32 array, ``[pixels]``
        Offsets along x and y from the star's place.
    value, variance : float32 array, ``[pixels]``
        Of usable pixels only.
    x, y : float64 array, ``[n]``
        Places that `u` and `v` count from, pixels of the image.
    """

    start: NDArray[np.int64]
    u: Float32
    v: Float32
    value: Float32
    variance: Float32
    x: Float64
    y: Float64

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[np.int64]) -> Stamps:
        """Some of the stars."""
        sizes = np.diff(self.start)[which]
        start = np.concatenate([[0], np.cumsum(sizes)])
        index = np.repeat(self.start[which] - start[:-1], sizes) + np.arange(start[-1])
        return Stamps(
            start, self.u[index], self.v[index], self.value[index], self.variance[index],
            self.x[which], self.y[which],
        )  # fmt: skip


def cut_stamps(
    data: Float32, variance: Float32, bad: NDArray[np.bool_], labels: NDArray[np.int32] | None,
    x: Float64, y: Float64, radius: Float64, inner: Float64, fine: float = math.inf,
) -> Stamps:  # fmt: skip
    """Usable pixels around stars.

    Parameters
    ----------
    data, variance : float32 array, ``[y, x]``
        Sky-subtracted image and its variance.
    bad : bool array, ``[y, x]``
        Pixels to leave out.
    labels : int32 array, ``[y, x]`` or None
        Source of each pixel, 0 for sky: pixels of other sources than that in the star's middle are left out.
    x, y : float64 array, ``[n]``
        Places, pixels.
    radius, inner : float64 array, ``[n]``
        Pixels farther out, or farther in, are left out.
    fine : float
        Beyond this radius pixels are averaged in blocks of 4 x 4.
    """
    parts: list[tuple[Float32, ...]] = []
    rows, columns = data.shape
    for cx, cy, r, hole in zip(x, y, radius, inner, strict=True):
        reach = int(r) + 1
        x0, y0 = int(round(cx)), int(round(cy))
        window = (
            slice(max(y0 - reach, 0), min(y0 + reach + 1, rows)),
            slice(max(x0 - reach, 0), min(x0 + reach + 1, columns)),
        )
        v, u = np.meshgrid(
            np.arange(window[0].start, window[0].stop) - cy,
            np.arange(window[1].start, window[1].stop) - cx,
            indexing="ij",
        )
        r2 = u * u + v * v
        use = (r2 <= r * r) & (r2 >= hole * hole) & ~bad[window]
        if labels is not None:
            use &= ~_foreign(labels[window], labels[y0, x0])
        images = (u, v, data[window], variance[window])
        if r <= fine:
            parts.append(tuple(np.asarray(a[use], np.float32) for a in images))
            continue
        near = use & (r2 < fine * fine)
        blocks = _blocks(images, use & ~near)
        parts.append(
            tuple(
                np.concatenate([a[near], b]).astype(np.float32) for a, b in zip(images, blocks, strict=True)
            )
        )
    start = np.concatenate([[0], np.cumsum([len(p[0]) for p in parts])]).astype(np.int64)
    nothing = np.empty(0, np.float32)
    u_all, v_all, value, noise = (
        np.concatenate([p[k] for p in parts]) if parts else nothing for k in range(4)
    )
    return Stamps(start, u_all, v_all, value, noise, np.asarray(x, float), np.asarray(y, float))


def _blocks(images: tuple[NDArray[Any], ...], use: NDArray[np.bool_]) -> tuple[Float64, ...]:
    """Means of u, v and value, and the variance of the last, in blocks of usable pixels."""
    rows, columns = use.shape[0] // _BLOCK, use.shape[1] // _BLOCK
    cut = (slice(0, rows * _BLOCK), slice(0, columns * _BLOCK))

    def total(image: NDArray[Any]) -> Float64:
        return np.asarray(image[cut].reshape(rows, _BLOCK, columns, _BLOCK).sum(axis=(1, 3)))

    count = total(use.astype(float))
    good = count >= _BLOCK**2 / 2
    u, v, value, variance = (total(np.where(use, a, 0.0))[good] for a in images)
    n = count[good]
    return u / n, v / n, value / n, variance / n**2


def _foreign(labels: NDArray[np.int32], own: int, growth: int = 2) -> NDArray[np.bool_]:
    """Pixels of other sources, and those next to them."""
    other = (labels != own) & (labels != 0)
    grown = other.copy()
    for step in range(1, growth + 1):
        grown[step:] |= other[:-step]
        grown[:-step] |= other[step:]
    wide = grown.copy()
    for step in range(1, growth + 1):
        wide[:, step:] |= grown[:, :-step]
        wide[:, :-step] |= grown[:, step:]
    return np.asarray(wide)


def joined(a: Stamps, b: Stamps) -> Stamps:
    """The stars of both."""
    return Stamps(
        np.concatenate([a.start, b.start[1:] + a.start[-1]]),
        *(np.concatenate([getattr(a, f), getattr(b, f)]) for f in ("u", "v", "value", "variance", "x", "y")),
    )
