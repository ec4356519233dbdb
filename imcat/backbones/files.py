"""Pre-trained backbones from files."""

from __future__ import annotations

from imcat.backbones.choice import Backbone, build_backbone, from_card
from imcat.errors import InputError
from imcat.registry import read_weights

__all__ = ["BACKBONE_FORMAT", "load_backbone"]

#: Version of the format of the weights.
BACKBONE_FORMAT = 1
_RECIPE = "imcat train weights/recipes/backbone.toml"


def load_backbone(name: str = "backbone", folder: str | None = None) -> Backbone:
    """The backbone that comes with imcat, or that of a folder.

    Raises
    ------
    InputError
        If the weights are absent, damaged, of another version, or not those of their card.
    """
    from safetensors.torch import load

    data, card = read_weights(name, BACKBONE_FORMAT, _RECIPE, folder)
    try:
        network = build_backbone(from_card(card))
        network.load_state_dict(load(data))
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"the weights are not those of a backbone ({str(error).splitlines()[0]})",
            path=f"{name}.safetensors",
            expected="a file and a card that imcat train wrote",
        ) from None
    return network.eval()
