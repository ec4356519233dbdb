"""The truth table of a simulated tile: every column declared once, with unit and UCD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import FieldTable, Parameter
from imcat.catalogue.parquet import write_parquet_table
from imcat.schema import Column

__all__ = ["TRUTH_COLUMNS", "truth_fields", "write_truth"]

_MAG = "phot.mag;{em}"

#: Columns in the order of the file; ``{b}`` stands for each band.
TRUTH_COLUMNS: tuple[Column, ...] = tuple(
    Column(name, dtype, unit, ucd, text)
    for name, dtype, unit, ucd, text in (
        ("source_id", "int64", "", "meta.id;meta.main", "Survey, tile and rank in the tile."),
        ("type", "str", "", "src.class", "star, galaxy or quasar."),
        ("ra", "float64", "deg", "pos.eq.ra;meta.main", "Right ascension (ICRS)."),
        ("dec", "float64", "deg", "pos.eq.dec;meta.main", "Declination (ICRS)."),
        ("x", "float64", "pix", "pos.cartesian.x;instr.det", "Column in the reference image; 0 is the centre of the first pixel."),
        ("y", "float64", "pix", "pos.cartesian.y;instr.det", "Row in the reference image."),
        ("{b}_mag", "float32", "mag", "phot.mag", "Total AB magnitude in {b}, dimmed by the dust of the Milky Way."),
        ("half_light_radius", "float32", "arcsec", "phys.angSize", "Intrinsic half-light radius along the major axis; 0 for points."),
        ("axis_ratio", "float32", "", "phys.angSize;arith.ratio", "Minor over major axis of the brighter of bulge and disc."),
        ("position_angle", "float32", "deg", "pos.posAng", "Of the major axis, east of north."),
        ("bulge_fraction", "float32", "", "phot.flux;arith.ratio", "Share of the bulge in r."),
        ("bulge_radius", "float32", "arcsec", "phys.angSize", "Half-light radius of the bulge along its major axis."),
        ("disc_radius", "float32", "arcsec", "phys.angSize", "Half-light radius of the disc along its major axis."),
        ("bulge_index", "float32", "", "src.morph.param", "Sérsic index of the bulge; the disc is exponential."),
        ("morphology", "str", "", "src.morph.type", "point, smooth, disc, spiral, barred, edge_on, ring, irregular or merger."),
        ("detailed", "bool", "", "meta.code", "Whether the structure that the morphology names was drawn."),
        ("z_true", "float32", "", "src.redshift", "Redshift; 0 for stars."),
        ("is_merger", "bool", "", "meta.code", "Whether it is a merger."),
        ("is_lens", "bool", "", "meta.code", "Whether it is a strong lens; magnitudes are then of deflector and images together."),
        ("lookalike", "str", "", "meta.code", "What makes it look like a lens, if it does and is none."),
        ("einstein_radius", "float32", "arcsec", "phys.angSize;gravitationalLensing", "Of the deflector."),
        ("lens_source", "str", "", "src.class", "What is lensed: galaxy or quasar."),
        ("lens_source_z", "float32", "", "src.redshift", "Redshift of what is lensed."),
        ("lens_magnification", "float32", "", "phot.flux;arith.ratio", "Flux of the images over that of the source."),
        ("lens_images", "int32", "", "meta.number", "Number of images of the centre of the source."),
        ("arc_snr", "float32", "", "stat.snr", "S/N of the images alone in the reference band (matched filter)."),
        ("ebv", "float32", "mag", "phot.color.excess", "E(B-V) of the Milky Way."),
    )
)  # fmt: skip


def truth_fields(bands: tuple[str, ...], more: tuple[Column, ...] = ()) -> tuple[Column, ...]:
    """The columns of a truth table of a tile with these bands, and further ones at its end."""
    fields: list[Column] = []
    for column in (*TRUTH_COLUMNS, *more):
        if "{b}" not in column.name:
            fields.append(column)
            continue
        for band in bands:
            fields.append(
                Column(
                    column.name.replace("{b}", band), column.dtype, column.unit, column.ucd,
                    column.description.replace("{b}", band), template=column.name, band=band,
                )
            )  # fmt: skip
    return tuple(fields)


def write_truth(
    path: Path,
    columns: dict[str, NDArray[Any]],
    bands: tuple[str, ...],
    parameters: tuple[Parameter, ...],
    more: tuple[Column, ...] = (),
) -> None:
    """Write a truth table.

    Parameters
    ----------
    path : path
        Ends in ``.parquet``.
    columns : dict of array
        Every column of `truth_fields`.
    bands : tuple of str
        In the order of the columns.
    parameters : tuple of Parameter
        What holds for the whole table.
    more : tuple of Column
        Declares columns beyond those of every truth table.
    """
    fields = truth_fields(bands, more)
    typed = {
        f.name: np.asarray(columns[f.name], dtype=np.str_ if f.dtype == "str" else f.dtype) for f in fields
    }
    write_parquet_table(FieldTable(typed, fields, parameters), path)
