"""A table as every writer takes it: columns, their declarations, and PARAMs.

The schema declares columns; what holds for a whole table (survey, bands,
apertures, versions) is declared here, once for the headers of all formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.table import Catalogue
from imcat.schema import Column

__all__ = ["AB_FLUX", "FieldTable", "Parameter", "fields_of", "parameters_of", "vo_unit"]

#: nJy of AB magnitude zero: 3631 Jy (Oke & Gunn 1983, ApJ 266, 713; Fukugita et al. 1996, AJ 111, 1748).
AB_FLUX = 3631e9

Value = str | float | int | bool | tuple[float, ...]


@dataclass(frozen=True)
class Parameter:
    """One value that holds for the whole table (a PARAM of a VOTable)."""

    name: str
    value: Value
    unit: str = ""
    ucd: str = ""
    description: str = ""


@dataclass(frozen=True, eq=False)
class FieldTable:
    """Columns with their declarations, whatever names they go by.

    Attributes
    ----------
    columns : dict of str to array
        Equal lengths; text as numpy unicode, missing floats NaN.
    fields : tuple of Column
        One declaration a column, in order.
    parameters : tuple of Parameter
        What holds for the whole table; one that has the name of a column is left out.
    """

    columns: dict[str, NDArray[Any]]
    fields: tuple[Column, ...]
    parameters: tuple[Parameter, ...] = ()

    def __post_init__(self) -> None:
        # A VOTable has one set of names for FIELDs and PARAMs, whatever their case.
        taken = {column.name.lower() for column in self.fields}
        free = tuple(p for p in self.parameters if p.name.lower() not in taken)
        object.__setattr__(self, "parameters", free)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


@dataclass(frozen=True)
class _Declared:
    """Where a parameter comes from in a catalogue's meta, and what it means."""

    name: str
    key: str
    unit: str
    ucd: str
    description: str
    convert: Callable[[Any], Value] = str


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(np.nan if v is None else float(v) for v in values)


def _nanometres(bands: Mapping[str, Any]) -> tuple[float, ...]:
    # VOUnit 1.1 deprecates the angstrom.
    return tuple(v / 10 for v in _numbers(bands.values()))


def _number(value: Any) -> float:
    return float(np.nan if value is None else value)


_PARAMETERS: tuple[_Declared, ...] = (
    _Declared("survey", "survey", "", "meta.dataset", "Survey that the images come from."),
    _Declared("tile_name", "tile", "", "meta.id;obs.field", "Name of the tile."),
    _Declared("reference", "reference", "", "meta.id;instr.filter", "Band whose grid x and y refer to."),
    _Declared("bands", "bands", "", "meta.id;instr.filter", "Names of the bands.", " ".join),
    _Declared(
        "wavelengths", "bands", "nm", "em.wl.effective",
        "Effective wavelengths of the bands, in their order.", _nanometres,
    ),
    _Declared(
        "apertures", "apertures", "arcsec", "phys.angSize",
        "Diameters of the circular apertures.", _numbers,
    ),
    _Declared("pixel_scale", "pixel_scale", "arcsec", "pos.wcs.scale", "Side of a pixel of the reference band.", _number),
    _Declared("detection_engine", "detector", "", "meta.code;meta.software", "Engine that found the sources."),
    _Declared("config_hash", "config_hash", "", "meta.checksum", "Hash of the configuration."),
    _Declared("imcat_version", "version", "", "meta.version;meta.software", "Version of imcat."),
)  # fmt: skip

_PARAMETERS_PER_BAND: tuple[_Declared, ...] = (
    _Declared("variance_source", "variance_source", "", "meta.note", "How the variance of {b} came about."),
    _Declared(
        "psf_fwhm", "psf_fwhm", "arcsec", "instr.det.psf;stat.fwhm", "Width of the PSF in {b}.", _number
    ),
    _Declared(
        "variance_ratio",
        "variance_ratio",
        "",
        "stat.rms;arith.ratio",
        "Measured rms of blank sky over the rms that was given, in {b}.",
        _number,
    ),
    _Declared(
        "noise_correlation",
        "noise_correlation",
        "",
        "stat.variance;arith.ratio",
        "Variance of a large sum of pixels over that of independent ones, in {b}.",
        _number,
    ),
)

_ZERO_FLUX = Parameter(
    "flux_zero_point", AB_FLUX, "nJy", "phot.flux.density;arith.zp", "Flux density of AB magnitude zero."
)


def parameters_of(meta: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The PARAMs of a catalogue, from its meta.

    Declared entries come with unit, UCD and description. Others are kept when
    they are a single text or number; one whose name contains ``flux`` is a
    flux in nJy, the unit of every flux in imcat.

    Parameters
    ----------
    meta : mapping
        `Catalogue.meta`.
    """
    bands = tuple(meta.get("bands") or ())
    found = [
        Parameter(p.name, p.convert(meta[p.key]), p.unit, p.ucd, p.description)
        for p in _PARAMETERS
        if meta.get(p.key)
    ]
    for declared in _PARAMETERS_PER_BAND:
        entries = meta.get(declared.key)
        values = entries if isinstance(entries, Mapping) else {}
        found += [
            Parameter(
                f"{declared.name}_{band}", declared.convert(values[band]),
                declared.unit, declared.ucd, declared.description.replace("{b}", band),
            )
            for band in bands
            if values.get(band) is not None
        ]  # fmt: skip
    return (*found, _ZERO_FLUX, *_undeclared(meta))


def _undeclared(meta: Mapping[str, Any]) -> Iterator[Parameter]:
    declared = {p.key for p in _PARAMETERS + _PARAMETERS_PER_BAND}
    for key, value in meta.items():
        if key in declared or not isinstance(value, str | int | float):
            continue
        is_flux = "flux" in key
        if is_flux and isinstance(value, str | bool):
            continue  # a name with "flux" promises a flux
        yield Parameter(key, value, "nJy" if is_flux else "", "phot.flux.density" if is_flux else "")


def fields_of(catalogue: Catalogue) -> FieldTable:
    """A catalogue under its own names."""
    return FieldTable(catalogue.columns, catalogue.fields, parameters_of(catalogue.meta))


def vo_unit(unit: str) -> str:
    """A unit in a spelling that VOUnit 1.1 and FITS 4.0 both take.

    Examples
    --------
    >>> vo_unit("arcsec2"), vo_unit("nJy")
    ('arcsec**2', 'nJy')
    """
    return re.sub(r"([A-Za-z])(\d)", r"\1**\2", unit)
