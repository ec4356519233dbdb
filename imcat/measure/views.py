"""The exposures around the sources of one window, ready for the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imcat.align import GridMap, local_affine
from imcat.detect import Footprints
from imcat.measure.occupied import native_labels
from imcat.measure.pixels import BAD
from imcat.noise import NoiseModel, SkyCutout
from imcat.tile import Exposure
from imcat.window import Window

__all__ = ["Layer", "View", "open_views", "pixel_to_sky", "sky_to_pixel"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layer:
    """One exposure with what the measurement needs to know of it.

    Attributes
    ----------
    band : str
        Its band.
    exposure : Exposure
        The pixels.
    noise : NoiseModel
        Sky, noise and its covariance.
    grid : GridMap
        From the reference grid to its pixels.
    psf_sigma : float
        Standard deviation of the Gaussian that matches the PSF, arcsec.
    weight : float
        Weight of its band where bands are summed (positions, Kron radius).
    registration_error : float, optional
        Error of its astrometry relative to the reference exposure, arcsec, where it was measured.
    """

    band: str
    exposure: Exposure
    noise: NoiseModel
    grid: GridMap
    psf_sigma: float
    weight: float
    registration_error: float | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One exposure around the sources of a window.

    Attributes
    ----------
    layer : Layer
        The exposure.
    cutout : SkyCutout
        Its pixels.
    owner : int32 array [y, x]
        Which source each of them belongs to (see `imcat.measure.pixels.centroid_sums`).
    x, y : float64 arrays [n]
        Positions within `cutout`, native pixels.
    jacobian, inverse : float64 arrays [n, 2, 2]
        From reference to native offsets, and back.
    scale : float64 array [n]
        Native pixels per reference pixel, one-dimensional.
    arcsec : float64 array [n]
        Size of a native pixel.
    """

    layer: Layer
    cutout: SkyCutout
    owner: NDArray[np.int32]
    x: Float64
    y: Float64
    jacobian: Float64
    inverse: Float64
    scale: Float64
    arcsec: Float64

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which positions lie on the exposure."""
        window, shape = self.cutout.window, self.layer.exposure.shape
        x, y = self.x + window.x0, self.y + window.y0
        with np.errstate(invalid="ignore"):
            return (x >= -0.5) & (y >= -0.5) & (x < shape[1] - 0.5) & (y < shape[0] - 0.5)

    def take(self, index: NDArray[np.int64]) -> View:
        """The same exposure around some of the sources."""
        return replace(
            self,
            x=self.x[index],
            y=self.y[index],
            jacobian=self.jacobian[index],
            inverse=self.inverse[index],
            scale=self.scale[index],
            arcsec=self.arcsec[index],
        )

    def shifted(self, dx: Float64, dy: Float64) -> tuple[Float64, Float64]:
        """Native positions after an offset on the reference grid."""
        j = self.jacobian
        return self.x + j[:, 0, 0] * dx + j[:, 0, 1] * dy, self.y + j[:, 1, 0] * dx + j[:, 1, 1] * dy

    def to_reference(self, dx: Float64, dy: Float64) -> tuple[Float64, Float64]:
        """Native offsets as offsets on the reference grid."""
        i = self.inverse
        return i[:, 0, 0] * dx + i[:, 0, 1] * dy, i[:, 1, 0] * dx + i[:, 1, 1] * dy

    def native_form(self, form: Float64) -> Float64:
        """A quadratic form of the reference grid ``[n, 3]`` in native pixels."""
        q = np.empty((form.shape[0], 2, 2))
        q[:, 0, 0], q[:, 1, 1] = form[:, 0], form[:, 1]
        q[:, 0, 1] = q[:, 1, 0] = 0.5 * form[:, 2]
        m = np.einsum("nji,njk,nkl->nil", self.inverse, q, self.inverse)
        return np.ascontiguousarray(np.stack([m[:, 0, 0], m[:, 1, 1], 2 * m[:, 0, 1]], axis=1))


def pixel_to_sky(wcs: object, x: Float64, y: Float64) -> tuple[Float64, Float64, Float64]:
    """Sky positions of pixels, and the mapping around them.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Of the image.
    x, y : float64 arrays [n]
        0-based pixels.

    Returns
    -------
    ra, dec : float64 arrays [n]
        ICRS degrees.
    jacobian : float64 array [n, 2, 2]
        Derivatives of (east, north) in arcsec by (x, y) in pixels.
    """
    n = x.size
    ra, dec = wcs.all_pix2world(  # type: ignore[attr-defined]
        np.concatenate([x, x + 0.5, x - 0.5, x, x]), np.concatenate([y, y, y, y + 0.5, y - 0.5]), 0
    )
    jacobian = np.empty((n, 2, 2))
    cos = np.cos(np.radians(dec[:n]))
    for column, (plus, minus) in enumerate(((1, 2), (3, 4))):
        a, b = slice(plus * n, plus * n + n), slice(minus * n, minus * n + n)
        turn = (ra[a] - ra[b] + 180) % 360 - 180
        jacobian[:, 0, column] = turn * cos * 3600
        jacobian[:, 1, column] = (dec[a] - dec[b]) * 3600
    return ra[:n], dec[:n], jacobian


def sky_to_pixel(wcs: object, ra: Float64, dec: Float64) -> tuple[Float64, Float64]:
    """Pixels of sky positions; NaN where the projection does not reach.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Of the image.
    ra, dec : float64 arrays [n]
        ICRS degrees.
    """
    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    if good.any():
        try:
            x[good], y[good] = wcs.all_world2pix(ra[good], dec[good], 0, quiet=True)  # type: ignore[attr-defined]
        except Exception:  # wcslib raises one of many types where a projection cannot reach a point
            x[good], y[good] = wcs.wcs_world2pix(ra[good], dec[good], 0)  # type: ignore[attr-defined]
    return x, y


def open_views(
    layers: Sequence[Layer],
    reference: Exposure,
    window: Window,
    footprints: Footprints,
    x: Float64,
    y: Float64,
    arcsec: Float64,
    alone: bool = False,
) -> list[View]:
    """Read every exposure under a window of the reference grid.

    Parameters
    ----------
    layers : sequence of Layer
        The exposures.
    reference : Exposure
        The one whose grid `window`, `x` and `y` are on.
    window : Window
        With the margin that the apertures need.
    footprints : Footprints
        Of the whole tile.
    x, y : float64 arrays [n]
        Positions of the sources on the reference grid.
    arcsec : float64 array [n]
        Size of a reference pixel at each.
    alone : bool
        Take no notice of neighbours: their pixels count as sky.

    Returns
    -------
    list of View
        In the order of `layers`, without exposures that the window does not touch.
    """
    views = []
    for layer in layers:
        native = layer.grid.native_window(window, 2)
        if native.empty:
            continue
        local = local_affine(reference.wcs, layer.exposure.wcs, x, y)
        with np.errstate(invalid="ignore"):
            determinant = np.linalg.det(local.jacobian)
        good = np.isfinite(determinant) & (np.abs(determinant) > 1e-6)
        jacobian = np.where(good[:, None, None], local.jacobian, np.eye(2))
        inverse = np.linalg.inv(jacobian)
        nx = np.where(good, local.x - native.x0, np.nan)
        ny = np.where(good, local.y - native.y0, np.nan)
        labels = native_labels(footprints, reference, layer.exposure, native)
        cutout = layer.noise.read(layer.exposure, native)
        owner = np.where(labels > 0, 0, labels) if alone else labels
        if cutout.bad.any():
            owner[cutout.bad] = BAD - np.maximum(owner[cutout.bad], 0)
        scale = np.sqrt(np.abs(np.where(good, determinant, 1.0)))
        views.append(View(layer, cutout, owner, nx, ny, jacobian, inverse, scale, arcsec / scale))
    return views
