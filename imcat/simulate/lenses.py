"""Gravitational lenses: deflection, images of a point, images of a galaxy.

The deflector is a singular isothermal ellipsoid (SIE) with external shear. Its deflection
depends on the direction alone, not on the distance (Kormann, Schneider & Bartelmann 1994, A&A 284,
285), and everything here follows from that: images are the roots of a function of one angle,
magnifications, critical curves and caustics are closed formulae.

Conventions, those of Keeton 2001 (astro-ph/0102341) with the intermediate axis as the scale: in the
frame of the major axis the convergence is ``b / (2 sqrt(q u² + v²/q))``, so that without shear the
critical curve encloses the area ``π b²`` whatever ``q`` is. Positions are arcsec east (xi) and
north (eta) of the deflector; angles are degrees east of north. The shear stretches images along its angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.errors import InputError

__all__ = ["Deflectors", "Images", "caustics", "deflection", "find_images", "magnification", "source_plane"]

Float64 = NDArray[np.float64]

_MOST_IMAGES = 6  # four, and two more for the strongest shears (Keeton, Mao & Witt 2000, ApJ 537, 697)
_DIRECTIONS = 192  # samples of the direction in the search for images
# Rounder than this the closed formulae lose digits; the first term of their series is exact to 1e-12.
_ROUND = 1e-6


@dataclass(frozen=True, eq=False)
class Deflectors:
    """Isothermal ellipsoids with external shear, one entry of each array for each.

    Attributes
    ----------
    einstein_radius : float64 array, ``[n]``
        ``b``, arcsec: radius of the circle with the area inside the critical curve (without shear).
    axis_ratio : float64 array, ``[n]``
        ``q``, minor over major axis of the surface mass density.
    position_angle : float64 array, ``[n]``
        Of its major axis, degrees east of north.
    shear : float64 array, ``[n]``
        Strength, 0 to below 1.
    shear_angle : float64 array, ``[n]``
        Direction along which the shear stretches images, degrees east of north.

    Raises
    ------
    InputError
        If an Einstein radius, axis ratio or shear is impossible, or lengths differ.
    """

    einstein_radius: Float64
    axis_ratio: Float64
    position_angle: Float64
    shear: Float64
    shear_angle: Float64

    def __post_init__(self) -> None:
        for f in fields(self):
            values = np.atleast_1d(np.asarray(getattr(self, f.name), np.float64))
            object.__setattr__(self, f.name, values)
            if len(values) != len(self.einstein_radius):
                raise InputError(
                    f"{len(values)} values of {f.name} for {len(self.einstein_radius)} Einstein radii",
                    expected="one for each deflector",
                )
        _check("Einstein radius", self.einstein_radius, self.einstein_radius > 0, "a positive one (arcsec)")
        q = self.axis_ratio
        _check("axis ratio", q, (q > 0) & (q <= 1), "above 0 and at most 1")
        _check("shear", self.shear, (self.shear >= 0) & (self.shear < 1), "at least 0 and below 1")
        _check("position angle", self.position_angle, np.isfinite(self.position_angle), "degrees")
        _check("shear angle", self.shear_angle, np.isfinite(self.shear_angle), "degrees")

    def __len__(self) -> int:
        return len(self.einstein_radius)

    def take(self, which: NDArray[Any]) -> Deflectors:
        """Some of them, by index or by mask."""
        return Deflectors(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def parameters(self) -> Float64:
        """What the kernels read, ``[n, 6]``: b, q, sine and cosine of the angle, two components of shear.

        The components are on the axes (xi, eta): an angle φ east of north is 90° − φ from xi.
        """
        angle = np.deg2rad(self.position_angle)
        twice = 2 * np.deg2rad(self.shear_angle)
        columns = (
            self.einstein_radius,
            self.axis_ratio,
            np.sin(angle),
            np.cos(angle),
            -self.shear * np.cos(twice),
            self.shear * np.sin(twice),
        )
        return np.ascontiguousarray(np.stack(columns, axis=1))


def _check(what: str, values: Float64, fine: NDArray[np.bool_], expected: str) -> None:
    if not fine.all():
        where = int(np.argmin(fine))
        raise InputError(f"deflector {where} has {what} {values[where]:g}", expected=expected)


@njit(cache=True, nogil=True)
def sie_deflection(x: float, y: float, p: Float64, k: int) -> tuple[float, float, float]:
    """Deflection of the ellipsoid, without the shear, and its strength ``h``.

    Kormann et al. 1994, eq. 27a, with ``b`` on the intermediate axis. ``h`` is the rate at which the
    deflection turns with the direction: dα/dφ = h t, with t the unit vector of growing φ.

    Parameters
    ----------
    x, y : float
        Position, or its direction, at any length but zero: east and north.
    p : float64 array, ``[n, 6]``
        `Deflectors.parameters`.
    k : int
        Row of it.

    Returns
    -------
    float, float, float
        East and north component, arcsec; ``h``, arcsec.
    """
    b, q, s, c = p[k, 0], p[k, 1], p[k, 2], p[k, 3]
    u, v = x * s + y * c, -x * c + y * s  # along and across the major axis
    psi = math.sqrt(q * q * u * u + v * v)
    r = math.sqrt(u * u + v * v)
    if r == 0.0:
        return 0.0, 0.0, 0.0
    scale = b * math.sqrt(q)
    f2 = 1.0 - q * q
    if f2 < _ROUND:
        au, av = scale * u / psi * (1 - f2 * u * u / (3 * psi * psi)), scale * v / psi
        av *= 1 + f2 * v * v / (3 * psi * psi)
    else:
        f = math.sqrt(f2)
        au, av = scale / f * math.atan(f * u / psi), scale / f * math.atanh(f * v / psi)
    return au * s - av * c, au * c + av * s, scale * r / psi


@njit(cache=True, nogil=True)
def _deflect(p: Float64, x: Float64, y: Float64, ax: Float64, ay: Float64, inverse: Float64) -> None:
    for i in range(len(x)):
        a, b, h = sie_deflection(x[i], y[i], p, i)
        g1, g2 = p[i, 4], p[i, 5]
        ax[i] = a + g1 * x[i] + g2 * y[i]
        ay[i] = b + g2 * x[i] - g1 * y[i]
        inverse[i] = _determinant(x[i], y[i], h, g1, g2)


@njit(cache=True, nogil=True)
def _determinant(x: float, y: float, h: float, g1: float, g2: float) -> float:
    # The Jacobian is M − (h/r) t tᵀ, with M = 1 − shear and t across the direction.
    r = math.hypot(x, y)
    if r == 0.0:
        return 0.0
    tx, ty = -y / r, x / r
    across = (1 + g1) * tx * tx + (1 - g1) * ty * ty + 2 * g2 * tx * ty
    return 1 - g1 * g1 - g2 * g2 - h / r * across


def _evaluate(lens: Deflectors, xi: Any, eta: Any) -> tuple[Float64, Float64, Float64]:
    x, y = (np.array(np.broadcast_to(np.asarray(v, np.float64), (len(lens),))) for v in (xi, eta))
    ax, ay, inverse = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    _deflect(lens.parameters(), x, y, ax, ay, inverse)
    return ax, ay, inverse


def deflection(lens: Deflectors, xi: Any, eta: Any) -> tuple[Float64, Float64]:
    """Deflection angle, shear included, at one position for each deflector.

    Parameters
    ----------
    lens : Deflectors
        ``n`` of them.
    xi, eta : float or array, ``[n]``
        Position on the sky, arcsec.

    Returns
    -------
    float64 array, float64 array, ``[n]``
        East and north component, arcsec.
    """
    ax, ay, _ = _evaluate(lens, xi, eta)
    return ax, ay


def source_plane(lens: Deflectors, xi: Any, eta: Any) -> tuple[Float64, Float64]:
    """Where in the source plane a position on the sky lies: β = θ − α(θ), arcsec."""
    ax, ay, _ = _evaluate(lens, xi, eta)
    return np.asarray(xi, np.float64) - ax, np.asarray(eta, np.float64) - ay


def magnification(lens: Deflectors, xi: Any, eta: Any) -> Float64:
    """Magnification at one position for each deflector; negative for images of odd parity."""
    with np.errstate(divide="ignore"):
        return np.asarray(1 / _evaluate(lens, xi, eta)[2])


@dataclass(frozen=True, eq=False)
class Images:
    """Images of point sources; a row has its images first, then NaN.

    Attributes
    ----------
    count : int64 array, ``[n]``
        How many images, the infinitely faint one in the centre excluded.
    xi, eta : float64 array, ``[n, 6]``
        Positions, arcsec east and north of the deflector.
    magnification : float64 array, ``[n, 6]``
        Negative for odd parity.
    """

    count: NDArray[np.int64]
    xi: Float64
    eta: Float64
    magnification: Float64

    @property
    def total(self) -> Float64:
        """Total magnification, ``[n]``."""
        return np.asarray(np.nansum(np.abs(self.magnification), axis=1))


@njit(cache=True, nogil=True)
def _miss(phi: float, bx: float, by: float, p: Float64, k: int) -> tuple[float, float]:
    # With the direction e given, β = M r e − α(e) says where the image would have to be:
    # w = M⁻¹ (β + α). It is an image if w points along e, i.e. w × e = 0 and r = w · e > 0.
    ex, ey = math.cos(phi), math.sin(phi)
    ax, ay, _ = sie_deflection(ex, ey, p, k)
    g1, g2 = p[k, 4], p[k, 5]
    vx, vy = bx + ax, by + ay
    wx, wy = (1 + g1) * vx + g2 * vy, g2 * vx + (1 - g1) * vy
    shrink = 1 / (1 - g1 * g1 - g2 * g2)
    return (wx * ey - wy * ex) * shrink, (wx * ex + wy * ey) * shrink


@njit(cache=True, nogil=True)
def _root(low: float, high: float, at_low: float, bx: float, by: float, p: Float64, k: int) -> float:
    for _ in range(60):
        middle = 0.5 * (low + high)
        at_middle = _miss(middle, bx, by, p, k)[0]
        if (at_middle < 0) == (at_low < 0):
            low, at_low = middle, at_middle
        else:
            high = middle
        if high - low < 1e-14:
            break
    return 0.5 * (low + high)


@njit(cache=True, nogil=True)
def _turn(low: float, high: float, sign: float, bx: float, by: float, p: Float64, k: int) -> float:
    # The place between where sign × miss is least (golden section), to find two roots close together.
    ratio = 0.5 * (math.sqrt(5.0) - 1)
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        at_a, at_b = sign * _miss(a, bx, by, p, k)[0], sign * _miss(b, bx, by, p, k)[0]
        if at_a < 0:
            return a
        if at_b < 0:
            return b
        if at_a < at_b:
            high = b
        else:
            low = a
    return 0.5 * (low + high)


@njit(cache=True, nogil=True)
def _add(
    phi: float, bx: float, by: float, p: Float64, k: int,
    count: NDArray[np.int64], xi: Float64, eta: Float64, mu: Float64,
) -> None:  # fmt: skip
    r = _miss(phi, bx, by, p, k)[1]
    if r <= 0 or count[k] == xi.shape[1]:
        return
    j = count[k]
    x, y = r * math.cos(phi), r * math.sin(phi)
    h = sie_deflection(x, y, p, k)[2]
    inverse = _determinant(x, y, h, p[k, 4], p[k, 5])
    xi[k, j], eta[k, j] = x, y
    mu[k, j] = 1 / inverse if inverse != 0 else math.inf
    count[k] += 1


@njit(cache=True, nogil=True)
def _solve(
    p: Float64, bx: Float64, by: Float64, directions: int,
    count: NDArray[np.int64], xi: Float64, eta: Float64, mu: Float64,
) -> None:  # fmt: skip
    step = 2 * math.pi / directions
    for k in range(len(bx)):
        # An offset, since the axes of symmetry are roots for sources on them.
        start = 0.3819 * step
        before = _miss(start - step, bx[k], by[k], p, k)[0]
        here = _miss(start, bx[k], by[k], p, k)[0]
        for i in range(directions):
            phi = start + i * step
            after = _miss(phi + step, bx[k], by[k], p, k)[0]
            if (here < 0) != (after < 0):
                _add(_root(phi, phi + step, here, bx[k], by[k], p, k), bx[k], by[k], p, k, count, xi, eta, mu)
            elif (before < 0) == (here < 0) and abs(here) <= abs(before) and abs(here) < abs(after):
                sign = -1.0 if here < 0 else 1.0
                middle = _turn(phi - step, phi + step, sign, bx[k], by[k], p, k)
                at = _miss(middle, bx[k], by[k], p, k)[0]
                if sign * at < 0:
                    first = _root(phi - step, middle, before, bx[k], by[k], p, k)
                    second = _root(middle, phi + step, at, bx[k], by[k], p, k)
                    _add(first, bx[k], by[k], p, k, count, xi, eta, mu)
                    _add(second, bx[k], by[k], p, k, count, xi, eta, mu)
            before, here = here, after


def find_images(lens: Deflectors, xi: Any, eta: Any) -> Images:
    """All images of one point source behind each deflector.

    The lens equation is reduced to one unknown, the direction of the image, whose roots are
    bracketed on a grid (minima that do not quite reach zero are followed) and bisected to 1e-14 rad.

    Parameters
    ----------
    lens : Deflectors
        ``n`` of them.
    xi, eta : float or array, ``[n]``
        Position of the source, unlensed, arcsec east and north of the deflector.

    Examples
    --------
    A ring of four images from an ellipsoid, and the two of a sphere (1 + 1/0.5 and 1 − 1/0.5):

    >>> lens = Deflectors(*(np.array(v) for v in ([1.0, 1.0], [0.7, 1.0], [0, 0], [0, 0], [0, 0])))
    >>> images = find_images(lens, [0.01, 0.5], [0.01, 0.0])
    >>> images.count
    array([4, 2])
    >>> np.sort(images.magnification[1, :2]).round(6)
    array([-1.,  3.])
    """
    n = len(lens)
    bx, by = (np.array(np.broadcast_to(np.asarray(v, np.float64), (n,))) for v in (xi, eta))
    count = np.zeros(n, np.int64)
    x, y, mu = (np.full((n, _MOST_IMAGES), np.nan) for _ in range(3))
    _solve(lens.parameters(), bx, by, _DIRECTIONS, count, x, y, mu)
    return Images(count, x, y, mu)


@njit(cache=True, nogil=True)
def _curves(p: Float64, tangential: Float64, cut: Float64, critical: Float64) -> None:
    points = tangential.shape[1]
    for k in range(len(p)):
        g1, g2 = p[k, 4], p[k, 5]
        for i in range(points):
            phi = 2 * math.pi * i / points
            ex, ey = math.cos(phi), math.sin(phi)
            ax, ay, h = sie_deflection(ex, ey, p, k)
            across = (1 + g1) * ey * ey + (1 - g1) * ex * ex - 2 * g2 * ex * ey
            r = h * across / (1 - g1 * g1 - g2 * g2)
            critical[k, i, 0], critical[k, i, 1] = r * ex, r * ey
            tangential[k, i, 0] = r * ((1 - g1) * ex - g2 * ey) - ax
            tangential[k, i, 1] = r * ((1 + g1) * ey - g2 * ex) - ay
            cut[k, i, 0], cut[k, i, 1] = -ax, -ay


def caustics(lens: Deflectors, points: int = 256) -> tuple[Float64, Float64, Float64]:
    """Curves in the source plane that separate numbers of images.

    Inside the tangential caustic a source has two images more, inside the cut (the pseudo-caustic of
    a singular core) one more.

    Parameters
    ----------
    lens : Deflectors
        ``n`` of them.
    points : int
        Along each curve.

    Returns
    -------
    tangential, cut : float64 array, ``[n, points, 2]``
        Source plane, arcsec east and north.
    critical : float64 array, ``[n, points, 2]``
        Image plane: the curve of infinite magnification, whose image is the tangential caustic.
    """
    shape = (len(lens), points, 2)
    tangential, cut, critical = np.empty(shape), np.empty(shape), np.empty(shape)
    _curves(lens.parameters(), tangential, cut, critical)
    return tangential, cut, critical
