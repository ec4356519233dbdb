"""Training of the detection network from the simulator's stream.

A recipe (TOML) says what is simulated, how large the network is and how long it trains. Samples are simulated first, by
worker processes, into files that a later run finds again; then the network trains for so many steps, with checkpoints
that ``--resume`` continues from.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
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
from imcat.train.detection_samples import Sample, sample_stream

__all__ = [
    "DetectionRecipe",
    "detection_loss",
    "load_samples",
    "simulate_samples",
    "targets",
    "train_detection",
]

_PACK = 25  # samples of one file
_CENTRE_SIGMA = 0.7  # pixels: width of the peak that the heat map should show
_FAINT = 2.0  # signal-to-noise ratio of the faintest source that counts
_PLACED = 3.0  # and of the faintest whose place is learned
_CLIP = 1.0  # largest norm of a gradient
_AVERAGE = 0.998  # weight of the past in the average of the network over steps


@dataclass(frozen=True)
class DetectionRecipe:
    """How the detection network is trained.

    Attributes
    ----------
    name : str
        Of the weights.
    surveys : tuple of str
        Simulated surveys; samples come from them in turn.
    samples, validation : int
        Simulated tiles for training and for judging.
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
    surveys: tuple[str, ...] = ("sdss", "sdss", "sdss", "csst")
    samples: int = 2000
    validation: int = 100
    side: int = 256
    seed: int = 1
    width: int = 24
    steps: int = 6000
    batch: int = 8
    crop: int = 128
    rate: float = 2e-3
    offset_weight: float = 0.05

    def __post_init__(self) -> None:
        if self.side % 8 or self.crop % 8 or not 32 <= self.crop <= self.side:
            raise ConfigError(
                f"crop {self.crop} and side {self.side}: expected multiples of 8, crop from 32 to side"
            )
        if min(self.samples, self.validation, self.steps, self.batch, self.width) < 1:
            raise ConfigError("samples, validation, steps, batch and width: expected positive numbers")

    def smoke(self) -> DetectionRecipe:
        """The same, for a minute."""
        changed = asdict(self) | {
            "samples": 4,
            "validation": 2,
            "steps": 6,
            "batch": 2,
            "crop": 64,
            "side": 128,
        }
        return DetectionRecipe(**(changed | {"surveys": ("sdss",)}))


def simulate_samples(
    recipe: DetectionRecipe, folder: Path, workers: int, count: int, seed: int
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
                folder / f"{survey}-{seed}-{recipe.side}-{pack:04d}.npz",
                survey,
                seed,
                recipe.side,
                pack,
                number,
            )
        )
    missing = [job for job in jobs if not job[0].is_file()]
    if missing:
        context = get_context("spawn")
        with ProcessPoolExecutor(max(1, min(workers, len(missing))), mp_context=context) as pool:
            list(pool.map(_simulate_pack, missing))
    return [job[0] for job in jobs]


def _simulate_pack(job: tuple[Path, str, int, int, int, int]) -> None:
    path, survey, seed, side, pack, number = job
    samples = sample_stream(survey, seed, side, start=pack * _PACK)
    values: dict[str, NDArray[Any]] = {}
    for k in range(number):
        for name, value in vars(next(samples)).items():
            values[f"{name}_{k}"] = value
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **values)  # type: ignore[arg-type]


def load_samples(paths: Sequence[Path]) -> list[Sample]:
    """Read the files of `simulate_samples`."""
    samples = []
    for path in paths:
        with np.load(path) as file:
            for k in range(sum(name.startswith("maps_") for name in file.files)):
                samples.append(
                    Sample(**{n: file[f"{n}_{k}"] for n in ("maps", "conditions", "x", "y", "snr")})
                )
    return samples


def targets(
    x: NDArray[Any], y: NDArray[Any], snr: NDArray[Any], side: int
) -> tuple[NDArray[np.float32], ...]:
    """What the network should say of a crop.

    Parameters
    ----------
    x, y, snr : arrays ``[n]``
        Sources, in pixels of the crop.
    side : int
        Of the crop.

    Returns
    -------
    heat : float32 array ``[side, side]``
        1 in the pixel of a source's centre, falling off around it.
    place : float32 array ``[3, side, side]``
        Offsets of the centre along x and y in that pixel, and 1 where they count.
    """
    heat = np.zeros((side, side), np.float32)
    place = np.zeros((3, side, side), np.float32)
    inside = (snr >= _FAINT) & (x > -3) & (y > -3) & (x < side + 2) & (y < side + 2)
    offset = np.arange(-3, 4)
    # Faint ones first: a bright one's pixel is its own.
    for i in np.flatnonzero(inside)[np.argsort(snr[inside], kind="stable")]:
        column, row = round(float(x[i])), round(float(y[i]))
        px, py = offset + column, offset + row
        vx, vy = (px >= 0) & (px < side), (py >= 0) & (py < side)
        if not (vx.any() and vy.any()):
            continue
        # The peak is that of the pixel, so that it is 1 wherever in it the centre lies.
        peak = np.exp(-0.5 * (offset[vy, None] ** 2 + offset[None, vx] ** 2) / _CENTRE_SIGMA**2)
        window = (slice(py[vy][0], py[vy][-1] + 1), slice(px[vx][0], px[vx][-1] + 1))
        heat[window] = np.maximum(heat[window], peak)
        if 0 <= column < side and 0 <= row < side and snr[i] >= _PLACED:
            place[:, row, column] = x[i] - column, y[i] - row, 1.0
    return heat, place


