"""Stamps of sources for networks."""

from imcat.stamps.cut import Stamps, cut_stamps, stamp_windows, stamps_by_window
from imcat.stamps.scale import CONDITIONS, band_conditions, compress, expand
from imcat.stamps.settings import StampSettings

__all__ = [
    "CONDITIONS",
    "StampSettings",
    "Stamps",
    "band_conditions",
    "compress",
    "cut_stamps",
    "expand",
    "stamp_windows",
    "stamps_by_window",
]
