"""A REPORT folder: report.json, report.md and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imcat.errors import UsageError
from imcat.evaluate.assess import assess, plain
from imcat.evaluate.detection import BORDER, BinnedFraction
from imcat.evaluate.folder import check_report_folder, report_folder
from imcat.evaluate.folder import markdown_number as _number
from imcat.evaluate.folder import markdown_table as _table
from imcat.evaluate.lists import read_tile_lists
from imcat.evaluate.measurement import ReferenceCheck, Residuals
from imcat.evaluate.truth import read_truth

__all__ = ["evaluate_catalogue"]


def evaluate_catalogue(
    catalogue: str | Path,
    truth: str | Path,
    out_dir: str | Path,
    *,
    radius: float | None = None,
    band: str | None = None,
    faint_limit: float | None = None,
    border: float = BORDER,
    figures: bool = True,
) -> dict[str, Any]:
    """Compare a catalogue with truth or with a reference table, and write the report.

    Parameters
    ----------
    catalogue : path
        The folder of a run, or a catalogue file (Parquet, FITS, VOTable, ECSV, CSV).
    truth : path
        A table, or a folder with ``truth.parquet`` in it or in its sub-folders. A simulation's
        truth is taken as complete; of a reference table only what it lists is judged.
    out_dir : path
        The report's folder. An earlier report there is replaced.
    radius : float, optional
        Matching radius, arcsec; by default 1.0, for CSST 0.25.
    band : str, optional
        Band of the magnitude bins; by default the reference band.
    faint_limit : float, optional
        Truth fainter than this does not count; by default two magnitudes below the 5 sigma
        limit of the catalogue.
    border : float
        Border left out of completeness and purity, pixels.
    figures : bool
        False leaves the figures out.

    Returns
    -------
    dict
        What report.json holds.

    Raises
    ------
    InputError
        If catalogue or truth cannot be read, or do not overlap.
    UsageError
        If the radius is not positive or the catalogue has no such band.
    OutputError
        If `out_dir` holds something else than a report.
    """
    target = Path(out_dir)
    check_report_folder(target)
    if radius is not None and not radius > 0:
        raise UsageError(f"a matching radius of {radius} arcsec is impossible; expected a positive number")
    tiles, truths = read_tile_lists(catalogue), read_truth(truth)
    if band is not None and not all(band in t.magnitudes for t in truths):
        known = ", ".join(truths[0].magnitudes) or "none"
        raise UsageError(f"the truth has no magnitudes in {band!r}; expected one of: {known}")
    result = assess(tiles, truths, radius=radius, band=band, faint_limit=faint_limit, border=border)
    result = {"catalogue": str(catalogue), "truth": [t.name for t in truths], **result}
    content: dict[str, Any] = plain(result)
    with report_folder(target) as folder:
        names: list[str] = []
        if figures:
            from imcat.evaluate.figures import draw_report

            names = draw_report(folder, result)
        (folder / "report.json").write_text(
            json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        (folder / "report.md").write_text(_markdown(result, names), encoding="utf-8")
    return content


def _markdown(result: Mapping[str, Any], figures: Sequence[str]) -> str:
    lists, settings = result["lists"], result["settings"]
    lines = [
        "# Evaluation",
        "",
        f"Catalogue `{result['catalogue']}` against {', '.join(f'`{name}`' for name in result['truth'])}.",
        "",
        f"- {lists['detections']} detections on {lists['tiles']} tile(s), {lists['tiles_with_truth']} with truth; "
        f"{lists['matched']} of {lists['truth_counted']} listed sources that count are matched "
        f"({lists['truth']} in all).",
        f"- Matched one to one, nearest first, within {settings['radius_arcsec']:g} arcsec; "
        f"a border of {settings['border_pixels']:g} pixels is left out of completeness and purity.",
    ]
    if settings["band"]:
        lines.append(
            f"- Magnitudes in {settings['band']}; 5 sigma at {_number(settings['depth_5_sigma'], 2)}; "
            f"sources count down to {_number(settings['faint_limit'], 2)}."
        )
    if not settings["truth_is_complete"]:
        lines.append("- The table need not list everything, so that purity is not stated.")
    lines += _detection_lines(result["detection"])
    for name, rows in result.get("fluxes", {}).items():
        lines += ["", f"## Flux: {name}", "", "Measured over true flux, minus one.", ""]
        lines += _residual_table(rows, "S/N", 4)
    positions = result["positions"]
    lines += ["", "## Positions", ""]
    lines += [f"Median offset {_number(positions['median_offset_arcsec'], 4)} arcsec.", ""]
    for axis in ("ra", "dec"):
        lines += ["", f"Offset in {axis} (arcsec) by detection S/N:", ""]
        lines += _residual_table(positions[axis], "S/N", 4)
    for check in result["reference"]:
        lines += _check_lines(check)
    if figures:
        lines += ["", "## Figures", "", *(f"![{Path(name).stem}]({name})" for name in figures)]
    return "\n".join(lines) + "\n"


def _detection_lines(section: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Detection", "", f"{section['found']} of {section['truth_inside']} listed sources found."]
    purity = section.get("purity")
    if purity is not None:
        lines += [
            "",
            f"Purity {_number(purity.purity, 3)} of {purity.detections} detections "
            f"({_number(purity.purity_one_mag, 3)} with the magnitude within 1 mag; "
            f"{_number(purity.chance, 3)} would match by chance).",
        ]
    if "close_pairs" in section:
        pairs = section["close_pairs"]
        lines += [
            "",
            f"Pairs closer than 2.5 arcsec: both found in {int(np.sum(pairs['both_found']))} "
            f"of {int(np.sum(pairs['pairs']))}.",
        ]
    precision = section.get("average_precision")
    if precision is not None and precision["value"] is not None:
        lines += [
            "",
            f"mAP at IoU {precision['iou']:g} down to {_number(precision['faint_limit'], 2)} mag: "
            f"{_number(precision['value'], 3)} (box: {precision['box']}).",
        ]
    for name, curve in section.get("completeness", {}).items():
        lines += ["", f"Completeness ({name}):", "", *_completeness_table(curve)]
    if section.get("by_threshold"):
        lines += ["", "At a threshold in detection_snr:", ""]
        lines += _table(
            ["purity asked", "detection_snr", "purity", "detections", "completeness"],
            [
                [
                    f"{row['purity_asked']:g}",
                    _number(row["detection_snr"], 2),
                    _number(row["purity"], 3),
                    str(row["detections"]),
                    _number(row["completeness_counted"], 3),
                ]
                for row in section["by_threshold"]
            ],
        )
    if "reliability" in section:
        curve = section["reliability"]
        lines += [
            "",
            f"Calibration of detection_score: expected calibration error {_number(curve.error, 3)}.",
            "",
        ]
        lines += _table(
            ["score", "detections", "expected", "observed"],
            [
                [f"{low:.2f}–{high:.2f}", str(n), _number(e, 3), _number(o, 3)]
                for low, high, n, e, o in zip(
                    curve.edges[:-1],
                    curve.edges[1:],
                    curve.count,
                    curve.expected,
                    curve.observed,
                    strict=True,
                )
                if n
            ],
        )
    return lines


def _completeness_table(curve: BinnedFraction) -> list[str]:
    return _table(
        ["magnitude", "truth", "found", "completeness", "68 %"],
        [
            [
                f"{low:.1f}–{high:.1f}",
                str(total),
                str(hits),
                _number(fraction, 3),
                f"{_number(lower, 3)}–{_number(upper, 3)}",
            ]
            for low, high, total, hits, fraction, lower, upper in zip(
                curve.edges[:-1],
                curve.edges[1:],
                curve.total,
                curve.hits,
                curve.fraction,
                curve.lower,
                curve.upper,
                strict=True,
            )
            if total
        ],
    )


def _residual_table(rows: Sequence[Residuals], by: str, digits: int) -> list[str]:
    return _table(
        ["type", by, "n", "bias", "scatter", "pull bias", "pull width"],
        [
            [
                row.kind,
                f"{row.low:g}–{row.high:g}" if np.isfinite(row.high) else f"{row.low:g}+",
                str(row.number),
                _number(row.bias, digits),
                _number(row.scatter, digits),
                _number(row.pull_bias, 2),
                f"{_number(row.pull_width, 2)} ± {_number(row.pull_width_err, 2)}",
            ]
            for row in rows
        ],
    )


def _check_lines(check: ReferenceCheck) -> list[str]:
    lines = [
        "",
        f"## Reference: {check.quantity}",
        "",
        f"{check.number} sources; measured minus reference {_number(check.offset, 4)} ± "
        f"{_number(check.offset_err, 4)} {check.unit}, scatter {_number(check.scatter, 4)} {check.unit}; error floor "
        f"{_number(check.floor, 4)} {check.unit}; variation over the chip {_number(check.grid_floor, 4)} {check.unit}.",
        "",
    ]
    rows = [
        [
            f"{part.low:.1f}–{part.high:.1f}",
            str(part.number),
            _number(part.bias, 4),
            _number(part.scatter, 4),
            _number(part.pull_width, 2),
            _number(floor, 4),
        ]
        for part, floor in zip(check.by_magnitude, check.floor_by_magnitude, strict=True)
    ]
    lines += _table(["magnitude", "n", "offset", "scatter", "pull width", "floor"], rows)
    lines += ["", f"Median offset by position ({check.unit}; top row at large y):", ""]
    header = [f"x {i + 1}" for i in range(check.grid_offset.shape[1])]
    return lines + _table(header, [[_number(v, 4) for v in row] for row in check.grid_offset[::-1]])
