"""DS9 regions: a catalogue to lay over an image.

The format is that of the DS9 reference manual, "Region file format, version 4.1".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.errors import OutputError

__all__ = ["format_regions", "write_regions"]

#: Colours by class; a source without one is green, DS9's own default.
_COLOURS = {"star": "cyan", "galaxy": "yellow", "quasar": "magenta", "": "green"}
#: Ellipse in units of the rms lengths where there is no Kron radius: three of them
#: hold most of a source's light (SExtractor manual, section on the ellipse parameters).
_RMS_LENGTHS = 3.0

_HEAD = """# Region file format: DS9 version 4.1
global color=green dashlist=8 3 width=1 select=1 highlite=1 dash=0 fixed=0 edit=1 move=1 delete=1 include=1 source=1
icrs
"""


def format_regions(columns: Mapping[str, NDArray[Any]]) -> str:
    """The text of a region file: one ellipse a source, or a cross where it has no shape.

    Parameters
    ----------
    columns : mapping of str to array
        Of a catalogue: ``ra``, ``dec``; where there, ``semi_major``, ``semi_minor``,
        ``position_angle``, ``kron_radius``, ``class`` and ``source_id``.

    Raises
    ------
    OutputError
        If there are no positions.
    """
    if "ra" not in columns or "dec" not in columns:
        raise OutputError("regions need the columns ra and dec; choose both")
    major, minor, angle = _ellipses(columns)
    rows = len(columns["ra"])
    classes = columns.get("class", np.full(rows, "")).tolist()
    identifiers = columns.get("source_id", np.full(rows, "")).tolist()
    values = zip(
        columns["ra"].tolist(), columns["dec"].tolist(),
        major.tolist(), minor.tolist(), angle.tolist(), classes, identifiers, strict=True,
    )  # fmt: skip
    return _HEAD + "".join(_region(*row) for row in values)


def write_regions(columns: Mapping[str, NDArray[Any]], path: str | Path) -> None:
    """Write a region file (see `format_regions`)."""
    text = format_regions(columns)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _ellipses(columns: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Semi-axes in arcsec and DS9's angle, NaN where unknown."""
    unknown = np.full(len(columns["ra"]), np.nan)
    rms = np.asarray(columns.get("semi_major", unknown), dtype=float)
    ratio = np.asarray(columns.get("semi_minor", unknown), dtype=float) / np.where(rms > 0, rms, np.nan)
    kron = np.asarray(columns.get("kron_radius", unknown), dtype=float)
    major = np.where(kron > 0, kron, _RMS_LENGTHS * rms)
    # DS9 turns the first axis counter-clockwise from west, a position angle from north.
    return major, major * ratio, np.asarray(columns.get("position_angle", unknown), dtype=float) + 90


def _region(
    ra: float, dec: float, major: float, minor: float, angle: float, kind: str, identifier: int | str
) -> str:
    if np.isfinite([major, minor, angle]).all():
        shape = f'ellipse({ra:.7f},{dec:.7f},{major:.3f}",{minor:.3f}",{angle:.2f})'
        properties = []
    else:
        shape, properties = f"point({ra:.7f},{dec:.7f})", ["point=x"]
    colour = _COLOURS.get(kind, _COLOURS[""])
    properties.append(f"color={colour}")
    if identifier != "":
        properties.append(f"text={{{identifier}}}")
    if kind:
        properties.append(f"tag={{{kind}}}")
    return f"{shape} # {' '.join(properties)}\n"
