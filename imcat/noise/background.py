"""The noise model of an exposure: sky, variance and covariance of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.noise.covariance import NoiseCovariance, lag_products
from imcat.noise.mesh import Mesh, cell_statistics, clipped_rms_loss
from imcat.noise.settings import NoiseSettings
from imcat.tile import Cutout, Exposure
from imcat.window import Window

__all__ = ["NoiseModel", "SkyCutout", "measure_covariance", "measure_noise"]

Float32 = NDArray[np.float32]

_SPIKE = 4.0  # rms; beyond, a pixel of blank sky is taken to be a cosmic ray or a faint star
_FEWEST_PIXELS = 2000  # of blank sky that make a measurement


@dataclass(frozen=True, eq=False)
class SkyCutout:
    """One window of an exposure, sky subtracted, all arrays of shape ``[y, x]``.

    Attributes
    ----------
    window : Window
        Where it lies in the exposure.
    data : float32 array
        nJy, zero where `bad`.
    variance : float32 array
        nJy² of sky and detector, 0 where `bad`.
    mask : uint16 array
        Bits of `imcat.flags.PixelFlag`.
    bad : bool array
        True where a pixel carries no information.
    """

    window: Window
    data: Float32
    variance: Float32
    mask: NDArray[np.uint16]
    bad: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """Sky and noise of one exposure.

    Attributes
    ----------
    mesh : Mesh
        Sky level and measured noise, nJy.
    variance_scale : float
        Factor on the exposure's own variance (1 where it fits blank sky), or on that of the mesh.
    rms_ratio : float
        Measured over given rms in blank sky; NaN where no variance was given.
    covariance : NoiseCovariance
        Correlation of the noise of neighbouring pixels.
    subtract : bool
        Whether `read` subtracts the sky level.
    """

    mesh: Mesh
    variance_scale: float = 1.0
    rms_ratio: float = float("nan")
    covariance: NoiseCovariance = field(default_factory=NoiseCovariance.white)
    subtract: bool = True

    @property
    def rms(self) -> float:
        """Median noise of a pixel, nJy."""
        return float(np.median(self.mesh.rms))

    @property
    def level_variance(self) -> float:
        """Variance of the sky level under a source, nJy².

        The level of a cell is 2.5 median - 1.5 mean, whose variance for normal noise is
        ``6.25 pi / 2 + 2.25 - 7.5`` times that of the mean (mean and median have the variance of
        the mean as their covariance); the median over cells makes it smaller, correlated pixels
        make it larger.
        """
        cell = self.rms**2 * self.covariance.total / self.mesh.size**2
        smoothing = np.pi / 2 / self.mesh.smoothing**2 if self.mesh.smoothing > 1 else 1.0
        return float((6.25 * np.pi / 2 + 2.25 - 7.5) * smoothing * cell)

    def with_blank_sky(self, covariance: NoiseCovariance, rms: float, tolerance: float) -> NoiseModel:
        """The same model after a look at pixels without sources.

        Parameters
        ----------
        covariance : NoiseCovariance
            Correlation of neighbouring pixels.
        rms : float
            Their rms in units of this model's noise.
        tolerance : float
            A given variance is kept as it is if its rms is right to this fraction.
        """
        if np.isnan(self.rms_ratio):  # measured in the first place
            return replace(self, covariance=covariance, variance_scale=self.variance_scale * rms**2)
        ratio = self.variance_scale**0.5 * rms
        scale = 1.0 if abs(ratio - 1) <= tolerance else ratio**2
        return replace(self, covariance=covariance, variance_scale=scale, rms_ratio=ratio)

    def read(self, exposure: Exposure, window: Window) -> SkyCutout:
        """Read a window of the exposure, sky subtracted and variance completed.

        Parameters
        ----------
        exposure : Exposure
            The one this model was measured on.
        window : Window
            Must lie inside the image.
        """
        cutout: Cutout = exposure.read(window)
        bad, data = cutout.bad, cutout.data
        if self.subtract:
            self.mesh.subtract_level(window, bad, data)
        if cutout.variance is None:
            variance = self.mesh.variance_at(window, self.variance_scale, bad)
        else:
            variance = cutout.variance
            if self.variance_scale != 1.0:
                variance *= np.float32(self.variance_scale)
            if cutout.any_bad:
                variance[bad] = 0
        return SkyCutout(window, data, variance, cutout.mask, bad)


def measure_noise(exposure: Exposure, settings: NoiseSettings, pool: Executor | None = None) -> NoiseModel:
    """Measure sky level and noise of an exposure, strip by strip.

    Parameters
    ----------
    exposure : Exposure
        Read once, `settings.mesh_size` rows at a time.
    settings : NoiseSettings
        Mesh and clipping.
    pool : Executor, optional
        Threads for the strips; their number does not change the result.

    Returns
    -------
    NoiseModel
        Without covariance, which needs to know where the sources are (`measure_covariance`).

    Raises
    ------
    InputError
        If no pixel is usable, or the image is constant.
    """
    size = settings.mesh_size
    starts = range(0, exposure.shape[0], size)

    def strip(y0: int) -> NDArray[np.float64]:
        # One value a cell: level, rms, fraction of usable pixels, mean given variance.
        cells = np.zeros((4, -(-exposure.shape[1] // size)))
        window = Window(y0, min(y0 + size, exposure.shape[0]), 0, exposure.shape[1])
        cutout = exposure.read(window)
        bad = cutout.bad
        cell_statistics(cutout.data, bad, size, settings.clip_sigma, cells[0], cells[1], cells[2])
        cells[3] = _mean_variance(cutout.variance, bad, size)
        return cells

    results = list(pool.map(strip, starts) if pool is not None else map(strip, starts))
    level, rms, good, given = np.stack(results, axis=1)
    rms = rms / clipped_rms_loss(settings.clip_sigma)
    _refuse_unusable(exposure, level, rms, good)
    mesh = Mesh.from_cells(level, rms, good, settings)
    ratio = _compare_variance(mesh, given)
    if not settings.subtract_background:
        mesh = mesh.without_level()
    # A first guess: sources that stay under the clipping widen the cells. Pixels known to be free
    # of sources decide (`measure_covariance`).
    scale = 1.0 if np.isnan(ratio) else ratio**2
    return NoiseModel(mesh, scale, ratio, subtract=settings.subtract_background)


def _mean_variance(
    variance: Float32 | None, bad: NDArray[np.bool_], size: int
) -> NDArray[np.float64] | float:
    """Mean of the given variance over the usable pixels of each cell of a strip."""
    if variance is None:
        return float("nan")
    edges = np.arange(0, variance.shape[1], size)
    used = np.where(bad, np.float32(0), variance)
    total = np.add.reduceat(used.sum(axis=0, dtype=np.float64), edges)
    count = np.add.reduceat((~bad).sum(axis=0), edges)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _refuse_unusable(
    exposure: Exposure,
    level: NDArray[np.float64],
    rms: NDArray[np.float64],
    good: NDArray[np.float64],
) -> None:
    if not np.isfinite(level).any():
        raise InputError(
            "no pixel is usable: all are masked, not finite or without variance",
            path=exposure.name,
            expected="an image with data",
        )
    if not (rms > 0).any():
        unit = 10 ** (0.4 * (31.4 - exposure.zero_point))  # nJy of one unit of the file
        raise InputError(
            f"the image is constant ({np.nanmedian(level) / unit:g})",
            path=exposure.name,
            expected="an image with noise",
        )


def _compare_variance(mesh: Mesh, given: NDArray[np.float64]) -> float:
    """Ratio of measured to given rms in the median cell; NaN where nothing was given."""
    with np.errstate(invalid="ignore"):
        ratios = mesh.raw_rms / np.sqrt(given)
    return float(np.nanmedian(ratios)) if np.isfinite(ratios).any() else float("nan")


def measure_covariance(
    exposure: Exposure,
    model: NoiseModel,
    occupied: Callable[[Window], NDArray[np.bool_]],
    settings: NoiseSettings,
) -> NoiseModel:
    """Measure variance and covariance of pixels in blank sky.

    Parameters
    ----------
    exposure : Exposure
        Read in cells of the mesh, spread evenly over the image.
    model : NoiseModel
        Its sky and noise.
    occupied : callable
        Tells for a window which pixels belong to sources, bool ``[y, x]``.
    settings : NoiseSettings
        Largest lag, number of cells, tolerance for a given variance.

    Returns
    -------
    NoiseModel
        `model` with its covariance, and with its variance where that needed to change.
    """
    r = settings.correlation_radius
    products, pairs = np.zeros((r + 1, 2 * r + 1)), np.zeros((r + 1, 2 * r + 1))
    for window in _spread_cells(exposure.shape, settings):
        cutout = model.read(exposure, window)
        used = ~(cutout.bad | occupied(window))
        with np.errstate(invalid="ignore", divide="ignore"):
            values = cutout.data / np.sqrt(cutout.variance)
        used &= np.abs(values) < _SPIKE
        if used.mean() < 0.25:
            continue
        values -= values[used].mean()
        values[~used] = 0
        lag_products(values, used.astype(np.float32), r, products, pairs)
    covariance = NoiseCovariance.from_products(products, pairs)
    rms = 1.0
    if pairs[0, r] > _FEWEST_PIXELS:
        rms = float(np.sqrt(products[0, r] / pairs[0, r])) / clipped_rms_loss(_SPIKE)
    return model.with_blank_sky(covariance, rms, settings.variance_tolerance)


def _spread_cells(shape: tuple[int, int], settings: NoiseSettings) -> list[Window]:
    """Whole cells of the mesh, evenly spread, as many as the settings ask for."""
    size = min(settings.mesh_size, shape[0], shape[1])
    rows, columns = shape[0] // size, shape[1] // size
    step = max(1.0, rows * columns / settings.correlation_cells)
    chosen = np.unique((np.arange(0, rows * columns, step)).astype(int))
    return [
        Window(y * size, (y + 1) * size, x * size, (x + 1) * size)
        for y, x in zip(chosen // columns, chosen % columns, strict=True)
    ]
