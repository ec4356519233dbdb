"""Bad input: one line that says what is wrong and where, exit code 2, and nothing written."""

from __future__ import annotations

import bz2
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from imcat.cli import main

Write = Callable[..., Path]


def _run(inputs: Path | str, out: Path, *more: str) -> int:
    return main(["run", str(inputs), "-o", str(out), "--no-report", *more])


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run on bad input; check that it is refused as it must be, and return the line."""

    def run(inputs: Path | str, *words: str, more: tuple[str, ...] = ()) -> str:
        out = tmp_path / "out"
        capsys.readouterr()
        assert _run(inputs, out, *more) == 2
        printed, said = capsys.readouterr()
        assert printed == ""
        assert said.startswith("error: ")
        assert said.count("\n") == 1, said
        assert not out.exists()
        for word in words:
            assert word in said
        return said

    return run


def _edit(path: Path, change: Callable[[fits.Header, np.ndarray], object]) -> None:
    """Change header and pixels of an image in place."""
    data, header = fits.getdata(path, header=True)
    result = change(header, data)
    fits.writeto(path, data if result is None else result, header, overwrite=True)


def test_a_missing_file(refuse: Callable[..., str], tmp_path: Path) -> None:
    refuse(tmp_path / "none.toml", "none.toml", "no such file")
    refuse(tmp_path / "*.fits", "*.fits", "no file matches")


def test_an_empty_folder(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "empty")


def test_a_folder_without_survey_files(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("Dear Sir")
    refuse(tmp_path / "letters", "letters", "SDSS frames")


def test_an_image_that_is_missing(refuse: Callable[..., str], tmp_path: Path, write_tile: Write) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    (tmp_path / "tile-r.fits").unlink()
    refuse(tile, "tile-r.fits", "no such file")


@pytest.mark.parametrize("kind", ["fits", "gz", "bz2"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file(
    refuse: Callable[..., str], tmp_path: Path, write_tile: Write, kind: str, damage: str
) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    content = (tmp_path / "tile-r.fits").read_bytes()
    if kind != "fits":
        content = {"gz": gzip.compress, "bz2": bz2.compress}[kind](content)
        tile.write_text(tile.read_text().replace("tile-r.fits", f"tile-r.fits.{kind}"))
        (tmp_path / "tile-r.fits").unlink()
    changed = bytearray(content)
    if damage == "truncated":
        changed = changed[: len(content) // 2]
    elif damage == "empty":
        changed = bytearray()
    else:  # in the middle of what is compressed, in the header of what is not
        changed[len(content) // 2 if kind != "fits" else 3] ^= 0x10
    path = tmp_path / ("tile-r.fits" if kind == "fits" else f"tile-r.fits.{kind}")
    path.write_bytes(changed)
    refuse(tile, path.name)


def test_an_hdu_without_data(refuse: Callable[..., str], tmp_path: Path, write_tile: Write) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    fits.PrimaryHDU().writeto(tmp_path / "tile-r.fits", overwrite=True)
    refuse(tile, "tile-r.fits", "image")
    tile.write_text(tile.read_text().replace("tile-r.fits", "tile-r.fits[3]"))
    refuse(tile, "tile-r.fits", "3")


def test_wrong_dimensions(refuse: Callable[..., str], tmp_path: Path, write_tile: Write) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    _edit(tmp_path / "tile-r.fits", lambda h, d: d[0])
    refuse(tile, "tile-r.fits")
    _edit(tmp_path / "tile-r.fits", lambda h, d: np.zeros((3, 64, 64), np.float32))
    refuse(tile, "tile-r.fits")


@pytest.mark.parametrize("key", ["variance", "weight", "rms", "mask"])
def test_a_map_of_another_size(
    refuse: Callable[..., str], tmp_path: Path, write_tile: Write, key: str
) -> None:
    fits.writeto(tmp_path / "map.fits", np.ones((32, 64), np.float32))
    tile = write_tile(tmp_path, "tile", size=64, **{key: "map.fits"})
    refuse(tile, "64 x 32", "64 x 64")


def test_no_wcs(refuse: Callable[..., str], tmp_path: Path, write_tile: Write) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    _edit(
        tmp_path / "tile-r.fits",
        lambda h, d: [h.remove(k) for k in list(h) if k[:2] in ("CT", "CR", "CD")] and None,
    )
    refuse(tile, "tile-r.fits")


@pytest.mark.parametrize(
    "cards",
    [
        {"CD1_1": 0.0},
        {"CTYPE1": "FREQ", "CTYPE2": "STOKES"},
        {"CRVAL2": 250.0},
        {"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"},
    ],
)
def test_a_nonsense_wcs(
    refuse: Callable[..., str], tmp_path: Path, write_tile: Write, cards: dict[str, object]
) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    _edit(tmp_path / "tile-r.fits", lambda h, d: h.update(cards))
    refuse(tile, "tile-r.fits")


def test_bands_that_do_not_overlap(refuse: Callable[..., str], tmp_path: Path, write_tile: Write) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    _edit(tmp_path / "tile-r.fits", lambda h, d: h.update({"CRVAL1": 151.0}))
    refuse(tile, "tile-r.fits", "overlap")


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "no pixel"), (7.0, "every pixel of the image is 7;"), (0.0, "is 0;")]
)
def test_an_image_of_one_value(
    refuse: Callable[..., str], tmp_path: Path, write_tile: Write, value: float, said: str
) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    _edit(tmp_path / "tile-r.fits", lambda h, d: d.fill(value))
    # In the file's own unit, which is not that of the catalogue.
    refuse(tile, "tile-r.fits", said)


@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan])
@pytest.mark.parametrize("key", ["variance", "weight", "rms"])
def test_no_variance_anywhere(
    refuse: Callable[..., str], tmp_path: Path, write_tile: Write, key: str, value: float
) -> None:
    fits.writeto(tmp_path / "map.fits", np.full((64, 64), value, np.float32))
    tile = write_tile(tmp_path, "tile", size=64, **{key: "map.fits"})
    refuse(tile, "map.fits", key)


def test_an_unknown_keyword_in_the_tile(
    refuse: Callable[..., str], tmp_path: Path, write_tile: Write
) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    text = tile.read_text()
    tile.write_text(text.replace("zero_point", "zero_pint"))
    refuse(tile, "tile.toml", "zero_pint", "did you mean 'zero_point'?")
    tile.write_text(text.replace("name =", "nmae ="))
    refuse(tile, "tile.toml", "nmae", "did you mean 'name'?")
    tile.write_text("bands = ")
    refuse(tile, "tile.toml", "TOML")


def test_an_unknown_keyword_in_the_configuration(
    refuse: Callable[..., str], tmp_path: Path, write_tile: Write
) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    config = tmp_path / "config.toml"
    config.write_text("[detect]\ntreshold = 3\n")
    refuse(tile, "config.toml", "[detect]", "did you mean 'threshold'?", more=("--config", str(config)))
    config.write_text("[detect]\nthreshold = 'low'\n")
    refuse(tile, "config.toml", "detect.threshold", "a number", more=("--config", str(config)))


def test_a_band_that_is_nowhere(refuse: Callable[..., str], tmp_path: Path, write_tile: Write) -> None:
    refuse(write_tile(tmp_path, "tile", size=64), "band k", "g, r", more=("--bands", "g,k"))


def test_two_tiles_of_one_name(refuse: Callable[..., str], tmp_path: Path, write_tile: Write) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_tile(tmp_path / "in" / name, "tile", size=64)
    refuse(tmp_path / "in", "two tiles are named tile")


def _snapshot(folder: Path) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_the_output_folder_of_another_run(
    tmp_path: Path, write_tile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_tile(tmp_path, "first"), write_tile(tmp_path, "second", seed=2)
    config = tmp_path / "config.toml"
    config.write_text("min_score = 0.9\n")
    out = tmp_path / "out"
    assert _run(first, out) == 0
    before = _snapshot(out)
    capsys.readouterr()
    for inputs, more, word in [
        (first, (), "add --resume"),
        (second, (), "add --resume"),
        (second, ("--resume",), "other inputs"),
        (first, ("--resume", "--config", str(config)), "another configuration"),
    ]:
        assert _run(inputs, out, *more) == 2
        printed, said = capsys.readouterr()
        assert printed == ""
        assert said.startswith(f"error: {out}: ")
        assert said.count("\n") == 1
        assert word in said
        assert _snapshot(out) == before


def test_a_folder_of_other_files(
    tmp_path: Path, write_tile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("Dear Sir")
    for more in ((), ("--resume",)):
        assert _run(tile, tmp_path / "letters", *more) == 2
        assert "holds files that are not of a run" in capsys.readouterr().err
        assert [p.name for p in (tmp_path / "letters").iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_made(
    tmp_path: Path, write_tile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    tile = write_tile(tmp_path, "tile", size=64)
    assert _run(tile, tile / "out") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_band_that_is_absent_is_fine_and_one_that_is_unreadable_is_not(
    tmp_path: Path, write_tile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_tile(folder, "tile-a", bands=("r",))
    write_tile(folder, "tile-b", seed=2, position=(150.1, 2.0))
    bad = folder / "tile-b-r.fits"
    bad.write_bytes(bad.read_bytes()[:5000])
    out = tmp_path / "out"
    assert _run(folder, out) == 1
    printed, said = capsys.readouterr()
    assert printed.startswith("1 of 2 tiles written, 1 failed: ")
    [error] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: tile tile-b: ")
    assert "tile-b-r.fits" in error
    assert [p.name for p in (out / "sources").iterdir()] == ["tile-a.parquet"]
