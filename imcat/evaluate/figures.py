"""Figures of an evaluation report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imcat.evaluate.measurement import ReferenceCheck, Residuals

__all__ = ["draw_report"]


def draw_report(folder: Path, result: Mapping[str, Any]) -> list[str]:
    """Draw what an evaluation has to show.

    Parameters
    ----------
    folder : pathlib.Path
        Where the PNG files go.
    result : mapping
        What `imcat.evaluate.assess.assess` returned.

    Returns
    -------
    list of str
        Names of the files.
    """
    names: list[str] = []
    detection = result["detection"]
    if "completeness" in detection:
        names.append(_draw(folder / "completeness.png", lambda f: _completeness(f, result)))
    if "reliability" in detection:
        names.append(_draw(folder / "reliability.png", lambda f: _reliability(f, detection["reliability"])))
    if result.get("fluxes"):
        names.append(
            _draw(folder / "fluxes.png", lambda f: _residuals(f, result["fluxes"], "measured / true − 1"))
        )
    positions = {axis: result["positions"][axis] for axis in ("ra", "dec")}
    if any(positions.values()):
        names.append(_draw(folder / "positions.png", lambda f: _residuals(f, positions, "offset (arcsec)")))
    for check in result["reference"]:
        names.append(_draw(folder / f"reference-{check.quantity}.png", _reference_of(check)))
    return names


def _draw(path: Path, paint: Callable[[Any], None]) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    paint(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path.name


def _completeness(figure: Any, result: Mapping[str, Any]) -> None:
    axes, counts = figure.subplots(1, 2)
    settings, curves = result["settings"], result["detection"]["completeness"]
    for name, curve in curves.items():
        middle = 0.5 * (curve.edges[:-1] + curve.edges[1:])
        good = curve.total > 0
        spread = [(curve.fraction - curve.lower)[good], (curve.upper - curve.fraction)[good]]
        axes.errorbar(
            middle[good], curve.fraction[good], yerr=np.maximum(spread, 0), fmt="o-", ms=3, lw=1.2, label=name
        )
    if np.isfinite(settings["depth_5_sigma"]):
        axes.axvline(settings["depth_5_sigma"], color="grey", linestyle=":", label="5 sigma")
    axes.set_xlabel(f"true {settings['band']} (AB mag)")
    axes.set_ylabel("completeness")
    axes.set_ylim(-0.03, 1.05)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    every = curves["all"]
    counts.stairs(every.total, every.edges, label="truth", color="grey")
    counts.stairs(every.hits, every.edges, label="found", color="tab:blue", fill=True, alpha=0.5)
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.7)
    counts.set_xlabel(f"true {settings['band']} (AB mag)")
    counts.set_ylabel("sources per 0.5 mag")
    counts.legend(fontsize=9)


def _reliability(figure: Any, curve: Any) -> None:
    axes, counts = figure.subplots(1, 2)
    good = curve.count > 0
    error = np.sqrt(np.maximum(curve.observed * (1 - curve.observed), 1e-4) / np.maximum(curve.count, 1))
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.errorbar(curve.expected[good], curve.observed[good], yerr=error[good], fmt="o", ms=4)
    axes.set_xlabel("detection_score (mean of the bin)")
    axes.set_ylabel("fraction that is real")
    axes.set_title(f"expected calibration error {curve.error:.3f}", loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    counts.stairs(curve.count, curve.edges, fill=True, alpha=0.6)
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.7)
    counts.set_xlabel("detection_score")
    counts.set_ylabel("detections")


def _residuals(figure: Any, groups: Mapping[str, Sequence[Residuals]], quantity: str) -> None:
    bias, pull = figure.subplots(1, 2)
    for shift, (name, rows) in enumerate(groups.items()):
        chosen = [row for row in rows if row.kind == "all"]
        if not chosen:
            continue
        # Points of several quantities are set beside each other.
        place = np.array([np.sqrt(r.low * (r.high if np.isfinite(r.high) else 2 * r.low)) for r in chosen])
        place = place * (1 + 0.03 * shift)
        error = [r.scatter / np.sqrt(r.number) for r in chosen]
        bias.errorbar(place, [r.bias for r in chosen], yerr=error, fmt="o-", ms=3, lw=1, label=name)
        width_error = np.nan_to_num([r.pull_width_err for r in chosen])
        pull.errorbar(
            place, [r.pull_width for r in chosen], yerr=width_error, fmt="o-", ms=3, lw=1, label=name
        )
    for axes, label, level in ((bias, f"median of {quantity}", 0.0), (pull, "width of the pull", 1.0)):
        axes.axhline(level, color="grey", linestyle=":")
        axes.set_xscale("log")
        axes.set_xlabel("signal-to-noise ratio")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    pull.set_yscale("log")
    bias.legend(fontsize=7, ncols=2)


def _reference_of(check: ReferenceCheck) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes, chip = figure.subplots(1, 2)
        middle = [0.5 * (part.low + part.high) for part in check.by_magnitude]
        axes.errorbar(
            middle,
            [part.bias for part in check.by_magnitude],
            yerr=[part.scatter for part in check.by_magnitude],
            fmt="o",
            ms=4,
            label="median, scatter",
        )
        axes.plot(middle, check.floor_by_magnitude, "s--", ms=3, lw=1, color="tab:red", label="error floor")
        axes.axhline(0, color="grey", linestyle=":")
        axes.set_xlabel("reference magnitude")
        axes.set_ylabel(f"measured − reference ({check.unit})")
        axes.set_title(f"{check.quantity}: {check.number} sources", loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
        finite = np.abs(check.grid_offset[np.isfinite(check.grid_offset)] - check.offset)
        span = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
        image = chip.imshow(
            check.grid_offset,
            origin="lower",
            cmap="RdBu_r",
            vmin=check.offset - span,
            vmax=check.offset + span,
        )
        figure.colorbar(image, ax=chip, label=f"median offset ({check.unit})")
        chip.set_xlabel("cell in x")
        chip.set_ylabel("cell in y")
        chip.set_xticks(range(check.grid_offset.shape[1]))
        chip.set_yticks(range(check.grid_offset.shape[0]))
        chip.set_title("by position on the chip", loc="left", fontsize=10)

    return paint
