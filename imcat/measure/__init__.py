"""Measuring sources in every band."""

from imcat.measure.settings import MeasureSettings
from imcat.measure.sources import Measurements, measure_sources
from imcat.measure.views import Layer

__all__ = ["Layer", "MeasureSettings", "Measurements", "measure_sources"]
