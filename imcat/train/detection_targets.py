"""What the detection network should say: targets, batches of crops, and the loss.

Heat and places are learned at the sources' centres. The score is learned at the peaks of the network's own heat, each
of which either is matched with a source or not: so the score is a probability of exactly what a user asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imcat.detect.network import HEAT, LOG_ERROR, LOG_RADIUS, OFFSET_X, OFFSET_Y, SCORE
from imcat.detect.network_peaks import Candidates, find_candidates
from imcat.evaluate.detection import match_lists
from imcat.train.detection_samples import View

__all__ = [
    "EDGE",
    "MIN_HEAT",
    "REAL",
    "SEPARATION",
    "Batch",
    "Crop",
    "Losses",
    "batches",
    "detection_loss",
    "inside_edge",
    "map_losses",
    "real_candidates",
    "targets",
    "whole",
]

#: Light of the faintest source that makes a detection real, as the signal-to-noise ratio of a point source: about two
#: magnitudes below the 5 sigma limit, whatever its size. That is how lists are judged.
REAL = 1.0
#: Of the candidates that are scored in training: smallest heat, and distance in units of the PSF's FWHM.
MIN_HEAT, SEPARATION = 0.05, 0.5
#: Candidates this close to the edge of a crop, pixels, are not scored: their partner may lie outside.
EDGE = 2

_CENTRE_SIGMA = 0.7  # pixels: width of the peak that the heat map should show
_FAINT = 2.0  # signal-to-noise ratio of the faintest source that the heat should show
_MATCH = 0.75  # smallest radius of a match in units of the PSF's FWHM
_SIZE_WEIGHT = 0.2  # of the sizes in the loss


@dataclass(frozen=True, eq=False)
class Crop:
    """Sources of a crop, FWHM of its PSF and radius of a match, in pixels; see `View`."""

    x: NDArray[Any]
    y: NDArray[Any]
    snr: NDArray[Any]
    radius: NDArray[Any]
    light: NDArray[Any]
    fwhm: float
    match: float

    @classmethod
    def of(cls, one: View) -> Crop:
        """All of a sample."""
        return cls(one.x, one.y, one.snr, one.radius, one.light, one.fwhm, one.match)

    @property
    def reach(self) -> float:
        """Radius within which a candidate and a source are one, pixels."""
        return max(self.match, _MATCH * self.fwhm)


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops as tensors ``[n, maps, y, x]``, ``[n, CONDITIONS]``, targets (see `targets`), and their sources."""

    maps: Tensor
    conditions: Tensor
    heat: Tensor
    place: Tensor
    crops: list[Crop]


@dataclass(frozen=True, eq=False)
class Losses:
    """Cross entropy of the heat, likelihood of the places, cross entropy of the scores, error of the sizes."""

    heat: Tensor
    place: Tensor
    score: Tensor
    size: Tensor

    def total(self, place_weight: float) -> Tensor:
        """What the optimiser reduces."""
        return self.heat + place_weight * self.place + self.score + _SIZE_WEIGHT * self.size

    def values(self) -> NDArray[np.float64]:
        """The four as numbers."""
        return np.array([float(v.detach()) for v in (self.heat, self.place, self.score, self.size)])


