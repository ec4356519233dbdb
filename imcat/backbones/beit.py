"""Pre-training by masked tokens: a tokenizer first says each patch in one word, then the network guesses hidden words.

After BEiT (Bao et al. 2022, arXiv:2106.08254), with the codes of unit length and the codebook that follows the mean of
what it stands for from BEiT v2 (Peng et al. 2022, arXiv:2208.06366) and VQ-VAE (van den Oord et al. 2017,
arXiv:1711.00937). Tokenizer and guesses see bands through the same mixer as the backbone, so that words are of the
sky, not of a camera's filters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imcat.backbones.blocks import Block
from imcat.backbones.vit import BandMixer, Vit, VitSettings, patches

__all__ = ["Guessed", "MaskedTokens", "Tokenized", "Tokenizer"]

_COMMITMENT = 0.25  # weight of the distance between a code and its word (van den Oord et al. 2017)
_KEEP = 0.95  # of the past, in the codebook's running means
_RARE = 0.05  # words used less than this share of the mean are replaced


@dataclass(frozen=True, eq=False)
class Tokenized:
    """What the tokenizer made of stamps.

    Attributes
    ----------
    loss : Tensor
        Squared error of the pixels, and distance of the codes from their words.
    patches : Tensor ``[n, tokens, bands, patch²]``
        Painted from the words.
    words : int64 Tensor ``[n, tokens]``
        Indices in the codebook.
    """

    loss: Tensor
    patches: Tensor
    words: Tensor


class Tokenizer(nn.Module):
    """Patches to words and back.

    Parameters
    ----------
    encoder : VitSettings
        Of the backbone that the words are for: its patches and mixtures are used.
    words : int
        Size of the codebook.
    width, depth, code : int
        Of encoder and decoder, and length of a code.
    """

    def __init__(
        self, encoder: VitSettings, words: int = 512, width: int = 96, depth: int = 2, code: int = 16
    ) -> None:
        super().__init__()
        s = encoder
        self.encoder = Vit(VitSettings(s.size, s.patch, width, depth, 4, s.mixtures))
        self.narrow, self.widen = nn.Linear(width, code), nn.Linear(code, width)
        self.place = nn.Parameter(torch.randn(1, s.tokens, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.paint = nn.Linear(width, s.mixtures * s.patch**2)
        self.mixer = BandMixer(s.mixtures)
        self.book: Tensor
        self.used: Tensor
        self.register_buffer("book", nn.functional.normalize(torch.randn(words, code), dim=1))
        self.register_buffer("used", torch.zeros(words))

    def codes(self, values: Tensor, valid: Tensor, conditions: Tensor) -> Tensor:
        """Codes of unit length, ``[n, tokens, code]``; parameters as of `Vit.tokens`."""
        tokens = self.encoder.tokens(values, valid, conditions)
        done = self.encoder.run(torch.cat([self.encoder.begin(valid, conditions), tokens], dim=1))
        return nn.functional.normalize(self.narrow(done[:, 1:]).float(), dim=2)

    def words(self, codes: Tensor) -> Tensor:
        """Indices of the nearest words."""
        return (codes @ self.book.T).argmax(2)

    def forward(
        self,
        values: Tensor,
        valid: Tensor,
        conditions: Tensor,
        shown: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tokenized:
        """Say stamps in words, paint them, and compare; in training the codebook moves.

        Parameters are those of `imcat.backbones.mae.MaskedAutoencoder`; the generator is not used.
        """
        s = self.encoder.settings
        codes = self.codes(values, valid * shown[..., None, None], conditions)
        words = self.words(codes)
        if self.training:
            self._follow(codes.detach().flatten(0, 1), words.flatten())
        chosen = self.book[words]
        # The gradient passes the choice as if it were not there.
        passed = codes + (chosen - codes).detach()
        sequence = self.widen(passed) + self.place
        for block in self.blocks:
            sequence = block(sequence)
        maps = self.paint(self.norm(sequence)).unflatten(2, (s.mixtures, -1))
        painted = torch.einsum("nbk,ntkp->ntbp", self.mixer(conditions).to(maps.dtype), maps)
        there = patches(valid, s.patch)
        error = ((painted.float() - patches(values, s.patch)) ** 2 * there).sum() / there.sum().clamp_min(1)
        distance = ((codes - chosen.detach()) ** 2).sum(2).mean()
        return Tokenized(error + _COMMITMENT * distance, painted, words)

    @torch.no_grad()
    def _follow(self, codes: Tensor, words: Tensor) -> None:
        """Move each word towards the mean of its codes; words that nothing uses become codes of this batch."""
        total = torch.zeros_like(self.book).index_add_(0, words, codes)
        count = torch.bincount(words, minlength=len(self.book)).to(codes.dtype)
        self.used.mul_(_KEEP).add_(count, alpha=1 - _KEEP)
        mean = nn.functional.normalize(total, dim=1)
        moved = nn.functional.normalize(self.book * _KEEP + mean * (1 - _KEEP), dim=1)
        self.book.copy_(torch.where(count[:, None] > 0, moved, self.book))
        usual = len(codes) / len(self.book)
        # At first nothing has been used: all words but those of this batch are drawn from its codes.
        rare = (self.used < _RARE * usual).nonzero()[:, 0]
        if len(rare):
            drawn = torch.randint(len(codes), (len(rare),), device=codes.device)
            self.book[rare] = codes[drawn]
            self.used[rare] = usual


@dataclass(frozen=True, eq=False)
class Guessed:
    """What the network guessed.

    Attributes
    ----------
    loss : Tensor
        Cross-entropy of the hidden words.
    hidden : Tensor ``[n, tokens]``
        1 where the patch was hidden.
    logits : Tensor ``[n, tokens, words]``
        Of every word.
    """

    loss: Tensor
    hidden: Tensor
    logits: Tensor


class MaskedTokens(nn.Module):
    """An encoder that sees some patches and guesses the words of the others.

    Parameters
    ----------
    encoder : VitSettings
        Of the backbone that is kept.
    tokenizer : Tokenizer
        Trained; it does not change.
    masked : float
        Share of the patches that are hidden.
    """

    def __init__(self, encoder: VitSettings, tokenizer: Tokenizer, masked: float = 0.5) -> None:
        super().__init__()
        self.masked = masked
        self.encoder = Vit(encoder)
        self.blank = nn.Parameter(torch.randn(1, 1, encoder.width) * 0.02)
        self.guess = nn.Linear(encoder.width, len(tokenizer.book))
        self.tokenizer = tokenizer.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> MaskedTokens:
        """Set the mode; the tokenizer stays as it is."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    def forward(
        self,
        values: Tensor,
        valid: Tensor,
        conditions: Tensor,
        shown: Tensor,
        generator: torch.Generator | None = None,
    ) -> Guessed:
        """Hide patches and guess their words; parameters as of `imcat.backbones.mae.MaskedAutoencoder`."""
        with torch.no_grad():
            words = self.tokenizer.words(self.tokenizer.codes(values, valid, conditions))
        seen = valid * shown[..., None, None]
        tokens = self.encoder.tokens(values, seen, conditions)
        n, count, _ = tokens.shape
        order = torch.rand(n, count, generator=generator, device="cpu").to(tokens.device).argsort(1)
        hidden = (order < max(1, round(count * self.masked))).to(tokens.dtype)[..., None]
        tokens = tokens * (1 - hidden) + (self.blank + self.encoder.place) * hidden
        done = self.encoder.run(torch.cat([self.encoder.begin(seen, conditions), tokens], dim=1))
        logits = self.guess(done[:, 1:]).float()
        each = nn.functional.cross_entropy(logits.flatten(0, 1), words.flatten(), reduction="none")
        wanted = hidden.float().flatten()
        return Guessed((each * wanted).sum() / wanted.sum(), hidden[..., 0], logits)
