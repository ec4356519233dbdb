"""The trained classifier: weights, priors and calibration, from one file and its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.backbones.choice import from_card, to_card
from imcat.classify.calibration import Calibration
from imcat.classify.network import ClassifierSettings, Seeing
from imcat.classify.prior import MixByMagnitude, SkyMix
from imcat.errors import InputError
from imcat.registry import read_weights

__all__ = ["FORMAT", "TrainedClassifier", "load_classifier"]

#: Version of the format of the weights.
FORMAT = 5
_RECIPE = "imcat train weights/recipes/classifier.toml"


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """The networks with what is needed to read their answers.

    Attributes
    ----------
    network : Seeing
        Backbone and classifier.
    sky : SkyMix
        The sky's mix of kinds.
    spectroscopic : MixByMagnitude
        That of spectroscopic surveys.
    calibration : Calibration
        What makes the answers probabilities.
    wavelengths : (float, float)
        Trained on, Å.
    card : dict
        What the card says.
    """

    network: Seeing
    sky: SkyMix
    spectroscopic: MixByMagnitude
    calibration: Calibration
    wavelengths: tuple[float, float]
    card: dict[str, Any]

    @property
    def size(self) -> int:
        """Pixels on a side of the stamps."""
        return self.network.vision.settings.size

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as named arrays, the content of the file."""
        named: dict[str, NDArray[Any]] = {
            f"network.{k}": v.detach().cpu().numpy() for k, v in self.network.state_dict().items()
        }
        named |= {
            "sky.latitude": self.sky.latitude, "sky.share": self.sky.share, "sky.lens_odds": self.sky.lens_odds,
            "spectroscopic.share": self.spectroscopic.share,
        }  # fmt: skip
        named |= {f"calibration.{k}": v for k, v in self.calibration.arrays().items()}
        return {k: np.ascontiguousarray(v, np.float32) for k, v in named.items()}

    def sizes(self) -> dict[str, Any]:
        """Sizes of the networks, for the card."""
        return {
            **to_card(self.network.vision.settings),
            "classifier": asdict(self.network.classifier.settings),
        }


def from_arrays(named: Mapping[str, NDArray[Any]], card: dict[str, Any]) -> TrainedClassifier:
    """The classifier from what `TrainedClassifier.arrays` and `sizes` give."""
    network = Seeing(from_card(card), ClassifierSettings(**card["classifier"]))
    head = "network."
    state = {k[len(head) :]: torch.from_numpy(np.array(v)) for k, v in named.items() if k.startswith(head)}
    network.load_state_dict(state)
    network.eval()
    shape = {name: values.shape for name, values in Calibration.none(1).arrays().items()}
    for name in ("temperature", "threshold", "levels", "distance", "offset", "looks", "structure"):
        found = named.get(f"calibration.{name}")  # the last two are absent from weights of before
        if found is not None and np.shape(found) != shape[name]:
            raise ValueError(f"calibration.{name} of shape {np.shape(found)}")
    exact = {k: np.asarray(v, np.float64) for k, v in named.items() if not k.startswith(head)}
    return TrainedClassifier(
        network,
        SkyMix(exact["sky.latitude"], exact["sky.share"], exact["sky.lens_odds"]),
        MixByMagnitude(exact["spectroscopic.share"]),
        Calibration.from_arrays(
            {k.removeprefix("calibration."): v for k, v in exact.items() if k.startswith("calibration.")}
        ),
        (float(card["wavelengths"][0]), float(card["wavelengths"][1])),
        card,
    )


def load_classifier(name: str = "classifier", folder: str | None = None) -> TrainedClassifier:
    """Load weights that come with imcat, or those of a folder.

    Raises
    ------
    InputError
        If they are absent, damaged, of another version, or not those of their card.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data, card = read_weights(name, FORMAT, _RECIPE, folder)
    try:
        return from_arrays(load(data), card)
    except (
        KeyError,
        ValueError,
        RuntimeError,
        TypeError,
        IndexError,
        AssertionError,
        SafetensorError,
    ) as error:
        raise InputError(
            f"the weights are not those of a classifier ({(str(error).splitlines() or [type(error).__name__])[0]})",
            path=f"{name}.safetensors",
            expected="a file and a card that imcat train wrote",
        ) from None
