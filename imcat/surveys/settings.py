"""Settings of the room `imcat.surveys`."""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["SurveySettings"]


@dataclass(frozen=True)
class SurveySettings:
    """How survey files are read and grouped into tiles.

    Attributes
    ----------
    ebv : float or None
        E(B−V) of the Galactic dust in front of every tile, magnitudes; None takes what files say.
    sdss_bright_cores : bool
        Flag the cores of saturated stars in SDSS frames that have no ``fpM`` mask (their pixels
        were replaced by interpolation, so that no count reaches the saturation level).
    csst_reference : str
        Band whose exposures define the CSST tiles; where there is none, the next redder and then
        the next bluer band that has exposures.
    csst_min_overlap : float
        An exposure joins a CSST tile if it covers at least this fraction of the sky area of the
        tile's reference exposure.
    """

    ebv: float | None = None
    sdss_bright_cores: bool = True
    csst_reference: str = "i"
    csst_min_overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.ebv is not None and not 0 <= self.ebv <= 100:
            raise ConfigError(f"surveys.ebv is {self.ebv}; expected 0 to 100 magnitudes")
        bands = ("nuv", "u", "g", "r", "i", "z", "y")
        if self.csst_reference not in bands:
            raise ConfigError(
                f"surveys.csst_reference is {self.csst_reference!r}; expected one of {', '.join(bands)}"
            )
        if not 0 < self.csst_min_overlap <= 1:
            raise ConfigError(
                f"surveys.csst_min_overlap is {self.csst_min_overlap}; expected a fraction above 0, up to 1"
            )
