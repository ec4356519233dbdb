"""Stamps turned upright: the same source gives the same answer however the camera was turned.

A stamp is mirrored and transposed so that its light leans to the right, upwards, and more to the right than upwards.
The eight stamps that turns by right angles and mirrors make of one are the same stamp afterwards, so a
network that sees only upright ones cannot tell them apart. It costs one sum over the pixels and a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["orientation", "oriented", "upright"]


def orientation(values: Tensor, valid: Tensor) -> Tensor:
    """How stamps must be moved to stand upright, int64 ``[n]``: the sum of 1 (mirror x), 2 (mirror y), 4 (then transpose).

    Parameters
    ----------
    values, valid : Tensor ``[n, bands, y, x]``
        As of `imcat.backbones.vit.Vit.tokens`.
    """
    with torch.no_grad():
        # In double precision, so that the order of a sum decides nothing.
        light = (values * valid).sum(1, dtype=torch.float64)
        place = torch.arange(values.shape[3], device=values.device, dtype=torch.float64)
        place -= 0.5 * (values.shape[3] - 1)
        x, y = (light.sum(1) * place).sum(1), (light.sum(2) * place).sum(1)
        return (x < 0).long() + 2 * (y < 0).long() + 4 * (y.abs() > x.abs()).long()


def oriented(images: Tensor, code: Tensor) -> Tensor:
    """Images ``[n, c, y, x]`` moved as `orientation` says, ``[n]``."""
    order = torch.argsort(code, stable=True)
    parts, first = [], 0
    for k, count in enumerate(torch.bincount(code, minlength=8).tolist()):
        own = images[order[first : first + count]]
        axes = [3 - axis for axis in (0, 1) if k >> axis & 1]
        own = own.flip(axes) if axes else own
        parts.append(own.transpose(2, 3) if k & 4 else own)
        first += count
    return torch.cat(parts)[torch.argsort(order)]


def upright(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Stamps mirrored and transposed until they stand as their light says; parameters as of `orientation`."""
    if len(values) == 0:
        return values, valid
    code = orientation(values, valid)
    return oriented(values, code), oriented(valid, code)
