"""Everything that is said about a catalogue, as plain numbers.

`assess` matches each tile with its truth, pools the tiles and calls the pure
functions of `imcat.evaluate.detection` and `imcat.evaluate.measurement`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.catalogue.names import pogson_magnitude
from imcat.evaluate import detection, measurement
from imcat.evaluate.lists import TileList
from imcat.evaluate.matching import MatchedTile, magnitude_band, match_tiles, point_source_depth
from imcat.evaluate.truth import Truth
from imcat.flags import SourceFlag

__all__ = ["PAIR_SEPARATION", "SNR_EDGES", "TOTAL_FLUXES", "assess", "plain"]

Float = NDArray[np.float64]

#: Pairs of true sources closer than this are reported by themselves, arcsec.
PAIR_SEPARATION = 2.5

#: Edges of the bins in signal-to-noise ratio (true flux over quoted error).
SNR_EDGES = (3.0, 5.0, 10.0, 20.0, 50.0, 100.0, np.inf)

#: Fluxes that stand for all of a source's light.
TOTAL_FLUXES = ("kron", "psf", "model", "cmodel", "petrosian")

#: Width of the bins in magnitude.
_MAGNITUDE_STEP = 0.5

#: A source with one of these bits says nothing about a zero point.
_UNUSABLE = int(
    SourceFlag.SATURATED
    | SourceFlag.EDGE
    | SourceFlag.BAD_PIXEL
    | SourceFlag.OUTSIDE
    | SourceFlag.NEIGHBOUR
    | SourceFlag.NOT_MEASURED
    | SourceFlag.MOVING
)

#: Purities at which the list is cut in the scan of the threshold.
_PURITY_TARGETS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)

#: Sources fainter than this many sigma are left out of the check of zero points and astrometry.
_CHECK_SNR = 10.0


def assess(
    tiles: Sequence[TileList],
    truths: Sequence[Truth],
    *,
    radius: float | None = None,
    band: str | None = None,
    faint_limit: float | None = None,
    border: float = detection.BORDER,
) -> dict[str, Any]:
    """Evaluate a catalogue.

    Parameters
    ----------
    tiles : sequence of TileList
        The catalogue.
    truths : sequence of Truth
        What is there.
    radius : float, optional
        Matching radius, arcsec; 1.0, for CSST 0.25.
    band : str, optional
        Band of the magnitude bins; the reference band where the truth has it.
    faint_limit : float, optional
        Truth fainter than this does not count; two magnitudes below the 5 sigma limit.
    border : float
        Border that is left out, pixels.

    Returns
    -------
    dict
        Dataclasses and numbers by section; `plain` makes JSON of it.

    Raises
    ------
    InputError
        If no tile has truth on it.
    """
    radius = radius or (0.25 if {t.survey for t in tiles} == {"csst"} else 1.0)
    band = band or magnitude_band(tiles, truths)
    depth = point_source_depth(tiles, band) if band else np.nan
    limit = depth + 2 if faint_limit is None else faint_limit
    complete = all(truth.complete for truth in truths)
    if not complete and faint_limit is None:
        limit = np.inf
    matched = match_tiles(tiles, truths, radius=radius, band=band, limit=limit)
    result: dict[str, Any] = {
        "settings": {
            "radius_arcsec": radius,
            "border_pixels": border,
            "band": band,
            "depth_5_sigma": depth,
            "faint_limit": limit,
            "truth_is_complete": complete,
        },
        "lists": {
            "tiles": len(tiles),
            "tiles_with_truth": len(matched),
            "detections": sum(len(m.tile) for m in matched),
            "truth": sum(len(m.truth) for m in matched),
            "truth_counted": sum(int(m.counted.sum()) for m in matched),
            "matched": sum(m.pairs.first.size for m in matched),
        },
    }
    result["detection"] = _assess_detection(matched, band, depth, limit, border, complete)
    if complete:
        result["fluxes"] = _assess_fluxes(matched)
    result["positions"] = _assess_positions(matched)
    result["reference"] = _check_references(matched, band)
    return result


def plain(value: Any) -> Any:
    """JSON's types: dataclasses become dictionaries, numbers that are not finite None.

    Examples
    --------
    >>> plain({"a": np.array([1.0, np.nan]), "b": (np.int64(3),)})
    {'a': [1.0, None], 'b': [3]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _edges(values: Float) -> Float:
    good = values[np.isfinite(values)]
    if good.size == 0:
        return np.array([0.0, 1.0])
    low = np.floor(good.min() / _MAGNITUDE_STEP) * _MAGNITUDE_STEP
    high = np.floor(good.max() / _MAGNITUDE_STEP + 1) * _MAGNITUDE_STEP
    return np.arange(low, high + _MAGNITUDE_STEP / 2, _MAGNITUDE_STEP)


def _assess_detection(
    matched: Sequence[MatchedTile],
    band: str | None,
    depth: float,
    limit: float,
    border: float,
    complete: bool,
) -> dict[str, Any]:
    inside = [detection.inside(m.x, m.y, m.tile.shape, border) & m.counted for m in matched]
    found = [m.pairs.found(len(m.truth)) for m in matched]
    hit = np.concatenate([f[i] for f, i in zip(found, inside, strict=True)])
    section: dict[str, Any] = {"truth_inside": hit.size, "found": int(hit.sum())}
    if band is not None:
        magnitude = np.concatenate([m.magnitude(band)[i] for m, i in zip(matched, inside, strict=True)])
        kind = np.concatenate([m.truth.kind[i] for m, i in zip(matched, inside, strict=True)])
        edges = _edges(magnitude)
        section["completeness"] = {"all": detection.completeness(magnitude, hit, edges)}
        for name in sorted(set(kind.tolist()) - {""}):
            chosen = kind == name
            section["completeness"][name] = detection.completeness(magnitude[chosen], hit[chosen], edges)
    if not complete:
        return section
    section["purity"] = _pooled_purity(matched, band, border)
    rows = [detection.inside(m.tile.number("x"), m.tile.number("y"), m.tile.shape, border) for m in matched]
    real = np.concatenate([m.pairs.used(len(m.tile))[r] for m, r in zip(matched, rows, strict=True)])
    rank = np.concatenate([m.tile.number("detection_snr")[r] for m, r in zip(matched, rows, strict=True)])
    section["by_threshold"] = _scan(rank, real, hit.size)
    score = np.concatenate([m.tile.number("detection_score")[r] for m, r in zip(matched, rows, strict=True)])
    if np.isfinite(score).any():
        section["reliability"] = detection.reliability(score, real)
    if band is not None:
        section["close_pairs"] = _pooled_pairs(matched, found, inside, band, depth)
        section["average_precision"] = _pooled_precision(matched, band, depth, border)
    return section


def _pooled_purity(matched: Sequence[MatchedTile], band: str | None, border: float) -> detection.Purity:
    parts = []
    for m in matched:
        mags = None if band is None else pogson_magnitude(m.tile.number(f"{band}_kron_flux"))
        parts.append(
            detection.measure_purity(
                m.tile.number("x"),
                m.tile.number("y"),
                m.x[m.counted],
                m.y[m.counted],
                radius=m.radius,
                shape=m.tile.shape,
                magnitude=mags,
                truth_magnitude=None if band is None else m.magnitude(band)[m.counted],
                border=border,
            )
        )
    number = np.array([p.detections for p in parts])

    def mean(values: list[float]) -> float:
        good = (number > 0) & np.isfinite(values)
        return float(np.average(np.array(values)[good], weights=number[good])) if good.any() else np.nan

    return detection.Purity(
        int(number.sum()),
        mean([p.purity for p in parts]),
        mean([p.purity_one_mag for p in parts]),
        mean([p.chance for p in parts]),
    )


def _scan(rank: Float, real: NDArray[np.bool_], truth: int) -> list[dict[str, float]]:
    """Purity, number and completeness as the threshold in detection_snr rises."""
    good = np.isfinite(rank)
    threshold, purity, number = detection.purity_curve(rank[good], real[good])
    rows: list[dict[str, float]] = []
    for target in _PURITY_TARGETS:
        cut = detection.threshold_at_purity(rank[good], real[good], target)
        # Purities that the whole list has anyway need one row, not several.
        if np.isfinite(cut) and not (rows and rows[-1]["detection_snr"] == cut):
            at = int(np.flatnonzero(threshold == cut)[0])
            hits = round(float(purity[at] * number[at]))
            rows.append(
                {
                    "purity_asked": target,
                    "detection_snr": cut,
                    "purity": float(purity[at]),
                    "detections": int(number[at]),
                    "completeness_counted": hits / truth if truth else np.nan,
                }
            )
    return rows


def _pooled_pairs(
    matched: Sequence[MatchedTile],
    found: Sequence[NDArray[np.bool_]],
    inside: Sequence[NDArray[np.bool_]],
    band: str,
    depth: float,
) -> dict[str, Any]:
    edges = np.arange(0, PAIR_SEPARATION + 0.25, 0.5)
    total, hits = np.zeros(edges.size - 1, np.int64), np.zeros(edges.size - 1, np.int64)
    for m, f, i in zip(matched, found, inside, strict=True):
        part = detection.close_pairs(
            m.x[i],
            m.y[i],
            m.magnitude(band)[i],
            f[i],
            separation=PAIR_SEPARATION / m.scale,
            faint_limit=depth,
            edges=edges / m.scale,
        )
        total, hits = total + part.total, hits + part.hits
    return {
        "faint_limit": depth,
        "separation_edges_arcsec": edges,
        "pairs": total,
        "both_found": hits,
        "fraction": hits.sum() / total.sum() if total.sum() else np.nan,
    }


def _pooled_precision(
    matched: Sequence[MatchedTile], band: str, depth: float, border: float
) -> dict[str, Any]:
    """Average precision at IoU 0.5 of boxes of two half-light radii to each side."""
    if any(band not in m.tile.psf_fwhm or m.truth.half_light_radius is None for m in matched):
        return {"value": None, "reason": "the catalogue states no PSF width, or the truth no sizes"}
    detected: list[Float] = []
    true: list[Float] = []
    away = 0.0  # tiles are laid side by side, too far apart for boxes to touch
    for m in matched:
        tile = m.tile
        x, y = tile.number("x"), tile.number("y")
        rows = detection.inside(x, y, tile.shape, border)
        half = 2 * tile.number("half_light_radius") / m.scale
        detected.append(np.column_stack([x + away, y, half, tile.number("detection_snr")])[rows])
        radius = np.nan_to_num(np.asarray(m.truth.half_light_radius))
        # The half-light radius of a Gaussian is 0.5 FWHM; widths add in quadrature.
        wide = 2 * np.hypot(radius, 0.5 * tile.psf_fwhm[band]) / m.scale
        magnitude = m.magnitude(band)
        rows = m.counted & detection.inside(m.x, m.y, tile.shape, 0)
        wanted = detection.inside(m.x, m.y, tile.shape, border) & (magnitude < depth)
        true.append(np.column_stack([m.x + away, m.y, wide, wanted])[rows])
        away += 10.0 * max(tile.shape)
    found, there = np.vstack(detected), np.vstack(true)
    value = detection.average_precision(*found.T, *there[:, :3].T, wanted=there[:, 3] > 0)
    return {
        "value": value,
        "iou": 0.5,
        "faint_limit": depth,
        "box": "two half-light radii, PSF included, to each side of the centre",
    }


def _assess_fluxes(matched: Sequence[MatchedTile]) -> dict[str, Any]:
    """Relative residuals of every total flux, by S/N and type, in each band."""
    section: dict[str, Any] = {}
    for band in dict.fromkeys(b for m in matched for b in m.tile.bands):
        for kind in TOTAL_FLUXES:
            name = f"{band}_{kind}_flux"
            having = [m for m in matched if name in m.tile.columns and band in m.truth.magnitudes]
            if not having:
                continue
            flux = np.concatenate([m.measured(name) for m in having])
            error = np.concatenate([m.measured(f"{name}_err") for m in having])
            magnitude = np.concatenate([m.magnitude(band)[m.pairs.second] for m in having])
            types = np.concatenate([m.truth.kind[m.pairs.second] for m in having])
            true = AB_FLUX * 10 ** (-0.4 * magnitude)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative, relative_error, snr = flux / true - 1, error / true, true / error
            section[name] = measurement.residuals_by_bin(
                relative, relative_error, snr, SNR_EDGES, types, sorted(set(types.tolist()) - {""})
            )
    return section


def _offsets(m: MatchedTile) -> tuple[Float, Float, Float, Float]:
    """Offsets of the matched pairs in right ascension (on the sky) and declination, and their errors, arcsec."""
    rows, truth = m.pairs.second, m.truth
    if truth.ra is not None and truth.dec is not None:
        dec = truth.dec[rows]
        turn = (m.measured("ra") - truth.ra[rows] + 180) % 360 - 180
        east = turn * np.cos(np.radians(dec)) * 3600
        north = (m.measured("dec") - dec) * 3600
    else:
        # Truth in pixels only: along the axes of the chip, whichever way it points.
        east = (m.measured("x") - m.x[rows]) * m.scale
        north = (m.measured("y") - m.y[rows]) * m.scale
    errors = [m.measured("ra_err"), m.measured("dec_err")]
    if truth.position_errors is not None:
        errors = [np.hypot(e, r[rows]) for e, r in zip(errors, truth.position_errors, strict=True)]
    return east, north, errors[0], errors[1]


def _assess_positions(matched: Sequence[MatchedTile]) -> dict[str, Any]:
    parts = [_offsets(m) for m in matched]
    east, north, east_err, north_err = (np.concatenate(column) for column in zip(*parts, strict=True))
    snr = np.concatenate([m.measured("detection_snr") for m in matched])
    kind = np.concatenate([m.truth.kind[m.pairs.second] for m in matched])
    kinds = sorted(set(kind.tolist()) - {""})
    return {
        "median_offset_arcsec": float(np.median(np.hypot(east, north))) if east.size else np.nan,
        "ra": measurement.residuals_by_bin(east, east_err, snr, SNR_EDGES, kind, kinds),
        "dec": measurement.residuals_by_bin(north, north_err, snr, SNR_EDGES, kind, kinds),
    }


def _check_references(matched: Sequence[MatchedTile], band: str | None) -> list[measurement.ReferenceCheck]:
    """Zero point of every band and the astrometry, by magnitude and position on the chip."""
    x = np.concatenate([m.measured("x") for m in matched])
    y = np.concatenate([m.measured("y") for m in matched])
    rows = max(m.tile.shape[0] for m in matched)
    columns = max(m.tile.shape[1] for m in matched)
    checks = []
    usable = np.concatenate([_usable(m, "flags") for m in matched])
    for name in dict.fromkeys(b for m in matched for b in m.tile.bands):
        magnitude = np.concatenate([m.magnitude(name)[m.pairs.second] for m in matched])
        flux = np.concatenate([m.measured(f"{name}_kron_flux") for m in matched])
        error = np.concatenate([m.measured(f"{name}_kron_flux_err") for m in matched])
        listed = np.concatenate([_listed_errors(m, name) for m in matched])
        good = np.concatenate([_usable(m, f"{name}_flags") for m in matched]) & usable
        with np.errstate(divide="ignore", invalid="ignore"):
            good &= (flux / error > _CHECK_SNR) & np.isfinite(magnitude)
            errors = np.hypot(2.5 / np.log(10) * error / flux, listed)
        if good.sum() >= 3:
            difference = (pogson_magnitude(flux) - magnitude)[good]
            checks.append(
                measurement.check_reference(
                    difference,
                    errors[good],
                    magnitude[good],
                    x[good],
                    y[good],
                    quantity=f"{name}_kron",
                    unit="mag",
                    magnitude_edges=_edges(magnitude[good]),
                    shape=(rows, columns),
                )
            )
    parts = [_offsets(m) for m in matched]
    axes = [np.concatenate(column) for column in zip(*parts, strict=True)]
    bright = usable & (np.concatenate([m.measured("detection_snr") for m in matched]) > _CHECK_SNR)
    if band is None:
        by = np.zeros(x.size)
    else:
        by = np.concatenate([m.magnitude(band)[m.pairs.second] for m in matched])
    if bright.sum() >= 3:
        for axis, name in enumerate(("ra", "dec")):
            checks.append(
                measurement.check_reference(
                    axes[axis][bright],
                    axes[axis + 2][bright],
                    by[bright],
                    x[bright],
                    y[bright],
                    quantity=name,
                    unit="arcsec",
                    magnitude_edges=_edges(by[bright]),
                    shape=(rows, columns),
                )
            )
    return checks


def _usable(m: MatchedTile, column: str) -> NDArray[np.bool_]:
    if column not in m.tile.columns:
        return np.ones(m.pairs.first.size, dtype=bool)
    flags = np.asarray(m.tile.columns[column])[m.pairs.first].astype(np.int64)
    return np.asarray((flags & _UNUSABLE) == 0)


def _listed_errors(m: MatchedTile, band: str) -> Float:
    listed = m.truth.magnitude_errors.get(band)
    return np.zeros(m.pairs.second.size) if listed is None else np.nan_to_num(listed[m.pairs.second])
