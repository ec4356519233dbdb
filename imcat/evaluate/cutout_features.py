"""Summary features of cutouts: what gradient-boosted trees look at to tell a twin from the real tile.

Every feature has a family (noise, correlation, shape …) and most have a band; reports add up over
both to say what gives a simulation away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.evaluate.cutouts import SIZE, Cutouts, aperture_sums

__all__ = ["APERTURES", "PROFILE_FAMILIES", "Features", "adaptive_moments", "summarise"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Radii of the apertures, pixels.
APERTURES = (1.0, 2.0, 3.0, 5.0, 8.0)

#: Families that describe the profile of a central point source, for the set centred on stars.
PROFILE_FAMILIES = ("concentration", "size", "shape")

_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_CLIP = 3.0  # sigma, of the pixels that count as background
_BLOCK = 8  # pixels, side of the blocks whose means hold the low frequencies
_PEAK = 4.0  # rms, height of a local peak
_CHUNK = 64  # cutouts worked on at a time, so that temporary arrays stay small


@dataclass(frozen=True, eq=False)
class Features:
    """A table of features.

    Attributes
    ----------
    values : float32 array [n, features]
        NaN where a feature could not be measured.
    names : tuple of str
        ``family band detail``.
    families : tuple of str
        Family of each feature.
    """

    values: Float32
    names: tuple[str, ...]
    families: tuple[str, ...]

    def family(self, *wanted: str) -> NDArray[np.int64]:
        """Indices of the features of some families."""
        return np.flatnonzero(np.isin(self.families, wanted))


def summarise(cutouts: Cutouts, bands: Sequence[str]) -> Features:
    """Features of each cutout.

    Parameters
    ----------
    cutouts : Cutouts
        Pixels in units of the band's noise.
    bands : sequence of str
        Their names.

    Returns
    -------
    Features
        Per band: level and shape of the pixels' distribution, correlation of neighbours, excess
        variance of row and column means, low frequencies, aperture fluxes and their ratios,
        half-light radius, adaptive moments, peaks; and colours of neighbouring bands.
    """
    names: list[str] = []
    families: list[str] = []
    columns: list[Float64] = []

    def add(family: str, detail: str, values: Float64) -> None:
        families.append(family)
        names.append(f"{family} {detail}")
        columns.append(values)

    fluxes = []
    for k, band in enumerate(bands):
        pixels = cutouts.pixels[:, k]
        for family, detail, values in _background(pixels, float(cutouts.rms[k])):
            add(family, f"{band} {detail}".rstrip(), values)
        flux = _aperture_fluxes(pixels, cutouts.offset[:, k])
        fluxes.append(flux * cutouts.rms[k])
        for family, detail, values in _profile(pixels, cutouts.offset[:, k], flux):
            add(family, f"{band} {detail}".rstrip(), values)
    middle = APERTURES.index(3.0)
    for k in range(len(bands) - 1):
        softening = [3.0 * np.sqrt(np.pi) * cutouts.rms[k + j] for j in (0, 1)]
        blue, red = (_asinh_magnitude(fluxes[k + j][:, middle], softening[j]) for j in (0, 1))
        add("colour", f"{bands[k]}-{bands[k + 1]}", blue - red)
    table = np.column_stack(columns) if columns else np.empty((len(cutouts), 0))
    return Features(table.astype(np.float32), tuple(names), tuple(families))


def _asinh_magnitude(flux: Float64, softening: float) -> Float64:
    """Magnitude that is finite for any flux, like a logarithm above `softening`."""
    return np.asarray(-2.5 / math.log(10) * (np.arcsinh(flux / (2 * softening)) + math.log(softening)))


def _background(pixels: Float32, rms: float) -> list[tuple[str, str, Float64]]:
    """Features of all pixels of a band, sources clipped away where noise is looked at."""
    parts = [_background_chunk(pixels[i : i + _CHUNK], rms) for i in range(0, len(pixels), _CHUNK)]
    if not parts:
        return []
    return [
        (family, detail, np.concatenate([part[j][2] for part in parts]))
        for j, (family, detail, _) in enumerate(parts[0])
    ]


def _background_chunk(pixels: Float32, rms: float) -> list[tuple[str, str, Float64]]:
    flat = pixels.reshape(len(pixels), -1)
    quarter, centre, three = np.percentile(flat, (25, 50, 75), axis=1)
    # Start from the quartiles, which sources widen little, and clip to convergence.
    mean, sigma = centre, np.maximum((three - quarter) / 1.349, 1e-6)
    used = np.ones(flat.shape, bool)
    for _ in range(4):
        used = np.abs(flat - mean[:, None]) < _CLIP * sigma[:, None]
        count = np.maximum(used.sum(axis=1), 1)
        mean = np.where(used, flat, 0).sum(axis=1, dtype=np.float64) / count
        square = np.where(used, (flat - mean[:, None]) ** 2, 0).sum(axis=1, dtype=np.float64) / count
        sigma = np.maximum(np.sqrt(square), 1e-6)
    unit = np.where(used, (flat - mean[:, None]) / sigma[:, None], 0).astype(np.float32)
    moments = [(unit**p).sum(axis=1, dtype=np.float64) / count for p in (3, 4)]
    features = [
        ("noise", "rms", np.log10(sigma * rms)),
        ("noise", "skewness", moments[0]),
        ("noise", "kurtosis", moments[1]),
        ("level", "mean", mean),
        ("level", "outliers", 1 - count / flat.shape[1]),
    ]
    levels = np.percentile(flat, _PERCENTILES, axis=1)
    features += [("level", f"p{p}", v) for p, v in zip(_PERCENTILES, levels, strict=True)]
    grid = unit.reshape(pixels.shape)
    features += [("correlation", name, value) for name, value in _correlations(grid, count)]
    side = pixels.shape[-1]
    features += [
        ("stripes", "rows", grid.mean(axis=2).var(axis=1) * side),
        ("stripes", "columns", grid.mean(axis=1).var(axis=1) * side),
        ("low frequencies", "blocks", _block_variance(grid, _BLOCK)),
        ("low frequencies", "halves", _block_variance(grid, side // 2)),
        ("peaks", "number", _peaks(pixels, sigma)),
    ]
    return [(family, detail, np.asarray(v, np.float64)) for family, detail, v in features]


def _correlations(grid: Float32, count: NDArray[np.int64]) -> list[tuple[str, Float64]]:
    """Autocorrelation of the clipped pixels at small lags; the diagonals are one, so a mirror changes nothing."""

    def lag(dy: int, dx: int) -> Float64:
        rows, columns = grid.shape[1:]
        first = grid[:, : rows - dy, max(-dx, 0) : columns - max(dx, 0)]
        second = grid[:, dy:, max(dx, 0) : columns + min(dx, 0)]
        return np.asarray(np.einsum("nij,nij->n", first, second) / count, np.float64)

    return [
        ("x 1", lag(0, 1)),
        ("y 1", lag(1, 0)),
        ("diagonal", 0.5 * (lag(1, 1) + lag(1, -1))),
        ("x 2", lag(0, 2)),
        ("y 2", lag(2, 0)),
        ("x 4", lag(0, 4)),
        ("y 4", lag(4, 0)),
    ]


def _block_variance(grid: Float32, size: int) -> Float64:
    """Variance of means over blocks, one for white noise of unit variance."""
    n, side = len(grid), grid.shape[1] // size
    means = grid.reshape(n, side, size, side, size).mean(axis=(2, 4), dtype=np.float64)
    return np.asarray(means.reshape(n, -1).var(axis=1) * size**2)


def _peaks(pixels: Float32, sigma: Float64) -> Float64:
    """Number of pixels that stand out and above their eight neighbours."""
    middle = pixels[:, 1:-1, 1:-1]
    top = middle > (_PEAK * sigma)[:, None, None]
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            if (dy, dx) != (1, 1):
                top &= middle >= pixels[:, dy : dy + middle.shape[1], dx : dx + middle.shape[2]]
    return np.asarray(top.sum(axis=(1, 2)), np.float64)


def _aperture_fluxes(pixels: Float32, offset: Float64) -> Float64:
    """Fluxes in `APERTURES` about the position, in units of the noise of a pixel, shape [n, apertures]."""
    # All cutouts under one another are one image, which the kernel takes in one call.
    n, rows, columns = pixels.shape
    x = SIZE // 2 + offset[:, 0]
    y = SIZE // 2 + offset[:, 1] + rows * np.arange(n)
    return aperture_sums(pixels.reshape(n * rows, columns), x, y, APERTURES)


def _profile(pixels: Float32, offset: Float64, flux: Float64) -> list[tuple[str, str, Float64]]:
    """Features of the source in the middle."""
    noise = np.sqrt(np.pi) * np.array(APERTURES)
    total = np.maximum(flux[:, -1], 3 * noise[-1])
    features = [("flux", f"{r:g} px", np.arcsinh(flux[:, j] / noise[j])) for j, r in enumerate(APERTURES)]
    features += [
        ("concentration", f"{r:g} to {APERTURES[-1]:g} px", flux[:, j] / total)
        for j, r in enumerate(APERTURES[:-1])
    ]
    inner = np.maximum(flux[:, 2], 3 * noise[2])
    features += [("concentration", f"{APERTURES[j]:g} to 3 px", flux[:, j] / inner) for j in (0, 1)]
    features.append(("size", "half light", _half_light(flux)))
    sigma, e1, e2 = adaptive_moments(pixels, offset)
    # The sign of e2 is what a mirror changes, and a mirrored field must look like a real one.
    features += [("size", "moments", sigma), ("shape", "e1", e1), ("shape", "abs e2", np.abs(e2))]
    features.append(("shape", "ellipticity", np.hypot(e1, e2)))
    return features


def _half_light(flux: Float64) -> Float64:
    """Radius of half the flux in the largest aperture, pixels, on the polygon of the curve of growth."""
    growth = np.column_stack([np.zeros(len(flux)), flux])
    radii = np.array([0.0, *APERTURES])
    half = 0.5 * flux[:, -1]
    after = np.argmax(growth >= half[:, None], axis=1).clip(1)
    row = np.arange(len(flux))
    low, high = growth[row, after - 1], growth[row, after]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip((half - low) / (high - low), 0, 1)
    # The area grows with the square of the radius.
    radius = np.sqrt(radii[after - 1] ** 2 + part * (radii[after] ** 2 - radii[after - 1] ** 2))
    return np.where(half > 0, radius, np.nan)


@njit(cache=True, nogil=True)
def _adaptive_moments(pixels, x, y, out):  # type: ignore[no-untyped-def]
    rows, columns = pixels.shape[1:]
    for k in range(x.size):
        out[k, 0] = out[k, 1] = out[k, 2] = np.nan
        cx, cy = x[k], y[k]
        wxx, wxy, wyy = 3.0, 0.0, 3.0
        for _ in range(60):
            determinant = wxx * wyy - wxy * wxy
            if not determinant > 0.05 or wxx > 60.0 or wyy > 60.0:
                break
            ixx, ixy, iyy = wyy / determinant, -wxy / determinant, wxx / determinant
            reach = int(3.5 * math.sqrt(max(wxx, wyy))) + 2
            total, mx, my, mxx, mxy, myy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for iy in range(max(int(cy) - reach, 0), min(int(cy) + reach + 2, rows)):
                for ix in range(max(int(cx) - reach, 0), min(int(cx) + reach + 2, columns)):
                    dx, dy = ix - cx, iy - cy
                    q = ixx * dx * dx + 2 * ixy * dx * dy + iyy * dy * dy
                    if q > 12.25:
                        continue
                    w = math.exp(-0.5 * q) * pixels[k, iy, ix]
                    total += w
                    mx += w * dx
                    my += w * dy
                    mxx += w * dx * dx
                    mxy += w * dx * dy
                    myy += w * dy * dy
            if not total > 0:
                break
            mx, my = mx / total, my / total
            cx += 2 * mx
            cy += 2 * my
            if abs(cx - x[k]) > 2 or abs(cy - y[k]) > 2:
                break
            # A Gaussian weighted with itself has half of its own moments.
            nxx, nxy, nyy = (
                2 * (mxx / total - mx * mx),
                2 * (mxy / total - mx * my),
                2 * (myy / total - my * my),
            )
            change = abs(nxx - wxx) + abs(nyy - wyy) + abs(nxy - wxy)
            wxx, wxy, wyy = nxx, nxy, nyy
            if change < 1e-3 * (wxx + wyy):
                if wxx > 0 and wxx * wyy > wxy * wxy:
                    out[k, 0] = math.sqrt(math.sqrt(wxx * wyy - wxy * wxy))
                    out[k, 1] = (wxx - wyy) / (wxx + wyy)
                    out[k, 2] = 2 * wxy / (wxx + wyy)
                break


def adaptive_moments(pixels: Float32, offset: Float64) -> tuple[Float64, Float64, Float64]:
    """Size and ellipticity of the source in the middle of each cutout.

    Second moments under the elliptical Gaussian that has the same moments (Bernstein & Jarvis 2002,
    AJ 123, 583; Hirata & Seljak 2003, MNRAS 343, 459).

    Parameters
    ----------
    pixels : float32 array [n, y, x]
        One band.
    offset : float64 array [n, 2]
        Column and row of the source relative to pixel ``(SIZE // 2, SIZE // 2)``.

    Returns
    -------
    sigma, e1, e2 : float64 array [n]
        ``det^(1/4)`` in pixels, ``(xx - yy) / (xx + yy)``, ``2 xy / (xx + yy)``; NaN where no Gaussian fits.
    """
    out = np.empty((len(pixels), 3))
    _adaptive_moments(pixels, SIZE // 2 + offset[:, 0], SIZE // 2 + offset[:, 1], out)
    return out[:, 0], out[:, 1], out[:, 2]
