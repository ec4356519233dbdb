"""The catalogue: columns that have passed the schema, and what is known about them all.

Text columns are numpy unicode arrays (``<U``), empty where there is nothing;
floats are NaN where there is no measurement; integers and booleans have no
missing value.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.errors import SchemaError
from imcat.flags import SourceFlag
from imcat.schema import Column, Schema

__all__ = ["Catalogue", "concatenate", "missing_value"]

#: What stands in a row whose tile has no such column, where it is not the
#: missing value of the dtype.
_MISSING_BY_TEMPLATE: dict[str, int] = {"{b}_flags": int(SourceFlag.OUTSIDE), "{b}_n_exposures": 0}
_MISSING_BY_DTYPE: dict[str, Any] = {
    "float32": np.nan,
    "float64": np.nan,
    "str": "",
    "int32": 0,
    "int64": 0,
    "bool": False,
}
_KINDS = {"float32": "fiu", "float64": "fiu", "int32": "iu", "int64": "iu", "bool": "b", "str": "U"}


def missing_value(column: Column) -> Any:
    """What stands where a tile has no such column: NaN, ``''``, or the bit ``OUTSIDE`` in the flags of a band."""
    return _MISSING_BY_TEMPLATE.get(column.template, _MISSING_BY_DTYPE[column.dtype])


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A table that has passed the schema; make one with `build`.

    Attributes
    ----------
    columns : dict of str to array
        One-dimensional arrays of equal length, in the order of the schema.
    schema : Schema
        Declares every column.
    meta : dict
        What holds for the whole table, made of JSON's types: ``tile``, ``survey``,
        ``reference``, ``bands`` (name to effective wavelength in Å), ``apertures``
        (arcsec) and more. A file's header and its PARAMs come from here.
    """

    columns: dict[str, NDArray[Any]]
    schema: Schema
    meta: dict[str, Any]

    @classmethod
    def build(
        cls, columns: Mapping[str, ArrayLike], schema: Schema, meta: Mapping[str, Any] | None = None
    ) -> Catalogue:
        """Check columns against a schema, cast them and put them in order.

        Parameters
        ----------
        columns : mapping of str to array_like, shape (n,)
            Masked floats become NaN, None in text becomes ``''``.
        schema : Schema
            The columns that may be there, and those that must.
        meta : mapping, optional
            JSON's types, numpy scalars and arrays; values that are not finite become None.

        Raises
        ------
        SchemaError
            If a required column is absent, a column is unknown, a value does not fit
            its column's dtype, lengths differ, a ``source_id`` occurs twice or a
            probability lies outside 0–1.
        """
        _check_names(columns, schema)
        cast = {c.name: _cast(columns[c.name], c) for c in schema if c.name in columns}
        _check_lengths(cast)
        _check_values(cast, schema)
        return cls(cast, schema, _plain_meta(meta or {}, schema))

    @classmethod
    def empty(cls, schema: Schema, meta: Mapping[str, Any] | None = None) -> Catalogue:
        """A catalogue of no sources with the required columns."""
        return cls.build({name: [] for name in schema.required}, schema, meta)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.columns[name]
        except KeyError:
            raise SchemaError(f"the catalogue has no column {name!r}{_suggest(name, self.columns)}") from None

    @property
    def fields(self) -> tuple[Column, ...]:
        """Declarations of the columns that are there, in order."""
        return tuple(self.schema[name] for name in self.columns)

    def select(self, rows: NDArray[Any]) -> Catalogue:
        """Some of the rows.

        Parameters
        ----------
        rows : array of bool or int
            A mask or indices.
        """
        return replace(self, columns={name: values[rows] for name, values in self.columns.items()})

    def with_columns(self, columns: Mapping[str, ArrayLike]) -> Catalogue:
        """The catalogue with further or replaced columns, checked again."""
        return Catalogue.build({**self.columns, **columns}, self.schema, self.meta)


def concatenate(catalogues: Sequence[Catalogue]) -> Catalogue:
    """One catalogue of many tiles, whose bands, apertures and columns may differ.

    Rows keep their order. Where a tile has no such column stands `missing_value`.

    Parameters
    ----------
    catalogues : sequence of Catalogue
        At least one.

    Returns
    -------
    Catalogue
        Bands in order of wavelength. Entries of `meta` that are the same in all tiles
        are kept; those that differ stand in ``meta["tiles"][tile]``.

    Raises
    ------
    SchemaError
        If there is nothing to concatenate, or a ``source_id`` occurs in two tiles.
    """
    if not catalogues:
        raise SchemaError("no catalogue to concatenate; expected at least one")
    if len(catalogues) == 1:
        return catalogues[0]
    wavelengths: dict[str, float | None] = {}
    for catalogue in catalogues:
        known = catalogue.meta.get("bands") or {}
        for band in catalogue.schema.bands:
            wavelengths[band] = wavelengths.get(band) or known.get(band)
    # A stable sort: bands whose wavelength nobody states stay in order of appearance, last.
    bands = dict(sorted(wavelengths.items(), key=lambda item: item[1] or math.inf))
    apertures = sorted({d for catalogue in catalogues for d in catalogue.schema.apertures})
    schema = Schema(bands, apertures)  # type: ignore[arg-type]
    present = {name for catalogue in catalogues for name in catalogue.columns}
    columns = {
        column.name: np.concatenate([_column_or_missing(c, column) for c in catalogues])
        for column in schema
        if column.name in present
    }
    return Catalogue.build(columns, schema, _merge_meta(catalogues, bands, apertures))


