"""VOTable: the header that every VOTable of imcat has, and whole documents.

The header is written from the declarations, by hand, because it is needed
inside Parquet too, where loading astropy's VOTable package would cost more
than writing the file, and where its own writer drops descriptions.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import FieldTable, Parameter, vo_unit
from imcat.catalogue.files import atomic_path
from imcat.schema import Column

__all__ = ["votable_header", "write_votable"]

# VOTable 1.4 (REC-VOTable-20191021), section 2.1: datatypes by schema dtype.
_DATATYPES = {
    "int64": "long",
    "int32": "int",
    "float64": "double",
    "float32": "float",
    "bool": "boolean",
    "str": "char",
}
#: Bytes of a character, of the datatypes that are text.
_CHARACTER_BYTES = {"char": 1, "unicodeChar": 2}
#: Rows that are encoded at a time; a multiple of 3, so that base64 needs no padding within.
_CHUNK = 3 * 4096
#: References of columns to the coordinate and time systems declared above the table.
_REFERENCES = {"pos.eq.ra;meta.main": "ICRS", "pos.eq.dec;meta.main": "ICRS", "time.epoch": "TAI"}

_SYSTEMS = {
    "ICRS": '<COOSYS ID="ICRS" system="ICRS"/>\n',
    "TAI": '<TIMESYS ID="TAI" timeorigin="MJD-origin" timescale="TAI" refposition="TOPOCENTER"/>\n',
}
_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results">
{systems}<TABLE name="sources">
<DESCRIPTION>Catalogue of sources made by imcat</DESCRIPTION>
"""
_TAIL = """</TABLE>
</RESOURCE>
</VOTABLE>
"""


def votable_header(table: FieldTable) -> str:
    """A VOTable document with PARAMs and FIELDs and no data.

    Parameters
    ----------
    table : FieldTable
        Its values only decide between ASCII and Unicode for text columns.
    """
    fields = [_field(c, _datatype(table, c), "*") for c in table.fields]
    return _head(table, fields) + _TAIL


def write_votable(table: FieldTable, path: str | Path) -> None:
    """Write a VOTable 1.4 with its data in BINARY2.

    Parameters
    ----------
    table : FieldTable
        What to write.
    path : path
        Replaced when it is there.
    """
    columns = {c.name: _big_endian(table.columns[c.name], _datatype(table, c)) for c in table.fields}
    fields = [
        _field(c, kind, str(columns[c.name].dtype.itemsize // _CHARACTER_BYTES.get(kind, 1)))
        for c, kind in ((c, _datatype(table, c)) for c in table.fields)
    ]
    # Each row begins with one bit a column that says it is null: never, NaN is.
    nulls = (len(fields) + 7) // 8
    dtype = np.dtype([("nulls", f"V{nulls}"), *((f"f{i}", v.dtype) for i, v in enumerate(columns.values()))])
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_head(table, fields).encode())
        file.write(b'<DATA>\n<BINARY2>\n<STREAM encoding="base64">\n')
        for begin in range(0, len(table), _CHUNK):
            rows = np.zeros(min(_CHUNK, len(table) - begin), dtype=dtype)
            for i, values in enumerate(columns.values()):
                rows[f"f{i}"] = values[begin : begin + _CHUNK]
            file.write(binascii.b2a_base64(rows.tobytes()))
        file.write(b"</STREAM>\n</BINARY2>\n</DATA>\n" + _TAIL.encode())


def _head(table: FieldTable, fields: list[str]) -> str:
    """A document up to the end of its FIELDs, with the coordinate and time systems that these refer to."""
    named = {_reference(column) for column in table.fields}
    systems = "".join(text for name, text in _SYSTEMS.items() if name in named)
    return "".join([_HEAD.format(systems=systems), *(_param(p) for p in table.parameters), *fields])


def _reference(column: Column) -> str:
    return next((name for ucd, name in _REFERENCES.items() if column.ucd.startswith(ucd)), "")


def _big_endian(values: NDArray[Any], datatype: str) -> NDArray[Any]:
    """Values as a BINARY2 stream holds them (VOTable 1.4, sections 2.1 and 5.4)."""
    if datatype == "boolean":
        return np.where(values, b"T", b"F")
    if datatype in _CHARACTER_BYTES:
        encoded = np.char.encode(values, "ascii" if datatype == "char" else "utf-16-be")
        # Padded with zeros; two characters at least, since one would be a scalar.
        step = _CHARACTER_BYTES[datatype]
        width = max(-(-encoded.dtype.itemsize // step), 2) * step
        return encoded.astype(f"S{width}")
    return values.astype(values.dtype.newbyteorder(">"))


def _datatype(table: FieldTable, column: Column) -> str:
    if column.dtype == "str" and not _is_ascii(table.columns[column.name]):
        return "unicodeChar"
    return _DATATYPES[column.dtype]


def _is_ascii(values: NDArray[Any]) -> bool:
    if not values.size:
        return True
    # numpy keeps text as UCS-4: code points can be compared without a loop.
    return bool((np.ascontiguousarray(values).view(np.uint32) < 128).all())


def _param(parameter: Parameter) -> str:
    value = parameter.value
    attributes = {"name": parameter.name, "datatype": "double", "value": ""}
    if isinstance(value, bool):
        attributes |= {"datatype": "boolean", "value": str(value).lower()}
    elif isinstance(value, int):
        attributes |= {"datatype": "long", "value": str(value)}
    elif isinstance(value, str):
        attributes |= {
            "datatype": "char" if value.isascii() else "unicodeChar", "arraysize": "*", "value": value,
        }  # fmt: skip
    elif isinstance(value, tuple):
        attributes |= {"arraysize": "*", "value": " ".join(_text(v) for v in value)}
    else:
        attributes |= {"value": _text(value)}
    return _element("PARAM", attributes, parameter.unit, parameter.ucd, parameter.description)


def _field(column: Column, datatype: str, arraysize: str) -> str:
    attributes = {"name": column.name, "datatype": datatype}
    if datatype in _CHARACTER_BYTES:
        attributes["arraysize"] = arraysize
    attributes["ref"] = _reference(column)
    return _element("FIELD", attributes, column.unit, column.ucd, column.description)


def _element(tag: str, attributes: dict[str, str], unit: str, ucd: str, description: str) -> str:
    attributes = {**attributes, "unit": vo_unit(unit), "ucd": ucd}
    text = " ".join(_attributes(attributes))
    inside = f"<DESCRIPTION>{escape(description)}</DESCRIPTION>" if description else ""
    return f"<{tag} {text}>{inside}</{tag}>\n"


def _attributes(attributes: dict[str, str]) -> Iterator[str]:
    for name, value in attributes.items():
        if value or name == "value":
            yield f"{name}={quoteattr(value)}"


def _text(value: float) -> str:
    return "NaN" if np.isnan(value) else repr(float(value))
