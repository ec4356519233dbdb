"""Windowed centroids of all bands together, and sources that move between bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.measure.errors import centroid_lag_sum
from imcat.measure.pixels import centroid_sums
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import View

__all__ = ["Centroids", "Motion", "Shift", "exposure_shift", "find_motion", "windowed_centroids"]

Float64 = NDArray[np.float64]

_CONVERGED = 3e-4  # reference pixels
_SEEN = 2.0  # signal-to-noise ratio under the weight that makes an exposure count


@dataclass(frozen=True, eq=False)
class Centroids:
    """Windowed centroids on the reference grid, arrays ``[n]`` in pixels.

    Attributes
    ----------
    dx, dy : float64
        Offset from the position that the iteration began at.
    covariance : float64 array [n, 2, 2]
        Of x and y.
    failed : bool
        No band has light there, or the centroid ran away.
    """

    dx: Float64
    dy: Float64
    covariance: Float64
    failed: NDArray[np.bool_]

    def take(self, index: NDArray[np.int64]) -> Centroids:
        """Those of some of the sources."""
        return Centroids(self.dx[index], self.dy[index], self.covariance[index], self.failed[index])


@dataclass(frozen=True, eq=False)
class Shift:
    """One exposure's own opinion of where the sources are, relative to the common position.

    Attributes
    ----------
    dx, dy : float64 arrays [n]
        Step, reference pixels.
    covariance : float64 array [n, 2, 2]
        Of the step.
    snr : float64 array [n]
        Signal-to-noise ratio under the weight; 0 where the exposure tells nothing.
    """

    dx: Float64
    dy: Float64
    covariance: Float64
    snr: Float64


def exposure_shift(
    view: View, label: NDArray[np.int64], mode: int, dx: Float64, dy: Float64, settings: MeasureSettings
) -> Shift:
    """Step towards the maximum of one exposure smoothed with a Gaussian, reference pixels.

    The Gaussian has the width of the PSF. The weighted first moment about a position is the
    gradient of the smoothed image there, and its curvature follows from the second moment, which
    makes the step Newton's and gives the error of the maximum. For a source as wide as the weight
    the step is twice the weighted mean offset, as in SExtractor's windowed positions.
    """
    x, y = view.shifted(dx, dy)
    width = np.full(x.size, settings.centroid_width * view.layer.psf_sigma) / view.arcsec
    sums = np.empty((x.size, 5))
    cut = view.cutout
    centroid_sums(cut.data, cut.variance, view.owner, label, mode, x, y, width, sums)
    light, mx, my, second, noise = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        # A faint source's own curvature is too noisy to be used beyond these limits.
        curvature = light * np.clip(1 - 0.5 * second / (light * width**2), 0.15, 0.6)
        nx, ny = mx / curvature, my / curvature
        # The width hardly varies over an exposure.
        middle = np.array([np.median(width)]) if width.size else width
        extra_x, extra_y = centroid_lag_sum(view.layer.noise.covariance, middle)
        # Sum of w² dx² v: for even noise it is half of width² times the sum of w² v.
        sky = noise * width**2 / 2
        gain = view.layer.exposure.gain
        source = 0.0 if gain is None else 2 * np.maximum(light, 0) * width**2 / (9 * gain)
        var_x = (sky * np.maximum(1 + extra_x, 0.05) + source) / curvature**2
        var_y = (sky * np.maximum(1 + extra_y, 0.05) + source) / curvature**2
        snr = light / np.sqrt(noise)
    rx, ry = view.to_reference(nx, ny)
    i = view.inverse
    covariance = np.empty((x.size, 2, 2))
    covariance[:, 0, 0] = i[:, 0, 0] ** 2 * var_x + i[:, 0, 1] ** 2 * var_y
    covariance[:, 1, 1] = i[:, 1, 0] ** 2 * var_x + i[:, 1, 1] ** 2 * var_y
    covariance[:, 0, 1] = i[:, 0, 0] * i[:, 1, 0] * var_x + i[:, 0, 1] * i[:, 1, 1] * var_y
    covariance[:, 1, 0] = covariance[:, 0, 1]
    snr = np.where(np.isfinite(snr) & np.isfinite(rx + ry + var_x + var_y), snr, 0.0)
    return Shift(rx, ry, covariance, snr)


def windowed_centroids(
    views: Sequence[View],
    label: NDArray[np.int64],
    mode: int,
    limit: Float64,
    floor: Sequence[float],
    settings: MeasureSettings,
) -> Centroids:
    """Iterate the common windowed centroid of all exposures.

    In every step each exposure gives a shift with its error, and the steps are averaged with
    inverse variance. The average is over exposures in which the source is seen at all.

    Parameters
    ----------
    views : sequence of View
        The exposures.
    label : int64 array [n]
        Labels of the sources.
    mode : int
        What happens to neighbours (`imcat.measure.pixels`).
    limit : float64 array [n]
        Largest offset, reference pixels; beyond, the centroid has failed.
    floor : sequence of float
        Error of each exposure's registration to the reference grid, reference pixels.
    settings : MeasureSettings
        Number of steps.
    """
    n = label.size
    dx, dy, total = np.zeros(n), np.zeros(n), np.zeros(n)
    covariance = np.zeros((n, 2, 2))
    # Each source stops by itself, so that none depends on which others are in the window.
    index = np.arange(n)
    for _ in range(settings.centroid_iterations):
        if index.size == 0:
            break
        near = [view.take(index) for view in views]
        step = _common_step(near, label[index], mode, dx[index], dy[index], floor, settings)
        # One step never moves farther than a pixel: faint sources must not jump away.
        length = np.maximum(np.hypot(step.dx, step.dy), 1.0)
        dx[index] += step.dx / length
        dy[index] += step.dy / length
        covariance[index], total[index] = step.covariance, step.weight
        index = index[np.hypot(step.dx, step.dy) > _CONVERGED]
    failed = (total <= 0) | ~(np.hypot(dx, dy) <= limit)
    return Centroids(dx, dy, covariance, failed)


@dataclass(frozen=True, eq=False)
class _Step:
    """Mean of the exposures' shifts, with its covariance and the sum of the weights."""

    dx: Float64
    dy: Float64
    covariance: Float64  # [n, 2, 2]
    weight: Float64


