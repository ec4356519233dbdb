"""Catalogues as Parquet, the form in which a run keeps them.

The files follow the VOParquet convention (IVOA Note "Parquet in the VO"): the
file's metadata hold a VOTable document without data, which carries units,
UCDs, descriptions and PARAMs. A further entry, ``imcat``, lets `read_parquet`
build the same `Catalogue` again. Missing floats are nulls, since a database
takes NaN for a number larger than all others.

The bytes depend on the catalogue and on the version of pyarrow only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imcat.catalogue.fields import FieldTable, fields_of
from imcat.catalogue.files import atomic_path
from imcat.catalogue.table import Catalogue
from imcat.catalogue.votable import votable_header
from imcat.errors import InputError
from imcat.schema import Column, Schema

__all__ = ["arrow_to_numpy", "read_parquet", "write_parquet", "write_parquet_table"]

_VERSION_KEY = b"IVOA.VOTable-Parquet.version"
_CONTENT_KEY = b"IVOA.VOTable-Parquet.content"
_IMCAT_KEY = b"imcat"

_ARROW: dict[str, Any] = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "str": pa.string(),
}
#: Rows of a row group: fixed, so that bytes do not follow a default of the library.
_ROW_GROUP = 65536


def write_parquet(catalogue: Catalogue, path: str | Path) -> None:
    """Write a catalogue so that `read_parquet` gives the same one back.

    Parameters
    ----------
    catalogue : Catalogue
        What to write.
    path : path
        Replaced when it is there, and never half-written.
    """
    own = {
        "bands": list(catalogue.schema.bands),
        "apertures": list(catalogue.schema.apertures),
        "meta": catalogue.meta,
    }
    extra = {_IMCAT_KEY: json.dumps(own, ensure_ascii=False, allow_nan=False).encode()}
    write_parquet_table(fields_of(catalogue), path, extra)


def write_parquet_table(table: FieldTable, path: str | Path, extra: dict[bytes, bytes] | None = None) -> None:
    """Write any table as Parquet with VOTable metadata.

    Parameters
    ----------
    table : FieldTable
        What to write.
    path : path
        Replaced when it is there.
    extra : dict, optional
        Further entries of the file's metadata.
    """
    metadata = {_VERSION_KEY: b"1.0", _CONTENT_KEY: votable_header(table).encode(), **(extra or {})}
    for column in table.fields:
        if column.dtype == "str":
            # astropy asks how long texts are.
            longest = np.char.str_len(table.columns[column.name]).max(initial=1)
            metadata[f"table::len::{column.name}".encode()] = str(max(int(longest), 1)).encode()
    schema = pa.schema([pa.field(c.name, _ARROW[c.dtype]) for c in table.fields])
    arrays = [_to_arrow(table.columns[c.name], c) for c in table.fields]
    # A dictionary helps where values repeat; on measured floats it only costs time.
    repeating: list[str] | bool = [c.name for c in table.fields if c.dtype in ("str", "int32")] or False
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=repeating,
            store_schema=False,
            version="2.6",
        ) as writer,
    ):
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_ROW_GROUP)
        writer.add_key_value_metadata(metadata)


def read_parquet(path: str | Path) -> Catalogue:
    """Read a catalogue that `write_parquet` wrote.

    Parameters
    ----------
    path : path
        One file.

    Raises
    ------
    InputError
        If the file is absent, is no Parquet file or was not written by imcat.
    SchemaError
        If its columns do not follow the schema.
    """
    try:
        # Not `read_table`: that would take `tile=…` in a folder's name for a column.
        with pq.ParquetFile(path) as file:
            table = file.read()
            metadata = file.metadata.metadata or {}
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"it cannot be read ({str(error).splitlines()[0]})", path=path, expected="a Parquet file"
        ) from None
    try:
        own = json.loads(metadata[_IMCAT_KEY])
        meta, names, apertures = own["meta"], own["bands"], own["apertures"]
    except (KeyError, ValueError):
        raise InputError(
            "the file has no metadata of imcat", path=path, expected="a catalogue written by imcat"
        ) from None
    wavelengths = meta.get("bands") or {}
    schema = Schema({name: wavelengths.get(name) for name in names}, apertures)  # type: ignore[misc]
    columns = {name: arrow_to_numpy(table.column(name)) for name in table.column_names}
    return Catalogue.build(columns, schema, meta)


def arrow_to_numpy(column: Any) -> NDArray[Any]:
    """An Arrow column as the array that a `Catalogue` holds.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Nulls become NaN in floats and ``''`` in text.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        encoded = column.combine_chunks().fill_null("").dictionary_encode()
        values = np.asarray(encoded.dictionary.to_pylist() or [""], dtype=np.str_)
        return np.asarray(values[encoded.indices.to_numpy(zero_copy_only=False)])
    if pa.types.is_floating(column.type):
        # Through numpy's own dtype: pyarrow would widen float32 with nulls.
        return np.asarray(column.to_numpy(), dtype=column.type.to_pandas_dtype())
    return np.asarray(column.to_numpy())


def _to_arrow(values: NDArray[Any], column: Column) -> Any:
    # From buffers: pa.array() would import pandas, where it is installed, to ask it about the
    # type of its argument, and that takes longer than to write the file.
    kind = _ARROW[column.dtype]
    if column.dtype == "str":
        unique, index = np.unique(values, return_inverse=True)
        encoded = [text.encode() for text in unique.tolist()]
        lengths = np.array([len(text) for text in encoded], dtype=np.int32)
        offsets = np.zeros(values.size + 1, dtype=np.int32)
        np.cumsum(lengths[index], out=offsets[1:])
        data = b"".join([encoded[i] for i in index.tolist()])
        return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    if column.dtype == "bool":
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(bits)])
    valid = None
    if column.dtype.startswith("float"):
        missing = np.isnan(values)
        if missing.any():
            valid = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(kind, values.size, [valid, pa.py_buffer(np.ascontiguousarray(values))])
