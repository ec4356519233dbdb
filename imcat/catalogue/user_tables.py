"""Tables of users: any format in, the same table with more columns out."""

from __future__ import annotations

import warnings as python_warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.errors import InputError, UsageError
from imcat.schema import Schema

__all__ = ["check_format", "numbers", "read_table", "write_table"]

_FORMATS = {
    ".fits": "fits", ".fit": "fits", ".vot": "votable", ".xml": "votable", ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv", ".parquet": "parquet",
}  # fmt: skip


def check_format(path: Path) -> None:
    """Refuse a file to write whose ending is that of no format.

    Raises
    ------
    UsageError
        With the endings that are known.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: ending {path.suffix!r} is unknown; expected one of {', '.join(_FORMATS)}")


def read_table(path: Path, expected: str) -> Any:
    """Any table that astropy reads, an `astropy.table.Table`.

    Parameters
    ----------
    path : path
        Of the table.
    expected : str
        What it should hold, for messages.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    from astropy.table import Table

    if not path.is_file():
        raise InputError("no such file", path=path, expected=expected)
    name = path.name.lower().removesuffix(".gz").removesuffix(".bz2")
    known = _FORMATS.get(Path(name).suffix)
    try:
        with python_warnings.catch_warnings():
            # Units and headers of foreign tables are often a little off; their numbers are not.
            python_warnings.simplefilter("ignore")
            return Table.read(path, format=known)
    except Exception as error:  # every format has its own way to fail
        text = str(error).splitlines()
        raise InputError(
            f"the table cannot be read ({text[0] if text else type(error).__name__})",
            path=path,
            expected="FITS, VOTable, ECSV, CSV or Parquet",
        ) from None


def numbers(table: Any, name: str, path: Path) -> NDArray[np.float64]:
    """A column as numbers, NaN where it is masked.

    Raises
    ------
    InputError
        If it holds none.
    """
    column = table[name]
    try:
        mask = np.ma.getmaskarray(column) if hasattr(column, "filled") else None
        values = np.array(column.data.data if mask is not None else column, dtype=np.float64)
        if mask is not None:
            values[mask] = np.nan
        return values
    except (TypeError, ValueError):
        raise InputError(
            f"column {name} holds no numbers", path=path, expected="floating-point numbers"
        ) from None


def write_table(table: Any, columns: dict[str, Any], path: Path, schema: Schema) -> None:
    """Write the table with columns added; ones of the same name are replaced.

    Parameters
    ----------
    table : astropy.table.Table
        What came in.
    columns : dict of arrays
        By name.
    path : path
        Its ending tells the format.
    schema : Schema
        Types, units and descriptions of the columns it knows.
    """
    result = table.copy()
    for name, values in columns.items():
        result[name] = values
        if name in schema:
            column = schema[name]
            result[name] = np.asarray(values).astype(np.str_ if column.dtype == "str" else column.dtype)
            result[name].description = column.description
            if column.unit:
                result[name].unit = column.unit
    with atomic_path(path) as temporary, python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # units that a format has no word for
        result.write(temporary, format=_FORMATS[path.suffix.lower()], overwrite=True)
