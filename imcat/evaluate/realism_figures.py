"""Figures of a realism report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imcat.evaluate.cutouts import KINDS
from imcat.evaluate.sky_statistics import COUNT_EDGES, SkyFacts, count_densities
from imcat.evaluate.two_sample import Sample, folds_of

if TYPE_CHECKING:
    from imcat.evaluate.realism import Evidence

__all__ = ["draw_realism"]

Float64 = NDArray[np.float64]

_COLOURS = {"real": "tab:blue", "twin": "tab:orange"}
_SHOWN = 5  # cutouts of each side in a row of the sheet
_STRETCH = 4.0  # noise rms at which the display leaves the linear part


def draw_realism(
    folder: Path,
    result: Mapping[str, Any],
    evidence: Evidence,
    scores: Sequence[Float64],
    importance: Mapping[str, Sequence[float]],
) -> list[str]:
    """Draw counts, locus, sizes, areas under the curve and a sheet of cutouts.

    Parameters
    ----------
    folder : pathlib.Path
        Where the PNG files go.
    result : mapping
        What `imcat.evaluate.realism.judge_realism` returned.
    evidence : Evidence
        Cutouts and facts.
    scores : sequence of float64 array
        Of the trees, for the cutouts of each fold.
    importance : mapping
        Loss in area by feature.

    Returns
    -------
    list of str
        Names of the files.
    """
    sides = {"real": evidence.real_facts, "twin": evidence.twin_facts}
    names = [
        _draw(folder / "auc.png", (10, 4.6), lambda f: _areas(f, result)),
        _draw(folder / "cutouts.png", (11, 8.6), lambda f: _sheet(f, evidence, scores, result)),
        _draw(folder / "give-away.png", (11, 5.6), lambda f: _give_away(f, evidence, result)),
        _draw(folder / "counts.png", (10, 4.2), lambda f: _counts(f, sides)),
        _draw(folder / "sizes.png", (10, 4.2), lambda f: _sizes(f, sides)),
    ]
    if len(evidence.bands) >= 3:
        names.append(_draw(folder / "locus.png", (11, 4.4), lambda f: _locus(f, sides)))
    return names


def _draw(path: Path, size: tuple[float, float], paint: Callable[[Any], None]) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    paint(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path.name


def _areas(figure: Any, result: Mapping[str, Any]) -> None:
    """Bars of all areas under the curve, the test's and the controls'."""
    axes = figure.subplots()
    groups = dict(result["test"])
    for control, outcomes in result["controls"].items():
        groups |= {f"{control}:\n{name}": outcome for name, outcome in outcomes.items()}
    shades = {"all": "black", "blank": "tab:grey", "star": "tab:blue", "galaxy": "tab:red"}
    for place, outcome in enumerate(groups.values()):
        for shift, (kind, shade) in enumerate(shades.items()):
            if not np.isfinite(outcome.auc[kind]):
                continue
            at = place + 0.19 * (shift - 1.5)
            axes.bar(at, outcome.auc[kind] - 0.5, 0.17, bottom=0.5, color=shade, alpha=0.75)
            axes.errorbar(at, outcome.auc[kind], outcome.error[kind], color="black", lw=1)
            axes.plot(
                [at] * len(outcome.folds[kind]), outcome.folds[kind], ".", color="white", mec="black", ms=6
            )
    for kind, shade in shades.items():
        axes.bar([0], [0], color=shade, alpha=0.75, label=kind)
    axes.axhline(0.5, color="grey", lw=0.8)
    axes.axhline(result["largest_auc"], color="tab:green", ls="--", label="asked of twins")
    axes.set_xticks(range(len(groups)), [name.replace(", ", ",\n") for name in groups], fontsize=8)
    axes.set_ylim(0.3, 1.02)
    axes.set_ylabel("area under the curve")
    axes.legend(fontsize=8, ncols=5, loc="lower right")


def _sheet(figure: Any, evidence: Evidence, scores: Sequence[Float64], result: Mapping[str, Any]) -> None:
    """Real cutouts on the left, twins on the right: some of each kind, then those most clearly told."""
    test, score = folds_of(evidence.twins)[0][1], scores[0]
    bands = _display_bands(len(evidence.bands))
    axes = figure.subplots(2 * len(KINDS), 2 * _SHOWN)
    rng = np.random.default_rng(0)
    for code, kind in enumerate(KINDS):
        for label, side in enumerate(("real", "twin")):
            rows = np.flatnonzero((test.kind == code) & (test.label == label))
            sign = 1 if label else -1
            picks = {
                "some": rng.permutation(rows)[:_SHOWN],
                "most clearly told": rows[np.argsort(-sign * score[rows])][:_SHOWN],
            }
            for line, (words, chosen) in enumerate(picks.items()):
                for j in range(_SHOWN):
                    panel = axes[2 * code + line, label * _SHOWN + j]
                    panel.set_xticks([])
                    panel.set_yticks([])
                    for edge in panel.spines.values():
                        edge.set_color(_COLOURS[side])
                        edge.set_linewidth(2)
                    if j < chosen.size:
                        panel.imshow(
                            _picture(test, int(chosen[j]), bands), origin="lower", interpolation="nearest"
                        )
                axes[2 * code + line, 0].set_ylabel(f"{kind}\n{words}", fontsize=8)
    axes[0, _SHOWN // 2].set_title(f"real ({test.name})", color=_COLOURS["real"], fontsize=10)
    axes[0, _SHOWN + _SHOWN // 2].set_title("twin", color=_COLOURS["twin"], fontsize=10)
    features = ", ".join(f"{name} ({loss:.2f})" for name, loss in result["give_away"]["features"][:5])
    figure.supxlabel(f"most telling features (loss in AUC): {features}", fontsize=8)


def _display_bands(number: int) -> tuple[int, int, int]:
    """Bands for red, green and blue: i, r, g of ugriz."""
    if number >= 4:
        return 3, 2, 1
    return number - 1, number // 2, 0


def _picture(sample: Sample, row: int, bands: tuple[int, int, int]) -> Float64:
    pixels = np.sinh(sample.pixels[row, list(bands)].astype(np.float64))
    scaled = np.arcsinh(pixels / _STRETCH) / np.arcsinh(60 / _STRETCH)
    return np.asarray(np.clip(0.12 + 0.88 * scaled, 0, 1).transpose(1, 2, 0))


def _give_away(figure: Any, evidence: Evidence, result: Mapping[str, Any]) -> None:
    """Distributions of the most telling features on both sides, over all pairs."""
    names = [name for name, _ in result["give_away"]["features"] if name != "kind"][:8]
    axes = figure.subplots(2, 4).ravel()
    for panel, name in zip(axes, names, strict=False):
        values: dict[str, list[Float64]] = {"real": [], "twin": []}
        for sample in evidence.twins:
            column = sample.features.values[:, sample.features.names.index(name)].astype(np.float64)
            for label, side in enumerate(values):
                values[side].append(column[(sample.label == label) & np.isfinite(column)])
        joined = {side: np.concatenate(parts) for side, parts in values.items()}
        everything = np.concatenate(list(joined.values()))
        if everything.size:
            low, high = np.percentile(everything, [0.5, 99.5])
            edges = np.linspace(low, high, 31)
            edges = edges if edges[-1] > edges[0] else np.linspace(edges[0] - 0.5, edges[0] + 0.5, 31)
            for side, sample_values in joined.items():
                panel.hist(sample_values, edges, histtype="step", color=_COLOURS[side], label=side, lw=1.3)
        panel.set_title(name, fontsize=9)
        panel.set_yticks([])
    axes[0].legend(fontsize=8)


def _counts(figure: Any, sides: Mapping[str, Sequence[SkyFacts]]) -> None:
    counts, ratio = figure.subplots(1, 2)
    middle = 0.5 * (COUNT_EDGES[:-1] + COUNT_EDGES[1:])
    tables = {side: count_densities(facts) for side, facts in sides.items()}
    for shift, (side, table) in enumerate(tables.items()):
        counts.plot(middle + 0.06 * shift, table.T, ".", color=_COLOURS[side], alpha=0.5, ms=4)
        counts.plot(middle, table.mean(axis=0), "o-", color=_COLOURS[side], ms=4, label=side)
    counts.set_yscale("log")
    counts.set_xlabel("magnitude in the reference band (AB)")
    counts.set_ylabel("sources per square degree and 0.5 mag")
    counts.legend(fontsize=9)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = {side: table.mean(axis=0) for side, table in tables.items()}
        number = {
            side: table.mean(axis=0) * sum(f.area for f in sides[side]) for side, table in tables.items()
        }
        value = means["twin"] / means["real"]
        error = value * np.sqrt(1 / number["twin"] + 1 / number["real"])
    good = np.isfinite(value) & np.isfinite(error)
    ratio.axhspan(0.85, 1.15, color="tab:green", alpha=0.15, label="tolerance")
    ratio.errorbar(
        middle[good], value[good], error[good], fmt="o", ms=4, color="black", label="twin / real, Poisson"
    )
    ratio.set_xlabel("magnitude in the reference band (AB)")
    ratio.set_ylim(0, 2.5)
    ratio.legend(fontsize=9)


def _locus(figure: Any, sides: Mapping[str, Sequence[SkyFacts]]) -> None:
    colours = list(sides["real"][0].colours)
    pairs = list(pairwise(colours))[:3]
    axes = np.atleast_1d(figure.subplots(1, len(pairs)))
    for panel, (x, y) in zip(axes, pairs, strict=True):
        for side, facts in sides.items():
            star = [(f.kind == KINDS.index("star")) & (f.magnitude < 20) for f in facts]
            points = [
                np.concatenate([f.colours[name][rows] for f, rows in zip(facts, star, strict=True)])
                for name in (x, y)
            ]
            panel.plot(*points, ".", ms=4, alpha=0.6, color=_COLOURS[side], label=side)
        panel.set_xlabel(x)
        panel.set_ylabel(y)
        panel.grid(alpha=0.3)
    axes[0].legend(fontsize=9)


def _sizes(figure: Any, sides: Mapping[str, Sequence[SkyFacts]]) -> None:
    axes, colours = figure.subplots(1, 2)
    middle = 0.5 * (COUNT_EDGES[:-1] + COUNT_EDGES[1:])
    for side, facts in sides.items():
        galaxy = [f.kind == KINDS.index("galaxy") for f in facts]
        magnitude = np.concatenate([f.magnitude[g] for f, g in zip(facts, galaxy, strict=True)])
        radius = np.concatenate([f.half_light_radius[g] for f, g in zip(facts, galaxy, strict=True)])
        axes.plot(magnitude, radius, ".", ms=3, alpha=0.4, color=_COLOURS[side])
        bins = np.digitize(magnitude, COUNT_EDGES) - 1
        with_enough = [j for j in range(middle.size) if np.isfinite(radius[bins == j]).sum() >= 5]
        medians = [np.nanmedian(radius[bins == j]) for j in with_enough]
        axes.plot(middle[with_enough], medians, "o-", ms=4, color=_COLOURS[side], label=side)
        name = list(facts[0].colours)[min(1, len(facts[0].colours) - 1)] if facts[0].colours else ""
        if name:
            values = np.concatenate([f.colours[name][g] for f, g in zip(facts, galaxy, strict=True)])
            colours.hist(
                values[np.isfinite(values)], 30, histtype="step", density=True, color=_COLOURS[side], lw=1.3
            )
            colours.set_xlabel(f"{name} of galaxies")
    axes.set_yscale("log")
    axes.set_xlabel("magnitude in the reference band (AB)")
    axes.set_ylabel("half-light radius of galaxies, as seen (arcsec)")
    axes.legend(fontsize=9)
    colours.set_yticks([])
