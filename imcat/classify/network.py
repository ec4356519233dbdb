"""The classifier: the backbone's view of the stamp and the photometry, band by band, in one short transformer.

Every band is a token, made from its magnitudes relative to the source's mean magnitude, their errors and its wavelength;
sizes and the mean magnitude are one token more, what the backbone saw two. What is missing is left out of the
attention, so that the same weights answer from stamp and photometry, from either alone, and for any set of bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imcat.backbones.choice import Backbone, BackboneSettings, build_backbone
from imcat.classify.photometry import GLOBALS, Photometry

__all__ = ["MORPHOLOGIES", "Answer", "Classifier", "ClassifierSettings", "Measured", "Seeing", "measured"]

#: Morphologies that the head tells apart, in the order of its answers.
MORPHOLOGIES = ("smooth", "disc", "spiral", "barred", "edge_on", "irregular", "merging", "point_like")

_WAVES = 5
_BAND = 11  # numbers of a band
_EXTRA = 2 * len(GLOBALS) + 5
_UNKNOWN_ERROR = 0.05  # mag, where a table gives none: what weighs its bands against each other
_FAINTEST_WIDTH = 0.002  # of a component of a redshift density, in ln(1 + z)


@dataclass(frozen=True)
class ClassifierSettings:
    """Size of the classifier.

    Attributes
    ----------
    vision : int
        Length of the backbone's vectors.
    width, depth, heads : int
        Of the transformer.
    components : int
        Of each redshift density.
    """

    vision: int = 320
    width: int = 128
    depth: int = 3
    heads: int = 4
    components: int = 10


@dataclass(frozen=True, eq=False)
class Measured:
    """Photometry as tensors; see `imcat.classify.photometry.Photometry`.

    Attributes
    ----------
    mags, errors : Tensor ``[n, bands, 3]``
        Total, PSF, aperture; NaN where missing.
    extinction : Tensor ``[n, bands]``
        NaN where unknown.
    wavelength : Tensor ``[n, bands]``
        ln(Å / 6000).
    extra : Tensor ``[n, len(GLOBALS)]``
    spectroscopic : Tensor ``[n]``
        1 where the source was chosen as spectroscopic surveys choose theirs.
    """

    mags: Tensor
    errors: Tensor
    extinction: Tensor
    wavelength: Tensor
    extra: Tensor
    spectroscopic: Tensor

    def to(self, place: Any) -> Measured:
        """The same elsewhere."""
        return Measured(**{k: v.to(place) for k, v in vars(self).items()})


def measured(photometry: Photometry, spectroscopic: bool = False) -> Measured:
    """Photometry as tensors."""
    p = photometry
    n, bands = p.total.shape
    wave = torch.from_numpy(p.wavelength).float().div(6000.0).log()
    return Measured(
        torch.stack([torch.from_numpy(v) for v in (p.total, p.psf, p.aperture)], 2).float(),
        torch.stack([torch.from_numpy(v) for v in (p.total_err, p.psf_err, p.aperture_err)], 2).float(),
        torch.from_numpy(p.extinction).float(),
        wave.expand(n, bands),
        torch.from_numpy(p.extra).float(),
        torch.full((n,), float(spectroscopic)),
    )


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says of n sources.

    Attributes
    ----------
    kind : Tensor ``[n, 3]``
        Logarithms of the likelihoods of star, galaxy, quasar, but for a constant.
    lens : Tensor ``[n]``
        Logarithm of the likelihood ratio.
    morphology : Tensor ``[n, 8]``
        Logits (`MORPHOLOGIES`).
    structure : Tensor ``[n, 4]``
        Bulge fraction (logit) and logarithm of the Sérsic index, then the logarithms of their errors.
    redshift : Tensor ``[n, 2, 3, components]``
        Of a galaxy and of a quasar: logits of the weights, means and logarithms of the widths in ln(1 + z).
    vector : Tensor ``[n, width]``
        What the heads see.
    """

    kind: Tensor
    lens: Tensor
    morphology: Tensor
    structure: Tensor
    redshift: Tensor
    vector: Tensor