def detection_loss(answer: Tensor, heat: Tensor, place: Tensor, offset_weight: float) -> Tensor:
    """Cross entropy of the heat, less where a source is near; likelihood of the places with their errors.

    Parameters
    ----------
    answer : Tensor ``[n, OUTPUTS, y, x]``
        Of the network.
    heat : Tensor ``[n, y, x]``
        See `targets`.
    place : Tensor ``[n, 3, y, x]``
        See `targets`.
    offset_weight : float
        Of the places.
    """
    logit = answer[:, 0]
    centre = (heat > 0.999).float()
    # The pixels around a centre are neither centre nor sky: they count the less the closer they are.
    weight = torch.where(centre > 0, torch.ones_like(heat), (1 - heat) ** 4)
    crossed = nn.functional.binary_cross_entropy_with_logits(logit, centre, weight, reduction="sum")
    log_error = answer[:, 3].clamp(-5.0, 2.0)
    square = (answer[:, 1] - place[:, 0]) ** 2 + (answer[:, 2] - place[:, 1]) ** 2
    likelihood = (place[:, 2] * (0.5 * square * torch.exp(-2 * log_error) + 2 * log_error)).sum()
    return (crossed + offset_weight * likelihood) / centre.sum().clamp(min=1.0)


def _batches(
    samples: list[Sample], recipe: DetectionRecipe, first: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Random crops, turned and mirrored; step k of a run is the same whenever it starts."""
    step = first
    while True:
        rng = np.random.default_rng([recipe.seed, 77, step])
        parts = [
            _crop(samples[int(rng.integers(len(samples)))], recipe.crop, rng) for _ in range(recipe.batch)
        ]
        maps, conditions, heat, place = (torch.from_numpy(np.stack(p)) for p in zip(*parts, strict=True))
        yield maps.float(), conditions, heat, place
        step += 1


def _crop(sample: Sample, side: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    rows, columns = sample.maps.shape[1:]
    y0, x0 = int(rng.integers(rows - side + 1)), int(rng.integers(columns - side + 1))
    maps = sample.maps[:, y0 : y0 + side, x0 : x0 + side]
    x, y = sample.x - x0, sample.y - y0
    if rng.random() < 0.5:
        maps, x = maps[:, :, ::-1], side - 1 - x
    if rng.random() < 0.5:
        maps, y = maps[:, ::-1], side - 1 - y
    if rng.random() < 0.5:
        maps, x, y = maps.transpose(0, 2, 1), y, x
    return np.ascontiguousarray(maps), sample.conditions, *targets(x, y, sample.snr, side)


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
    samples, validation = load_samples(paths), load_samples(judged)
    torch.manual_seed(recipe.seed)
    network = DetectionNet(recipe.width).to(place)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-4)
    checkpoint, begin = out / "checkpoint.pt", 0
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, map_location=place, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, begin = state["average"], int(state["step"])
    started, total, seen = time.monotonic(), 0.0, 0
    every = max(1, recipe.steps // 20)
    for step, (maps, conditions, heat, where) in enumerate(_batches(samples, recipe, begin), begin):
        if step >= recipe.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = _rate(recipe, step)
        with torch.autocast(place.type, dtype=torch.bfloat16):
            answer = network(maps.to(place), conditions.to(place))
        loss = detection_loss(answer.float(), heat.to(place), where.to(place), recipe.offset_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        with torch.no_grad():
            keep = min(_AVERAGE, step / (step + 10))
            for name, value in network.state_dict().items():
                average[name].mul_(keep).add_(value, alpha=1 - keep)
        total, seen = total + float(loss.detach()), seen + 1
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            judge = _validate(recipe, average, validation, place)
            _log(out, step + 1, total / seen, judge, time.monotonic() - started)
            total, seen = 0.0, 0
            with atomic_path(checkpoint) as temporary:
                torch.save(
                    {"network": network.state_dict(), "average": average, "optimiser": optimiser.state_dict(),
                     "step": step + 1, "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()}},
                    temporary,
                )  # fmt: skip
    return checkpoint


def _rate(recipe: DetectionRecipe, step: int) -> float:
    """A short rise, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1, recipe.steps // 50))
    return recipe.rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def _validate(
    recipe: DetectionRecipe, average: dict[str, Tensor], samples: list[Sample], place: torch.device
) -> float:
    """Loss of the averaged network on whole validation samples."""
    network = DetectionNet(recipe.width).to(place)
    network.load_state_dict(average)
    network.eval()
    losses = []
    with torch.no_grad():
        for sample in samples:
            side = sample.maps.shape[1]
            heat, where = targets(sample.x, sample.y, sample.snr, side)
            maps = torch.from_numpy(sample.maps.astype(np.float32))[None].to(place)
            with torch.autocast(place.type, dtype=torch.bfloat16):
                answer = network(maps, torch.from_numpy(sample.conditions)[None].to(place))
            shown, at = torch.from_numpy(heat)[None].to(place), torch.from_numpy(where)[None].to(place)
            losses.append(float(detection_loss(answer.float(), shown, at, recipe.offset_weight)))
    return float(np.mean(losses))


def _log(out: Path, step: int, loss: float, validation: float, seconds: float) -> None:
    line = {
        "step": step,
        "loss": round(loss, 4),
        "validation": round(validation, 4),
        "seconds": round(seconds, 1),
    }
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
