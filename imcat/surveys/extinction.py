"""Galactic extinction of a tile in each of its bands.

Fluxes are never corrected; the extinction stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from imcat.errors import ImcatError

__all__ = ["SDSS_COEFFICIENTS", "band_extinction", "ebv_from_maps"]

#: A(band) over the E(B-V) of Schlegel, Finkbeiner & Davis (1998) for the SDSS filters:
#: Schlafly & Finkbeiner (2011, ApJ 737, 103), table 6, R_V = 3.1.
SDSS_COEFFICIENTS: dict[str, float] = {"u": 4.239, "g": 3.303, "r": 2.285, "i": 1.698, "z": 1.263}

_RV = 3.1
#: E(B-V) of the 1998 map over the true one (Schlafly & Finkbeiner 2011, section 5).
_RECALIBRATION = 0.86


def band_extinction(survey: str, wavelengths: Mapping[str, float], ebv: float) -> dict[str, float]:
    """Extinction in magnitudes for an E(B-V) on the scale of the 1998 map.

    Parameters
    ----------
    survey : str
        SDSS filters have their published coefficients.
    wavelengths : mapping of str to float
        Effective wavelength of each band, Å; other bands follow the law of Fitzpatrick (1999,
        PASP 111, 63; R_V = 3.1) at that wavelength, with the map's recalibration by 0.86.
    ebv : float
        Magnitudes.

    Raises
    ------
    ImcatError
        If the package ``dust_extinction``, which holds that law, is not installed.
    """
    if survey == "sdss":
        return {band: SDSS_COEFFICIENTS[band] * ebv for band in wavelengths}
    import astropy.units as u

    try:
        from dust_extinction.parameter_averages import F99
    except ImportError:
        raise ImcatError(
            "the extinction in other than SDSS bands needs the package dust_extinction, which is not installed; "
            "install it with: pip install dust_extinction, or leave surveys.ebv out of the configuration"
        ) from None

    law = F99(Rv=_RV)
    return {
        band: float(law(wavelength * u.AA)) * _RV * _RECALIBRATION * ebv
        for band, wavelength in wavelengths.items()
    }


def ebv_from_maps(ra: float, dec: float) -> float | None:
    """E(B-V) of the 1998 map from the package ``dustmaps``.

    Parameters
    ----------
    ra, dec : float
        ICRS degrees.

    Returns
    -------
    float or None
        None where the package or its maps are not installed.
    """
    try:
        from dustmaps.sfd import SFDQuery
    except ImportError:
        return None
    from astropy.coordinates import SkyCoord

    try:
        query: Any = SFDQuery()
    except Exception:  # the package raises what its file format raises where no map was fetched
        return None
    value = float(query(SkyCoord(ra, dec, unit="deg", frame="icrs")))
    return value if math.isfinite(value) else None
