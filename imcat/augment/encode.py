"""What finds the random numbers behind a stamp: the encoder of a variational autoencoder whose decoder is the generator.

It is the comparison to the adversarial training: the same generator, conditions and stamps, but pixels are compared one by
one with the likelihood of their noise (Kingma and Welling 2014, arXiv:1312.6114; of galaxies through their PSF: Lanusse et
al. 2021, MNRAS 504, 5543).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imcat.augment.conditions import NUMBERS

__all__ = ["LightEncoder", "gaussian_divergence", "pixel_misfit"]

_STRETCH = 2.0  # noise rms: as of imcat.stamps.compress
_SYSTEMATIC = 0.02  # of the light of a pixel, added to its noise: the brightest pixels know the PSF no better


class LightEncoder(nn.Module):
    """Stamps and conditions to the mean and the logarithm of the variance of the random numbers.

    Parameters
    ----------
    bands : int
        Of the stamps.
    latent : int
        Random numbers of a galaxy.
    width, depth : int
        Channels of the first layer, and layers that halve the stamp and double the channels.
    """

    def __init__(self, bands: int, latent: int, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(2 * bands, width, 3, padding=1), nn.GELU()]
        for k in range(depth):
            wide = width * 2**k
            layers += [
                nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1),
                nn.GroupNorm(8, 2 * wide),
                nn.GELU(),
            ]
        self.body = nn.Sequential(*layers)
        wide = width * 2**depth
        self.out = nn.Sequential(nn.Linear(2 * wide + NUMBERS, wide), nn.GELU(), nn.Linear(wide, 2 * latent))

    def forward(self, signal: Tensor, valid: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, ``[n, latent]`` each; parameters as of `imcat.augment.judge.StampJudge`."""
        seen = torch.asinh(signal * valid / _STRETCH)
        maps = self.body(torch.cat([seen, valid], dim=1)).flatten(2)
        mean, spread = self.out(torch.cat([maps.mean(2), maps.amax(2), vector], dim=1)).chunk(2, dim=1)
        return mean, spread.clamp(-8.0, 4.0)


def gaussian_divergence(mean: Tensor, spread: Tensor) -> Tensor:
    """Kullback–Leibler divergence of normal distributions from the standard one, ``[n]``."""
    return 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)


def pixel_misfit(drawn: Tensor, signal: Tensor, valid: Tensor, gain_noise: Tensor) -> Tensor:
    """Half of chi squared of stamps, ``[n]``.

    Parameters
    ----------
    drawn, signal : Tensor ``[n, bands, y, x]``
        Model without noise, and pixels, in units of the noise.
    valid : Tensor ``[n, bands, y, x]``
        1 where pixels count.
    gain_noise : Tensor ``[n, bands]``
        Electrons for one unit of the noise.
    """
    light = drawn.detach().clamp_min(0)
    variance = 1 + light / gain_noise[..., None, None] + (_SYSTEMATIC * light).square()
    return 0.5 * ((drawn - signal).square() / variance * valid).sum((1, 2, 3))
