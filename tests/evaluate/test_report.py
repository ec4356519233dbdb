"""Truth tables, and reports of catalogues whose errors are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from imcat.catalogue import Catalogue, write_parquet
from imcat.errors import InputError, OutputError, UsageError
from imcat.evaluate import evaluate_catalogue, read_truth
from imcat.evaluate.lists import fit_chip_map, read_tile_lists
from imcat.evaluate.truth import bulge_disc_half_light_radius
from imcat.schema import Schema

SHAPE, SCALE = (900, 1100), 0.4
SCHEMA = Schema({"g": 4686.0, "r": 6166.0}, [3.0])
AB = 3631e9


def _wcs() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [359.99, 40.0]
    wcs.wcs.crpix = [550, 450]
    wcs.wcs.cd = np.array([[-0.8, 0.6], [0.6, 0.8]]) * SCALE / 3600
    return wcs


def _truth(seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    x, y = (v.ravel().astype(float) for v in np.meshgrid(np.arange(20, 1090, 30), np.arange(20, 890, 30)))
    x, y = x + rng.uniform(-2, 2, x.size), y + rng.uniform(-2, 2, x.size)
    ra, dec = _wcs().pixel_to_world_values(x, y)
    mag = rng.uniform(17, 25, x.size)
    return Table(
        {
            "source_id": np.arange(x.size),
            "type": np.where(rng.uniform(size=x.size) < 0.3, "star", "galaxy"),
            "ra": ra,
            "dec": dec,
            "x": x,
            "y": y,
            "g_mag": mag + 0.5,
            "r_mag": mag,
            "half_light_radius": rng.uniform(0, 1, x.size),
            "z_true": rng.uniform(0, 1, x.size),
        }
    )


def _catalogue(truth: Table, limit: float = 22.0, false: int = 50, zero_point: float = 0.0) -> Catalogue:
    """Every source to `limit`, errors as quoted, and false detections where nothing is."""
    rng = np.random.default_rng(9)
    rows = np.asarray(truth["r_mag"]) < limit
    n = int(rows.sum()) + false
    x = np.append(np.asarray(truth["x"])[rows], 35.0 + 30 * rng.choice(34, false))
    y = np.append(np.asarray(truth["y"])[rows], 35.0 + 30 * rng.choice(28, false))
    position_error = np.full(n, 0.05)
    x, y = (v + rng.normal(0, 0.05 / SCALE, n) for v in (x, y))
    ra, dec = _wcs().pixel_to_world_values(x, y)
    columns = {}
    for name in SCHEMA.required:
        dtype = SCHEMA[name].dtype
        columns[name] = np.full(n, "t1") if dtype == "str" else np.zeros(n, dtype)
    columns.update(
        source_id=np.arange(n), ra=ra, dec=dec, x=x, y=y, ra_err=position_error, dec_err=position_error
    )
    columns.update(detection_score=np.append(np.full(n - false, 0.98), np.full(false, 0.1)))
    columns.update(detection_snr=np.append(np.full(n - false, 40.0), np.full(false, 4.0)))
    columns.update(half_light_radius=np.ones(n))
    for band in ("g", "r"):
        flux = AB * 10 ** (-0.4 * np.append(np.asarray(truth[f"{band}_mag"])[rows], np.full(false, 23.0)))
        error = np.full(n, 300.0)
        noisy = flux * 10 ** (-0.4 * zero_point) + rng.normal(0, error)
        columns.update({f"{band}_kron_flux": noisy, f"{band}_kron_flux_err": error})
        columns.update({f"{band}_aper_flux_3": noisy, f"{band}_aper_flux_3_err": error})
    meta = {"tile": "t1", "survey": "generic", "reference": "r", "psf_fwhm": {"g": 1.2, "r": 1.2}}
    return Catalogue.build(columns, SCHEMA, meta)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder and the truth beside it."""
    truth = _truth()
    truth.write(tmp_path / "truth.ecsv")
    (tmp_path / "simulated" / "t1").mkdir(parents=True)
    truth.write(tmp_path / "simulated" / "t1" / "truth.parquet")
    (tmp_path / "run" / "sources").mkdir(parents=True)
    write_parquet(_catalogue(truth), tmp_path / "run" / "sources" / "t1.parquet")
    corners = [[-0.5, -0.5], [SHAPE[1] - 0.5, -0.5], [SHAPE[1] - 0.5, SHAPE[0] - 0.5], [-0.5, SHAPE[0] - 0.5]]
    footprint = np.column_stack(_wcs().pixel_to_world_values(*np.array(corners).T)).tolist()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"tiles": {"t1": {"footprint": footprint}}}))
    return tmp_path


