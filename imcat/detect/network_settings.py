"""Settings of the detection network when it searches a tile."""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["NetworkSettings"]


@dataclass(frozen=True)
class NetworkSettings:
    """How the network's maps become a list of sources.

    Attributes
    ----------
    window_size : int
        Side of the windows in which a tile is searched, pixels of the reference band, a multiple of 8.
    overlap : int
        Margin around a window, pixels, a multiple of 8; not smaller than what the network sees around
        a pixel. A source whose footprint is larger carries the flag TRUNCATED.
    min_heat : float
        Smallest heat of a candidate: about the number of centres that the network expects around it.
    least_score : float
        Candidates with a smaller score are never written; at a third, the list as a whole is about half real.
    separation : float
        Of two candidates closer than this many FWHM of the PSF only the stronger stays.
    footprint_snr : float
        Footprints reach down to this level of the filtered sum of the bands.
    half_precision : bool
        Multiply in bfloat16 on processors with such instructions, which do so twice as fast.
    """

    window_size: int = 1024
    overlap: int = 80
    min_heat: float = 0.05
    least_score: float = 0.1
    separation: float = 0.5
    footprint_snr: float = 2.5
    half_precision: bool = True

    def __post_init__(self) -> None:
        checks = (
            (
                "window_size",
                self.window_size >= 64 and self.window_size % 8 == 0,
                "a multiple of 8 from 64 on",
            ),
            ("overlap", self.overlap >= 80 and self.overlap % 8 == 0, "a multiple of 8 from 80 on"),
            ("min_heat", 0 < self.min_heat < 1, "a number between 0 and 1"),
            ("least_score", 0 <= self.least_score < 1, "a number between 0 and 1"),
            ("separation", self.separation >= 0, "0 or more"),
            ("footprint_snr", self.footprint_snr > 0, "a positive number"),
        )
        for name, right, expected in checks:
            if not right:
                raise ConfigError(f"network.{name} is {getattr(self, name)}; expected {expected}")
