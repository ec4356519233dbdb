"""The second stage of the classifier's training: the heads alone, on what the finished backbone sees.

What the backbone sees of every stamp is computed once; a step then costs so little that the heads can see the tables and
the simulated sources many times more than the backbone did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imcat.classify.network import Seeing
from imcat.train.classification import (
    LOSS_WEIGHTS,
    ClassifierRecipe,
    classification_loss,
    judge,
    table_losses,
    take,
)
from imcat.train.classification_data import LabelledSet, TableSet, drop
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

__all__ = ["train_heads"]

_BATCH = 512
_CLIP = 1.0
_LOGGED = 8  # times


@dataclass(frozen=True, eq=False)
class _Seen:
    """A set with what the backbone sees of its stamps, ``[n, width]``."""

    own: LabelledSet
    vision: Tensor


def train_heads(
    network: Seeing,
    recipe: ClassifierRecipe,
    training: Sequence[LabelledSet],
    validation: Sequence[LabelledSet],
    tables: Sequence[TableSet],
    checked: Sequence[TableSet],
    out: Path,
    *,
    resume: bool = False,
    device: str | None = None,
) -> Seeing:
    """Go on with the heads; parameters are those of `imcat.train.classification.train_classifier`."""
    place = training_device(device)
    use_all_cores()
    torch.manual_seed(recipe.seed + 1)
    network = network.to(place)
    heads = network.classifier.train()
    optimiser = torch.optim.AdamW(parameter_groups(heads, recipe.decay), lr=recipe.head_rate)
    average, checkpoint, log = Average(heads), out / "heads.pt", Log(out / "heads.jsonl")
    begin = 0
    if resume and checkpoint.is_file():
        begin = load_checkpoint(checkpoint, heads, average, optimiser, place)
    seen = [_Seen(own, _see(network, own, place)) for own in training] if begin < recipe.head_steps else []
    rng = np.random.default_rng([recipe.seed, begin, 9])
    every, total, count = max(1, recipe.head_steps // _LOGGED), dict.fromkeys(LOSS_WEIGHTS, 0.0), 0
    share = np.array([len(own) for own in training], float)
    for step in range(begin, recipe.head_steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(recipe.head_rate, step, recipe.head_steps)
        chosen = seen[int(rng.choice(len(seen), p=share / share.sum()))]
        losses = _simulated(network, recipe, chosen, rng, place)
        losses += table_losses(network, tables, recipe.rows, rng, place)
        loss = torch.stack([LOSS_WEIGHTS[name] * value for name, value in losses]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(heads.parameters(), _CLIP)
        optimiser.step()
        average.update(heads, step)
        count += 1
        for name, value in losses:
            total[name] += float(value.detach())
        if (step + 1) % every == 0 or step + 1 == recipe.head_steps:
            own = {k: v.detach().clone() for k, v in heads.state_dict().items()}
            heads.load_state_dict(average.state)
            log.write(
                step + 1,
                {k: v / count for k, v in total.items()} | judge(network, validation, checked, place),
            )
            heads.load_state_dict(own)
            heads.train()
            save_checkpoint(checkpoint, step + 1, heads, average, optimiser)
            total, count = dict.fromkeys(LOSS_WEIGHTS, 0.0), 0
    heads.load_state_dict(average.state)
    return network.cpu().eval()


@torch.no_grad()
def _see(network: Seeing, own: LabelledSet, place: torch.device) -> Tensor:
    """What the backbone sees of all stamps, in half precision, to keep it small."""
    network.vision.eval()
    parts: list[Tensor] = []
    for rows in np.array_split(np.arange(len(own)), max(1, len(own) // _BATCH)):
        stamps = own.stamps.batch(rows)
        with half_precision(place):
            vectors = network.vision(
                stamps.values.to(place), stamps.valid.to(place), stamps.conditions.to(place)
            )
        parts.append(vectors.half().cpu())
    return torch.cat(parts)


def _simulated(
    network: Seeing, recipe: ClassifierRecipe, chosen: _Seen, rng: np.random.Generator, place: torch.device
) -> list[tuple[str, Tensor]]:
    """Losses of simulated sources, some of them without stamp or photometry."""
    rows: NDArray[np.int64] = rng.choice(
        len(chosen.own), min(2 * recipe.stamps, len(chosen.own)), replace=False
    )
    index = torch.from_numpy(rows)
    fate = rng.random(len(rows))
    blind = torch.from_numpy(fate < recipe.no_stamp)
    blind &= torch.isfinite(chosen.own.measured.mags[index]).any((1, 2))
    photometry, _ = drop(
        take(chosen.own.measured, index), rng, bands=0.35, kinds=0.3, errors=0.2, dust=0.4, all_of_it=0.0
    )
    bare = torch.from_numpy(fate > 1 - recipe.no_photometry)
    photometry.mags[bare], photometry.extra[bare] = float("nan"), float("nan")
    vision = chosen.vision[index].float()
    with half_precision(place):
        answer = network.classifier(photometry.to(place), vision.to(place), (~blind).float().to(place))
    labels = chosen.own.labels.take(index)
    labels = type(labels)(**{k: v.to(place) for k, v in vars(labels).items()})
    return list(classification_loss(answer, labels).items())
