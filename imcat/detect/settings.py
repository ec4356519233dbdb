"""Settings of the room `imcat.detect`."""

from __future__ import annotations

from dataclasses import dataclass, field

from imcat.errors import ConfigError

__all__ = ["DetectSettings"]


@dataclass(frozen=True)
class DetectSettings:
    """How the threshold engine finds sources.

    Attributes
    ----------
    window_size : int
        Side of the windows in which a tile is searched, pixels of the reference band. The
        catalogue does not depend on it.
    overlap : int
        Margin around a window, pixels. A source whose footprint is larger than this carries
        the flag TRUNCATED.
    threshold : float
        Level of the footprint's edge in the filtered sum of the bands, in units of its noise.
    min_area : int
        Smallest number of pixels of a footprint.
    grow_threshold : float
        Once sources are apart, their footprints grow down to this level.
    grow_steps : int
        Pixels by which they may grow.
    min_snr : float
        Smallest peak of a source in the filtered sum of the bands, in units of its noise.
    kernel_fwhm : float
        FWHM of the Gaussian filter, arcsec; 0 takes that of the PSF.
    fallback_fwhm : float
        FWHM of the PSF, pixels, of an exposure with too few stars to measure it and no other
        word on it.
    sed_slope : float
        Bands are summed for a source whose flux density goes as wavelength to this power.
    sed_weights : dict of str to float
        Flux density expected in a band, relative to the others; replaces `sed_slope` for the
        bands that it names. 0 leaves a band out of the detection.
    deblend_levels : int
        Number of levels between threshold and peak at which a footprint is tried for parts.
    deblend_contrast : float
        Smallest fraction of the footprint's flux that makes a part a source of its own.
    clean : bool
        Remove detections that the halo of a brighter neighbour explains.
    halo_slope : float
        Power with which the halo of a source is taken to fall outside its footprint.
    score_snr : tuple of float
        Signal-to-noise ratios at which `score_probability` is given.
    score_probability : tuple of float
        Probability of a detection with that signal-to-noise ratio to be real, as measured on
        simulated tiles; between the points it is interpolated.
    """

    window_size: int = 2304
    overlap: int = 128
    threshold: float = 4.0
    min_area: int = 1
    grow_threshold: float = 2.5
    grow_steps: int = 4
    min_snr: float = 4.0
    kernel_fwhm: float = 0.0
    fallback_fwhm: float = 3.0
    sed_slope: float = 1.5
    sed_weights: dict[str, float] = field(default_factory=dict)
    deblend_levels: int = 64
    deblend_contrast: float = 0.0001
    clean: bool = True
    halo_slope: float = 3.0
    score_snr: tuple[float, ...] = (3.33, 3.64, 3.89, 4.1, 4.29, 4.53, 4.85, 5.25, 5.75, 6.48, 7.85)
    # Printed by benchmarks/calibrate_score.py.
    score_probability: tuple[float, ...] = (
        0.239, 0.356, 0.451, 0.628, 0.635, 0.819, 0.879, 0.949, 0.974, 0.989, 0.999
    )  # fmt: skip

    def __post_init__(self) -> None:
        checks = (
            ("window_size", self.window_size >= 64, "at least 64 pixels"),
            ("overlap", self.overlap >= 16, "at least 16 pixels"),
            ("threshold", self.threshold > 0, "a positive number"),
            ("min_area", self.min_area >= 1, "at least 1 pixel"),
            ("grow_steps", 0 <= self.grow_steps <= 1000, "0 to 1000"),
            ("min_snr", self.min_snr >= 0, "0 or more"),
            ("kernel_fwhm", self.kernel_fwhm >= 0, "0 or more"),
            ("fallback_fwhm", self.fallback_fwhm > 0, "a positive number"),
            ("deblend_levels", 2 <= self.deblend_levels <= 256, "2 to 256"),
            ("deblend_contrast", 0 <= self.deblend_contrast <= 1, "0 to 1"),
            ("halo_slope", self.halo_slope > 0, "a positive number"),
            ("sed_weights", all(w >= 0 for w in self.sed_weights.values()), "weights of 0 or more"),
            ("score_snr", tuple(sorted(self.score_snr)) == self.score_snr and len(self.score_snr) > 1,
             "two or more rising numbers"),
            ("score_probability", len(self.score_probability) == len(self.score_snr)
             and all(0 <= p <= 1 for p in self.score_probability),
             "as many probabilities as score_snr has numbers"),
        )  # fmt: skip
        for name, right, expected in checks:
            if not right:
                raise ConfigError(f"detect.{name} is {getattr(self, name)}; expected {expected}")
