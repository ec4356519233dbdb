"""Finding sources: the threshold engine."""

from imcat.detect.combine import Combiner, Plane, band_weights
from imcat.detect.footprints import Footprints
from imcat.detect.psf_width import measure_psf_fwhm
from imcat.detect.settings import DetectSettings
from imcat.detect.threshold import Detections, detect_threshold, score

__all__ = [
    "Combiner",
    "DetectSettings",
    "Detections",
    "Footprints",
    "Plane",
    "band_weights",
    "detect_threshold",
    "measure_psf_fwhm",
    "score",
]