def test_chip_map_follows_a_rotated_wcs_across_ra_zero() -> None:
    wcs, rng = _wcs(), np.random.default_rng(1)
    x, y = rng.uniform(0, 1100, 200), rng.uniform(0, 900, 200)
    chip = fit_chip_map(*wcs.pixel_to_world_values(x, y), x, y)
    assert chip is not None
    assert chip.pixel_scale == pytest.approx(SCALE, rel=1e-4)
    assert chip.residual < 1e-4
    at = chip(*wcs.pixel_to_world_values([10.0], [850.0]))
    assert (at[0][0], at[1][0]) == pytest.approx((10, 850), abs=1e-3)
    assert fit_chip_map([1.0, 1.1], [2.0, 2.0], [0, 1], [0, 1]) is None


def test_shape_comes_from_the_ledger(folder: Path) -> None:
    (tile,) = read_tile_lists(folder / "run")
    assert tile.shape == SHAPE
    assert (tile.bands, tile.reference, tile.psf_fwhm["r"]) == (("g", "r"), "r", 1.2)


def test_report_of_a_known_catalogue(folder: Path) -> None:
    result = evaluate_catalogue(folder / "run", folder / "simulated", folder / "report", faint_limit=24.0)
    assert json.loads((folder / "report" / "report.json").read_text()) == result
    text = (folder / "report" / "report.md").read_text()
    for name in ("completeness", "reliability", "fluxes", "positions", "reference-r_kron", "reference-ra"):
        assert (folder / "report" / f"{name}.png").stat().st_size > 5000
        assert f"]({name}.png)" in text
    found = result["detection"]
    curve = found["completeness"]["all"]
    edges, fraction = np.array(curve["edges"]), curve["fraction"]
    for low, value in zip(edges[:-1], fraction, strict=True):
        assert value == pytest.approx(1.0 if low < 22 else 0.0, abs=0.03)
    total, false = result["lists"]["detections"], 50
    # The few at the border are not counted.
    assert found["purity"]["purity"] == pytest.approx(1 - false / total, abs=0.01)
    assert found["purity"]["chance"] < 0.05
    assert found["by_threshold"][-1]["purity"] > 0.99
    assert found["by_threshold"][-1]["detection_snr"] == 40
    assert found["reliability"]["error"] == pytest.approx(0.02, abs=0.02)
    pulls = [
        row["pull_width"]
        for row in result["fluxes"]["r_kron_flux"]
        if row["kind"] == "all" and row["number"] > 100
    ]
    np.testing.assert_allclose(pulls, 1, atol=0.2)
    (east,) = [row for row in result["positions"]["ra"] if row["kind"] == "all" and row["low"] == 20]
    assert east["scatter"] == pytest.approx(0.05, rel=0.15)
    assert east["pull_width"] == pytest.approx(1, abs=0.15)
    zero = {c["quantity"]: c for c in result["reference"]}["r_kron"]
    assert abs(zero["offset"]) < 0.005
    assert zero["floor"] < 0.01


def test_reference_table_gives_the_zero_point_but_no_purity(folder: Path) -> None:
    truth = _truth()
    write_parquet(_catalogue(truth, zero_point=0.1), folder / "shifted.parquet")
    table = Table({"RA": truth["ra"], "DEC": truth["dec"] + 0.2 / 3600})
    table["OBJC_TYPE"] = np.where(truth["type"] == "star", 6, 3).astype(np.int32)
    mags = np.column_stack(
        [np.full(len(truth), -9999), truth["g_mag"], truth["r_mag"], truth["r_mag"], truth["r_mag"]]
    )
    table["PSFMAG"] = np.where(np.arange(len(truth))[:, None] >= 0, mags, 0).astype(np.float32)
    table["MODELMAG"] = mags.astype(np.float32)
    table.write(folder / "photoObj.fits")
    result = evaluate_catalogue(
        folder / "shifted.parquet", folder / "photoObj.fits", folder / "r", figures=False
    )
    checks = {c["quantity"]: c for c in result["reference"]}
    assert set(checks) == {"g_kron", "r_kron", "ra", "dec"}
    assert checks["r_kron"]["offset"] == pytest.approx(0.1, abs=0.005)
    assert checks["dec"]["offset"] == pytest.approx(-0.2, abs=0.01)
    assert abs(checks["ra"]["offset"]) < 0.01
    assert "purity" not in result["detection"]
    assert "fluxes" not in result
    assert "purity is not stated" in (folder / "r" / "report.md").read_text()


def test_truth_in_pixels_without_magnitudes(folder: Path) -> None:
    truth = _truth()
    truth["x", "y"].write(folder / "xy.csv", format="ascii.csv")
    result = evaluate_catalogue(folder / "run", folder / "xy.csv", folder / "r", figures=False)
    assert result["lists"]["matched"] == result["lists"]["detections"] - 50
    assert result["settings"]["band"] is None


