"""How stamps look, in numbers: size, shape, concentration, asymmetry, smoothness and colours, and distances between lists of them.

The same code measures real, generated and analytic stamps with the same noise and hidden pixels, so that what biases a
number biases all alike. Definitions follow Conselice (2003, ApJS 147, 1); distances are those of Wasserstein, in units of
the distance between two halves of the real stamps.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["SHAPES", "Looks", "distance_ratios", "look_at"]

Float64 = NDArray[np.float64]

#: What is measured in the reference band.
SHAPES = ("size", "ellipticity", "concentration", "asymmetry", "smoothness")
_SOFT = 3.0  # noise rms of an aperture to which colours of faint fluxes are softened
_REACH = 2.5  # half-light radii: where asymmetry, smoothness and colours are measured
_STEPS = 72  # radii of a curve of growth
_HALVES = 20  # ways to cut the real stamps in two


@dataclass(frozen=True, eq=False)
class Looks:
    """Numbers of n stamps.

    Attributes
    ----------
    values : float64 array ``[n, names]``
        NaN where one could not be measured.
    names : tuple of str
        `SHAPES`, then the colours of neighbouring bands.
    """

    values: Float64
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Looks:
        """Some of them."""
        return Looks(self.values[rows], self.names)


@torch.no_grad()
def look_at(
    signal: Tensor, valid: Tensor, x: Tensor, y: Tensor, noise: Tensor, band: int, bands: Sequence[str]
) -> Looks:
    """Measure stamps.

    Parameters
    ----------
    signal, valid : Tensor ``[n, bands, y, x]``
        Pixels in units of the noise; 1 where they count.
    x, y : Tensor ``[n, bands]``
        Where the sources are, pixels.
    noise : Tensor ``[n, bands]``
        nJy.
    band : int
        The reference band.
    bands : sequence of str
        Names.
    """
    rows, columns = signal.shape[2:]
    u = torch.arange(columns, device=signal.device) - x[..., None]
    v = torch.arange(rows, device=signal.device) - y[..., None]
    radius = (u[:, :, None, :] ** 2 + v[:, :, :, None] ** 2).sqrt()
    own, good, r = (t[:, band] for t in (signal, valid, radius))
    growth, steps = _growth(own, good, r)
    r20, r50, r80 = (_radius_of(growth, steps, share) for share in (0.2, 0.5, 0.8))
    ellipticity = _ellipticity(own * good, u[:, band], v[:, band], r50)
    near = (r < _REACH * r50[:, None, None]).float()
    turned, seen = _turned(own, good, x[:, band], y[:, band])
    both = near * seen
    light = (own.abs() * both).sum((1, 2)).clamp_min(1e-6)
    asymmetry = ((own - turned).abs() * both).sum((1, 2)) / light
    soft = nn.functional.avg_pool2d((own * good)[:, None], 5, 1, 2) / nn.functional.avg_pool2d(
        good[:, None], 5, 1, 2
    ).clamp_min(0.04)
    inner = near * good
    smoothness = ((own - soft[:, 0]).abs() * inner).sum((1, 2)) / (own.abs() * inner).sum((1, 2)).clamp_min(
        1e-6
    )
    shapes = [r50.log(), ellipticity, 5 * (r80 / r20).log10(), asymmetry, smoothness]
    colours = _colours(signal, valid, radius, r50, noise)
    values = torch.stack([*shapes, *colours], dim=1).double().cpu().numpy()
    values[~np.isfinite(values)] = np.nan
    names = (*SHAPES, *(f"{a}-{b}" for a, b in itertools.pairwise(bands)))
    return Looks(values, names)


def _growth(signal: Tensor, valid: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Curve of growth of the mean profile, so that hidden pixels leave no hole, and its radii."""
    reach = float(min(signal.shape[1:])) / 2 - 1
    steps = torch.linspace(0.5, reach, _STEPS, device=signal.device)
    width = float(steps[1] - steps[0])
    total = torch.zeros(len(signal), _STEPS, device=signal.device)
    before = torch.zeros(len(signal), device=signal.device)
    for k, edge in enumerate(steps):
        weight = (edge + 0.5 * width - radius).div(width).clamp(0, 1)
        weight = weight - (edge - 0.5 * width - radius).div(width).clamp(0, 1) if k else weight
        seen = (weight * valid).sum((1, 2))
        mean = (weight * valid * signal).sum((1, 2)) / seen.clamp_min(1e-3)
        before = before + torch.where(
            seen > 0.05 * weight.sum((1, 2)), mean, torch.zeros_like(mean)
        ) * weight.sum((1, 2))
        total[:, k] = before
    return total, steps


