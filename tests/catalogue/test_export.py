import numpy as np
import pandas
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.units import Unit

from imcat.catalogue import concatenate, export, read_run
from imcat.catalogue.export import FORMATS
from imcat.catalogue.names import CONVENTIONS
from imcat.errors import InputError, OutputError, UsageError

TABLES = (".fits", ".vot", ".ecsv", ".csv")


def assert_same(table, catalogue, exact_text=True):
    for name, values in catalogue.columns.items():
        found = table[name]
        if values.dtype.kind in "US":
            text = ["" if v is np.ma.masked else str(v) for v in found]
            assert text == [v.rstrip() if not exact_text else v for v in values.tolist()]
        elif values.dtype.kind == "b":
            assert [str(v).lower() == "true" for v in found] == values.tolist()
        elif values.dtype.kind == "f":
            read = np.ma.filled(np.ma.asarray(found, dtype=float), np.nan).astype(values.dtype)
            np.testing.assert_array_equal(read, values, err_msg=name)
        else:
            np.testing.assert_array_equal(np.asarray(found), values, err_msg=name)


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize("rows", [40, 1, 0])
def test_astropy_reads_back_the_same_values(make_catalogue, tmp_path, ending, rows):
    catalogue = make_catalogue(rows=rows)
    assert export(catalogue, tmp_path / f"a{ending}") == rows
    table = Table.read(tmp_path / f"a{ending}")
    assert table.colnames == list(catalogue.columns)
    assert len(table) == rows
    if rows:
        assert_same(table, catalogue)


@pytest.mark.parametrize("ending", TABLES)
def test_stilts_reads_the_same_values(make_catalogue, stilts, tmp_path, ending):
    catalogue = make_catalogue()
    export(catalogue, tmp_path / f"a{ending}")
    done = stilts("tcopy", f"in={tmp_path}/a{ending}", f"out={tmp_path}/b.fits", "ofmt=fits-basic")
    assert done.returncode == 0, done.stderr
    with fits.open(tmp_path / "b.fits") as hdus:
        table = hdus[1].data
        assert_same(table, catalogue, exact_text=False)
    assert done.stderr == ""


@pytest.mark.parametrize("names", CONVENTIONS)
@pytest.mark.parametrize("bands", [("g", "r"), ("nuv", "y"), ("z",)])
def test_votlint_reports_nothing(make_catalogue, stilts, tmp_path, names, bands):
    catalogue = make_catalogue(bands=bands, required_only=len(bands) == 1, tile="t")
    export(catalogue, tmp_path / "a.vot", names)
    done = stilts("votlint", "ucd=true", "unit=true", f"votable={tmp_path}/a.vot")
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_votlint_reports_nothing_on_many_rows_and_on_none(make_catalogue, stilts, tmp_path):
    for rows in (0, 30_000):
        export(make_catalogue(rows=rows, required_only=True), tmp_path / "a.vot")
        done = stilts("votlint", f"votable={tmp_path}/a.vot")
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_text_beyond_ascii(make_catalogue, stilts, tmp_path):
    catalogue = make_catalogue(tile="champ-é-Ā-🌌")
    for ending in (".vot", ".ecsv", ".csv"):
        export(catalogue, tmp_path / f"a{ending}")
        assert set(Table.read(tmp_path / f"a{ending}")["tile"]) == {"champ-é-Ā-🌌"}
    done = stilts("votlint", f"votable={tmp_path}/a.vot")
    assert done.stdout + done.stderr == ""
    export(catalogue, tmp_path / "a.fits")
    assert Table.read(tmp_path / "a.fits")["tile"][0] == r"champ-\xe9-\u0100-\U0001f30c"


@pytest.mark.parametrize("names", CONVENTIONS)
def test_fits_header_names_unit_ucd_and_description(make_catalogue, tmp_path, names):
    export(make_catalogue(), tmp_path / "a.fits", names)
    header = fits.getheader(tmp_path / "a.fits", 1)
    for number in range(1, header["TFIELDS"] + 1):
        name = header[f"TTYPE{number}"]
        assert header[f"TUCD{number}"]
        assert header[f"TCOMM{number}"]
        unit = header.get(f"TUNIT{number}")
        if unit is not None:
            Unit(unit, format="fits", parse_strict="raise")
        if "kron_flux" in name.lower() or "FLUX_AUTO" in name:
            assert unit == "nJy"
    assert header["survey"] == "sdss"
    assert header["flux_zero_point"] == 3631e9


def test_ecsv_carries_units_descriptions_and_parameters(make_catalogue, tmp_path):
    catalogue = make_catalogue()
    export(catalogue, tmp_path / "a.ecsv")
    table = Table.read(tmp_path / "a.ecsv")
    for column in catalogue.fields:
        assert table[column.name].info.description == column.description
        assert table[column.name].info.meta["ucd"] == column.ucd
    assert str(table["ra_dec_cov"].unit) == "arcsec2"
    assert table.meta["apertures"]["value"] == [3.0, 7.43]


def test_csv_has_every_digit(make_catalogue, tmp_path):
    big = 2**62 + 1
    catalogue = make_catalogue(rows=1, source_id=[big])
    export(catalogue, tmp_path / "a.csv")
    assert str(big) in (tmp_path / "a.csv").read_text()
    assert pandas.read_csv(tmp_path / "a.csv")["source_id"][0] == big


@pytest.mark.parametrize("ending", [*TABLES[:2], ".ecsv", ".csv", ".reg", ".parquet"])
def test_same_catalogue_same_bytes(make_catalogue, tmp_path, ending):
    export(make_catalogue(), tmp_path / f"a{ending}")
    export(make_catalogue(), tmp_path / f"b{ending}")
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_run_with_tiles_of_different_bands(make_catalogue, make_run, tmp_path):
    tiles = [
        make_catalogue(bands=("g", "r"), seed=1, tile="a"),
        make_catalogue(bands=("r", "z"), seed=2, tile="b"),
    ]
    folder = make_run(tiles)
    assert export(folder, tmp_path / "a.fits") == 80
    assert_same(Table.read(tmp_path / "a.fits"), concatenate(tiles))
    assert export(folder, tmp_path / "b.csv", primary=True) == int(sum(t["is_primary"].sum() for t in tiles))
    (folder / "sources" / ".a.parquet.1-00000000.part").write_text("half")
    assert len(read_run(folder)) == 80


def test_export_refuses_what_it_cannot_do(make_catalogue, tmp_path):
    catalogue = make_catalogue(rows=2)
    with pytest.raises(UsageError, match=r"no format has the ending '\.txt'; expected one of \.fits"):
        export(catalogue, tmp_path / "a.txt")
    with pytest.raises(
        UsageError, match="no convention of names 'lsst'; expected one of imcat, sdss, sextractor"
    ):
        export(catalogue, tmp_path / "a.fits", names="lsst")
    with pytest.raises(InputError, match="no such folder"):
        export(tmp_path, tmp_path / "a.fits")
    for ending in FORMATS:
        with pytest.raises(OutputError, match="cannot be written"):
            export(catalogue, tmp_path / "missing" / f"a{ending}")
    assert list(tmp_path.iterdir()) == []
