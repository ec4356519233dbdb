"""Known sources to compare a catalogue with: truth tables of simulations, reference tables.

Three kinds of table are read to the same `Truth`: those of imcat's own
simulator (``{b}_mag``, ``z_true``), those of the independent simulator
(``mag_{b}``, ``redshift``), and a user's reference table in any format that
astropy reads, SDSS ``photoObj`` files among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.errors import InputError

__all__ = [
    "MAGNITUDE_RANGE",
    "Truth",
    "bulge_disc_half_light_radius",
    "read_columns",
    "read_truth",
]

Float = NDArray[np.float64]
Text = NDArray[np.str_]

#: A magnitude outside this range is a mark for "missing", not a measurement.
MAGNITUDE_RANGE = (5.0, 35.0)

#: Column names that other catalogues use for what a reference table must have.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "ra": ("ra", "raj2000", "alpha_j2000", "alphawin_j2000", "_ra", "ra_icrs"),
    "dec": ("dec", "dej2000", "delta_j2000", "deltawin_j2000", "_de", "de_icrs"),
    "x": ("x",),
    "y": ("y",),
    "kind": ("type", "class", "objc_type"),
    "redshift": ("z_true", "redshift"),
    "half_light_radius": ("half_light_radius",),
    "ra_err": ("ra_err", "raerr", "e_raj2000"),
    "dec_err": ("dec_err", "decerr", "e_dej2000"),
}

#: SDSS keeps the five bands of a quantity in one column of arrays, in this order.
_SDSS_BANDS = ("u", "g", "r", "i", "z")

#: Kinds of magnitude in an SDSS table, the first one that is there is used for total magnitudes.
_SDSS_TOTAL = ("cmodelmag", "modelmag", "petromag")
_SDSS_POINT = ("psfmag",)

#: OBJC_TYPE of the SDSS photometric pipeline.
_SDSS_TYPES = {3: "galaxy", 6: "star"}


@dataclass(frozen=True, eq=False)
class Truth:
    """Known sources of one patch of sky; every array has one value per source.

    Attributes
    ----------
    name : str
        What messages call it: the table's file.
    complete : bool
        True for the truth of a simulation, which lists everything that is there. A detection
        that a reference table does not list need not be false.
    ra, dec : float64 array, optional
        ICRS, degrees.
    x, y : float64 array, optional
        0-based pixels of the reference band.
    kind : str array
        ``star``, ``galaxy``, ``quasar``; empty where unknown.
    magnitudes : dict of str to float64 array
        Total AB magnitudes by band; NaN where missing.
    magnitude_errors : dict of str to float64 array
        Their errors, where the table has them.
    half_light_radius : float64 array, optional
        Intrinsic, arcsec, along the major axis.
    redshift : float64 array, optional
        NaN where missing.
    position_errors : (float64 array, float64 array), optional
        Errors of right ascension (on the sky) and declination, arcsec.
    tiles : frozenset of str
        Names of the files beside the table, by which it is assigned to a tile; empty where
        the sky position alone must decide.
    """

    name: str
    complete: bool
    kind: Text
    ra: Float | None = None
    dec: Float | None = None
    x: Float | None = None
    y: Float | None = None
    magnitudes: dict[str, Float] = field(default_factory=dict)
    magnitude_errors: dict[str, Float] = field(default_factory=dict)
    half_light_radius: Float | None = None
    redshift: Float | None = None
    position_errors: tuple[Float, Float] | None = None
    tiles: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return int(self.kind.size)

    @property
    def on_sky(self) -> bool:
        """Whether sky positions are known."""
        return self.ra is not None and self.dec is not None

    def belongs_to(self, tile: str) -> bool:
        """Whether the files beside the table are those of a tile of that name."""
        return any(tile in name for name in self.tiles)


def read_truth(path: str | Path) -> list[Truth]:
    """Read one table, or the ``truth.parquet`` of every tile of a folder.

    Parameters
    ----------
    path : path
        A table in any format that astropy or pyarrow reads, or a folder: the truth.parquet
        in it, or those in its sub-folders.

    Returns
    -------
    list of Truth
        One per table, in the order of their paths.

    Raises
    ------
    InputError
        If nothing is there, or a table has no positions.
    """
    path = Path(path)
    if not path.is_dir():
        return [_truth_of(path, siblings=path.name == "truth.parquet")]
    tables = [path / "truth.parquet"] if (path / "truth.parquet").is_file() else []
    tables = tables or sorted(path.glob("*/truth.parquet"))
    if not tables:
        raise InputError("the folder holds no truth", path=path, expected="truth.parquet or */truth.parquet")
    return [_truth_of(table, siblings=True) for table in tables]


def read_columns(path: str | Path) -> dict[str, NDArray[Any]]:
    """Columns of a table file, masked values as NaN (integers and text keep their fill value).

    Parameters
    ----------
    path : path
        Parquet, FITS, VOTable, ECSV, CSV or what else astropy recognises.

    Raises
    ------
    InputError
        If the file is missing or cannot be read as a table.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", path=path, expected="a table")
    try:
        if path.suffix in (".parquet", ".parq", ".pq"):
            return _parquet_columns(path)
        return _astropy_columns(path)
    except InputError:
        raise
    except Exception as error:  # every format has exceptions of its own
        reason = str(error).partition("The available formats")[0].strip()  # astropy lists them all
        raise InputError(
            f"the table cannot be read ({type(error).__name__}: {reason})",
            path=path,
            expected="Parquet, FITS, VOTable, ECSV or CSV",
        ) from error


