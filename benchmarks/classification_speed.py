"""How fast sources are classified on all cores, and whether other ways of running the backbone would be faster and equal."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import verdict
from numpy.typing import NDArray

from imcat.backbones.orient import orientation, oriented
from imcat.classify.photometry import Photometry
from imcat.classify.predict import classify, look
from imcat.classify.trained import TrainedClassifier, load_classifier
from imcat.processes import follow_parent
from imcat.registry import half_precision_is_fast
from imcat.stamps import Stamps, StampSettings, band_conditions, compress
from imcat.train.classification_data import simulated_sets
from imcat.train.loop import use_all_cores
from imcat.train.source_samples import SampleSettings, build_samples, read_sample, stamps_of

_SEED = 908
_RUNS = 5
_BATCH = 128
_GOAL = 2000

Array = NDArray[Any]


def speed(trained: TrainedClassifier, folder: Path, number: int = 4096) -> dict[str, Any]:
    """Sources a second as `imcat run` with a worker for each core classifies them, and in a single process."""
    (path,) = build_samples(folder, SampleSettings(tiles=1, seed=_SEED), StampSettings())
    stamps, photometry = _given(path, number)
    workers = len(os.sched_getaffinity(0))
    rate = _side_by_side(path, len(stamps) // workers, workers)
    use_all_cores()
    vision = look(trained, stamps)
    seen, whole, alone = (
        _seconds(work)
        for work in (
            lambda: look(trained, stamps),
            lambda: classify(trained, photometry, vision),
            lambda: classify(trained, photometry),
        )
    )
    n = len(stamps)
    one = {"per_second": n / (seen + whole), "backbone": n / seen, "photometry alone": n / alone}
    print(
        f"   sources with stamps in five bands, a second: {rate:.0f} with {workers} workers; {one['per_second']:.0f} in one process "
        f"on all cores ({one['backbone']:.0f} through the backbone, {one['photometry alone']:.0f} by photometry alone)"
    )
    return {
        "a worker for each core": {"per_second": rate, "workers": workers},
        "one process": one,
        **_ways(trained, stamps, photometry),
        "verdicts": [verdict("sources a second on all cores", rate, f">= {_GOAL}", rate >= _GOAL)],
    }


def _given(path: Path, number: int, first: int = 0) -> tuple[Stamps, Photometry]:
    sample = read_sample(path)
    rows = np.arange(first, min(first + number, len(sample)))
    return stamps_of(sample, rows), simulated_sets([sample])[0].photometry.take(rows)


def _side_by_side(path: Path, each: int, workers: int) -> float:
    """Sources a second of processes with one thread each, that begin together: the median of some runs."""
    context = get_context("forkserver")
    barrier = context.Barrier(workers)
    jobs = [(path, each, k * each) for k in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(barrier,)) as pool:
        spent = np.array(list(pool.map(_classified, jobs)))
    return float(workers * each / np.median(spent.max(axis=0)))


_together: dict[str, Any] = {}


def _begin(barrier: Any) -> None:
    follow_parent()
    torch.set_num_threads(1)
    _together["barrier"] = barrier


def _classified(job: tuple[Path, int, int]) -> list[float]:
    """Seconds that a worker takes for its sources, in each run."""
    trained = load_classifier()
    stamps, photometry = _given(*job)
    spent = []
    for _ in range(1 + _RUNS):
        _together["barrier"].wait()
        begun = time.perf_counter()
        classify(trained, photometry, look(trained, stamps))
        spent.append(time.perf_counter() - begun)
    return spent[1:]  # the first warms up


def _seconds(work: Callable[[], Any]) -> float:
    """The median of some runs after one that warms up."""
    spent = []
    for _ in range(1 + _RUNS):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return float(np.median(spent[1:]))


def _ways(trained: TrainedClassifier, stamps: Stamps, photometry: Photometry) -> dict[str, dict[str, Any]]:
    """The backbone in single precision, in bfloat16, and as a graph that torch compiles: speed, and what answers differ."""
    ways: dict[str, Callable[[], Array]] = {
        "single precision": lambda: look(trained, stamps, half=False),
        "bfloat16": lambda: look(trained, stamps, half=True),
    }
    half = half_precision_is_fast()
    used = "bfloat16" if half else "single precision"
    if shutil.which("g++"):  # which torch compiles with
        graph = torch.compile(trained.network.vision.see)
        ways[f"compiled graph, {used}"] = lambda: _through(graph, stamps, half=half)
    found: dict[str, dict[str, Any]] = {}
    plain: dict[str, Array] | None = None
    for name, work in ways.items():
        said = classify(trained, photometry, work())
        plain = plain or said
        apart = np.abs(said["p_galaxy"] - plain["p_galaxy"])
        found[name] = {
            "backbone": len(stamps) / _seconds(work),
            "other classes": float((said["class"] != plain["class"]).mean()),
            "p_galaxy apart, 99 %": float(np.quantile(apart, 0.99)),
            "used": "yes" if name == used else "no",
        }
        v = found[name]
        print(
            f"   {name}: {v['backbone']:.0f} a second; classes other than in single precision {v['other classes']:.5f}, "
            f"99 % of p_galaxy within {v['p_galaxy apart, 99 %']:.5f}"
        )
    return found


def _batches(stamps: Stamps) -> Iterator[tuple[torch.Tensor, ...]]:
    conditions = band_conditions(stamps)
    for k in range(0, len(stamps), _BATCH):
        rows = slice(k, k + _BATCH)
        yield (
            torch.from_numpy(compress(stamps.signal[rows])),
            torch.from_numpy(stamps.valid[rows].astype(np.float32)),
            torch.from_numpy(conditions[rows]),
        )


def _through(see: Callable[..., torch.Tensor], stamps: Stamps, *, half: bool) -> Array:
    """The backbone by way of a graph; stamps are turned to their side before it, as the backbone itself does."""
    out = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        for values, valid, conditions in _batches(stamps):
            turn = orientation(values, valid)
            out.append(see(oriented(values, turn), oriented(valid, turn), conditions).float())
    return torch.cat(out).numpy()
