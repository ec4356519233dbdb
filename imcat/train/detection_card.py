"""Weights of the detection network and their card, from a checkpoint."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.detect.network import DetectionNet
from imcat.detect.network_peaks import find_candidates
from imcat.detect.network_search import FORMAT
from imcat.detect.network_settings import NetworkSettings
from imcat.errors import InputError
from imcat.train.card_text import card_text
from imcat.train.detection_packs import load_views, simulate_samples
from imcat.train.detection_recipe import DetectionRecipe
from imcat.train.detection_samples import View
from imcat.train.detection_targets import Crop, real_candidates
from imcat.train.loop import training_device

__all__ = ["calibration", "isotonic", "judge", "working_point", "write_weights"]

Float64 = NDArray[np.float64]

_EDGE = 8.0  # pixels: border that is not judged
# On skies of another simulator lists are one to two per cent less pure than on our own; 0.95 is what a user asks for.
_AIM = 0.96
_FAILURES = (
    "sources closer than about one FWHM of the PSF are one",
    "sources of one band only count for less than their light there",
    "sources in the halos of very bright stars and galaxies are left out",
    "structure of large galaxies is at times taken for sources",
    "scores are calibrated for the mix of bands of the training: where one band is given they promise less than they hold",
    "on skies of another population lists are less pure than the scores say",
    "places of bright stars are worse than those of fits and of windowed centroids",
)
_NODES, _SPAN = 49, 6.0  # of the calibration, and how far it reaches in logits


def isotonic(value: Float64, real: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Probability as a rising function of a value: pool adjacent violators.

    Parameters
    ----------
    value : float64 array ``[n]``
        What the probability rises with.
    real : bool array ``[n]``
        What came of it.

    Returns
    -------
    value, probability : float64 arrays
        Nodes between which it runs linearly.
    """
    order = np.argsort(value, kind="stable")
    level, weight, middle = [], [], []
    for v, r in zip(value[order], real[order].astype(float), strict=True):
        level.append(r)
        weight.append(1.0)
        middle.append(v)
        while len(level) > 1 and level[-2] >= level[-1]:
            w = weight[-2] + weight[-1]
            level[-2] = (level[-2] * weight[-2] + level[-1] * weight[-1]) / w
            middle[-2] = (middle[-2] * weight[-2] + middle[-1] * weight[-1]) / w
            weight[-2] = w
            level.pop()
            weight.pop()
            middle.pop()
    return np.array(middle), np.array(level)


def judge(network: DetectionNet, views: Sequence[View]) -> tuple[Float64, NDArray[np.bool_]]:
    """Logits of the scores of all candidates on simulated tiles, and which of them are real."""
    logits, reals = [np.empty(0)], [np.empty(0, bool)]
    settings = NetworkSettings()
    place = training_device()
    network = copy.deepcopy(network).to(place)
    for one in views:
        with torch.inference_mode():
            maps = torch.from_numpy(one.maps.astype(np.float32))[None].to(place)
            out = network(maps, torch.from_numpy(one.conditions)[None].to(place))[0].cpu().numpy()
        found = find_candidates(out, one.fwhm, settings.min_heat, settings.separation)
        rows, columns = out.shape[1:]
        inner = (
            (found.x >= _EDGE) & (found.y >= _EDGE) & (found.x < columns - _EDGE) & (found.y < rows - _EDGE)
        )
        logits.append(found.logit[inner])
        reals.append(real_candidates(found, Crop.of(one))[inner])
    return np.concatenate(logits), np.concatenate(reals)


def calibration(logit: Float64, real: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Nodes of the logit of a score, and the probability to be real there."""
    nodes = np.linspace(-_SPAN, _SPAN, _NODES)
    if real.all() or not real.any():
        return nodes, 1 / (1 + np.exp(-nodes))
    value, probability = isotonic(logit, real)
    return nodes, np.maximum.accumulate(np.interp(nodes, value, probability))


def working_point(score: Float64, real: NDArray[np.bool_], purity: float = _AIM) -> float:
    """Smallest score down to which a list is as pure as asked for; 0.5 where no list is."""
    order = np.argsort(-score, kind="stable")
    share = np.cumsum(real[order]) / np.arange(1, score.size + 1)
    good = np.flatnonzero(share >= purity)
    return float(score[order][good[-1]]) if good.size else 0.5


def write_weights(checkpoint: Path, folder: Path, *, workers: int = 2) -> Path:
    """Write ``NAME.safetensors`` and its card from a checkpoint.

    Parameters
    ----------
    checkpoint : path
        Of `imcat.train.detection.train_detection`; the samples lie beside it.
    folder : path
        Where the weights go.
    workers : int
        Processes, should samples be missing.

    Returns
    -------
    path
        Of the card.

    Raises
    ------
    InputError
        If the checkpoint cannot be read.
    """
    from safetensors.torch import save

    try:
        state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        stored: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in state["recipe"].items()
        }
        recipe = DetectionRecipe(**stored)
        network = DetectionNet(recipe.width)
        network.load_state_dict(state["best"])
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(
            f"the checkpoint cannot be read ({str(error).splitlines()[0]})", path=checkpoint,
            expected="checkpoint.pt of imcat train",
        ) from None  # fmt: skip
    network.eval()
    # A probability is one for a mix of skies: here that of the surveys.
    judged = simulate_samples(
        recipe, checkpoint.parent / "samples", workers, recipe.calibration, recipe.seed + 2, varied=False
    )
    logit, real = judge(network, load_views(judged, recipe, workers=workers))
    nodes, probability = calibration(logit, real)
    data = save({k: v.contiguous() for k, v in network.state_dict().items()})
    parameters = sum(p.numel() for p in network.parameters())
    lines = {
        "name": recipe.name,
        "format": FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": recipe.width,
        "parameters": parameters,
        "steps": int(state["step"]),
        "wavelengths": [1400.0, 11000.0],
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
        "data": "the simulator's stream (imcat.train.detection_samples)"
        + (f", {recipe.generated:.0%} of it augmented (imcat.augment.assembly)" if recipe.generated else "")
        + (f", and {len(recipe.tiles)} labelled tiles" if recipe.tiles else ", no real pixel"),
        "working_point": round(working_point(np.interp(logit, nodes, probability), real), 4),
        "judged_candidates": int(real.size),
        "calibration_logit": [round(float(v), 6) for v in nodes],
        "calibration_probability": [round(float(v), 6) for v in probability],
        "failures": list(_FAILURES),
        "licence": "BSD-3-Clause",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{recipe.name}.safetensors") as temporary:
        temporary.write_bytes(data)
    card = folder / f"{recipe.name}.toml"
    with atomic_path(card) as temporary:
        temporary.write_text(card_text(lines), encoding="utf-8")
    return card
