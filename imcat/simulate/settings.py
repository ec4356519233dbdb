"""Settings of the simulator, and of the sources that a run adds to its tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["InjectSettings", "SimulateSettings"]


@dataclass(frozen=True)
class SimulateSettings:
    """What a simulated sky holds, and what the camera does to it.

    A rate is a mean: the number in a tile is drawn from a Poisson distribution.

    Attributes
    ----------
    depth_below_limit : float
        Sources are drawn down to this many magnitudes below the tile's 5 sigma limit in r.
    density : float
        Number of galaxies and quasars relative to the sky's.
    galaxy_size : float
        Factor on the sizes of galaxies at a given magnitude.
    star_density : float
        Number of stars relative to that of the Milky Way at the tile's latitude.
    clustering : bool
        Whether galaxies cluster, within a tile and from tile to tile.
    lenses_per_deg2 : float
        Strong lenses on a square degree.
    lookalikes_per_deg2 : float
        Objects that look like a lens and are none (rings, spirals, mergers, chance alignments).
    lens_spacing : float
        arcsec: lenses and look-alikes stand on a grid of this spacing, in random order, no more of them than it holds;
        0 puts them anywhere.
    smallest_einstein_radius : float
        arcsec; 0 takes 0.5 for SDSS and 0.2 for CSST.
    cluster_stars : int
        Stars of a globular cluster in the middle of each tile; 0 for none.
    cluster_radius : float
        Half-number radius of that cluster, arcsec.
    detail_from : float
        Galaxies whose half-light radius is this many times the half width of the PSF, and that are bright
        enough to show it, get spiral arms, bars, rings and the like.
    ebv : float
        E(B-V) of the Milky Way, on the scale of the 1998 map; negative draws one for each tile.
    seeing : float
        FWHM of the PSF in r (SDSS), arcsec; 0 draws one for each tile.
    psf_stretch : float
        Factor on the widths of CSST's packaged PSFs, which are optimistic (radius of 80 % energy 0.108 arcsec;
        the requirement is 0.15 arcsec).
    sky_factor : float
        Factor on the brightness of the sky. For CSST, two public models differ by about 1.75.
    sky_gradient : float
        Change of the sky over a tile, as a fraction of its level (1 sigma).
    sky_residual : float
        Rms of what the subtraction of the sky left, in units of the rms of a pixel.
    cosmic_rays : bool
        Whether cosmic rays hit the detector.
    trails_per_tile : float
        Satellite trails in each exposure.
    bad_columns_per_tile : float
        Bad columns of each detector.
    saturation : bool
        Whether bright stars saturate and bleed.
    ghosts : bool
        Whether bright stars have ghosts, halos and diffraction spikes.
    noise_correlation : float
        Standard deviation in pixels of the Gaussian with which the noise is smoothed, as resampling of
        coadded images does; 0 leaves pixels independent.
    """

    depth_below_limit: float = 2.0
    density: float = 1.0
    galaxy_size: float = 1.0
    star_density: float = 1.0
    clustering: bool = True
    lenses_per_deg2: float = 6.0
    lookalikes_per_deg2: float = 20.0
    lens_spacing: float = 0.0
    smallest_einstein_radius: float = 0.0
    cluster_stars: int = 0
    cluster_radius: float = 30.0
    detail_from: float = 1.2
    ebv: float = -1.0
    seeing: float = 0.0
    psf_stretch: float = 1.0
    sky_factor: float = 1.0
    sky_gradient: float = 0.01
    sky_residual: float = 0.05
    cosmic_rays: bool = True
    trails_per_tile: float = 0.01
    bad_columns_per_tile: float = 10.0
    saturation: bool = True
    ghosts: bool = True
    noise_correlation: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "density", "star_density", "lenses_per_deg2", "lookalikes_per_deg2", "lens_spacing", "smallest_einstein_radius",
            "cluster_stars", "seeing", "sky_gradient", "sky_residual", "trails_per_tile", "bad_columns_per_tile",
            "noise_correlation", "depth_below_limit",
        ):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"simulate.{name} is {value}; expected a number that is not negative")
        for name in ("galaxy_size", "cluster_radius", "detail_from", "psf_stretch", "sky_factor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"simulate.{name} is {value}; expected a positive number")
        if not math.isfinite(self.ebv):
            raise ConfigError(f"simulate.ebv is {self.ebv}; expected magnitudes, or a negative number")
        if self.noise_correlation > 3:
            raise ConfigError(
                f"simulate.noise_correlation is {self.noise_correlation} pixels; expected at most 3"
            )


@dataclass(frozen=True)
class InjectSettings:
    """Which sources are added to a tile.

    Attributes
    ----------
    brighter, fainter : float
        They reach from so many magnitudes brighter to so many fainter than the 5 sigma limit of point sources in the
        reference band, as many of each magnitude.
    stars, galaxies, quasars : float
        Factors on the numbers that the sky has of each kind at a magnitude; 0 leaves a kind out.
    seed : int
        Decides, with the tile's number, which sources and where.
    """

    brighter: float = 4.0
    fainter: float = 1.5
    stars: float = 1.0
    galaxies: float = 1.0
    quasars: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.brighter + self.fainter > 0:
            raise ConfigError(
                f"inject.brighter {self.brighter} and inject.fainter {self.fainter} leave no magnitudes; "
                "expected a positive sum"
            )
        if min(self.stars, self.galaxies, self.quasars) < 0 or self.stars + self.galaxies + self.quasars <= 0:
            raise ConfigError("inject.stars, galaxies and quasars: expected 0 or more, one of them positive")
