"""Training of the classifier, with the backbone, on simulated sources and on real tables at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from imcat.backbones.choice import BackboneSettings, build_backbone
from imcat.classify.network import Answer, ClassifierSettings, Measured, Seeing, redshift_loss
from imcat.errors import ConfigError
from imcat.simulate.sources import Kind
from imcat.train.classification_data import LabelledSet, Labels, TableSet, drop
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

__all__ = [
    "LOSS_WEIGHTS", "ClassifierRecipe", "answers", "classification_loss", "judge", "table_answers", "table_losses",
    "take", "train_classifier",
]  # fmt: skip

_CLIP = 1.0
_JUDGED = 2048  # sources of each set
_FLAGGED = 0.5  # share of the rows of real tables that say so: the others are to be known without it


@dataclass(frozen=True)
class ClassifierRecipe:
    """How the classifier is trained.

    Attributes
    ----------
    name : str
        Of the weights.
    backbone : str
        Weights to start from: a folder that holds them, or ``imcat`` for those that come with it; empty: none.
    architecture : str
        Without weights to start from: a name of `imcat.backbones.choice.BACKBONES`, or of a convolutional network of timm.
    steps : int
        Of the optimiser, for backbone and heads together; 0 only where `weights` are given.
    stamps, rows : int
        Simulated sources and rows of real tables in each step.
    rate, vision_rate, decay : float
        Largest learning rates of the classifier and of the backbone, weight decay.
    no_stamp, no_photometry : float
        Shares of the simulated sources that lose their stamp, or their photometry.
    width, depth, heads, components : int
        Of the classifier (`imcat.classify.network.ClassifierSettings`).
    tables : tuple of str
        Real tables to train on, too (`imcat.train.spectroscopic.TABLES`).
    head_steps : int
        Of the second stage, in which only the heads learn (`imcat.train.head_stage`).
    head_rate : float
        Its largest learning rate.
    weights : str
        Classifier to go on from: a folder that holds one, or ``imcat`` for the one that comes with it; empty: none.
    drawn : int
        Rows of a table in CSST's bands that is drawn from the simulator's populations (`imcat.train.drawn_tables`).
    seed : int
        Of the order.
    """

    name: str = "classifier"
    backbone: str = "imcat"
    architecture: str = "vit"
    steps: int = 6000
    stamps: int = 128
    rows: int = 512
    rate: float = 1e-3
    vision_rate: float = 3e-4
    decay: float = 0.02
    no_stamp: float = 0.3
    no_photometry: float = 0.2
    width: int = 128
    depth: int = 3
    heads: int = 4
    components: int = 10
    tables: tuple[str, ...] = ("sdss17", "dr7", "dr10", "quasars", "boss", "main", "ugriz", "2slaq", "vvds")
    head_steps: int = 0
    head_rate: float = 1e-3
    weights: str = ""
    drawn: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.steps + bool(self.weights), self.stamps, self.rows) < 1:
            raise ConfigError(
                "steps, stamps and rows: expected positive numbers; steps may be 0 where weights are named"
            )
        if min(self.width, self.depth, self.heads, self.components) < 1:
            raise ConfigError("width, depth, heads and components: expected positive numbers")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} and heads {self.heads}: expected a multiple")
        if not 0 <= self.no_stamp + self.no_photometry <= 1:
            raise ConfigError("no_stamp and no_photometry: expected shares whose sum is at most 1")

    def smoke(self) -> ClassifierRecipe:
        """The same, for a minute, without data that are not simulated."""
        return replace(
            self,
            steps=4,
            head_steps=min(2, self.head_steps),
            stamps=16,
            rows=32,
            tables=(),
            backbone="",
            weights="",
            drawn=0,  # so few sources do not tell how deep it is
            width=32,
            depth=1,
            heads=2,
        )

    def network(self, vision: int) -> ClassifierSettings:
        """Size of the classifier behind a backbone of vectors of length `vision`."""
        return ClassifierSettings(vision, self.width, self.depth, self.heads, self.components)


def classification_loss(answer: Answer, labels: Labels) -> dict[str, Tensor]:
    """Mean losses by head; heads without a label in the batch give none.

    The class of a source follows from the likelihoods that the network gives, times the mix of the sample: so that
    what is learned are likelihoods, whatever the sample.
    """
    losses: dict[str, Tensor] = {}
    known = labels.kind >= 0
    if known.any():
        losses["kind"] = nn.functional.cross_entropy((answer.kind + labels.mix)[known], labels.kind[known])
    tested = torch.isfinite(labels.lens)
    if tested.any():
        losses["lens"] = nn.functional.binary_cross_entropy_with_logits(
            (answer.lens + labels.lens_mix)[tested], labels.lens[tested]
        )
    shaped = labels.morphology >= 0
    if shaped.any():
        losses["morphology"] = nn.functional.cross_entropy(
            answer.morphology[shaped], labels.morphology[shaped]
        )
    built = torch.isfinite(labels.structure).all(1)
    if built.any():
        wanted = labels.structure[built].clone()
        wanted[:, 0] = torch.logit(wanted[:, 0])
        value, width = answer.structure[built, :2], answer.structure[built, 2:].clamp(-4, 4)
        losses["structure"] = (0.5 * ((value - wanted) / width.exp()) ** 2 + width).mean()
    for k, kind in enumerate((Kind.GALAXY, Kind.QUASAR)):
        own = (labels.known == kind) & torch.isfinite(labels.redshift)
        if own.any():
            losses[f"redshift_{kind.name.lower()}"] = (
                redshift_loss(answer.redshift[own, k], labels.redshift[own]).clamp_max(8.0).mean()
            )
    return losses


#: What each head's loss counts.
LOSS_WEIGHTS = {
    "kind": 1.0,
    "lens": 1.0,
    "morphology": 0.3,
    "structure": 0.05,
    "redshift_galaxy": 0.3,
    "redshift_quasar": 0.3,
}


def train_classifier(
    recipe: ClassifierRecipe,
    backbone: BackboneSettings,
    start: dict[str, Tensor] | None,
    training: Sequence[LabelledSet],
    validation: Sequence[LabelledSet],
    tables: Sequence[TableSet],
    checked: Sequence[TableSet],
    out: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    whole: dict[str, Tensor] | None = None,
) -> Seeing:
    """Train.

    Parameters
    ----------
    recipe : ClassifierRecipe
        How.
    backbone : BackboneSettings
        Which one.
    start : dict of Tensor, optional
        Weights of the backbone to start from.
    training, validation : sequence of LabelledSet
        Simulated sources of different tiles.
    tables, checked : sequence of TableSet
        Rows of real tables: train split, validation split.
    out : path
        Folder of log and checkpoint.
    resume : bool
        Go on from the checkpoint there.
    device : str, optional
        ``cpu`` or ``cuda``; default: a GPU where there is one.
    whole : dict of Tensor, optional
        Weights of a classifier, backbone included, to go on from.

    Returns
    -------
    Seeing
        With averaged weights, on the CPU.
    """
    out.mkdir(parents=True, exist_ok=True)
    place = training_device(device)
    use_all_cores()
    torch.manual_seed(recipe.seed)
    width = build_backbone(backbone).width
    network = Seeing(backbone, recipe.network(width)).to(place)
    if start is not None:
        network.vision.load_state_dict(start)
    if whole is not None:
        network.load_state_dict(whole)
    slow = parameter_groups(network.vision, recipe.decay)
    fast = parameter_groups(network.classifier, recipe.decay)
    optimiser = torch.optim.AdamW([*slow, *fast], lr=recipe.rate)
    average, checkpoint, log = Average(network), out / "checkpoint.pt", Log(out / "log.jsonl")
    begin = (
        load_checkpoint(checkpoint, network, average, optimiser, place)
        if resume and checkpoint.is_file()
        else 0
    )
    rng = np.random.default_rng([recipe.seed, begin, 5])
    every, total, seen = max(1, recipe.steps // 20), dict.fromkeys(LOSS_WEIGHTS, 0.0), 0
    for step in range(begin, recipe.steps):
        for k, group in enumerate(optimiser.param_groups):
            highest = recipe.vision_rate if k < len(slow) else recipe.rate
            group["lr"] = cosine_rate(highest, step, recipe.steps)
        losses = _step(network, recipe, training, tables, rng, place)
        loss = torch.stack([LOSS_WEIGHTS[name] * value for name, value in losses]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        average.update(network, step)
        seen += 1
        for name, value in losses:
            total[name] += float(value.detach())
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            judged = Seeing(backbone, recipe.network(width)).to(place)
            judged.load_state_dict(average.state)
            log.write(
                step + 1, {k: v / seen for k, v in total.items()} | judge(judged, validation, checked, place)
            )
            save_checkpoint(checkpoint, step + 1, network, average, optimiser)
            total, seen = dict.fromkeys(LOSS_WEIGHTS, 0.0), 0
    final = Seeing(backbone, recipe.network(width))
    final.load_state_dict(average.state)
    return final.eval()


def _step(
    network: Seeing,
    recipe: ClassifierRecipe,
    training: Sequence[LabelledSet],
    tables: Sequence[TableSet],
    rng: np.random.Generator,
    place: torch.device,
) -> list[tuple[str, Tensor]]:
    """Losses of one step: a batch of simulated sources, and rows of the tables."""
    out: list[tuple[str, Tensor]] = []
    size = np.array([len(s) for s in training], float)
    chosen = training[int(rng.choice(len(training), p=size / size.sum()))]
    rows = rng.choice(len(chosen), min(recipe.stamps, len(chosen)), replace=False)
    out += list(_simulated_losses(network, recipe, chosen, rows, rng, place).items())
    return out + table_losses(network, tables, recipe.rows, rng, place)


def table_losses(
    network: Seeing, tables: Sequence[TableSet], rows: int, rng: np.random.Generator, place: torch.device
) -> list[tuple[str, Tensor]]:
    """Losses of some rows of each table, by the root of its size: small tables count for more than their rows."""
    if not tables:
        return []
    weight = np.sqrt([float(len(t)) for t in tables])
    share = weight / weight.sum()
    given, labels = [], []
    for table, part in zip(tables, share, strict=True):
        number = max(8, round(part * rows))
        picked = torch.from_numpy(rng.choice(len(table), min(number, len(table)), replace=False))
        photometry, _ = drop(
            take(table.measured, picked), rng, bands=0.1, kinds=0.15, errors=0.15, dust=0.0, all_of_it=0.0
        )
        photometry.spectroscopic[torch.from_numpy(rng.random(len(picked)) > _FLAGGED)] = 0.0
        given.append(photometry)
        labels.append(_to(table.labels.take(picked), place))
    # One pass for all of them: a band that a table does not have is one that is missing.
    together = _padded(given)
    n = len(together.extra)
    blank = torch.zeros(n, network.vision.width, device=place)
    with half_precision(place):
        answer = network.classifier(together.to(place), blank, torch.zeros(n, device=place))
    out, start = [], 0
    for own, part in zip(labels, share, strict=True):
        end = start + len(own.kind)
        said = Answer(*(getattr(answer, f)[start:end] for f in Answer.__dataclass_fields__))
        out += [(name, value * float(part)) for name, value in classification_loss(said, own).items()]
        start = end
    return out


def _padded(parts: Sequence[Measured]) -> Measured:
    """Photometry of several lists as one, with as many bands as the longest."""
    widest = max(p.mags.shape[1] for p in parts)

    def wider(values: Tensor, empty: float) -> Tensor:
        more = values.new_full((len(values), widest - values.shape[1], *values.shape[2:]), empty)
        return torch.cat([values, more], 1)

    nan = float("nan")
    return Measured(
        torch.cat([wider(p.mags, nan) for p in parts]),
        torch.cat([wider(p.errors, nan) for p in parts]),
        torch.cat([wider(p.extinction, nan) for p in parts]),
        torch.cat([wider(p.wavelength, 0.0) for p in parts]),
        torch.cat([p.extra for p in parts]),
        torch.cat([p.spectroscopic for p in parts]),
    )


def _simulated_losses(
    network: Seeing,
    recipe: ClassifierRecipe,
    chosen: LabelledSet,
    rows: np.ndarray,
    rng: np.random.Generator,
    place: torch.device,
) -> dict[str, Tensor]:
    stamps = chosen.stamps.batch(rows, int(rng.integers(8)))
    index = torch.from_numpy(rows)
    fate = rng.random(len(rows))
    blind = torch.from_numpy(fate < recipe.no_stamp) & torch.isfinite(chosen.measured.mags[index]).any((1, 2))
    photometry, kept = drop(
        take(chosen.measured, index), rng, bands=0.35, kinds=0.3, errors=0.2, dust=0.4, all_of_it=0.0
    )
    bare = torch.from_numpy(fate > 1 - recipe.no_photometry)
    photometry.mags[bare], photometry.extra[bare] = float("nan"), float("nan")
    valid = stamps.valid * kept[..., None, None]
    blind |= ~(valid.flatten(1).amax(1) > 0)
    see = (~blind).nonzero()[:, 0]
    vision = torch.zeros(len(rows), network.vision.width, device=place)
    with half_precision(place):
        seen_vectors = network.vision(
            stamps.values[see].to(place), valid[see].to(place), stamps.conditions[see].to(place)
        )
        vision = vision.index_copy(0, see.to(place), seen_vectors.float())
        answer = network.classifier(photometry.to(place), vision, (~blind).float().to(place))
    return classification_loss(answer, _to(chosen.labels.take(index), place))


def take(photometry, rows: Tensor):  # type: ignore[no-untyped-def]
    """Some of the sources."""
    return type(photometry)(**{k: v[rows] for k, v in vars(photometry).items()})


def _to(labels: Labels, place: torch.device) -> Labels:
    return Labels(**{k: v.to(place) for k, v in vars(labels).items()})


@torch.no_grad()
def answers(
    network: Seeing,
    chosen: LabelledSet,
    rows: np.ndarray,
    place: torch.device,
    *,
    see: bool = True,
    measure: bool = True,
) -> Answer:
    """Answers on simulated sources with stamp and photometry, or one of them."""
    parts = []
    for piece in np.array_split(rows, max(1, len(rows) // 1024)):
        index = torch.from_numpy(piece)
        photometry = take(chosen.measured, index)
        if not measure:
            photometry.mags[:], photometry.extra[:] = float("nan"), float("nan")
        vision = torch.zeros(len(piece), network.vision.width, device=place)
        if see:
            s = chosen.stamps.batch(piece)
            with half_precision(place):
                vision = network.vision(s.values.to(place), s.valid.to(place), s.conditions.to(place)).float()
        seen = torch.full((len(piece),), float(see), device=place)
        parts.append(network.classifier(photometry.to(place), vision, seen))
    return Answer(*(torch.cat([getattr(p, f) for p in parts]).cpu() for f in Answer.__dataclass_fields__))


@torch.no_grad()
def table_answers(network: Seeing, table: TableSet, place: torch.device) -> Answer:
    """Answers on rows of a real table, which say that they are of one."""
    parts = []
    for piece in np.array_split(np.arange(len(table)), max(1, len(table) // 4096)):
        index = torch.from_numpy(piece)
        blank = torch.zeros(len(piece), network.vision.width, device=place)
        parts.append(network.classifier(take(table.measured, index).to(place), blank, blank[:, 0]))
    return Answer(*(torch.cat([getattr(p, f) for p in parts]).cpu() for f in Answer.__dataclass_fields__))


def judge(
    network: Seeing, validation: Sequence[LabelledSet], checked: Sequence[TableSet], place: torch.device
) -> dict[str, float]:
    """Figures by which a training is followed: accuracies, and scatter of the redshifts."""
    network.eval()
    found: dict[str, float] = {}
    for chosen in validation:
        rows = np.arange(min(_JUDGED, len(chosen)))
        label = chosen.labels.take(torch.from_numpy(rows))
        name = f"{len(chosen.photometry.wavelength)}b"
        if not np.isfinite(chosen.photometry.total).any():
            answer = answers(network, chosen, rows, place)
            found[f"{name}_lens_auc_alike"] = _auc(answer.lens.numpy(), label.lens.numpy() > 0.5)
            continue
        for mode, see, measure in (("", True, True), ("_image", True, False), ("_photometry", False, True)):
            answer = answers(network, chosen, rows, place, see=see, measure=measure)
            right = (answer.kind + label.mix).argmax(1) == label.kind
            found[f"{name}_kind{mode}"] = float(right.float().mean())
            if not mode:
                shape = label.kind == Kind.GALAXY
                found[f"{name}_morphology"] = float(
                    (answer.morphology.argmax(1) == label.morphology)[shape].float().mean()
                )
                found[f"{name}_lens_auc"] = _auc(answer.lens.numpy(), label.lens.numpy() > 0.5)
                found[f"{name}_z"] = _scatter(answer, label)
    for table in checked:
        answer = table_answers(network, table, place)
        if (table.labels.kind >= 0).all():
            right = (answer.kind + table.labels.mix).argmax(1) == table.labels.kind
            found[f"{table.name}_kind"] = float(right.float().mean())
        if torch.isfinite(table.labels.redshift).any() and table.name != "dr10":
            found[f"{table.name}_z"] = _scatter(answer, table.labels)
    return found


def _scatter(answer: Answer, labels: Labels) -> float:
    """Robust scatter of (z_phot - z) / (1 + z) of galaxies, or of quasars where there are no galaxies."""
    kind = Kind.GALAXY if (labels.known == Kind.GALAXY).any() else Kind.QUASAR
    own = (labels.known == kind) & torch.isfinite(labels.redshift)
    if not own.any():
        return float("nan")
    from imcat.classify.densities import Densities

    density = Densities.of(answer.redshift[own, 0 if kind == Kind.GALAXY else 1].numpy())
    z = labels.redshift[own].numpy()
    point = density.quantile(0.5) if kind == Kind.GALAXY else density.mode()
    dz = (point - z) / (1 + z)
    return float(1.4826 * np.median(np.abs(dz - np.median(dz))))


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    from scipy.stats import rankdata

    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))
