"""The threshold engine: footprints in the filtered sum of the bands."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.detect.clean import explained_by_halo
from imcat.detect.combine import Combiner
from imcat.detect.extract import WindowSources, extract
from imcat.detect.footprints import Footprints
from imcat.detect.settings import DetectSettings
from imcat.window import Window, tile_windows

__all__ = ["Detections", "detect_threshold", "merge_windows", "score"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Detections:
    """Sources found in a tile; arrays ``[n]`` in raster order of their peaks.

    Attributes
    ----------
    x, y : float64
        Barycentre, or the place that the network says, reference pixels.
    error : float64
        One-sigma error of each coordinate, pixels; NaN where the engine does not know it.
    xx, yy, xy : float64
        Second moments, pixels².
    snr : float64
        Peak in the filtered map, in units of its noise.
    score : float64
        Probability of being real.
    peak : int64
        Pixel of the peak, ``y * columns + x``.
    area : int64
        Pixels of the footprint.
    parent : int64
        Index of the brightest source of the connected footprint; the source's own when alone.
    blended : bool
        More than one source shares the connected footprint.
    truncated : bool
        The connected footprint is larger than the overlap of windows.
    footprints : Footprints
        Their pixels; labels are index plus one.
    """

    x: Float64
    y: Float64
    error: Float64
    xx: Float64
    yy: Float64
    xy: Float64
    snr: Float64
    score: Float64
    peak: NDArray[np.int64]
    area: NDArray[np.int64]
    parent: NDArray[np.int64]
    blended: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    footprints: Footprints

    def __len__(self) -> int:
        return int(self.x.size)

    def select(self, kept: NDArray[np.bool_]) -> Detections:
        """The sources where `kept` is True; pixels of the others become sky."""
        new = np.where(kept, np.cumsum(kept) - 1, -1)
        parent = new[self.parent[kept]]
        own = np.arange(parent.size)
        values: dict[str, Any] = {
            f.name: getattr(self, f.name)[kept]
            for f in fields(self)
            if f.name not in ("footprints", "parent")
        }
        return Detections(
            **values,
            parent=np.where(parent >= 0, parent, own),
            footprints=self.footprints.renumber(new),
        )


def score(snr: Float64, settings: DetectSettings) -> Float64:
    """Probability of a detection to be real, from its signal-to-noise ratio.

    Parameters
    ----------
    snr : float64 array [n]
        Peaks in the filtered map.
    settings : DetectSettings
        The calibrated table.
    """
    return np.interp(snr, settings.score_snr, settings.score_probability)


def detect_threshold(
    combiner: Combiner, settings: DetectSettings, pool: Executor | None = None
) -> Detections:
    """Find the sources of a tile.

    Parameters
    ----------
    combiner : Combiner
        Makes the filtered map of any window.
    settings : DetectSettings
        Threshold, deblending, windows.
    pool : Executor, optional
        Threads for the windows; their number does not change the result.
    """
    cores = tile_windows(combiner.shape, settings.window_size)

    def search(core: Window) -> WindowSources:
        return extract(combiner(core.grow(settings.overlap, combiner.shape)), core, combiner.shape, settings)

    parts = list(pool.map(search, cores) if pool is not None else map(search, cores))
    found = merge_windows(parts, combiner.shape, settings)
    if settings.clean and len(found):
        gone = explained_by_halo(
            found.x, found.y, found.xx, found.yy, found.xy, found.snr, found.area,
            settings.threshold, settings.halo_slope,
        )  # fmt: skip
        found = found.select(~gone)
    return found


def merge_windows(
    parts: Sequence[WindowSources], shape: tuple[int, int], settings: DetectSettings
) -> Detections:
    """Put the windows' sources into one list, in raster order of their peaks."""

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    offsets = np.cumsum([0] + [part.x.size for part in parts[:-1]])
    labels = np.concatenate([part.labels + offset for part, offset in zip(parts, offsets, strict=True)])
    footprints = Footprints.build(shape, joined("pixels"), labels.astype(np.int32))
    peak, group = joined("peak"), joined("group")
    order = np.argsort(peak, kind="stable")
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    peaks = peak[order]
    # The brightest source of a group may be gone (below the smallest peak): then each is its own.
    at = np.minimum(np.searchsorted(peaks, group[order]), max(order.size - 1, 0))
    own = np.arange(order.size)
    parent = np.where(peaks[at] == group[order], at, own) if order.size else own
    snr = joined("snr")[order]
    return Detections(
        x=joined("x")[order], y=joined("y")[order], error=np.full(order.size, np.nan),
        xx=joined("xx")[order], yy=joined("yy")[order], xy=joined("xy")[order],
        snr=snr, score=score(snr, settings), peak=peaks, area=joined("area")[order], parent=parent,
        blended=joined("group_size")[order] > 1, truncated=joined("truncated")[order],
        footprints=footprints.renumber(rank),
    )  # fmt: skip
