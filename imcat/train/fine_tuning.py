"""Fine-tuning on labels of a user's own: stamps or a table, split by object, stopped early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from imcat.classify.network import Measured
from imcat.classify.own_classes import OwnHead
from imcat.errors import ConfigError, UsageError
from imcat.train.loop import (
    Average,
    cosine_rate,
    half_precision,
    parameter_groups,
    training_device,
    use_all_cores,
)

__all__ = ["FineTuneRecipe", "Labelled", "Tuned", "fine_tune", "macro_f1", "split_objects"]

_CLIP = 1.0
_JUDGED_BATCH = 512
_SHORTEST = 500.0  # angstrom: a wavelength in nm or micrometres is below
_MAX_TURNS = 8  # symmetries of the square


@dataclass(frozen=True)
class FineTuneRecipe:
    """How a user's classes are learned.

    Attributes
    ----------
    name : str
        Of the weights.
    data : str
        File with the labels, relative to the recipe: NPZ with an array of images, or a table as `imcat classify` reads.
    labels : str
        Array or column of the classes.
    images : str
        Array of stamps in an NPZ file, ``[n, y, x]``, ``[n, bands, y, x]`` or ``[n, y, x, bands]``.
    objects : str
        Array or column that names the object of each row: rows of one object stay on one side of the split. Empty:
        every row is an object.
    wavelengths : tuple of float
        Of the images' bands, Å.
    pixel : float
        Of the images, arcsec.
    middle : int
        Side of the middle of the images that is looked at, in their pixels; 0: all. Images larger than the stamps of the
        backbone are resampled to coarser pixels otherwise, which costs what is small.
    filters : str
        Of a table, as for `imcat classify`; empty: guessed from its columns.
    backbone : str
        To start from: ``imcat``, a folder with weights of a backbone, or empty to start from nothing.
    architecture : str
        Where it starts from nothing: see `imcat.backbones.choice.BACKBONES`.
    epochs, batch : int
        Times that all training rows are seen at most, rows in each step.
    rate, decay : float
        Largest learning rate, weight decay.
    body_rate : float
        Learning rate of what comes before the last layer, as a share of `rate`.
    validation : float
        Share of the objects that training does not see.
    patience : int
        Epochs without a better loss on them, after which training stops.
    class_weights : bool
        Whether rare classes count for more.
    seed : int
        Of split and order.
    """

    name: str = "own"
    data: str = ""
    labels: str = "label"
    images: str = "images"
    objects: str = ""
    wavelengths: tuple[float, ...] = (6166.0,)
    pixel: float = 0.396
    middle: int = 0
    filters: str = ""
    backbone: str = "imcat"
    architecture: str = "vit"
    epochs: int = 30
    batch: int = 64
    rate: float = 1e-3
    body_rate: float = 0.3
    decay: float = 0.05
    validation: float = 0.2
    patience: int = 6
    class_weights: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ConfigError(
                f"fine_tuning.validation is {self.validation}; expected a share between 0 and 1"
            )
        if min(self.epochs, self.batch, self.patience) < 1:
            raise ConfigError("fine_tuning: epochs, batch and patience are positive numbers")
        if not self.rate > 0:
            raise ConfigError(f"fine_tuning.rate is {self.rate}; expected a positive number")
        if not self.pixel > 0:
            raise ConfigError(f"fine_tuning.pixel is {self.pixel}; expected arcsec, more than 0")
        if not self.wavelengths or not all(w >= _SHORTEST for w in self.wavelengths):
            raise ConfigError(
                f"fine_tuning.wavelengths are {self.wavelengths}; expected one for each band, in angstrom"
            )
        if self.middle < 0:
            raise ConfigError(f"fine_tuning.middle is {self.middle}; expected pixels, or 0 for all")

    def smoke(self) -> FineTuneRecipe:
        """The same, for a minute."""
        return replace(self, epochs=1)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with a class.

    Attributes
    ----------
    given : tuple of Tensor, or Measured
        What `OwnHead` takes: values, valid pixels and conditions of stamps; or photometry.
    label : int64 Tensor ``[n]``
        Index of the class.
    """

    given: tuple[Tensor, Tensor, Tensor] | Measured
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.integer]) -> Labelled:
        """Some of them."""
        index = torch.from_numpy(np.asarray(rows, np.int64))
        if isinstance(self.given, Measured):
            some = Measured(**{name: value[index] for name, value in vars(self.given).items()})
            return Labelled(some, self.label[index])
        values, valid, conditions = self.given
        return Labelled((values[index], valid[index], conditions[index]), self.label[index])

    def turned(self, turn: int) -> Labelled:
        """Stamps in one of the eight symmetries of the square; photometry as it is."""
        if isinstance(self.given, Measured):
            return self
        values, valid, conditions = self.given
        maps = [torch.rot90(m, turn % 4, (-2, -1)) for m in (values, valid)]
        if turn >= 4:
            maps = [m.flip(-1) for m in maps]
        return Labelled((maps[0], maps[1], conditions), self.label)

    def logits(self, network: OwnHead, place: torch.device) -> Tensor:
        """What a network says."""
        if isinstance(self.given, Measured):
            out: Tensor = network(self.given.to(place))
        else:
            out = network(*(t.to(place) for t in self.given))
        return out


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned network and how it did on objects it did not see.

    Attributes
    ----------
    network : OwnHead
        Of the best epoch, on the CPU.
    temperature : float
        That makes its probabilities fit.
    history : list of dict
        For each epoch: losses, accuracy and macro-F1 on the validation rows.
    best : int
        Index of the epoch that was kept.
    """

    network: OwnHead
    temperature: float
    history: list[dict[str, float]]
    best: int


def split_objects(
    label: NDArray[np.integer], objects: NDArray[Any] | None, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, stratified by class; all rows of an object on one side.

    Parameters
    ----------
    label : int array ``[n]``
        Index of the class.
    objects : array ``[n]`` or None
        Name of each row's object.
    share : float
        Of the objects of each class, for validation: at least one, and not all.
    seed : int
        Of the choice.

    Raises
    ------
    UsageError
        If a class has fewer than two objects.
    """
    names = np.arange(len(label)) if objects is None else np.asarray(objects)
    _, first, own = np.unique(names, return_index=True, return_inverse=True)
    kind = np.asarray(label)[first]  # an object is stratified by the class of its first row
    rng = np.random.default_rng(seed)
    held = np.zeros(len(first), bool)
    for k in np.unique(kind):
        members = np.flatnonzero(kind == k)
        if len(members) < 2:
            raise UsageError(
                f"class {int(k)} has {len(members)} object; expected at least two, one to judge by"
            )
        number = min(len(members) - 1, max(1, round(share * len(members))))
        held[rng.permutation(members)[:number]] = True
    judged = held[own.ravel()]
    return np.flatnonzero(~judged), np.flatnonzero(judged)


