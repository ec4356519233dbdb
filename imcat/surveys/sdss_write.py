"""Writing SDSS corrected frames, in the format that `imcat.surveys.sdss` reads.

Layout as in the frame data model
(https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html): image,
calibration vector, sky, astrometry. The bytes depend on the arguments only.
"""

from __future__ import annotations

import bz2
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.errors import OutputError
from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_constants import BANDS, CLOCK_MICROSECONDS, EXPOSURE_SECONDS, FRAME_OFFSET, SOFT_BIAS
from imcat.surveys.sdss_variance import SkyGrid

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["SdssFrame", "float_compress", "sky_grid", "write_frames"]

# The sky grid has one point for so many pixels.
_SKY_STEP = 8
# FLOATCOMPRESS of idlutils keeps 10 significant binary digits: one implicit, nine stored.
_DROPPED_BITS = 23 - 9


@dataclass(frozen=True, eq=False)
class SdssFrame:
    """One band of a field, ready to be written.

    Attributes
    ----------
    band : str
        One of ``u g r i z``.
    data : float32 array, ``[y, x]``
        Nanomaggies, sky subtracted.
    calibration : float32 array, ``[x]``
        Nanomaggies per count.
    sky : SkyGrid
        The sky that was subtracted, counts (see `sky_grid`).
    wcs : astropy.wcs.WCS
        TAN.
    tai : float
        When row 0 was read, TAI seconds since MJD 0.
    """

    band: str
    data: NDArray[np.float32]
    calibration: NDArray[np.float32]
    sky: SkyGrid
    wcs: Any
    tai: float


