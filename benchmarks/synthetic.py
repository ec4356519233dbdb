"""Synthetic frames for the benchmarks: seeded, quick to draw, written as FITS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

ZERO_POINT = 22.5
SCALE = 0.396  # arcsec per pixel


def draw_sources(
    image: NDArray[np.float32],
    rng: np.random.Generator,
    number: int,
    *,
    sigma_psf: float,
    faint_flux: float,
    bright_flux: float,
    slope: float,
    stars: float,
) -> NDArray[np.float64]:
    """Add Gaussians (stars) and exponentials widened by the PSF (galaxies) to an image.

    Parameters
    ----------
    image : float32 array, shape (y, x)
        Changed in place.
    rng : numpy.random.Generator
        Source of randomness.
    number : int
        Sources.
    sigma_psf : float
        Width of the Gaussian PSF, pixels.
    faint_flux, bright_flux, slope : float
        Fluxes follow a power law of cumulative counts, N(> f) ~ f^-slope, between two limits.
    stars : float
        Fraction of stars.

    Returns
    -------
    float64 array, shape (number, 4)
        x, y, flux, half-light radius of the intrinsic profile in pixels.
    """
    rows, columns = image.shape
    x, y = rng.uniform(0, columns - 1, number), rng.uniform(0, rows - 1, number)
    low, high = faint_flux**-slope, bright_flux**-slope
    flux = (low + rng.uniform(size=number) * (high - low)) ** (-1 / slope)
    scale = np.where(rng.uniform(size=number) < stars, 0.0, rng.lognormal(np.log(1.0), 0.4, number))
    ratio = rng.uniform(0.4, 1, number)
    angle = rng.uniform(0, np.pi, number)
    for xs, ys, f, h, q, t in zip(x, y, flux, scale, ratio, angle, strict=True):
        # Out to where the profile has fallen below a hundredth of the faintest peak.
        reach = int(np.ceil(sigma_psf * 4 + 6 * h + 1.5 * np.log10(f / faint_flux) * (1 + h)))
        j, i = round(ys), round(xs)
        top, bottom = max(j - reach, 0), min(j + reach + 1, rows)
        left, right = max(i - reach, 0), min(i + reach + 1, columns)
        v, u = np.ogrid[top - ys : bottom - ys, left - xs : right - xs]
        if h == 0:
            profile = np.exp(-0.5 * (u * u + v * v) / sigma_psf**2)
            total = 2 * np.pi * sigma_psf**2
        else:
            along, across = u * np.cos(t) + v * np.sin(t), v * np.cos(t) - u * np.sin(t)
            major, minor = np.hypot(h, sigma_psf), np.hypot(h * q, sigma_psf)
            # An exponential whose core is softened by the PSF: sqrt(1 + r²) − 1 is r²/2 inside, r outside.
            profile = np.exp(1 - np.sqrt(1 + (along / major) ** 2 + (across / minor) ** 2))
            total = profile.sum()
        image[top:bottom, left:right] += (f / total * profile).astype(np.float32)
    return np.column_stack([x, y, flux, 1.678 * scale])


def write_frame(path: Path, image: NDArray[np.float32]) -> None:
    """Write a frame with a TAN WCS, 0.396 arcsec pixels."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = (image.shape[1] + 1) / 2, (image.shape[0] + 1) / 2
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -SCALE / 3600, 0.0, 0.0, SCALE / 3600
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    fits.PrimaryHDU(image, header).writeto(path, overwrite=True)
