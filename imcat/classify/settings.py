"""Settings of the classification."""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["PRIORS", "ClassifySettings"]

#: Priors that can be asked for.
PRIORS = ("sky", "flat", "spectroscopic")


@dataclass(frozen=True)
class ClassifySettings:
    """How sources are classified.

    Attributes
    ----------
    prior : str
        Mix of stars, galaxies and quasars that `p_star`, `p_galaxy` and `p_quasar` are for: ``sky`` (by magnitude and
        galactic latitude), ``flat`` (as many of each) or ``spectroscopic`` (as in the spectroscopic SDSS).
    """

    prior: str = "sky"

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise ConfigError(f"classify.prior is {self.prior!r}; expected one of {', '.join(PRIORS)}")
