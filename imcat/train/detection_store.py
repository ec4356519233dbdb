"""Samples for the detection network in a GPU's memory, and crops of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imcat.detect.network_input import CONDITIONS, FEATURES
from imcat.train.detection_packs import PLANES, ViewPack

__all__ = ["DeviceBatch", "SampleStore"]

_SOURCES = 512  # of a sample, at most, that make a candidate real
_NOWHERE = -1e4  # pixels


@dataclass(frozen=True, eq=False)
class DeviceBatch:
    """Crops on the device, all of one size.

    Attributes
    ----------
    maps : Tensor ``[n, FEATURES, y, x]``
        Of the network.
    conditions : Tensor ``[n, CONDITIONS]``
        Likewise.
    heat, place : Tensors ``[n, y, x]``, ``[n, 4, y, x]``
        See `imcat.train.detection_targets.targets`.
    sources : Tensor ``[n, m, 2]``
        x and y of the sources that make a candidate real; far away where there are fewer.
    fwhm, reach : Tensors ``[n]``
        Of the PSF; radius of a match, pixels.
    """

    maps: Tensor
    conditions: Tensor
    heat: Tensor
    place: Tensor
    sources: Tensor
    fwhm: Tensor
    reach: Tensor


class SampleStore:
    """Samples on a device; more may come in while others are drawn.

    Parameters
    ----------
    room : int
        Samples that it holds.
    side : int
        Of each, pixels.
    place : torch.device
        Where.
    """

    def __init__(self, room: int, side: int, place: torch.device) -> None:
        self.count, self.side = 0, side
        self.planes = torch.empty((room, PLANES, side, side), dtype=torch.float16, device=place)
        self.conditions = torch.zeros((room, CONDITIONS), device=place)
        self.sources = torch.full((room, _SOURCES, 2), _NOWHERE, device=place)
        self.fwhm, self.reach = torch.ones(room, device=place), torch.ones(room, device=place)

    def add(self, pack: ViewPack) -> None:
        """Take in the samples of a pack, and remove its file."""
        number = len(pack.fwhm)
        begin, end = self.count, self.count + number
        planes = np.fromfile(pack.path, np.float16).reshape(number, PLANES, self.side, self.side)
        pack.path.unlink()
        sources = np.full((number, _SOURCES, 2), _NOWHERE, np.float32)
        for own, places in zip(sources, pack.places, strict=True):
            own[: len(places)] = places[:_SOURCES]
        with torch.no_grad():
            self.planes[begin:end] = torch.from_numpy(planes).to(self.planes.device)
            self.conditions[begin:end] = torch.from_numpy(pack.conditions).to(self.planes.device)
            self.sources[begin:end] = torch.from_numpy(sources).to(self.planes.device)
            self.fwhm[begin:end] = torch.from_numpy(pack.fwhm).to(self.planes.device)
            self.reach[begin:end] = torch.from_numpy(pack.reach).to(self.planes.device)
        self.count = end  # last: from here on they may be drawn

    def draw(self, number: int, side: int, generator: torch.Generator) -> DeviceBatch:
        """Random crops, turned and mirrored."""
        place = self.planes.device
        chance = torch.rand((6, number), generator=generator, device=place)
        room = self.side - side + 1
        sample = (chance[0] * self.count).long().clamp(max=self.count - 1)
        x0, y0 = ((c * room).long().clamp(max=room - 1) for c in chance[1:3])
        return self.crops(sample, x0, y0, chance[3] < 0.5, chance[4] < 0.5, chance[5] < 0.5, side)

    def whole(self, begin: int, end: int) -> DeviceBatch:
        """Samples as they are."""
        sample = torch.arange(begin, min(end, self.count), device=self.planes.device)
        zero = torch.zeros_like(sample)
        no = zero.bool()
        return self.crops(sample, zero, zero, no, no, no, self.side)

    def crops(
        self, sample: Tensor, x0: Tensor, y0: Tensor, flip_x: Tensor, flip_y: Tensor, turn: Tensor, side: int
    ) -> DeviceBatch:
        """Crops of samples ``[n]`` from x0 and y0 on, mirrored along x and y, then with x and y exchanged."""
        along = torch.arange(side, device=sample.device)
        columns = x0[:, None] + torch.where(flip_x[:, None], side - 1 - along, along)
        rows = y0[:, None] + torch.where(flip_y[:, None], side - 1 - along, along)
        turned = turn[:, None, None]
        row = torch.where(turned, rows[:, None, :], rows[:, :, None])
        column = torch.where(turned, columns[:, :, None], columns[:, None, :])
        plane = torch.arange(PLANES, device=sample.device)
        planes = self.planes[sample[:, None, None, None], plane[:, None, None], row[:, None], column[:, None]]
        place = planes[:, FEATURES + 1 :].float()
        dx = torch.where(flip_x[:, None, None], -place[:, 0], place[:, 0])
        dy = torch.where(flip_y[:, None, None], -place[:, 1], place[:, 1])
        place = torch.stack(
            [torch.where(turned, dy, dx), torch.where(turned, dx, dy), place[:, 2], place[:, 3]], dim=1
        )
        x, y = (self.sources[sample] - torch.stack([x0, y0], dim=1)[:, None]).unbind(dim=2)
        x = torch.where(flip_x[:, None], side - 1 - x, x)
        y = torch.where(flip_y[:, None], side - 1 - y, y)
        exchanged = turn[:, None]
        sources = torch.stack([torch.where(exchanged, y, x), torch.where(exchanged, x, y)], dim=2)
        return DeviceBatch(
            planes[:, :FEATURES], self.conditions[sample], planes[:, FEATURES].float(), place, sources,
            self.fwhm[sample], self.reach[sample],
        )  # fmt: skip
