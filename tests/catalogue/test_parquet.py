import io

import duckdb
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from astropy.io import votable

from imcat.catalogue import export, read_parquet, write_parquet
from imcat.errors import InputError


def test_round_trip(make_catalogue, tmp_path):
    catalogue = make_catalogue()
    write_parquet(catalogue, tmp_path / "a.parquet")
    again = read_parquet(tmp_path / "a.parquet")
    for name, values in catalogue.columns.items():
        np.testing.assert_array_equal(again[name], values)
        assert again[name].dtype == values.dtype
    assert again.schema.bands == catalogue.schema.bands
    assert again.schema.apertures == catalogue.schema.apertures
    assert list(again.meta["bands"]) == list(catalogue.meta["bands"])
    assert again.meta == catalogue.meta


@pytest.mark.parametrize("rows", [0, 40])
def test_same_catalogue_same_bytes(make_catalogue, tmp_path, rows):
    write_parquet(make_catalogue(rows=rows), tmp_path / "a.parquet")
    write_parquet(make_catalogue(rows=rows), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_votable_header_inside(make_catalogue, tmp_path):
    catalogue = make_catalogue()
    write_parquet(catalogue, tmp_path / "a.parquet")
    metadata = pq.ParquetFile(tmp_path / "a.parquet").metadata.metadata
    assert metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    document = votable.parse(
        io.BytesIO(metadata[b"IVOA.VOTable-Parquet.content"]), verify="exception"
    ).get_first_table()
    fields = {field.name: field for field in document.fields}
    assert list(fields) == list(catalogue.columns)
    for column in catalogue.fields:
        field = fields[column.name]
        assert field.ucd == column.ucd
        assert " ".join(field.description.split()) == column.description
        assert (field.unit is None) == (column.unit == "")
    params = {param.name: param for param in document.params}
    assert params["wavelengths"].value.tolist() == pytest.approx([468.6, 616.6])
    assert str(params["wavelengths"].unit) == "nm"
    for name, param in params.items():
        assert "flux" not in name or param.unit is not None


def test_other_tools_read_the_same_values(make_catalogue, tmp_path):
    catalogue = make_catalogue()
    path = tmp_path / "a.parquet"
    write_parquet(catalogue, path)
    frame = pandas.read_parquet(path)
    found = duckdb.connect(":memory:").sql(f"SELECT * FROM '{path}'").to_arrow_table()
    for name, values in catalogue.columns.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), values)
        column = found.column(name)
        assert column.null_count == (np.isnan(values).sum() if values.dtype.kind == "f" else 0)
        expected = [None if value != value else value for value in values.tolist()]
        assert column.to_pylist() == expected


def test_export_to_parquet_is_a_catalogue_again(make_catalogue, tmp_path):
    catalogue = make_catalogue()
    export(catalogue, tmp_path / "a.parquet", primary=True)
    assert read_parquet(tmp_path / "a.parquet")["is_primary"].all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"PAR1 rubbish PAR1", "cannot be read"), (b"", "cannot be read")],
)
def test_what_is_no_catalogue_is_refused(tmp_path, content, message):
    path = tmp_path / "a.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_parquet(path)


def test_parquet_of_another_program_is_refused(tmp_path):
    pandas.DataFrame({"ra": [1.0]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no metadata of imcat"):
        read_parquet(tmp_path / "a.parquet")
