"""Which pre-training is worth more: masked autoencoding or masked tokens, on the same tiles, for the same steps.

Both backbones are trained (weights/recipes/compare_mae.toml, compare_beit.toml) where ``--backbones`` does not hold them, then
fine-tuned on few labels of simulated morphology, and of real galaxies that people called spiral or not, beside the same
network from nothing. Labels are those of tiles and objects that no backbone saw.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification_labels import (
    REAL,
    SEEDS,
    SIMULATED,
    Task,
    efficiency,
    morphology_task,
    spiral_task,
)
from common import arguments, print_header, save, scratch, verdict

from imcat.backbones.files import load_backbone
from imcat.processes import follow_parent
from imcat.stamps import StampSettings
from imcat.train.classification_data import simulated_sets
from imcat.train.recipes import run_recipe
from imcat.train.source_samples import SampleSettings, build_samples, read_sample

METHODS = ("mae", "beit")
RECIPES = Path(__file__).resolve().parents[1] / "weights" / "recipes"
TEST = 908  # seed of tiles that no training saw
LABELS = (71, 4)  # seed and number of the tiles whose labels are learned from


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbones", type=Path, help="folder that keeps backbones and samples from run to run"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--tasks", default="simulated,real", help="simulated, real, or both")
    parser.add_argument("--tiles", type=int, default=2, help="that judge")


def _tiles(folder: Path, seed: int, number: int, workers: int) -> Any:
    settings = SampleSettings(tiles=number, seed=seed)
    paths = list(build_samples(folder, settings, StampSettings(), workers))
    return simulated_sets([read_sample(p) for p in paths])[0]


def _one(job: tuple[Task, int, dict[str, str], int]) -> dict[str, Any]:
    """One number of labels with one seed."""
    task, number, folders, seed = job
    torch.set_num_threads(1)
    starts: dict[str, Any] = {
        name: load_backbone(f"compare_{name}", where) for name, where in folders.items()
    }
    return efficiency(task, (number,), starts | {"from nothing": None}, 1, first=seed)


def compare(
    task: Task, numbers: tuple[int, ...], folders: dict[str, str], seeds: int, workers: int
) -> dict[str, Any]:
    """Accuracy by number of labels and start; means, spreads, and paired differences with their error."""
    jobs = [(task, number, folders, seed) for number in numbers for seed in range(seeds)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=follow_parent) as pool:
        results = list(pool.map(_one, jobs))
    found: dict[str, Any] = {"test": len(task.test)}
    for number in numbers:
        own = [r[str(number)] for job, r in zip(jobs, results, strict=True) if job[1] == number]
        row = {name: [o[name]["each"][0] for o in own] for name in own[0]}
        found[str(number)] = {
            name: {
                "mean": float(np.mean(v)),
                "spread": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0,
                "each": v,
            }
            for name, v in row.items()
        }
        apart = 100 * (np.array(row["mae"]) - np.array(row["beit"]))
        error = float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else 0.0
        found[str(number)]["mae minus beit, points"] = {"mean": float(apart.mean()), "error": error}
        print(
            f"   {task.name} {number:5d} labels   "
            + "   ".join(f"{name} {np.mean(v):.4f} ± {np.std(v):.4f}" for name, v in row.items())
            + f"   mae - beit {apart.mean():+.2f} ± {error:.2f} points",
            flush=True,
        )
    return found


def main() -> None:
    """Measure."""
    options = arguments(str(__doc__), _options)
    result: dict[str, Any] = print_header("pretraining")
    with scratch() as place:
        base = options.backbones or place
        folders = {}
        for method in METHODS:
            folder = base / f"compare_{method}"
            if not (folder / f"compare_{method}.toml").is_file():
                run_recipe(
                    RECIPES / f"compare_{method}.toml", folder, smoke=options.quick, workers=options.workers
                )
            folders[method] = str(folder)
        tasks: list[tuple[Task, tuple[int, ...]]] = []
        if "simulated" in options.tasks:
            few = 1 if options.quick else 0
            training = _tiles(base / "sources", LABELS[0], few or LABELS[1], options.workers)
            test = _tiles(base / "sources", TEST, few or options.tiles, options.workers)
            tasks.append((morphology_task(training, test), SIMULATED))
        if "real" in options.tasks:
            tasks.append((spiral_task(StampSettings().size), REAL))
        verdicts = []
        for task, numbers in tasks:
            found = compare(task, numbers[:1] if options.quick else numbers, folders, 1 if options.quick else SEEDS, options.workers)  # fmt: skip
            result[task.name] = found
            mean = float(
                np.mean([v["mae minus beit, points"]["mean"] for k, v in found.items() if k != "test"])
            )
            verdicts.append(
                verdict(
                    f"{task.name}: mae minus beit, mean over numbers of labels, points", mean, "> 0", mean > 0
                )
            )
        save("pretraining", result | {"verdicts": verdicts}, quick=options.quick)


if __name__ == "__main__":
    main()
