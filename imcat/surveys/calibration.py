"""What a survey's magnitudes are the light of."""

from __future__ import annotations

from imcat.surveys.sdss_constants import CALIBRATION_RADIUS

__all__ = ["calibration_radius"]


def calibration_radius(survey: str) -> float | None:
    """Radius in arcsec of the circle around a star whose light is its magnitude; None where none is named.

    Parameters
    ----------
    survey : str
        ``sdss``, ``csst`` or ``generic``.
    """
    return CALIBRATION_RADIUS if survey == "sdss" else None
