"""The detection network: a small U-Net at half the image's resolution that answers for every pixel.

It takes the maps of `imcat.detect.network_input.features`, which any set of bands has, so that one network serves all
cameras; the two numbers that tell the bands apart (width of the PSF in pixels, how many bands take part) scale and shift
the channels of its first layer. For every pixel it gives the probability that a source's centre lies in it (the heat),
the offset of the nearest centre, the error of that offset, the probability that a peak of the heat there is real, and
the size of the source.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imcat.detect.network_input import CONDITIONS, FEATURES

__all__ = [
    "HEAT",
    "LOG_ERROR",
    "LOG_RADIUS",
    "OFFSET_X",
    "OFFSET_Y",
    "OUTPUTS",
    "SCORE",
    "STRIDE",
    "DetectionNet",
]

#: Maps that come out: logit of the heat, offset along x and y, logarithm of the error of the offsets (pixels), logit of
#: the score of a peak, logarithm of the half-light radius behind the PSF (in half widths of the PSF).
OUTPUTS = 6
HEAT, OFFSET_X, OFFSET_Y, LOG_ERROR, SCORE, LOG_RADIUS = range(OUTPUTS)
#: Windows have sides that are multiples of this.
STRIDE = 8
_FIRST_HEAT = -4.6  # of the logit: one pixel in a hundred


class _Block(nn.Module):
    """Two convolutions with a residual."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, padding=1)
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(nn.functional.relu_(self.first(x)))
        return nn.functional.relu_(y.add_(self.skip(x)))


class DetectionNet(nn.Module):
    """The network.

    Parameters
    ----------
    width : int
        Channels at half resolution; twice and four times as many at a quarter and an eighth.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(FEATURES, width, 6, stride=2, padding=2)
        last = nn.Linear(32, 2 * width)
        self.condition = nn.Sequential(nn.Linear(CONDITIONS, 32), nn.SiLU(), last)
        self.at_half = _Block(width, width)
        self.to_quarter = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.at_quarter = _Block(2 * width, 2 * width)
        self.to_eighth = nn.Conv2d(2 * width, 4 * width, 2, stride=2)
        self.at_eighth = _Block(4 * width, 4 * width)
        self.from_eighth = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up_quarter = _Block(4 * width, 2 * width)
        self.from_quarter = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up_half = _Block(2 * width, width)
        self.head = nn.Conv2d(width, 4 * OUTPUTS, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = torch.zeros(4 * OUTPUTS)
        first[:4] = _FIRST_HEAT
        self.head.bias = nn.Parameter(first)
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def forward(self, maps: Tensor, conditions: Tensor) -> Tensor:
        """Answers for every pixel.

        Parameters
        ----------
        maps : Tensor ``[n, FEATURES, y, x]``
            From `imcat.detect.network_input.compress`; sides are multiples of `STRIDE`.
        conditions : Tensor ``[n, CONDITIONS]``
            Of `imcat.detect.network_input.BandSet.conditions`.

        Returns
        -------
        Tensor ``[n, OUTPUTS, y, x]``
        """
        scale, shift = self.condition(conditions)[:, :, None, None].chunk(2, dim=1)
        x = nn.functional.relu_(self.stem(maps) * (1 + scale) + shift)
        half = self.at_half(x)
        quarter = self.at_quarter(self.to_quarter(half))
        eighth = self.at_eighth(self.to_eighth(quarter))
        quarter = self.up_quarter(torch.cat([quarter, self.from_eighth(eighth)], dim=1))
        half = self.up_half(torch.cat([half, self.from_quarter(quarter)], dim=1))
        return nn.functional.pixel_shuffle(self.head(half), 2)
