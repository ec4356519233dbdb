"""Settings of PSF and model photometry."""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["LARGEST_LIMIT", "ModelSettings"]

#: Largest ``footprint_limit``: rows of such footprints fit into `imcat.measure.model_gaussians.STRIDE`.
LARGEST_LIMIT = 1000


@dataclass(frozen=True)
class ModelSettings:
    """How PSF and galaxy models are fitted.

    Attributes
    ----------
    shape_bands : str
        Positions and shapes come from the reference band (``reference``) or from all bands together
        (``all``).
    free_positions : bool
        Fit positions; otherwise they are those given.
    galaxies : bool
        Fit galaxy profiles, not point sources alone.
    sersic : bool
        Fit Sérsic profiles with a free index.
    sersic_snr : float
        Signal-to-noise ratio from which a Sérsic profile is fitted.
    iterations : int
        Largest number of steps of a fit.
    tolerance : float
        A fit has converged when the next step would lower chi² by less.
    smallest_radius : float
        Smallest half-light radius, in units of the FWHM of the PSF.
    largest_radius : float
        Largest half-light radius, arcsec.
    smallest_axis_ratio : float
        Of minor to major axis.
    radius_prior : float
        Width of the normal prior on the logarithm (base e) of the half-light radius; it is centred on half of
        the FWHM of the PSF.
    ellipticity_prior : float
        Width of the normal prior, about 0, on each of the two components of the ellipticity. Its length is
        the logarithm of major over minor axis.
    index_prior : float
        Width of the normal prior on the logarithm of the Sérsic index, centred on an index of 2.
    position_prior : float
        Width of the normal prior on each coordinate about the first guess, in units of the FWHM of the PSF.
        No position moves by more than three times this.
    footprint_noise : float
        Footprints end where the expected profile falls below this many standard deviations of a pixel.
    footprint_widths : float
        Least half side of a footprint, in units of the FWHM of the PSF.
    footprint_radii : float
        Half side of the footprint of an extended source in units of its size; less where it is too faint to be
        seen so far out.
    footprint_limit : int
        Largest half side of a footprint, pixels.
    neighbour_noise : float
        Sources that lie within the light of a brighter one, down to this many standard deviations of a pixel, are
        fitted together with it.
    group_members : int
        A blend group with more members is split: only closer ones stay together.
    joint_members : int
        Members of a blend group whose errors are taken together; in larger groups those of each
        source take in its closest neighbours up to this number.
    """

    shape_bands: str = "reference"
    free_positions: bool = True
    galaxies: bool = True
    sersic: bool = True
    sersic_snr: float = 20.0
    iterations: int = 20
    tolerance: float = 0.01
    smallest_radius: float = 0.02
    largest_radius: float = 60.0
    smallest_axis_ratio: float = 0.05
    radius_prior: float = 1.5
    ellipticity_prior: float = 1.0
    index_prior: float = 1.0
    position_prior: float = 0.5
    footprint_noise: float = 0.1
    footprint_widths: float = 2.0
    footprint_radii: float = 3.0
    footprint_limit: int = 160
    neighbour_noise: float = 0.5
    group_members: int = 24
    joint_members: int = 12

    def __post_init__(self) -> None:
        checks = (
            ("shape_bands", self.shape_bands in ("reference", "all"), "one of reference, all"),
            ("sersic_snr", self.sersic_snr >= 0, "0 or more"),
            ("iterations", 2 <= self.iterations <= 1000, "2 to 1000"),
            ("tolerance", 0 < self.tolerance <= 1, "above 0, at most 1"),
            ("smallest_radius", 0 < self.smallest_radius < 1, "between 0 and 1"),
            ("largest_radius", self.largest_radius > 0, "a positive number"),
            ("smallest_axis_ratio", 0 < self.smallest_axis_ratio < 1, "between 0 and 1"),
            ("radius_prior", self.radius_prior > 0, "a positive number"),
            ("ellipticity_prior", self.ellipticity_prior > 0, "a positive number"),
            ("index_prior", self.index_prior > 0, "a positive number"),
            ("position_prior", self.position_prior > 0, "a positive number"),
            ("footprint_noise", self.footprint_noise > 0, "a positive number"),
            ("footprint_widths", self.footprint_widths >= 1, "1 or more"),
            ("footprint_radii", self.footprint_radii >= 1, "1 or more"),
            ("footprint_limit", 8 <= self.footprint_limit <= LARGEST_LIMIT, f"8 to {LARGEST_LIMIT}"),
            ("neighbour_noise", self.neighbour_noise > 0, "a positive number"),
            ("group_members", self.group_members >= 1, "1 or more"),
            ("joint_members", 1 <= self.joint_members <= 40, "1 to 40"),
        )
        for name, right, expected in checks:
            if not right:
                raise ConfigError(f"models.{name} is {getattr(self, name)}; expected {expected}")
