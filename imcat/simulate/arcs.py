"""Lensed galaxies: a disc with clumps seen through a deflector, as many small Gaussians on the sky.

Rays are shot backwards from the cells of a quadtree on the sky. Cells that cannot see the source are
dropped whole, cells over which the brightness changes much are split down to the finest step; each cell
that is left becomes one round Gaussian with the cell's flux.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.errors import ConfigError, InputError
from imcat.simulate.lenses import Deflectors, sie_deflection

__all__ = ["Cells", "ClumpyDiscs", "shoot_rays"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Half-light radius of an exponential disc in scale lengths: root of (1 + x) exp(−x) = 1/2.
_SCALE = 1.6783469900166605
_EDGE = 4.0  # the disc ends at so many half-light radii (99 % of its light), as SDSS's exponential does
_LEVELS = 3  # the largest cell is 2**3 finest steps wide, and holds light up to 2**2
_CONTRAST = 0.05  # of the disc's central brightness: by so much a larger cell may vary over its points
_MOST_PARTS = 4  # per axis, into which the finest cell is divided where it spans structure of the source
_POINT = 0.5 / math.sqrt(3.0)  # Gauss's two points, from the middle, in sides of the cell


@dataclass(frozen=True, eq=False)
class ClumpyDiscs:
    """Galaxies in the source plane: exponential discs with round Gaussian clumps, total flux 1.

    Attributes
    ----------
    xi, eta : float64 array, ``[n]``
        Centre, unlensed, arcsec east and north of the deflector.
    radius : float64 array, ``[n]``
        Half-light radius along the major axis, arcsec.
    axis_ratio, position_angle : float64 array, ``[n]``
        Of the disc; degrees east of north.
    clump_xi, clump_eta : float64 array, ``[n, clumps]``
        Offsets of the clumps from the centre, arcsec.
    clump_sigma : float64 array, ``[n, clumps]``
        Their dispersion, arcsec.
    clump_share : float64 array, ``[n, clumps]``
        Their share of the flux; the sum of a row is below 1.
    """

    xi: Float64
    eta: Float64
    radius: Float64
    axis_ratio: Float64
    position_angle: Float64
    clump_xi: Float64
    clump_eta: Float64
    clump_sigma: Float64
    clump_share: Float64

    def __post_init__(self) -> None:
        if not (self.radius > 0).all():
            raise InputError("a lensed galaxy has no size", expected="a positive half-light radius (arcsec)")
        if not ((self.axis_ratio > 0) & (self.axis_ratio <= 1)).all():
            raise InputError("a lensed galaxy has an axis ratio outside 0 to 1")
        if not (self.clump_share.sum(axis=1) < 1).all():
            raise InputError(
                "the clumps hold all the light of a galaxy", expected="shares with a sum below 1"
            )

    def __len__(self) -> int:
        return len(self.xi)

    def take(self, which: NDArray[Any]) -> ClumpyDiscs:
        """Some of them, by index or by mask."""
        return ClumpyDiscs(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    @staticmethod
    def smooth(
        xi: Float64, eta: Float64, radius: Float64, axis_ratio: Float64, angle: Float64
    ) -> ClumpyDiscs:
        """Discs without clumps."""
        none = np.zeros((len(xi), 0))
        return ClumpyDiscs(xi, eta, radius, axis_ratio, angle, none, none, none, none)

    def parameters(self) -> Float64:
        """What the kernel reads, ``[n, 7]``: centre, scale length, q, sine, cosine, central brightness."""
        angle = np.deg2rad(self.position_angle)
        scale = self.radius / _SCALE
        edge = _EDGE * _SCALE
        inside = 1 - (1 + edge) * math.exp(-edge)
        smooth = 1 - self.clump_share.sum(axis=1)
        centre = smooth / (2 * np.pi * scale**2 * self.axis_ratio * inside)
        columns = (self.xi, self.eta, scale, self.axis_ratio, np.sin(angle), np.cos(angle), centre)
        return np.ascontiguousarray(np.stack(columns, axis=1))

    def clumps(self) -> Float64:
        """What the kernel reads, ``[n, clumps, 4]``: offsets, dispersion, central brightness."""
        # A clump without dispersion holds no light; it is there to make rows equally long.
        sigma = np.where(self.clump_sigma > 0, self.clump_sigma, 1.0)
        peak = np.where(self.clump_sigma > 0, self.clump_share / (2 * np.pi * sigma**2), 0.0)
        return np.ascontiguousarray(np.stack((self.clump_xi, self.clump_eta, sigma, peak), axis=2))


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells on the sky that hold light.

    Attributes
    ----------
    system : int64 array, ``[m]``
        Row of the deflector; rising.
    light : float64 array, ``[m]``
        Flux in units of the unlensed flux of the source.
    xi, eta : float64 array, ``[m]``
        Middle, arcsec east and north of the deflector.
    size : float64 array, ``[m]``
        Side, arcsec.
    """

    system: Int64
    light: Float64
    xi: Float64
    eta: Float64
    size: Float64