def _parquet_columns(path: Path) -> dict[str, NDArray[Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        values = table.column(name).to_numpy(zero_copy_only=False)
        mask_name = f"{name}.mask"  # astropy's Parquet writer keeps masks in a column of their own
        if mask_name in table.column_names and np.issubdtype(values.dtype, np.floating):
            mask = table.column(mask_name).to_numpy(zero_copy_only=False).astype(bool)
            values = np.where(mask, np.nan, values)
        columns[name] = values.astype(str) if values.dtype == object else values
    return {name: values for name, values in columns.items() if not name.endswith(".mask")}


def _astropy_columns(path: Path) -> dict[str, NDArray[Any]]:
    import warnings

    from astropy.table import Table

    with warnings.catch_warnings():
        # Units and headers of foreign tables are often a little off; their numbers are not.
        warnings.simplefilter("ignore")
        if path.name.lower().endswith((".fits", ".fit", ".fits.gz", ".fit.gz")):
            table = Table.read(path, format="fits")
        else:
            table = Table.read(path, format=_FORMATS.get(path.suffix.lower()))
    columns = {}
    for name in table.colnames:
        column = table[name]
        if np.issubdtype(column.dtype, np.floating) and hasattr(column, "filled"):
            column = column.filled(np.nan)
        columns[name] = np.asarray(column)
    return columns


_FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable"}


def _truth_of(path: Path, *, siblings: bool) -> Truth:
    columns = read_columns(path)
    if not columns:
        raise InputError("the table has no column", path=path, expected="ra and dec, or x and y")
    if siblings and path.parent.is_dir():
        beside = frozenset([path.parent.name, *(other.name for other in path.parent.iterdir())])
    else:
        beside = frozenset()
    lower = {name.lower(): name for name in columns}

    def get(key: str) -> NDArray[Any] | None:
        found = (columns[lower[alias]] for alias in _ALIASES[key] if alias in lower)
        # SDSS tables have one value per band in a column such as TYPE.
        return next((values for values in found if values.ndim == 1), None)

    def number(key: str) -> Float | None:
        values = get(key)
        return None if values is None else np.asarray(values, dtype=np.float64)

    ra, dec, x, y = (number(key) for key in ("ra", "dec", "x", "y"))
    if (ra is None or dec is None) and (x is None or y is None):
        raise InputError(
            f"the table has no positions (its columns: {', '.join(list(columns)[:8])} …)",
            path=path,
            expected="ra and dec in degrees, or x and y in 0-based pixels",
        )
    length = len(next(iter(columns.values())))
    kind = _kinds(get("kind"), length)
    magnitudes, errors = _magnitudes(columns, kind)
    size = number("half_light_radius")
    if size is None and {"bt_r", "bulge_re", "disk_h"} <= set(columns):
        size = bulge_disc_half_light_radius(columns["bt_r"], columns["bulge_re"], columns["disk_h"])
    ra_err, dec_err = number("ra_err"), number("dec_err")
    truth = Truth(
        name=str(path),
        complete=path.name == "truth.parquet" or ("z_true" in columns and "type" in columns),
        kind=kind,
        ra=ra,
        dec=dec,
        x=x,
        y=y,
        magnitudes=magnitudes,
        magnitude_errors=errors,
        half_light_radius=size,
        redshift=number("redshift"),
        position_errors=(ra_err, dec_err) if ra_err is not None and dec_err is not None else None,
        tiles=beside,
    )
    return _finite_positions(truth)


def _finite_positions(truth: Truth) -> Truth:
    """Leave out rows whose position is not finite: they can be matched to nothing."""
    keep = np.ones(len(truth), dtype=bool)
    for values in (truth.ra, truth.dec, truth.x, truth.y):
        if values is not None:
            keep &= np.isfinite(values)
    if keep.all():
        return truth

    def cut(values: Float | None) -> Float | None:
        return None if values is None else values[keep]

    errors = truth.position_errors
    return replace(
        truth,
        kind=truth.kind[keep],
        ra=cut(truth.ra),
        dec=cut(truth.dec),
        x=cut(truth.x),
        y=cut(truth.y),
        magnitudes={b: m[keep] for b, m in truth.magnitudes.items()},
        magnitude_errors={b: m[keep] for b, m in truth.magnitude_errors.items()},
        half_light_radius=cut(truth.half_light_radius),
        redshift=cut(truth.redshift),
        position_errors=None if errors is None else (errors[0][keep], errors[1][keep]),
    )


def _kinds(values: NDArray[Any] | None, length: int) -> Text:
    if values is None:
        return np.full(length, "", dtype="U8")
    if np.issubdtype(values.dtype, np.integer):
        return np.array([_SDSS_TYPES.get(int(v), "") for v in values], dtype="U8")
    return np.char.lower(np.char.strip(values.astype(str)))


def _magnitudes(columns: Mapping[str, NDArray[Any]], kind: Text) -> tuple[dict[str, Float], dict[str, Float]]:
    """Magnitudes and their errors by band, whatever the table calls them."""
    magnitudes: dict[str, Float] = {}
    errors: dict[str, Float] = {}
    for name, values in columns.items():
        band = _band_of(name)
        if band is None or values.ndim != 1 or not np.issubdtype(values.dtype, np.number):
            continue
        if name.lower().endswith("_err"):
            errors[band] = _plausible(values, (0.0, 5.0))
        else:
            magnitudes[band] = _plausible(values, MAGNITUDE_RANGE)
    if magnitudes:
        return magnitudes, errors
    lower = {name.lower(): values for name, values in columns.items()}
    total = next((lower[n] for n in _SDSS_TOTAL if n in lower), None)
    point = next((lower[n] for n in _SDSS_POINT if n in lower), None)
    if total is None and point is None:
        return {}, {}
    total_err = next((lower[n + "err"] for n in _SDSS_TOTAL if n in lower and n + "err" in lower), None)
    point_err = next((lower[n + "err"] for n in _SDSS_POINT if n + "err" in lower), None)
    for index, band in enumerate(_SDSS_BANDS):
        magnitudes[band] = _plausible(_by_kind(total, point, kind, index), MAGNITUDE_RANGE)
        if total_err is not None or point_err is not None:
            errors[band] = _plausible(_by_kind(total_err, point_err, kind, index), (0.0, 5.0))
    return magnitudes, errors


def _by_kind(total: NDArray[Any] | None, point: NDArray[Any] | None, kind: Text, index: int) -> NDArray[Any]:
    """One band of an array column: PSF magnitudes for stars, model magnitudes for the rest."""
    chosen = [values[:, index] for values in (total, point) if values is not None]
    return np.where(kind == "star", chosen[-1], chosen[0])


def _band_of(name: str) -> str | None:
    """Band of a magnitude column of a foreign table: ``r_mag``, ``mag_r``, ``r_mag_err`` or ``mag_r_err``."""
    text = name.lower().removesuffix("_err")
    for band in (text.removesuffix("_mag"), text.removeprefix("mag_")):
        if band != text and band and "mag" not in band.split("_"):
            return band
    return None


def _plausible(values: NDArray[Any], limits: tuple[float, float]) -> Float:
    numbers = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where((numbers >= limits[0]) & (numbers <= limits[1]), numbers, np.nan)


def bulge_disc_half_light_radius(
    bulge_fraction: ArrayLike, bulge_radius: ArrayLike, disc_scale: ArrayLike, steps: int = 60
) -> Float:
    """Half-light radius of a de Vaucouleurs bulge in an exponential disc.

    The light inside a radius r is P(8, 7.66925 (r / r_e)^(1/4)) for the bulge, P the
    regularised incomplete gamma function (Graham & Driver 2005, PASA 22, 118, with n = 4), and
    1 − (1 + r / h) exp(−r / h) for the disc. Both are taken to have the same flattening.

    Parameters
    ----------
    bulge_fraction : array
        Fraction of the light in the bulge.
    bulge_radius : array, arcsec
        Effective radius of the bulge.
    disc_scale : array, arcsec
        Scale length of the disc.
    steps : int
        Bisections.

    Returns
    -------
    float64 array
        arcsec; zero for a point source.
    """
    from scipy.special import gammainc

    fraction, bulge, disc = np.broadcast_arrays(
        *(np.nan_to_num(np.asarray(v, dtype=np.float64)) for v in (bulge_fraction, bulge_radius, disc_scale))
    )
    low, high = np.zeros(bulge.shape), 3.0 * np.maximum(bulge, disc)
    tiny = np.finfo(np.float32).tiny
    for _ in range(steps):
        middle = 0.5 * (low + high)
        in_bulge = np.where(bulge > 0, gammainc(8, 7.66925 * (middle / np.maximum(bulge, tiny)) ** 0.25), 1)
        scaled = middle / np.maximum(disc, tiny)
        in_disc = np.where(disc > 0, 1 - (1 + scaled) * np.exp(-np.minimum(scaled, 700)), 1)
        inside = fraction * in_bulge + (1 - fraction) * in_disc
        low, high = np.where(inside < 0.5, middle, low), np.where(inside < 0.5, high, middle)
    return np.asarray(0.5 * (low + high), dtype=np.float64)