class Classifier(nn.Module):
    """Tokens in, heads out.

    Parameters
    ----------
    settings : ClassifierSettings
        Its size.
    """

    def __init__(self, settings: ClassifierSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.band = _mlp(_BAND + 1 + 2 * _WAVES, s.width)
        self.extra = _mlp(_EXTRA, s.width)
        self.vision = nn.Sequential(nn.LayerNorm(s.vision), _mlp(s.vision, s.width))
        self.summary = nn.Parameter(torch.randn(1, 1, s.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            s.width, s.heads, 4 * s.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, s.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(s.width)
        self.kind = nn.Linear(s.width, 3)
        self.lens = nn.Linear(s.width, 1)
        self.morphology = nn.Linear(s.width, len(MORPHOLOGIES))
        self.structure = nn.Linear(s.width, 4)
        self.redshift = nn.ModuleList(
            nn.Sequential(nn.Linear(s.width, s.width), nn.GELU(), nn.Linear(s.width, 3 * s.components))
            for _ in range(2)
        )

    def forward(self, photometry: Measured, vision: Tensor, seen: Tensor) -> Answer:
        """Answer.

        Parameters
        ----------
        photometry : Measured
            NaN where something is missing.
        vision : Tensor ``[n, vision]``
            The backbone's vectors.
        seen : Tensor ``[n]``
            1 where there is a stamp.
        """
        # Magnitudes and redshifts need more digits than bfloat16 has; the blocks between them do not.
        with torch.autocast(vision.device.type, enabled=False):
            bands, extra, there = tokens(photometry)
            n = len(extra)
            sequence = torch.cat(
                [
                    self.summary.expand(n, -1, -1),
                    self.vision(vision)[:, None],
                    self.extra(extra)[:, None],
                    self.band(bands),
                ],
                1,
            )
        always = torch.zeros(n, 1, dtype=torch.bool, device=vision.device)
        hidden = torch.cat([always, seen[:, None] < 0.5, always, ~there], dim=1)
        summary = self.blocks(sequence, src_key_padding_mask=hidden)[:, 0]
        with torch.autocast(vision.device.type, enabled=False):
            done = self.norm(summary.float())
            redshift = torch.stack([head(done) for head in self.redshift], 1)
            return Answer(
                self.kind(done), self.lens(done)[:, 0], self.morphology(done), self.structure(done),
                redshift.reshape(n, 2, 3, self.settings.components), done,
            )  # fmt: skip


class Seeing(nn.Module):
    """Backbone and classifier as one.

    Parameters
    ----------
    backbone : BackboneSettings
        Which backbone.
    settings : ClassifierSettings
        Size of the classifier.
    """

    def __init__(self, backbone: BackboneSettings, settings: ClassifierSettings) -> None:
        super().__init__()
        self.vision: Backbone = build_backbone(backbone)
        self.classifier = Classifier(settings)


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))


def tokens(p: Measured) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of each band ``[n, bands, _BAND + …]`` and of each source ``[n, _EXTRA]``, and which bands there are.

    Colours are relative to a mean magnitude weighted by the errors; extinction is taken off where it is known.
    """
    has = torch.isfinite(p.mags)
    # The dust of a band that is missing says nothing.
    known_dust = torch.isfinite(p.extinction) & has[..., 0]
    dust = torch.where(known_dust, p.extinction, torch.zeros_like(p.extinction))
    mags = torch.nan_to_num(p.mags) - dust[..., None]
    has_error = torch.isfinite(p.errors)
    errors = torch.where(has_error, p.errors, torch.full_like(p.errors, _UNKNOWN_ERROR))
    there = has[..., 0]
    weight = there / (0.1**2 + errors[..., 0] ** 2)
    mean = (weight * mags[..., 0]).sum(1) / weight.sum(1).clamp_min(1e-9)
    some = there.any(1).float()
    mean = torch.where(some > 0, mean, torch.full_like(mean, 20.0))
    flags = has.float()
    colour = (mags[..., 0] - mean[:, None]).clamp(-8, 8) * flags[..., 0]
    point = (mags[..., 1] - mags[..., 0]).clamp(-4, 4) * flags[..., 0] * flags[..., 1]
    aperture = (mags[..., 2] - mags[..., 0]).clamp(-4, 4) * flags[..., 0] * flags[..., 2]
    noise = torch.where(has_error, errors.clamp(1e-3, 10).log() / 3, torch.zeros_like(errors))
    wave = p.wavelength[..., None]
    phase = wave * wave.new_tensor([2.0**k for k in range(_WAVES)])
    bands = torch.cat(
        [
            colour[..., None], point[..., None], aperture[..., None], noise, flags, has_error[..., :1].float(),
            known_dust[..., None].float(), wave, torch.sin(phase), torch.cos(phase),
        ],
        dim=-1,
    )  # fmt: skip
    given = torch.isfinite(p.extra)
    extra = torch.cat(
        [
            torch.nan_to_num(p.extra).clamp(-10, 10), given.float(), ((mean - 20) / 3)[:, None], some[:, None],
            known_dust.any(1)[:, None].float(), dust.amax(1, keepdim=True), p.spectroscopic[:, None],
        ],
        dim=1,
    )  # fmt: skip
    return bands, extra, there


def redshift_loss(mixture: Tensor, redshift: Tensor) -> Tensor:
    """Minus the logarithm of the density of ln(1 + z), ``[n]``; the mixture is ``[n, 3, components]``."""
    weight, mean, width = mixture_parts(mixture)
    u = torch.log1p(redshift)[:, None]
    log = weight - width.log() - 0.5 * math.log(2 * math.pi) - 0.5 * ((u - mean) / width) ** 2
    return -torch.logsumexp(log, 1)


def mixture_parts(mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of the weights, means and widths of a mixture ``[n, 3, components]``."""
    weight = torch.log_softmax(mixture[:, 0], 1)
    k = mixture.shape[2]
    # Without training, the components lie side by side over the range of redshifts.
    start = torch.linspace(0.05, 1.6, k, device=mixture.device)
    width = nn.functional.softplus(mixture[:, 2] - 2.0) + _FAINTEST_WIDTH
    return weight, start + mixture[:, 1], width
