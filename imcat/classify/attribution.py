"""Which pixels an answer rests on: integrated gradients, and the deletion curve that checks them.

The attribution of a pixel is the gradient of the answer with respect to it, averaged along the straight way from an empty
stamp to the stamp, times the pixel (Sundararajan, Taly and Yan 2017, arXiv:1703.01365). Attributions add up to what
the stamp changed. A map is worth something if the answer falls faster when the pixels it names first are emptied than when
others are (Petsiuk, Das and Saenko 2018, arXiv:1806.07421).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcat.backbones.orient import orientation, oriented
from imcat.classify.network import Measured, measured
from imcat.classify.photometry import Photometry
from imcat.classify.trained import TrainedClassifier
from imcat.stamps import Stamps, band_conditions, compress

__all__ = ["Attribution", "attribute", "deletion_curve"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_BATCH = 64
_LENS = -1


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each pixel adds to an answer.

    Attributes
    ----------
    maps : float32 array ``[n, bands, y, x]``
        In the units of the answer.
    answer, empty : float64 arrays ``[n]``
        Log odds of the class that is explained (or of a lens), with the stamp and with an empty one.
    """

    maps: Float32
    answer: Float64
    empty: Float64


def attribute(
    trained: TrainedClassifier,
    stamps: Stamps,
    photometry: Photometry | None,
    classes: Sequence[int] | NDArray[np.integer] | None,
    steps: int = 24,
) -> Attribution:
    """Attributions of the pixels.

    Parameters
    ----------
    trained : TrainedClassifier
        Whose answers.
    stamps : Stamps
        Of n sources.
    photometry : Photometry or None
        Of the same sources: what the pixels add to it is explained. None: of the stamps alone.
    classes : sequence of int ``[n]`` or None
        `imcat.simulate.sources.Kind` whose log odds are explained; None: the log odds of a lens.
    steps : int
        Of the integral.
    """
    given = _measured(photometry, stamps)
    target = np.full(len(stamps), _LENS) if classes is None else np.asarray(classes)
    maps, answer, empty = [], [], []
    place = (np.arange(steps) + 0.5) / steps  # the rule of midpoints
    for k in range(0, len(stamps), _BATCH):
        rows = slice(k, min(k + _BATCH, len(stamps)))
        values, valid, conditions = _tensors(stamps, rows)
        own, which = _part(given, rows), torch.from_numpy(target[rows].astype(np.int64))
        total, turn = torch.zeros_like(values), orientation(values, valid)
        for share in place.tolist():
            point = (values * share).requires_grad_(True)
            odds = _odds(trained, point, valid, conditions, turn, own, which).sum()
            (slope,) = torch.autograd.grad(odds, point)
            total += slope / steps
        with torch.no_grad():
            answer.append(_odds(trained, values, valid, conditions, turn, own, which))
            empty.append(_odds(trained, torch.zeros_like(values), valid, conditions, turn, own, which))
        maps.append((total * values).detach())
    return Attribution(
        torch.cat(maps).numpy(), torch.cat(answer).double().numpy(), torch.cat(empty).double().numpy()
    )


def deletion_curve(
    trained: TrainedClassifier,
    stamps: Stamps,
    photometry: Photometry | None,
    classes: Sequence[int] | NDArray[np.integer] | None,
    order: Float32,
    shares: Sequence[float] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0),
) -> Float64:
    """Log odds after the pixels that come first are emptied in all bands, ``[n, shares]``.

    Parameters
    ----------
    trained, stamps, photometry, classes
        As of `attribute`.
    order : float array ``[n, y, x]``
        Pixels with the largest values go first: the sum over the bands of an attribution, or noise to compare with.
    shares : sequence of float
        Of the pixels that are emptied.
    """
    given = _measured(photometry, stamps)
    target = np.full(len(stamps), _LENS) if classes is None else np.asarray(classes)
    flat = np.asarray(order).reshape(len(stamps), -1)
    rank = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1, kind="stable").reshape(order.shape)
    count = flat.shape[1]
    out = np.zeros((len(stamps), len(shares)))
    for k in range(0, len(stamps), _BATCH):
        rows = slice(k, min(k + _BATCH, len(stamps)))
        values, valid, conditions = _tensors(stamps, rows)
        own, which = _part(given, rows), torch.from_numpy(target[rows].astype(np.int64))
        turn = orientation(values, valid)
        for j, share in enumerate(shares):
            kept = torch.from_numpy((rank[rows] >= round(share * count)).astype(np.float32))[:, None]
            with torch.no_grad():
                out[rows, j] = (
                    _odds(trained, values * kept, valid, conditions, turn, own, which).double().numpy()
                )
    return out


def _tensors(stamps: Stamps, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(compress(stamps.signal[rows])),
        torch.from_numpy(stamps.valid[rows].astype(np.float32)),
        torch.from_numpy(band_conditions(stamps)[rows]),
    )


def _measured(photometry: Photometry | None, stamps: Stamps) -> Measured:
    if photometry is not None:
        return measured(photometry)
    from imcat.classify.photometry import table_photometry

    nothing = np.full((len(stamps), len(stamps.wavelength)), np.nan, np.float32)
    return measured(table_photometry(stamps.wavelength.tolist(), nothing))


def _part(given: Measured, rows: slice) -> Measured:
    return Measured(**{name: value[rows] for name, value in vars(given).items()})


def _odds(
    trained: TrainedClassifier,
    values: Tensor,
    valid: Tensor,
    conditions: Tensor,
    turn: Tensor,
    given: Measured,
    which: Tensor,
) -> Tensor:
    """Log odds of the class against the other two, or of a lens, ``[n]``; what is left of a stamp stays turned as all of it."""
    vision = trained.network.vision.see(oriented(values, turn), oriented(valid, turn), conditions)
    said = trained.network.classifier(given, vision, torch.ones(len(values)))
    log = torch.log_softmax(said.kind, 1)
    own = torch.gather(log, 1, which.clamp_min(0)[:, None])[:, 0]
    others = torch.log(-torch.expm1(own.clamp_max(-1e-7)))
    return torch.where(which == _LENS, said.lens, own - others)
