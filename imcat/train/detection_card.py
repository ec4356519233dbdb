"""Weights of the detection network and their card, from a checkpoint."""

from __future__ import annotations

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
from imcat.detect.network_search import FORMAT
from imcat.errors import InputError
from imcat.train.detection import DetectionRecipe, load_samples, simulate_samples
from imcat.train.detection_samples import Sample

__all__ = ["calibration", "isotonic", "write_weights"]

Float64 = NDArray[np.float64]

_REAL_SNR = 1.5  # of the faintest source that makes a detection real
_RADIUS = 2.5  # pixels: largest distance of a detection from the source that makes it real
_LEAST_HEAT = 0.01
_NODES = 33  # of the calibration


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


def calibration(network: DetectionNet, samples: Sequence[Sample]) -> tuple[Float64, Float64]:
    """Heat of a peak against the probability that a source lies there, at even steps of the heat's logit."""
    from scipy.ndimage import maximum_filter
    from scipy.spatial import cKDTree

    heats, reals = [], []
    for sample in samples:
        with torch.inference_mode():
            maps = torch.from_numpy(sample.maps.astype(np.float32))[None]
            out = network(maps, torch.from_numpy(sample.conditions)[None])[0].float().numpy()
        heat = 1 / (1 + np.exp(-out[0]))
        inner = np.zeros(heat.shape, bool)
        inner[8:-8, 8:-8] = True
        top = (heat >= _LEAST_HEAT) & (heat == maximum_filter(heat, 3)) & inner
        row, column = np.nonzero(top)
        place = np.stack([column + np.clip(out[1][top], -1, 1), row + np.clip(out[2][top], -1, 1)], axis=1)
        true = sample.snr >= _REAL_SNR
        real = np.zeros(row.size, bool)
        if row.size and true.any():
            # A source makes one detection real: the nearest, of equals the warmest.
            tree = cKDTree(np.stack([sample.x[true], sample.y[true]], axis=1))
            distance, nearest = tree.query(place, distance_upper_bound=_RADIUS)
            taken: set[int] = set()
            for i in np.argsort(-heat[top], kind="stable"):
                if np.isfinite(distance[i]) and nearest[i] not in taken:
                    taken.add(int(nearest[i]))
                    real[i] = True
        heats.append(heat[top])
        reals.append(real)
    value, probability = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    if any(real.size for real in reals):
        value, probability = isotonic(np.concatenate(heats).astype(float), np.concatenate(reals))
    logit = np.linspace(-4.6, 6.0, _NODES)
    nodes = 1 / (1 + np.exp(-logit))
    return nodes, np.maximum.accumulate(np.interp(nodes, value, probability))


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
        network.load_state_dict(state["average"])
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(
            f"the checkpoint cannot be read ({str(error).splitlines()[0]})", path=checkpoint,
            expected="checkpoint.pt of imcat train",
        ) from None  # fmt: skip
    network.eval()
    judged = simulate_samples(
        recipe, checkpoint.parent / "samples", workers, recipe.validation, recipe.seed + 1
    )
    nodes, probability = calibration(network, load_samples(judged))
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
        "data": "the simulator's stream (imcat.train.detection_samples), no real pixel",
        "calibration_heat": [round(float(v), 6) for v in nodes],
        "calibration_probability": [round(float(v), 6) for v in probability],
        "licence": "BSD-3-Clause",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{recipe.name}.safetensors") as temporary:
        temporary.write_bytes(data)
    card = folder / f"{recipe.name}.toml"
    with atomic_path(card) as temporary:
        temporary.write_text(_toml(lines), encoding="utf-8")
    return card


def _toml(values: dict[str, Any]) -> str:
    """A card: plain values first, then the recipe as a table."""
    import json

    plain = [f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, dict)]
    tables = [
        "\n".join(["", f"[{k}]", *(f"{a} = {json.dumps(b)}" for a, b in v.items())])
        for k, v in values.items()
        if isinstance(v, dict)
    ]
    return "\n".join(plain + tables) + "\n"
