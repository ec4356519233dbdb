"""Stamps turned upright: the same source gives the same answer however the camera was turned.

A stamp is mirrored and transposed so that its light leans to the right, upwards, and more to the right than upwards.
The eight stamps that turns by right angles and mirrors make of one are the same stamp afterwards, so a
network that sees only upright ones cannot tell them apart. It costs one sum over the pixels and a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["upright"]


def upright(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Stamps as they are told by their light alone.

    Parameters
    ----------
    values, valid : Tensor ``[n, bands, y, x]``
        As of `imcat.backbones.vit.Vit.tokens`.

    Returns
    -------
    values, valid : Tensor ``[n, bands, y, x]``
        Mirrored and transposed.
    """
    n, _, rows, columns = values.shape
    if n == 0 or rows != columns:
        return values, valid
    with torch.no_grad():
        # In double precision, so that the order of a sum decides nothing.
        light = (values * valid).sum(1, dtype=torch.float64)
        place = torch.arange(columns, device=values.device, dtype=torch.float64) - 0.5 * (columns - 1)
        along_x, along_y = (light.sum(1) * place).sum(1), (light.sum(2) * place).sum(1)
        code = (along_x < 0).long() + 2 * (along_y < 0).long() + 4 * (along_y.abs() > along_x.abs()).long()
        code = code.cpu()
    order = torch.argsort(code, stable=True)
    both: tuple[list[Tensor], list[Tensor]] = ([], [])
    for k, count in enumerate(torch.bincount(code, minlength=8).tolist()):
        if not count:
            continue
        own = order[:count]
        order = order[count:]
        for part, images in zip(both, (values, valid), strict=True):
            part.append(_moved(images[own.to(images.device)], k))
    back = torch.argsort(torch.argsort(code, stable=True)).to(values.device)
    return torch.cat(both[0])[back], torch.cat(both[1])[back]


def _moved(images: Tensor, code: int) -> Tensor:
    """Mirrored along x (1), along y (2), then transposed (4)."""
    axes = [3 - k for k in (0, 1) if code >> k & 1]
    out = images.flip(axes) if axes else images
    return out.transpose(2, 3) if code & 4 else out
