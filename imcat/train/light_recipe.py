"""How a generator of galaxies is trained: what a recipe's table ``[light]`` may hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

from imcat.augment.light import LightSettings
from imcat.errors import ConfigError

__all__ = ["SURVEY_BANDS", "LightRecipe"]

#: Bands of the surveys that generators are trained for.
SURVEY_BANDS = {"sdss": tuple("ugriz"), "csst": ("nuv", "u", "g", "r", "i", "z", "y")}


@dataclass(frozen=True)
class LightRecipe:
    """How a generator of galaxies is trained.

    Attributes
    ----------
    name : str
        Of the weights.
    survey : str
        ``sdss``: learns from real stamps; ``csst``: from simulated ones as an ideal camera sees them.
    method : str
        ``gan``: against a judge; ``vae``: as a decoder.
    real, validation : tuple of str
        Real tiles to learn from and to judge with, below the folder of real data (``IMCAT_DATA``).
    galaxies : int
        Simulated ones, where no tiles are named; a tenth of them judges.
    latent, width, depth, patches : int
        Of the generator (`imcat.augment.light.LightSettings`).
    judge_width, judge_depth : int
        Of the judge or of the encoder.
    steps, batch : int
        Steps of the optimiser, stamps in each.
    rate, judge_rate : float
        Largest learning rates.
    slope : float
        Weight of the penalty on the judge's slope.
    divergence : float
        Weight of the divergence of the autoencoder.
    schedule : int
        Steps over which the rates fall; 0: as many as are taken.
    seed : int
        Decides everything.
    """

    name: str = "light_sdss"
    survey: str = "sdss"
    method: str = "gan"
    real: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    galaxies: int = 4000
    latent: int = 32
    width: int = 192
    depth: int = 3
    patches: int = 24
    judge_width: int = 32
    judge_depth: int = 3
    steps: int = 6000
    batch: int = 32
    rate: float = 5e-4
    judge_rate: float = 5e-4
    slope: float = 1.0
    divergence: float = 4.0
    schedule: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.survey not in SURVEY_BANDS:
            raise ConfigError(f"survey is {self.survey!r}; expected one of {', '.join(SURVEY_BANDS)}")
        if self.method not in ("gan", "vae"):
            raise ConfigError(f"method is {self.method!r}; expected gan or vae")
        if bool(self.real) != bool(self.validation):
            raise ConfigError("real and validation: expected tiles for both, or for neither")
        if min(self.steps, self.batch, self.galaxies) < 1 or self.patches < 1:
            raise ConfigError("steps, batch, galaxies and patches: expected positive numbers")

    def smoke(self) -> LightRecipe:
        """The same, for a minute: on simulated galaxies, small."""
        return replace(
            self, steps=4, batch=8, real=(), validation=(), galaxies=80, width=32, depth=2, patches=4, judge_width=8
        )  # fmt: skip

    @property
    def generator(self) -> LightSettings:
        """Size of the generator."""
        return LightSettings(self.latent, self.width, self.depth, self.patches)