def test_other_formats_of_the_catalogue_give_the_same(folder: Path) -> None:
    catalogue = _catalogue(_truth())
    table = Table(dict(catalogue.columns))
    kept = []
    for name in ("c.fits", "c.ecsv", "c.vot"):
        table.write(folder / name, **({"format": "votable"} if name.endswith("vot") else {}))
        result = evaluate_catalogue(
            folder / name, folder / "simulated", folder / "r", band="r", figures=False
        )
        kept.append(result["detection"])
    assert kept[0] == kept[1] == kept[2]


def test_tables_of_both_simulators_read_alike(tmp_path: Path) -> None:
    own = _truth()
    other = Table({"type": own["type"], "x": own["x"], "y": own["y"], "ra": own["ra"], "dec": own["dec"]})
    other["mag_g"], other["mag_r"], other["redshift"] = own["g_mag"], own["r_mag"], own["z_true"]
    other["mag_r"][0] = 99.0
    other["bt_r"], other["bulge_re"], other["disk_h"] = 0.0, 0.0, 1.0
    for name, table in (("own", own), ("other", other)):
        (tmp_path / name).mkdir()
        table.write(tmp_path / name / "truth.parquet")
    (a,), (b,) = read_truth(tmp_path / "own"), read_truth(tmp_path / "other")
    assert a.complete
    assert b.complete
    np.testing.assert_array_equal(a.magnitudes["r"][1:], b.magnitudes["r"][1:])
    assert np.isnan(b.magnitudes["r"][0])
    np.testing.assert_array_equal(a.redshift, b.redshift)
    np.testing.assert_allclose(b.half_light_radius, 1.67835, rtol=1e-4)  # of an exponential disc


def test_half_light_radius_of_bulge_and_disc() -> None:
    mixed = bulge_disc_half_light_radius(0.5, 1.0, 1.0)
    assert 1.0 < float(mixed) < 1.67835
    assert bulge_disc_half_light_radius(0.0, 0.0, 0.0) == 0


def test_bad_input_is_named(folder: Path) -> None:
    run = folder / "run"
    with pytest.raises(InputError, match=r"nothing.fits: no such file; expected a table"):
        evaluate_catalogue(run, folder / "nothing.fits", folder / "r")
    with pytest.raises(InputError, match="holds no truth"):
        evaluate_catalogue(run, run, folder / "r")
    Table({"a": [1.0]}).write(folder / "a.csv", format="ascii.csv")
    with pytest.raises(InputError, match=r"no positions .its columns: a"):
        evaluate_catalogue(run, folder / "a.csv", folder / "r")
    with pytest.raises(InputError, match="no column ra, dec, x, y"):
        evaluate_catalogue(folder / "a.csv", folder / "truth.ecsv", folder / "r")
    Table({"ra": [10.0], "dec": [-30.0]}).write(folder / "far.csv", format="ascii.csv")
    with pytest.raises(InputError, match="none of its sources lies"):
        evaluate_catalogue(run, folder / "far.csv", folder / "r")
    (folder / "broken.fits").write_bytes(fits.PrimaryHDU().header.tostring().encode()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_catalogue(run, folder / "broken.fits", folder / "r")
    with pytest.raises(UsageError, match="no magnitudes in 'q'; expected one of: g, r"):
        evaluate_catalogue(run, folder / "simulated", folder / "r", band="q")
    with pytest.raises(UsageError, match="radius of -1 arcsec"):
        evaluate_catalogue(run, folder / "simulated", folder / "r", radius=-1)
    with pytest.raises(OutputError, match="something else than a report"):
        evaluate_catalogue(run, folder / "simulated", run)
    assert not (folder / "r").exists()
    assert not list(folder.glob(".*"))


def test_an_earlier_report_is_replaced(folder: Path) -> None:
    for _ in range(2):
        evaluate_catalogue(folder / "run", folder / "simulated", folder / "report", figures=False)
    assert sorted(p.name for p in (folder / "report").iterdir()) == ["report.json", "report.md"]
    assert not list(folder.glob(".*"))


@pytest.mark.realdata
def test_photoobj_and_skymaker_tables(data_dir: Path) -> None:
    (table,) = read_truth(data_dir / "sdss" / "catalogues" / "photoObj-003900-6-0269.fits")
    assert len(table) == 981
    assert ((table.kind == "star").sum(), (table.kind == "galaxy").sum()) == (357, 588)
    assert np.nanmedian(table.magnitudes["r"]) == pytest.approx(21.6, abs=0.3)
    assert not table.complete
    (simulated,) = read_truth(data_dir / "simulated" / "skymaker_sdss_03")
    assert simulated.complete
    assert set(simulated.magnitudes) == set("ugriz")
    assert np.all(simulated.half_light_radius[simulated.kind == "star"] == 0)
