"""Throughput curves and point-spread functions that come with imcat.

CSST's stand in ``data/csst`` with their licence and are read from the
installed package. The pivot wavelength and the zero point follow from a curve.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError

__all__ = ["ab_zero_point", "pivot_wavelength", "psf_gaussians", "psf_image", "throughput"]

Float64 = NDArray[np.float64]

# File name of each band: the survey writes NUV in capitals, imcat in lower case.
_BANDS: dict[str, dict[str, str]] = {
    "csst": {"nuv": "NUV", "u": "u", "g": "g", "r": "r", "i": "i", "z": "z", "y": "y"},
}
_PLANCK = 6.62607015e-34  # J s, exact (SI, 2019)
_AB_ZERO = 3631e-26  # W m-2 Hz-1: AB magnitude 0 (Oke & Gunn 1983, ApJ 266, 713)


def _check(survey: str, band: str) -> str:
    if survey not in _BANDS:
        raise InputError(
            f"no throughput curve of survey {survey!r} is packaged", expected=f"one of {', '.join(_BANDS)}"
        )
    bands = _BANDS[survey]
    if band.lower() not in bands:
        raise InputError(f"{survey} has no band {band!r}", expected=f"one of {', '.join(bands)}")
    return bands[band.lower()]


@cache
def throughput(survey: str, band: str) -> tuple[Float64, Float64]:
    """Total throughput of a band: telescope, filter and detector.

    Parameters
    ----------
    survey : str
        ``csst``.
    band : str
        Name of the band, in any case.

    Returns
    -------
    wavelength : array, shape ``[n]``
        Å, rising.
    transmission : array, shape ``[n]``
        Electrons per photon that reaches the aperture, 0 to 1.

    Raises
    ------
    InputError
        If no curve of that survey or band is packaged.

    Examples
    --------
    >>> wavelength, transmission = throughput("csst", "r")
    >>> round(pivot_wavelength(wavelength, transmission))
    6175
    """
    name = _check(survey, band)
    text = (files("imcat.surveys") / "data" / survey / "throughput" / f"{name}.fil").read_text()
    table = np.loadtxt(text.splitlines(), dtype=np.float64)
    table.flags.writeable = False  # the cache hands the same arrays to every caller
    return table[:, 0], table[:, 1]


@cache
def psf_image(survey: str, band: str) -> Float64:
    """Point-spread function of a band as an image.

    Parameters
    ----------
    survey : str
        ``csst``.
    band : str
        Name of the band, in any case.

    Returns
    -------
    array, shape ``[y, x]``
        Sampled at the survey's pixel scale; sums to 1.

    Raises
    ------
    InputError
        If no image of that survey or band is packaged.
    """
    name = _check(survey, band)
    with as_file(files("imcat.surveys") / "data" / survey / "psf" / f"{name}.npy") as path:
        image: Float64 = np.load(path).astype(np.float64)
    image /= image.sum()
    image.flags.writeable = False
    return image


@cache
def psf_gaussians(survey: str, band: str) -> tuple[Float64, Float64]:
    """Gaussians that the image of a band's point-spread function was fitted with (`imcat.simulate.csst_psf_fit`).

    Parameters
    ----------
    survey : str
        ``csst``.
    band : str
        Name of the band, in any case.

    Returns
    -------
    weights : float64 array, ``[k]``
        Shares of the light; they sum to 1.
    covariances : float64 array, ``[k, 3]``
        xx, xy, yy in pixels², the pixel included, for pixels in two parts along each axis.

    Raises
    ------
    InputError
        If none of that survey or band are packaged.
    """
    _check(survey, band)
    text = (files("imcat.surveys") / "data" / survey / "psf" / "gaussians.toml").read_text(encoding="utf-8")
    own = tomllib.loads(text)[band.lower()]
    arrays = np.array(own["weights"]), np.array(own["covariances"])
    for array in arrays:
        array.flags.writeable = False  # the cache hands the same arrays to every caller
    return arrays


def pivot_wavelength(wavelength: Float64, transmission: Float64) -> float:
    """Pivot wavelength of a photon-counting band.

    The wavelength that turns flux per frequency into flux per wavelength
    whatever the spectrum: the root of ``∫ T λ dλ / ∫ T dλ/λ`` (Bessell & Murphy
    2012, PASP 124, 140, eq. A11).

    Parameters
    ----------
    wavelength : array, shape ``[n]``
        Å.
    transmission : array, shape ``[n]``
        Electrons per photon.

    Returns
    -------
    float
        Å.
    """
    above = np.trapezoid(transmission * wavelength, wavelength)
    return math.sqrt(above / np.trapezoid(transmission / wavelength, wavelength))


def ab_zero_point(wavelength: Float64, transmission: Float64, diameter: float) -> float:
    """AB magnitude of a source that gives one electron per second.

    A source of flux density ``f`` per unit frequency sends ``f / (h λ)``
    photons per area, time and unit wavelength.

    Parameters
    ----------
    wavelength : array, shape ``[n]``
        Å.
    transmission : array, shape ``[n]``
        Electrons per photon.
    diameter : float
        Diameter of the unobstructed aperture, m.

    Returns
    -------
    float
        Magnitudes.
    """
    area = math.pi * diameter**2 / 4
    electrons = area * _AB_ZERO / _PLANCK * np.trapezoid(transmission / wavelength, wavelength)
    return 2.5 * math.log10(electrons)
