"""What is on an image and is no source: bleeding, spikes, ghosts, cosmic rays, trails, bad columns."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.render.components import Components
from imcat.simulate.blank_sky import FAR_WEIGHT, NEAR_WEIGHT

__all__ = ["add_cosmic_rays", "add_trails", "bleed", "bright_star_light", "interpolate_columns"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Shares of a star's light in what scatters outside the PSF's core. Order of magnitude of the
# aureole of ground-based telescopes (King 1971, PASP 83, 199) and of the spikes that four vanes cause.
_SPIKE_SHARE, _GHOST_SHARE = 4e-3, 1.5e-3
_SPIKE_LENGTHS = (2.0, 5.0, 12.0, 28.0)  # arcsec: one Gaussian each
_GHOST_RADIUS, _GHOST_PIECES = 14.0, 24  # arcsec


def bright_star_light(
    flux: Float64, brightest: float, spike_angle: float, spike_width: float, ghost_shift: tuple[float, float]
) -> Components:
    """Diffraction spikes and ghosts of bright stars.

    Parameters
    ----------
    flux : float64 array, ``[n, bands]``
        Of the stars, nJy.
    brightest : float
        Stars below this flux in their brightest band have none that could be seen.
    spike_angle : float
        Of the first of four spikes, degrees east of north.
    spike_width : float
        Standard deviation across, arcsec.
    ghost_shift : (float, float)
        Centre of the ghost from the star, arcsec east and north.

    Returns
    -------
    Components
        `source` counts the rows of `flux`.
    """
    bright = np.flatnonzero(flux.max(axis=1) > brightest) if len(flux) else np.zeros(0, np.int64)
    lengths = np.asarray(_SPIKE_LENGTHS)
    angles = np.radians(spike_angle + np.array([0.0, 90.0]))  # one Gaussian is two opposite spikes
    # The profile of a spike falls as the inverse square of the distance.
    shares = lengths**-1 / np.sum(lengths**-1) / len(angles) * _SPIKE_SHARE
    length, angle = (a.ravel() for a in np.meshgrid(lengths, angles, indexing="ij"))
    share = np.repeat(shares, len(angles))
    sin, cos = np.sin(angle), np.cos(angle)
    long, wide = length**2, spike_width**2
    spikes = (np.zeros_like(length), np.zeros_like(length), share,
              long * sin**2 + wide * cos**2, (long - wide) * sin * cos, long * cos**2 + wide * sin**2)  # fmt: skip
    around = 2 * np.pi * np.arange(_GHOST_PIECES) / _GHOST_PIECES
    piece = np.full(_GHOST_PIECES, (math.pi * _GHOST_RADIUS / _GHOST_PIECES) ** 2)
    ghosts = (ghost_shift[0] + _GHOST_RADIUS * np.sin(around), ghost_shift[1] + _GHOST_RADIUS * np.cos(around),
              np.full(_GHOST_PIECES, _GHOST_SHARE / _GHOST_PIECES), piece, np.zeros(_GHOST_PIECES), piece)  # fmt: skip
    xi, eta, share, xx, xy, yy = (np.concatenate(pair) for pair in zip(spikes, ghosts, strict=True))
    n, k = len(bright), len(xi)
    return Components(
        source=np.repeat(bright, k).astype(np.int64),
        flux=(flux[bright][:, None, :] * share[None, :, None]).reshape(n * k, flux.shape[1]),
        xi=np.tile(xi, n), eta=np.tile(eta, n), xx=np.tile(xx, n), xy=np.tile(xy, n), yy=np.tile(yy, n),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def bleed(image, mask, full_well, bit):  # type: ignore[no-untyped-def]
    """Let charge above the full well run along the columns, up and down alike, in place.

    Parameters
    ----------
    image : float32 array [y, x]
        Electrons above the sky.
    mask : uint16 array [y, x]
        Gets `bit` where a pixel is full.
    full_well : float32
        Electrons above the sky that a pixel holds.
    bit : uint16
        Of the mask.
    """
    rows, columns = image.shape
    for x in range(columns):
        y = 0
        while y < rows:
            if image[y, x] <= full_well:
                y += 1
                continue
            # A run of full pixels; what is too much goes half up, half down.
            excess, first = 0.0, y
            while y < rows and image[y, x] > full_well:
                excess += image[y, x] - full_well
                image[y, x] = full_well
                mask[y, x] |= bit
                y += 1
            for direction in (-1, 1):
                left, at = 0.5 * excess, (first - 1 if direction < 0 else y)
                while left > 0 and 0 <= at < rows:
                    room = max(full_well - image[at, x], np.float32(0))
                    taken = min(room, left)
                    image[at, x] += taken
                    left -= taken
                    if image[at, x] >= full_well:
                        mask[at, x] |= bit
                    at += direction
            while y < rows and image[y, x] >= full_well:  # filled from below just now
                y += 1


def add_cosmic_rays(
    image: Float32,
    mask: NDArray[np.uint16],
    rng: np.random.Generator,
    marked: NDArray[np.bool_],
    bit: np.uint16,
) -> None:
    """Add hits of charged particles: straight tracks of pixels, in place.

    Parameters
    ----------
    image : float32 array, ``[y, x]``
        Electrons.
    mask : uint16 array, ``[y, x]``
        Gets `bit` where a marked hit is.
    rng : numpy.random.Generator
        Source of randomness.
    marked : bool array, ``[n]``
        One for each hit: whether the mask knows of it.
    bit : uint16
        Of the mask.
    """
    n = len(marked)
    rows, columns = image.shape
    x, y = rng.uniform(-0.5, columns - 0.5, n), rng.uniform(-0.5, rows - 0.5, n)
    # Directions are isotropic: a track of depth-to-length ratio tan(t) in a detector as thick as
    # a pixel and a half; a minimum-ionising particle leaves some 80 electrons a micron (Janesick 2001).
    slant = np.arccos(rng.random(n) ** 0.5)
    length = np.minimum(1.5 * np.tan(slant), 60.0)
    angle = rng.uniform(0, 2 * np.pi, n)
    charge = 1200.0 * np.exp(rng.normal(0, 0.5, n)) * np.hypot(1.5, length) / 1.5
    _tracks(image, mask, x, y, length * np.cos(angle), length * np.sin(angle), charge, marked, bit)


@njit(cache=True, nogil=True)
def _tracks(image, mask, x, y, dx, dy, charge, marked, bit):  # type: ignore[no-untyped-def]
    rows, columns = image.shape
    for k in range(x.size):
        steps = int(4 * max(abs(dx[k]), abs(dy[k]))) + 1
        for i in range(steps):
            part = (i + 0.5) / steps
            ix, iy = int(round(x[k] + part * dx[k])), int(round(y[k] + part * dy[k]))
            if 0 <= ix < columns and 0 <= iy < rows:
                image[iy, ix] += charge[k] / steps
                if marked[k]:
                    mask[iy, ix] |= bit


def add_trails(
    image: Float32,
    mask: NDArray[np.uint16],
    rng: np.random.Generator,
    count: int,
    noise: float,
    fwhm: float,
    bit: np.uint16,
) -> None:
    """Add straight trails of satellites that cross the whole image, in place.

    Parameters
    ----------
    image : float32 array, ``[y, x]``
        Electrons.
    mask : uint16 array, ``[y, x]``
        Gets `bit` where a trail is brighter than a tenth of the noise.
    rng : numpy.random.Generator
        Source of randomness.
    count : int
        How many.
    noise : float
        Rms of the sky, electrons: trails are some times brighter in their middle.
    fwhm : float
        Of the PSF, pixels; trails are somewhat wider (out of focus).
    bit : uint16
        Of the mask.
    """
    rows, columns = image.shape
    for _ in range(count):
        angle = rng.uniform(0, math.pi)
        through = rng.uniform(0, columns), rng.uniform(0, rows)
        peak = noise * float(np.exp(rng.uniform(math.log(2.0), math.log(60.0))))
        sigma = fwhm / 2.3548 * float(rng.uniform(1.0, 1.8))
        _trail(
            image,
            mask,
            math.cos(angle),
            math.sin(angle),
            through[0],
            through[1],
            peak,
            sigma,
            0.1 * noise,
            bit,
        )


@njit(cache=True, nogil=True)
def _trail(image, mask, cos, sin, x0, y0, peak, sigma, visible, bit):  # type: ignore[no-untyped-def]
    rows, columns = image.shape
    for y in range(rows):
        for x in range(columns):
            across = (x - x0) * sin - (y - y0) * cos
            t = across * across / (2 * sigma * sigma)
            if t < 20.0:
                value = peak * math.exp(-t)
                image[y, x] += value
                if value > visible and bit != 0:
                    mask[y, x] |= bit


# Weights of the nearest and next pixels on either side with which SDSS's pipeline fills a single bad
# one (see `imcat.simulate.blank_sky`, where they are measured).
_NEAR, _FAR = np.float32(NEAR_WEIGHT), np.float32(FAR_WEIGHT)
# The same for the left one of two bad pixels, from the far left to the far right (by regression of
# such columns on their neighbours in the same fields, rounded to a sum of 1); mirrored for the right one.
_PAIR = (np.float32(-0.33), np.float32(0.90), np.float32(0.26), np.float32(0.17))


@njit(cache=True, nogil=True)
def interpolate_columns(image, filled):  # type: ignore[no-untyped-def]
    """Replace pixels from their neighbours in the row, as SDSS's pipeline does, in place.

    One or two pixels are weighted sums of two good ones on either side; wider gaps are bridged by a line.

    Parameters
    ----------
    image : float32 array [y, x]
        Any unit.
    filled : bool array [y, x]
        Pixels to replace.
    """
    rows, columns = image.shape
    for y in range(rows):
        x = 0
        while x < columns:
            if not filled[y, x]:
                x += 1
                continue
            first = x
            while x < columns and filled[y, x]:
                x += 1
            left = image[y, first - 1] if first > 0 else (image[y, x] if x < columns else np.float32(0))
            right = image[y, x] if x < columns else left
            if (
                x - first == 1
                and first > 1
                and x + 1 < columns
                and not (filled[y, first - 2] or filled[y, x + 1])
            ):
                image[y, first] = _NEAR * (left + right) + _FAR * (image[y, first - 2] + image[y, x + 1])
                continue
            if (
                x - first == 2
                and first > 1
                and x + 1 < columns
                and not (filled[y, first - 2] or filled[y, x + 1])
            ):
                outer, beyond = image[y, first - 2], image[y, x + 1]
                image[y, first] = _PAIR[0] * outer + _PAIR[1] * left + _PAIR[2] * right + _PAIR[3] * beyond
                image[y, first + 1] = (
                    _PAIR[0] * beyond + _PAIR[1] * right + _PAIR[2] * left + _PAIR[3] * outer
                )
                continue
            for k in range(first, x):
                part = np.float32(k - first + 1) / np.float32(x - first + 1)
                image[y, k] = left + (right - left) * part
