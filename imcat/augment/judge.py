"""What stands against the generator: a small convolutional network that tells real stamps from generated ones.

It sees stamps as the classifiers do, compressed and in units of the noise, with what was asked for (Miyato and Koyama 2018,
arXiv:1802.05637), and its slope on real stamps is penalised (R1; Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406).
Both kinds are shifted and turned at random before it sees them, so that a thousand stamps last (Zhao et al. 2020,
arXiv:2006.10738).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imcat.augment.conditions import NUMBERS

__all__ = ["JudgeSettings", "StampJudge", "moved_alike", "slope_penalty"]

_STRETCH = 2.0  # noise rms: as of imcat.stamps.compress
_FURTHEST = 2  # pixels by which stamps are shifted


@dataclass(frozen=True)
class JudgeSettings:
    """Size of the network.

    Attributes
    ----------
    bands : int
        Of the stamps.
    width : int
        Channels of its first layer; each layer has twice as many as the one before.
    depth : int
        Layers, each of which halves the stamp.
    """

    bands: int = 5
    width: int = 32
    depth: int = 3


class StampJudge(nn.Module):
    """Stamps and conditions to a number: how real the stamp looks.

    Parameters
    ----------
    settings : JudgeSettings
        Its size.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        super().__init__()
        s = self.settings = settings
        layers: list[nn.Module] = [nn.Conv2d(2 * s.bands, s.width, 3, padding=1), nn.LeakyReLU(0.2)]
        for k in range(s.depth):
            width = s.width * 2**k
            layers += [
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.GroupNorm(min(8, 2 * width), 2 * width),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*layers)
        wide = s.width * 2**s.depth
        self.real = nn.Linear(2 * wide, 1)
        self.fits = nn.Linear(NUMBERS, 2 * wide)

    def forward(self, signal: Tensor, valid: Tensor, vector: Tensor) -> Tensor:
        """Judge.

        Parameters
        ----------
        signal : Tensor ``[n, bands, y, x]``
            Pixels in units of the noise.
        valid : Tensor ``[n, bands, y, x]``
            1 where there are data.
        vector : Tensor ``[n, NUMBERS]``
            `imcat.augment.conditions.Conditions.vector`.

        Returns
        -------
        Tensor ``[n]``
        """
        seen = torch.asinh(signal * valid / _STRETCH)
        maps = self.body(torch.cat([seen, valid], dim=1)).flatten(2)
        # The middle of the stamp and all of it.
        found = torch.cat([maps.mean(2), maps.amax(2)], dim=1)
        out: Tensor = self.real(found)[:, 0] + (self.fits(vector) * found).mean(1)
        return out


def moved_alike(signal: Tensor, valid: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Stamps of a batch turned, mirrored and shifted at random, with zeros moving in."""
    turn = int(torch.randint(8, (1,), generator=chance))
    both = torch.cat([signal, valid], dim=1)
    both = both.rot90(turn % 4, (2, 3))
    both = both.flip(3) if turn >= 4 else both
    dy, dx = (int(v) for v in torch.randint(-_FURTHEST, _FURTHEST + 1, (2,), generator=chance))
    padded = nn.functional.pad(both, (_FURTHEST,) * 4)
    rows, columns = both.shape[2:]
    both = padded[:, :, _FURTHEST + dy : _FURTHEST + dy + rows, _FURTHEST + dx : _FURTHEST + dx + columns]
    return both[:, : signal.shape[1]], both[:, signal.shape[1] :]


def slope_penalty(judge: StampJudge, signal: Tensor, valid: Tensor, vector: Tensor) -> Tensor:
    """Half the mean square of the slope of the judgement on real stamps, in compressed pixels."""
    at = torch.asinh(signal.detach() / _STRETCH).requires_grad_(True)
    said = judge(torch.sinh(at) * _STRETCH, valid, vector).sum()
    (slope,) = torch.autograd.grad(said, at, create_graph=True)
    return 0.5 * slope.square().sum((1, 2, 3)).mean()
