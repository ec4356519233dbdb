"""Numbers of the CSST survey camera (multi-colour imaging), each with its source.

The public sources are the level-1 data model (https://github.com/hypergravity/csst-doc-msc,
docs/source/mbi/data_model.md, commit e82c15c3, Cycle 7 of 2023) and the pipeline's own code
(https://github.com/csster). No number here was measured in orbit.
"""

from __future__ import annotations

__all__ = [
    "APERTURE_RADIUS",
    "BANDS",
    "CALIBRATION_RADIUS",
    "CHIP_BANDS",
    "DARK_CURRENT",
    "EXPOSURES",
    "EXPOSURE_SECONDS",
    "FAILED_VALUES",
    "FLAG_BITS",
    "FULL_WELL",
    "PIXEL_SCALE",
    "READ_NOISE",
    "SKY_ELECTRONS",
    "TAI_MINUS_UTC",
    "TELESCOPE_DIAMETER",
    "WAVELENGTHS",
]

#: Bands in order of wavelength.
BANDS = ("nuv", "u", "g", "r", "i", "z", "y")

#: Pivot wavelengths in Å of the total throughput curves that GalaxyGenius publishes
#: (https://github.com/xczhou-astro/galaxyGenius, MIT), rounded to 1 Å.
WAVELENGTHS = {
    "nuv": 2875.0, "u": 3590.0, "g": 4783.0, "r": 6175.0, "i": 7633.0, "z": 9020.0, "y": 9629.0,
}  # fmt: skip

#: arcsec per pixel (data model; Zhan 2021, Chinese Science Bulletin 66, 1290).
PIXEL_SCALE = 0.074

#: Seconds of a survey exposure, electrons of read noise (data model; survey.toml of GalaxyGenius).
EXPOSURE_SECONDS = 150.0
READ_NOISE = 5.0

#: Diameter of the aperture in m, dark current in e⁻/s per pixel (survey.toml of GalaxyGenius).
TELESCOPE_DIAMETER = 2.0
DARK_CURRENT = 0.02

#: Exposures of each band in the wide survey, and e⁻/s per pixel of the sky (survey.toml of
#: GalaxyGenius; another public model of the sky is about 1.75 times as bright).
EXPOSURES = {"nuv": 4, "u": 2, "g": 2, "r": 2, "i": 2, "z": 2, "y": 4}
SKY_ELECTRONS = {
    "nuv": 0.0042, "u": 0.0317, "g": 0.2803, "r": 0.3591, "i": 0.3708, "z": 0.2168, "y": 0.0638,
}  # fmt: skip

#: Electrons that a pixel holds: none is published; a usual value of deep-depleted CCDs with 10-micron pixels.
FULL_WELL = 90_000.0

#: Radius in pixels within which ``ZP`` holds (keyword APER_R of the data model).
APERTURE_RADIUS = 10.0

#: Radius in arcsec of the circle around a star whose light PSF and model fluxes are. The published point-spread functions
#: (`imcat.surveys.curves`) hold 0.994 (nuv), 0.998 (g, z, y) and more of their light within it, so that no colour is off by more
#: than half a per cent; six FWHM hold between 0.943 (nuv) and 0.991 (i).
CALIBRATION_RADIUS = 1.2

#: Filter in front of each imaging detector (data model, table of detectors).
CHIP_BANDS = {
    6: "y", 7: "i", 8: "g", 9: "r", 11: "z", 12: "nuv", 13: "nuv", 14: "u", 15: "y",
    16: "y", 17: "u", 18: "nuv", 19: "nuv", 20: "z", 22: "r", 23: "g", 24: "i", 25: "y",
}  # fmt: skip

#: Bits of a flag image (data model): 1 bad, 2 hot, 4 warm, 8 saturated, 16 cosmic ray,
#: 32 satellite trail, 64 ghost, 128 scattered light; imcat's own names in the same order.
FLAG_BITS = ("BAD", "HOT", "WARM", "SATURATED", "COSMIC_RAY", "TRAIL", "GHOST", "GHOST")

#: Values that the pipeline writes where a calibration failed (−1 in Cycle 5, −9999 since Cycle 7).
FAILED_VALUES = (-1.0, -99.0, -9999.0)

#: Seconds by which TAI is ahead of UTC since 2017 (IERS Bulletin C 52).
TAI_MINUS_UTC = 37.0
