import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from astropy.io.votable.ucd import parse_ucd
from hypothesis import given, settings
from hypothesis import strategies as st

from imcat.catalogue import Catalogue, concatenate, read_parquet, write_parquet
from imcat.errors import SchemaError
from imcat.flags import SourceFlag
from imcat.schema import COLUMNS, Schema


def columns_of(catalogue, **changes):
    merged = {**catalogue.columns, **changes}
    return {name: values for name, values in merged.items() if values is not None}


def test_every_ucd_is_valid():
    wavelengths = (None, 1500, 2500, 3500, 4500, 5500, 6500, 8000, 12000, 16000, 22000, 40000)
    schema = Schema({f"b{i}": w for i, w in enumerate(wavelengths)})
    assert {c.template for c in schema} == {c.name for c in COLUMNS}
    for column in schema:
        parse_ucd(column.ucd, check_controlled_vocabulary=True)


def test_columns_are_ordered_and_cast(make_catalogue):
    catalogue = make_catalogue()
    shuffled = dict(reversed(list(columns_of(catalogue, flags=[1] * 40, x=range(40)).items())))
    built = Catalogue.build(shuffled, catalogue.schema, catalogue.meta)
    assert list(built.columns) == [c.name for c in catalogue.schema]
    assert built["flags"].dtype == np.int32
    assert built["x"].dtype == np.float64
    assert len(built) == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"g_kron_flx": np.zeros(40)}, "'g_kron_flx' is not in the schema; the nearest is 'g_kron_flux'"),
        ({"ra": None, "r_flags": None}, "required columns are absent: ra, r_flags"),
        ({"ra": np.zeros(3)}, "'ra' has 3 rows; expected the 40 of 'source_id'"),
        ({"source_id": np.full(40, 7)}, "source_id 7 occurs more than once"),
        ({"p_star": np.full(40, 1.5)}, "'p_star' holds 1.5; expected 0 to 1"),
        ({"detection_score": np.full(40, -0.1)}, "'detection_score' holds -0.1"),
        ({"flags": np.full(40, 0.5)}, "'flags' has dtype float64; expected int32"),
        ({"flags": np.full(40, 2**40)}, "'flags' holds values that do not fit int32"),
        ({"tile": np.arange(40)}, "'tile' has dtype int64; expected str"),
        ({"is_primary": np.ones(40, int)}, "'is_primary' has dtype int64; expected bool"),
        ({"ra": np.zeros((40, 2))}, "'ra' has 2 dimensions"),
        ({"flags": np.ma.array(np.zeros(40, int), mask=True)}, "'flags' of dtype int32 has masked values"),
    ],
)
def test_wrong_columns_are_refused(make_catalogue, changes, message):
    catalogue = make_catalogue()
    with pytest.raises(SchemaError, match=message):
        Catalogue.build(columns_of(catalogue, **changes), catalogue.schema, catalogue.meta)


def test_missing_values_are_nan_and_empty(make_catalogue):
    catalogue = make_catalogue(rows=2)
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    built = Catalogue.build(
        columns_of(catalogue, r_psf_flux=masked, detector=np.array([None, "x"], dtype=object)),
        catalogue.schema,
    )
    assert math.isnan(built["r_psf_flux"][1])
    assert built["detector"].tolist() == ["", "x"]


def test_meta_is_plain_and_names_the_bands_of_the_schema(make_catalogue):
    catalogue = make_catalogue()
    built = Catalogue.build(
        catalogue.columns, catalogue.schema, {"a": np.float32(0.5), "b": np.nan, "c": (1, np.arange(2))}
    )
    assert built.meta == {"a": 0.5, "b": None, "c": [1, [0, 1]]}
    with pytest.raises(SchemaError, match="meta names the bands q; expected those of the schema: g, r"):
        Catalogue.build(catalogue.columns, catalogue.schema, {"bands": {"q": 1.0}})
    with pytest.raises(SchemaError, match="cannot be written as JSON"):
        Catalogue.build(catalogue.columns, catalogue.schema, {"a": object()})


def test_unknown_column_is_named_with_the_nearest(make_catalogue):
    with pytest.raises(SchemaError, match="no column 'g_kron'; the nearest is 'g_kron_flux'"):
        make_catalogue()["g_kron"]


def test_concatenate_fills_what_a_tile_lacks(make_catalogue):
    red = make_catalogue(bands=("r", "z"), seed=1, tile="a", rows=3)
    blue = make_catalogue(bands=("u", "r"), seed=2, tile="b", rows=2, required_only=True, apertures=(3.0,))
    both = concatenate([red, blue])
    assert both.schema.bands == ("u", "r", "z")
    assert both.schema.apertures == (3.0, 7.43)
    assert both["tile"].tolist() == ["a", "a", "a", "b", "b"]
    np.testing.assert_array_equal(both["r_kron_flux"][:3], red["r_kron_flux"])
    assert np.isnan(both["u_kron_flux"][:3]).all()
    assert np.isnan(both["r_psf_flux"][3:]).all()
    assert (both["u_flags"][:3] == SourceFlag.OUTSIDE).all()
    assert (both["z_n_exposures"][3:] == 0).all()
    assert both["class"][3:].tolist() == ["", ""]
    assert both.meta["survey"] == "sdss"
    assert both.meta["tiles"]["b"]["reference"] == "r"
    assert "tile" not in both.meta


def test_concatenate_refuses_one_source_twice(make_catalogue):
    with pytest.raises(SchemaError, match="occurs more than once"):
        concatenate([make_catalogue(), make_catalogue()])
    with pytest.raises(SchemaError, match="no catalogue"):
        concatenate([])


def _array(dtype, rows):
    if dtype == "str":
        text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
        return st.lists(text, min_size=rows, max_size=rows)
    return hnp.arrays(dtype, rows)


@st.composite
def catalogues(draw):
    rows = draw(st.integers(0, 5))
    bands = draw(st.lists(st.sampled_from(["nuv", "u", "y"]), unique=True, max_size=2))
    schema = Schema(dict.fromkeys(bands, 5000.0), [3.0])
    optional = draw(st.sets(st.sampled_from([c.name for c in schema if not c.required])))
    columns = {c.name: draw(_array(c.dtype, rows)) for c in schema if c.required or c.name in optional}
    columns["source_id"] = draw(
        hnp.arrays(np.int64, rows, elements=st.integers(-(2**63), 2**63 - 1), unique=True)
    )
    for column in schema:
        if column.ucd.startswith("stat.probability") and column.name in columns:
            columns[column.name] = draw(hnp.arrays(np.float32, rows, elements=st.floats(0, 1, width=32)))
    return Catalogue.build(columns, schema, {"bands": dict.fromkeys(bands, 5000.0)})


@settings(max_examples=40, deadline=None)
@given(catalogue=catalogues())
def test_any_catalogue_survives_parquet(catalogue, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "a.parquet"
    write_parquet(catalogue, path)
    again = read_parquet(path)
    assert list(again.columns) == list(catalogue.columns)
    for name, values in catalogue.columns.items():
        assert again[name].dtype == values.dtype
        np.testing.assert_array_equal(again[name], values)
    assert again.meta == catalogue.meta
    assert again.fields == catalogue.fields
