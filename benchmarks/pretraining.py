"""Which pre-training is worth more: masked autoencoding or masked tokens, on the same tiles, for the same steps.

Both backbones are trained (weights/recipes/compare_mae.toml, compare_beit.toml) where ``--backbones`` does not hold them. Then a
linear classifier learns from their vectors as they are, and all of the network from few labels: simulated morphology, and real
galaxies that people called spiral or not. Tiles and objects that judge were seen by no backbone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification_labels import (
    REAL as NUMBERS,
)
from classification_labels import (
    SEEDS,
    Task,
    drawn,
    efficiency,
    morphology_task,
    spiral_task,
)
from common import Kept, arguments, print_header, save, scratch, verdict
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from imcat.backbones.files import load_backbone
from imcat.stamps import StampSettings
from imcat.train.classification_data import simulated_sets
from imcat.train.fine_tuning import Labelled
from imcat.train.recipes import run_recipe
from imcat.train.source_samples import SampleSettings, build_samples, read_sample

METHODS = ("mae", "beit")
RECIPES = Path(__file__).resolve().parents[1] / "weights" / "recipes"
TEST = 908  # seed of tiles that no training saw
TESTS = 2  # that judge
LABELS = (
    71,
    10,
)  # seed and number of the tiles whose labels are learned from: the first are those of the recipes
TUNED = (300,)  # labels with which all of the network is trained
PENALTY = 1.0  # inverse weight of the penalty of the linear classifier


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbones", type=Path, help="folder that keeps backbones and samples from run to run"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")


def _tiles(folder: Path, seed: int, number: int, workers: int) -> Any:
    settings = SampleSettings(tiles=number, seed=seed)
    paths = list(build_samples(folder, settings, StampSettings(), workers))
    return simulated_sets([read_sample(p) for p in paths])[0]


@torch.no_grad()
def _seen(network: Any, rows: Labelled) -> NDArray[np.float32]:
    """Vectors of a backbone as it is."""
    assert isinstance(rows.given, tuple)
    pieces = np.array_split(np.arange(len(rows)), max(1, len(rows) // 256))
    return np.concatenate([network(*(t[p] for t in rows.given)).numpy() for p in pieces])


def frozen(task: Task, numbers: Sequence[int], folders: dict[str, str], seeds: int) -> dict[str, Any]:
    """Balanced accuracy of a linear classifier on the vectors of each backbone, which stays as it is."""
    label, judged = task.rows.label.numpy(), task.test.label.numpy()
    vectors = {}
    for name, where in folders.items():
        network = load_backbone(f"compare_{name}", where)
        vectors[name] = _seen(network, task.rows), _seen(network, task.test)
    found: dict[str, Any] = {}
    for number in numbers:
        row: dict[str, list[float]] = {name: [] for name in folders}
        for seed in range(seeds):
            rows = drawn(label, number, seed)
            for name, (known, asked) in vectors.items():
                model = make_pipeline(
                    StandardScaler(), LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=2000)
                )
                said = model.fit(known[rows], label[rows]).predict(asked)
                row[name].append(float(balanced_accuracy_score(judged, said)))
        found[str(number)] = _row(f"{task.name}, frozen, {number} labels", row)
    return found


def tuned(
    task: Task, numbers: Sequence[int], folders: dict[str, str], seeds: int, kept: Kept
) -> dict[str, Any]:
    """Balanced accuracy after all of the backbone is trained on few labels."""
    torch.set_num_threads(1)
    starts: dict[str, Any] = {
        name: load_backbone(f"compare_{name}", where) for name, where in folders.items()
    }
    found: dict[str, Any] = {}
    told = efficiency(task, numbers, starts, seeds, kept=kept) if numbers else {}
    for number in numbers:
        row = {name: told[str(number)][name]["each"] for name in starts}
        found[str(number)] = _row(f"{task.name}, fine-tuned, {number} labels", row)
    return found


def _row(title: str, row: dict[str, list[float]]) -> dict[str, Any]:
    """Means and spreads by start, and their paired difference with its error."""
    out: dict[str, Any] = {
        name: {
            "mean": float(np.mean(v)),
            "spread": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0,
            "each": v,
        }
        for name, v in row.items()
    }
    apart = 100 * (np.array(row["mae"]) - np.array(row["beit"]))
    error = float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else 0.0
    out["mae minus beit, points"] = {"mean": float(apart.mean()), "error": error}
    print(
        f"   {title:44} "
        + "   ".join(f"{name} {np.mean(v):.4f} ± {np.std(v):.4f}" for name, v in row.items())
        + f"   mae - beit {apart.mean():+.2f} ± {error:.2f} points",
        flush=True,
    )
    return out


def main() -> None:
    """Measure."""
    options = arguments(str(__doc__), _options)
    quick, seeds = options.quick, 1 if options.quick else SEEDS
    result: dict[str, Any] = print_header("pretraining")
    with scratch() as place:
        base = options.backbones or place
        folders = {}
        for method in METHODS:
            folder = base / f"compare_{method}"
            if not (folder / f"compare_{method}.toml").is_file():
                run_recipe(RECIPES / f"compare_{method}.toml", folder, smoke=quick, workers=options.workers)
            folders[method] = str(folder)
        kept, verdicts = Kept(options.backbones and base / "tuned.json"), []
        for task, numbers in _tasks(base / "sources", options.workers, quick=quick):
            some = numbers[:1] if quick else numbers
            own = {
                "frozen": frozen(task, some, folders, seeds),
                "fine-tuned": tuned(task, some[:1] if quick else TUNED, folders, seeds, kept),
            }
            result[task.name] = {"test": len(task.test)} | own
            for way, rows in own.items():
                mean = float(np.mean([v["mae minus beit, points"]["mean"] for v in rows.values()]))
                what = f"{task.name}, {way}: mae minus beit, mean over numbers of labels, points"
                verdicts.append(verdict(what, mean, "> 0", mean > 0))
        save("pretraining", result | {"verdicts": verdicts}, quick=quick)


def _tasks(sources: Path, workers: int, *, quick: bool) -> Iterator[tuple[Task, tuple[int, ...]]]:
    training = _tiles(sources, LABELS[0], 1 if quick else LABELS[1], workers)
    test = _tiles(sources, TEST, 1 if quick else TESTS, workers)
    yield morphology_task(training, test), NUMBERS
    yield spiral_task(StampSettings().size), NUMBERS


if __name__ == "__main__":
    main()
