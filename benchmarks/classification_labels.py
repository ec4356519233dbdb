"""What pre-training is worth: few labels, simulated and real, with the backbone's weights and from nothing.

Labels are drawn as evenly from all classes as there are rows of each, and accuracy is the mean over the classes of the share that is right: of
galaxies as they come most are smooth, and a network that learned nothing would be right about those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Kept, data_dir, verdict
from numpy.typing import NDArray
from torch import nn

from imcat.backbones.choice import build_backbone
from imcat.backbones.cnn import CnnSettings
from imcat.backbones.files import load_backbone
from imcat.backbones.vit import Vit
from imcat.classify.network import MORPHOLOGIES
from imcat.classify.own_classes import OwnHead, stamp_tensors
from imcat.simulate.sources import Kind
from imcat.stamps import StampSettings
from imcat.stamps.given import given_stamps, read_arrays, read_images
from imcat.train.classification_data import LabelledSet
from imcat.train.fine_tuning import FineTuneRecipe, Labelled, all_logits, fine_tune, split_objects

SEEDS = 5
SIMULATED = (100, 300, 1000, 3000)
REAL = (100, 300, 1000)
# Steps of training for a number of labels; the same with the weights and without.
STEPS = {100: 120, 300: 200, 1000: 350, 3000: 600}
_BATCH = 32
_MIDDLE = 24  # pixels of the images of one band, on a side, that the backbone looks at
_CPU = torch.device("cpu")

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Task:
    """A question with labelled stamps: what is drawn from for training, and what judges."""

    name: str
    rows: Labelled
    test: Labelled
    names: tuple[str, ...]


def morphology_task(
    training: LabelledSet, test: LabelledSet, faintest: float = 19.5, number: int = 3000
) -> Task:
    """Morphology of simulated galaxies bright enough to show one; other tiles judge."""

    def labelled(own: LabelledSet, most: int) -> Labelled:
        galaxy = (own.labels.kind.numpy() == Kind.GALAXY) & (own.labels.morphology.numpy() >= 0)
        rows = np.flatnonzero(galaxy & (own.true_magnitude < faintest))
        rows = np.random.default_rng(3).permutation(rows)[:most]
        batch = own.stamps.batch(rows)
        return Labelled(
            (batch.values, batch.valid, batch.conditions), own.labels.morphology[torch.from_numpy(rows)]
        )

    return Task("morphology", labelled(training, 20000), labelled(test, number), MORPHOLOGIES)


def spiral_task(size: int) -> Task:
    """Real SDSS galaxies that people called spiral, or not; one in five judges."""
    path = data_dir() / "stamps" / "gz2_spiral_or_not.npz"
    images = read_images(path, "rgb", 3)
    label = read_arrays(path)["is_spiral"].astype(np.int64)
    # The middle in its own pixels: resampled to coarser ones, spiral arms go.
    stamps = given_stamps(images, (7480.0, 6166.0, 4686.0), 0.396, size, middle=size)
    given = Labelled(stamp_tensors(stamps), torch.from_numpy(label))
    rows, test = split_objects(label, None, 0.2, 7)
    return Task("gz2_spiral_or_not", given.take(rows), given.take(test), ("other", "spiral"))


def accuracy(network: OwnHead, task: Task, rows: Array, recipe: FineTuneRecipe) -> float:
    """On the test stamps, after training on some of the others: nine tenths, the rest says when to stop."""
    own = task.rows.take(rows)
    first, held = (
        split_objects(own.label.numpy(), None, 0.15, recipe.seed)
        if _splittable(own)
        else _plain_split(own, recipe.seed)
    )
    tuned = fine_tune(network, own.take(first), own.take(held), recipe)
    with torch.no_grad():
        said = all_logits(tuned.network, task.test, _CPU).argmax(1)
    right = (said == task.test.label).float()
    return float(np.mean([float(right[task.test.label == k].mean()) for k in task.test.label.unique()]))


def drawn(label: Array, number: int, seed: int) -> Array:
    """Rows of every class in equal numbers; where a class has too few, others have more."""
    order = np.random.default_rng(seed).permutation(len(label))
    # The first of every class come before the second of any.
    turn = np.zeros(len(label), np.int64)
    for k in np.unique(label):
        own = label[order] == k
        turn[own] = np.arange(own.sum())
    return np.asarray(order[np.argsort(turn, kind="stable")][:number])


def _splittable(own: Labelled) -> bool:
    return bool((torch.bincount(own.label)[own.label.unique()] >= 2).all())


def _plain_split(own: Labelled, seed: int) -> tuple[Array, Array]:
    order = np.random.default_rng(seed).permutation(len(own))
    cut = max(1, round(0.15 * len(own)))
    return order[cut:], order[:cut]


def fresh(start: Vit | None, settings: Any, classes: int, seed: int) -> OwnHead:
    """A network with the weights of a backbone, or without."""
    torch.manual_seed(seed)
    network = OwnHead(settings, classes)
    if start is not None:
        network.body.load_state_dict(start.state_dict())
    return network


def fingerprint(start: Vit | None) -> str:
    """Of the weights that a training starts from."""
    digest = hashlib.sha256()
    for value in () if start is None else start.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:12]


def efficiency(
    task: Task,
    numbers: Sequence[int],
    starts: dict[str, Vit | None],
    seeds: int,
    first: int = 0,
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Balanced accuracy by number of labels, from each start; seeds are `first` and those that follow."""
    kept = kept or Kept(None)
    found: dict[str, Any] = {
        "test": len(task.test),
        "of each class": {
            f"{name}, {use}": int((own.label == k).sum())
            for use, own in (("to draw from", task.rows), ("to judge by", task.test))
            for k, name in enumerate(task.names)
        },
    }
    settings = next(s for s in starts.values() if s is not None).settings
    for number in numbers:
        scores: dict[str, list[float]] = {name: [] for name in starts}
        for seed in range(first, first + seeds):
            rows = drawn(task.rows.label.numpy(), number, seed)
            each = max(1, round(0.85 * number) // _BATCH)
            epochs = max(1, round(STEPS[number] / each))
            recipe = FineTuneRecipe(
                epochs=epochs, patience=epochs, batch=_BATCH, seed=seed, class_weights=False
            )
            for name, start in starts.items():
                own = recipe if start is not None else replace(recipe, body_rate=1.0)

                def score(start: Vit | None = start, rows: Array = rows, own: FineTuneRecipe = own) -> float:
                    return accuracy(fresh(start, settings, len(task.names), own.seed), task, rows, own)

                what = f"{task.name}, {len(task.rows)} to draw from, {len(task.test)} to judge by, {number}, {seed}, {name}"
                scores[name].append(kept.get(f"{what}, {fingerprint(start)}, {own}", score))
        found[str(number)] = {
            name: {
                "mean": float(np.mean(v)),
                "spread": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0,
                "each": v,
            }
            for name, v in scores.items()
        }
        line = "   ".join(f"{name} {np.mean(v):.4f} ± {np.std(v):.4f}" for name, v in scores.items())
        print(f"   {task.name} {number:5d} labels   {line}", flush=True)
    return found


def few_labels(
    training: LabelledSet, test: LabelledSet, folder: Path | None, *, quick: bool
) -> dict[str, Any]:
    """Both tasks, with what was aimed at; `folder` keeps single results from run to run."""
    backbone = load_backbone()
    assert isinstance(backbone, Vit)
    starts: dict[str, Vit | None] = {"pre-trained": backbone, "from nothing": None}
    seeds = 1 if quick else SEEDS
    kept = Kept(None if folder is None else folder / "labels.json")
    out: dict[str, Any] = {}
    tasks = [(morphology_task(training, test), SIMULATED), (spiral_task(backbone.settings.size), REAL)]
    verdicts = []
    for task, numbers in tasks:
        found = efficiency(task, numbers, starts, seeds, kept=kept)
        gain = {
            n: 100 * (found[str(n)]["pre-trained"]["mean"] - found[str(n)]["from nothing"]["mean"])
            for n in numbers
        }
        verdicts += [
            verdict(
                f"{task.name}: smallest gain of pre-training, points",
                min(gain.values()),
                "> 0",
                min(gain.values()) > 0,
            ),
            verdict(f"{task.name}: gain at 300 labels, points", gain[300], ">= 5", gain[300] >= 5),
        ]
        out[task.name] = found
    out["verdicts"] = verdicts
    return out


def star_galaxy_stamps(folder: Path | None, *, quick: bool) -> dict[str, Any]:
    """Stars and galaxies of one band: the fine-tuned backbone against ResNet-18 that starts from nothing.

    `folder` keeps single results from run to run.
    """
    kept = Kept(None if folder is None else folder / "stamps.json")
    path = data_dir() / "stamps" / "aries_star_galaxy.npz"
    images = read_images(path, "image", 1)
    label = read_arrays(path)["is_galaxy"].astype(np.int64)
    rows, test = split_objects(label, None, 0.2, 11)
    backbone = load_backbone()
    # The backbone takes a sixth of ResNet-18's time for an epoch, and goes on getting better for longer.
    plain_recipe = FineTuneRecipe(epochs=2 if quick else 20, patience=6, class_weights=False, seed=0)
    recipe = replace(plain_recipe, epochs=2 if quick else 60, patience=15)

    def task(size: int, middle: int) -> Task:
        # The middle: what tells stars from galaxies lies there, and coarser pixels lose it.
        stamps = given_stamps(images, (5500.0,), 0.7, size, middle=middle)
        given = Labelled(stamp_tensors(stamps), torch.from_numpy(label))
        return Task("aries", given.take(rows), given.take(test), ("star", "galaxy"))

    every = np.arange(len(rows))
    ours, theirs = task(backbone.settings.size, _MIDDLE), task(64, 64)

    def tuned() -> float:
        start = fresh(backbone, backbone.settings, 2, recipe.seed)  # type: ignore[arg-type]
        return accuracy(start, ours, every, recipe)

    def plain() -> float:
        torch.manual_seed(plain_recipe.seed)
        network = OwnHead(CnnSettings("resnet18", size=64), 2)
        return accuracy(network, theirs, every, replace(plain_recipe, body_rate=1.0))

    start = fingerprint(backbone)  # type: ignore[arg-type]
    own = kept.get(f"backbone {start}, {len(rows)} images, middle {_MIDDLE}, {recipe}", tuned)
    other = kept.get(f"resnet18, {len(rows)} images, {plain_recipe}", plain)
    print(f"   aries, {len(test)} images: backbone {own:.4f}, ResNet-18 {other:.4f}", flush=True)
    what = "aries: accuracy (mean of both classes) by fine-tuning"
    verdicts = [verdict(what, own, f">= {other:.4f}", own >= other)]
    return {"test": len(test), "backbone": own, "resnet18": other, "verdicts": verdicts}


def parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in module.parameters())


def describe(folder: Path | None = None) -> dict[str, int]:
    """Sizes of the backbones, for the documentation."""
    del folder
    return {
        name: parameters(build_backbone(settings))
        for name, settings in (
            ("vit", load_backbone().settings),
            ("resnet18", CnnSettings("resnet18", size=StampSettings().size)),
        )
    }
