"""Pre-training by masking: three patches of four are hidden, and the network paints them (He et al. 2022).

The decoder is thrown away. It paints a few mixtures of each patch, and the same conditions as at the input
turn them into pixels of any band, also of one that was withheld: so colours are learned with the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imcat.backbones.blocks import Block
from imcat.backbones.vit import BandMixer, Vit, VitSettings, patches

__all__ = ["MaskedAutoencoder", "Painted"]


@dataclass(frozen=True, eq=False)
class Painted:
    """What the network painted.

    Attributes
    ----------
    loss : Tensor
        Mean squared error of the hidden pixels, in compressed units.
    patches : Tensor ``[n, tokens, bands, patch²]``
        Every patch as painted.
    hidden : Tensor ``[n, tokens]``
        1 where the patch was hidden.
    """

    loss: Tensor
    patches: Tensor
    hidden: Tensor


class MaskedAutoencoder(nn.Module):
    """An encoder that sees some patches, and a small decoder that paints all.

    Parameters
    ----------
    encoder : VitSettings
        Of the backbone that is kept.
    masked : float
        Share of the patches that are hidden.
    width, depth : int
        Of the decoder.
    """

    def __init__(self, encoder: VitSettings, masked: float = 0.75, width: int = 96, depth: int = 2) -> None:
        super().__init__()
        self.masked = masked
        self.encoder = Vit(encoder)
        self.narrow = nn.Linear(encoder.width, width)
        self.blank = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, encoder.tokens + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.paint = nn.Linear(width, encoder.mixtures * encoder.patch**2)
        self.mixer = BandMixer(encoder.mixtures)

    def forward(
        self,
        values: Tensor,
        valid: Tensor,
        conditions: Tensor,
        shown: Tensor,
        generator: torch.Generator | None = None,
    ) -> Painted:
        """Hide patches, paint them, and compare.

        Parameters
        ----------
        values, valid, conditions
            As of `Vit.tokens`.
        shown : Tensor ``[n, bands]``
            1 for bands that the encoder sees; the others are painted from them.
        generator : torch.Generator, optional
            Which patches are hidden.
        """
        s = self.encoder.settings
        seen = valid * shown[..., None, None]
        tokens = self.encoder.tokens(values, seen, conditions)
        n, count, _ = tokens.shape
        keep = max(1, round(count * (1 - self.masked)))
        order = torch.rand(n, count, generator=generator, device="cpu").to(tokens.device).argsort(1)
        kept = order[:, :keep]
        visible = torch.gather(tokens, 1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        done = self.encoder.run(torch.cat([self.encoder.begin(seen, conditions), visible], dim=1))
        small = self.narrow(done)
        full = (
            self.blank.expand(n, count, -1)
            .to(small.dtype)
            .scatter(1, kept[..., None].expand(-1, -1, small.shape[2]), small[:, 1:])
        )
        sequence = torch.cat([small[:, :1], full], dim=1) + self.place
        for block in self.blocks:
            sequence = block(sequence)
        maps = self.paint(self.norm(sequence[:, 1:])).reshape(n, count, s.mixtures, -1)
        painted = torch.einsum("nbk,ntkp->ntbp", self.mixer(conditions).to(maps.dtype), maps)
        hidden = torch.ones(n, count, device=tokens.device).scatter(1, kept, 0.0)
        # A band that was withheld is to be painted everywhere.
        wanted = torch.maximum(hidden[:, :, None], 1 - shown[:, None, :])[..., None] * patches(valid, s.patch)
        error = (painted.float() - patches(values, s.patch)) ** 2
        loss = (error * wanted).sum() / wanted.sum().clamp_min(1)
        return Painted(loss, painted, hidden)
