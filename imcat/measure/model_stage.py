"""PSF and model photometry of a tile: windows, blend groups, the fits, and where their results go."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.align import local_affine
from imcat.flags import PixelFlag
from imcat.measure.model_settings import ModelSettings
from imcat.measure.model_stack import light_reach
from imcat.measure.models import FitImage, ModelFits, Shape, fit_models
from imcat.measure.views import Layer, pixel_to_sky
from imcat.psf.exposure_psf import ExposurePsf
from imcat.tile import Exposure
from imcat.window import Window

__all__ = ["ModelSources", "blend_groups", "credible_size", "model_sources"]

Float64 = NDArray[np.float64]

# Groups of one call: a window of the reference grid is read for so many rows and columns.
_WINDOW = 2304
# Circles around point sources that make them friends when they overlap, in units of the FWHM: pairs that are closer
# than three share their light.
_FRIENDS = 1.5
# Circles of a group with too many members shrink by this factor, at most so many times.
_SHRINK, _SHRINKS = 0.75, 12


#: Largest half-light radius in units of the radius of a circle as large as the detected footprint.
_CREDIBLE = 1.5


def credible_size(half_light: Float64, area: NDArray[np.int64], arcsec: float) -> Float64:
    """Half-light radii that are not those of the halo or spike of a bright star that a source lies on.

    Parameters
    ----------
    half_light : float64 array ``[n]``
        As measured in an aperture, arcsec.
    area : int64 array ``[n]``
        Of the detected footprint, pixels.
    arcsec : float
        Size of a pixel.

    Examples
    --------
    >>> credible_size(np.array([1.0, 50.0]), np.array([100, 100]), 0.4).round(2).tolist()
    [1.0, 3.39]
    """
    return np.minimum(half_light, _CREDIBLE * arcsec * np.sqrt(np.maximum(area, 1) / np.pi))


@dataclass(frozen=True, eq=False)
class ModelSources:
    """What the fits need to know of n sources.

    Attributes
    ----------
    x, y : float64 arrays ``[n]``
        Pixels of the reference exposure.
    size : float64 array ``[n]``
        Half-light radius as seen, arcsec; NaN: that of a star.
    snr : float64 array ``[n]``
        Of the detection.
    parent : int64 array ``[n]``
        Row of the deblend parent, or the row itself.
    """

    x: Float64
    y: Float64
    size: Float64
    snr: Float64
    parent: NDArray[np.int64]


def blend_groups(
    x: Float64,
    y: Float64,
    reach: Float64,
    parent: NDArray[np.int64],
    light: Float64 | None = None,
    most: int | None = None,
) -> NDArray[np.int64]:
    """Label sources that are fitted together: friends of friends, and what was deblended from one.

    Parameters
    ----------
    x, y : float64 arrays ``[n]``
        Pixels.
    reach : float64 array ``[n]``
        Two sources are friends where the circles of these radii (pixels) overlap.
    parent : int64 array ``[n]``
        Sources of one parent are friends if they are within three times that.
    light : float64 array ``[n]``, optional
        Sources within this radius of another are its friends too.
    most : int, optional
        Larger groups are split: the circles of their members shrink until no group is larger.

    Returns
    -------
    int64 array ``[n]``
        The lowest row of each group.
    """
    from scipy.spatial import cKDTree

    n = len(x)
    index = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if index.size < 2:
        return np.arange(n)
    light = np.zeros(n) if light is None else light
    farthest = max(6 * float(reach[index].max()), float(light[index].max()))
    points = np.stack([x[index], y[index]], axis=1)
    pairs = cKDTree(points).query_pairs(farthest, output_type="ndarray")
    a, b = index[pairs[:, 0]], index[pairs[:, 1]]
    distance, together = np.hypot(x[a] - x[b], y[a] - y[b]), reach[a] + reach[b]
    siblings = (parent[a] == parent[b]) & (distance < 3 * together)
    friends = (distance < together) | (distance < np.maximum(light[a], light[b])) | siblings
    group = _connected(n, a[friends], b[friends])
    for step in range(_SHRINKS):
        large = np.bincount(group, minlength=n)[group] > (n if most is None else most)
        if not large.any():
            break
        # Friends of the large groups that are close; all others keep theirs.
        closer = distance < together * _SHRINK ** (step + 1)
        friends &= np.where(large[a], closer, True)
        group = _connected(n, a[friends], b[friends])
    return group


def _connected(n: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lowest row of each set of rows that pairs connect, for every row."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(a.size, np.int8), (a, b)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    lowest = np.full(label.max() + 1, n, np.int64)
    np.minimum.at(lowest, label, np.arange(n))
    return np.asarray(lowest[label])


def model_sources(
    layers: Sequence[Layer],
    psfs: Sequence[ExposurePsf],
    reference: Exposure,
    sources: ModelSources,
    settings: ModelSettings,
    pool: Executor | None = None,
    *,
    fixed: bool = False,
    shapes: tuple[Shape, Shape] | None = None,
) -> ModelFits:
    """Fit every source of a tile in every band.

    Parameters
    ----------
    layers : sequence of Layer
        Every exposure of every band, bands in order.
    psfs : sequence of ExposurePsf
        Of each of them; fluxes are those within the circles that the PSFs name.
    reference : Exposure
        The one on whose grid the sources are.
    sources : ModelSources
        First guesses.
    settings : ModelSettings
        Bounds, priors, footprints.
    pool : Executor, optional
        Threads; their number does not change the result.
    fixed : bool
        Positions are forced.
    shapes : (Shape, Shape), optional
        Given shapes, see `imcat.measure.models.fit_models`.
    """
    n = len(sources.x)
    bands = tuple(dict.fromkeys(layer.band for layer in layers))
    ra_dec_jacobian = pixel_to_sky(reference.wcs, sources.x, sources.y)[2]
    with np.errstate(invalid="ignore"):
        pixel = np.sqrt(np.abs(np.linalg.det(ra_dec_jacobian))) if n else np.ones(0)
    first = next(k for k, layer in enumerate(layers) if layer.exposure is reference)
    fwhm = psfs[first].mixture.fwhm  # pixels of the reference exposure
    arcsec = float(np.median(pixel)) if n else 1.0
    size = np.where(np.isfinite(sources.size), sources.size, 0.6 * fwhm * arcsec)
    reach = np.clip(size / np.where(pixel > 0, pixel, 1.0), _FRIENDS * fwhm, settings.footprint_limit / 4)
    light, _ = light_reach(
        psfs[first].mixture, sources.snr, settings.neighbour_noise, settings.footprint_limit
    )
    group = blend_groups(sources.x, sources.y, reach, sources.parent, light, settings.group_members)
    to_sky = np.where(np.isfinite(ra_dec_jacobian), ra_dec_jacobian, 0.0)
    jobs = _jobs(sources, group, reference.shape, settings.footprint_limit + 8)

    def work(job: tuple[Window, NDArray[np.int64]]) -> ModelFits:
        window, index = job
        images = [
            image
            for layer, psf in zip(layers, psfs, strict=True)
            if (image := _fit_image(layer, psf, reference, window, bands, sources, to_sky, index)) is not None
        ]
        chosen = None if shapes is None else (_take(shapes[0], index), _take(shapes[1], index))
        return fit_models(
            images, group[index], size[index], sources.snr[index], len(bands), settings,
            reference=bands.index(layers[first].band), fixed=fixed, shapes=chosen,
        )  # fmt: skip

    parts = list(pool.map(work, jobs) if pool is not None else map(work, jobs))
    order = (
        np.argsort(np.concatenate([index for _, index in jobs]), kind="stable")
        if jobs
        else np.empty(0, np.int64)
    )
    if not parts:
        nothing = np.empty(0)
        return fit_models([], np.empty(0, np.int64), nothing, nothing, len(bands), settings)
    return _within_circles(_joined(parts, order), layers, psfs, bands)


def _within_circles(
    fits: ModelFits, layers: Sequence[Layer], psfs: Sequence[ExposurePsf], bands: tuple[str, ...]
) -> ModelFits:
    """Fluxes as the light within the circles that the survey's magnitudes refer to."""
    share = np.array(
        [np.mean([p.enclosed for p, at in zip(psfs, layers, strict=True) if at.band == b]) for b in bands]
    )
    return replace(
        fits,
        psf_flux=fits.psf_flux * share, psf_variance=fits.psf_variance * share**2,
        model_flux=fits.model_flux * share, model_variance=fits.model_variance * share**2,
        profile_flux=fits.profile_flux * share[:, None], profile_variance=fits.profile_variance * share[:, None] ** 2,
        cmodel_flux=fits.cmodel_flux * share, cmodel_variance=fits.cmodel_variance * share**2,
        sersic_flux=fits.sersic_flux * share, sersic_variance=fits.sersic_variance * share**2,
    )  # fmt: skip


