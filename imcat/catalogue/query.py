"""SQL over the sources of a run.

DuckDB sees one view, ``sources``: the rows of every source file, columns of
all bands, with ``is_primary`` resolved between the tiles. It has no access to
files, so a query can read the catalogue and nothing else, and write nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.export import source_files, write_table
from imcat.catalogue.fields import FieldTable
from imcat.catalogue.parquet import arrow_to_numpy
from imcat.catalogue.resolve import read_footprints
from imcat.catalogue.table import missing_value
from imcat.errors import DependencyError, InputError, QueryError
from imcat.schema import Column, Schema

__all__ = ["format_table", "query"]

_RESOLVED = "_imcat_resolved"
_UNKNOWN_COLUMN = re.compile(r'(?:column(?: named)?|named) "(?P<name>[^"]+)"')
#: Digits shown of a float; files have all of them.
_SHOWN_DIGITS = {"float32": 6, "float64": 10}


def query(run_dir: str | Path, sql: str, out: str | Path | None = None) -> FieldTable:
    """Run one SELECT over the sources of a run.

    Parameters
    ----------
    run_dir : path
        Folder of a run.
    sql : str
        One statement; the view is called ``sources``. Measurements that are
        missing are NULL there.
    out : path, optional
        Also write the result; the ending chooses the format (`imcat.catalogue.export`).

    Returns
    -------
    FieldTable
        The result. A column that has the name and kind of one of the schema keeps
        its unit, UCD and description; NULL is NaN, ``''``, or in other whole numbers
        makes the column float64.

    Raises
    ------
    QueryError
        If the statement is no SELECT or DuckDB refuses it.
    InputError
        If the folder holds no run.
    """
    dataset, schema = _dataset(source_files(run_dir))
    database = _database()
    with database.connect(":memory:") as connection:
        connection.register("_imcat_files", dataset)
        connection.register("_imcat_lost", _lost_primaries(run_dir, dataset))
        connection.execute(_view(dataset.schema.names, schema))
        for setting in ("enable_external_access = false", "lock_configuration = true"):
            connection.execute(f"SET {setting}")
        result = _run(database, connection, sql, dataset.schema.names)
    table = _field_table(result, schema)
    if out is not None:
        write_table(table, out)
    return table


def format_table(table: FieldTable, max_rows: int = 40) -> str:
    """A table as aligned text with units, as `imcat query` prints it.

    Parameters
    ----------
    table : FieldTable
        What to show.
    max_rows : int
        Rows beyond are counted, not shown.
    """
    shown = min(len(table), max_rows)
    columns = [
        [field.name, field.unit, *(_cell(v, field.dtype) for v in table.columns[field.name][:shown].tolist())]
        for field in table.fields
    ]
    if not any(field.unit for field in table.fields):
        columns = [[cells[0], *cells[2:]] for cells in columns]
    widths = [max(map(len, cells)) for cells in columns]
    sides = [str.ljust if field.dtype == "str" else str.rjust for field in table.fields]
    lines = [
        "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    rest = len(table) - shown
    return "\n".join([*lines, f"... and {rest} more rows"] if rest else lines)


def _database() -> Any:
    try:
        import duckdb
    except ImportError:
        raise DependencyError("duckdb", "all", "imcat query") from None
    return duckdb


def _dataset(files: list[Path]) -> tuple[Any, Schema]:
    """All source files as one Arrow data set, and the schema of all their columns."""
    import json

    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    schemas: list[Any] = []
    bands: dict[str, Any] = {}
    apertures: set[float] = set()
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                own = json.loads((file.metadata.metadata or {})[b"imcat"])
                schemas.append(file.schema_arrow.remove_metadata())
        except (OSError, ValueError, KeyError, pa.ArrowException):
            raise InputError(
                "it cannot be read", path=path, expected="a catalogue written by imcat"
            ) from None
        known = own["meta"].get("bands") or {}
        bands |= {band: known.get(band) or bands.get(band) for band in own["bands"]}
        apertures |= set(own["apertures"])
    schema = Schema(bands, sorted(apertures))
    unified = pa.unify_schemas(schemas)
    names = [name for name in (c.name for c in schema) if name in unified.names]
    ordered = pa.schema([unified.field(name) for name in names])
    return ds.dataset([str(path) for path in files], schema=ordered, format="parquet"), schema


def _view(names: Iterable[str], schema: Schema) -> str:
    """The statement that makes the view ``sources``."""

    def column(name: str) -> str:
        if name == "is_primary":
            return "f.is_primary AND l.source_id IS NULL AS is_primary"
        declared = schema[name]
        if declared.dtype.startswith("int") and declared.band is not None:
            # A tile without the band has no such column.
            return f'coalesce(f."{name}", {missing_value(declared)})::INTEGER AS "{name}"'
        return f'f."{name}"'

    return (
        f"CREATE VIEW sources AS SELECT {', '.join(column(name) for name in names)} "
        "FROM _imcat_files f LEFT JOIN _imcat_lost l ON f.source_id = l.source_id"
    )


def _lost_primaries(run_dir: str | Path, dataset: Any) -> Any:
    """Identifiers of the sources that are primary in their file but are counted in another tile."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    empty = pa.table({"source_id": pa.array([], type=pa.int64())})
    if not (Path(run_dir) / "run.json").exists():
        return empty  # a bare data set: nothing is known of footprints
    footprints = read_footprints(run_dir)
    contested = footprints.contested_names()
    if not contested:
        return empty
    wanted = ds.field("tile").isin(contested) & ds.field("is_primary")
    rows = dataset.to_table(columns=["source_id", "tile", "ra", "dec"], filter=wanted)
    values = {name: arrow_to_numpy(rows.column(name)) for name in rows.column_names}
    primary = footprints.primary(
        values["ra"], values["dec"], values["tile"], np.ones(len(values["ra"]), dtype=bool)
    )
    return pa.table({"source_id": values["source_id"][~primary]})


