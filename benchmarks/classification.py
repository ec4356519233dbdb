"""The classifier: real tables, simulated tiles, the independent simulator, few labels, lenses, speed, with baselines.

``--parts`` names what is measured; results of parts measured before are kept beside it. With ``--survey`` the parts that judge
a calibration do so on tiles of one survey.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classification_csst import csst_redshifts
from classification_labels import few_labels, star_galaxy_stamps
from classification_lenses import lens_search
from classification_magnitudes import magnitudes
from classification_real import independent, star_galaxy_field
from classification_shapes import attributions, morphology, unlike
from classification_simulated import (
    calibration,
    classes,
    like_training,
    of_training,
    rotations,
    survey_set,
)
from classification_speed import speed
from classification_tables import real_tables
from common import arguments, newest, print_header, save, scratch, write_metrics

from imcat.classify.trained import load_classifier
from imcat.stamps import StampSettings
from imcat.train.classification_data import simulated_sets
from imcat.train.source_samples import SampleSettings, build_samples, read_sample

PARTS = (
    "tables",
    "field",
    "classes",
    "calibration",
    "magnitudes",
    "csst",
    "morphology",
    "unlike",
    "attributions",
    "independent",
    "labels",
    "stamps",
    "lenses",
    "speed",
)
_OF_SURVEYS = ("calibration", "magnitudes")
_LOOKS = {"sdss": 6, "csst": 58}  # tiles whose galaxies' looks are judged
_DIGITS = 12  # of the checksum of the weights
_TEST = {"sdss": 908, "csst": 909}
_TILES = {"sdss": 48, "csst": 58}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--samples", type=Path, help="folder that keeps simulated samples from run to run")
    parser.add_argument(
        "--survey",
        choices=tuple(_TILES),
        help="of calibration and magnitudes; what is kept of the other stays",
    )
    parser.add_argument("--images", type=int, help="of lenses and look-alikes, a tenth of them CSST-like")


def main() -> None:
    """Measure."""
    options = arguments(str(__doc__), _options)
    quick = options.quick
    parts = (options.parts or ",".join(_OF_SURVEYS if options.survey else PARTS)).split(",")
    result: dict[str, Any] = print_header("classification")
    trained = load_classifier()
    sha = trained.card["sha256"][:_DIGITS]
    with scratch() as folder:
        samples = options.samples or folder / "samples"
        few = 1 if quick else 0
        images = options.images or (3000 if quick else 100_000)

        def training(survey: str) -> Any:
            return of_training(trained, samples, survey, few)

        def test(survey: str) -> Any:
            return like_training(samples, survey, few or _TILES[survey], _TEST[survey])

        def one_tile() -> Any:
            settings = SampleSettings(tiles=1, seed=_TEST["sdss"])
            return read_sample(next(iter(build_samples(samples, settings, StampSettings()))))

        def looks(survey: str) -> dict[str, Any]:
            own = like_training(samples, survey, few or _LOOKS[survey], _TEST[survey])
            return morphology(trained, own, training(survey), survey)

        def of_surveys(part: str, judge: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            before = _kept(quick).get(part, {}) if options.survey else {}
            found = {
                k: v if "weights" in v else v | {"weights": before["weights"]}
                for k, v in before.items()
                if isinstance(v, dict)
            }
            for survey in (options.survey,) if options.survey else _TILES:
                found[survey] = judge(trained, test(survey), survey) | {"weights": sha}
            return found

        def judged() -> dict[str, Any]:
            turns = {} if options.survey == "csst" else {"rotations": rotations(trained, test("sdss"))}
            return of_surveys("calibration", calibration) | turns

        measure = {
            "tables": lambda: real_tables(trained),
            "field": star_galaxy_field,
            "classes": lambda: classes(trained, survey_set(samples, few or 14), training("sdss")),
            "calibration": judged,
            "magnitudes": lambda: of_surveys("magnitudes", magnitudes),
            "csst": lambda: csst_redshifts(trained, test("csst"), training("csst")),
            "morphology": lambda: {survey: looks(survey) for survey in _LOOKS},
            "unlike": lambda: unlike(trained, one_tile(), simulated_sets([one_tile()])[0]),
            "attributions": lambda: attributions(trained, one_tile()),
            "independent": lambda: independent(folder),
            "labels": lambda: few_labels(
                training("sdss"),  # 3000 galaxies that show a morphology
                like_training(samples, "sdss", few or 3, _TEST["sdss"]),
                options.samples,
                quick=quick,
            ),
            "stamps": lambda: star_galaxy_stamps(options.samples, quick=quick),
            "lenses": lambda: lens_search({"sdss": 9 * images // 10, "csst": images // 10}, options.samples),
            "speed": lambda: speed(trained, samples),
        }
        for part in parts:
            print(f"\n{part}", flush=True)
            result[part] = {**measure[part](), "weights": sha}
            # Part by part, so that one that is stopped costs no other.
            whole = _kept(quick) | result
            verdicts = [v for p in PARTS if p in whole for v in _verdicts(whole[p])]
            save("classification", whole | {"verdicts": verdicts}, quick=quick)
            if part == "labels" and not quick:
                write_metrics("backbone", _of_the_backbone(whole["labels"]))
        _tell_others(whole, sha)


def _tell_others(whole: dict[str, Any], weights: str) -> None:
    """Say which of the kept results are of other weights than these."""
    parts = {p: whole[p] for p in PARTS if p in whole}
    for part in _OF_SURVEYS:
        parts |= {
            f"{part} ({k})": v
            for k, v in whole.get(part, {}).items()
            if isinstance(v, dict) and "weights" in v
        }
    others = [p for p, v in parts.items() if v.get("weights") != weights]
    if others:
        print(f"\nkept from runs with other weights than {weights}: {', '.join(others)}")


def _verdicts(part: Any) -> list[dict[str, Any]]:
    """Numbers beside their targets, of a part and of the parts in it."""
    if not isinstance(part, dict):
        return []
    own = list(part.get("verdicts", []))
    return own + [v for key, inner in part.items() if key != "verdicts" for v in _verdicts(inner)]


def _of_the_backbone(labels: dict[str, Any]) -> dict[str, float]:
    """Mean accuracies of the classes from few labels, for its card."""
    return {
        f"{task}, {number} labels, {start}": row["mean"]
        for task, numbers in labels.items() if isinstance(numbers, dict)
        for number, starts in numbers.items() if number.isdigit()
        for start, row in starts.items()
    }  # fmt: skip


def _kept(quick: bool) -> dict[str, Any]:
    """Results of parts that an earlier run of the same kind measured."""
    return {k: v for k, v in newest("classification", quick=quick).items() if k in PARTS}


if __name__ == "__main__":
    main()
