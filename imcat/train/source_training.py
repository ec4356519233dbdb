"""Pre-training and training of the classifier as `imcat train` runs them: samples, training, weights and card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imcat.backbones.choice import BackboneSettings, named_backbone, to_card
from imcat.backbones.files import BACKBONE_FORMAT, load_backbone
from imcat.classify.network import ClassifierSettings
from imcat.classify.own_classes import OWN_FORMAT, OwnHead
from imcat.classify.photometry import GLOBALS, SHARP
from imcat.classify.trained import TrainedClassifier, load_classifier
from imcat.errors import ConfigError, InputError
from imcat.simulate.filters import FilterSet
from imcat.simulate.population_tables import data_folder
from imcat.simulate.scene import Models
from imcat.simulate.split import Split
from imcat.stamps import StampSettings
from imcat.train.card_text import write_with_card
from imcat.train.classification import ClassifierRecipe, judge, train_classifier
from imcat.train.classification_card import write_classifier
from imcat.train.classification_data import LabelledSet, TableSet, simulated_sets, table_set, without_fits
from imcat.train.drawn_tables import DRAWN_SURVEY, depths_of, drawn_table
from imcat.train.fine_tuning import FineTuneRecipe, fine_tune, split_objects
from imcat.train.head_stage import train_heads
from imcat.train.looks import refit_looks
from imcat.train.own_data import read_rows, read_stamps
from imcat.train.pretrain import PretrainRecipe, pretrain
from imcat.train.source_samples import (
    SampleSettings,
    build_samples,
    read_sample,
    real_samples,
)
from imcat.train.spectroscopic import TABLES, read_table
from imcat.train.stamp_sets import StampSet

__all__ = ["run_classification", "run_fine_tuning", "run_pretraining"]

_UNFITTED = 3  # one tile of so many also teaches what a run without PSF and model photometry knows
_BACKBONE_FAILURES = (
    "light farther out than the stamp, and structure finer than its pixels, is not seen",
    "its patches are eight pixels wide: arcs and arms narrower than a patch are told poorly, and single bands of a few thousand labelled "
    "stamps better by a convolutional network of their own",
    "it was trained on pixels of 0.396 and 0.074 arcsec; how well it sees others was not measured",
)
_EVERY = 10  # one tile of so many judges, and does not train


def run_pretraining(
    recipe: PretrainRecipe,
    skies: Sequence[SampleSettings],
    folder: Path,
    *,
    workers: int = 1,
    resume: bool = False,
) -> Path:
    """Pre-train a backbone and write it.

    Parameters
    ----------
    recipe : PretrainRecipe
        How.
    skies : sequence of SampleSettings
        Simulated tiles.
    folder : path
        For log, checkpoint, weights and card.
    workers : int
        Processes that simulate.
    resume : bool
        Go on from the checkpoint there.

    Returns
    -------
    path
        Of the card.
    """
    from safetensors.torch import save

    stamps = StampSettings(size=recipe.size)
    training, validation, _ = _paths(skies, folder.parent / "sources", stamps, workers)
    real = real_samples(recipe.real, folder.parent / "sources", stamps)
    network = pretrain(
        recipe,
        StampSet.gather([read_sample(p) for p in [*training, *real]]),
        StampSet.gather([read_sample(p) for p in validation]),
        folder,
        resume=resume,
    )
    data = save({k: v.contiguous() for k, v in network.encoder.state_dict().items()})  # type: ignore[union-attr,operator]
    card = {
        "description": "vision transformer for stamps in any bands, pre-trained without labels",
        "licence": "BSD-3-Clause",
        "method": recipe.method,
        "wavelengths": wavelengths_of([s.survey for s in skies]),
        "data": f"stamps of {len(training)} simulated and {len(real)} real tiles",
        "failures": list(_BACKBONE_FAILURES),
        **to_card(recipe.vit),
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
        "samples": [asdict(s) for s in skies],
    }
    return write_with_card(folder, recipe.name, data, BACKBONE_FORMAT, card)


def wavelengths_of(surveys: Sequence[str]) -> list[float]:
    """Shortest and longest effective wavelength of the surveys' bands, Å."""
    waves = np.concatenate([FilterSet.named(survey).wavelengths for survey in surveys])
    return [round(float(waves.min()), 1), round(float(waves.max()), 1)]


def run_classification(
    recipe: ClassifierRecipe,
    skies: Sequence[SampleSettings],
    folder: Path,
    *,
    workers: int = 1,
    resume: bool = False,
) -> Path:
    """Train a classifier, calibrate it and write it.

    Parameters
    ----------
    recipe : ClassifierRecipe
        How.
    skies, folder, workers, resume
        As for `run_pretraining`.

    Returns
    -------
    path
        Of the card.
    """
    backbone, start, before = _start(recipe)
    whole = before.network.state_dict() if before is not None else None
    training, validation, calibration = _paths(
        skies, folder.parent / "sources", StampSettings(size=backbone.size), workers
    )
    samples = [read_sample(p) for p in training]
    fitted = [s for s in samples if any("cmodel_flux" in name for name in s.columns)]
    learned = simulated_sets([*samples, *map(without_fits, fitted[::_UNFITTED])])
    del samples, fitted
    judged = simulated_sets([read_sample(p) for p in validation])
    tables, checked = real_tables(recipe.tables)
    more = [*tables, _drawn(recipe.drawn, learned)] if recipe.drawn else tables
    network = train_classifier(
        recipe, backbone, start, learned, judged, more, checked, folder, resume=resume, whole=whole
    )
    if recipe.head_steps:
        network = train_heads(network, recipe, learned, judged, more, checked, folder, resume=resume)
    refit_looks(network, learned)
    lenses = np.concatenate([s.true_magnitude[s.labels.lens.numpy() > 0.5] for s in learned])
    metrics = judge(network, judged, checked, torch.device("cpu"))
    del learned  # room for the sets to calibrate with
    sets = [
        own
        for own in (
            simulated_sets([read_sample(p) for p in [*validation, *calibration]]) if calibration else judged
        )
        if np.isfinite(own.photometry.total).any()
    ]
    return write_classifier(
        network, recipe, sets, tables, checked, lenses, [asdict(s) for s in skies], metrics, folder,
        before.card if before is not None else None,
    )  # fmt: skip


