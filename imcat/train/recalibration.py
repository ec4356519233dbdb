"""A trained classifier calibrated anew, without training: on the tiles and rows that its recipe sets apart for that."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save

from imcat.classify.calibration import Calibration
from imcat.classify.trained import FORMAT, from_arrays
from imcat.errors import InputError, UsageError
from imcat.registry import weights_folder
from imcat.stamps import StampSettings
from imcat.train.card_text import write_with_card
from imcat.train.classification_card import calibrate, standing_text
from imcat.train.classification_data import LabelledSet, simulated_sets
from imcat.train.looks import refit_looks
from imcat.train.source_samples import SampleSettings, build_samples, read_sample
from imcat.train.source_training import real_tables

__all__ = ["recalibrate"]


def recalibrate(
    name: str,
    samples: Path,
    *,
    weights: Path | None = None,
    workers: int = 1,
    survey: str = "",
    shapes: int = 0,
    looks: bool = False,
) -> Path:
    """Fit temperatures, sets, levels, distances and what belongs to morphology again, and write weights and card in place of the old ones.

    The few tiles that judged the training, which it calibrates with besides, take no part here.

    Parameters
    ----------
    name : str
        Of the weights.
    samples : path
        Folder of simulated samples; those of the card's role ``calibration`` that are missing are simulated.
    weights : path, optional
        Folder of the weights; default: those that come with imcat.
    workers : int
        Processes that simulate.
    survey : str
        ``sdss`` or ``csst``: only what is fitted to simulated tiles of this survey; the rest stays, that of real tables and the
        measure of distances too. Empty: all.
    shapes : int
        Fit only what belongs to morphology, with so many tiles of each survey: it takes fewer than sets do. The card keeps the number.
        0: everything, with all tiles.
    looks : bool
        Fit the layer that tells morphologies first, on the card's samples of the role ``training`` (`imcat.train.looks`);
        metrics of the layer before leave the card.

    Returns
    -------
    path
        Of the card.

    Raises
    ------
    InputError
        If the card names no samples to calibrate with.
    UsageError
        If `shapes` is negative.
    """
    folder = weights or weights_folder()
    card: dict[str, Any] = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    arrays = load((folder / f"{name}.safetensors").read_bytes())
    blank = {f"calibration.{k}": v for k, v in Calibration.none(1).arrays().items()}
    kept = {k: v for k, v in arrays.items() if not k.startswith("calibration.")}
    trained = from_arrays(arrays if survey or shapes else kept | blank, card)
    settings = [SampleSettings(**s) for s in card["samples"] if s.get("role") == "calibration"]
    if shapes < 0:
        raise UsageError(f"shapes is {shapes}; expected a number of tiles, or 0 for a whole calibration")
    settings = [
        replace(s, tiles=min(shapes, s.tiles) if shapes else s.tiles)
        for s in settings
        if survey in ("", s.survey)
    ]
    paths = [
        p for s in settings for p in build_samples(samples, s, StampSettings(size=trained.size), workers)
    ]
    if not paths:
        raise InputError(
            f"the card names no samples of the role calibration{' of ' + survey if survey else ''}",
            path=str(folder / f"{name}.toml"),
            expected="weights of a recipe that has some, as weights/recipes/classifier_fits.toml",
        )
    if looks:
        refit_looks(trained.network, _training(samples, card, trained.size, workers))
    sets = simulated_sets([read_sample(p) for p in paths])
    if survey or shapes:
        calibration = calibrate(trained.network, sets, [], trained.calibration, shapes=bool(shapes))
    else:
        calibration = calibrate(trained.network, sets, real_tables(card["tables"])[1])
    data = save(replace(trained, calibration=calibration).arrays())
    values = {k: v for k, v in card.items() if k not in ("format", "sha256")}
    values |= standing_text(card["recipe"].get("drawn", 0))
    if looks and "metrics" in values:  # what was judged with the layer before
        values["metrics"] = {k: v for k, v in values["metrics"].items() if not k.endswith("_morphology")}
    if shapes:
        values["shapes"] = values.get("shapes", {}) | {s.survey: s.tiles for s in settings}
    else:
        values["shapes"] = {k: n for k, n in values.get("shapes", {}).items() if survey not in ("", k)}
    if not values["shapes"]:
        del values["shapes"]
    return write_with_card(folder, name, data, FORMAT, values)


def _training(samples: Path, card: dict[str, Any], size: int, workers: int) -> list[LabelledSet]:
    """Sources of the tiles that the heads learned from; those that are missing are simulated."""
    settings = [SampleSettings(**s) for s in card["samples"] if s.get("role", "training") == "training"]
    paths = [p for s in settings for p in build_samples(samples, s, StampSettings(size=size), workers)]
    return simulated_sets([read_sample(p) for p in paths])


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "samples", type=Path, help="folder of simulated samples; what is missing is simulated"
    )
    parser.add_argument("--name", default="classifier", help="of the weights")
    parser.add_argument("--weights", type=Path, help="their folder; default: those that come with imcat")
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate")
    parser.add_argument(
        "--survey", default="", choices=("sdss", "csst"), help="only what its tiles calibrate"
    )
    parser.add_argument(
        "--shapes",
        type=int,
        default=0,
        metavar="N",
        help="only what belongs to morphology, with N tiles of each survey",
    )
    parser.add_argument("--looks", action="store_true", help="fit the layer that tells morphologies first")
    given = parser.parse_args()
    options = {k: v for k, v in vars(given).items() if k not in ("name", "samples")}
    print(recalibrate(given.name, given.samples, **options))


if __name__ == "__main__":
    _main()
