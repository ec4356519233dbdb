"""A user's own classes: the backbone, or the photometric classifier, with a new last layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imcat.backbones.choice import Backbone, BackboneSettings, build_backbone, from_card
from imcat.classify.network import Classifier, ClassifierSettings, Measured
from imcat.errors import InputError
from imcat.registry import read_weights
from imcat.stamps import Stamps, band_conditions, compress

__all__ = ["OWN_FORMAT", "OwnClassifier", "OwnHead", "load_own", "stamp_tensors"]

#: Version of the format of the weights.
OWN_FORMAT = 1
_RECIPE = "imcat train RECIPE.toml with a table [fine_tuning]"
_BATCH = 512


class OwnHead(nn.Module):
    """Classes from stamps, or from photometry.

    Parameters
    ----------
    body : BackboneSettings or ClassifierSettings
        What comes before the last layer; a classifier reads photometry, a backbone stamps.
    classes : int
        Number of classes.
    """

    def __init__(self, body: BackboneSettings | ClassifierSettings, classes: int) -> None:
        super().__init__()
        self.reads_stamps = not isinstance(body, ClassifierSettings)
        self.body: Backbone | Classifier = (
            Classifier(body) if isinstance(body, ClassifierSettings) else build_backbone(body)
        )
        width = body.width if isinstance(body, ClassifierSettings) else self.body.width  # type: ignore[union-attr]
        self.norm, self.last = nn.LayerNorm(int(width)), nn.Linear(int(width), classes)  # type: ignore[arg-type]

    def forward(self, *given: Tensor | Measured) -> Tensor:
        """Logits ``[n, classes]`` of ``values, valid, conditions`` (`Vit.tokens`), or of a `Measured`."""
        if isinstance(self.body, Classifier):
            (photometry,) = given
            assert isinstance(photometry, Measured)
            n = len(photometry.extra)
            blank = torch.zeros(n, self.body.settings.vision, device=photometry.extra.device)
            vector = self.body(photometry, blank, blank[:, 0]).vector
        else:
            vector = self.body(*given)
        logits: Tensor = self.last(self.norm(vector.float()))
        return logits


def stamp_tensors(stamps: Stamps) -> tuple[Tensor, Tensor, Tensor]:
    """Values, valid pixels and conditions, as backbones take them."""
    return (
        torch.from_numpy(compress(stamps.signal)),
        torch.from_numpy(stamps.valid.astype(np.float32)),
        torch.from_numpy(band_conditions(stamps)),
    )


@dataclass(frozen=True, eq=False)
class OwnClassifier:
    """A trained network with the names of its classes.

    Attributes
    ----------
    network : OwnHead
        Body and last layer.
    classes : tuple of str
        In the order of the probabilities.
    temperature : float
        Divides the logits.
    card : dict
        What its card says: ``wavelengths``, ``pixel`` and how it was trained.
    """

    network: OwnHead
    classes: tuple[str, ...]
    temperature: float
    card: dict[str, Any]

    def probabilities(self, given: Stamps | Measured) -> NDArray[np.float64]:
        """Probabilities ``[n, classes]`` of stamps, or of photometry."""
        parts = []
        n = len(given) if isinstance(given, Stamps) else len(given.extra)
        tensors = stamp_tensors(given) if isinstance(given, Stamps) else None
        with torch.inference_mode():
            for k in range(0, n, _BATCH):
                rows = slice(k, k + _BATCH)
                if tensors is None:
                    assert isinstance(given, Measured)
                    some = Measured(**{name: value[rows] for name, value in vars(given).items()})
                    parts.append(self.network(some))
                else:
                    parts.append(self.network(*(t[rows] for t in tensors)))
        logits = torch.cat(parts) if parts else torch.zeros(0, len(self.classes))
        shares: NDArray[np.float64] = torch.softmax(logits.double() / self.temperature, 1).numpy()
        return shares


def load_own(path: str | Path) -> OwnClassifier:
    """Load what `imcat train` made of a recipe with a table ``[fine_tuning]``.

    Parameters
    ----------
    path : path
        Of the card.

    Raises
    ------
    InputError
        If card or weights are absent, damaged, or of something else.
    """
    from safetensors.torch import load

    place = Path(path)
    data, card = read_weights(place.stem, OWN_FORMAT, _RECIPE, place.parent)
    try:
        body = ClassifierSettings(**card["classifier"]) if "classifier" in card else from_card(card)
        network = OwnHead(body, len(card["classes"]))
        network.load_state_dict(load(data))
        known = {
            k: v
            for k, v in card.items()
            if k not in ("format", "sha256", "classes", "temperature", "vit", "cnn", "classifier")
        }
        return OwnClassifier(network.eval(), tuple(card["classes"]), float(card["temperature"]), known)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the weights are not those of a user's classes ({str(error).splitlines()[0]})",
            path=place,
            expected=f"a card that came from {_RECIPE}",
        ) from None