def _drawn(number: int, learned: Sequence[LabelledSet]) -> TableSet:
    """A drawn table as deep as the sharp tiles of the training, those of CSST, are."""
    for own in learned:
        psf = own.photometry.extra[:, GLOBALS.index("log_psf")]  # NaN where only stamps were cut
        sharp = np.median(psf[np.isfinite(psf)]) < np.log(SHARP) if np.isfinite(psf).any() else False
        if sharp and len(own.photometry.wavelength) == len(FilterSet.named(DRAWN_SURVEY)):
            depths = depths_of(own.photometry, own.labels.kind.numpy())
            return drawn_table(number, Models.load(), depths)
    raise ConfigError(
        f"classification.drawn is {number}, and no samples of {DRAWN_SURVEY} tell how deep that table is; "
        f"expected [[samples]] with survey = {DRAWN_SURVEY!r}, or drawn = 0"
    )


def run_fine_tuning(recipe: FineTuneRecipe, base: Path, folder: Path) -> Path:
    """Learn a user's own classes and write the network.

    Parameters
    ----------
    recipe : FineTuneRecipe
        How.
    base : path
        Folder that the recipe's paths are relative to.
    folder : path
        For weights and card.

    Returns
    -------
    path
        Of the card.
    """
    from safetensors.torch import save

    path = base / recipe.data
    torch.manual_seed(recipe.seed)
    if path.suffix.lower() == ".npz":
        settings, start = _backbone(recipe)
        own = read_stamps(path, recipe, settings)
        network = OwnHead(settings, len(own.classes))
        if start is not None:
            network.body.load_state_dict(start)
    else:
        trained = load_classifier()
        own = read_rows(path, recipe, trained.wavelengths)
        network = OwnHead(trained.network.classifier.settings, len(own.classes))
        if recipe.backbone:
            network.body.load_state_dict(trained.network.classifier.state_dict())
    rows, judged = split_objects(own.rows.label.numpy(), own.objects, recipe.validation, recipe.seed)
    tuned = fine_tune(network, own.rows.take(rows), own.rows.take(judged), recipe)
    body = tuned.network.body.settings
    card = {
        "classes": own.classes, "temperature": tuned.temperature, **own.card,
        "rows": len(rows), "judged": len(judged), "epochs": len(tuned.history), "best_epoch": tuned.best + 1,
        **{k: round(v, 4) for k, v in tuned.history[tuned.best].items()},
        **({"classifier": asdict(body)} if isinstance(body, ClassifierSettings) else to_card(body)),
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
    }  # fmt: skip
    data = save({k: v.contiguous() for k, v in tuned.network.state_dict().items()})
    return write_with_card(folder, recipe.name, data, OWN_FORMAT, card)


def _paths(
    skies: Sequence[SampleSettings], folder: Path, stamps: StampSettings, workers: int
) -> tuple[list[Path], list[Path], list[Path]]:
    """Files of samples for training, judging and calibration, simulated where they are missing."""
    calibration: list[Path] = []
    training: list[Path] = []
    validation: list[Path] = []
    for sky in skies:
        paths = list(build_samples(folder, sky, stamps, workers))
        if sky.role == "calibration":
            calibration += paths
            continue
        held = paths[_EVERY - 1 :: _EVERY] or paths[-1:]
        validation += held
        training += [p for p in paths if p not in held] or paths
    return training, validation, calibration


def _start(
    recipe: ClassifierRecipe,
) -> tuple[BackboneSettings, dict[str, Tensor] | None, TrainedClassifier | None]:
    """Backbone, its weights, and a classifier, to start from."""
    if not recipe.weights:
        return *_backbone(recipe), None
    trained = load_classifier(*_named(recipe.weights, "classifier"))
    return trained.network.vision.settings, None, trained


def _backbone(recipe: ClassifierRecipe | FineTuneRecipe) -> tuple[BackboneSettings, dict[str, Tensor] | None]:
    if not recipe.backbone:
        return named_backbone(recipe.architecture), None
    network = load_backbone(*_named(recipe.backbone))
    return network.settings, network.state_dict()


def _named(place: str, what: str = "backbone") -> tuple[str, str | None]:
    """Name and folder of weights."""
    if place == "imcat":
        return what, None
    found = sorted(Path(place).glob("*.safetensors"))
    if not found:
        raise InputError(f"there is no {what}", path=place, expected="a folder that imcat train wrote")
    return found[0].stem, place


def real_tables(names: Sequence[str]) -> tuple[list[TableSet], list[TableSet]]:
    """Train and validation rows of real tables."""
    wrong = [name for name in names if name not in TABLES]
    if wrong:
        raise ConfigError(f"classification.tables names {wrong[0]!r}; expected some of {', '.join(TABLES)}")
    training, checked = [], []
    for name in names:
        table = read_table(name, data_folder())
        training.append(table_set(table.take(table.split == Split.TRAIN)))
        checked.append(table_set(table.take(table.split == Split.VALIDATION)))
    return training, checked