def macro_f1(label: NDArray[np.integer], said: NDArray[np.integer], classes: int) -> float:
    """Mean over the classes of F1; classes that appear in neither are left out."""
    scores = []
    for k in range(classes):
        both = float(((label == k) & (said == k)).sum())
        either = float((label == k).sum() + (said == k).sum())
        if either:
            scores.append(2 * both / either)
    return float(np.mean(scores))


def fine_tune(
    network: OwnHead,
    rows: Labelled,
    judged: Labelled,
    recipe: FineTuneRecipe,
    *,
    device: str | None = None,
) -> Tuned:
    """Train all of a network, its last layer fastest.

    Parameters
    ----------
    network : OwnHead
        With the weights to start from.
    rows, judged : Labelled
        For training, and for stopping.
    recipe : FineTuneRecipe
        How.
    device : str, optional
        ``cpu`` or ``cuda``; default: a GPU where there is one.
    """
    place = training_device(device)
    use_all_cores()
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = network.to(place).train()
    body, last = (
        parameter_groups(network.body, recipe.decay),
        [{"params": [*network.norm.parameters(), *network.last.parameters()], "weight_decay": recipe.decay}],
    )
    optimiser = torch.optim.AdamW([*body, *last], lr=recipe.rate)
    classes = int(network.last.out_features)
    weight = _class_weights(rows.label, classes).to(place) if recipe.class_weights else None
    size = min(recipe.batch, len(rows))
    each = max(1, len(rows) // size)
    average, step = Average(network, 0.99), 0
    history: list[dict[str, float]] = []
    best, state = 0, {k: v.detach().clone() for k, v in network.state_dict().items()}
    for epoch in range(recipe.epochs):
        order, total = rng.permutation(len(rows)), 0.0
        for piece in np.array_split(order, each):
            for k, group in enumerate(optimiser.param_groups):
                highest = recipe.rate * (recipe.body_rate if k < len(body) else 1.0)
                group["lr"] = cosine_rate(highest, step, recipe.epochs * each)
            batch = rows.take(piece).turned(int(rng.integers(_MAX_TURNS)))
            with half_precision(place):
                logits = batch.logits(network, place).float()
            loss = nn.functional.cross_entropy(logits, batch.label.to(place), weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
            optimiser.step()
            average.update(network, step)
            total, step = total + float(loss.detach()) * len(piece), step + 1
        history.append({"loss": total / len(rows)} | _judge(network, average, judged, weight, place))
        if not math.isfinite(history[-1]["validation"]):
            raise UsageError(
                f"the loss of epoch {epoch + 1} is not a number; expected finite stamps or magnitudes, or a smaller "
                f"fine_tuning.rate than {recipe.rate}"
            )
        if history[-1]["validation"] <= min(h["validation"] for h in history):
            best, state = epoch, {k: v.clone() for k, v in average.state.items()}
        elif epoch - best >= recipe.patience:
            break
    network.load_state_dict(state)
    network = network.cpu().eval()
    return Tuned(network, _temperature(network, judged), history, best)


def _class_weights(label: Tensor, classes: int) -> Tensor:
    """The inverse of each class's number, with a mean of one over the rows."""
    count = torch.bincount(label, minlength=classes).float()
    return len(label) / (count.clamp_min(1) * (count > 0).sum())


@torch.no_grad()
def all_logits(network: OwnHead, rows: Labelled, place: torch.device) -> Tensor:
    """Logits of all rows, batch by batch."""
    parts: Sequence[NDArray[np.int64]] = np.array_split(
        np.arange(len(rows)), max(1, len(rows) // _JUDGED_BATCH)
    )
    return torch.cat([rows.take(part).logits(network, place).float().cpu() for part in parts])


def _judge(
    network: OwnHead, average: Average, judged: Labelled, weight: Tensor | None, place: torch.device
) -> dict[str, float]:
    """Loss and scores of the averaged weights."""
    own = {k: v.detach().clone() for k, v in network.state_dict().items()}
    network.load_state_dict(average.state)
    network.eval()
    logits = all_logits(network, judged, place)
    network.load_state_dict(own)
    network.train()
    loss = nn.functional.cross_entropy(logits, judged.label, None if weight is None else weight.cpu())
    said, label = logits.argmax(1).numpy(), judged.label.numpy()
    return {
        "validation": float(loss),
        "accuracy": float((said == label).mean()),
        "macro_f1": macro_f1(label, said, logits.shape[1]),
    }


def _temperature(network: OwnHead, judged: Labelled) -> float:
    """What divides the logits so that the validation rows are most probable; near 1 where they are few."""
    logits = all_logits(network, judged, torch.device("cpu")).double()

    def loss(log_t: float) -> float:
        fit = nn.functional.cross_entropy(logits / float(np.exp(log_t)), judged.label, reduction="sum")
        return float(fit) + 5 * log_t**2

    return float(np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x))
