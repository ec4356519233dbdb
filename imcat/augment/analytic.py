"""Galaxies as the simulator draws them, under the conditions that a generator is given: what generated ones are measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.augment.conditions import Conditions
from imcat.render.components import Components
from imcat.simulate.galaxies import galaxy_components, half_light_radius
from imcat.simulate.morphology import draw_morphology
from imcat.simulate.sources import Kind, Sources

__all__ = ["analytic_components", "analytic_sources"]

Float64 = NDArray[np.float64]

_BULGE_SIZE = 0.4  # of the disc's half-light radius, before both are scaled
_BLUE, _RED = 4770.0, 6230.0  # Å: the bands whose colour tells how a galaxy looks
_NEARBY = 0.1  # redshift where none is known
_SETTLED = 3  # times that radii are scaled: a mix's radius is not quite proportional to its parts'


def analytic_sources(asked: Conditions, rng: np.random.Generator) -> Sources:
    """Bulge and disc with the fluxes, radius, shape and bulge fraction asked for; looks are drawn where none is asked.

    Parameters
    ----------
    asked : Conditions
        Of n galaxies.
    rng : numpy.random.Generator
        Of their looks.
    """
    n = len(asked)
    with np.errstate(divide="ignore"):
        log = np.log10(np.clip(asked.flux, 1e-3, None))
    # AB magnitudes of u, g, r, i and z, between the bands that there are.
    order = np.argsort(asked.wavelength)
    at = np.log(np.array([3557.0, _BLUE, _RED, 7630.0, 9130.0]))
    mag = np.stack([31.4 - 2.5 * np.interp(at, np.log(asked.wavelength[order]), v[order]) for v in log])
    ratio = np.clip(asked.axis_ratio, 0.05, 1.0)
    looks = draw_morphology(rng, mag[:, 2], mag[:, 1] - mag[:, 2], asked.bulge_fraction, ratio)
    known = asked.morphology >= 0
    redshift = np.where(np.isfinite(asked.redshift), asked.redshift, _NEARBY)
    made = Sources(
        kind=np.full(n, Kind.GALAXY, np.int8), mag=mag, redshift=redshift,
        bulge_fraction=np.clip(asked.bulge_fraction, 0, 1), bulge_radius=_BULGE_SIZE * asked.radius,
        disc_radius=asked.radius.copy(), bulge_axis_ratio=np.sqrt(ratio), disc_axis_ratio=ratio,
        bulge_index=np.full(n, 4.0), position_angle=asked.position_angle,
        morphology=np.where(known, asked.morphology, looks).astype(np.int8),
    )  # fmt: skip
    for _ in range(_SETTLED):
        factor = asked.radius / np.maximum(half_light_radius(made), 1e-6)
        made = made.replace(bulge_radius=made.bulge_radius * factor, disc_radius=made.disc_radius * factor)
    return made


def analytic_components(
    asked: Conditions, rng: np.random.Generator, detail: NDArray[np.bool_] | None = None
) -> Components:
    """The light of `analytic_sources`, sources 0 to n − 1.

    Parameters
    ----------
    asked, rng
        As there.
    detail : bool array ``[n]``, optional
        Galaxies whose structure is drawn; default: all.
    """
    sources = analytic_sources(asked, rng)
    share = np.broadcast_to(sources.bulge_fraction[:, None], asked.flux.shape)
    return galaxy_components(
        sources, asked.flux, share, rng, detail=np.ones(len(asked), bool) if detail is None else detail,
        wavelengths=asked.wavelength,
    )  # fmt: skip
