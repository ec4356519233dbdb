"""FITS, ECSV and CSV.

Missing floats are NaN in FITS and ECSV and empty in CSV. In all of them text
and numbers read back to the values that were written: integers have all their
digits, floats as many as their precision needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import FieldTable, Parameter, vo_unit
from imcat.catalogue.files import atomic_path

__all__ = ["write_csv", "write_ecsv", "write_fits"]

# FITS standard 4.0, table 18 (binary table formats).
_FITS_FORMATS = {"int64": "K", "int32": "J", "float64": "D", "float32": "E", "bool": "L"}


def write_fits(table: FieldTable, path: str | Path) -> None:
    """Write a FITS binary table with TUNIT, TUCD and TCOMM for each column.

    Parameters
    ----------
    table : FieldTable
        Text that is not ASCII, which FITS cannot hold, is escaped as in Python.
    path : path
        Replaced when it is there.
    """
    from astropy.io import fits

    columns = []
    for field in table.fields:
        values = table.columns[field.name]
        form = _FITS_FORMATS.get(field.dtype)
        if form is None:
            values = np.char.encode(values, "ascii", "backslashreplace")
            form = f"{max(values.dtype.itemsize, 1)}A"
        columns.append(fits.Column(field.name, form, unit=_fits_unit(field.unit), array=values))
    hdu = fits.BinTableHDU.from_columns(columns, name="SOURCES")
    for number, field in enumerate(table.fields, start=1):
        cards = {"TUCD": field.ucd, "TCOMM": field.description}
        for keyword, text in cards.items():
            if text:
                hdu.header[f"{keyword}{number}"] = text
    for parameter in table.parameters:
        _add_card(hdu.header, parameter)
    with atomic_path(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(temporary, checksum=False)


def write_ecsv(table: FieldTable, path: str | Path) -> None:
    """Write ECSV 1.0, with units, descriptions and UCDs of the columns and PARAMs as the table's meta.

    Parameters
    ----------
    table : FieldTable
        What to write.
    path : path
        Replaced when it is there.
    """
    import yaml  # type: ignore[import-untyped]

    datatypes = {"str": "string"}
    columns = []
    for field in table.fields:
        entries = {"name": field.name, "datatype": datatypes.get(field.dtype, field.dtype)}
        entries |= {"unit": vo_unit(field.unit)} if field.unit else {}
        entries |= {"description": field.description} if field.description else {}
        entries |= {"meta": {"ucd": field.ucd}} if field.ucd else {}  # type: ignore[dict-item]
        columns.append(entries)
    header = {
        "delimiter": ",",
        "datatype": columns,
        "meta": {p.name: _meta_entry(p) for p in table.parameters},
        "schema": "astropy-2.0",
    }
    text = "%ECSV 1.0\n---\n" + yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=10_000)
    head = "".join(f"# {line}\n" for line in text.splitlines())
    # ECSV spells booleans as Python does, and an empty field is a missing value.
    words = {"bool": ("False", "True")}
    with atomic_path(path) as temporary:
        _write_lines(temporary, table, head.encode(), missing="nan", words=words)


def write_csv(table: FieldTable, path: str | Path) -> None:
    """Write comma-separated values with one line of names (RFC 4180, UTF-8).

    Parameters
    ----------
    table : FieldTable
        What to write; units and descriptions are lost.
    path : path
        Replaced when it is there.
    """
    with atomic_path(path) as temporary:
        _write_lines(temporary, table, b"", missing="", words={})


def _write_lines(
    path: Path, table: FieldTable, head: bytes, *, missing: str, words: Mapping[str, tuple[str, str]]
) -> None:
    import pyarrow as pa
    from pyarrow import csv

    arrays = []
    for field in table.fields:
        values = table.columns[field.name]
        arrays.append(_csv_column(values, field.dtype, words.get(field.dtype), missing))
    names = [field.name for field in table.fields]
    quoted = [_quoted(name) if _needs_quotes(name) else name for name in names]
    with path.open("wb") as file:
        file.write(head)
        file.write((",".join(quoted) + "\n").encode())
        options = csv.WriteOptions(include_header=False, quoting_style="needed")
        csv.write_csv(pa.Table.from_arrays(arrays, names=names), file, options)


def _csv_column(values: NDArray[Any], dtype: str, words: tuple[str, str] | None, missing: str) -> Any:
    import pyarrow as pa
    from pyarrow import compute

    if words is not None:
        return compute.if_else(pa.array(values), words[1], words[0])
    if dtype == "str":
        return pa.array(values.tolist(), type=pa.string())
    if not dtype.startswith("float"):
        return pa.array(values)
    lost = np.isnan(values)
    numbers = pa.array(values, mask=lost)
    return compute.fill_null(numbers.cast(pa.string()), missing) if missing and lost.any() else numbers


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _needs_quotes(name: str) -> bool:
    return any(character in name for character in ',"\n ')


def _meta_entry(parameter: Parameter) -> dict[str, Any]:
    value = parameter.value
    entries = {
        "value": list(value) if isinstance(value, tuple) else value,
        "unit": vo_unit(parameter.unit),
        "ucd": parameter.ucd,
        "description": parameter.description,
    }
    return {key: entry for key, entry in entries.items() if key == "value" or entry}


def _fits_unit(unit: str) -> str | None:
    # FITS 4.0, section 4.3: a factor may only be a power of ten; the description has the unit then.
    return None if not unit or unit[0].isdigit() else vo_unit(unit)


def _add_card(header: Any, parameter: Parameter) -> None:
    value = parameter.value
    if isinstance(value, tuple):
        value = " ".join(f"{v:g}" for v in value)
    if isinstance(value, float) and not np.isfinite(value):
        return  # FITS headers have no NaN
    if isinstance(value, str):
        value = value.encode("ascii", "backslashreplace").decode()
    # A card has 80 characters. Not all readers follow a text into a second one.
    keyword = f"HIERARCH {parameter.name}"
    room = 80 - len(f"{keyword} = {value!r:>24} / ")
    if room < 0:
        header["COMMENT"] = f"{parameter.name} = {value}"
        return
    comment = (f"[{vo_unit(parameter.unit)}] " if parameter.unit else "") + parameter.description
    header[keyword] = (value, comment[:room].strip())
