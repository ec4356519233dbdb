"""Training of the detection network from the simulator's stream.

A recipe (TOML) says what is simulated, how large the network is and how long it trains. Samples are simulated first, by
worker processes, into files that a later run finds again; then the network trains for so many steps, with checkpoints
that ``--resume`` continues from.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imcat.catalogue.files import atomic_path
from imcat.detect.network import DetectionNet
from imcat.errors import ConfigError
from imcat.train.detection_packs import load_views, simulate_samples
from imcat.train.detection_recipe import DetectionRecipe
from imcat.train.detection_samples import View, labelled_sample, view
from imcat.train.detection_targets import Losses, batches, detection_loss, whole
from imcat.train.loop import half_precision, training_device

__all__ = [
    "CLIP",
    "JUDGED",
    "DetectionRecipe",
    "Progress",
    "learning_rate",
    "load_views",
    "new_network",
    "simulate_samples",
    "train_detection",
]

#: Times that a training is judged.
JUDGED = 20
#: Largest norm of a gradient.
CLIP = 1.0
_AVERAGE = 0.998  # weight of the past in the average of the network over steps


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
    place = training_device(device)
    if place.type == "cuda" and not recipe.tiles:
        from imcat.train.detection_device import train_on_device

        return train_on_device(recipe, out, place, workers=workers, resume=resume)
    paths = simulate_samples(recipe, out / "samples", workers, recipe.samples, recipe.seed, augmented=True)
    judged = simulate_samples(recipe, out / "samples", workers, recipe.validation, recipe.seed + 1)
    samples, validation = load_views(paths, recipe, recipe.lobes), load_views(judged, recipe, recipe.lobes)
    labelled = [view(labelled_sample(path)) for path in recipe.tiles]
    network = new_network(recipe, place)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    progress = Progress(recipe, out)
    if resume:
        progress.resume(network, optimiser, average, place)
    total, seen = np.zeros(4), 0
    every = max(1, recipe.steps // JUDGED)
    drawn = batches(
        samples, recipe.batch, recipe.crop, recipe.seed, progress.step, labelled=labelled, share=recipe.share
    )
    for step, batch in enumerate(drawn, progress.step):
        if step >= recipe.steps or progress.stale:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step / recipe.steps)
        with half_precision(place):
            answer = network(
                batch.maps.to(place, memory_format=torch.channels_last), batch.conditions.to(place)
            )
        parts = detection_loss(answer.float(), batch)
        loss = parts.total(recipe.offset_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        with torch.no_grad():
            keep = min(_AVERAGE, step / (step + 10))
            for name, value in network.state_dict().items():
                average[name].mul_(keep).add_(value, alpha=1 - keep)
        total, seen = total + np.array(parts.values()), seen + 1
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            judge = _validate(recipe, average, validation, place)
            progress.judged(step + 1, total / seen, judge, network, optimiser, average)
            total, seen = np.zeros(4), 0
    return progress.checkpoint


def new_network(recipe: DetectionRecipe, place: torch.device) -> DetectionNet:
    """The network before training: that of the recipe's seed, or of the weights to start from."""
    torch.manual_seed(recipe.seed)
    network: DetectionNet = DetectionNet(recipe.width).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.start:
        network.load_state_dict(_earlier(recipe).state_dict())
    return network


class Progress:
    """How far a training is: its log, its checkpoint, and the best network so far.

    Parameters
    ----------
    recipe : DetectionRecipe
        Of the training.
    out : path
        Folder of ``log.jsonl`` and ``checkpoint.pt``.
    """

    def __init__(self, recipe: DetectionRecipe, out: Path) -> None:
        self.recipe, self.log, self.checkpoint = recipe, out / "log.jsonl", out / "checkpoint.pt"
        self.begun, self.step = time.monotonic(), 0
        self.best: dict[str, Tensor] = {}
        self.least, self.since = math.inf, 0

    @property
    def stale(self) -> bool:
        """Whether the last judgements, as many as the recipe's patience, were no better than one before them."""
        return self.since >= self.recipe.patience

    def resume(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: dict[str, Tensor],
        place: torch.device,
    ) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location=place, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        for name, value in state["average"].items():
            average[name].copy_(value)
        self.step, self.best = int(state["step"]), state["best"]
        self.least, self.since = float(state["least"]), int(state["since"])

    def judged(
        self,
        step: int,
        loss: NDArray[np.float64],
        validation: NDArray[np.float64],
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Mapping[str, Tensor],
    ) -> None:
        """Note a judgement: a line of the log, the checkpoint, and the averaged network if it is the best so far."""
        heat, place, score, size = (torch.tensor(v) for v in validation)
        judge = float(Losses(heat, place, score, size).total(self.recipe.offset_weight))
        if judge < self.least or not self.best:
            self.least, self.since = judge, 0
            self.best = {k: v.detach().clone() for k, v in average.items()}
        else:
            self.since += 1
        line = {
            "step": step,
            "loss": [round(float(v), 4) for v in loss],
            "validation": [round(float(v), 4) for v in validation],
            "best": round(self.least, 4),
            "seconds": round(time.monotonic() - self.begun, 1),
        }
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        recipe = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.recipe).items()}
        state: dict[str, Any] = {
            "network": network.state_dict(), "average": dict(average), "optimiser": optimiser.state_dict(),
            "best": self.best, "least": self.least, "since": self.since, "step": step, "recipe": recipe,
        }  # fmt: skip
        with atomic_path(self.checkpoint) as temporary:
            torch.save(state, temporary)


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


def learning_rate(recipe: DetectionRecipe, done: float) -> float:
    """A short rise, then half a cosine; `done` is the share of the training that is over."""
    rise = min(1.0, 50 * (done + 1 / recipe.steps))
    return recipe.rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


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
            with half_precision(place):
                answer = network(batch.maps.to(place), batch.conditions.to(place))
            total += detection_loss(answer.float(), batch).values()
    return total / max(len(views), 1)
