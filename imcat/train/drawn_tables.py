"""Tables of magnitudes drawn from the simulator's populations, without images.

How the colours in a survey's bands depend on redshift takes more galaxies than simulated tiles hold; a table costs next to nothing.
Depths, shares of light and PSF are measured on simulated tiles of the survey (`depths_of`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from imcat.catalogue.fields import AB_FLUX
from imcat.classify.network import measured
from imcat.classify.photometry import GLOBALS, Photometry, soft_magnitude
from imcat.classify.prior import MixByMagnitude
from imcat.errors import ConfigError
from imcat.simulate.balanced import balanced_sources
from imcat.simulate.filters import FilterSet
from imcat.simulate.scene import Models
from imcat.simulate.sources import Kind
from imcat.train.classification_data import Labels, TableSet

__all__ = ["DRAWN_SURVEY", "Depths", "depths_of", "drawn_table"]

Float64 = NDArray[np.float64]

#: Survey whose bands a drawn table has.
DRAWN_SURVEY = "csst"
_SEED = 77
_CHUNK = 20_000
_BRIGHT, _FAINT, _SLOPE = 17.0, 26.5, 0.12  # r, as the simulated tiles of the recipe have them
_SHARES = {Kind.STAR: 0.2, Kind.GALAXY: 0.55, Kind.QUASAR: 0.25}
_LATITUDE = 60.0
_BRIGHT_ERROR = 0.03  # magnitudes: shares of light are those of sources as bright as that
_FEWEST = 20  # stars and galaxies as bright as that
_ABOVE = 10.0  # times the noise of a point
_BINS = 30  # of flux, in which errors are averaged
_RANGE = (0.05, 0.95)  # quantiles, of what is drawn evenly between them
_GRADIENT = 0.04  # of colours between there and the whole, magnitudes
_MISFIT = (0.003, 0.03)  # of magnitudes, beyond the stated errors
_MAX_EBV = 0.15
_DUSTLESS = 0.4  # of the rows, whose dust is not known
_NO_CENTRE = 0.5  # of the rows that have totals only


@dataclass(frozen=True, eq=False)
class Depths:
    """How a survey's photometry sees points and galaxies; arrays are ``[bands]``.

    Attributes
    ----------
    point : float64 array
        1 sigma of the flux of a faint point, nJy.
    light : float64 array
        What light adds to its square, nJy² for each nJy.
    widest : float
        Error of the total of a galaxy over that of a point, at most.
    central : float64 array
        Share of a point's light in the aperture for colours.
    galaxy : (float, float)
        Range of that share of galaxies.
    psf : (float, float)
        Range of the FWHM in the reference band, arcsec.
    """

    point: Float64
    light: Float64
    widest: float
    central: Float64
    galaxy: tuple[float, float]
    psf: tuple[float, float]


def depths_of(photometry: Photometry, kind: NDArray[np.integer]) -> Depths:
    """Measure depths on sources whose kind is known.

    Parameters
    ----------
    photometry : Photometry
        Of n sources of one survey, as `imcat run` measures them.
    kind : int array, ``[n]``
        `imcat.simulate.sources.Kind`.

    Raises
    ------
    ConfigError
        If there are fewer than twenty bright stars, or galaxies, to measure on.
    """
    flux, error = _fluxes(photometry)
    share = np.asarray(10 ** (-0.4 * (photometry.aperture.astype(float) - photometry.total)), np.float64)
    bright = (photometry.total_err < _BRIGHT_ERROR) & np.isfinite(share)
    star, galaxy = (kind == Kind.STAR)[:, None], (kind == Kind.GALAXY)[:, None]
    if min((bright & star).sum(), (bright & galaxy).any(axis=1).sum()) < _FEWEST:
        raise ConfigError(
            f"samples: fewer than {_FEWEST} bright stars or galaxies in the tiles that tell how deep drawn tables are; "
            f"expected more tiles of {DRAWN_SURVEY}, or drawn = 0"
        )
    point, light = np.array(
        [
            _noise(*(v[star[:, 0] & np.isfinite(e)] for v in (f, e)))
            for f, e in zip(flux.T, error.T, strict=True)
        ]
    ).T
    # Above the noise of the widest, and where light adds little.
    plain = galaxy & (flux > _ABOVE * point) & (light * flux < point**2)
    psf = np.exp(photometry.extra[:, GLOBALS.index("log_psf")].astype(float))
    return Depths(
        point, light, max(1.0, float(np.nanquantile(np.where(plain, error / point, np.nan), _RANGE[1]))),
        _central(share, bright & star),
        _range(share[bright & galaxy]), (float(np.nanmin(psf)), float(np.nanmax(psf))),
    )  # fmt: skip


def _central(share: Float64, chosen: NDArray[np.bool_]) -> Float64:
    """Median share of each band; of all of them where a band, as the ultraviolet may, has few bright stars."""
    whole = float(np.median(share[chosen]))
    bands = zip(share.T, chosen.T, strict=True)
    return np.array([np.median(s[c]) if c.sum() >= _FEWEST else whole for s, c in bands])


def _noise(flux: Float64, error: Float64) -> Float64:
    """Noise of a faint point, and what light adds to its square: of bins of equal numbers, by relative least squares."""
    order = np.argsort(flux)
    bins = np.array_split(order, min(_BINS, len(order)))
    middle = np.array([max(float(np.median(flux[b])), 0.0) for b in bins])
    square = np.array([float(np.median(error[b])) ** 2 for b in bins])
    scaled = np.stack([1 / square, middle / square], axis=1)
    unit = scaled.mean(axis=0)
    found, _ = nnls(scaled / unit, np.ones(len(bins)))
    return np.array([np.sqrt(found[0] / unit[0]), found[1] / unit[1]])


def _fluxes(photometry: Photometry) -> tuple[Float64, Float64]:
    """Fluxes and errors, nJy, of totals that are not negative (`imcat.classify.photometry.soft_magnitude`)."""
    e = photometry.total_err.astype(float) / 1.0857
    with np.errstate(invalid="ignore"):
        # Error over soft flux: e = u / (1 + u²), with u below one where the flux is not negative.
        u = (1 - np.sqrt(np.maximum(1 - 4 * e**2, 0.0))) / (2 * e)
    soft = AB_FLUX * 10 ** (-0.4 * photometry.total.astype(float))
    return soft * (1 - u**2), soft * u


def _range(values: Float64) -> tuple[float, float]:
    low, high = np.nanquantile(values, _RANGE)
    return float(low), float(high)


def drawn_table(number: int, models: Models, depths: Depths) -> TableSet:
    """Draw a table in CSST's bands.

    Parameters
    ----------
    number : int
        Of rows, about.
    models : Models
        Populations and spectra.
    depths : Depths
        Of the survey.
    """
    rng = np.random.default_rng(_SEED)
    wanted = {kind: round(share * number) for kind, share in _SHARES.items()}
    sources = balanced_sources(models.population, rng, wanted, _BRIGHT, _FAINT, _LATITUDE, slope=_SLOPE)
    filters = FilterSet.named(DRAWN_SURVEY)
    ebv = rng.uniform(0, _MAX_EBV, len(sources))
    parts = []
    for start in range(0, len(sources), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(sources)))
        own = sources.take(rows)
        template = models.spectra.choose(own.kind, own.mag, own.redshift, rng)
        parts.append(
            models.spectra.magnitudes(own.kind, template, own.redshift, own.mag, filters, ebv=ebv[rows])
        )
    kind = sources.kind.astype(np.int64)
    photometry = _measured(np.concatenate(parts), kind, filters, ebv, rng, depths)
    magnitude = photometry.reference_magnitude()
    mix = MixByMagnitude.of_sample(magnitude, kind)
    n = len(kind)
    nothing = torch.full((n,), float("nan"))
    redshift = np.where(kind == Kind.STAR, np.nan, sources.redshift).astype(np.float32)
    labels = Labels(
        torch.from_numpy(kind), torch.from_numpy(kind), torch.from_numpy(np.log(mix.shares(magnitude))).float(),
        torch.from_numpy(redshift), nothing, torch.zeros(n), torch.full((n,), -1), nothing[:, None].expand(n, 2),
    )  # fmt: skip
    return TableSet(DRAWN_SURVEY, photometry, measured(photometry), labels, mix)


def _measured(
    mag: Float64,
    kind: NDArray[np.int64],
    filters: FilterSet,
    ebv: Float64,
    rng: np.random.Generator,
    depths: Depths,
) -> Photometry:
    """True magnitudes ``[n, bands]`` as they would be measured."""
    n, bands = mag.shape
    galaxy = (kind == Kind.GALAXY)[:, None]
    flux = AB_FLUX * 10 ** (-0.4 * mag)
    misfit = np.exp(rng.uniform(np.log(_MISFIT[0]), np.log(_MISFIT[1]), (n, 1)))
    wide = np.where(galaxy, np.exp(rng.uniform(0, np.log(depths.widest), (n, 1))), 1.0)
    error = np.sqrt((wide * depths.point) ** 2 + depths.light * flux)
    total = flux * 10 ** (0.4 * misfit * rng.normal(size=(n, bands))) + error * rng.normal(size=(n, bands))
    relative = rng.uniform(*depths.galaxy, (n, 1)) / depths.central.mean()
    share = depths.central * np.where(galaxy, relative, 1.0)
    central = flux * share * 10 ** (0.4 * _GRADIENT * galaxy * rng.normal(size=(n, bands)))
    small = np.sqrt(depths.point**2 + depths.light * central)
    central = central + small * rng.normal(size=(n, bands))
    central[rng.random(n) < _NO_CENTRE] = np.nan
    dust = np.asarray(filters.extinction(ebv), np.float32)
    dust[rng.random(n) < _DUSTLESS] = np.nan
    extra = np.full((n, len(GLOBALS)), np.nan, np.float32)
    extra[:, GLOBALS.index("log_psf")] = np.log(rng.uniform(*depths.psf, n))
    none = np.full((n, bands), np.nan, np.float32)
    return Photometry(
        np.asarray(filters.wavelengths, np.float64), *soft_magnitude(total, error), none, none,
        *soft_magnitude(central, small), dust, extra,
    )  # fmt: skip
