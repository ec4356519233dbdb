"""What lenses are made of: laws of luminous galaxies and of the sources behind them.

Deflectors: velocity dispersions (Choi, Park & Vogeley 2007, ApJ 658, 884), luminosities and sizes for
them (Hyde & Bernardi 2009, MNRAS 394, 1978), shapes (Collett 2015, ApJ 811, 20), colours by redshift.
Sources: counts, redshifts, sizes and colours of star-forming galaxies and of quasars.

Cosmology: flat, H0 = 70 km/s/Mpc, matter 0.3, that of the papers.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "absolute_r", "comoving_distance", "deflector_colours", "dispersion_of_luminosity", "distance_modulus",
    "draw_deflector_redshifts", "draw_dispersions", "draw_galaxy_sources", "draw_quasar_sources",
    "draw_shapes", "einstein_radius", "kpc_per_arcsec", "luminosity_of_dispersion", "size_of_dispersion",
    "spectrum_magnitudes",
]  # fmt: skip

Float64 = NDArray[np.float64]

_LIGHT = 299792.458  # km/s
_HIGHEST_REDSHIFT = 6.0
_DEFLECTORS = (0.1, 1.2)  # redshifts
_FLATTEST = 0.45  # elliptical galaxies are hardly flatter (Binney & de Vaucouleurs 1981, MNRAS 194, 679)

# Colours of luminous red galaxies, u−g, g−r, r−i, i−z: medians in redshift bins of the training rows
# (`imcat.simulate.split`) of the SDSS main galaxies (the redder 40 %; to z = 0.2), BOSS DR10 and 2SLAQ, between
# these where they differ (by 0.15 mag at most; u−g from main and 2SLAQ, whose u is the better). Above
# z = 0.75 the elliptical of Coleman, Wu & Weedman 1980 (ApJS 43, 393), made bluer so as to join. Last column:
# the K correction in r of that elliptical (SDSS 2010 filters).
_LRG = np.array(
    [
        # z,    u−g,  g−r,  r−i,  i−z,  K_r
        [0.02, 1.85, 0.80, 0.40, 0.30, 0.00],
        [0.10, 1.90, 0.95, 0.42, 0.34, 0.03],
        [0.15, 1.90, 1.10, 0.45, 0.34, 0.05],
        [0.20, 1.85, 1.25, 0.50, 0.34, 0.07],
        [0.30, 1.95, 1.60, 0.60, 0.38, 0.16],
        [0.40, 1.95, 1.72, 0.70, 0.42, 0.32],
        [0.50, 1.65, 1.65, 0.88, 0.45, 0.68],
        [0.60, 1.25, 1.58, 1.04, 0.47, 1.02],
        [0.70, 1.00, 1.52, 1.13, 0.50, 1.36],
        [0.80, 0.90, 1.55, 1.15, 0.58, 1.45],
        [1.00, 0.80, 1.70, 1.10, 0.90, 1.85],
        [1.20, 0.75, 1.60, 1.30, 1.00, 2.55],
    ]
)
_LRG_SCATTER = np.array([0.25, 0.08, 0.05, 0.04])  # of the four colours, mag
_EVOLUTION = 0.85  # mag in r per unit redshift (Bernardi et al. 2003, AJ 125, 1849)

# Middle and width of SDSS's u, g, r, i, z, Å (Fukugita et al. 1996, AJ 111, 1748, table 2a).
_SDSS_MIDDLE = np.array([3557.0, 4825.0, 6261.0, 7672.0, 9097.0])
_SDSS_WIDTH = np.array([599.0, 1379.0, 1382.0, 1535.0, 1370.0])
# Rest wavelength (Å), equivalent width (Å) and dispersion (Å) of the strong lines of quasars
# (Vanden Berk et al. 2001, AJ 122, 549, table 2): Lyα, C IV, C III], Mg II, Hβ, Hα.
_QUASAR_LINES = np.array(
    [
        [1216.0, 92.91, 19.46],
        [1546.0, 23.78, 14.33],
        [1905.0, 21.19, 23.58],
        [2800.0, 32.28, 34.95],
        [4853.0, 46.21, 40.44],
        [6564.0, 194.52, 47.39],
    ]
)


@cache
def _distances() -> tuple[Float64, Float64]:
    from astropy.cosmology import FlatLambdaCDM

    redshift = np.linspace(0.0, _HIGHEST_REDSHIFT, 1201)
    return redshift, np.asarray(FlatLambdaCDM(H0=70, Om0=0.3).comoving_distance(redshift).value, np.float64)


def comoving_distance(redshift: ArrayLike) -> Float64:
    """Comoving distance, Mpc (interpolated to 1e-5; to redshift 6)."""
    return np.asarray(np.interp(np.asarray(redshift, np.float64), *_distances()))


def distance_modulus(redshift: ArrayLike) -> Float64:
    """Distance modulus, mag."""
    z = np.maximum(np.asarray(redshift, np.float64), 1e-3)
    return np.asarray(5 * np.log10((1 + z) * comoving_distance(z)) + 25)


def kpc_per_arcsec(redshift: ArrayLike) -> Float64:
    """Proper kpc in one arcsec."""
    z = np.maximum(np.asarray(redshift, np.float64), 1e-3)
    return np.asarray(comoving_distance(z) / (1 + z) * 1000 * np.deg2rad(1 / 3600))


def einstein_radius(dispersion: ArrayLike, lens: ArrayLike, source: ArrayLike) -> Float64:
    """Einstein radius of an isothermal sphere: 4π (σ/c)² D_ls / D_s.

    Parameters
    ----------
    dispersion : array
        km/s.
    lens, source : array
        Redshifts; the radius is 0 where the source is not behind the lens.

    Returns
    -------
    float64 array
        arcsec.
    """
    near, far = comoving_distance(lens), np.maximum(comoving_distance(source), 1e-9)
    # In a flat universe D_ls / D_s is the difference of comoving distances over the farther one.
    share = np.maximum(1 - near / far, 0)
    return np.asarray(
        np.rad2deg(4 * np.pi * (np.asarray(dispersion, np.float64) / _LIGHT) ** 2 * share) * 3600
    )


def draw_dispersions(rng: Generator, n: int) -> Float64:
    """Velocity dispersions of deflectors weighted by cross section, km/s.

    The function of Choi et al. 2007, dn/dlnσ ∝ (σ/σ*)^α exp(−(σ/σ*)^β) with α = 2.32, β = 2.67, σ* = 161
    km/s, times σ⁴, to which the area of the Einstein ring goes: then (σ/σ*)^β follows a Gamma distribution.
    """
    alpha, beta, typical = 2.32, 2.67, 161.0
    return typical * rng.gamma((alpha + 4) / beta, size=n) ** (1 / beta)


def draw_deflector_redshifts(rng: Generator, n: int) -> Float64:
    """Redshifts uniform in comoving volume, 0.1 to 1.2: nearer deflectors outshine all images."""
    redshift, distance = _distances()
    near, far = comoving_distance(np.array(_DEFLECTORS)) ** 3
    return np.asarray(np.interp((near + (far - near) * rng.random(n)) ** (1 / 3), distance, redshift))


def draw_shapes(rng: Generator, dispersion: Float64) -> Float64:
    """Axis ratios of deflectors: 1 − q is Rayleigh distributed (Collett 2015, eq. 4), q from 0.45 to 0.99."""
    # The sign of the slope is that of the author's code; the paper's is a misprint.
    width = np.maximum(0.378 - 0.000572 * dispersion, 0.08)
    # The share of the distribution below its end is inverted, so that no value has to be thrown away.
    share = rng.random(len(dispersion)) * -np.expm1(-0.5 * ((1 - _FLATTEST) / width) ** 2)
    return np.asarray(np.clip(1 - width * np.sqrt(-2 * np.log1p(-share)), _FLATTEST, 0.99))


def luminosity_of_dispersion(rng: Generator, dispersion: Float64) -> Float64:
    """Absolute magnitude in r at redshift 0: Hyde & Bernardi 2009 inverted, scatter 0.4 mag."""
    v = np.log10(dispersion)
    root = np.sqrt(np.maximum(0.37**2 - 4 * 0.006 * (2.97 + v), 0))
    return np.asarray((-0.37 + root) / (2 * 0.006) + rng.normal(0, 0.4, len(v)))


def dispersion_of_luminosity(rng: Generator, absolute: Float64) -> Float64:
    """Velocity dispersion, km/s: Hyde & Bernardi 2009, scatter 0.07 dex (Bernardi et al. 2003)."""
    m = np.clip(absolute, -24.5, -17.0)
    return np.asarray(10 ** (-2.97 - 0.37 * m - 0.006 * m**2 + rng.normal(0, 0.07, len(m))))


def size_of_dispersion(rng: Generator, dispersion: Float64) -> Float64:
    """Half-light radius in r, kpc: Hyde & Bernardi 2009, scatter 0.11 dex."""
    v = np.log10(dispersion)
    return np.asarray(10 ** (2.46 - 2.79 * v + 0.84 * v**2 + rng.normal(0, 0.11, len(v))))


def _correction(redshift: Float64) -> Float64:
    return np.asarray(np.interp(redshift, _LRG[:, 0], _LRG[:, 5]) - _EVOLUTION * redshift)


def absolute_r(r_mag: Float64, redshift: Float64) -> Float64:
    """Absolute magnitude in r of an early-type galaxy, evolved to redshift 0."""
    return np.asarray(r_mag - distance_modulus(redshift) - _correction(redshift))


def deflector_colours(rng: Generator, absolute: Float64, redshift: Float64) -> Float64:
    """SDSS ugriz of luminous red galaxies, ``[n, 5]``, from their absolute magnitude in r."""
    r = absolute + distance_modulus(redshift) + _correction(redshift)
    colours = np.stack([np.interp(redshift, _LRG[:, 0], _LRG[:, j]) for j in range(1, 5)], axis=1)
    colours += rng.normal(size=colours.shape) * _LRG_SCATTER
    g, i = r + colours[:, 1], r - colours[:, 2]
    return np.stack([g + colours[:, 0], g, r, i, i - colours[:, 3]], axis=1)


def spectrum_magnitudes(
    i_mag: Float64, redshift: Float64, slope: Float64, jump: Float64, *, lines: bool = False
) -> Float64:
    """SDSS ugriz of a power law with a break and the absorption of the intergalactic gas.

    Parameters
    ----------
    i_mag : float64 array, ``[n]``
        Magnitude in i.
    redshift : float64 array, ``[n]``
    slope : float64 array, ``[n]``
        f_λ ∝ λ^slope below 3646 Å.
    jump : float64 array, ``[n]``
        Balmer break in magnitudes; above it f_λ falls as λ^-1.5, so f_ν rises slowly.
    lines : bool
        Add the emission lines of quasars.

    Returns
    -------
    float64 array, ``[n, 5]``
        Through top hats of the bands' widths.
    """
    share = (np.arange(12) + 0.5) / 12 - 0.5
    observed = _SDSS_MIDDLE[:, None] + _SDSS_WIDTH[:, None] * share  # [bands, samples]
    grow = 1 + redshift[:, None, None]
    rest = observed / grow
    x = rest / 3646.0
    flux = np.where(
        x < 1, x ** slope[:, None, None], 10 ** (0.4 * jump[:, None, None]) * np.maximum(x, 1) ** -1.5
    )
    if lines:
        for wavelength, width, sigma in _QUASAR_LINES:
            shape = np.exp(-0.5 * ((rest - wavelength) / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)
            flux = flux * (1 + width * shape)
    # Lyman-α forest (Madau 1995, ApJ 441, 18, eq. 15), and next to nothing below the Lyman limit.
    forest = np.exp(-0.0036 * (observed / 1216.0) ** 3.46)
    flux = np.where(rest < 1216.0, flux * forest, flux)
    flux = np.where(rest < 912.0, 0.02 * flux, flux)
    # AB magnitudes weigh with λ: photons, per unit frequency.
    mean = (flux * observed).sum(axis=2) / (1 / observed).sum(axis=1)
    mag = -2.5 * np.log10(mean)
    return np.asarray(mag - mag[:, 3:4] + i_mag[:, None])


def draw_galaxy_sources(rng: Generator, n: int, faintest: float) -> tuple[Float64, Float64, Float64]:
    """Star-forming galaxies behind a lens: magnitude in i, redshift, half-light radius.

    Counts dN/dm ∝ 10^(0.31 m) and redshifts p ∝ z² exp(−z/z0), z0 = 0.0417 i − 0.744, are those of
    the LSST Science Book (2009, arXiv:0912.0201, section 3.7). Sizes: 8.9 kpc (1+z)^-0.75 at 5e10 solar masses,
    as mass^0.22 (van der Wel et al. 2014, ApJ 788, 28, late types), with 1e10 solar masses at the typical
    ultraviolet magnitude −20.97 (Reddy & Steidel 2009, ApJ 692, 778) and mass as light; scatter 0.2 dex.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    faintest : float
        Magnitude in i, unlensed.

    Returns
    -------
    i_mag, redshift, radius : float64 array, ``[n]``
        Redshifts outside 0.8–4 are returned too; radius in arcsec, 0.1–0.6.
    """
    brightest = 20.0
    lowest = 10 ** (0.31 * (brightest - faintest))
    i_mag = faintest + np.log10(lowest + (1 - lowest) * rng.random(n)) / 0.31
    redshift = rng.gamma(3.0, 0.0417 * i_mag - 0.744)
    z = np.clip(redshift, 0.1, 5.0)
    absolute = i_mag - distance_modulus(z) + 2.5 * np.log10(1 + z)
    mass = 0.2 * 10 ** (-0.4 * (absolute + 20.97))  # in 5e10 solar masses
    kpc = 8.9 * (1 + z) ** -0.75 * mass**0.22 * 10 ** rng.normal(0, 0.2, n)
    return i_mag, redshift, np.clip(kpc / kpc_per_arcsec(z), 0.1, 0.6)


def draw_quasar_sources(rng: Generator, n: int, faintest: float) -> tuple[Float64, Float64]:
    """Quasars behind a lens: magnitude in i and redshift.

    Counts: 1 / (10^(−0.98 (m − 19.1)) + 10^(−0.15 (m − 19.1))) (Myers et al. 2003, MNRAS 342, 467);
    redshifts: a normal distribution of mean 1.9 and dispersion 0.8, close to that of the SDSS quasars.
    """
    grid = np.linspace(17.0, max(faintest, 17.1), 200)
    counts = 1 / (10 ** (-0.98 * (grid - 19.1)) + 10 ** (-0.15 * (grid - 19.1)))
    below = np.concatenate([[0.0], np.cumsum(0.5 * (counts[1:] + counts[:-1]))])
    return np.interp(rng.random(n) * below[-1], below, grid), rng.normal(1.9, 0.8, n)
