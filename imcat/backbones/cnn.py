"""Convolutional networks of timm as backbones: ResNet, ConvNeXt and any other, for any set of bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imcat.backbones.orient import upright
from imcat.backbones.vit import AboutBands, BandMixer, mix_bands
from imcat.errors import ConfigError

__all__ = ["Cnn", "CnnSettings"]


@dataclass(frozen=True)
class CnnSettings:
    """Which network.

    Attributes
    ----------
    name : str
        As timm calls it: ``resnet18``, ``convnext_atto``.
    size : int
        Pixels on a side of a stamp.
    mixtures : int
        Mixtures of the bands, which take the place of red, green and blue.
    about : int
        Length of the vector that says which bands there are.
    """

    name: str = "convnext_atto"
    size: int = 40
    mixtures: int = 8
    about: int = 32


class Cnn(nn.Module):
    """The network without its last layer, behind the band mixer of `imcat.backbones.vit`.

    Parameters
    ----------
    settings : CnnSettings
        Which one.

    Raises
    ------
    ConfigError
        If timm does not have it.
    """

    def __init__(self, settings: CnnSettings) -> None:
        super().__init__()
        import timm

        s = self.settings = settings
        if not timm.is_model(s.name):
            raise ConfigError(
                f"timm has no network {s.name!r}; expected a name such as resnet18 or convnext_atto"
            )
        self.mixer = BandMixer(s.mixtures)
        self.about = AboutBands(s.about)
        self.net: Any = timm.create_model(s.name, in_chans=s.mixtures + 1, num_classes=0)

    @property
    def width(self) -> int:
        """Length of the vector that `forward` gives."""
        return int(self.net.num_features) + self.settings.about

    def forward(self, values: Tensor, valid: Tensor, conditions: Tensor) -> Tensor:
        """Vectors of stamps ``[n, width]``; parameters as of `imcat.backbones.vit.Vit.tokens`.

        In training the stamps are seen as they are, else upright (`imcat.backbones.orient`).
        """
        if not self.training:
            values, valid = upright(values, valid)
        return self.see(values, valid, conditions)

    def see(self, values: Tensor, valid: Tensor, conditions: Tensor) -> Tensor:
        """The same of stamps as they are."""
        maps = mix_bands(self.mixer, values, valid, conditions)
        return torch.cat([self.net(maps), self.about(valid, conditions)], dim=1)
