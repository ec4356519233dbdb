"""Training of the detection network from the simulator's stream.

A recipe (TOML) says what is simulated, how large the network is and how long it trains. Samples are simulated first, by
worker processes, into files that a later run finds again; then the network trains for so many steps, with checkpoints
that ``--resume`` continues from.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imcat.catalogue.files import atomic_path
from imcat.detect.network import DetectionNet
from imcat.errors import ConfigError
from imcat.train.detection_samples import (
    Sample,
    View,
    labelled_sample,
    lobed,
    sample_stream,
    some_bands,
    view,
)
from imcat.train.detection_targets import batches, detection_loss, whole

__all__ = [
    "DetectionRecipe",
    "load_views",
    "simulate_samples",
    "train_detection",
]

_NAMES = tuple(Sample.__dataclass_fields__)
_LOBED = 0.7  # share of the samples whose PSFs have lobes
_PACK = 25  # samples of one file
_CLIP = 1.0  # largest norm of a gradient
_AVERAGE = 0.998  # weight of the past in the average of the network over steps


@dataclass(frozen=True)
class DetectionRecipe:
    """How the detection network is trained.

    Attributes
    ----------
    name : str
        Of the weights.
    start : str
        Weights to start from: a folder that holds them, or ``imcat`` for those that come with it; empty: none.
    lobes : float
        Height of the lobes that most samples' PSFs are given (`imcat.train.detection_samples.lobed`); 0: none.
    tiles : tuple of str
        Labelled tiles to train on beside the simulated ones, as ``imcat run`` takes them, each with its
        ``truth.parquet`` beside it (`imcat.train.detection_samples.labelled_sample`).
    share : float
        Share of the crops that come from these tiles, if there are any.
    surveys : tuple of str
        Simulated surveys; samples come from them in turn.
    samples, validation : int
        Simulated tiles for training and for judging: skies more varied than a survey's.
    calibration : int
        Simulated tiles as a survey has them, on which the scores become probabilities.
    side : int
        Of each, pixels.
    seed : int
        Decides all samples and the order of training.
    width : int
        Channels of the network at half resolution.
    steps, batch : int
        Steps of the optimiser, and crops in each.
    crop : int
        Side of a crop, pixels.
    rate : float
        Largest learning rate.
    offset_weight : float
        Of the places in the loss.
    """

    name: str = "detection"
    start: str = ""
    lobes: float = 0.02
    tiles: tuple[str, ...] = ()
    share: float = 0.5
    surveys: tuple[str, ...] = ("sdss", "sdss", "sdss", "csst")
    samples: int = 2000
    validation: int = 100
    calibration: int = 400
    side: int = 256
    seed: int = 1
    width: int = 32
    steps: int = 6000
    batch: int = 8
    crop: int = 128
    rate: float = 2e-3
    offset_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.side % 8 or self.crop % 8 or not 32 <= self.crop <= self.side:
            raise ConfigError(
                f"crop {self.crop} and side {self.side}: expected multiples of 8, crop from 32 to side"
            )
        if not 0 <= self.lobes < 0.5:
            raise ConfigError(f"lobes is {self.lobes}; expected a height relative to the PSF, 0 to 0.5")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share}; expected a share of the crops, above 0 and up to 1")
        if min(self.samples, self.validation, self.calibration, self.steps, self.batch, self.width) < 1:
            raise ConfigError(
                "samples, validation, calibration, steps, batch and width: expected positive numbers"
            )

    def smoke(self) -> DetectionRecipe:
        """The same, for a minute."""
        changed = asdict(self) | {
            "samples": 4,
            "validation": 2,
            "calibration": 2,
            "steps": 6,
            "batch": 2,
            "crop": 64,
            "side": 128,
        }
        return DetectionRecipe(**(changed | {"surveys": ("sdss",)}))


def simulate_samples(
    recipe: DetectionRecipe, folder: Path, workers: int, count: int, seed: int, *, varied: bool = True
) -> list[Path]:
    """Simulate samples into files of some dozen each; those that are there stay.

    Parameters
    ----------
    recipe : DetectionRecipe
        What is simulated.
    folder : path
        Of the files.
    workers : int
        Processes.
    count, seed : int
        Number of samples; decides them.
    varied : bool
        Whether skies vary more than a survey's.

    Returns
    -------
    list of path
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for pack in range(math.ceil(count / _PACK)):
        survey = recipe.surveys[pack % len(recipe.surveys)]
        number = min(_PACK, count - pack * _PACK)
        jobs.append(
            (
                folder / f"{survey}-{seed}-{recipe.side}-{pack:04d}{'' if varied else '-plain'}.npz",
                survey,
                seed,
                recipe.side,
                pack,
                number,
                varied,
            )
        )
    missing = [job for job in jobs if not job[0].is_file()]
    if missing:
        context = get_context("spawn")
        with ProcessPoolExecutor(max(1, min(workers, len(missing))), mp_context=context) as pool:
            list(pool.map(_simulate_pack, missing))
    return [job[0] for job in jobs]


