"""Pre-training of the backbone without labels, on stamps of simulated and of real tiles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from imcat.backbones.beit import MaskedTokens, Tokenizer
from imcat.backbones.mae import MaskedAutoencoder
from imcat.backbones.vit import VitSettings
from imcat.errors import ConfigError
from imcat.train.loop import (
    Average,
    Log,
    cosine_rate,
    half_precision,
    load_checkpoint,
    parameter_groups,
    save_checkpoint,
    training_device,
    use_all_cores,
)
from imcat.train.stamp_sets import StampBatch, StampSet, stamp_batches

__all__ = ["PretrainRecipe", "pretrain"]

_N = TypeVar("_N", bound=nn.Module)
_WITHHELD = 0.3  # share of the stamps that lack bands at the input
_CLIP = 1.0
_CHECKED = 20  # batches of a validation


@dataclass(frozen=True)
class PretrainRecipe:
    """How the backbone is pre-trained.

    Attributes
    ----------
    name : str
        Of the weights.
    method : str
        ``mae``: paint the hidden patches; ``beit``: guess their words.
    width, depth, heads, patch, size, mixtures : int
        Of the transformer (`imcat.backbones.vit.VitSettings`).
    masked : float
        Share of the patches that are hidden.
    steps, batch : int
        Steps of the optimiser, stamps in each.
    tokenizer_steps, words : int
        Of ``beit``: steps of the tokenizer's training, words of its codebook.
    rate, decay : float
        Largest learning rate, weight decay.
    seed : int
        Of the order and of the masks.
    real : tuple of str
        Real tiles whose sources are added, below the folder of real data (``IMCAT_DATA``).
    """

    name: str = "backbone"
    method: str = "mae"
    width: int = 128
    depth: int = 6
    heads: int = 4
    patch: int = 8
    size: int = 40
    mixtures: int = 8
    masked: float = 0.75
    steps: int = 6000
    batch: int = 128
    tokenizer_steps: int = 1000
    words: int = 512
    rate: float = 1.5e-3
    decay: float = 0.05
    seed: int = 1
    real: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = (
            "width",
            "depth",
            "heads",
            "patch",
            "size",
            "mixtures",
            "steps",
            "batch",
            "tokenizer_steps",
            "words",
        )
        if any(getattr(self, name) < 1 for name in numbers):
            raise ConfigError(f"{', '.join(numbers)}: expected positive numbers")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} and heads {self.heads}: expected a multiple")
        if self.size % self.patch:
            raise ConfigError(f"size {self.size} and patch {self.patch}: expected a multiple")
        if not 0 < self.masked < 1:
            raise ConfigError(f"masked is {self.masked}; expected a share of the patches, between 0 and 1")
        if self.method not in ("mae", "beit"):
            raise ConfigError(f"method is {self.method!r}; expected mae or beit")

    def smoke(self) -> PretrainRecipe:
        """The same, for a minute."""
        return replace(
            self, steps=4, tokenizer_steps=4, words=32, batch=16, real=(), width=32, depth=1, heads=2
        )

    @property
    def vit(self) -> VitSettings:
        """Size of the transformer."""
        return VitSettings(self.size, self.patch, self.width, self.depth, self.heads, self.mixtures)


def _shown(valid: Tensor, rng: np.random.Generator) -> Tensor:
    """Which bands the encoder sees: all of them, or some."""
    n, bands = valid.shape[:2]
    keep = np.ones((n, bands), np.float32)
    few = rng.random(n) < _WITHHELD
    keep[few] = rng.random((int(few.sum()), bands)) < 0.5
    empty = keep.sum(1) == 0
    keep[empty, rng.integers(0, bands, int(empty.sum()))] = 1
    return torch.from_numpy(keep)


def pretrain(
    recipe: PretrainRecipe,
    training: Sequence[StampSet],
    validation: Sequence[StampSet],
    out: Path,
    *,
    resume: bool = False,
    device: str | None = None,
) -> nn.Module:
    """Pre-train a backbone.

    Parameters
    ----------
    recipe : PretrainRecipe
        Size, method and length.
    training, validation : sequence of StampSet
        Stamps of different tiles.
    out : path
        Folder of log and checkpoint.
    resume : bool
        Go on from the checkpoint there.
    device : str, optional
        ``cpu`` or ``cuda``; default: a GPU where there is one.

    Returns
    -------
    torch.nn.Module
        The averaged network with its decoder, on the CPU.
    """
    place = training_device(device)
    use_all_cores()
    torch.manual_seed(recipe.seed)
    run = _Run(recipe, training, validation, place, resume)
    if recipe.method == "mae":
        return run.fit(lambda: MaskedAutoencoder(recipe.vit, recipe.masked), recipe.steps, out)
    tokenizer = run.fit(
        lambda: Tokenizer(recipe.vit, recipe.words), recipe.tokenizer_steps, out / "tokenizer"
    )
    return run.fit(
        lambda: MaskedTokens(recipe.vit, copy.deepcopy(tokenizer), recipe.masked),
        recipe.steps,
        out,
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """What all stages of a pre-training share."""

    recipe: PretrainRecipe
    training: Sequence[StampSet]
    validation: Sequence[StampSet]
    place: torch.device
    resume: bool

    def fit(self, make: Callable[[], _N], steps: int, out: Path) -> _N:
        """Train what `make` builds; the averaged network on the CPU."""
        out.mkdir(parents=True, exist_ok=True)
        recipe, place = self.recipe, self.place
        network = make().to(place).train()
        optimiser = torch.optim.AdamW(
            parameter_groups(network, recipe.decay), lr=recipe.rate, betas=(0.9, 0.95)
        )
        average, checkpoint, log = Average(network), out / "checkpoint.pt", Log(out / "log.jsonl")
        begin = 0
        if self.resume and checkpoint.is_file():
            begin = load_checkpoint(checkpoint, network, average, optimiser, place)
        rng = np.random.default_rng([recipe.seed, begin])
        masks = torch.Generator().manual_seed(recipe.seed + begin)
        every, total, seen = max(1, steps // 20), 0.0, 0
        drawn = stamp_batches(self.training, recipe.batch, rng)
        for step in range(begin, steps):
            which, rows, turn = next(drawn)
            for group in optimiser.param_groups:
                group["lr"] = cosine_rate(recipe.rate, step, steps)
            loss = _loss(network, self.training[which].batch(rows, turn), rng, masks, place)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
            optimiser.step()
            average.update(network, step)
            total, seen = total + float(loss.detach()), seen + 1
            if (step + 1) % every == 0 or step + 1 == steps:
                judged = make().to(place)
                judged.load_state_dict(average.state)
                log.write(
                    step + 1,
                    {"loss": total / seen, "validation": _judge(judged, recipe, self.validation, place)},
                )
                save_checkpoint(checkpoint, step + 1, network, average, optimiser)
                total, seen = 0.0, 0
        final = make()
        final.load_state_dict(average.state)
        return final.eval()


def _loss(
    network: nn.Module,
    batch: StampBatch,
    rng: np.random.Generator,
    masks: torch.Generator,
    place: torch.device,
) -> Tensor:
    shown = _shown(batch.valid, rng)
    with half_precision(place):
        painted = network(
            batch.values.to(place), batch.valid.to(place), batch.conditions.to(place), shown.to(place), masks
        )
    loss: Tensor = painted.loss
    return loss


def _judge(
    network: nn.Module, recipe: PretrainRecipe, sets: Sequence[StampSet], place: torch.device
) -> float:
    """Mean loss over some batches of the validation stamps, the same ones each time."""
    rng, masks = np.random.default_rng(recipe.seed + 7), torch.Generator().manual_seed(recipe.seed + 7)
    drawn, total = stamp_batches(sets, recipe.batch, rng), 0.0
    network.eval()
    with torch.no_grad():
        for _ in range(_CHECKED):
            which, rows, _ = next(drawn)
            total += float(_loss(network, sets[which].batch(rows), rng, masks, place))
    return total / _CHECKED
