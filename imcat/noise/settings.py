"""Settings of the room `imcat.noise`."""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["NoiseSettings"]


@dataclass(frozen=True)
class NoiseSettings:
    """How background and noise of an exposure are measured.

    Attributes
    ----------
    mesh_size : int
        Side of a cell of the background mesh, pixels.
    mesh_filter : int
        Side of the median filter over the mesh, cells (odd).
    clip_sigma : float
        Pixels farther than this from a cell's median are left out of it, in units of its rms.
    min_good : float
        A cell with a smaller fraction of usable pixels takes its values from its neighbours.
    crowded_ratio : float
        A cell whose rms exceeds the median of its surroundings by this factor is taken to hold
        a big object and takes its values from its neighbours.
    subtract_background : bool
        False leaves the pixels as they are (the noise is measured all the same).
    correlation_radius : int
        Largest lag in either direction at which the noise covariance is measured, pixels.
    correlation_cells : int
        Number of mesh cells, spread over the image, on which it is measured.
    variance_tolerance : float
        A given variance whose rms differs from that of blank sky by more than this fraction is
        rescaled to it, and the change is recorded as a warning.
    """

    mesh_size: int = 128
    mesh_filter: int = 3
    clip_sigma: float = 3.0
    min_good: float = 0.4
    crowded_ratio: float = 1.5
    subtract_background: bool = True
    correlation_radius: int = 5
    correlation_cells: int = 24
    variance_tolerance: float = 0.05

    def __post_init__(self) -> None:
        if self.mesh_size < 16:
            raise ConfigError(f"noise.mesh_size is {self.mesh_size}; expected at least 16 pixels")
        if self.mesh_filter < 1 or self.mesh_filter % 2 == 0:
            raise ConfigError(f"noise.mesh_filter is {self.mesh_filter}; expected an odd number")
        if not 1.5 <= self.clip_sigma <= 10:
            raise ConfigError(f"noise.clip_sigma is {self.clip_sigma}; expected 1.5 to 10")
        if not 0 < self.min_good <= 1:
            raise ConfigError(f"noise.min_good is {self.min_good}; expected a fraction above 0, up to 1")
        if not 0 <= self.correlation_radius <= 15:
            raise ConfigError(f"noise.correlation_radius is {self.correlation_radius}; expected 0 to 15")
        if self.correlation_cells < 1:
            raise ConfigError(f"noise.correlation_cells is {self.correlation_cells}; expected at least 1")
        if not 0 < self.variance_tolerance < 1:
            raise ConfigError(
                f"noise.variance_tolerance is {self.variance_tolerance}; expected a fraction between 0 and 1"
            )