def _column_or_missing(catalogue: Catalogue, column: Column) -> NDArray[Any]:
    if column.name in catalogue:
        return catalogue[column.name]
    dtype = "<U1" if column.dtype == "str" else column.dtype
    return np.full(len(catalogue), missing_value(column), dtype=dtype)


def _merge_meta(
    catalogues: Sequence[Catalogue], bands: Mapping[str, float | None], apertures: list[float]
) -> dict[str, Any]:
    metas = [dict(c.meta) for c in catalogues]
    keys = list(dict.fromkeys(key for meta in metas for key in meta))
    keys = [key for key in keys if key not in ("bands", "apertures", "tiles")]
    same = [key for key in keys if all(meta.get(key) == metas[0].get(key) for meta in metas)]
    merged: dict[str, Any] = {key: metas[0][key] for key in same}
    merged |= {"bands": dict(bands), "apertures": apertures}
    tiles: dict[str, Any] = {}
    for meta in metas:
        differing = {key: meta[key] for key in keys if key in meta and key not in same and key != "tile"}
        nested = meta.get("tiles") or {str(meta.get("tile", "")): {}}
        tiles |= {name: {**differing, **entries} for name, entries in nested.items()}
    merged["tiles"] = tiles
    return merged


def _check_names(columns: Mapping[str, Any], schema: Schema) -> None:
    known = [column.name for column in schema]
    for name in columns:
        if name not in schema:
            raise SchemaError(f"column {name!r} is not in the schema{_suggest(name, known)}")
    absent = [name for name in schema.required if name not in columns]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise SchemaError(f"required columns are absent: {', '.join(absent[:5])}{more}")


def _check_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    first, expected = next(iter(lengths.items()), ("", 0))
    for name, length in lengths.items():
        if length != expected:
            raise SchemaError(f"column {name!r} has {length} rows; expected the {expected} of {first!r}")


def _check_values(columns: Mapping[str, NDArray[Any]], schema: Schema) -> None:
    identifiers = columns.get("source_id")
    if identifiers is not None and len(identifiers):
        ordered = np.sort(identifiers)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.size:
            raise SchemaError(f"source_id {twice[0]} occurs more than once; expected unique identifiers")
    for name, values in columns.items():
        if not schema[name].ucd.startswith("stat.probability"):
            continue
        wrong = (values < 0) | (values > 1)  # False for NaN
        if wrong.any():
            raise SchemaError(f"column {name!r} holds {values[wrong][0]}; expected 0 to 1, or NaN")


def _cast(values: ArrayLike, column: Column) -> NDArray[Any]:
    array = _text(values) if column.dtype == "str" else _unmasked(values, column)
    if array.ndim != 1:
        raise SchemaError(f"column {column.name!r} has {array.ndim} dimensions; expected 1")
    if array.size == 0:
        return np.empty(0, dtype="<U1" if column.dtype == "str" else column.dtype)
    if array.dtype.kind not in _KINDS[column.dtype]:
        raise SchemaError(f"column {column.name!r} has dtype {array.dtype}; expected {column.dtype}")
    if column.dtype == "str":
        return array
    if column.dtype.startswith("int"):
        limits = np.iinfo(column.dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise SchemaError(f"column {column.name!r} holds values that do not fit {column.dtype}")
    with np.errstate(over="ignore"):  # beyond float32 is infinity, as everywhere in numpy
        return np.ascontiguousarray(array, dtype=column.dtype)


def _unmasked(values: ArrayLike, column: Column) -> NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):
        if values.dtype.kind == "f":
            return np.asarray(values.filled(np.nan))
        if np.ma.is_masked(values):
            raise SchemaError(f"column {column.name!r} of dtype {column.dtype} has masked values")
    return np.asarray(values)


def _text(values: ArrayLike) -> NDArray[Any]:
    array = np.ma.filled(values, "") if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if array.dtype.kind == "O" and all(v is None or isinstance(v, str) for v in array.flat):
        array = np.asarray(["" if v is None else v for v in array.flat], dtype=np.str_).reshape(array.shape)
    # The width that the values need, so that equal columns have equal dtypes.
    if array.dtype.kind == "U" and array.size:
        width = max(int(np.char.str_len(array).max()), 1)
        return array.astype(f"<U{width}")
    return array


def _plain_meta(meta: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(_plain(meta)))
    except (TypeError, ValueError) as error:
        raise SchemaError(f"the catalogue's meta cannot be written as JSON: {error}") from None
    bands = plain.get("bands")
    if bands is not None and set(bands) != set(schema.bands):
        raise SchemaError(
            f"meta names the bands {', '.join(bands) or 'none'}; "
            f"expected those of the schema: {', '.join(schema.bands) or 'none'}"
        )
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; the nearest is {near[0]!r}" if near else ""
