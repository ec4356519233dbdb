"""Figures of the detection benchmark, from its newest result: ``python benchmarks/detection_figures.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "_static" / "detection.png"
_COLOUR = {"imcat, network": "#1764ab", "imcat, threshold": "#59a14f", "SExtractor": "#d1495b"}


def draw(result: Mapping[str, Any], path: Path = FIGURE) -> None:
    """Completeness, purity against number, reliability and pairs."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    for place, key, survey, title in (
        (axes[0, 0], "simulation", "sdss", "imcat's simulation, SDSS"),
        (axes[0, 1], "independent ugriz", "sdss", "independent simulation, SDSS"),
        (axes[0, 2], "csst", "csst", "imcat's simulation, CSST"),
    ):
        _completeness(place, result[key], result["edges"][survey], title)
    _purity(axes[1, 0], result["independent ugriz"])
    for name, key, colour in (
        ("imcat's simulation", "reliability", "#1764ab"),
        ("independent simulation", "independent reliability", "#d1495b"),
    ):
        table = result[key]
        used = np.asarray(table["count"]) >= 20
        stated, observed = (np.asarray(table[k], float)[used] for k in ("expected", "observed"))
        axes[1, 1].plot(stated, observed, "o-", color=colour, label=f"{name} (error {table['error']:.3f})")
    axes[1, 1].plot([0, 1], [0, 1], color="0.6", lw=1)
    axes[1, 1].set(
        xlabel="detection_score", ylabel="fraction that is real", title="Reliability of the scores"
    )
    axes[1, 1].legend(fontsize=8)
    _pairs(axes[1, 2], result["pairs"])
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _completeness(place: Any, rows: Mapping[str, Any], edges: list[float], title: str) -> None:
    middle = 0.5 * (np.asarray(edges[:-1]) + edges[1:])
    middle[0] = max(middle[0], edges[1] - 0.5)
    for name, row in rows.items():
        label = name.split(",")[0] if name.startswith("SExtractor") else name
        if label not in _COLOUR:
            continue
        values, low, high = (np.asarray(row[k], float) for k in ("completeness", "lower", "upper"))
        error = np.clip([values - low, high - values], 0, None)
        place.errorbar(
            middle,
            values,
            error,
            fmt="o-",
            ms=4,
            color=_COLOUR[label],
            label=f"{label} (purity {row['purity']:.2f})",
        )
    place.set(xlabel="true r", ylabel="completeness", title=title, ylim=(0, 1.03))
    place.grid(alpha=0.3)
    place.legend(fontsize=8, loc="lower left")


def _purity(place: Any, rows: Mapping[str, Any]) -> None:
    for name, row in rows.items():
        label = name.split(",")[0] if name.startswith("SExtractor") else name
        if label not in _COLOUR:
            continue
        place.plot(row["curve"]["found"], row["curve"]["purity"], color=_COLOUR[label], label=label)
    place.axhline(0.95, color="0.6", lw=1)
    place.set(xlabel="detections", ylabel="purity", ylim=(0.8, 1.005), title="Independent simulation, SDSS")
    place.set_xlim(600, 1500)
    place.grid(alpha=0.3)
    place.legend(fontsize=8)


def _pairs(place: Any, pairs: Mapping[str, Any]) -> None:
    edges = np.asarray(pairs["edges"])
    middle = 0.5 * (edges[:-1] + edges[1:])
    for style, low_high in zip(("-", "--", ":"), ("0-1", "1-2", "2-5"), strict=True):
        for engine in ("network", "threshold"):
            place.plot(
                middle, pairs[f"{engine} {low_high}"], style, marker="o", ms=4, color=_COLOUR[f"imcat, {engine}"],
                label=f"{engine}, {low_high.replace('-', '–')} mag apart",
            )  # fmt: skip
    place.set(xlabel="separation (arcsec)", ylabel="both found", title="Pairs of r < 23", ylim=(0, 1.03))
    place.grid(alpha=0.3)
    place.legend(fontsize=8)


def main() -> None:
    """Draw the newest full result."""
    history = json.loads((ROOT / "benchmarks" / "results" / "detection.json").read_text())
    entries = [e for e in history if not e["quick"]] or history
    draw(entries[-1])
    print(FIGURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
