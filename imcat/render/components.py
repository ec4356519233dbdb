"""Sources as sums of Gaussians on the sky, before any PSF.

One definition feeds both renderers: `imcat.render.draw` (whole images) and `imcat.render.stamps`
(batches that can be differentiated).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.render.profiles import Mixture

__all__ = ["Components", "ellipse_covariance", "ellipses", "map_covariance", "points", "sky_covariance"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Components:
    """Gaussians on the sky; one source has one or more of them.

    Attributes
    ----------
    source : int64 array, ``[n]``
        Index of the source, rising.
    flux : float64 array, ``[n, bands]``
        nJy; negative where a component takes light away (dust lanes).
    xi, eta : float64 array, ``[n]``
        Offset from the position of the source, arcsec east and north.
    xx, xy, yy : float64 array, ``[n]``
        Covariance on the axes (xi, eta), arcsec²; 0 for a point.

    Raises
    ------
    ValueError
        If the arrays do not fit together, or `source` falls.
    """

    source: Int64
    flux: Float64
    xi: Float64
    eta: Float64
    xx: Float64
    xy: Float64
    yy: Float64

    def __post_init__(self) -> None:
        n = len(self.source)
        for name in ("xi", "eta", "xx", "xy", "yy"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected ({n},) as source")
        if self.flux.ndim != 2 or len(self.flux) != n:
            raise ValueError(f"flux has shape {self.flux.shape}; expected ({n}, bands)")
        if n > 1 and np.any(np.diff(self.source) < 0):
            raise ValueError("components are not in the order of their sources; expected rising source")

    def __len__(self) -> int:
        return len(self.source)

    @property
    def bands(self) -> int:
        """Number of bands."""
        return int(self.flux.shape[1])

    def total(self, sources: int) -> Float64:
        """Flux of each source, ``[sources, bands]``, nJy."""
        result = np.zeros((sources, self.bands))
        np.add.at(result, self.source, self.flux)
        return result

    @staticmethod
    def concatenate(parts: Sequence[Components]) -> Components:
        """Components of several lists, in the order of their sources.

        Components of one source stay in the order of the lists.
        """
        if not parts:
            raise ValueError("no components to put together; expected at least one list")
        source = np.concatenate([p.source for p in parts])
        order = np.argsort(source, kind="stable")
        columns = {
            name: np.concatenate([getattr(p, name) for p in parts])[order]
            for name in ("flux", "xi", "eta", "xx", "xy", "yy")
        }
        return Components(source[order], **columns)


def points(flux: ArrayLike, source: ArrayLike | None = None) -> Components:
    """Stars and quasars: one Gaussian without extent each.

    Parameters
    ----------
    flux : array, ``[n, bands]``
        nJy.
    source : array, ``[n]``, optional
        Index of each source, rising; default: 0, 1, 2 …
    """
    values = np.array(flux, np.float64)
    n = len(values)
    index = np.arange(n) if source is None else np.array(source, np.int64)
    zero = np.zeros(n)
    return Components(index.astype(np.int64), values, zero, zero, zero, zero, zero)


def ellipse_covariance(major: Any, minor: Any, sine: Any, cosine: Any) -> tuple[Any, Any, Any]:
    """Covariance on the axes (east, north) of a Gaussian whose major axis points to (sine, cosine).

    For arrays and tensors alike, so that both renderers share it.

    Parameters
    ----------
    major, minor : array or tensor
        Variances along the axes.
    sine, cosine : array or tensor
        Of the position angle, east of north.

    Returns
    -------
    xx, xy, yy : array or tensor
    """
    return (
        major * sine * sine + minor * cosine * cosine,
        (major - minor) * sine * cosine,
        major * cosine * cosine + minor * sine * sine,
    )


def map_covariance(j00: Any, j01: Any, j10: Any, j11: Any, xx: Any, xy: Any, yy: Any) -> tuple[Any, Any, Any]:
    """Covariance after a linear map, ``J C Jᵀ``, for numbers, arrays and tensors alike.

    Parameters
    ----------
    j00, j01, j10, j11 : number, array or tensor
        The matrix, row by row.
    xx, xy, yy : number, array or tensor
        The covariance before.

    Returns
    -------
    xx, xy, yy : number, array or tensor
    """
    return (
        j00 * j00 * xx + 2.0 * j00 * j01 * xy + j01 * j01 * yy,
        j00 * j10 * xx + (j00 * j11 + j01 * j10) * xy + j01 * j11 * yy,
        j10 * j10 * xx + 2.0 * j10 * j11 * xy + j11 * j11 * yy,
    )


def sky_covariance(
    axis_ratio: ArrayLike, position_angle: ArrayLike, variance: ArrayLike = 1.0
) -> tuple[Float64, Float64, Float64]:
    """Covariance on the axes (east, north) of a Gaussian seen as an ellipse.

    Parameters
    ----------
    axis_ratio : array
        Minor over major axis.
    position_angle : array
        Of the major axis, degrees east of north.
    variance : array
        Along the major axis, arcsec².

    Returns
    -------
    xx, xy, yy : float64 arrays
        arcsec², of the arguments' common shape.
    """
    angle = np.deg2rad(np.asarray(position_angle, np.float64))
    major = np.asarray(variance, np.float64)
    minor = major * np.square(np.asarray(axis_ratio, np.float64))
    xx, xy, yy = ellipse_covariance(major, minor, np.sin(angle), np.cos(angle))
    return xx, xy, yy


def ellipses(
    source: ArrayLike,
    flux: ArrayLike,
    radius: ArrayLike,
    axis_ratio: ArrayLike,
    position_angle: ArrayLike,
    profile: Mixture,
    xi: ArrayLike = 0.0,
    eta: ArrayLike = 0.0,
) -> Components:
    """Elliptical sources, or parts of sources, of a given profile.

    Parameters
    ----------
    source : array, ``[m]``
        Index of the source that each belongs to, in any order.
    flux : array, ``[m, bands]``
        Total flux of each, nJy.
    radius : array, ``[m]``
        Half-light radius along the major axis, arcsec.
    axis_ratio : array, ``[m]``
        Minor over major axis.
    position_angle : array, ``[m]``
        Of the major axis, degrees east of north.
    profile : Mixture
        Of all of them, or one for each (arrays ``[m, k]``).
    xi, eta : array, ``[m]`` or scalar
        Centre, arcsec east and north of the source's position.

    Returns
    -------
    Components
        k for each ellipse; those without weight are left out.
    """
    index = np.asarray(source, np.int64)
    total = np.asarray(flux, np.float64)
    m, k = len(index), profile.weights.shape[-1]

    def spread(values: ArrayLike) -> Float64:
        return np.broadcast_to(np.asarray(values, np.float64), (m,))

    weights = np.broadcast_to(profile.weights, (m, k))
    variance = np.square(spread(radius))[:, None] * profile.variances
    covariance = sky_covariance(spread(axis_ratio)[:, None], spread(position_angle)[:, None], variance)
    offsets = (np.broadcast_to(spread(values)[:, None], (m, k)) for values in (xi, eta))
    # Sorted by source, as `Components` are; a weight of zero draws nothing.
    order = np.argsort(index, kind="stable")
    rows = order[:, None] * k + np.arange(k)
    keep = rows[weights[order] != 0]
    xx, xy, yy, east, north = (a.reshape(-1)[keep] for a in (*covariance, *offsets))
    parts = (total[:, None, :] * weights[:, :, None]).reshape(m * k, -1)[keep]
    return Components(np.repeat(index, k)[keep], parts, east, north, xx, xy, yy)
