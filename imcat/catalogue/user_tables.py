"""Tables of users: any format in, the same table with more columns out."""

from __future__ import annotations

import warnings as python_warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.errors import InputError, UsageError
from imcat.schema import Schema

__all__ = ["check_columns", "check_format", "numbers", "read_table", "write_table"]

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
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; expected one that exists")


def check_columns(table: Any, path: Path) -> None:
    """Refuse a table with columns that the format to write cannot hold, before any work is done.

    Raises
    ------
    UsageError
        With the first such column.
    """
    with TemporaryDirectory() as folder, python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        for name in table.colnames:
            try:
                table[[name]][:1].write(
                    Path(folder) / f"one{path.suffix}", format=_FORMATS[path.suffix.lower()], overwrite=True
                )
            except Exception as error:  # every format has its own way to fail
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise UsageError(
                    f"{path}: column {name} cannot be written in this format ({reason}); expected another ending "
                    "(.ecsv holds most), or a table without it"
                ) from None


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
            # Spreadsheets begin such files with a mark of the encoding.
            more = {"encoding": "utf-8-sig"} if known == "ascii.csv" else {}
            return Table.read(path, format=known, **more)
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
    if len(column.shape) > 1:
        raise InputError(
            f"column {name} holds {column.shape[1:]} values a row", path=path, expected="one number a row"
        )
    try:
        mask = np.ma.getmaskarray(column) if hasattr(column, "filled") else None
        values = np.array(column.data.data if mask is not None else column, dtype=np.float64)
        if mask is not None:
            values[mask] = np.nan
        return values
    except (TypeError, ValueError):
        raise InputError(
            f"column {name} holds no numbers{_first_other(column)}",
            path=path,
            expected="floating-point numbers",
        ) from None


def _first_other(column: Any) -> str:
    """Where the first cell is that is no number."""
    for row, value in enumerate(column):
        try:
            float(value)
        except (TypeError, ValueError):
            return f" (row {row + 1}: {value!s:.20})"
    return ""


def write_table(table: Any, columns: dict[str, Any], path: Path, schema: Schema) -> list[str]:
    """Write the table with columns added; those of the same name that it had are kept, as ``input_`` and their name.

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

    Returns
    -------
    list of str
        What the user should know: which names were in the table already.
    """
    result = table.copy()
    clashes = [name for name in columns if name in result.colnames]
    for name in clashes:
        kept = f"input_{name}"
        while kept in result.colnames or kept in columns:
            kept = f"input_{kept}"
        result.rename_column(name, kept)
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
    if not clashes:
        return []
    return [
        f"{len(clashes)} of the table's columns have names that are written here ({', '.join(clashes[:4])}"
        f"{' ...' if len(clashes) > 4 else ''}); they are kept as input_{clashes[0]} and so on"
    ]