def _radius_of(growth: Tensor, steps: Tensor, share: float) -> Tensor:
    """Radius that holds a share of the light of the whole curve."""
    level = share * growth.amax(1, keepdim=True).clamp_min(1e-6)
    after = (growth >= level).float().argmax(1).clamp_min(1)
    row = torch.arange(len(growth), device=growth.device)
    low, high = growth[row, after - 1], growth[row, after]
    part = ((level[:, 0] - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    return steps[after - 1] + part * (steps[after] - steps[after - 1])


def _ellipticity(light: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Of second moments under a round Gaussian as wide as the half-light radius."""
    uu, vv = u[:, None, :] ** 2, v[:, :, None] ** 2
    weight = torch.exp(-0.5 * (uu + vv) / sigma[:, None, None] ** 2) * light
    xx, yy = (weight * uu).sum((1, 2)), (weight * vv).sum((1, 2))
    xy = (weight * u[:, None, :] * v[:, :, None]).sum((1, 2))
    return torch.hypot(xx - yy, 2 * xy) / (xx + yy).clamp_min(1e-6)


def _turned(signal: Tensor, valid: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Stamps turned by 180 degrees about their source, and where both sides have data."""
    rows, columns = signal.shape[1:]
    px = 2 * x[:, None] - torch.arange(columns, device=signal.device)
    py = 2 * y[:, None] - torch.arange(rows, device=signal.device)
    grid = torch.stack(
        [
            (2 * px / (columns - 1) - 1)[:, None, :].expand(-1, rows, -1),
            (2 * py / (rows - 1) - 1)[:, :, None].expand(-1, -1, columns),
        ],
        dim=3,
    )
    both = torch.stack([signal * valid, valid], dim=1)
    turned = nn.functional.grid_sample(both, grid, align_corners=True)
    seen = valid * (turned[:, 1] > 0.99)
    return turned[:, 0], seen


def _colours(signal: Tensor, valid: Tensor, radius: Tensor, r50: Tensor, noise: Tensor) -> list[Tensor]:
    """Differences of magnitudes within the same circle, pixels hidden in any band left out of all."""
    inside = (radius < (_REACH * r50)[:, None, None, None]).float() * valid.amin(1, keepdim=True)
    flux = (signal * inside).sum((2, 3)) * noise
    soft = _SOFT * noise * inside.sum((2, 3)).clamp_min(1).sqrt()
    magnitude = -2.5 / np.log(10) * (torch.asinh(flux / (2 * soft)) + soft.log())
    return [magnitude[:, k] - magnitude[:, k + 1] for k in range(signal.shape[1] - 1)]


def distance_ratios(real: Looks, made: Looks, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Wasserstein distances of each number, and their ratios to those between halves of the real ones.

    Parameters
    ----------
    real, made : Looks
        Of stamps that should be alike.
    seed : int
        Of the halves.

    Returns
    -------
    dict of (float, float)
        By name: the distance in units of the real standard deviation, and the ratio. Halves are half as many as the whole,
        so the distance between them is multiplied with the root of (1/n + 1/m) over that of (2/n + 2/n): what two samples
        of the sizes compared would have.
    """
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(seed)
    out = {}
    for k, name in enumerate(real.names):
        ours, theirs = (v.values[np.isfinite(v.values[:, k]), k] for v in (real, made))
        if min(ours.size, theirs.size) < 4:
            out[name] = (np.nan, np.nan)
            continue
        low, high = np.percentile(ours, (0.5, 99.5))
        ours, theirs = np.clip(ours, low, high), np.clip(theirs, low, high)
        unit = max(float(ours.std()), 1e-9)
        apart = float(wasserstein_distance(ours, theirs)) / unit
        halves = []
        for _ in range(_HALVES):
            order = rng.permutation(ours)
            halves.append(wasserstein_distance(order[: ours.size // 2], order[ours.size // 2 :]) / unit)
        fair = np.sqrt((1 / ours.size + 1 / theirs.size) / (4 / ours.size))
        out[name] = (apart, apart / max(float(np.mean(halves)) * fair, 1e-9))
    return out
