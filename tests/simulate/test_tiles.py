"""Whole tiles: bytes follow from the seed, files read back to the same pixels, bad requests end early."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from imcat.errors import ConfigError, InputError, OutputError, UsageError
from imcat.evaluate import read_truth
from imcat.scale.simulation import parse_size, run_simulation
from imcat.simulate.scene import Models, make_scene
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import observe, simulate_tile, stream, write_tile
from imcat.simulate.truth import truth_fields
from imcat.simulate.truth_columns import truth_columns
from imcat.surveys import find_tiles, read_tile
from imcat.surveys.sdss_write import float_compress
from imcat.window import Window

SMALL = (192, 256)
MANY = SimulateSettings(lenses_per_deg2=8000.0, lookalikes_per_deg2=20000.0)


@pytest.fixture(scope="module")
def models() -> Models:
    return Models.load()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_sdss_frames_read_back_to_the_same_pixels(tmp_path: Path, models: Models) -> None:
    settings = SimulateSettings()
    observation = observe("sdss", 0, 1, settings, SMALL)
    write_tile(tmp_path / "t", observation, settings, models, 1)
    made, _ = simulate_tile(observation, settings, models, 1)
    read = read_tile(find_tiles([tmp_path / "t"])[0])
    assert read.name == made.name
    assert [b.name for b in read.bands] == ["u", "g", "r", "i", "z"]
    whole = Window.whole(SMALL)
    for ours, theirs in zip(made.bands, read.bands, strict=True):
        a, b = ours.exposures[0].read(whole), theirs.exposures[0].read(whole)
        nanomaggies = float_compress(a.data / np.float32(3631))
        np.testing.assert_allclose(b.data, nanomaggies * np.float32(3631), rtol=2e-7)
        np.testing.assert_allclose(b.variance, a.variance, rtol=1e-4)
        assert theirs.exposures[0].gain == pytest.approx(ours.exposures[0].gain, rel=1e-5)


def test_csst_exposures_read_back_to_the_same_pixels(tmp_path: Path, models: Models) -> None:
    settings = SimulateSettings(depth_below_limit=0.5)
    observation = observe("csst", 3, 1, settings, SMALL)
    write_tile(tmp_path / "t", observation, settings, models, 1, threads=2)
    made, _ = simulate_tile(observation, settings, models, 1)
    [source] = find_tiles([tmp_path / "t"])
    read = read_tile(source)
    assert (read.name, read.number) == (made.name, made.number)
    counts = {b.name: len(b.exposures) for b in read.bands}
    assert counts == {"nuv": 4, "u": 2, "g": 2, "r": 2, "i": 2, "z": 2, "y": 4}
    whole = Window.whole(SMALL)
    for ours, theirs in zip(made.bands, read.bands, strict=True):
        mine = {e.name.split("-")[0]: e for e in ours.exposures}
        for other in theirs.exposures:
            [own] = [e for obsid, e in mine.items() if obsid in other.name]
            a, b = own.read(whole), other.read(whole)
            good = ~a.bad & ~b.bad
            assert good.mean() > 0.9
            np.testing.assert_allclose(b.data[good], a.data[good], rtol=1e-5, atol=1e-3)
            assert np.median(b.variance[good] / a.variance[good]) == pytest.approx(1.0, abs=0.05)


def test_the_seed_decides_every_byte_whatever_the_workers(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 3)):
        summary = run_simulation("sdss", 2, 7, tmp_path / name, shape=SMALL, workers=workers)
        assert summary.exit_code == 0
        assert len(summary.written) == 2
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert len(first) == 13  # five frames and a truth in each tile, and the record
    run_simulation("sdss", 2, 8, tmp_path / "d", shape=SMALL, workers=1)
    other = digests(tmp_path / "d")
    assert set(first) == set(other)
    assert not any(first[name] == other[name] for name in first)


def test_a_simulation_goes_on_where_it_was_and_refuses_another_one(tmp_path: Path) -> None:
    run_simulation("sdss", 2, 7, tmp_path / "a", shape=SMALL, workers=1)
    before = digests(tmp_path / "a")
    (tmp_path / "a" / "tile-0002" / "truth.parquet").unlink()
    told: list[str] = []
    run_simulation("sdss", 2, 7, tmp_path / "a", shape=SMALL, workers=1, progress=told.append)
    assert digests(tmp_path / "a") == before
    assert len(told) == 1
    assert "tile-0002" in told[0]
    with pytest.raises(OutputError, match="holds another simulation"):
        run_simulation("sdss", 2, 9, tmp_path / "a", shape=SMALL, workers=1)


def test_truth_has_declared_columns_and_lies_where_the_light_is(tmp_path: Path, models: Models) -> None:
    observation = observe("sdss", 1, 3, MANY, SMALL)
    write_tile(tmp_path, observation, MANY, models, 3, 1)
    table = pq.read_table(tmp_path / "truth.parquet").to_pydict()
    assert list(table) == [c.name for c in truth_fields(("u", "g", "r", "i", "z"))]
    lenses = [k for k, is_lens in enumerate(table["is_lens"]) if is_lens]
    assert lenses
    assert sum(name != "" for name in table["lookalike"]) > 0
    for k in lenses:
        assert table["einstein_radius"][k] >= 0.5
        assert table["lens_source_z"][k] > table["z_true"][k] > 0
        assert table["arc_snr"][k] > 0
        assert table["lens_images"][k] >= 2
    [truth] = read_truth(tmp_path / "truth.parquet")
    image = read_tile(find_tiles([tmp_path])[0]).reference_exposure.read(Window.whole(SMALL))
    bright = [k for k in np.argsort(truth.magnitudes["r"])[:40] if truth.kind[k] != "galaxy"]
    x, y = (np.rint(v[bright]).astype(int) for v in (truth.x, truth.y))
    inside = (x > 1) & (x < SMALL[1] - 2) & (y > 1) & (y < SMALL[0] - 2)
    at = image.data[y[inside], x[inside]]
    assert np.median(at) > 5 * np.sqrt(np.median(image.variance))


def test_total_light_of_a_scene_is_that_of_its_magnitudes(models: Models) -> None:
    observation = observe("sdss", 2, 3, MANY, SMALL)
    scene = make_scene(observation, MANY, models, np.random.SeedSequence(5))
    drawn = scene.components.total(len(scene.sources))
    np.testing.assert_allclose(drawn, scene.flux, rtol=1e-6)


def test_a_stream_yields_the_tiles_of_its_seed_and_shares_between_workers(models: Models) -> None:
    tiles = stream("sdss", 11, (96, 96), models=models)
    first = [next(tiles) for _ in range(3)]
    shared = next(stream("sdss", 11, (96, 96), models=models, start=2, step=4))
    np.testing.assert_array_equal(first[2].pixels, shared.pixels)
    assert first[0].pixels.shape == first[0].variance.shape == (5, 96, 96)
    assert not np.array_equal(first[0].pixels, first[1].pixels)
    assert len(first[0].truth["ra"]) == len(first[0].truth["r_mag"])


def test_a_crowded_tile_holds_its_cluster(models: Models) -> None:
    plain = SimulateSettings(clustering=False)
    crowded = SimulateSettings(clustering=False, cluster_stars=500, cluster_radius=10.0)
    counts = []
    for settings in (plain, crowded):
        observation = observe("sdss", 0, 5, settings, SMALL)
        scene = make_scene(observation, settings, models, np.random.SeedSequence(1))
        x, y = observation.reference_exposure.wcs.all_world2pix(scene.ra, scene.dec, 0)
        middle = np.hypot(x - SMALL[1] / 2, y - SMALL[0] / 2) * 0.396 < 10.0
        counts.append(int(middle.sum()))
    assert counts[1] - counts[0] == pytest.approx(250, abs=60)


@pytest.mark.parametrize(
    ("text", "message"),
    [("10by20", "expected WIDTHxHEIGHT"), ("x", "expected WIDTH"), ("-5x5", "WIDTHxHEIGHT")],
)
def test_a_size_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_size(text, "sdss")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"count": 0}, UsageError, "-n is 0"),
        ({"seed": -1}, UsageError, "--seed is -1"),
        ({"shape": (10, 4000)}, UsageError, "is impossible for sdss"),
        ({"survey": "hst"}, UsageError, "no camera of survey 'hst'"),
    ],
)
def test_impossible_requests_end_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], error: type[Exception], message: str
) -> None:
    request: dict[str, object] = {"survey": "sdss", "count": 1, "seed": 1, "shape": SMALL, **change}
    with pytest.raises(error, match=message):
        run_simulation(
            str(request["survey"]),
            request["count"],
            request["seed"],
            tmp_path / "o",
            shape=request["shape"],  # type: ignore[arg-type]
        )
    assert not (tmp_path / "o").exists()


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"simulate\.density is -1"):
        SimulateSettings(density=-1.0)
    with pytest.raises(ConfigError, match="noise_correlation is 9"):
        SimulateSettings(noise_correlation=9.0)


def test_a_depth_without_a_population_is_refused_before_drawing(models: Models) -> None:
    observation = observe("sdss", 0, 1, SimulateSettings(), SMALL)
    with pytest.raises(InputError, match="where the population ends"):
        make_scene(observation, SimulateSettings(depth_below_limit=9.0), models, np.random.SeedSequence(1))


def test_lenses_on_a_grid_keep_their_distance(models: Models) -> None:
    settings = SimulateSettings(lenses_per_deg2=30000.0, lookalikes_per_deg2=30000.0, lens_spacing=16.0)
    observation = observe("sdss", 0, 4, settings, (400, 400))
    _, scene = simulate_tile(observation, settings, models, 4)
    truth = truth_columns(scene, observation, settings)
    own = truth["is_lens"] | (truth["lookalike"] != "")
    x, y = truth["x"][own], truth["y"][own]
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
    assert 75 <= len(x) <= 81  # 9 x 9 places
    assert 0.3 < truth["is_lens"][own].mean() < 0.7
    assert distance.min() > 16.0 / 0.396 - 2


def test_galaxies_may_be_larger_than_the_sky_s() -> None:
    settings = SimulateSettings(lenses_per_deg2=0, lookalikes_per_deg2=0)
    one, two = (
        next(stream("sdss", 5, (96, 96), replace(settings, galaxy_size=size))).truth for size in (1.0, 2.0)
    )
    np.testing.assert_array_equal(two["r_mag"], one["r_mag"])
    assert (one["half_light_radius"] > 0).any()
    np.testing.assert_allclose(two["half_light_radius"], 2 * one["half_light_radius"], rtol=1e-5)
