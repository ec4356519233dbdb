"""Columns of a catalogue."""

from __future__ import annotations

import re

import pytest
from astropy.io.votable.ucd import check_ucd
from astropy.units import Unit

from imcat.errors import SchemaError
from imcat.schema import COLUMNS, Schema, aperture_label

BANDS = {"u": 3551.0, "g": 4686.0, "r": 6166.0, "i": 7480.0, "z": 8932.0}
SCHEMA = Schema(BANDS, (3.0, 7.43))


def test_declarations_are_unique_and_complete() -> None:
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    for column in COLUMNS:
        assert column.dtype in {"int64", "int32", "float64", "float32", "bool", "str"}, column.name
        assert column.description.endswith("."), column.name
        assert column.template == column.name
        assert ("{b}" in column.name) or ("{b}" not in column.description), column.name


def test_units_are_understood() -> None:
    for column in SCHEMA:
        if column.unit:
            Unit(column.unit, format="fits" if column.unit == "nJy" else "vounit")


def test_ucds_follow_the_vocabulary() -> None:
    # The spectral words below a named band (em.UV.100-200nm) are in the vocabulary as well.
    for column in SCHEMA:
        assert check_ucd(column.ucd, check_controlled_vocabulary=True), (column.name, column.ucd)


@pytest.mark.parametrize(
    ("wavelength", "word"),
    [
        (1500.0, "em.UV.100-200nm"),
        (2800.0, "em.UV.200-300nm"),
        (3551.0, "em.opt.U"),
        (4686.0, "em.opt.B"),
        (5500.0, "em.opt.V"),
        (6166.0, "em.opt.R"),
        (8932.0, "em.opt.I"),
        (12000.0, "em.IR.J"),
        (16000.0, "em.IR.H"),
        (22000.0, "em.IR.K"),
        (50000.0, "em.IR"),
    ],
)
def test_place_of_a_band_in_the_spectrum(wavelength: float, word: str) -> None:
    ucd = Schema({"b": wavelength})["b_kron_flux"].ucd
    assert ucd == f"phot.flux.density;{word}"
    assert check_ucd(ucd, check_controlled_vocabulary=True)


def test_bands_without_wavelengths() -> None:
    schema = Schema(["g", "r"])
    assert schema.bands == ("g", "r")
    assert schema["g_kron_flux"].ucd == "phot.flux.density;em"


def test_order_is_source_then_band_by_band_then_the_rest() -> None:
    names = SCHEMA.names()
    assert names[0] == "source_id"
    bands = [SCHEMA[name].band for name in names]
    first = bands.index("u")
    last = len(bands) - 1 - bands[::-1].index("z")
    assert set(bands[:first]) == set(bands[last + 1 :]) == {None}
    inner = bands[first : last + 1]
    assert list(dict.fromkeys(inner)) == list(BANDS)
    assert None not in inner
    assert inner == sorted(inner, key=list(BANDS).index)
    assert names.index("class") > last


def test_every_declaration_has_its_columns() -> None:
    for column in COLUMNS:
        number = (5 if "{b}" in column.name else 1) * (2 if "{d}" in column.name else 1)
        assert len(SCHEMA.names(column.name)) == number, column.name
    assert len(SCHEMA) == len(SCHEMA.names()) == len(set(SCHEMA.names()))


def test_nothing_is_left_to_be_filled_in() -> None:
    for column in SCHEMA:
        for text in (column.name, column.ucd, column.description):
            assert not re.search(r"[{}]", text), column
        assert column.template in {c.name for c in COLUMNS}


def test_aperture_columns_of_each_band() -> None:
    assert SCHEMA.names("{b}_aper_flux_{d}")[:3] == ["u_aper_flux_3", "u_aper_flux_7p43", "g_aper_flux_3"]
    column = SCHEMA["r_aper_flux_7p43_err"]
    assert column.description == "Error of r_aper_flux_7p43, 1 sigma."
    assert (column.band, column.unit, column.dtype) == ("r", "nJy", "float32")
    assert "7.43 arcsec" in SCHEMA["r_aper_flux_7p43"].description


def test_three_arcsec_are_required_and_other_apertures_are_not() -> None:
    assert SCHEMA["g_aper_flux_3"].required
    assert SCHEMA["g_aper_flux_3_err"].required
    assert not SCHEMA["g_aper_flux_7p43"].required
    assert SCHEMA.required == [c.name for c in SCHEMA if c.required]
    assert {"source_id", "ra", "dec", "z_kron_flux", "flags"} <= set(SCHEMA.required)
    assert not {"z_phot", "u_psf_flux"} & set(SCHEMA.required)


@pytest.mark.parametrize(
    ("diameter", "label"), [(3.0, "3"), (3, "3"), (7.43, "7p43"), (0.5, "0p5"), (12.0, "12"), (1.25, "1p25")]
)
def test_label_of_an_aperture(diameter: float, label: str) -> None:
    assert aperture_label(diameter) == label
    assert f"g_aper_flux_{label}" in Schema(["g"], [diameter])


@pytest.mark.parametrize("diameter", [0.0, -3.0, float("nan")])
def test_impossible_aperture(diameter: float) -> None:
    with pytest.raises(SchemaError, match="arcsec is impossible; expected a positive diameter"):
        aperture_label(diameter)


def test_lookup() -> None:
    assert "g_kron_flux" in SCHEMA
    assert "y_kron_flux" not in SCHEMA
    assert "{b}_kron_flux" not in SCHEMA
    assert SCHEMA["g_kron_flux"].template == "{b}_kron_flux"
    with pytest.raises(SchemaError, match="no column 'y_kron_flux' in the schema"):
        SCHEMA["y_kron_flux"]


def test_names_of_bands_are_not_taken_apart() -> None:
    # A band may be called like a part of a column's name.
    schema = Schema({"g": 4686.0, "g_kron": 5000.0, "aper": 6000.0})
    assert schema["g_kron_flux"].band == "g"
    assert schema["g_kron_kron_flux"].band == "g_kron"
    assert schema.names("{b}_kron_flux") == ["g_kron_flux", "g_kron_kron_flux", "aper_kron_flux"]
