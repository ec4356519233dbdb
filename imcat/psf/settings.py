"""Settings of the PSF that is measured on stars."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["StarPsfSettings"]


@dataclass(frozen=True)
class StarPsfSettings:
    """How the PSF is measured on stars.

    Attributes
    ----------
    min_snr : float
        Smallest signal-to-noise ratio of a star.
    max_stars : int
        The brightest stars are used, at most this many.
    max_neighbours : float
        Largest flux of neighbours near a star, relative to its own.
    core_widths : tuple of float
        First guess of the core's Gaussians, in units of the PSF's standard deviation.
    core_weights : tuple of float
        First guess of their weights.
    hollow : tuple of float
        First guesses of how hollow the core is: weight that the second Gaussian takes from the first, which
        becomes negative. A core that is flat or ringed, as that of a camera out of focus, is no sum of positive
        Gaussians. The best fit is taken.
    wing_widths : tuple of float
        Widths of the Gaussians of the wings, in the same unit.
    wing_weight : float
        First guess of the light in all of them; what no star tells stays near it.
    flux_radius : float
        Fluxes are the light within a circle of this radius around a star, in units of the FWHM, unless the
        survey names a circle of its own (`imcat.surveys.calibration`).
    radius : float
        Radius in which a star's pixels are fitted, in the same unit.
    wing_radius : float
        The same for the brightest stars.
    wing_stars : int
        How many of those.
    degrees : tuple of int
        Fewest stars for a variation over the image of degree 1, 2 and 3.
    held_out : int
        One of so many stars judges the fit; 0: none.
    model_error : float
        Error that a sum of Gaussians may have, as a fraction of its value.
    sky_error : float
        Standard deviation of the sky around stars, in units of the noise of a pixel.
    """

    min_snr: float = 40.0
    max_stars: int = 200
    max_neighbours: float = 0.03
    core_widths: tuple[float, ...] = (0.7, 0.95, 1.3, 1.9, 3.2)
    core_weights: tuple[float, ...] = (0.2, 0.35, 0.25, 0.15, 0.05)
    hollow: tuple[float, ...] = (0.0, 0.3, 0.8)
    wing_widths: tuple[float, ...] = (6.0, 13.0, 28.0)
    wing_weight: float = 0.01
    flux_radius: float = 6.0
    radius: float = 13.0
    wing_radius: float = 45.0
    wing_stars: int = 12
    degrees: tuple[int, int, int] = (8, 24, 100)
    held_out: int = 5
    model_error: float = 0.02
    sky_error: float = 0.1

    def __post_init__(self) -> None:
        for name in (
            "min_snr",
            "max_neighbours",
            "radius",
            "wing_radius",
            "wing_weight",
            "flux_radius",
            "model_error",
            "sky_error",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"psf.{name} is {value}; expected a positive number")
        if self.max_stars < 3 or self.wing_stars < 0 or self.held_out < 0 or self.held_out == 1:
            raise ConfigError("psf: expected max_stars >= 3, wing_stars >= 0, held_out 0 or >= 2")
        if not self.core_widths or min(self.core_widths + self.wing_widths) <= 0:
            raise ConfigError("psf.core_widths and wing_widths: expected positive numbers")
