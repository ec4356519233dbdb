"""Settings of the stamps that networks see."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["StampSettings"]


@dataclass(frozen=True)
class StampSettings:
    """Size of the stamps.

    Attributes
    ----------
    size : int
        Pixels on a side.
    pixel : float
        Size of a stamp's pixel before they are binned, arcsec; 0 takes that of the reference image. The stamp covers
        `size` times `binning` times this.
    binning : int
        Pixels on a side whose mean becomes one of the stamp: a wider view with the same number of pixels.
    """

    size: int = 40
    pixel: float = 0.0
    binning: int = 1

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 256:
            raise ConfigError(f"stamps.size is {self.size}; expected 8 to 256 pixels")
        if not (math.isfinite(self.pixel) and self.pixel >= 0):
            raise ConfigError(f"stamps.pixel is {self.pixel}; expected arcsec, or 0 for that of the images")
        if not 1 <= self.binning <= 16:
            raise ConfigError(f"stamps.binning is {self.binning}; expected 1 to 16")