def _simulate_pack(job: tuple[Path, str, int, int, int, int, bool]) -> None:
    path, survey, seed, side, pack, number, varied = job
    samples = sample_stream(survey, seed, side, start=pack * _PACK, varied=varied)
    values: dict[str, NDArray[Any]] = {}
    for k in range(number):
        for name, value in vars(next(samples)).items():
            values[f"{name}_{k}"] = value
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **values)  # type: ignore[arg-type]


def load_views(paths: Sequence[Path], recipe: DetectionRecipe, lobes: float = 0.0) -> list[View]:
    """Read the files of `simulate_samples`, and choose for each sample the bands and the PSF that the network sees."""
    views = []
    for number, path in enumerate(paths):
        rng = np.random.default_rng([recipe.seed, 78, number])
        with np.load(path) as file:
            for k in range(sum(name.startswith("signal_") for name in file.files)):
                sample = Sample(**{n: file[f"{n}_{k}"] for n in _NAMES})
                chosen = some_bands(rng, len(sample.wavelength))
                if lobes > 0 and rng.random() < _LOBED:
                    sample = lobed(sample, rng, lobes)
                views.append(view(sample, chosen))
    return views


def train_detection(
    recipe: DetectionRecipe, out: Path, *, workers: int = 2, resume: bool = False, device: str | None = None
) -> Path:
    """Train the network.

    Parameters
    ----------
    recipe : DetectionRecipe
        What and how.
    out : path
        Folder for samples, log and checkpoints.
    workers : int
        Processes that simulate.
    resume : bool
        Continue from the last checkpoint.
    device : str, optional
        ``cpu`` or ``cuda``; default: a GPU where there is one.

    Returns
    -------
    path
        Of the last checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    paths = simulate_samples(recipe, out / "samples", workers, recipe.samples, recipe.seed)
    judged = simulate_samples(recipe, out / "samples", workers, recipe.validation, recipe.seed + 1)
    samples, validation = load_views(paths, recipe, recipe.lobes), load_views(judged, recipe, recipe.lobes)
    labelled = [view(labelled_sample(path)) for path in recipe.tiles]
    torch.manual_seed(recipe.seed)
    network = DetectionNet(recipe.width).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.start:
        network.load_state_dict(_earlier(recipe).state_dict())
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-4)
    checkpoint, begin = out / "checkpoint.pt", 0
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, map_location=place, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, begin = state["average"], int(state["step"])
    started, total, seen = time.monotonic(), np.zeros(4), 0
    every = max(1, recipe.steps // 20)
    drawn = batches(
        samples, recipe.batch, recipe.crop, recipe.seed, begin, labelled=labelled, share=recipe.share
    )
    for step, batch in enumerate(drawn, begin):
        if step >= recipe.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = _rate(recipe, step)
        with torch.autocast(place.type, dtype=torch.bfloat16):
            answer = network(
                batch.maps.to(place, memory_format=torch.channels_last), batch.conditions.to(place)
            )
        parts = detection_loss(answer.float(), batch)
        loss = parts.total(recipe.offset_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        with torch.no_grad():
            keep = min(_AVERAGE, step / (step + 10))
            for name, value in network.state_dict().items():
                average[name].mul_(keep).add_(value, alpha=1 - keep)
        total, seen = total + np.array(parts.values()), seen + 1
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            judge = _validate(recipe, average, validation, place)
            _log(out, step + 1, total / seen, judge, time.monotonic() - started)
            total, seen = np.zeros(4), 0
            with atomic_path(checkpoint) as temporary:
                torch.save(
                    {"network": network.state_dict(), "average": average, "optimiser": optimiser.state_dict(),
                     "step": step + 1, "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()}},
                    temporary,
                )  # fmt: skip
    return checkpoint


def _earlier(recipe: DetectionRecipe) -> DetectionNet:
    """The network that a training goes on from."""
    from imcat.detect.network_search import load_network

    if recipe.start == "imcat":
        network = load_network().network
    else:
        found = sorted(Path(recipe.start).glob("*.safetensors"))
        network = load_network(found[0].stem if found else recipe.name, recipe.start).network
    if network.width != recipe.width:
        raise ConfigError(
            f"detection.width is {recipe.width}, that of the weights to start from {network.width}; expected the same"
        )
    return network


def _rate(recipe: DetectionRecipe, step: int) -> float:
    """A short rise, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1, recipe.steps // 50))
    return recipe.rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def _validate(
    recipe: DetectionRecipe, average: dict[str, Tensor], views: list[View], place: torch.device
) -> NDArray[np.float64]:
    """Parts of the loss of the averaged network on whole validation samples."""
    network = DetectionNet(recipe.width).to(place)
    network.load_state_dict(average)
    network.eval()
    total = np.zeros(4)
    with torch.no_grad():
        for one in views:
            batch = whole(one)
            with torch.autocast(place.type, dtype=torch.bfloat16):
                answer = network(batch.maps.to(place), batch.conditions.to(place))
            total += detection_loss(answer.float(), batch).values()
    return total / max(len(views), 1)


def _log(
    out: Path, step: int, loss: NDArray[np.float64], validation: NDArray[np.float64], seconds: float
) -> None:
    """One line: losses of heat, places, scores and sizes, in training and in validation."""
    line = {
        "step": step,
        "loss": [round(float(v), 4) for v in loss],
        "validation": [round(float(v), 4) for v in validation],
        "seconds": round(seconds, 1),
    }
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
