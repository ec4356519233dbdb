"""From light to pixels: what detector, sky and pipeline make of an image without noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.flags import PixelFlag
from imcat.simulate.artefacts import add_cosmic_rays, add_trails, bleed, interpolate_columns
from imcat.simulate.observation import ExposureModel
from imcat.window import Window

__all__ = ["Exposed", "expose"]

Float32 = NDArray[np.float32]
Mask = NDArray[np.uint16]

# Rows whose noise comes from one stream of random numbers: results must not depend on threads.
_BLOCK = 256
# Electrons above which a Poisson variate is drawn as a normal one with the right third moment.
_MANY = 60.0
# Light below this part of the noise of a pixel is that of sources that nobody detects, or of their wings.
_FAINT = 0.25
_BOX = 64  # pixels, side of the boxes in which `imcat.simulate.blank_sky` measures structure
#: Purposes of the random streams of an exposure.
_NOISE, _RESIDUAL, _HITS, _TRAILS, _MARKS = range(5)


@dataclass(frozen=True, eq=False)
class Exposed:
    """An exposure as a survey's pipeline hands it out.

    Attributes
    ----------
    image : float32 array, ``[y, x]``
        nJy, sky subtracted.
    mask : uint16 array, ``[y, x]``
        Bits of `imcat.flags.PixelFlag` that the pipeline knows of.
    """

    image: Float32
    mask: Mask


def expose(
    image: Float32, model: ExposureModel, seed: np.random.SeedSequence, blank: Float32 | None = None
) -> Exposed:
    """Observe an image.

    Parameters
    ----------
    image : float32 array, ``[y, x]``
        Light of all sources, nJy; used up.
    model : ExposureModel
        Sky, noise and detector.
    seed : numpy.random.SeedSequence
        Decides every random number.
    blank : float32 array, ``[y, x]``, optional
        Empty sky as it was observed, in units of the noise of a pixel, in place of what the model makes of sky and
        detector. Photon noise of the light is added to it.
    """
    mask = np.zeros(model.shape, np.uint16)
    seeds = seed.spawn(5)
    image *= model.electrons_per_njy * np.float32(model.light_scale)
    np.maximum(image, 0, out=image)  # a dust lane may take out a little more than there is
    faint = _faint_light(image, model)
    _hit(image, mask, model, seeds)
    sky_level = float(np.median(model.sky.values))
    bleed(image, mask, np.float32(model.full_well - sky_level), np.uint16(PixelFlag.SATURATED))
    _add_noise(image, model, seeds[_NOISE], blank)
    if blank is None:
        _add_residual(image, model, faint, seeds[_RESIDUAL])
    else:
        # Sources that nobody detects were in the real sky too, and its subtraction took their mean.
        image -= np.float32(faint[0])
    if model.interpolates:
        filled = (mask & int(PixelFlag.COSMIC_RAY)) != 0
        filled[:, list(model.bad_columns)] = True
        interpolate_columns(image, filled)
        mask[filled] = 0  # such frames come without a mask
    else:
        image[:, list(model.bad_columns)] = 0
        mask[:, list(model.bad_columns)] |= np.uint16(PixelFlag.BAD)
    if model.quantum > 0:
        _round(image, model)
    image /= model.electrons_per_njy
    return Exposed(image, mask)


def _hit(image: Float32, mask: Mask, model: ExposureModel, seeds: list[np.random.SeedSequence]) -> None:
    """Cosmic rays and satellite trails."""
    rng = np.random.default_rng(seeds[_HITS])
    count = int(rng.poisson(model.cosmic_rays))
    if count:
        marked = rng.random(count) < model.marks_cosmic_rays
        add_cosmic_rays(image, mask, rng, marked, np.uint16(PixelFlag.COSMIC_RAY))
    rng = np.random.default_rng(seeds[_TRAILS])
    count = int(rng.poisson(model.trails))
    if count:
        noise = float(np.sqrt(np.median(model.sky.values) + model.read_variance))
        mark = 0 if model.interpolates else int(PixelFlag.TRAIL)
        add_trails(image, mask, rng, count, noise, model.psf.fwhm, np.uint16(mark))


def _add_noise(
    image: Float32, model: ExposureModel, seed: np.random.SeedSequence, blank: Float32 | None
) -> None:
    """Poisson noise of light and sky, and the detector's own; row block by row block.

    With `blank`, that holds the noise of sky and detector already.
    """
    rows, columns = model.shape
    correlated = model.correlation > 0 or any(model.neighbours)
    noise = np.empty((rows, columns), np.float32) if correlated else None
    starts = range(0, rows, _BLOCK)
    for start, block_seed in zip(starts, seed.spawn(len(starts)), strict=True):
        window = Window(start, min(start + _BLOCK, rows), 0, columns)
        rng = np.random.default_rng(block_seed)
        light = image[window.slices]
        sky = model.sky.read(window)
        expected = np.maximum(light if blank is not None else light + sky, 0)
        deviation = rng.standard_normal(expected.shape, np.float32)
        few = expected < _MANY
        _poisson_deviates(expected, deviation, np.float32(_MANY))
        if few.any():
            lam = expected[few]
            deviation[few] = rng.poisson(lam) - lam
        if blank is None:
            deviation += rng.standard_normal(expected.shape, np.float32) * np.float32(
                np.sqrt(model.read_variance)
            )
        deviation *= model.noise_scale
        if noise is None:
            light += deviation
        else:
            noise[window.slices] = deviation
        if blank is not None:
            unit = np.sqrt(np.maximum(sky, 0) + np.float32(model.read_variance)) * model.noise_scale
            light += (blank[window.slices] * unit).astype(np.float32)
    if noise is not None:
        if any(model.neighbours):
            noise = _with_neighbours(noise, model.neighbours)
        image += _smoothed(noise, model.correlation) if model.correlation > 0 else noise


@njit(cache=True, nogil=True)
def _poisson_deviates(expected, deviation, many):  # type: ignore[no-untyped-def]
    """Standard normal numbers to deviations of Poisson variates from their mean, in place.

    The first terms of the expansion of Cornish and Fisher (1938): variance and skewness are those
    of the Poisson distribution.
    """
    for y in range(expected.shape[0]):
        for x in range(expected.shape[1]):
            if expected[y, x] >= many:
                z = deviation[y, x]
                deviation[y, x] = np.sqrt(expected[y, x]) * z + (z * z - np.float32(1)) / np.float32(6)


def _with_neighbours(noise: Float32, correlation: tuple[float, float]) -> Float32:
    """Noise with a small correlation of neighbours along x and y, and the rms that it had."""
    along_x, along_y = (np.float32(0.5 * value) for value in correlation)
    result = noise.copy()
    result[:, 1:] += along_x * noise[:, :-1]
    result[:, :-1] += along_x * noise[:, 1:]
    result[1:] += along_y * noise[:-1]
    result[:-1] += along_y * noise[1:]
    result /= np.float32(np.sqrt(1 + 2 * along_x**2 + 2 * along_y**2))
    return result


def _smoothed(noise: Float32, sigma: float) -> Float32:
    """Noise smoothed by a Gaussian, with the rms that it had."""
    from scipy.ndimage import gaussian_filter

    reach = int(4 * sigma) + 1
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    gain = float(np.sum((line / line.sum()) ** 2))  # of the variance, along each axis
    smooth: Float32 = gaussian_filter(noise, sigma, mode="wrap", truncate=reach / sigma)
    smooth /= np.float32(gain)
    return smooth


def _unit(model: ExposureModel) -> float:
    """Noise of a pixel of blank sky, electrons."""
    variance = float(np.median(model.sky.values)) + model.read_variance
    return float(np.sqrt(variance) * np.median(model.noise_scale))


def _faint_light(image: Float32, model: ExposureModel) -> tuple[float, float]:
    """Light that nobody tells from sky: its mean, and the rms of its means in boxes, electrons."""
    rows, columns = (n // _BOX for n in image.shape)
    faint = image < _FAINT * _unit(model)
    if not faint.any():
        return 0.0, 0.0
    light = np.where(faint, image, np.float32(0))
    mean = float(light.sum(dtype=np.float64) / faint.sum())
    if rows * columns < 9:
        return mean, 0.0
    cut, boxes = (slice(0, rows * _BOX), slice(0, columns * _BOX)), (rows, _BOX, columns, _BOX)
    count = faint[cut].reshape(boxes).sum(axis=(1, 3))
    means = light[cut].reshape(boxes).sum(axis=(1, 3), dtype=np.float64) / np.maximum(count, 1)
    means = means[count > 0.3 * _BOX**2]
    if means.size < 9:
        return mean, 0.0
    return mean, 1.4826 * float(np.median(np.abs(means - np.median(means))))


def _add_residual(
    image: Float32, model: ExposureModel, faint: tuple[float, float], seed: np.random.SeedSequence
) -> None:
    """What the subtraction of the sky left: levels of rows and columns, and large-scale structure.

    Light of sources that are too faint to be detected is sky to a survey's pipeline: its mean goes, and it is a
    part of the structure that is left.
    """
    rng = np.random.default_rng(seed)
    rows, columns = model.shape
    unit = _unit(model)
    image += np.float32(unit * model.residual_mean - faint[0])
    if any(model.row_rms):
        level = rng.standard_normal((rows, 2))
        level[:, 1] = model.row_link * level[:, 0] + np.sqrt(1 - model.row_link**2) * level[:, 1]
        for half, rms in enumerate(model.row_rms):
            part = slice(0, columns // 2) if half == 0 else slice(columns // 2, columns)
            image[:, part] += (unit * rms * level[:, half : half + 1]).astype(np.float32)
    if model.column_rms:
        image += (unit * model.column_rms * rng.standard_normal((1, columns))).astype(np.float32)
    left = (model.residual_rms * unit) ** 2 - faint[1] ** 2
    if left <= 0:
        return
    from scipy.ndimage import map_coordinates

    step = max(8.0, model.residual_length)
    knots = rng.normal(size=(int(rows / step) + 4, int(columns / step) + 4))
    scale = np.sqrt(left) / _spline_rms()
    along = np.arange(columns) / step + 1.0
    for start in range(0, rows, _BLOCK):
        lines = np.arange(start, min(start + _BLOCK, rows)) / step + 1.0
        places = np.broadcast_arrays(lines[:, None], along[None, :])
        field = map_coordinates(knots, places, order=3, mode="nearest", prefilter=False)
        image[start : start + len(lines)] += (scale * field).astype(np.float32)


def _round(image: Float32, model: ExposureModel) -> None:
    """Whole counts before the sky is subtracted, in place."""
    rows, columns = model.shape
    for start in range(0, rows, _BLOCK):
        window = Window(start, min(start + _BLOCK, rows), 0, columns)
        # The sky is much larger than a count, so that float32 would lose parts of one.
        sky = model.sky.read(window).astype(np.float64)
        counts = np.rint((image[window.slices] + sky) / model.quantum)
        image[window.slices] = counts * model.quantum - sky


def _spline_rms() -> float:
    """Rms of a bicubic B-spline with independent coefficients of unit variance, averaged over place."""
    t = (np.arange(64) + 0.5) / 64
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return float(np.mean(np.sum(weights**2, axis=0)))
