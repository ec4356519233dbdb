"""What the blank sky of a real image is like: white noise, columns, and the sky that its reduction left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.noise.mesh import clipped_rms_loss

__all__ = ["FAR_WEIGHT", "NEAR_WEIGHT", "BlankSky", "interpolated_columns", "measure_blank_sky"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_CLIP = 4.0  # rms; beyond, a pixel of blank sky is a faint star or a cosmic ray
_LAG = 2  # rows between pixels whose difference tells the white noise: background cancels
_CORRELATED_LAG = 8  # the same where resampling made neighbours alike
_FEWEST = 200  # pixels of a column that make a measurement
_FAR = 5.0  # sigma, of means of rows and columns; beyond, a trail
_BOX = 64  # pixels; side of the boxes whose means tell the background
_ODD = 5.0  # sigma by which a column must stand out

# Weights with which PHOTO fills a bad column from two neighbours on either side. They were found by
# regression of such columns on their neighbours in three fields (-0.25, 0.71, 0.71, -0.25 with the
# rounding of the frames) and are those of the published algorithm for a PSF of sigma 1 pixel (R. Lupton,
# in ``afw``/``meas_algorithms`` of the LSST pipelines, which inherited them: 0.7737, -0.2737).
NEAR_WEIGHT, FAR_WEIGHT = 0.7737, -0.2737
_SAME = 0.15  # rms; a pixel this close to what its neighbours predict agrees with it
_MOSTLY = 0.4  # fraction of a column's pixels that agree; 0.08 do by chance


@dataclass(frozen=True, eq=False)
class BlankSky:
    """Noise and background of blank sky.

    Attributes
    ----------
    scale : float32 array, ``[x]``
        Rms of the white noise of each column in units of the expected one; one value for each half of the
        columns where these differ (two amplifiers), one for all elsewhere.
    ratio : float
        Its median.
    correlation : (float, float)
        Of neighbours along x and along y, background taken out.
    columns : tuple of int
        Columns that the survey interpolated.
    column_scatter : float
        Rms of the means of columns in units of what white noise gives; 1 is none.
    row_scatter : (float, float)
        The same for rows, in the left and the right half: each amplifier has its own bias level.
    row_link : float
        Correlation of the levels of rows of both halves.
    mean : float
        Mean of blank sky, in units of the noise of a pixel.
    rms : float
        Of the background in boxes of 64 pixels, the noise taken out, in units of the noise of a pixel.
    length : float
        Distance at which the background's correlation has fallen to one half, pixels.
    kurtosis : float
        Excess kurtosis of the pixels; 0 for normal noise that is cut at 4 rms on both sides.
    """

    scale: Float32
    ratio: float
    correlation: tuple[float, float]
    columns: tuple[int, ...]
    column_scatter: float
    row_scatter: tuple[float, float]
    row_link: float
    mean: float
    rms: float
    length: float
    kurtosis: float


def measure_blank_sky(values: Float32, blank: Bools, *, amplifiers: bool = False) -> BlankSky:
    """Measure noise and background of an image in the pixels without sources.

    Parameters
    ----------
    values : float32 array, ``[y, x]``
        Pixels over their expected noise.
    blank : bool array, ``[y, x]``
        Where no source and no bad pixel is.
    amplifiers : bool
        Whether the left and the right half were read by two amplifiers.
    """
    blank = blank & (np.abs(values) < _CLIP + 1)
    values = np.where(blank, values, np.float32(0))
    around = _local_mean(values, blank)
    flat = np.where(blank, values - around, np.float32(0))
    columns = interpolated_columns(values, blank)
    # Interpolated columns are correlated with their neighbours by what they were made of.
    own = blank.copy()
    own[:, list(columns)] = False
    correlation = _neighbour(flat, own, 0, 1), _neighbour(flat, own, 1, 0)
    lag = _LAG if max(map(abs, correlation)) < 0.1 else _CORRELATED_LAG
    column_rms, count = _column_noise(values, blank, lag)
    good = count >= min(_FEWEST, values.shape[0] // 4)
    ratio = float(np.median(column_rms[good])) if good.any() else 1.0
    scale = np.full(values.shape[1], ratio, np.float32)
    if amplifiers:
        for half in np.array_split(np.arange(values.shape[1]), 2):
            used = half[good[half]]
            scale[half] = np.median(column_rms[used]) if used.size else ratio
    flat_rms = ratio if ratio > 0 else 1.0
    mean, rms, length = _background(values, blank, flat_rms)
    row_scatter, row_link = _row_levels(flat, blank, flat_rms)
    inside = flat[blank & (np.abs(flat) < _CLIP * flat_rms)]
    return BlankSky(
        scale=scale,
        ratio=ratio,
        correlation=correlation,
        columns=columns,
        column_scatter=_scatter(_pulls(flat, blank, 0, flat_rms, columns)),
        row_scatter=row_scatter,
        row_link=row_link,
        mean=mean,
        rms=rms,
        length=length,
        kurtosis=_kurtosis(inside) - _clipped_kurtosis(_CLIP),
    )


def interpolated_columns(values: Float32, blank: Bools) -> tuple[int, ...]:
    """Columns that are what PHOTO would interpolate from their neighbours.

    A single column agrees with the prediction in most pixels; of two neighbouring ones, which take
    other weights, each is noisier than its surroundings.

    Parameters
    ----------
    values : float32 array, ``[y, x]``
        Pixels over their expected noise.
    blank : bool array, ``[y, x]``
        Where no source and no bad pixel is.
    """
    if values.shape[1] < 16:
        return ()
    predicted = NEAR_WEIGHT * (values[:, 1:-3] + values[:, 3:-1]) + FAR_WEIGHT * (
        values[:, :-4] + values[:, 4:]
    )
    used = blank[:, 2:-2] & blank[:, 1:-3] & blank[:, 3:-1]
    agrees = (np.abs(values[:, 2:-2] - predicted) < _SAME) & used
    count = used.sum(axis=0)
    share = agrees.sum(axis=0) / np.maximum(count, 1)
    found = set((np.flatnonzero((share > _MOSTLY) & (count >= _FEWEST)) + 2).tolist())
    rms, pairs = _column_noise(values, blank, _LAG)
    enough = pairs >= _FEWEST
    if not enough.any():
        return tuple(sorted(found))
    level = np.median(rms[enough])
    error = level / np.sqrt(np.maximum(pairs, 1) * 4 / 3)  # differences share pixels
    high = enough & (rms - level > np.maximum(_ODD * error, 0.12 * level))
    twins = np.flatnonzero(high[1:] & high[:-1])
    found |= set(twins.tolist()) | set((twins + 1).tolist())
    return tuple(sorted(found))


def _column_noise(values: Float32, blank: Bools, lag: int) -> tuple[Float64, NDArray[np.int64]]:
    """Rms of the white noise of each column from differences along it, and their number."""
    both = blank[lag:] & blank[:-lag]
    difference = np.where(both, values[lag:] - values[:-lag], np.float32(0))
    difference[np.abs(difference) > _CLIP * math.sqrt(2)] = 0
    count = both.sum(axis=0)
    mean_square = np.einsum("yx,yx->x", difference, difference, dtype=np.float64) / np.maximum(count, 1)
    return np.sqrt(0.5 * mean_square) / clipped_rms_loss(_CLIP), count


def _local_mean(values: Float32, blank: Bools) -> Float32:
    """Mean of the blank pixels in the box around each."""
    from scipy.ndimage import uniform_filter

    share = uniform_filter(blank.astype(np.float32), _BOX + 1, mode="nearest")
    total = uniform_filter(values, _BOX + 1, mode="nearest")
    return np.asarray(total / np.maximum(share, 0.02), np.float32)


def _neighbour(flat: Float32, used: Bools, dy: int, dx: int) -> float:
    """Correlation of pixels one step apart."""
    rows, columns = flat.shape
    values = np.where(used, flat, np.float32(0))
    a, b = (slice(dy, None), slice(dx, None)), (slice(0, rows - dy), slice(0, columns - dx))
    pairs = int((used[a] & used[b]).sum())
    square = float(np.vdot(values, values))
    if not pairs or square <= 0:
        return 0.0
    return float(np.vdot(values[a], values[b])) / pairs / (square / max(int(used.sum()), 1))


def _pulls(flat: Float32, blank: Bools, axis: int, rms: float, leave_out: tuple[int, ...] = ()) -> Float64:
    """Means along an axis in units of the error that white noise gives them; NaN where few pixels tell."""
    from scipy.ndimage import median_filter

    count = blank.sum(axis=axis)
    mean = flat.sum(axis=axis, dtype=np.float64) / np.maximum(count, 1)
    mean -= median_filter(mean, 41, mode="nearest")
    pull = np.where(count >= _FEWEST, mean * np.sqrt(count) / rms, np.nan)
    pull[list(leave_out)] = np.nan
    return np.asarray(pull)


def _scatter(pull: Float64) -> float:
    """Rms of what is not far out; 1 where there is too little."""
    good = np.abs(pull) < _FAR
    return float(np.sqrt(np.mean(pull[good] ** 2))) if good.sum() >= 20 else 1.0


def _row_levels(flat: Float32, blank: Bools, rms: float) -> tuple[tuple[float, float], float]:
    """Scatter of the means of rows in each half, and the correlation of their levels."""
    half = flat.shape[1] // 2
    left = _pulls(flat[:, :half], blank[:, :half], 1, rms)
    right = _pulls(flat[:, half:], blank[:, half:], 1, rms)
    scatter = _scatter(left), _scatter(right)
    both = (np.abs(left) < _FAR) & (np.abs(right) < _FAR)
    levels = [max(s**2 - 1.0, 0.0) for s in scatter]
    if both.sum() < 20 or min(levels) <= 0:
        return scatter, 0.0
    link = float(np.mean(left[both] * right[both])) / math.sqrt(levels[0] * levels[1])
    return scatter, min(max(link, 0.0), 1.0)


def _background(values: Float32, blank: Bools, rms: float) -> tuple[float, float, float]:
    """Mean, rms and correlation length of box means, the rms without that of the noise."""
    rows, columns = (n // _BOX for n in values.shape)
    if rows < 4 or columns < 4:
        return (float(values[blank].mean()) / rms if blank.any() else 0.0), 0.0, float(_BOX)
    cut = (slice(0, rows * _BOX), slice(0, columns * _BOX))
    boxes = (rows, _BOX, columns, _BOX)
    count = blank[cut].reshape(boxes).sum(axis=(1, 3))
    mean = values[cut].reshape(boxes).sum(axis=(1, 3), dtype=np.float64) / np.maximum(count, 1) / rms
    good = count > 0.3 * _BOX**2
    if good.sum() < 9:
        return 0.0, 0.0, float(_BOX)
    centre = float(np.median(mean[good]))
    robust = 1.4826 * float(np.median(np.abs(mean[good] - centre)))
    noise = float(np.mean(1.0 / count[good]))
    deviation = np.where(good, np.clip(mean - centre, -4 * robust, 4 * robust), 0.0)
    excess = math.sqrt(max(robust**2 - noise, 0.0))
    correlation = [1.0]
    for step in range(1, min(rows, columns) // 2):
        pairs = [
            (deviation[step:], deviation[:-step], good[step:] & good[:-step]),
            (deviation[:, step:], deviation[:, :-step], good[:, step:] & good[:, :-step]),
        ]
        total = sum(float((a * b)[g].sum()) for a, b, g in pairs) / max(
            sum(int(g.sum()) for *_, g in pairs), 1
        )
        variance = max(float((deviation[good] ** 2).mean()) - noise, 1e-12)
        correlation.append(total / variance)
        if correlation[-1] < 0.5:
            break
    last = len(correlation) - 1
    if correlation[last] >= 0.5:
        return centre, excess, float(last * _BOX)
    part = (correlation[last - 1] - 0.5) / max(correlation[last - 1] - correlation[last], 1e-9)
    return centre, excess, float((last - 1 + part) * _BOX)


def _kurtosis(values: Float32) -> float:
    """Excess kurtosis."""
    if values.size < 100:
        return 0.0
    v = values.astype(np.float64) - float(values.mean(dtype=np.float64))
    square = v * v
    return float(np.mean(square * square) / np.mean(square) ** 2 - 3)


def _clipped_kurtosis(clip: float) -> float:
    """Excess kurtosis of a normal distribution that is cut at plus and minus `clip`."""
    x = np.linspace(-clip, clip, 4001)
    p = np.exp(-0.5 * x * x)
    return float((p * x**4).sum() * p.sum() / (p * x * x).sum() ** 2 - 3)
