"""PSF models and widths: arrays in, arrays out."""

from imcat.psf.width import FWHM_PER_SIGMA, half_sample_mode, star_widths

__all__ = ["FWHM_PER_SIGMA", "half_sample_mode", "star_widths"]
