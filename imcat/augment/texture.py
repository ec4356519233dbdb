"""Statistics of empty sky: what generated sky has in common with real sky, and what it lacks.

Everything is in units of the noise, and pixels that sources light up are left out of every mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["LAGS", "Texture", "power_spectrum", "texture_of"]

#: Lags (rows, columns) at which the autocorrelation is compared, pixels.
LAGS = tuple((dy, dx) for dy in range(5) for dx in range(-4, 5) if (dy, dx) > (0, 0))
_CLIP = 4.0  # noise rms: rarer pixels are artefacts, whose number is not a matter of moments
_BLOCKS = (4, 8, 16)  # pixels: sides of the blocks whose means tell of faint light and gradients


@dataclass(frozen=True, eq=False)
class Texture:
    """Statistics of many patches, each with an axis of bands first.

    Attributes
    ----------
    mean, rms, skewness, excess : Tensor ``[bands]``
        Moments of pixels within four times the noise.
    correlation : Tensor ``[bands, lags]``
        Autocorrelation at `LAGS`.
    blocks : Tensor ``[bands, blocks]``
        Variance of the means of blocks times their pixels, over the variance of a pixel: 1 for white noise.
    between : Tensor ``[bands, bands]``
        Correlation of bands, for pixels.
    wide : Tensor ``[bands, bands]``
        The same for blocks of eight pixels: what faint sources and scattered light have in common.
    """

    mean: Tensor
    rms: Tensor
    skewness: Tensor
    excess: Tensor
    correlation: Tensor
    blocks: Tensor
    between: Tensor
    wide: Tensor

    def distance(self, other: Texture) -> Tensor:
        """A sum of squared differences, each in units of what matters."""
        weights = {
            "mean": 0.02, "rms": 0.01, "skewness": 0.03, "excess": 0.05, "correlation": 0.005, "blocks": 0.05,
            "between": 0.005, "wide": 0.03,
        }  # fmt: skip
        parts = [((getattr(self, n) - getattr(other, n)) / w).square().mean() for n, w in weights.items()]
        return torch.stack(parts).mean()


def texture_of(sky: Tensor, valid: Tensor) -> Texture:
    """Statistics of patches ``[n, bands, y, x]``; they can be differentiated by the pixels."""
    good = valid * (sky.abs() < _CLIP)
    count = good.sum((0, 2, 3)).clamp_min(1)
    mean = (sky * good).sum((0, 2, 3)) / count
    centred = (sky - mean[:, None, None]) * good
    variance = centred.square().sum((0, 2, 3)) / count
    rms = variance.sqrt()
    unit = centred / rms[:, None, None]
    skewness = (unit**3).sum((0, 2, 3)) / count
    excess = (unit**4).sum((0, 2, 3)) / count
    correlation = torch.stack([_lagged(unit, good, lag) for lag in LAGS], dim=1)
    blocks, wide = [], None
    for side in _BLOCKS:
        share = nn.functional.avg_pool2d(good, side)
        level = nn.functional.avg_pool2d(unit * good, side) / share.clamp_min(0.05)
        used = (share > 0.5).to(sky.dtype)
        blocks.append(
            (level.square() * share * used).sum((0, 2, 3)) / used.sum((0, 2, 3)).clamp_min(1) * side**2
        )
        if side == _BLOCKS[1]:
            wide = _between(level, used)
    assert wide is not None
    return Texture(
        mean, rms, skewness, excess, correlation, torch.stack(blocks, 1), _between(unit, good), wide
    )


def _lagged(unit: Tensor, good: Tensor, lag: tuple[int, int]) -> Tensor:
    """Mean product of pixels and their neighbours at a lag, ``[bands]``."""
    dy, dx = lag
    rows, columns = unit.shape[2:]
    first = (..., slice(0, rows - dy), slice(max(-dx, 0), columns - max(dx, 0)))
    second = (..., slice(dy, rows), slice(max(dx, 0), columns + min(dx, 0)))
    both = good[first] * good[second]
    return (unit[first] * unit[second] * both).sum((0, 2, 3)) / both.sum((0, 2, 3)).clamp_min(1)


def _between(unit: Tensor, good: Tensor) -> Tensor:
    """Correlation of every pair of bands, ``[bands, bands]``."""
    held = unit * good
    product = torch.einsum("nbyx,ncyx->bc", held, held)
    count = torch.einsum("nbyx,ncyx->bc", good, good).clamp_min(1)
    covariance = product / count
    scale = covariance.diagonal().clamp_min(1e-9).sqrt()
    return covariance / (scale[:, None] * scale[None, :])


def power_spectrum(sky: np.ndarray, bins: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of patches in rings of frequency.

    Parameters
    ----------
    sky : float array ``[n, y, x]``
        Without gaps, squares; means are taken out and edges tapered with a Hann window.
    bins : int
        Rings from the lowest frequency to that of 2 pixels, as wide as each other in the logarithm.

    Returns
    -------
    wavelength : float64 array ``[bins]``
        Pixels.
    power : float64 array ``[bins]``
        1 for white noise of unit variance.
    """
    side = sky.shape[-1]
    taper = np.hanning(side + 2)[1:-1]
    window = taper[:, None] * taper[None, :]
    flat = (sky - sky.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(flat)) ** 2).mean(axis=0) / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    edges = np.geomspace(1.5 / side, 0.5, bins + 1)
    which = np.digitize(frequency, edges) - 1
    inside = (which >= 0) & (which < bins)
    total = np.bincount(which[inside], power[inside], bins)
    number = np.bincount(which[inside], minlength=bins)
    at = np.bincount(which[inside], frequency[inside], bins) / np.maximum(number, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 / at, np.where(number > 0, total / np.maximum(number, 1), np.nan)