def sky_grid(shape: tuple[int, int], level: float = 0.0, slope: tuple[float, float] = (0.0, 0.0)) -> SkyGrid:
    """A plane sky on the grid that the survey uses.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the frame.
    level : float
        Counts in the centre.
    slope : (float, float)
        Change along y and x over the whole frame, counts.
    """
    axes = [((np.arange(n) + 0.5) / _SKY_STEP - 0.5).astype(np.float32) for n in shape]
    points = [np.arange(-(-n // _SKY_STEP) + 1) for n in shape]
    # Where the points lie in the frame, −1/2 to 1/2.
    y, x = ((p + 0.5) * _SKY_STEP / n - 0.5 for p, n in zip(points, shape, strict=True))
    values = level + slope[0] * y[:, None] + slope[1] * x[None, :]
    return SkyGrid(values.astype(np.float32), axes[1], axes[0])


def float_compress(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to ten significant binary digits, as the survey does before packing its frames.

    Examples
    --------
    >>> float(float_compress(np.array([1.0 + 2.0**-12], dtype=np.float32))[0])
    1.0
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half = np.uint32(1 << (_DROPPED_BITS - 1))
    finite = np.isfinite(values)
    rounded = (bits + half) & ~np.uint32((1 << _DROPPED_BITS) - 1)
    return np.where(finite, rounded, bits).astype(np.uint32).view(np.float32)


def write_frames(
    folder: str | Path,
    field: FieldId,
    frames: Iterable[SdssFrame],
    *,
    compress: bool = True,
    quantise: bool = True,
) -> list[Path]:
    """Write the bands of a field as ``frame-{b}-{run}-{camcol}-{field}.fits[.bz2]``.

    Parameters
    ----------
    folder : path
        Is made if it is not there.
    field : FieldId
        Run, camera column, field: they choose gain and dark variance when the frames are read.
    frames : iterable of SdssFrame
        The bands.
    compress : bool
        Pack with bzip2, as the survey does.
    quantise : bool
        Round the image with `float_compress`, as the survey does.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    OutputError
        If a frame is of no SDSS band, its parts do not fit each other, or a file cannot be written.
    """
    folder = Path(folder)
    written = []
    for frame in frames:
        shapes = (frame.data.shape, (len(frame.sky.y), len(frame.calibration)), frame.sky.shape)
        if frame.band not in BANDS or len(set(shapes)) != 1 or not field.valid:
            raise OutputError(
                f"band {frame.band!r} of field {field.name} has image, calibration and sky of {shapes}; "
                "expected one shape and a band of u g r i z"
            )
        raw = _bytes(field, frame, quantise)
        name = f"frame-{frame.band}-{field.name}.fits" + (".bz2" if compress else "")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(bz2.compress(raw) if compress else raw)
        except OSError as error:
            raise OutputError(f"{folder / name}: cannot be written ({error.strerror or error})") from None
        written.append(folder / name)
    return written


def _bytes(field: FieldId, frame: SdssFrame, quantise: bool) -> bytes:
    from astropy.io import fits

    data = float_compress(frame.data) if quantise else frame.data
    image = fits.PrimaryHDU(data.astype(">f4"))
    for key, value, comment in _cards(field, frame):
        image.header[key] = (value, comment)
    image.header.update(wcs_cards(frame.wcs))
    hdus = [
        image,
        fits.ImageHDU(frame.calibration.astype(">f4")),
        _sky_table(frame.sky),
        _astrometry_table(field, frame),
    ]
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def _cards(field: FieldId, frame: SdssFrame) -> list[tuple[str, Any, str]]:
    return [
        ("TAI", frame.tai, "1st row Number of seconds since Nov 17 1858"),
        ("ORIGIN", "SDSS", ""),
        ("TELESCOP", "2.5m", ""),
        ("TIMESYS", "TAI", ""),
        ("RUN", field.run, "Run number"),
        ("FRAME", field.field + FRAME_OFFSET[frame.band], "Frame sequence number within the run"),
        ("EXPTIME", f"{EXPOSURE_SECONDS:.6f}", "Exposure time (seconds)"),
        ("CCDMODE", "DRIFT", "'STARING' or 'DRIFT'"),
        ("C_OBS", CLOCK_MICROSECONDS, "CCD row clock rate (usec/row)"),
        ("SOFTBIAS", int(SOFT_BIAS), 'software "bias" added to all DN'),
        ("BUNIT", "nanomaggy", "1 nanomaggy = 3.631e-6 Jy"),
        ("FILTER", frame.band, "filter used"),
        ("CAMCOL", field.camcol, "column in the imaging camera"),
        ("NMGY", float(np.float32(np.median(frame.calibration))), "Calibration factor [nMgy per count]"),
        ("RERUN", "301", "rerun"),
    ]


def wcs_cards(wcs: Any) -> dict[str, Any]:
    """Keywords of a linear celestial WCS with a CD matrix.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Without distortion.
    """
    cards: dict[str, Any] = {"RADESYS": "ICRS", "EQUINOX": 2000.0}
    matrix = np.asarray(wcs.pixel_scale_matrix)
    for i in range(2):
        cards[f"CTYPE{i + 1}"] = str(wcs.wcs.ctype[i])
        cards[f"CUNIT{i + 1}"] = "deg"
        cards[f"CRPIX{i + 1}"] = float(wcs.wcs.crpix[i])
        cards[f"CRVAL{i + 1}"] = float(wcs.wcs.crval[i])
        for j in range(2):
            cards[f"CD{i + 1}_{j + 1}"] = float(matrix[i, j])
    return cards


def _sky_table(sky: SkyGrid) -> fits.BinTableHDU:
    from astropy.io import fits

    rows, columns = sky.values.shape
    return fits.BinTableHDU.from_columns(
        [
            fits.Column("ALLSKY", f"{rows * columns}E", dim=f"({columns},{rows})", array=sky.values[None]),
            fits.Column("XINTERP", f"{len(sky.x)}E", array=sky.x[None]),
            fits.Column("YINTERP", f"{len(sky.y)}E", array=sky.y[None]),
        ]
    )


def _astrometry_table(field: FieldId, frame: SdssFrame) -> fits.BinTableHDU:
    """HDU 3 with the columns that name the frame; the astrometric terms are in the WCS."""
    from astropy.io import fits

    rows, columns = frame.data.shape
    return fits.BinTableHDU.from_columns(
        [
            fits.Column("RUN", "J", array=[field.run]),
            fits.Column("RERUN", "3A", array=["301"]),
            fits.Column("CAMCOL", "J", array=[field.camcol]),
            fits.Column("FILTER", "A", array=[frame.band]),
            fits.Column("NAXIS", "2J", array=[[columns, rows]]),
            fits.Column("FIELD", "J", array=[field.field]),
            fits.Column("MJD", "D", array=[frame.tai / 86400.0]),
        ]
    )
