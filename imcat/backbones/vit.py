"""A vision transformer for any set of bands.

A patch of a band is turned into a token by weights that depend on the band: its wavelength, PSF, noise and pixel go
through a small network that says how much the band counts in each of a few mixtures of the bands; the mixtures of a
patch, patch by patch, are the input of an ordinary embedding. A sum over bands does not know their order or number, so one set
of weights serves every camera (compare the wavelength-conditioned embeddings of DOFA, Xiong et al. 2024,
arXiv:2403.15356, and channel transformers, Bao et al. 2024, arXiv:2309.16108).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imcat.backbones.blocks import Block
from imcat.backbones.orient import upright
from imcat.stamps import CONDITIONS

__all__ = ["AboutBands", "BandMixer", "Vit", "VitSettings", "mix_bands", "patches"]


@dataclass(frozen=True)
class VitSettings:
    """Size of the transformer.

    Attributes
    ----------
    size, patch : int
        Pixels on a side of a stamp and of a patch.
    width, depth, heads : int
        Of the transformer.
    mixtures : int
        Mixtures of the bands.
    """

    size: int = 40
    patch: int = 8
    width: int = 128
    depth: int = 6
    heads: int = 4
    mixtures: int = 8

    @property
    def tokens(self) -> int:
        """Number of patches."""
        return (self.size // self.patch) ** 2


def patches(images: Tensor, patch: int) -> Tensor:
    """Images ``[n, c, y, x]`` as patches ``[n, tokens, c, patch²]``."""
    n, c, rows, columns = images.shape
    cut = images.reshape(n, c, rows // patch, patch, columns // patch, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c, patch * patch)


class BandMixer(nn.Module):
    """How much each band counts in each mixture, from what is known of the band."""

    def __init__(self, mixtures: int, hidden: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(_ENCODED, hidden), nn.GELU(), nn.Linear(hidden, mixtures))

    def forward(self, conditions: Tensor) -> Tensor:
        """Conditions ``[n, bands, CONDITIONS]`` to shares ``[n, bands, mixtures]``."""
        shares: Tensor = self.net(encode(conditions))
        return shares


_WAVES = 4  # sines of the wavelength
_ENCODED = CONDITIONS + 2 * _WAVES


def encode(conditions: Tensor) -> Tensor:
    """Conditions with sines of the wavelength, so that narrow differences show: ``[..., _ENCODED]``."""
    phase = conditions[..., :1] * conditions.new_tensor([2.0**k for k in range(1, _WAVES + 1)])
    return torch.cat([conditions, torch.sin(phase), torch.cos(phase)], dim=-1)


def mix_bands(mixer: BandMixer, values: Tensor, valid: Tensor, conditions: Tensor) -> Tensor:
    """Mixtures of the bands, and a map of where there are data.

    Parameters
    ----------
    mixer : BandMixer
        Shares of the bands.
    values, valid, conditions
        As of `Vit.tokens`.

    Returns
    -------
    Tensor ``[n, mixtures + 1, y, x]``
    """
    there = (valid.flatten(2).amax(2) > 0).to(values.dtype)  # [n, bands]
    count = there.sum(1).clamp_min(1)
    shares = mixer(conditions) * there[..., None] / count.sqrt()[:, None, None]
    maps = torch.einsum("nbk,nbyx->nkyx", shares, values * valid)
    cover = valid.sum(1, keepdim=True) / count[:, None, None, None]
    return torch.cat([maps, cover], dim=1)


class AboutBands(nn.Module):
    """A vector of which bands there are.

    Parameters
    ----------
    width : int
        Its length.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(_ENCODED, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, valid: Tensor, conditions: Tensor) -> Tensor:
        """The mean over the bands that have data, ``[n, width]``."""
        there = (valid.flatten(2).amax(2) > 0).to(conditions.dtype)[..., None]
        out: Tensor = (self.net(encode(conditions)) * there).sum(1) / there.sum(1).clamp_min(1)
        return out


class Vit(nn.Module):
    """The transformer: stamps to one vector each, and to tokens.

    Parameters
    ----------
    settings : VitSettings
        Its size.
    """

    def __init__(self, settings: VitSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.mixer = BandMixer(s.mixtures)
        # One map more says where there are data.
        self.embed = nn.Sequential(
            nn.Linear((s.mixtures + 1) * s.patch**2, s.width), nn.GELU(), nn.Linear(s.width, s.width)
        )
        self.about = AboutBands(s.width)
        self.place = nn.Parameter(torch.zeros(1, s.tokens, s.width))
        self.summary = nn.Parameter(torch.zeros(1, 1, s.width))
        self.blocks = nn.ModuleList(Block(s.width, s.heads) for _ in range(s.depth))
        self.norm = nn.LayerNorm(s.width)
        nn.init.normal_(self.place, std=0.02)
        nn.init.normal_(self.summary, std=0.02)

    @property
    def width(self) -> int:
        """Length of the vector that `forward` gives."""
        return 2 * self.settings.width

    def tokens(self, values: Tensor, valid: Tensor, conditions: Tensor) -> Tensor:
        """Tokens of all patches with their places, before the first block.

        Parameters
        ----------
        values : Tensor ``[n, bands, y, x]``
            Compressed pixels (`imcat.stamps.compress`).
        valid : Tensor ``[n, bands, y, x]``
            1 where there are data.
        conditions : Tensor ``[n, bands, CONDITIONS]``
            Of the bands.

        Returns
        -------
        Tensor ``[n, patches, width]``
        """
        maps = mix_bands(self.mixer, values, valid, conditions)
        cut = patches(maps, self.settings.patch).flatten(2)
        tokens: Tensor = self.embed(cut) + self.place
        return tokens

    def begin(self, valid: Tensor, conditions: Tensor) -> Tensor:
        """The summary token ``[n, 1, width]``, which knows which bands there are."""
        out: Tensor = self.summary + self.about(valid, conditions)[:, None]
        return out

    def run(self, sequence: Tensor) -> Tensor:
        """The blocks, and the last normalisation."""
        for block in self.blocks:
            sequence = block(sequence)
        out: Tensor = self.norm(sequence)
        return out

    def forward(self, values: Tensor, valid: Tensor, conditions: Tensor) -> Tensor:
        """Vectors of stamps ``[n, 2 width]``: the summary token beside the mean of the patches.

        Parameters are those of `tokens`. In training the stamps are seen as they are, else upright
        (`imcat.backbones.orient`).
        """
        if not self.training:
            values, valid = upright(values, valid)
        return self.see(values, valid, conditions)

    def see(self, values: Tensor, valid: Tensor, conditions: Tensor) -> Tensor:
        """The same of stamps as they are."""
        sequence = torch.cat([self.begin(valid, conditions), self.tokens(values, valid, conditions)], dim=1)
        done = self.run(sequence)
        return torch.cat([done[:, 0], done[:, 1:].mean(1)], dim=1)
