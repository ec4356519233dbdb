"""What augmented tiles are made of: how much of them networks generate, and how many rare sources they hold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from imcat.errors import UsageError
from imcat.simulate.observation import Observation
from imcat.simulate.settings import SimulateSettings
from imcat.surveys import csst_constants, sdss_constants

__all__ = ["RARE", "AugmentSettings", "parse_magnitudes"]

#: Settings that are rates of rare sources, on a square degree.
RARE = ("lenses", "lookalikes", "mergers", "quasars", "pairs")
_BANDS = {"sdss": sdss_constants.BANDS, "csst": csst_constants.BANDS}
_REFERENCE = {"sdss": "r", "csst": "i"}
# A fifth to a half of an image of 256 pixels a side shows one, whatever the survey: pixels differ in area by 29.
_RATES = {
    "sdss": {"lenses": 300.0, "lookalikes": 300.0, "mergers": 300.0, "quasars": 300.0, "pairs": 600.0},
    "csst": {"lenses": 8000.0, "lookalikes": 8000.0, "mergers": 8000.0, "quasars": 8000.0, "pairs": 16000.0},
}
_MOST = 500_000.0  # of each kind of rare source on a square degree
#: Surveys of which there is real sky to learn from.
_REAL_SKY = ("sdss",)


@dataclass(frozen=True)
class AugmentSettings:
    """The mix of augmented tiles; use `of_survey` for the survey's defaults.

    Attributes
    ----------
    generated : float
        Share of the galaxies within the generator's ranges whose light is generated, 0 to 1. Lenses and look-alikes keep
        the light that makes them such.
    generated_sky : float
        Share of the tiles whose empty sky is generated, 0 to 1; 0 for CSST, of which there is no real sky to learn from.
    lenses, lookalikes, mergers, quasars, pairs : float
        Strong lenses, what looks like one, mergers, quasars and close pairs on a square degree, beyond the sky's own (of
        lenses and look-alikes: all of them). The number in a tile is drawn from a Poisson distribution.
    magnitudes : (float, float) or None
        Only galaxies of these magnitudes (AB, in the band nearest to 6200 Å) are generated; None for all that the
        generator was trained on.
    bands : tuple of str
        Only these, the survey's reference band among them; empty for all.

    Raises
    ------
    UsageError
        If a value is impossible.
    """

    generated: float = 0.5
    generated_sky: float = 0.0
    lenses: float = 0.0
    lookalikes: float = 0.0
    mergers: float = 0.0
    quasars: float = 0.0
    pairs: float = 0.0
    magnitudes: tuple[float, float] | None = None
    bands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("generated", "generated_sky"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name.replace('_', '-')} is {value:g}; expected a share, 0 to 1")
        for name in RARE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value:g}; expected a number on a square degree, 0 or more")
            if value > _MOST:
                raise UsageError(
                    f"{name} is {value:g} on a square degree; expected at most {_MOST:g}, one every five arcsec"
                )
        if self.magnitudes is not None and self.generated == 0:
            raise UsageError(
                "magnitudes narrow down what is generated, and generated is 0; expected one or the other"
            )
        if self.magnitudes is not None and not self.magnitudes[0] < self.magnitudes[1]:
            low, high = self.magnitudes
            raise UsageError(f"magnitudes {low:g} to {high:g} are none; expected a range, bright to faint")

    @classmethod
    def of_survey(cls, survey: str, **changes: Any) -> AugmentSettings:
        """The defaults of a survey, with changes.

        Parameters
        ----------
        survey : str
            ``sdss`` or ``csst``.
        **changes
            Values of attributes; None leaves the default.

        Raises
        ------
        UsageError
            If there is no such survey, a band is not the survey's, or a value is impossible.

        Examples
        --------
        >>> AugmentSettings.of_survey("csst", lenses=0.0).generated_sky
        0.0
        """
        if survey not in _RATES:
            raise UsageError(f"there is no camera of survey {survey!r}; expected one of {', '.join(_RATES)}")
        defaults: dict[str, Any] = {**_RATES[survey], "generated_sky": 0.5 if survey in _REAL_SKY else 0.0}
        made = cls(**(defaults | {name: value for name, value in changes.items() if value is not None}))
        made._check_survey(survey)
        return replace(made, bands=tuple(b for b in _BANDS[survey] if b in made.bands))

    def _check_survey(self, survey: str) -> None:
        if self.generated_sky > 0 and survey not in _REAL_SKY:
            raise UsageError(
                f"generated-sky is {self.generated_sky:g} for {survey}, of which there is no real sky to learn from; "
                "expected 0"
            )
        known, reference = _BANDS[survey], _REFERENCE[survey]
        unknown = [band for band in self.bands if band not in known]
        if unknown:
            raise UsageError(f"{survey} has no band {unknown[0]!r}; expected some of {', '.join(known)}")
        if self.bands and reference not in self.bands:
            raise UsageError(
                f"bands are {', '.join(self.bands)}; expected {reference} among them, whose pixels x and y are"
            )

    def skies(self, settings: SimulateSettings) -> SimulateSettings:
        """Settings of the simulator with the rates of lenses and look-alikes."""
        return replace(settings, lenses_per_deg2=self.lenses, lookalikes_per_deg2=self.lookalikes)

    def some_bands(self, observation: Observation) -> Observation:
        """An observation in the bands that are asked for.

        Raises
        ------
        UsageError
            If it has none of the reference band.
        """
        if not self.bands:
            return observation
        kept = tuple(e for e in observation.exposures if e.band in self.bands)
        if not any(e.band == observation.reference for e in kept):
            raise UsageError(
                f"{observation.name} has x and y in {observation.reference}; expected that band among {', '.join(self.bands)}"
            )
        return replace(observation, exposures=kept)

    def recorded(self) -> dict[str, Any]:
        """What stands in the record of a set of tiles."""
        return asdict(self)


def parse_magnitudes(text: str | None) -> tuple[float, float] | None:
    """A range from ``BRIGHT:FAINT``.

    Raises
    ------
    UsageError
        If it is none.

    Examples
    --------
    >>> parse_magnitudes("17:20.5")
    (17.0, 20.5)
    """
    if text is None:
        return None
    try:
        bright, faint = (float(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"--magnitudes is {text!r}; expected BRIGHT:FAINT, as in 17:20.5") from None
    return bright, faint
