"""Numbers of the SDSS imaging camera, each with its source."""

from __future__ import annotations

from imcat.errors import InputError

__all__ = [
    "BANDS",
    "CALIBRATION_RADIUS",
    "CLOCK_MICROSECONDS",
    "DEFAULT_SATURATION",
    "EXPOSURE_SECONDS",
    "FIELD_SHAPE",
    "FRAME_OFFSET",
    "NMGY_TO_NJY",
    "PRIMARY_ROWS",
    "SOFT_BIAS",
    "WAVELENGTHS",
    "dark_variance",
    "gain",
]

#: Bands in the order of every five-element column of the survey's tables.
BANDS = ("u", "g", "r", "i", "z")

#: Effective wavelengths in Å: York et al. 2000 (AJ 120, 1579), table 3, refined by Fukugita et
#: al. 1996 (AJ 111, 1748) and Doi et al. 2010 (AJ 139, 1628), as the survey's camera page gives
#: them (https://www.sdss4.org/instruments/camera/#Filters).
WAVELENGTHS = {"u": 3551.0, "g": 4686.0, "r": 6166.0, "i": 7480.0, "z": 8932.0}

#: One nanomaggy in nJy: 1 maggy is 3631 Jy (AB). SDSS u and z are offset from AB; that is applied
#: where templates meet data, not here.
NMGY_TO_NJY = 3631.0

#: Radius in arcsec within which the light of a star is its magnitude: aperture 7 of the survey's
#: pipeline (https://www.sdss4.org/dr17/algorithms/magnitudes; Stoughton et al. 2002, table 21).
CALIBRATION_RADIUS = 7.43

#: Rows and columns of a field, and the rows that belong to it alone: neighbouring fields of a
#: run overlap by 128 rows (York et al. 2000; Stoughton et al. 2002, AJ 123, 485).
FIELD_SHAPE = (1489, 2048)
PRIMARY_ROWS = (64.0, 1425.0)

#: Keyword FRAME of a band's frame minus the number of the field: the sky drifts over the CCDs in the
#: order r i u z g, and from one row of CCDs to the next it takes two frames (71.7 s; Gunn et al.
#: 1998, AJ 116, 3040).
FRAME_OFFSET = {"r": 0, "i": 2, "u": 4, "z": 6, "g": 8}

#: Exposure of a row, and time from one row to the next (keywords EXPTIME and C_OBS of the frames).
EXPOSURE_SECONDS = 53.907456
CLOCK_MICROSECONDS = 26322

#: Counts added to raw frames so that no pixel is negative (keyword SOFTBIAS of the frames).
SOFT_BIAS = 1000.0

#: Saturation level in counts above the soft bias where no photoField file states one: the end of
#: the 16-bit converter. Levels in photoField files (SATURATION_LEVEL) are lower, 27,653 to 63,128.
DEFAULT_SATURATION = 65535.0 - SOFT_BIAS

_FRAME_MODEL = "https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html"

# Electrons per count, camera columns 1 to 6, u g r i z (frame data model, `_FRAME_MODEL`).
_GAIN = (
    (1.62, 3.32, 4.71, 5.165, 4.745),
    (1.595, 3.855, 4.6, 6.565, 5.155),
    (1.59, 3.845, 4.72, 4.86, 4.885),
    (1.6, 3.995, 4.76, 4.885, 4.775),
    (1.47, 4.05, 4.725, 4.64, 3.48),
    (2.17, 4.035, 4.895, 4.76, 4.69),
)
# (camera column, band): (first run, value from that run on).
_GAIN_LATER = {(2, "u"): (1100, 1.825)}

# Variance of read noise and dark current, counts², same order and source.
_DARK_VARIANCE = (
    (9.61, 15.6025, 1.8225, 7.84, 0.81),
    (12.6025, 1.44, 1.00, 5.76, 1.0),
    (8.7025, 1.3225, 1.3225, 4.6225, 1.0),
    (12.6025, 1.96, 1.3225, 6.25, 9.61),
    (9.3025, 1.1025, 0.81, 7.84, 1.8225),
    (7.0225, 1.8225, 0.9025, 5.0625, 1.21),
)
_DARK_VARIANCE_LATER = {
    (2, "i"): (1500, 6.25),
    (4, "i"): (1500, 7.5625),
    (4, "z"): (1500, 12.6025),
    (5, "z"): (1500, 2.1025),
}


def gain(run: int, camcol: int, band: str) -> float:
    """Electrons per count of one CCD.

    Parameters
    ----------
    run, camcol : int
        Imaging run; camera column, 1 to 6.
    band : str
        One of ``u g r i z``.

    Raises
    ------
    InputError
        If there is no such CCD.

    Examples
    --------
    >>> gain(1033, 2, "u"), gain(3918, 2, "u")
    (1.595, 1.825)
    """
    return _look_up(_GAIN, _GAIN_LATER, run, camcol, band)


def dark_variance(run: int, camcol: int, band: str) -> float:
    """Variance of read noise and dark current of one CCD, counts².

    Parameters
    ----------
    run, camcol : int
        Imaging run; camera column, 1 to 6.
    band : str
        One of ``u g r i z``.

    Raises
    ------
    InputError
        If there is no such CCD.
    """
    return _look_up(_DARK_VARIANCE, _DARK_VARIANCE_LATER, run, camcol, band)


def _look_up(
    table: tuple[tuple[float, ...], ...],
    later: dict[tuple[int, str], tuple[int, float]],
    run: int,
    camcol: int,
    band: str,
) -> float:
    if not 1 <= camcol <= len(table) or band not in BANDS:
        raise InputError(
            f"SDSS has no CCD in camera column {camcol}, band {band!r}",
            expected="column 1 to 6, band u g r i z",
        )
    first_run, value = later.get((camcol, band), (0, None))
    if value is not None and run >= first_run:
        return value
    return table[camcol - 1][BANDS.index(band)]
