"""The generator of empty sky: white noise in, the texture of a survey's sky out, at any size.

The network is fully convolutional and has no padding: it turns a canvas of random numbers into a smaller image, and a part
of the canvas into that part of the image, so that an image of any size is made piece by piece without seams. Random
numbers of three scales are its input, from pixels to an eighth of them: noise, faint sources, gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["SkyGenerator", "SkyJudge", "SkySettings"]

Float32 = NDArray[np.float32]

_SCALES = (1, 4, 16)  # pixels of the random numbers
_TILE = 512  # pixels on a side made at once


@dataclass(frozen=True)
class SkySettings:
    """Size of the networks.

    Attributes
    ----------
    bands : int
        Made together.
    width, depth : int
        Channels and layers of three by three pixels.
    channels : int
        Random numbers at each pixel and scale, besides one for each band.
    """

    bands: int = 5
    width: int = 24
    depth: int = 4
    channels: int = 2

    @property
    def margin(self) -> int:
        """Pixels that the layers take from each side."""
        return self.depth


class SkyGenerator(nn.Module):
    """Random numbers to sky in units of its noise.

    Parameters
    ----------
    settings : SkySettings
        Its size.
    """

    def __init__(self, settings: SkySettings) -> None:
        super().__init__()
        s = self.settings = settings
        inputs = s.bands + s.channels * len(_SCALES)
        layers: list[nn.Module] = []
        for k in range(s.depth):
            layers += [nn.Conv2d(inputs if k == 0 else s.width, s.width, 3), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(s.width, s.bands, 1))
        # The noise of a pixel passes beside the network, which adds what makes it look real.
        self.direct = nn.Parameter(torch.ones(s.bands))
        self.register_buffer("gain", torch.ones(s.bands))
        self.register_buffer("offset", torch.zeros(s.bands))

    def canvas(self, rows: int, columns: int, n: int, chance: torch.Generator) -> list[Tensor]:
        """Random numbers for images of a size: one tensor for each scale."""
        s, grow = self.settings, 2 * self.settings.margin
        out = []
        for k, scale in enumerate(_SCALES):
            shape = [-(-(v + grow) // scale) + (0 if scale == 1 else 1) for v in (rows, columns)]
            count = s.channels + (s.bands if k == 0 else 0)
            out.append(torch.randn(n, count, *shape, generator=chance))
        return out

    def forward(self, canvas: list[Tensor]) -> Tensor:
        """Images ``[n, bands, y, x]``, smaller than the canvas by twice the margin."""
        rows, columns = canvas[0].shape[2:]
        return self.piece(canvas, slice(0, rows), slice(0, columns))

    def piece(self, canvas: list[Tensor], rows: slice, columns: slice) -> Tensor:
        """The image made of some rows and columns of the canvas's finest scale."""
        s = self.settings
        fine = canvas[0][:, :, rows, columns]
        parts = [fine]
        for scale, numbers in zip(_SCALES[1:], canvas[1:], strict=True):
            parts.append(_enlarged(numbers, scale, rows, columns))
        made: Tensor = self.body(torch.cat(parts, dim=1))
        inner = fine[:, : s.bands, s.margin : -s.margin, s.margin : -s.margin]
        gain: Tensor = self.gain  # type: ignore[assignment]
        offset: Tensor = self.offset  # type: ignore[assignment]
        out = self.direct[:, None, None] * inner + made
        return gain[:, None, None] * (out - offset[:, None, None])

    @torch.no_grad()
    def sky(self, rows: int, columns: int, seed: int) -> Float32:
        """One image ``[bands, rows, columns]`` in units of the noise.

        Parameters
        ----------
        rows, columns : int
            Its size.
        seed : int
            Decides every pixel.
        """
        canvas = self.canvas(rows, columns, 1, torch.Generator().manual_seed(seed))
        grow = 2 * self.settings.margin
        out = np.empty((self.settings.bands, rows, columns), np.float32)
        for y in range(0, rows, _TILE):
            for x in range(0, columns, _TILE):
                y1, x1 = min(y + _TILE, rows), min(x + _TILE, columns)
                made = self.piece(canvas, slice(y, y1 + grow), slice(x, x1 + grow))
                out[:, y:y1, x:x1] = made[0].numpy()
        return out


def _enlarged(numbers: Tensor, scale: int, rows: slice, columns: slice) -> Tensor:
    """Coarse random numbers at some fine pixels, linear between them: the same wherever the piece begins."""

    def weights(part: slice) -> tuple[Tensor, Tensor]:
        at = torch.arange(part.start, part.stop, dtype=torch.float32, device=numbers.device) / scale
        low = at.floor()
        return low.long(), at - low

    (y, v), (x, u) = weights(rows), weights(columns)
    v = v[:, None]
    top = numbers[:, :, y][..., x] * (1 - u) + numbers[:, :, y][..., x + 1] * u
    low = numbers[:, :, y + 1][..., x] * (1 - u) + numbers[:, :, y + 1][..., x + 1] * u
    return top * (1 - v) + low * v


class SkyJudge(nn.Module):
    """Patches of sky to a map of how real they look.

    Parameters
    ----------
    settings : SkySettings
        `bands` of it.
    width : int
        Channels of its first layer.
    """

    def __init__(self, settings: SkySettings, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2 * settings.bands, width, 3), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 4, stride=2), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3),
        )  # fmt: skip

    def forward(self, sky: Tensor, valid: Tensor) -> Tensor:
        """Judgements ``[n]``: the mean over the patch."""
        out: Tensor = self.body(torch.cat([sky * valid, valid], dim=1)).mean((1, 2, 3))
        return out