def _run(database: Any, connection: Any, sql: str, names: list[str]) -> Any:
    try:
        statements = connection.extract_statements(sql)
        kinds = [statement.type.name for statement in statements]
        if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN", "MULTI"):
            found = ", ".join(kinds) or "nothing"
            raise QueryError(f"the query is {found}; expected one SELECT … FROM sources")
        return connection.sql(sql).to_arrow_table()
    except database.Error as error:
        raise QueryError(_one_line(str(error), names)) from None


def _one_line(message: str, names: list[str]) -> str:
    """DuckDB's first line, with the nearest column where one is unknown."""
    first = " ".join(message.split("\n", 1)[0].split())
    unknown = _UNKNOWN_COLUMN.search(first)
    near = difflib.get_close_matches(unknown["name"], names, n=1, cutoff=0.0) if unknown else []
    if near:
        return f"{first.rstrip('!.')}; the nearest column is {near[0]!r}"
    return first


def _field_table(result: Any, schema: Schema) -> FieldTable:
    columns: dict[str, NDArray[Any]] = {}
    fields: list[Column] = []
    for position, original in enumerate(result.column_names):
        name = _unique_name(original, columns)
        values = _to_numpy(result.column(position))
        dtype = "str" if values.dtype.kind == "U" else str(values.dtype)
        field = Column(name, dtype, "", "", "")
        if name in schema and schema[name].dtype == dtype:
            field = schema[name]
        columns[name] = values
        fields.append(field)
    return FieldTable(columns, tuple(fields))


def _unique_name(name: str, taken: Iterable[str]) -> str:
    lower = {other.lower() for other in taken}
    candidate, number = name, 2
    while candidate.lower() in lower:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _to_numpy(column: Any) -> NDArray[Any]:
    """An Arrow column as one of the dtypes that catalogues have."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_boolean(kind) and not column.null_count:
        return arrow_to_numpy(column)
    if pa.types.is_integer(kind) and not column.null_count and not pa.types.is_uint64(kind):
        return arrow_to_numpy(
            column.cast(pa.int32() if kind.bit_width <= 32 and kind != pa.uint32() else pa.int64())
        )
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return arrow_to_numpy(column)
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return _wide_number(column)
    texts = ["" if value is None else str(value) for value in column.to_pylist()]
    return np.asarray(texts, dtype=np.str_) if texts else np.empty(0, dtype="<U1")


def _wide_number(column: Any) -> NDArray[Any]:
    """Sums and decimals: int64 where every value is a whole number that fits, else float64."""
    values = column.to_pylist()
    limit = np.iinfo(np.int64).max
    if all(v is not None and v == int(v) and abs(v) <= limit for v in values):
        return np.asarray([int(v) for v in values], dtype=np.int64)
    return np.asarray([np.nan if v is None else float(v) for v in values], dtype=np.float64)


def _cell(value: Any, dtype: str) -> str:
    digits = _SHOWN_DIGITS.get(dtype)
    return str(value) if digits is None else f"{value:.{digits}g}"
