"""The augmenter: how real generated galaxies and sky are, and whether they help to train.

``--parts`` names what is measured; results of parts measured before are kept beside it. ``--folder`` keeps stamps, samples
and the detector's results from run to run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from augmentation_detector import detector
from augmentation_quality import galaxies, skies
from augmentation_spirals import spirals
from augmentation_use import LABELS, SEEDS, classes, morphology, verdicts
from common import Kept, arguments, newest, print_header, save, scratch, write_metrics

PARTS = ("galaxies", "sky", "morphology", "spirals", "classes", "detector")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, help="that keeps stamps and samples")
    parser.add_argument("--steps", type=int, default=1800, help="of a short training of the detector")
    parser.add_argument("--figures", action="store_true", help="draw the figures of the documentation, too")
    parser.add_argument("--samples", type=int, default=96, help="that it learns from")


def main() -> None:
    """Measure."""
    options = arguments(str(__doc__), _options)
    quick = options.quick
    seeds, labels = (1, LABELS[:1]) if quick else (SEEDS, LABELS)
    result: dict[str, Any] = print_header("augmentation")
    with scratch() as place:
        folder = options.folder or place
        measure = {
            "galaxies": lambda: galaxies(folder, quick=quick),
            "sky": lambda: skies(folder, quick=quick),
            "morphology": lambda: morphology(seeds, labels, 300 if quick else 2000),
            "spirals": lambda: spirals(seeds, labels),
            "classes": lambda: classes(folder, seeds, labels, os.cpu_count() or 1),
            "detector": lambda: detector(
                place,
                Kept(options.folder and options.folder / "detector.json"),
                seeds,
                10 if quick else options.steps,
                4 if quick else options.samples,
                quick=quick,
            ),
        }
        for part in options.parts.split(","):
            print(f"\n{part}", flush=True)
            result[part] = measure[part]()
            whole = _kept(quick) | result
            own = [v for p in ("galaxies", "sky") for v in whole.get(p, {}).get("verdicts", [])]
            save("augmentation", whole | {"verdicts": own + verdicts(whole)}, quick=quick)
            if not quick:
                write_cards(whole)
        if options.figures:
            from augmentation_figures import draw

            draw(folder, _kept(quick))


def write_cards(found: dict[str, Any]) -> None:
    """Put the numbers into the cards of the weights, in place of earlier ones."""
    pages: dict[str, dict[str, float]] = {}
    for part, names in (
        ("sdss test", {"gan": "light_sdss", "vae": "light_sdss_vae"}),
        ("csst", {"vae": "light_csst", "gan": "light_csst_gan"}),
    ):
        for method, name in names.items():
            row = found.get("galaxies", {}).get(part, {}).get(method)
            if row:
                ratios = {f"ratio of distances, {k}": v for k, v in row["ratios"].items()}
                others = {
                    k: row[k]
                    for k in (
                        "mean_ratio",
                        "area",
                        "precision",
                        "recall",
                        "nearest_over_real",
                        "closest_over_real",
                        "flux",
                    )
                    if k in row
                }
                pages[name] = ratios | others
    if "sky" in found:
        own = found["sky"]["gan"]
        pages["sky_sdss"] = {k: v for k, v in own.items() if isinstance(v, float)}
    for name, values in pages.items():
        write_metrics(name, values)


def _kept(quick: bool) -> dict[str, Any]:
    """Results of parts that an earlier run of the same kind measured."""
    return {k: v for k, v in newest("augmentation", quick=quick).items() if k in PARTS}


if __name__ == "__main__":
    main()
