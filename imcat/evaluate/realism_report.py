"""The realism report in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imcat.evaluate.cutouts import EXTRA_NOISE, KINDS, SIZE
from imcat.evaluate.folder import markdown_number as _number
from imcat.evaluate.folder import markdown_table as _table
from imcat.evaluate.sky_statistics import Comparison
from imcat.evaluate.two_sample import Outcome

__all__ = ["realism_markdown", "realism_summary"]

_HEADINGS = {
    "counts": ("Number counts", "sources per square degree", 0),
    "noise": ("Blank-sky noise", "nJy", 2),
    "psf": ("PSF of star-like sources", "median; the difference is the overlap of the distributions", 3),
    "ridge": ("Stellar locus: ridge", "mag; the difference is the mean distance", 3),
    "locus width": ("Stellar locus: width", "mag", 3),
    "colour": ("Colours of galaxies", "median, mag", 3),
    "size": ("Half-light radius of galaxies", "median, arcsec", 3),
}


def realism_summary(result: Mapping[str, Any]) -> list[str]:
    """A few lines for the terminal.

    Parameters
    ----------
    result : mapping
        What `imcat.evaluate.realism.evaluate_realism` returned.
    """
    lines = []
    for name, outcome in result["test"].items():
        areas = ", ".join(
            f"{kind} {value:.2f}" for kind, value in outcome["auc"].items() if value is not None
        )
        lines.append(f"AUC of {name}: {areas}")
    verdicts = result["verdicts"]
    if not verdicts["controls_passed"]:
        lines.append(f"the test is blind: {'; '.join(verdicts['controls_failed'])}")
    told = "as asked" if verdicts["overall_passed"] else "more than asked"
    lines.append(
        f"largest AUC overall is {told} ({result['largest_auc']:.2f}); both controls are in the report"
    )
    states = [row["verdict"] for row in result["statistics"]]
    lines.append(
        f"statistics: {states.count('PASS')} pass, {states.count('FAIL')} fail, {states.count('OPEN')} open"
    )
    return lines


def realism_markdown(result: Mapping[str, Any], figures: Sequence[str]) -> str:
    """The text of report.md.

    Parameters
    ----------
    result : mapping
        What `imcat.evaluate.realism.judge_realism` returned.
    figures : sequence of str
        Names of the figure files.
    """
    verdicts = result["verdicts"]
    lines = [
        "# Realism",
        "",
        f"Twins of {', '.join(result['tiles'])} against the real tiles, bands {', '.join(result['bands'])}.",
        "",
    ]
    if not verdicts["controls_passed"]:
        lines += [f"**The test is blind**: {'; '.join(verdicts['controls_failed'])}.", ""]
    limit = result["largest_auc"]
    for name, largest in verdicts["largest_auc"].items():
        overall = result["test"][name].auc["all"]
        verdict = "PASS" if overall <= limit else "FAIL"
        lines.append(
            f"- {name}: AUC {overall:.3f} overall ({verdict}, at most {limit:.2f} is asked), {largest:.3f} at most."
        )
    lines += [*_statistics_summary(result["statistics"]), *(f"- {note}" for note in result["notes"])]
    lines += _test_lines(result)
    lines += _give_away_lines(result["give_away"])
    lines += _statistics_lines(result)
    seconds = result["seconds"]
    lines += ["", f"Tiles took {seconds['tiles']:.0f} s, classifiers {seconds['classifiers']:.0f} s."]
    if figures:
        lines += ["", "## Figures", "", *(f"![{name.removesuffix('.png')}]({name})" for name in figures)]
    return "\n".join(lines) + "\n"


def _statistics_summary(rows: Sequence[Comparison]) -> list[str]:
    parts = []
    for quantity, (heading, _, _) in _HEADINGS.items():
        states = [row.verdict for row in rows if row.quantity == quantity]
        if states:
            parts.append(
                f"{heading if heading.startswith('PSF') else heading[0].lower() + heading[1:]} {states.count('PASS')}/{len(states)}"
            )
    return [f"- Within tolerance: {', '.join(parts)}."]


def _test_lines(result: Mapping[str, Any]) -> list[str]:
    lines = [
        "",
        "## Told apart?",
        "",
        f"{SIZE} × {SIZE} cutouts in {len(result['bands'])} bands; both sides got white noise of {EXTRA_NOISE:g} of "
        f"their rms first. Split: {result['split']}. Areas under the curve, mean over the tests: 0.5 is not told "
        "apart, 1 always. Profiles are seen relative to the median star of both sides of the pair.",
        "",
    ]
    header = ["classifier", "overall", *KINDS, "each test (overall)"]
    lines += _table(header, [_outcome_row(name, outcome) for name, outcome in result["test"].items()])
    lines += ["", "Cutouts of each side: " + "; ".join(
        f"{tile}: " + ", ".join(f"{n} {kind}" for kind, n in numbers.items())
        for tile, numbers in zip(result["tiles"], result["cutouts"], strict=True)
    ) + "."]  # fmt: skip
    lines += [
        "",
        "Controls: a mirrored real tile must not be told from the real one (0.44 to 0.56 overall); stars of a real "
        "tile with a PSF 25 % wider and noise as before must be (at least 0.90). A PSF 5 % wider shows how fine "
        "the test sees.",
        "",
    ]
    rows = [
        _outcome_row(f"{control}: {name}", outcome)
        for control, outcomes in result["controls"].items()
        for name, outcome in outcomes.items()
    ]
    return lines + _table(header, rows)


def _outcome_row(name: str, outcome: Outcome) -> list[str]:
    cells = [
        f"{_number(outcome.auc[kind], 3)} ± {_number(outcome.error[kind], 3)}" for kind in ("all", *KINDS)
    ]
    cells = [cell.replace("– ± –", "–") for cell in cells]
    return [name, *cells, ", ".join(_number(value, 2) for value in outcome.folds["all"])]


def _give_away_lines(ranked: Mapping[str, Sequence[tuple[str, float]]]) -> list[str]:
    lines = [
        "",
        "## What gives the simulation away",
        "",
        "Area that the trees lose when a family of features, or one of them, is shuffled among the cutouts of a "
        "kind (features that say the same stand in for one another, families do less).",
        "",
    ]
    for title in ("families", "features"):
        rows = [[name, f"{loss:.3f}"] for name, loss in ranked[title]]
        lines += [*_table([title, "loss in AUC"], rows), ""]
    return lines[:-1]


def _statistics_lines(result: Mapping[str, Any]) -> list[str]:
    lines = [
        "",
        "## Statistics of the sky",
        "",
        "PASS: within the tolerance; FAIL: beyond it; OPEN: beyond it by less than two standard errors.",
    ]
    for quantity, (heading, unit, digits) in _HEADINGS.items():
        rows = [row for row in result["statistics"] if row.quantity == quantity]
        if not rows:
            continue
        lines += ["", f"### {heading} ({unit})", ""]
        if quantity == "counts":
            scatter = result["field_scatter"]
            lines += [
                f"Scatter between fields beyond Poisson noise: real {_number(scatter['real'], 3)}, "
                f"twins {_number(scatter['twin'], 3)} of the mean.",
                "",
            ]
        header = [
            "",
            "real",
            "twin",
            "overlap" if quantity == "psf" else "difference",
            "tolerance",
            "verdict",
        ]
        lines += _table(
            header,
            [
                [
                    row.name,
                    _number(row.real, digits),
                    _number(row.twin, digits),
                    f"{_number(row.difference, 3)} ± {_number(row.error, 3)}".replace(" ± –", ""),
                    f"{'≥ ' if quantity == 'psf' else ''}{row.tolerance:g}",
                    row.verdict,
                ]
                for row in rows
            ],
        )
    return lines
