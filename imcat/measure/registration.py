"""How far each exposure's astrometry lies from the reference exposure's, from bright sources of the tile itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imcat.align import local_affine
from imcat.detect import Detections
from imcat.flags import PixelFlag
from imcat.measure.pixels import BAD, MIRROR
from imcat.measure.positions import Shift, exposure_shift
from imcat.measure.settings import MeasureSettings
from imcat.measure.views import Layer, View
from imcat.noise import SkyCutout
from imcat.tile import Exposure
from imcat.window import Window

__all__ = ["Registration", "measure_registration"]

Float64 = NDArray[np.float64]

_BRIGHT = 40.0  # signal-to-noise ratio of a detection that may serve
_SEEN = 20.0  # signal-to-noise ratio that it needs in both exposures
_FEWEST = 12  # sources; fewer do not tell an offset from chance
_SIGNIFICANT = 11.8  # chi-squared of two coordinates that chance exceeds once in 370 times
_CONVERGED = 0.01  # reference pixels
_FARTHEST = 3.0  # standard deviations of the PSF; what shifts by more is another source
_REACH = 4.5  # standard deviations of the PSF around a source that must be its own
_CORE = 2.5  # standard deviations of the PSF within which every pixel must be good


@dataclass(frozen=True)
class Registration:
    """Where an exposure sees sources of the reference exposure.

    Attributes
    ----------
    dx, dy : float
        Mean offset in pixels of the exposure, to be added to where its astrometry says that a
        source is; 0 where it is not significant.
    error : float
        Error of one coordinate of a source's place in this exposure that neither photon noise
        nor the offset explains, arcsec.
    sources : int
        Number of sources that told it; 0 where it is the settings' own.
    """

    dx: float
    dy: float
    error: float
    sources: int


def measure_registration(
    layers: Sequence[Layer],
    reference: Exposure,
    found: Detections,
    arcsec: float,
    settings: MeasureSettings,
) -> list[Registration]:
    """Offset of every exposure from the reference, and how well single sources follow it.

    Windowed centroids of bright sources that stand alone are measured in each exposure by
    itself. The median of their differences to the reference exposure is the offset; their
    scatter beyond what noise makes is differential refraction, distortion left in the
    astrometry, and galaxies whose colours differ from side to side.

    Parameters
    ----------
    layers : sequence of Layer
        The exposures.
    reference : Exposure
        One of them, that the sources were placed on.
    found : Detections
        The sources.
    arcsec : float
        Size of a reference pixel.
    settings : MeasureSettings
        Number of sources, and the error that is assumed where there are too few.

    Returns
    -------
    list of Registration
        In the order of `layers`.
    """
    own = Registration(0.0, 0.0, 0.0, 0)
    assumed = replace(own, error=settings.registration_error)
    first = next((layer for layer in layers if layer.exposure is reference), None)
    rows = np.empty(0, np.int64)
    if first is not None and len(layers) > 1 and settings.registration_stars > 0:
        widest = max(layer.psf_sigma for layer in layers) / arcsec
        rows = _lone_sources(first, found, widest, settings.registration_stars)
    if first is None or rows.size < _FEWEST:
        return [own if layer.exposure is reference else assumed for layer in layers]
    x, y = found.x[rows], found.y[rows]
    base = _places(first, reference, x, y, arcsec, settings)
    out = []
    for layer in layers:
        if layer is first:
            out.append(own)
            continue
        places = _places(layer, reference, x, y, arcsec, settings)
        out.append(_compare(base, places, arcsec) or assumed)
    return out


def _lone_sources(layer: Layer, found: Detections, width: float, most: int) -> NDArray[np.int64]:
    """The brightest sources without neighbours, edges or bad pixels within some widths of the PSF."""
    order = np.nonzero((found.snr > _BRIGHT) & ~found.blended & ~found.truncated)[0]
    order = order[np.argsort(-found.snr[order], kind="stable")]
    half = int(np.ceil(_REACH * width))
    shape = layer.exposure.shape
    kept: list[int] = []
    # Of few sources in a crowded field only some stand alone: the search must end.
    for row in order[: 5 * most]:
        cx, cy = round(found.x[row]), round(found.y[row])
        window = Window(cy - half, cy + half + 1, cx - half, cx + half + 1)
        if window.clip(shape) != window:
            continue
        labels = found.footprints.at(window)
        if ((labels != 0) & (labels != row + 1)).any():
            continue
        if _unusable(layer, window).any():
            continue
        kept.append(int(row))
        if len(kept) == most:
            break
    return np.array(kept, np.int64)


def _unusable(layer: Layer, window: Window) -> NDArray[np.bool_]:
    """Pixels without information, and saturated ones."""
    cut = layer.exposure.read(window)
    return np.asarray(cut.bad | ((cut.mask & np.uint16(PixelFlag.SATURATED)) != 0))


@dataclass(frozen=True, eq=False)
class _Places:
    """Where one exposure sees the sources, reference pixels from where they were found."""

    dx: Float64
    dy: Float64
    jacobian: Float64  # [n, 2, 2], from reference to native offsets
    covariance: Float64  # [n, 2, 2]
    good: NDArray[np.bool_]  # bright, near, and arrived


def _places(
    layer: Layer, reference: Exposure, x: Float64, y: Float64, arcsec: float, settings: MeasureSettings
) -> _Places:
    """Centroids in one exposure alone."""
    width = layer.psf_sigma / arcsec
    reach = (max(_REACH, 4 * settings.centroid_width) + _FARTHEST) * width
    view = _strip(layer, reference, x, y, arcsec, reach)
    label = np.ones(x.size, np.int64)
    dx, dy = np.zeros(x.size), np.zeros(x.size)
    last: Shift | None = None
    arrived = np.zeros(x.size, bool)
    for _ in range(int(_FARTHEST * width) + 15):  # a pixel at most in each step
        last = exposure_shift(view, label, MIRROR, dx, dy, settings)
        length = np.hypot(last.dx, last.dy)
        part = np.where(last.snr > 0, 1 / np.maximum(np.where(np.isfinite(length), length, 1.0), 1.0), 0.0)
        dx, dy = dx + part * np.nan_to_num(last.dx), dy + part * np.nan_to_num(last.dy)
        arrived = length < _CONVERGED
        if (arrived | (last.snr <= _SEEN)).all():
            break
    assert last is not None
    good = arrived & (last.snr > _SEEN) & (np.hypot(dx, dy) < _FARTHEST * width)
    return _Places(dx, dy, view.jacobian, last.covariance, good)


def _strip(layer: Layer, reference: Exposure, x: Float64, y: Float64, arcsec: float, reach: float) -> View:
    """The pixels around each source, side by side in one image: a few, not the whole exposure, are read."""
    local = local_affine(reference.wcs, layer.exposure.wcs, x, y)
    with np.errstate(invalid="ignore"):
        scale = np.sqrt(np.abs(np.linalg.det(local.jacobian)))
    usual = float(np.nanmedian(scale)) if np.isfinite(scale).any() else 1.0
    half = int(np.ceil(reach * usual)) + 1
    side = 2 * half + 1
    step = np.arange(-half, half + 1)
    core = np.hypot(*np.meshgrid(step, step)) < _CORE * layer.psf_sigma * usual / arcsec
    shape = (side, side * x.size)
    data, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask, owner = np.zeros(shape, np.uint16), np.full(shape, BAD, np.int32)
    nx, ny = np.full(x.size, np.nan), np.full(x.size, np.nan)
    for k, (px, py) in enumerate(zip(local.x, local.y, strict=True)):
        if not np.isfinite(px + py + scale[k]):
            continue
        cx, cy = round(px), round(py)
        window = Window(cy - half, cy + half + 1, cx - half, cx + half + 1)
        if window.clip(layer.exposure.shape) != window:
            continue
        lost = _unusable(layer, window)
        if lost[core].any():
            continue
        cut = layer.noise.read(layer.exposure, window)
        at = slice(k * side, (k + 1) * side)
        data[:, at], variance[:, at], owner[:, at] = cut.data, cut.variance, np.where(lost, BAD, 0)
        nx[k], ny[k] = px - window.x0 + k * side, py - window.y0
    good = np.isfinite(nx)
    jacobian = np.where(good[:, None, None], local.jacobian, np.eye(2))
    scale = np.where(good, scale, 1.0)
    cutout = SkyCutout(Window.whole(shape), data, variance, mask, owner == BAD)
    inverse = np.linalg.inv(jacobian)
    return View(layer, cutout, owner, nx, ny, jacobian, inverse, scale, arcsec / scale)


def _compare(base: _Places, places: _Places, arcsec: float) -> Registration | None:
    """Offset and scatter of one exposure against the reference, or None where too few sources tell."""
    good = base.good & places.good
    count = int(good.sum())
    if count < _FEWEST:
        return None
    steps = np.stack([places.dx - base.dx, places.dy - base.dy], axis=1)[good]
    middle = np.median(steps, axis=0)
    spread = 1.4826 * np.median(np.abs(steps - middle), axis=0)
    noise = np.median(np.diagonal(places.covariance + base.covariance, axis1=1, axis2=2)[good], axis=0)
    of_middle = spread**2 * np.pi / 2 / count  # variance of a median of normal deviates
    excess = np.maximum(spread**2 - noise, 0) + of_middle
    if (middle**2 / np.maximum(of_middle, 1e-12)).sum() < _SIGNIFICANT:
        middle = np.zeros(2)
    native = np.median(places.jacobian[good], axis=0) @ middle
    return Registration(float(native[0]), float(native[1]), float(np.sqrt(excess.mean())) * arcsec, count)
