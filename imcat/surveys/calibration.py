"""What a survey's magnitudes are the light of."""

from __future__ import annotations

from imcat.surveys import csst_constants, sdss_constants

__all__ = ["calibration_radius"]

_RADII = {"sdss": sdss_constants.CALIBRATION_RADIUS, "csst": csst_constants.CALIBRATION_RADIUS}


def calibration_radius(survey: str) -> float | None:
    """Radius in arcsec of the circle around a star whose light is its magnitude; None where none is named.

    Parameters
    ----------
    survey : str
        ``sdss``, ``csst`` or ``generic``.
    """
    return _RADII.get(survey)
