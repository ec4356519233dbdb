"""The mapping from the reference grid to an exposure's native pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import Sip
from numpy.typing import NDArray

from imcat.align.settings import AlignSettings
from imcat.window import Window

__all__ = ["GridMap", "LocalAffine", "local_affine", "map_grids", "moved_wcs", "transform_positions"]

Float64 = NDArray[np.float64]


def transform_positions(source: Any, target: Any, x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """Pixel positions of one WCS in the pixels of another, exactly.

    Parameters
    ----------
    source, target : astropy.wcs.WCS
        Celestial.
    x, y : float64 arrays [n]
        0-based pixel positions in `source`.

    Returns
    -------
    x, y : float64 arrays [n]
        0-based pixel positions in `target`; NaN where it does not reach.
    """
    if source is target:
        return np.array(x, dtype=float), np.array(y, dtype=float)
    ra, dec = source.all_pix2world(x, y, 0)
    try:
        tx, ty = target.all_world2pix(ra, dec, 0, quiet=True)
    except Exception:  # wcslib raises one of many types where a projection cannot reach a point
        ok = np.isfinite(ra) & np.isfinite(dec)
        tx, ty = np.full(np.shape(ra), np.nan), np.full(np.shape(ra), np.nan)
        tx[ok], ty[ok] = target.wcs_world2pix(ra[ok], dec[ok], 0)
    return np.asarray(tx, dtype=float), np.asarray(ty, dtype=float)


def moved_wcs(wcs: Any, dx: float, dy: float) -> Any:
    """A copy of a WCS by which everything lies some pixels farther on.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial; distortions move along.
    dx, dy : float
        Pixels to add to all positions.
    """
    copied = wcs.deepcopy()
    copied.wcs.crpix = [copied.wcs.crpix[0] + dx, copied.wcs.crpix[1] + dy]
    if copied.sip is not None:
        sip = copied.sip
        copied.sip = Sip(sip.a, sip.b, sip.ap, sip.bp, copied.wcs.crpix)
    copied.wcs.set()
    return copied


@dataclass(frozen=True, eq=False)
class LocalAffine:
    """Linear mapping from the reference grid to native pixels around each position.

    Attributes
    ----------
    x, y : float64 arrays [n]
        Native positions.
    jacobian : float64 array [n, 2, 2]
        Derivatives of native ``(x, y)`` by reference ``(x, y)``.
    """

    x: Float64
    y: Float64
    jacobian: Float64


@dataclass(frozen=True, eq=False)
class GridMap:
    """Native pixel positions of the nodes of a coarse grid over the reference image.

    Attributes
    ----------
    spacing : int
        Distance of the nodes, reference pixels; the first lies at pixel (0, 0).
    x, y : float64 arrays [node_y, node_x]
        Native positions; NaN where the projection does not reach.
    shape : (int, int)
        Rows and columns of the native image.
    identity : bool
        True where both grids are the same.
    """

    spacing: int
    x: Float64
    y: Float64
    shape: tuple[int, int]
    identity: bool

    def native_window(self, window: Window, margin: int) -> Window:
        """Native pixels under a reference window, with a margin; empty where they do not overlap."""
        if self.identity:
            return window.grow(margin, self.shape)
        rows = slice(window.y0 // self.spacing, -(-(window.y1 - 1) // self.spacing) + 1)
        columns = slice(window.x0 // self.spacing, -(-(window.x1 - 1) // self.spacing) + 1)
        x, y = self.x[rows, columns], self.y[rows, columns]
        if not np.isfinite(x).any():
            return Window(0, 0, 0, 0)
        # Clipped first: positions far outside may not fit an integer.
        x = np.clip(x[np.isfinite(x)], -1e6, 1e6 + self.shape[1])
        y = np.clip(y[np.isfinite(y)], -1e6, 1e6 + self.shape[0])
        return Window(
            int(np.floor(y.min())) - margin,
            int(np.ceil(y.max())) + margin + 1,
            int(np.floor(x.min())) - margin,
            int(np.ceil(x.max())) + margin + 1,
        ).clip(self.shape)

    def overlap_fraction(self) -> float:
        """Fraction of the squares between the nodes that this exposure touches.

        An exposure too small or too narrow to hold a node still touches a square.
        """
        x_low, x_high = _corner_range(self.x)
        y_low, y_high = _corner_range(self.y)
        touched = (x_high > -1) & (x_low < self.shape[1]) & (y_high > -1) & (y_low < self.shape[0])
        return float(touched.mean())


def _corner_range(nodes: Float64) -> tuple[Float64, Float64]:
    """Smallest and largest value at the corners of each square between nodes; NaN where one is."""
    rows, columns = nodes.shape
    nodes = np.pad(nodes, ((0, int(rows == 1)), (0, int(columns == 1))), mode="edge")
    corners = np.stack([nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, :-1], nodes[1:, 1:]])
    return corners.min(axis=0), corners.max(axis=0)


def map_grids(
    reference: Any,
    reference_shape: tuple[int, int],
    target: Any,
    target_shape: tuple[int, int],
    settings: AlignSettings,
) -> GridMap:
    """Compare two WCS on the nodes of a coarse grid.

    Parameters
    ----------
    reference, target : astropy.wcs.WCS
        Of the reference image and of the exposure.
    reference_shape, target_shape : (int, int)
        Rows and columns of both.
    settings : AlignSettings
        Spacing of the nodes.
    """
    step = settings.node_spacing
    rows = -(-(reference_shape[0] - 1) // step) + 1
    columns = -(-(reference_shape[1] - 1) // step) + 1
    y, x = np.mgrid[0:rows, 0:columns].astype(float) * step
    if reference is target:
        return GridMap(step, x, y, target_shape, True)
    tx, ty = transform_positions(reference, target, x.ravel(), y.ravel())
    return GridMap(step, tx.reshape(x.shape), ty.reshape(x.shape), target_shape, False)


def local_affine(reference: Any, target: Any, x: Float64, y: Float64) -> LocalAffine:
    """Native positions of reference positions, and the mapping around them.

    Parameters
    ----------
    reference, target : astropy.wcs.WCS
        Of the reference image and of the exposure.
    x, y : float64 arrays [n]
        Reference positions, 0-based pixels.
    """
    n = x.size
    tx, ty = transform_positions(
        reference, target, np.concatenate([x, x + 1, x]), np.concatenate([y, y, y + 1])
    )
    jacobian = np.empty((n, 2, 2))
    jacobian[:, 0, 0] = tx[n : 2 * n] - tx[:n]
    jacobian[:, 1, 0] = ty[n : 2 * n] - ty[:n]
    jacobian[:, 0, 1] = tx[2 * n :] - tx[:n]
    jacobian[:, 1, 1] = ty[2 * n :] - ty[:n]
    return LocalAffine(tx[:n], ty[:n], jacobian)
