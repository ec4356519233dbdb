"""Tables of magnitudes drawn from the simulator's populations, without images.

How the colours in a survey's bands depend on redshift takes more galaxies than simulated tiles hold; a table costs next to nothing.
Depths and aperture losses are those that `imcat run` has on simulated tiles of the survey.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.classify.network import measured
from imcat.classify.photometry import GLOBALS, Photometry, soft_magnitude
from imcat.classify.prior import MixByMagnitude
from imcat.simulate.balanced import balanced_sources
from imcat.simulate.filters import FilterSet
from imcat.simulate.scene import Models
from imcat.simulate.sources import Kind
from imcat.train.classification_data import Labels, TableSet

__all__ = ["drawn_table"]

Float64 = NDArray[np.float64]

_SURVEY = "csst"
_SEED = 77
_CHUNK = 20_000
_BRIGHT, _FAINT, _SLOPE = 17.0, 26.5, 0.12  # r, as the simulated tiles of the recipe have them
_SHARES = {Kind.STAR: 0.2, Kind.GALAXY: 0.55, Kind.QUASAR: 0.25}
_LATITUDE = 60.0
# 1 sigma of a point's flux in simulated exposures, nJy, and what light adds to its square, by band NUV to y.
_POINT_NOISE = np.array([19.0, 20.0, 13.0, 19.0, 27.0, 42.0, 70.0])
_LIGHT_NOISE = np.array([0.8, 1.0, 0.4, 0.5, 0.6, 1.2, 2.2])
_WIDEST = 6.0  # times the noise of a point, of a galaxy's total
_PSF = (0.09, 0.13)  # arcsec, FWHM in r
_CENTRAL = (0.04, 0.3)  # share of a galaxy's light in the aperture for colours
_POINT_CENTRAL = np.array([0.757, 0.767, 0.776, 0.784, 0.820, 0.813, 0.814])  # of a point's, by band
_GRADIENT = 0.04  # of colours between there and the whole, magnitudes
_MISFIT = (0.003, 0.03)  # of magnitudes, beyond the stated errors
_MAX_EBV = 0.15
_DUSTLESS = 0.4  # of the rows, whose dust is not known
_NO_CENTRE = 0.5  # of the rows that have totals only


def drawn_table(number: int, models: Models) -> TableSet:
    """Draw a table in CSST's bands.

    Parameters
    ----------
    number : int
        Of rows, about.
    models : Models
        Populations and spectra.
    """
    rng = np.random.default_rng(_SEED)
    wanted = {kind: round(share * number) for kind, share in _SHARES.items()}
    sources = balanced_sources(models.population, rng, wanted, _BRIGHT, _FAINT, _LATITUDE, slope=_SLOPE)
    filters = FilterSet.named(_SURVEY)
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
    photometry = _measured(np.concatenate(parts), kind, filters, ebv, rng)
    magnitude = photometry.reference_magnitude()
    mix = MixByMagnitude.of_sample(magnitude, kind)
    n = len(kind)
    nothing = torch.full((n,), float("nan"))
    redshift = np.where(kind == Kind.STAR, np.nan, sources.redshift).astype(np.float32)
    labels = Labels(
        torch.from_numpy(kind), torch.from_numpy(kind), torch.from_numpy(np.log(mix.shares(magnitude))).float(),
        torch.from_numpy(redshift), nothing, torch.zeros(n), torch.full((n,), -1), nothing[:, None].expand(n, 2),
    )  # fmt: skip
    return TableSet(_SURVEY, photometry, measured(photometry), labels, mix)


def _measured(
    mag: Float64, kind: NDArray[np.int64], filters: FilterSet, ebv: Float64, rng: np.random.Generator
) -> Photometry:
    """True magnitudes ``[n, bands]`` as they would be measured."""
    n, bands = mag.shape
    galaxy = (kind == Kind.GALAXY)[:, None]
    flux = AB_FLUX * 10 ** (-0.4 * mag)
    misfit = np.exp(rng.uniform(np.log(_MISFIT[0]), np.log(_MISFIT[1]), (n, 1)))
    wide = np.where(galaxy, np.exp(rng.uniform(0, np.log(_WIDEST), (n, 1))), 1.0)
    error = np.sqrt((wide * _POINT_NOISE) ** 2 + _LIGHT_NOISE * flux)
    total = flux * 10 ** (0.4 * misfit * rng.normal(size=(n, bands))) + error * rng.normal(size=(n, bands))
    share = _POINT_CENTRAL * np.where(galaxy, rng.uniform(*_CENTRAL, (n, 1)) / _POINT_CENTRAL.mean(), 1.0)
    central = flux * share * 10 ** (0.4 * _GRADIENT * galaxy * rng.normal(size=(n, bands)))
    small = np.sqrt(_POINT_NOISE**2 + _LIGHT_NOISE * central)
    central = central + small * rng.normal(size=(n, bands))
    central[rng.random(n) < _NO_CENTRE] = np.nan
    dust = np.asarray(filters.extinction(ebv), np.float32)
    dust[rng.random(n) < _DUSTLESS] = np.nan
    extra = np.full((n, len(GLOBALS)), np.nan, np.float32)
    extra[:, GLOBALS.index("log_psf")] = np.log(rng.uniform(*_PSF, n))
    none = np.full((n, bands), np.nan, np.float32)
    return Photometry(
        np.asarray(filters.wavelengths, np.float64), *soft_magnitude(total, error), none, none,
        *soft_magnitude(central, small), dust, extra,
    )  # fmt: skip
