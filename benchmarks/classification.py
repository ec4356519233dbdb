"""The classifier: real tables, simulated tiles, the independent simulator, few labels, lenses, speed, with baselines.

``--parts`` names what is measured; results of parts measured before are kept beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from classification_labels import few_labels, star_galaxy_stamps
from classification_lenses import lens_search
from classification_magnitudes import magnitudes
from classification_real import independent, star_galaxy_field
from classification_simulated import (
    calibration,
    classes,
    classification_speed,
    csst_redshifts,
    like_training,
    of_training,
    rotations,
    survey_set,
)
from classification_tables import real_tables
from common import arguments, newest, print_header, save, scratch, verdict, write_metrics

from imcat.classify.trained import load_classifier

PARTS = (
    "tables",
    "field",
    "classes",
    "calibration",
    "magnitudes",
    "csst",
    "independent",
    "labels",
    "stamps",
    "lenses",
    "speed",
)
_DIGITS = 12  # of the checksum of the weights
_TEST = {"sdss": 908, "csst": 909}
_TILES = {"sdss": 48, "csst": 15}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--samples", type=Path, help="folder that keeps simulated samples from run to run")
    parser.add_argument("--images", type=int, help="of lenses and look-alikes, a tenth of them CSST-like")


def main() -> None:
    """Measure."""
    options = arguments(str(__doc__), _options)
    quick = options.quick
    parts = options.parts.split(",")
    result: dict[str, Any] = print_header("classification")
    trained = load_classifier()
    with scratch() as folder:
        samples = options.samples or folder / "samples"
        few = 1 if quick else 0
        images = options.images or (3000 if quick else 100_000)

        def training(survey: str) -> Any:
            return of_training(trained, samples, survey, few)

        def test(survey: str) -> Any:
            return like_training(samples, survey, few or _TILES[survey], _TEST[survey])

        measure = {
            "tables": lambda: real_tables(trained),
            "field": star_galaxy_field,
            "classes": lambda: classes(trained, survey_set(samples, few or 14), training("sdss")),
            "calibration": lambda: {
                "sdss": calibration(trained, test("sdss"), "sdss"),
                "csst": calibration(trained, test("csst"), "csst"),
                "rotations": rotations(trained, test("sdss")),
            },
            "magnitudes": lambda: magnitudes(trained, test("sdss"), test("csst")),
            "csst": lambda: csst_redshifts(trained, test("csst"), training("csst")),
            "independent": lambda: independent(folder),
            "labels": lambda: few_labels(
                training("sdss"),  # 3000 galaxies that show a morphology
                like_training(samples, "sdss", few or 3, _TEST["sdss"]),
                options.samples,
                quick=quick,
            ),
            "stamps": lambda: star_galaxy_stamps(options.samples, quick=quick),
            "lenses": lambda: lens_search({"sdss": 9 * images // 10, "csst": images // 10}, options.samples),
            "speed": lambda: _speed(classification_speed(trained, samples)),
        }
        for part in parts:
            print(f"\n{part}", flush=True)
            result[part] = {**measure[part](), "weights": trained.card["sha256"][:_DIGITS]}
            # Part by part, so that one that is stopped costs no other.
            whole = _kept(quick) | result
            verdicts = [v for p in PARTS if p in whole for v in _verdicts(whole[p])]
            save("classification", whole | {"verdicts": verdicts}, quick=quick)
            if part == "labels" and not quick:
                write_metrics("backbone", _of_the_backbone(whole["labels"]))
        _tell_others(whole, trained.card["sha256"][:_DIGITS])


def _tell_others(whole: dict[str, Any], weights: str) -> None:
    """Say which of the kept results are of other weights than these."""
    others = [p for p in PARTS if p in whole and whole[p].get("weights") != weights]
    if others:
        print(f"\nkept from runs with other weights than {weights}: {', '.join(others)}")


def _verdicts(part: Any) -> list[dict[str, Any]]:
    """Numbers beside their targets, of a part and of the parts in it."""
    if not isinstance(part, dict):
        return []
    own = list(part.get("verdicts", []))
    return own + [v for key, inner in part.items() if key != "verdicts" for v in _verdicts(inner)]


def _speed(rate: dict[str, float]) -> dict[str, Any]:
    print(
        f"   {rate['per_second']:.0f} sources with stamps in five bands a second through backbone and heads "
        f"({rate['backbone']:.0f} through the backbone), {rate['photometry']:.0f} by photometry alone"
    )
    reached = rate["per_second"] >= 2000
    return {
        **rate,
        "verdicts": [verdict("sources a second on all cores", rate["per_second"], ">= 2000", reached)],
    }


def _of_the_backbone(labels: dict[str, Any]) -> dict[str, float]:
    """Mean accuracies of the classes from few labels, for its card."""
    return {
        f"{task}, {number} labels, {start}": row["mean"]
        for task, numbers in labels.items() if isinstance(numbers, dict)
        for number, starts in numbers.items() if number != "test"
        for start, row in starts.items()
    }  # fmt: skip


def _kept(quick: bool) -> dict[str, Any]:
    """Results of parts that an earlier run of the same kind measured."""
    return {k: v for k, v in newest("classification", quick=quick).items() if k in PARTS}


if __name__ == "__main__":
    main()
