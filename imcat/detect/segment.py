"""Connected footprints above a threshold, and the parts of those with several peaks.

Footprints are found here; those with more than one peak are taken apart by the
multi-threshold deblending of SExtractor as the package sep provides it
(Bertin & Arnouts 1996, A&AS 117, 393; Barbary 2016, JOSS 1, 58). A footprint
with one peak has nothing to deblend, and most are such.
"""

from __future__ import annotations

import numpy as np
import sep
from numba import njit
from numpy.typing import NDArray

from imcat.detect.settings import DetectSettings

__all__ = ["find_root", "segment"]

# sep keeps the parts of one footprint in an array of fixed length and gives up when it is full.
_PARTS = 16384


@njit(cache=True, nogil=True)
def find_root(parent, i):  # type: ignore[no-untyped-def]
    """Follow a forest of links, integer array [n], from `i` to its root, and shorten the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _runs(image, threshold, starts, ends, rows):  # type: ignore[no-untyped-def]
    """Runs of pixels above the threshold along rows; only counted where the arrays are empty."""
    n = 0
    store = starts.size > 0
    for y in range(image.shape[0]):
        inside = False
        for x in range(image.shape[1]):
            above = image[y, x] > threshold
            if above and not inside:
                if store:
                    starts[n], rows[n] = x, y
                n += 1
            elif inside and not above and store:
                ends[n - 1] = x
            inside = above
        if inside and store:
            ends[n - 1] = image.shape[1]
    return n


@njit(cache=True, nogil=True)
def _connect(starts, ends, rows, component):  # type: ignore[no-untyped-def]
    """Number the connected components (eight neighbours) of runs from 1, in raster order."""
    n = starts.size
    parent = np.arange(n)
    first = 0  # of the runs of the row above that may touch
    for i in range(n):
        while first < i and (
            rows[first] < rows[i] - 1 or (rows[first] == rows[i] - 1 and ends[first] < starts[i])
        ):
            first += 1
        j = first
        while j < i and rows[j] == rows[i] - 1 and starts[j] <= ends[i]:
            if ends[j] >= starts[i]:
                a, b = find_root(parent, i), find_root(parent, j)
                if a != b:
                    parent[max(a, b)] = min(a, b)
            j += 1
        if i + 1 < n and rows[i + 1] != rows[i]:
            # The next row looks at this one from its beginning.
            while first < i + 1 and rows[first] < rows[i]:
                first += 1
    count = 0
    for i in range(n):
        root = find_root(parent, i)
        if root == i:
            count += 1
            component[i] = count
        else:
            component[i] = component[root]
    return count


@njit(cache=True, nogil=True)
def _describe(image, starts, ends, rows, component, boxes, area, peaks):  # type: ignore[no-untyped-def]
    """Bounding box, number of pixels and number of local maxima of every component."""
    for i in range(starts.size):
        c, y = component[i] - 1, rows[i]
        boxes[c, 0], boxes[c, 1] = min(boxes[c, 0], y), max(boxes[c, 1], y + 1)
        boxes[c, 2], boxes[c, 3] = min(boxes[c, 2], starts[i]), max(boxes[c, 3], ends[i])
        area[c] += ends[i] - starts[i]
        for x in range(starts[i], ends[i]):
            v = image[y, x]
            top = True
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    qy, qx = y + dy, x + dx
                    if (
                        (dy == 0 and dx == 0)
                        or qy < 0
                        or qx < 0
                        or qy >= image.shape[0]
                        or qx >= image.shape[1]
                    ):
                        continue
                    w = image[qy, qx]
                    # Of equal neighbours the first in raster order is the peak.
                    if w > v or (w == v and (dy < 0 or (dy == 0 and dx < 0))):
                        top = False
            if top:
                peaks[c] += 1


@njit(cache=True, nogil=True)
def _paint(starts, ends, rows, component, number, labels):  # type: ignore[no-untyped-def]
    for i in range(starts.size):
        label = number[component[i] - 1]
        if label != 0:
            labels[rows[i], starts[i] : ends[i]] = label


def segment(image: NDArray[np.float32], settings: DetectSettings) -> tuple[NDArray[np.int32], int]:
    """Label the deblended footprints above the threshold.

    Parameters
    ----------
    image : float32 array [y, x]
        The filtered map, in units of its noise.
    settings : DetectSettings
        Threshold, smallest area, deblending.

    Returns
    -------
    labels : int32 array [y, x]
        From 1; 0 is sky.
    n : int
        Number of labels.
    """
    labels = np.zeros(image.shape, np.int32)
    none = np.empty(0, np.int64)
    threshold = np.float32(settings.threshold)
    count = _runs(image, threshold, none, none, none)
    if count == 0:
        return labels, 0
    starts, ends, rows, component = (np.empty(count, np.int64) for _ in range(4))
    _runs(image, threshold, starts, ends, rows)
    m = _connect(starts, ends, rows, component)
    boxes = np.tile(np.array([image.shape[0], 0, image.shape[1], 0]), (m, 1))
    area, peaks = np.zeros(m, np.int64), np.zeros(m, np.int64)
    _describe(image, starts, ends, rows, component, boxes, area, peaks)
    large = area >= settings.min_area
    whole = large & ((peaks < 2) | (settings.deblend_contrast >= 1))
    number = np.where(whole, np.cumsum(whole), 0).astype(np.int32)
    n = int(whole.sum())
    several = np.nonzero(large & ~whole)[0]
    # Footprints to be taken apart are painted with a negative number of their own first.
    number[several] = -1 - np.arange(several.size, dtype=np.int32)
    _paint(starts, ends, rows, component, number, labels)
    sep.set_sub_object_limit(_PARTS)
    for k, c in enumerate(several):
        y0, y1, x0, x1 = boxes[c]
        cut = labels[y0:y1, x0:x1]
        own = cut == -1 - k
        n = _take_apart(image[y0:y1, x0:x1], cut, own, n, settings)
    return labels, n


def _take_apart(
    image: NDArray[np.float32],
    labels: NDArray[np.int32],
    own: NDArray[np.bool_],
    n: int,
    settings: DetectSettings,
) -> int:
    """Deblend one footprint, write its labels from n + 1 on, and return the last one used."""
    # One pixel around it: sep does not see footprints that fill their image.
    alone = np.pad(np.where(own, image, np.float32(0)), 1)
    sep.set_extract_pixstack(max(4 * alone.size, 10_000))
    objects, parts = sep.extract(
        alone, settings.threshold, minarea=settings.min_area, filter_kernel=None,
        deblend_nthresh=settings.deblend_levels, deblend_cont=settings.deblend_contrast,
        clean=False, segmentation_map=True,
    )  # fmt: skip
    inner = parts[1:-1, 1:-1]
    labels[own] = np.where(inner[own] > 0, inner[own] + n, 0)
    return n + len(objects)
