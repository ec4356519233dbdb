"""`imcat measure`: a table of positions in, fluxes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from imcat.catalogue import read_parquet
from imcat.cli import main
from imcat.config import Config
from imcat.errors import InputError, UsageError
from imcat.flags import SourceFlag
from imcat.scale.forced import run_forced


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_tile: Callable[..., Path]) -> Path:
    """A tile, and the run over it."""
    folder = tmp_path_factory.mktemp("forced")
    write_tile(folder, "tile", size=160, stars=14, seed=4)
    assert main(["run", str(folder / "tile.toml"), "-o", str(folder / "out"), "--no-report"]) == 0
    return folder


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Table:
    read = read_parquet(next((folder / "out" / "sources").glob("*.parquet")))
    names = (
        "ra",
        "dec",
        "g_psf_flux",
        "r_psf_flux",
        "r_psf_flux_err",
        "r_aper_flux_3",
        "detection_snr",
        "flags",
    )
    table = Table({name: np.asarray(read[name]) for name in names})
    # Fluxes of unresolved pairs belong to other places than those of the models.
    star = np.abs(np.asarray(read["psf_minus_model"])) < 0.1
    return table[star & ((np.asarray(read["flags"]) & int(SourceFlag.BLENDED)) == 0)]


def test_own_positions_give_the_same_fluxes(folder: Path, catalogue: Table, tmp_path: Path) -> None:
    catalogue[["ra", "dec"]].write(tmp_path / "places.ecsv")
    summary = run_forced(
        str(folder / "tile.toml"), tmp_path / "places.ecsv", tmp_path / "fluxes.fits", Config()
    )
    assert (summary.positions, summary.inside, summary.tile) == (len(catalogue), len(catalogue), "tile")
    found = Table.read(tmp_path / "fluxes.fits")
    bright = np.asarray(catalogue["detection_snr"]) > 20
    assert bright.sum() >= 5
    for band in "gr":
        ratio = np.asarray(found[f"{band}_psf_flux"] / catalogue[f"{band}_psf_flux"])[bright]
        np.testing.assert_allclose(ratio, 1, atol=0.02)
    assert str(found["r_psf_flux"].unit) == "nJy"


def test_tables_pass_through_and_odd_rows_stay(folder: Path, catalogue: Table, tmp_path: Path) -> None:
    table = Table(
        {
            "name": ["first", "again", "outside", "nowhere"],
            "ra": [catalogue["ra"][0], catalogue["ra"][0], 10.0, np.nan],
            "dec": [catalogue["dec"][0], catalogue["dec"][0], -5.0, np.nan],
        }
    )
    table.write(tmp_path / "places.csv")
    run_forced(str(folder / "tile.toml"), tmp_path / "places.csv", tmp_path / "fluxes.parquet", Config())
    found = Table.read(tmp_path / "fluxes.parquet")
    assert [str(name) for name in found["name"]] == ["first", "again", "outside", "nowhere"]
    flux = np.ma.filled(np.ma.asarray(found["r_psf_flux"], dtype=float), np.nan)
    # Two positions in one place: each has all of the light.
    assert flux[0] == pytest.approx(float(catalogue["r_psf_flux"][0]), rel=0.05)
    assert flux[1] == pytest.approx(flux[0], rel=1e-3)
    assert np.isnan(flux[2:]).all()
    assert (np.asarray(found["flags"])[2:] & 64 == 64).all()


def test_given_shapes_give_model_fluxes(folder: Path, catalogue: Table, tmp_path: Path) -> None:
    table = catalogue[["ra", "dec"]].copy()
    table["model_radius"], table["model_axis_ratio"], table["model_angle"] = 0.01, 1.0, 0.0
    table["model_radius"][0] = np.nan
    table.write(tmp_path / "places.fits")
    run_forced(str(folder / "tile.toml"), tmp_path / "places.fits", tmp_path / "fluxes.ecsv", Config())
    found = Table.read(tmp_path / "fluxes.ecsv")
    bright = np.asarray(catalogue["detection_snr"]) > 20
    bright[0] = False
    # A galaxy without extent is a star.
    ratio = np.asarray(found["r_model_flux"] / found["r_psf_flux"])[bright]
    np.testing.assert_allclose(ratio, 1, atol=0.01)
    assert np.isnan(np.ma.filled(np.ma.asarray(found["r_model_flux"], dtype=float), np.nan)[0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ra": [150.0]}, "no column dec"),
        ({"ra": ["a"], "dec": ["b"]}, "column ra holds no numbers"),
        ({"ra": [10.0], "dec": [10.0]}, "none of its 1 positions lies on tile"),
        (
            {"ra": [150.0], "dec": [2.0], "model_radius": [1.0]},
            "model_radius but not model_angle, model_axis_ratio",
        ),
    ],
)
def test_bad_tables_are_named(
    folder: Path, tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    Table(columns).write(tmp_path / "places.ecsv")
    with pytest.raises(InputError, match=message):
        run_forced(str(folder / "tile.toml"), tmp_path / "places.ecsv", tmp_path / "fluxes.fits", Config())
    assert not (tmp_path / "fluxes.fits").exists()


def test_usage(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "places.csv").write_text("ra,dec\n150,2\n")
    with pytest.raises(UsageError, match=r"ending '.xyz' is unknown"):
        run_forced(str(folder / "tile.toml"), tmp_path / "places.csv", tmp_path / "fluxes.xyz", Config())
    tile = str(folder / "tile.toml")
    assert (
        main(["measure", tile, "--positions", str(tmp_path / "none.csv"), "-o", str(tmp_path / "o.fits")])
        != 0
    )
    assert "none.csv: no such file" in capsys.readouterr().err
    assert (
        main(["measure", tile, "--positions", str(tmp_path / "places.csv"), "-o", str(tmp_path / "o.fits")])
        == 0
    )
    assert "1 of 1 positions lie on tile tile" in capsys.readouterr().out


def test_columns_of_the_same_name_are_kept_and_named(folder: Path, catalogue: Table, tmp_path: Path) -> None:
    table = catalogue[["ra", "dec", "flags", "r_psf_flux"]][:3]
    table["model_radius"], table["MODEL_AXIS_RATIO"], table["model_angle"] = [1.0, -1.0, 1.0], 0.5, 0.0
    table.write(tmp_path / "places.fits")
    summary = run_forced(str(folder / "tile.toml"), tmp_path / "places.fits", tmp_path / "out.ecsv", Config())
    found = Table.read(tmp_path / "out.ecsv")
    assert found["input_r_psf_flux"].tolist() == table["r_psf_flux"].tolist()
    assert found["input_flags"].tolist() == table["flags"].tolist()
    assert any("kept as input_" in warning for warning in summary.warnings)
    assert any("1 rows have no possible shape" in warning for warning in summary.warnings)
    assert np.isfinite(found["r_model_flux"]).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "ending", "message"),
    [
        ({"ra": [[1.0, 2.0]]}, "fits", "column ra holds .* values a row"),
        ({"ra": ["here"]}, "fits", r"column ra holds no numbers \(row 1: here\)"),
        ({"many": [[1.0, 2.0]]}, "csv", "column many cannot be written in this format"),
        ({}, "fits/none/q.fits", "there is no folder"),
    ],
)
def test_what_cannot_be_written_or_read_ends_early(
    change: dict[str, list[object]], ending: str, message: str, folder: Path, tmp_path: Path
) -> None:
    Table({"ra": [180.0], "dec": [0.0]} | change).write(tmp_path / "places.fits")
    with pytest.raises((InputError, UsageError), match=message):
        run_forced(str(folder / "tile.toml"), tmp_path / "places.fits", tmp_path / f"out.{ending}", Config())


def test_a_table_of_a_spreadsheet_is_read(folder: Path, catalogue: Table, tmp_path: Path) -> None:
    text = f"ra,dec\n{catalogue['ra'][0]},{catalogue['dec'][0]}\n"
    (tmp_path / "places.csv").write_text(text, encoding="utf-8-sig")
    summary = run_forced(str(folder / "tile.toml"), tmp_path / "places.csv", tmp_path / "out.fits", Config())
    assert summary.inside == 1