def _jobs(
    sources: ModelSources, group: NDArray[np.int64], shape: tuple[int, int], margin: int
) -> list[tuple[Window, NDArray[np.int64]]]:
    """Windows of the reference grid and the sources of each: every group as a whole."""
    x, y = np.nan_to_num(sources.x), np.nan_to_num(sources.y)
    cell = (y[group] // _WINDOW).astype(np.int64) * 100_000 + (x[group] // _WINDOW).astype(np.int64)
    jobs = []
    for value in np.unique(cell):
        # Several jobs from a window, so that threads share it: groups in turn, as they come along y.
        index = np.flatnonzero(cell == value)
        for part in _split(index, group, y):
            left, right = int(x[part].min()) - margin, int(x[part].max()) + margin + 1
            low, high = int(y[part].min()) - margin, int(y[part].max()) + margin + 1
            window = Window(max(low, 0), min(high, shape[0]), max(left, 0), min(right, shape[1]))
            if not window.empty:
                jobs.append((window, part))
    return jobs


_GROUPS_AT_ONCE = 400


def _split(index: NDArray[np.int64], group: NDArray[np.int64], y: Float64) -> list[NDArray[np.int64]]:
    """Parts of some hundred sources, groups whole, neighbours along y together."""
    order = index[np.lexsort((index, group[index], y[group[index]]))]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(group[order]) != 0]))
    parts, begin = [], 0
    for start in starts[1:]:
        if start - begin >= _GROUPS_AT_ONCE:
            parts.append(order[begin:start])
            begin = int(start)
    parts.append(order[begin:])
    return [np.sort(part) for part in parts]


