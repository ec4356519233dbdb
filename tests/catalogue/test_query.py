import numpy as np
import pytest
from astropy.table import Table

from imcat.catalogue import export, format_table, query, read_parquet, read_run
from imcat.errors import InputError, QueryError
from imcat.flags import SourceFlag


@pytest.fixture
def run(make_catalogue, make_run):
    """Two tiles of different bands that overlap."""
    rng = np.random.default_rng(5)
    tiles = []
    for seed, (name, bands, ra) in enumerate([("a", ("g", "r"), 10.0), ("b", ("r", "z"), 10.1)]):
        tiles.append(
            make_catalogue(
                bands=bands, seed=seed, tile=name, rows=30,
                ra=ra + rng.uniform(-0.1, 0.1, 30), dec=rng.uniform(-0.1, 0.1, 30),
            )
        )  # fmt: skip

    def corners(ra):
        return [[ra - 0.1, -0.1], [ra + 0.1, -0.1], [ra + 0.1, 0.1], [ra - 0.1, 0.1]]

    return make_run(
        tiles,
        {name: {"survey": "generic", "footprint": corners(ra)} for name, ra in (("a", 10.0), ("b", 10.1))},
    )


def test_view_equals_the_exported_catalogue(run):
    table = query(run, "SELECT * FROM sources ORDER BY source_id")
    catalogue = read_run(run)
    order = np.argsort(catalogue["source_id"])
    assert list(table.columns) == list(catalogue.columns)
    for name, values in catalogue.columns.items():
        np.testing.assert_array_equal(table.columns[name], values[order], err_msg=name)
    assert table.fields == catalogue.fields


def test_primaries_are_resolved(run):
    survey = sum(int(read_parquet(p)["is_primary"].sum()) for p in sorted((run / "sources").iterdir()))
    resolved = int(query(run, "SELECT count(*) AS n FROM sources WHERE is_primary").columns["n"][0])
    assert resolved == read_run(run)["is_primary"].sum()
    assert 0 < resolved < survey


def test_missing_measurements_are_null(run):
    table = query(run, "SELECT g_flags, g_kron_flux FROM sources WHERE g_kron_flux IS NULL")
    assert len(table) == 30
    assert (table.columns["g_flags"] == SourceFlag.OUTSIDE).all()
    # NaN would be larger than any number.
    bright = query(run, "SELECT g_psf_flux FROM sources WHERE g_psf_flux > 0")
    assert np.isfinite(bright.columns["g_psf_flux"]).all()


def test_units_are_kept_in_files(run, tmp_path):
    out = tmp_path / "bright.fits"
    query(run, "SELECT source_id, r_kron_flux, r_kron_flux / r_kron_flux_err AS snr FROM sources", out)
    table = Table.read(out)
    assert str(table["r_kron_flux"].unit) == "nJy"
    assert table["snr"].unit is None
    assert len(table) == 60


@pytest.mark.parametrize("ending", [".vot", ".csv", ".ecsv", ".parquet"])
def test_every_format_takes_a_result(run, tmp_path, ending):
    query(
        run, "SELECT tile, count(*), avg(ra), sum(flags) FROM sources GROUP BY tile", tmp_path / f"a{ending}"
    )
    assert (tmp_path / f"a{ending}").stat().st_size > 0


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("n", np.int64, 60),
        ("n::HUGEINT", np.int64, 60),
        ("NULL::INTEGER", np.float64, np.nan),
        ("NULL::VARCHAR", np.str_, ""),
        ("1.5::DECIMAL(5,2)", np.float64, 1.5),
        ("2.0::FLOAT", np.float32, 2.0),
        ("true", np.bool_, True),
        ("DATE '2020-01-02'", np.str_, "2020-01-02"),
        ("18446744073709551615::UBIGINT", np.float64, 2.0**64),
        ("7::TINYINT", np.int32, 7),
    ],
)
def test_types_of_results(run, expression, kind, value):
    values = query(run, f"SELECT {expression} AS v FROM (SELECT count(*) AS n FROM sources)").columns["v"]
    assert values.dtype.type is kind
    np.testing.assert_array_equal(values, [value])


def test_names_that_occur_twice(run):
    table = query(run, "SELECT ra, ra, dec AS RA FROM sources LIMIT 1")
    assert len({name.lower() for name in table.columns}) == 3


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT g_kron_flx FROM sources", "the nearest column is 'g_kron_flux'"),
        ("SELECT ra FROM source", "source does not exist"),
        ("SELEC ra", "syntax error"),
        ("SELECT ra FROM sources; SELECT 1", "the query is SELECT, SELECT; expected one SELECT"),
        ("", "the query is nothing"),
        ("DROP VIEW sources", "the query is DROP"),
        ("COPY (SELECT 1) TO 'stolen.csv'", "the query is COPY"),
        ("SET threads = 1", "the query is SET"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("SELECT * FROM 'sources/a.parquet'", "disabled by configuration"),
    ],
)
def test_errors_are_one_line(run, monkeypatch, sql, message):
    monkeypatch.chdir(run)
    before = sorted(run.iterdir())
    with pytest.raises(QueryError, match=message) as caught:
        query(run, sql)
    assert "\n" not in str(caught.value)
    assert sorted(run.iterdir()) == before


def test_no_run(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        query(tmp_path, "SELECT 1")


def test_table_as_text(run):
    table = query(run, "SELECT tile, ra, 1 AS one FROM sources ORDER BY ra LIMIT 5")
    lines = format_table(table, max_rows=3).splitlines()
    assert lines[0].split() == ["tile", "ra", "one"]
    assert lines[1].split() == ["deg"]
    assert len(lines) == 6
    assert lines[-1] == "... and 2 more rows"


def test_export_of_the_run_has_the_same_primaries(run, tmp_path):
    rows = export(run, tmp_path / "a.csv", primary=True)
    assert rows == query(run, "SELECT count(*) AS n FROM sources WHERE is_primary").columns["n"][0]