@njit(cache=True, nogil=True)
def _brightness(x: float, y: float, p: Float64, d: Float64, clumps: Float64, k: int) -> float:
    # Surface brightness on the sky at (x, y), and so of the source where the ray ends.
    ax, ay, _ = sie_deflection(x, y, p, k)
    dx = (1 - p[k, 4]) * x - p[k, 5] * y - ax - d[k, 0]
    dy = (1 + p[k, 4]) * y - p[k, 5] * x - ay - d[k, 1]
    u, v = dx * d[k, 4] + dy * d[k, 5], (dy * d[k, 4] - dx * d[k, 5]) / d[k, 3]
    radius = math.sqrt(u * u + v * v) / d[k, 2]
    light = 0.0
    if radius < _EDGE * _SCALE:
        light = d[k, 6] * math.exp(-radius)
    for j in range(clumps.shape[1]):
        cx, cy = dx - clumps[k, j, 0], dy - clumps[k, j, 1]
        chi = (cx * cx + cy * cy) / (clumps[k, j, 2] * clumps[k, j, 2])
        if chi < 32.0:
            light += clumps[k, j, 3] * math.exp(-0.5 * chi)
    return light


@njit(cache=True, nogil=True)
def _cell(
    x: float, y: float, size: float, p: Float64, d: Float64, clumps: Float64, k: int, parts: int
) -> tuple[float, float]:
    # Mean brightness of a cell by Gauss's rule on 2 × 2 points of each of parts² parts, and by how much
    # the brightest point exceeds it.
    side = size / parts
    a = _POINT * side
    total, most = 0.0, 0.0
    for i in range(2 * parts):
        px = x - 0.5 * size + (i // 2 + 0.5) * side + (a if i & 1 else -a)
        for j in range(2 * parts):
            py = y - 0.5 * size + (j // 2 + 0.5) * side + (a if j & 1 else -a)
            here = _brightness(px, py, p, d, clumps, k)
            total += here
            most = max(most, here)
    mean = total / (4 * parts * parts)
    return mean, most - mean


@njit(cache=True, nogil=True)
def _smallest(d: Float64, clumps: Float64, k: int) -> float:
    # The finest structure of a galaxy: its scale length across, or its smallest clump, arcsec.
    least = d[k, 2] * d[k, 3]
    for j in range(clumps.shape[1]):
        if clumps[k, j, 3] > 0:
            least = min(least, clumps[k, j, 2])
    return least


@njit(cache=True, nogil=True)
def _reach(p: Float64, k: int) -> float:
    # Largest deflection of the ellipsoid: at the ends of one of its axes.
    q = p[k, 1]
    f2 = 1 - q * q
    if f2 < 1e-6:
        return p[k, 0]
    f = math.sqrt(f2)
    return p[k, 0] * math.sqrt(q) / f * max(math.atan(f / q), math.atanh(f))


@njit(cache=True, nogil=True)
def _may_miss(x: float, y: float, spread: float, d: Float64, clumps: Float64, k: int) -> bool:
    # Whether the foot of a cell, of radius `spread` around (x, y) from the disc's centre, is wider than
    # the disc's core or a clump that it touches: then the samples of the cell may miss it.
    scale, touch = d[k, 2], spread + 3 * d[k, 2]
    if spread > 1.5 * scale * d[k, 3] and x * x + y * y < touch * touch:
        return True
    for j in range(clumps.shape[1]):
        sigma = clumps[k, j, 2]
        touch = spread + 3 * sigma
        cx, cy = x - clumps[k, j, 0], y - clumps[k, j, 1]
        if clumps[k, j, 3] > 0 and spread > sigma and cx * cx + cy * cy < touch * touch:
            return True
    return False


@njit(cache=True, nogil=True)
def _grow(system: Int64, values: Float64) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    n = len(system)
    more = np.empty(2 * n, np.int64)
    wider = np.empty((2 * n, 4))
    for i in range(n):
        more[i] = system[i]
        for j in range(4):
            wider[i, j] = values[i, j]
    return more, wider


@njit(cache=True, nogil=True)
def _shoot(
    p: Float64, d: Float64, clumps: Float64, step: Float64, extent: Float64, faintest: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    # Rows of `values`: light, xi, eta, size.
    system, values = np.empty(4096, np.int64), np.empty((4096, 4))
    stack = np.empty((4 * _LEVELS + 8, 3))
    m = 0
    for k in range(len(p)):
        first = m
        found, kept = 0.0, 0.0
        shear = math.hypot(p[k, 4], p[k, 5])
        bend = p[k, 0] / math.sqrt(p[k, 1])  # the largest h: the deflection changes by h/r at most
        finest = 2 * _smallest(d, clumps, k)
        top = step[k] * 2**_LEVELS
        edge = extent[k]
        half = (math.hypot(d[k, 0], d[k, 1]) + edge + _reach(p, k)) / (1 - shear)
        across = int(math.ceil(2 * half / top))
        # Off the centre by an irrational share of a cell, so that no ray hits the singularity.
        start_x, start_y = -0.5 * across * top + 0.0731 * step[k], -0.5 * across * top + 0.0417 * step[k]
        for cell in range(across * across):
            stack[0, 0] = start_x + (cell % across + 0.5) * top
            stack[0, 1] = start_y + (cell // across + 0.5) * top
            stack[0, 2] = top
            depth = 1
            while depth > 0:
                depth -= 1
                x, y, size = stack[depth, 0], stack[depth, 1], stack[depth, 2]
                corner = size * 0.7071067811865476
                r = math.hypot(x, y)
                leaf = size < 1.5 * step[k]
                if r > 2 * corner:
                    ax, ay, _ = sie_deflection(x, y, p, k)
                    dx = (1 - p[k, 4]) * x - p[k, 5] * y - ax - d[k, 0]
                    dy = (1 + p[k, 4]) * y - p[k, 5] * x - ay - d[k, 1]
                    # The Jacobian is 1 − (h/r) t tᵀ − shear: no distance grows by more than this.
                    spread = corner * (shear + max(1.0, bend / (r - corner) - 1))
                    if dx * dx + dy * dy > (edge + spread) * (edge + spread):
                        continue
                    whole = size < 0.75 * top and not _may_miss(dx, dy, spread, d, clumps, k)
                else:
                    whole = False  # the direction of rays changes too much over this cell
                    spread = size + bend
                if leaf or whole:
                    parts = min(_MOST_PARTS, int(spread / finest) + 1) if leaf else 1
                    mean, deviation = _cell(x, y, size, p, d, clumps, k, parts)
                    if leaf or deviation < _CONTRAST * d[k, 6]:
                        found += mean * size * size
                        if mean > faintest * d[k, 6]:
                            if m == len(system):
                                system, values = _grow(system, values)
                            system[m] = k
                            values[m, 0], values[m, 1] = mean * size * size, x
                            values[m, 2], values[m, 3] = y, size
                            kept += values[m, 0]
                            m += 1
                        continue
                for i in range(4):
                    stack[depth, 0] = x + (0.25 if i & 1 else -0.25) * size
                    stack[depth, 1] = y + (0.25 if i & 2 else -0.25) * size
                    stack[depth, 2] = 0.5 * size
                    depth += 1
        # What the faint cells held goes to the others: the total stays.
        for i in range(first, m):
            values[i, 0] *= found / kept
    return system[:m].copy(), values[:m].copy()


def shoot_rays(
    lens: Deflectors, galaxies: ClumpyDiscs, step: float | Float64 = 0.04, faintest: float = 2e-3
) -> Cells:
    """The sky's cells that see a lensed galaxy, and how much of its light.

    Parameters
    ----------
    lens : Deflectors
        ``n`` of them.
    galaxies : ClumpyDiscs
        One behind each.
    step : float or float64 array, ``[n]``
        Side of the finest cells, arcsec; the largest have four times that.
    faintest : float
        Cells below this share of the disc's central brightness are left out, their light is given to
        the others.

    Raises
    ------
    ConfigError
        If the step is not positive or `faintest` not in 0 to below 1.
    InputError
        If there is not one galaxy for each deflector.
    """
    if len(lens) != len(galaxies):
        raise InputError(
            f"{len(galaxies)} galaxies behind {len(lens)} deflectors", expected="one behind each"
        )
    steps = np.array(np.broadcast_to(np.asarray(step, np.float64), (len(lens),)))
    if not (steps > 0).all():
        raise ConfigError("a step of the rays is not positive; expected a part of the pixel, in arcsec")
    if not 0 <= faintest < 1:
        raise ConfigError(f"faintest = {faintest:g} is impossible; expected a share, 0 to below 1")
    clumps = galaxies.clumps()
    extent = _EDGE * galaxies.radius
    if clumps.shape[1]:
        far = np.hypot(galaxies.clump_xi, galaxies.clump_eta) + 6 * galaxies.clump_sigma
        extent = np.maximum(extent, np.where(galaxies.clump_share > 0, far, 0).max(axis=1))
    system, values = _shoot(lens.parameters(), galaxies.parameters(), clumps, steps, extent, faintest)
    return Cells(system, values[:, 0], values[:, 1], values[:, 2], values[:, 3])