def _common_step(
    views: Sequence[View],
    label: NDArray[np.int64],
    mode: int,
    dx: Float64,
    dy: Float64,
    floor: Sequence[float],
    settings: MeasureSettings,
) -> _Step:
    """Average the shifts of all exposures in which the sources are seen."""
    n = label.size
    step_x, step_y, total, noise = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros((n, 2, 2))
    for view, extra in zip(views, floor, strict=True):
        shift = exposure_shift(view, label, mode, dx, dy, settings)
        spread = 0.5 * (shift.covariance[:, 0, 0] + shift.covariance[:, 1, 1]) + extra**2
        seen = shift.snr > _SEEN
        weight = np.where(seen, 1 / np.where(seen, spread, 1.0), 0.0)
        step_x += np.where(seen, weight * shift.dx, 0.0)
        step_y += np.where(seen, weight * shift.dy, 0.0)
        own = shift.covariance + extra**2 * np.eye(2)
        noise += np.where(seen[:, None, None], weight[:, None, None] ** 2 * own, 0.0)
        total += weight
    norm = np.where(total > 0, total, 1.0)
    return _Step(step_x / norm, step_y / norm, noise / norm[:, None, None] ** 2, total)


@dataclass(frozen=True, eq=False)
class Motion:
    """Linear motion between the exposures, arrays ``[n]``.

    Attributes
    ----------
    offset, offset_err : float64
        Shift between the first and the last exposure, arcsec; NaN where it was not measured.
    moving : bool
        The shift is significant.
    """

    offset: Float64
    offset_err: Float64
    moving: NDArray[np.bool_]


def find_motion(
    views: Sequence[View],
    label: NDArray[np.int64],
    mode: int,
    centroids: Centroids,
    floor: Sequence[float],
    arcsec: float,
    settings: MeasureSettings,
) -> Motion:
    """Fit a straight motion in time to the positions in the single exposures.

    Parameters
    ----------
    views, label, mode, floor, settings
        As in `windowed_centroids`; exposures without a time are left out.
    centroids : Centroids
        The common position.
    arcsec : float
        Size of a reference pixel.
    """
    n = label.size
    timed = [(v, f, v.layer.exposure.mjd) for v, f in zip(views, floor, strict=True)]
    timed = [item for item in timed if item[2] is not None]
    nothing = Motion(np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, bool))
    times = np.array([mjd for _, _, mjd in timed], dtype=float)
    if len(timed) < 3 or n == 0 or np.ptp(times) == 0:
        return nothing
    phase = (times - times.min()) / np.ptp(times)  # 0 at the first exposure, 1 at the last
    weight, shift_x, shift_y = (np.zeros((len(timed), n)) for _ in range(3))
    for k, (view, extra, _) in enumerate(timed):
        dx, dy = centroids.dx.copy(), centroids.dy.copy()
        for _ in range(3):  # converges by a factor of several a step, far shifts included
            shift = exposure_shift(view, label, mode, dx, dy, settings)
            step = np.hypot(shift.dx, shift.dy)
            part = np.where(np.isfinite(step), 1 / np.maximum(step, 1.0), 0.0)
            dx, dy = dx + part * np.nan_to_num(shift.dx), dy + part * np.nan_to_num(shift.dy)
        spread = 0.5 * (shift.covariance[:, 0, 0] + shift.covariance[:, 1, 1]) + extra**2
        seen = (shift.snr > 8) & np.isfinite(spread)
        weight[k] = np.where(seen, 1 / np.where(seen, spread, 1.0), 0.0)
        shift_x[k], shift_y[k] = dx - centroids.dx, dy - centroids.dy
    sum_w = weight.sum(axis=0)
    enough = (weight > 0).sum(axis=0) >= 3
    norm = np.where(sum_w > 0, sum_w, 1.0)
    mean_t = (weight * phase[:, None]).sum(axis=0) / norm
    lever = (weight * (phase[:, None] - mean_t) ** 2).sum(axis=0)
    enough &= lever > 0
    lever = np.where(enough, lever, 1.0)

    def slope(shift: Float64) -> tuple[Float64, Float64]:
        value = (weight * (phase[:, None] - mean_t) * shift).sum(axis=0) / lever
        mean = (weight * shift).sum(axis=0) / norm
        left = shift - mean - value * (phase[:, None] - mean_t)
        return value, (weight * left**2).sum(axis=0)

    vx, chi_x = slope(shift_x)
    vy, chi_y = slope(shift_y)
    points = (weight > 0).sum(axis=0)
    # A blend or an extended source shifts from band to band too, but not along a line in time:
    # what is left over widens the error.
    excess = np.sqrt(np.maximum((chi_x + chi_y) / np.maximum(2 * points - 4, 1), 1.0))
    offset, error = np.hypot(vx, vy) * arcsec, excess / np.sqrt(lever) * arcsec
    moving = enough & (offset > settings.motion_sigma * error) & (offset > settings.motion_min_offset)
    return Motion(np.where(enough, offset, np.nan), np.where(enough, error, np.nan), moving)