def _fit_image(
    layer: Layer,
    psf: ExposurePsf,
    reference: Exposure,
    window: Window,
    bands: tuple[str, ...],
    sources: ModelSources,
    to_sky: Float64,
    index: NDArray[np.int64],
) -> FitImage | None:
    """One exposure under a window; None where they do not meet."""
    exposure = layer.exposure
    native = layer.grid.native_window(window, 2)
    if native.empty:
        return None
    cutout = layer.noise.read(exposure, native)
    lost = cutout.bad | ((cutout.mask & np.uint16(PixelFlag.SATURATED)) != 0)
    variance = np.where(lost, np.float32(0), cutout.variance)
    local = local_affine(reference.wcs, exposure.wcs, sources.x[index], sources.y[index])
    # (dx, dy) native by (xi, eta): native by reference pixels, times reference pixels by arcsec.
    determinant = np.linalg.det(to_sky[index])
    good = np.isfinite(determinant) & (np.abs(determinant) > 1e-12)
    inverse = np.linalg.inv(np.where(good[:, None, None], to_sky[index], np.eye(2)))
    jacobian = np.einsum("nij,njk->nik", local.jacobian, inverse)
    rows, columns = exposure.shape
    with np.errstate(invalid="ignore"):
        inside = (
            good & (local.x >= -0.5) & (local.y >= -0.5) & (local.x < columns - 0.5) & (local.y < rows - 0.5)
        )
    inside &= np.isfinite(jacobian).all(axis=(1, 2))
    return FitImage(
        band=bands.index(layer.band),
        data=cutout.data,
        variance=np.ascontiguousarray(variance, np.float32),
        gain=np.inf if exposure.gain is None else float(exposure.gain),
        psf=psf.mixture,
        origin=(native.x0, native.y0),
        rho=layer.noise.covariance.rho,
        x=np.where(inside, local.x - native.x0, np.nan),
        y=np.where(inside, local.y - native.y0, np.nan),
        jacobian=np.ascontiguousarray(np.where(inside[:, None, None], jacobian, np.eye(2))),
    )


def _take(shape: Shape, index: NDArray[np.int64]) -> Shape:
    return Shape(*(getattr(shape, f.name)[index] for f in fields(Shape)))


def _joined(parts: Sequence[ModelFits], order: NDArray[np.int64]) -> ModelFits:
    """Results of all jobs in the order of the sources."""
    columns: dict[str, Any] = {}
    for f in fields(ModelFits):
        values = [getattr(part, f.name) for part in parts]
        if isinstance(values[0], Shape):
            columns[f.name] = Shape(
                *(np.concatenate([getattr(v, g.name) for v in values])[order] for g in fields(Shape))
            )
        else:
            columns[f.name] = np.concatenate(values)[order]
    return ModelFits(**columns)
