"""Settings of the room `imcat.measure`."""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["MeasureSettings"]


@dataclass(frozen=True)
class MeasureSettings:
    """How sources are measured.

    Attributes
    ----------
    apertures : tuple of float
        Diameters of the circular apertures, arcsec; 3 is always among them.
    window_size : int
        Side of the windows in which pixels are read, pixels of the reference band. The catalogue
        does not depend on it.
    margin : int
        Margin around a window, pixels; no Kron ellipse reaches farther.
    kron_factor : float
        Semi-axes of the Kron ellipse in units of the first radial moment.
    kron_minimum : float
        Smallest Kron ellipse, in units of the rms axes of the footprint.
    kron_search : float
        Ellipse in which the first radial moment is taken, in units of the rms axes.
    kron_precision : float
        Largest relative error of the first radial moment; where noise makes it larger, the
        smallest ellipse is taken.
    neighbours : str
        Pixels of other sources inside an aperture are replaced by their mirror image about the
        source (``mirror``), left out (``mask``) or kept (``none``).
    local_background : bool
        Subtract the median of an annulus around each source.
    annulus_inner, annulus_outer : float
        Radii of that annulus, arcsec; it begins outside the Kron ellipse in any case.
    colour_scale : float
        Size of the Gaussian colour aperture in units of the widest PSF of the tile.
    centroid_width : float
        Standard deviation of the weight of the windowed centroid, in units of the PSF's.
    centroid_iterations : int
        Largest number of steps of the windowed centroid.
    centroid_snr : float
        Fainter sources, by the signal-to-noise ratio of their detection, keep the place that the network gives: their
        windowed centroids follow noise and neighbours.
    registration_stars : int
        Largest number of bright sources that tell how far each exposure's astrometry lies from the reference
        exposure's, which is then corrected; 0 takes the files at their word.
    registration_error : float
        Error of an exposure's astrometry relative to the reference exposure, arcsec, where too few bright sources
        tell it; limits the weight of the exposure in the position of a bright source.
    motion_sigma : float
        Significance of a shift between bands above which a source carries the flag MOVING.
    motion_min_offset : float
        Smallest shift that counts, arcsec.
    survey_quantities : bool
        Petrosian radii and fluxes, fibre fluxes and adaptive moments.
    """

    apertures: tuple[float, ...] = (1.0, 2.0, 3.0)
    window_size: int = 2304
    margin: int = 256
    kron_factor: float = 2.5
    kron_minimum: float = 3.5
    kron_search: float = 6.0
    kron_precision: float = 0.15
    neighbours: str = "mirror"
    local_background: bool = False
    annulus_inner: float = 6.0
    annulus_outer: float = 12.0
    colour_scale: float = 1.5
    centroid_width: float = 1.0
    centroid_iterations: int = 10
    centroid_snr: float = 14.0
    registration_stars: int = 100
    registration_error: float = 0.1
    motion_sigma: float = 5.0
    motion_min_offset: float = 0.3
    survey_quantities: bool = True

    def __post_init__(self) -> None:
        choices = ("mirror", "mask", "none")
        checks = (
            ("apertures", len(self.apertures) > 0 and all(d > 0 for d in self.apertures)
             and len(set(self.apertures)) == len(self.apertures), "different positive diameters"),
            ("window_size", self.window_size >= 64, "at least 64 pixels"),
            ("margin", self.margin >= 16, "at least 16 pixels"),
            ("kron_factor", self.kron_factor > 0, "a positive number"),
            ("kron_minimum", self.kron_minimum > 0, "a positive number"),
            ("kron_search", self.kron_search > 1, "more than 1"),
            ("kron_precision", self.kron_precision > 0, "a positive number"),
            ("neighbours", self.neighbours in choices, "one of " + ", ".join(choices)),
            ("annulus_outer", 0 < self.annulus_inner < self.annulus_outer, "more than annulus_inner, and both positive"),
            ("colour_scale", self.colour_scale > 1, "more than 1"),
            ("centroid_width", 0.3 <= self.centroid_width <= 10, "0.3 to 10"),
            ("centroid_iterations", 1 <= self.centroid_iterations <= 100, "1 to 100"),
            ("centroid_snr", self.centroid_snr >= 0, "0 or more"),
            ("registration_stars", self.registration_stars >= 0, "0 or more"),
            ("registration_error", self.registration_error >= 0, "0 or more"),
            ("motion_sigma", self.motion_sigma > 0, "a positive number"),
            ("motion_min_offset", self.motion_min_offset >= 0, "0 or more"),
        )  # fmt: skip
        for name, right, expected in checks:
            if not right:
                raise ConfigError(f"measure.{name} is {getattr(self, name)}; expected {expected}")
        if 3.0 not in self.apertures:
            object.__setattr__(self, "apertures", tuple(sorted({3.0, *self.apertures})))
