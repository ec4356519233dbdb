"""The backbones there are, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from imcat.backbones.cnn import Cnn, CnnSettings
from imcat.backbones.vit import Vit, VitSettings

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneSettings",
    "build_backbone",
    "from_card",
    "named_backbone",
    "to_card",
]

Backbone: TypeAlias = Vit | Cnn
BackboneSettings: TypeAlias = VitSettings | CnnSettings

#: Backbones with a name of their own; `named_backbone` knows those of timm besides.
BACKBONES: dict[str, BackboneSettings] = {
    "vit": VitSettings(),
    "vit_small": VitSettings(width=192, depth=8, heads=6),
    "resnet18": CnnSettings("resnet18"),
    "convnext_atto": CnnSettings("convnext_atto"),
}


def named_backbone(name: str) -> BackboneSettings:
    """Settings of a backbone of `BACKBONES`, or of a convolutional network as timm names it."""
    return BACKBONES.get(name) or CnnSettings(name)


def build_backbone(settings: BackboneSettings) -> Backbone:
    """An untrained backbone: ``forward(values, valid, conditions)`` gives vectors ``[n, width]``.

    Raises
    ------
    ConfigError
        If timm does not have the network.
    """
    return Vit(settings) if isinstance(settings, VitSettings) else Cnn(settings)


def to_card(settings: BackboneSettings) -> dict[str, Any]:
    """Settings as a table of a card, ``vit`` or ``cnn``."""
    return {"vit" if isinstance(settings, VitSettings) else "cnn": asdict(settings)}


def from_card(card: Mapping[str, Any]) -> BackboneSettings:
    """Settings that `to_card` wrote; raises ``KeyError`` and ``TypeError`` where they are not there."""
    return CnnSettings(**card["cnn"]) if "cnn" in card else VitSettings(**card["vit"])
