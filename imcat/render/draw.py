"""Sources drawn on a whole image, Gaussian by Gaussian, each on its own small footprint.

Along a row a Gaussian obeys a recurrence of two multiplications: its ratio of one pixel to the one
before falls by a constant factor. Four interleaved chains of it (pixels x, x+4, x+8 …) keep the
processor busy; an exponential is needed twice a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from imcat.psf.mixture import PsfMixture, resolved_variance, subpixel_offsets
from imcat.render.components import Components, map_covariance

__all__ = ["FAINT_SHARE", "LEFT_OUT", "MERGE_VARIANCE", "draw", "draw_stamps"]

#: Share of a Gaussian that is left out where no floor is given.
LEFT_OUT = 1e-4
#: Largest share of a Gaussian that is left out because it is below the floor. What is left out of
#: the wings is given back to the rest, so that the flux holds.
FAINT_SHARE = 0.05
_SMALLEST_SHARE = 1e-12
#: A Gaussian with at least this variance (pixels²) along its minor axis is drawn as one, not in the parts of
#: a pixel: convolved with a pixel it differs from a Gaussian by 0.1 % of its peak (1/960 of the fourth
#: cumulant of the pixel along each axis, over the squared variance).
MERGE_VARIANCE = 1.5


@njit(cache=True, nogil=True)
def _add_gaussian(image, flux, x0, y0, xx, xy, yy, left_out):  # type: ignore[no-untyped-def]
    """Add one Gaussian to the pixels inside the ellipse outside which a share of it is left out."""
    rows, columns = image.shape
    determinant = xx * yy - xy * xy
    reach2 = -2.0 * math.log(left_out)
    height = flux / (2.0 * math.pi * math.sqrt(determinant) * (1.0 - left_out))
    half_y = math.sqrt(reach2 * yy)
    top = max(int(math.ceil(y0 - half_y)), 0)
    bottom = min(int(math.floor(y0 + half_y)), rows - 1)
    # exp(-(a dx² + 2 b dx dy + c dy²))
    a, b, c = 0.5 * yy / determinant, -0.5 * xy / determinant, 0.5 * xx / determinant
    slope = xy / yy
    squeeze = math.sqrt(determinant / yy)  # standard deviation along a row
    step = math.exp(-2.0 * a)
    step4 = step * step
    step4 *= step4
    step16 = step4 * step4
    step16 *= step16
    for y in range(top, bottom + 1):
        dy = y - y0
        middle = x0 + slope * dy
        half_x = squeeze * math.sqrt(max(reach2 - dy * dy / yy, 0.0))
        first = max(int(math.ceil(middle - half_x)), 0)
        last = min(int(math.floor(middle + half_x)), columns - 1)
        if last < first:
            continue
        dx = first - x0
        g0 = height * math.exp(-(a * dx * dx + 2.0 * b * dx * dy + c * dy * dy))
        r0 = math.exp(-(a * (2.0 * dx + 1.0) + 2.0 * b * dy))
        r1 = r0 * step
        r2 = r1 * step
        r3 = r2 * step
        g1 = g0 * r0
        g2 = g1 * r1
        g3 = g2 * r2
        r0 *= r1 * r2 * r3
        r1 = r0 * step4
        r2 = r1 * step4
        r3 = r2 * step4
        x = first
        while x + 3 <= last:
            image[y, x] += g0
            image[y, x + 1] += g1
            image[y, x + 2] += g2
            image[y, x + 3] += g3
            g0 *= r0
            g1 *= r1
            g2 *= r2
            g3 *= r3
            r0 *= step16
            r1 *= step16
            r2 *= step16
            r3 *= step16
            x += 4
        if x <= last:
            image[y, x] += g0
        if x + 1 <= last:
            image[y, x + 1] += g1
        if x + 2 <= last:
            image[y, x + 2] += g2


_map_covariance = njit(cache=True, nogil=True)(map_covariance)


@njit(cache=True, nogil=True)
def _draw(  # type: ignore[no-untyped-def]
    images,
    where,
    source,
    flux,
    band,
    xi,
    eta,
    xx,
    xy,
    yy,
    x,
    y,
    jacobian,
    weights,
    psf,
    centres,
    parts,
    limits,
):
    """Convolve each component with each Gaussian of the PSF and add the result."""
    j00, j01, j10, j11 = jacobian[0, 0], jacobian[0, 1], jacobian[1, 0], jacobian[1, 1]
    floor, standard, faint, smallest, merge, resolved = limits
    varies = psf.shape[0] > 1
    m = parts.size
    for i in range(source.size):
        s = source[i]
        at = s if varies else 0
        image = images[where[s]]
        px = x[s] + j00 * xi[i] + j01 * eta[i]
        py = y[s] + j10 * xi[i] + j11 * eta[i]
        cxx, cxy, cyy = _map_covariance(j00, j01, j10, j11, xx[i], xy[i], yy[i])
        for k in range(weights.size):
            f = flux[i, band] * weights[k]
            if f == 0.0:
                continue
            txx, txy, tyy = cxx + psf[at, k, 0], cxy + psf[at, k, 1], cyy + psf[at, k, 2]
            qx, qy = px + centres[k, 0], py + centres[k, 1]
            left_out = standard
            if floor > 0.0:
                peak = abs(f) / (2.0 * math.pi * math.sqrt(txx * tyy - txy * txy))
                left_out = min(max(floor / peak, smallest), faint)
            minor = 0.5 * (txx + tyy) - math.hypot(0.5 * (txx - tyy), txy)
            if m == 1 or minor >= merge:
                _add_gaussian(image, f, qx, qy, txx, txy, tyy, left_out)
                continue
            for q in range(m * m):
                _add_gaussian(
                    image, f / (m * m), qx + parts[q % m], qy + parts[q // m],
                    txx - resolved, txy, tyy - resolved, left_out,
                )  # fmt: skip


def draw(
    image: NDArray[Any],
    components: Components,
    band: int,
    x: ArrayLike,
    y: ArrayLike,
    jacobian: ArrayLike,
    psf: PsfMixture,
    *,
    floor: float = 0.0,
) -> None:
    """Add sources to an image.

    Parameters
    ----------
    image : float32 or float64 array, ``[y, x]``
        Changed in place; parts of sources outside it are cut off.
    components : Components
        Fluxes in nJy (the image gets the same unit per pixel).
    band : int
        Column of ``components.flux``.
    x, y : array, ``[sources]``
        Positions of the sources in the image, pixels.
    jacobian : array, ``[2, 2]``
        (dx, dy) in pixels are this matrix times (xi, eta) in arcsec.
    psf : PsfMixture
        Effective PSF in pixels of the image.
    floor : float
        Unit of the image: wings of a Gaussian fainter than this may be left out (0: a share
        of `LEFT_OUT` of each Gaussian is). Their flux is given to the rest of it.

    Raises
    ------
    ValueError
        If the arrays do not fit together.
    """
    sources = np.shape(x)
    _call(image[None], np.zeros(sources, np.int64), components, band, x, y, jacobian, psf, floor)


def draw_stamps(
    images: NDArray[Any],
    stamp: ArrayLike,
    components: Components,
    x: ArrayLike,
    y: ArrayLike,
    jacobians: Sequence[ArrayLike],
    psfs: Sequence[PsfMixture],
    *,
    floors: Sequence[float] | None = None,
) -> None:
    """Add sources to many small images in several bands.

    Parameters
    ----------
    images : float32 or float64 array, ``[n, bands, y, x]``
        Changed in place; contiguous.
    stamp : int array, ``[sources]``
        Image that each source lies in.
    components : Components
        With a column of fluxes for each band.
    x, y : array, ``[sources]`` or ``[bands, sources]``
        Positions of the sources in their images, pixels.
    jacobians : sequence of array ``[2, 2]``
        As for `draw`, for each band.
    psfs : sequence of PsfMixture
        For each band.
    floors : sequence of float, optional
        As for `draw`, for each band.

    Raises
    ------
    ValueError
        If the arrays do not fit together.
    """
    bands = images.shape[1]
    if not bands == components.bands == len(jacobians) == len(psfs):
        raise ValueError(
            f"images of {bands} bands, components of {components.bands}, {len(jacobians)} jacobians, "
            f"{len(psfs)} PSFs; expected the same number of each"
        )
    if not images.flags.c_contiguous:
        raise ValueError("images are not contiguous; expected an array of their own")
    where = np.ascontiguousarray(stamp, np.int64)
    if where.size and not 0 <= where.min() <= where.max() < len(images):
        raise ValueError(f"sources in stamps {where.min()} to {where.max()} of {len(images)}")
    shape = (bands, len(where))
    x_all, y_all = (np.broadcast_to(np.asarray(values, np.float64), shape) for values in (x, y))
    flat = images.reshape(-1, *images.shape[2:])
    for b in range(bands):
        floor = 0.0 if floors is None else floors[b]
        _call(flat, where * bands + b, components, b, x_all[b], y_all[b], jacobians[b], psfs[b], floor)


def _call(
    images: NDArray[Any],
    where: NDArray[np.int64],
    components: Components,
    band: int,
    x: ArrayLike,
    y: ArrayLike,
    jacobian: ArrayLike,
    psf: PsfMixture,
    floor: float,
) -> None:
    """Check the arguments and run the kernel."""
    x_all = np.ascontiguousarray(x, np.float64)
    y_all = np.ascontiguousarray(y, np.float64)
    matrix = np.ascontiguousarray(jacobian, np.float64)
    if x_all.ndim != 1 or not x_all.shape == y_all.shape == where.shape:
        raise ValueError(
            f"positions of shapes {x_all.shape} and {y_all.shape}; expected {where.shape} for both"
        )
    if matrix.shape != (2, 2):
        raise ValueError(f"a jacobian of shape {matrix.shape}; expected (2, 2)")
    if not 0 <= band < components.bands:
        raise ValueError(f"band {band} of components with {components.bands}; expected 0 or more and less")
    if len(components) == 0:
        return
    c = components
    if c.source[0] < 0 or c.source[-1] >= len(x_all):
        raise ValueError(
            f"components of sources {c.source[0]} to {c.source[-1]}, but {len(x_all)} positions; expected one each"
        )
    if not (np.isfinite(x_all).all() and np.isfinite(y_all).all()):
        raise ValueError("positions that are not finite; leave such sources out")
    covariances = psf.at(x_all, y_all) if psf.variation is not None else psf.covariances[None]
    kernel: Callable[..., None] = _draw
    kernel(
        images, where, c.source, c.flux, band, c.xi, c.eta, c.xx, c.xy, c.yy, x_all, y_all, matrix,
        psf.weights, np.ascontiguousarray(covariances), np.ascontiguousarray(psf.centres),
        subpixel_offsets(psf.subpixels),
        (float(floor), LEFT_OUT, FAINT_SHARE, _SMALLEST_SHARE, MERGE_VARIANCE, resolved_variance(psf.subpixels)),
    )  # fmt: skip
