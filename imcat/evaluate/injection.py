"""The selection function of a tile: which injected sources came back, and with which fluxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.catalogue import Catalogue
from imcat.catalogue.fields import AB_FLUX
from imcat.evaluate.detection import completeness, match_lists, wilson_interval

__all__ = ["recovery"]

_STEP = 0.5  # magnitudes of a bin
_MATCH, _LEAST = 0.75, 1.5  # radius of a match: in units of the PSF's FWHM, and at least, pixels
#: Which flux is compared: the first that the catalogue has.
_FLUXES = {"star": ("psf", "kron"), "quasar": ("psf", "kron"), "galaxy": ("cmodel", "kron")}


def recovery(
    catalogue: Catalogue,
    before: Catalogue,
    kinds: Mapping[str, NDArray[np.bool_]],
    x: ArrayLike,
    y: ArrayLike,
    magnitude: ArrayLike,
    *,
    reference: str,
    fwhm: float,
) -> dict[str, Any]:
    """Completeness, flux bias and scatter by magnitude and kind.

    A source that lands on one of the tile's own cannot be told from it: such are counted apart.

    Parameters
    ----------
    catalogue, before : Catalogue
        Of the tile with the injected sources, and without.
    kinds : mapping of str to bool array ``[n]``
        Which sources are of each kind.
    x, y : array ``[n]``
        True places, pixels of the reference image.
    magnitude : array ``[n]``
        True AB magnitudes in the reference band.
    reference : str
        That band.
    fwhm : float
        Of its PSF, pixels.

    Returns
    -------
    dict
        ``injected``, ``on_sources`` (left out), ``radius`` (pixels) and ``bins``: a list of dicts with ``kind``,
        ``low``, ``high`` (magnitude), ``number``, ``found``, ``completeness`` with ``lower`` and ``upper``
        (68 %), ``flux`` (name), ``bias`` and ``scatter`` (magnitudes, measured minus true; None where fewer
        than three were found).
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    true = np.asarray(magnitude, dtype=np.float64)
    radius = max(_MATCH * fwhm, _LEAST)
    taken = _near(x, y, before, radius)
    pairs = match_lists(catalogue["x"], catalogue["y"], x, y, radius)
    found = pairs.found(x.size)
    row = np.full(x.size, -1)
    row[pairs.second] = pairs.first
    low, high = (
        (np.floor(true.min() / _STEP) * _STEP, np.ceil(true.max() / _STEP) * _STEP) if true.size else (0, 0)
    )
    edges = np.arange(low, high + 0.5 * _STEP, _STEP)
    bins: list[dict[str, Any]] = []
    for kind, own in kinds.items():
        flux = next((f for f in _FLUXES.get(kind, ("kron",)) if f"{reference}_{f}_flux" in catalogue), "kron")
        difference = _difference(catalogue, f"{reference}_{flux}_flux", row, true)
        used = own & ~taken
        curve = completeness(true[used], found[used], edges)
        for k in range(edges.size - 1):
            if curve.total[k] == 0:
                continue
            inside = used & found & (true >= edges[k]) & (true < edges[k + 1]) & np.isfinite(difference)
            lower, upper = wilson_interval(curve.hits[k], curve.total[k])
            bins.append(
                {
                    "kind": kind, "low": float(edges[k]), "high": float(edges[k + 1]),
                    "number": int(curve.total[k]), "found": int(curve.hits[k]),
                    "completeness": round(float(curve.fraction[k]), 4),
                    "lower": round(float(lower), 4), "upper": round(float(upper), 4),
                    "flux": flux, **_spread(difference[inside]),
                }
            )  # fmt: skip
    return {"injected": int(x.size), "on_sources": int(taken.sum()), "radius": round(radius, 3), "bins": bins}


def _near(x: NDArray[Any], y: NDArray[Any], catalogue: Catalogue, radius: float) -> NDArray[np.bool_]:
    """Which places have a source of a catalogue within a radius."""
    from scipy.spatial import cKDTree

    if not len(catalogue) or not x.size:
        return np.zeros(x.size, bool)
    tree = cKDTree(np.stack([catalogue["x"], catalogue["y"]], axis=1))
    distance, _ = tree.query(np.stack([x, y], axis=1), distance_upper_bound=radius)
    return np.asarray(np.isfinite(distance))


def _difference(
    catalogue: Catalogue, column: str, row: NDArray[np.int64], true: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Measured minus true magnitude; NaN where there is none."""
    flux = (
        np.where(row >= 0, np.asarray(catalogue[column], dtype=np.float64)[row], np.nan)
        if len(catalogue)
        else np.full(row.size, np.nan)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(-2.5 * np.log10(np.where(flux > 0, flux, np.nan) / AB_FLUX) - true)


def _spread(values: NDArray[np.float64]) -> dict[str, float | None]:
    if values.size < 3:
        return {"bias": None, "scatter": None}
    middle = float(np.median(values))
    return {
        "bias": round(middle, 4),
        "scatter": round(1.4826 * float(np.median(np.abs(values - middle))), 4),
    }
