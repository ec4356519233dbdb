"""``imcat augment``: the same bytes however it runs, goes on after a kill, refuses what is impossible before it works."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

import imcat
from imcat.augment.assembly import Augmenter
from imcat.augment.assembly_settings import AugmentSettings
from imcat.cli import main
from imcat.errors import InputError, OutputError
from imcat.scale.simulation import run_simulation
from imcat.scale.space import check_space, in_words, tile_bytes
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import observe
from imcat.surveys import find_tiles, read_tile

ROOT = Path(imcat.__file__).parents[1]
SMALL = "96x80"


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def tiles(out: Path, weights: Path, *more: str, survey: str = "sdss", n: int = 3) -> list[str]:
    return [
        "augment", "tiles", survey, "-n", str(n), "--seed", "5", "-o", str(out), "--size", SMALL,
        "--weights", str(weights), *more,
    ]  # fmt: skip


def test_the_same_bytes_with_one_worker_and_two(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tiles(tmp_path / "a", weights, "--workers", "1", "--generated-sky", "1")) == 0
    printed = capsys.readouterr()
    assert "3 tiles in" in printed.out
    assert "tiles/s" in printed.out
    assert "3 tiles to write, about" in printed.err
    assert "in a tile, on average: " in printed.err
    assert "3/3 tile-000" in printed.err
    assert main(tiles(tmp_path / "b", weights, "--workers", "2", "--generated-sky", "1")) == 0
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert len(first) == 19  # five frames and a truth each, and the record
    [source, *_] = find_tiles([tmp_path / "a" / "tile-0001"])
    assert read_tile(source).band_names == tuple("ugriz")
    # Another mix in the same folder is another set.
    assert main(tiles(tmp_path / "a", weights, "--generated-sky", "0")) == 2
    assert "holds another simulation" in capsys.readouterr().err


def test_it_goes_on_after_a_kill(tmp_path: Path, weights: Path) -> None:
    arguments = tiles(tmp_path / "a", weights, "--workers", "2", n=6)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "imcat", *arguments], env=environment, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 300
    while not list((tmp_path / "a").glob("*/truth.parquet")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = list((tmp_path / "a").glob("*/truth.parquet"))
    assert 0 < len(done) < 6
    time.sleep(2.0)  # its workers end with it
    half = tmp_path / "a" / "tile-0006"
    half.mkdir(exist_ok=True)
    (half / ".frame-u.fits.bz2.1-0123abcd.part").write_bytes(b"half")
    assert main(arguments) == 0
    assert main(tiles(tmp_path / "b", weights, "--workers", "1", n=6)) == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_csst_tiles_are_read_as_any_others(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    assert main([*tiles(out, weights, "--bands", "g,i", survey="csst", n=1), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == {}
    [source] = find_tiles([out])
    tile = read_tile(source)
    assert tile.band_names == ("g", "i")
    assert [len(band.exposures) for band in tile.bands] == [2, 2]
    assert len(list(out.rglob("*_wht_L1.fits.gz"))) == len(list(out.rglob("*_img_L1.fits"))) == 4


def test_twins_of_a_tile_are_augmented_too(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_simulation("sdss", 1, 7, tmp_path / "real", shape=(192, 256), workers=1)
    words = [
        "augment",
        "tiles",
        "sdss",
        "--seed",
        "5",
        "--like",
        str(tmp_path / "real"),
        "--weights",
        str(weights),
    ]
    assert main([*words, "-o", str(tmp_path / "a"), "--bands", "r,g", "--generated-sky", "1"]) == 0
    [real], [twin] = (find_tiles([tmp_path / name]) for name in ("real", "a"))
    assert (twin.name, [band for band, _ in twin.parts]) == (real.name, ["g", "r"])
    columns = pq.read_schema(tmp_path / "a" / "tile-0001" / "truth.parquet").names
    assert {"g_mag", "x_min", "generated"} <= set(columns)
    assert "u_mag" not in columns
    assert main([*words, "-o", str(tmp_path / "b"), "--size", "64x64"]) == 2
    assert "a twin has the size of its tile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["des"], "'des' is not one of 'sdss', 'csst'"),
        (["sdss", "--generated", "2"], "generated is 2; expected a share, 0 to 1"),
        (["csst", "--generated-sky", "0.1"], "no real sky to learn from; expected 0"),
        (["sdss", "--pairs", "-3"], "pairs is -3; expected a number on a square degree"),
        (["sdss", "--bands", "r,q"], "sdss has no band 'q'; expected some of u, g, r, i, z"),
        (["csst", "--bands", "g,r"], "expected i among them"),
        (["sdss", "--size", "12x12"], "a tile of 12x12 pixels is impossible for sdss"),
        (["sdss", "--size", "big"], "--size is 'big'; expected WIDTHxHEIGHT"),
        (["sdss", "--magnitudes", "17:26"], "magnitude 26 was asked for; expected 15 to 24"),
        (["sdss", "--magnitudes", "17"], "expected BRIGHT:FAINT"),
        (["sdss", "--workers", "0"], "--workers is 0; expected at least 1"),
        (["sdss", "-n", "0"], "-n is 0; expected at least 1 tile"),
        (["sdss", "--qqq"], "imcat augment tiles has no option --qqq; imcat augment tiles --help lists them"),
        (["csst", "-n", "90000000", "--size", "256x256"], "1.0 TB are free; expected fewer or smaller tiles"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_any_work(
    tmp_path: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    class Usage(NamedTuple):
        free: int = 10**12

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage())
    out = tmp_path / "out"
    words = ["augment", "tiles", "--seed", "1", "-o", str(out), "--weights", str(weights), *arguments]
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not out.exists()


def test_absent_weights_are_refused(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main(tiles(out, tmp_path)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "there is no light_sdss.safetensors" in line
    assert not out.exists()
    # What a folder does not hold beside others is imcat's own.
    with pytest.raises(InputError, match="of_nobody"):
        Augmenter.load("sdss", AugmentSettings.of_survey("sdss"), str(tmp_path / "of_nobody"))
    light = tmp_path / "light"
    light.mkdir()
    for path in weights.glob("light_sdss.*"):
        shutil.copy(path, light)
    asked: list[str | None] = []
    monkeypatch.setattr("imcat.augment.trained.load_sky", lambda name, folder: asked.append(folder))
    loaded = Augmenter.load("sdss", AugmentSettings.of_survey("sdss"), str(light))
    assert loaded.light is not None
    assert asked == [None]
    # Without anything generated none are needed.
    assert main(tiles(out, tmp_path, "--generated", "0", "--generated-sky", "0", n=1)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "augment needs a command; expected train or tiles"),
        (["tile"], "no command is called 'tile'; did you mean 'tiles'?"),
        (["train", "none.toml"], "none.toml: the recipe cannot be read"),
        (["train"], "missing argument 'RECIPE.toml' (imcat augment train --help explains)"),
    ],
)
def test_wrong_usage_of_the_group(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["augment", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("survey", "shape", "packed"),
    [("sdss", (256, 256), False), ("csst", (128, 128), False), ("csst", (128, 128), True)],
)
def test_the_space_that_is_asked_for_is_the_space_that_is_used(
    tmp_path: Path, survey: str, shape: tuple[int, int], packed: bool
) -> None:
    augment = AugmentSettings(generated=0.0) if packed else None
    run_simulation(survey, 1, 3, tmp_path / "a", shape=shape, workers=1, augment=augment)
    used = sum(p.stat().st_size for p in (tmp_path / "a" / "tile-0001").iterdir())
    asked = tile_bytes(observe(survey, 0, 3, SimulateSettings(), shape), packed=packed)
    assert used < asked < 1.25 * used


def test_more_than_is_free_is_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert check_space(tmp_path / "not" / "there", 1000) > 1000
    with pytest.raises(OutputError, match=r"need about .* and .* are free"):
        check_space(tmp_path / "x", 2 * free)
    assert [in_words(n) for n in (7, 9_960, 123e9, 5e18)] == ["7 bytes", "10 kB", "123 GB", "5000 PB"]