def targets(crop: Crop, side: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the network should say of a crop.

    Parameters
    ----------
    crop : Crop
        Its sources.
    side : (int, int)
        Rows and columns.

    Returns
    -------
    heat : float32 array ``[y, x]``
        1 in the pixel of a source's centre, falling off around it.
    place : float32 array ``[4, y, x]``
        In that pixel and its neighbours: offsets of the centre along x and y, logarithm of the half-light radius in
        half widths of the PSF, and how much the pixel counts.
    """
    rows, columns = side
    heat = np.zeros(side, np.float32)
    place = np.zeros((4, *side), np.float32)
    x, y, snr = crop.x, crop.y, crop.snr
    inside = (snr >= _FAINT) & (x > -3) & (y > -3) & (x < columns + 2) & (y < rows + 2)
    size = np.log(crop.radius / (0.5 * crop.fwhm))
    offset = np.arange(-3, 4)
    # Faint ones first: a bright one's pixel is its own.
    for i in np.flatnonzero(inside)[np.argsort(snr[inside], kind="stable")]:
        column, row = round(float(x[i])), round(float(y[i]))
        px, py = offset + column, offset + row
        vx, vy = (px >= 0) & (px < columns), (py >= 0) & (py < rows)
        if not (vx.any() and vy.any()):
            continue
        # The peak is that of the pixel, so that it is 1 wherever in it the centre lies.
        peak = np.exp(-0.5 * (offset[vy, None] ** 2 + offset[None, vx] ** 2) / _CENTRE_SIGMA**2).astype(
            np.float32
        )
        window = (slice(py[vy][0], py[vy][-1] + 1), slice(px[vx][0], px[vx][-1] + 1))
        heat[window] = np.maximum(heat[window], peak)
        near = (peak >= place[(3, *window)]) & (
            np.maximum(np.abs(offset[vy, None]), np.abs(offset[None, vx])) <= 1
        )
        for k, value in enumerate((x[i] - px[None, vx], y[i] - py[vy, None], size[i], peak)):
            np.copyto(place[(k, *window)], np.broadcast_to(value, near.shape).astype(np.float32), where=near)
    return heat, place


def real_candidates(found: Candidates, crop: Crop) -> NDArray[np.bool_]:
    """Which candidates are matched with a source, one to one and nearest first."""
    true = crop.light >= REAL
    return match_lists(found.x, found.y, crop.x[true], crop.y[true], crop.reach).used(found.x.size)


def detection_loss(answer: Tensor, batch: Batch) -> Losses:
    """Compare the network's answer ``[n, OUTPUTS, y, x]`` with what it should be."""
    heat, place = batch.heat.to(answer.device), batch.place.to(answer.device)
    return map_losses(answer, heat, place, _score_loss(answer, batch))


def map_losses(answer: Tensor, heat: Tensor, place: Tensor, score: Tensor) -> Losses:
    """Losses of the maps, with that of the scores, for each source of a batch.

    Parameters
    ----------
    answer : Tensor ``[n, OUTPUTS, y, x]``
        Of the network.
    heat, place : Tensors ``[n, y, x]``, ``[n, 4, y, x]``
        See `targets`.
    score : Tensor
        Sum of the cross entropies of the scores.
    """
    centre = (heat > 0.999).float()
    sources = centre.sum().clamp(min=1.0)
    # The pixels around a centre are neither centre nor sky: they count the less the closer they are.
    weight = torch.where(centre > 0, torch.ones_like(heat), (1 - heat) ** 4)
    crossed = nn.functional.binary_cross_entropy_with_logits(answer[:, HEAT], centre, weight, reduction="sum")
    log_error = answer[:, LOG_ERROR].clamp(-5.0, 2.0)
    square = (answer[:, OFFSET_X] - place[:, 0]) ** 2 + (answer[:, OFFSET_Y] - place[:, 1]) ** 2
    likelihood = (place[:, 3] * (0.5 * square * torch.exp(-2 * log_error) + 2 * log_error)).sum()
    off = (place[:, 3] * (answer[:, LOG_RADIUS] - place[:, 2]).abs()).sum()
    return Losses(crossed / sources, likelihood / sources, score / sources, off / sources)


def _score_loss(answer: Tensor, batch: Batch) -> Tensor:
    """Cross entropy of the scores at the peaks of the heat."""
    said = answer.detach().cpu().numpy()
    image, row, column, real = [], [], [], []
    for n, crop in enumerate(batch.crops):
        found = find_candidates(said[n], crop.fwhm, MIN_HEAT, SEPARATION)
        rows, columns = said[n].shape[1:]
        inner = inside_edge(found.x, found.y, rows, columns)
        good = real_candidates(found, crop)[inner]
        image.append(np.full(good.size, n))
        row.append(found.row[inner])
        column.append(found.column[inner])
        real.append(good)
    at = [torch.from_numpy(np.concatenate(v)).to(answer.device) for v in (image, row, column)]
    logit = answer[at[0], SCORE, at[1], at[2]]
    truth = torch.from_numpy(np.concatenate(real)).to(answer.device, torch.float32)
    return nn.functional.binary_cross_entropy_with_logits(logit, truth, reduction="sum")


def inside_edge(x: Any, y: Any, rows: int, columns: int) -> Any:
    """Which places are far enough from the edge of a crop to be scored, as arrays or tensors."""
    return (x >= EDGE) & (y >= EDGE) & (x < columns - EDGE - 1) & (y < rows - EDGE - 1)


def batches(
    views: Sequence[View],
    size: int,
    side: int,
    seed: int,
    first: int,
    *,
    labelled: Sequence[View] = (),
    share: float = 0.0,
) -> Iterator[Batch]:
    """Random crops, turned and mirrored; step k of a run is the same whenever it starts.

    Parameters
    ----------
    views : sequence of View
        Simulated samples, all of one size.
    size, side : int
        Crops of a batch; their side, pixels.
    seed, first : int
        Decides the crops; number of the first step.
    labelled : sequence of View
        Other samples; those larger than a crop count by their area.
    share : float
        Share of the crops that come from them.
    """
    area = np.array([np.prod(one.maps.shape[1:]) for one in labelled], dtype=float)
    step = first
    while True:
        rng = np.random.default_rng([seed, 77, step])
        parts = []
        for _ in range(size):
            if labelled and rng.random() < share:
                chosen = labelled[int(rng.choice(len(labelled), p=area / area.sum()))]
            else:
                chosen = views[int(rng.integers(len(views)))]
            parts.append(_crop(chosen, side, rng))
        yield _batch(parts, (side, side))
        step += 1


def whole(one: View) -> Batch:
    """A whole sample as a batch of one."""
    return _batch([(one.maps, one.conditions, Crop.of(one))], one.maps.shape[1:])


def _batch(parts: Sequence[tuple[NDArray[Any], NDArray[Any], Crop]], shape: tuple[int, ...]) -> Batch:
    maps, conditions, crops = zip(*parts, strict=True)
    heat, place = zip(*(targets(crop, (shape[0], shape[1])) for crop in crops), strict=True)
    return Batch(
        torch.from_numpy(np.stack(maps).astype(np.float32)), torch.from_numpy(np.stack(conditions)),
        torch.from_numpy(np.stack(heat)), torch.from_numpy(np.stack(place)), list(crops),
    )  # fmt: skip


def _crop(one: View, side: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], Crop]:
    rows, columns = one.maps.shape[1:]
    y0, x0 = int(rng.integers(rows - side + 1)), int(rng.integers(columns - side + 1))
    maps = one.maps[:, y0 : y0 + side, x0 : x0 + side]
    x, y = one.x - x0, one.y - y0
    if rng.random() < 0.5:
        maps, x = maps[:, :, ::-1], side - 1 - x
    if rng.random() < 0.5:
        maps, y = maps[:, ::-1], side - 1 - y
    if rng.random() < 0.5:
        maps, x, y = maps.transpose(0, 2, 1), y, x
    return maps, one.conditions, replace(Crop.of(one), x=x, y=y)
