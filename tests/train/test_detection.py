"""Training of the detection network: samples, targets, loss, checkpoints, calibration, weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imcat.cli import main
from imcat.detect.network import HEAT, OUTPUTS, SCORE, DetectionNet
from imcat.detect.network_input import CONDITIONS, FEATURES, FILTERED
from imcat.detect.network_peaks import find_candidates
from imcat.detect.network_search import load_network
from imcat.errors import ConfigError, InputError
from imcat.train.detection import DetectionRecipe, Progress, train_detection
from imcat.train.detection_card import calibration, isotonic, working_point, write_weights
from imcat.train.detection_device import device_losses, train_on_device
from imcat.train.detection_packs import PLANES, ViewPack
from imcat.train.detection_samples import labelled_sample, sample_stream, some_bands, truth_snr, view
from imcat.train.detection_store import SampleStore
from imcat.train.detection_targets import Batch, Crop, detection_loss, real_candidates, targets

SMOKE = DetectionRecipe().smoke()


def _crop(x: list[float], y: list[float], snr: list[float], fwhm: float = 3.0) -> Crop:
    radius = np.full(len(x), 0.5 * fwhm)
    return Crop(np.array(x), np.array(y), np.array(snr), radius, np.array(snr), fwhm, 2.5)


def _batch(crop: Crop, side: int = 32) -> Batch:
    heat, place = targets(crop, (side, side))
    empty = torch.zeros(1, FEATURES, side, side)
    return Batch(
        empty, torch.zeros(1, CONDITIONS), torch.from_numpy(heat)[None], torch.from_numpy(place)[None], [crop]
    )


def test_samples_hold_sources_where_the_truth_has_them() -> None:
    sample = next(sample_stream("sdss", 5, 128))
    assert sample.signal.shape == sample.valid.shape == (5, 128, 128)
    for bands in (None, np.array([1, 3])):
        seen = view(sample, bands)
        assert seen.maps.shape == (FEATURES, 128, 128)
        assert seen.conditions.shape == (CONDITIONS,)
        assert np.isfinite(seen.maps.astype(np.float32)).all()
        inner = (seen.snr > 10) & (np.abs(seen.x - 64) < 58) & (np.abs(seen.y - 64) < 58)
        assert inner.any()
        column, row = np.rint(seen.x[inner]).astype(int), np.rint(seen.y[inner]).astype(int)
        # The filtered sum is at least a part of what an isolated source of that light would have.
        assert np.all(np.sinh(seen.maps[FILTERED, row, column].astype(float)) > 0.3 * seen.snr[inner])
        assert np.all(seen.light >= 0.999 * seen.snr)
        assert seen.match == pytest.approx(2.5)  # EVALUATION's arcsecond
        assert np.all(seen.radius >= 0.5 * seen.fwhm - 1e-5)


def test_half_of_the_samples_lack_bands() -> None:
    chosen = [some_bands(np.random.default_rng(k), 5) for k in range(200)]
    fewer = [c for c in chosen if c is not None]
    assert 70 < len(fewer) < 130
    assert {len(c) for c in fewer} == {1, 2, 3, 4}
    assert some_bands(np.random.default_rng(1), 1) is None


def test_snr_is_that_of_the_filter_of_the_source_itself() -> None:
    sigma, noise, side = 1.5, 2.0, 61
    y, x = np.mgrid[:side, :side] - side // 2
    psf = np.exp(-0.5 * (x**2 + y**2) / sigma**2) / (2 * np.pi * sigma**2)
    galaxy_sigma = 2.0
    total = sigma**2 + galaxy_sigma**2
    image = 100 * np.exp(-0.5 * (x**2 + y**2) / total) / (2 * np.pi * total)
    for source, half_light in ((100 * psf, 0.0), (image, galaxy_sigma * 1.1774)):
        exact = np.sqrt(np.sum(source**2)) / noise
        found = truth_snr(
            np.array([[100.0]]), np.array([half_light]), np.ones(1), np.ones(1), np.array([noise]), sigma
        )
        assert found[0] == pytest.approx(exact, rel=0.01)


def test_targets_are_one_at_centres_and_know_the_places() -> None:
    crop = _crop([10.3, 20.0, 40.0, -2.0], [12.8, 20.0, 5.0, 3.0], [9.0, 2.5, 1.0, 50.0])
    crop.radius[0] *= 2
    heat, place = targets(crop, (48, 48))
    assert set(zip(*np.nonzero(heat == 1), strict=True)) == {(13, 10), (20, 20)}
    np.testing.assert_allclose(place[:, 13, 10], [0.3, -0.2, np.log(2), 1.0], atol=1e-6)
    # The neighbours point at the same centre, and count less.
    np.testing.assert_allclose(place[:3, 12, 11], [-0.7, 0.8, np.log(2)], atol=1e-6)
    assert 0 < place[3, 12, 11] < 0.2
    assert place[3, 5, 40] == 0  # too faint
    assert heat[3, 0] > 0  # the one outside is not there, its light is


def test_of_two_neighbours_each_pixel_points_at_the_nearer() -> None:
    _, place = targets(_crop([10.0, 12.0], [8.0, 8.0], [5.0, 50.0]), (20, 20))
    np.testing.assert_allclose(place[0, 8, 9:14], [1, 0, 1, 0, -1])


def test_loss_falls_with_the_right_answer() -> None:
    batch = _batch(_crop([10.3], [12.8], [9.0]))
    wrong = torch.full((1, OUTPUTS, 32, 32), -3.0)
    right = wrong.clone()
    right[0, 0, 13, 10] = 5.0
    right[0, 1, 13, 10], right[0, 2, 13, 10] = 0.3, -0.2
    assert detection_loss(right, batch).total(0.1) < detection_loss(wrong, batch).total(0.1) - 1
    assert detection_loss(wrong, batch).heat < detection_loss(-wrong, batch).heat


def test_scores_are_learned_at_the_peaks_that_are_real_or_not() -> None:
    batch = _batch(_crop([10.3], [12.8], [9.0]))
    out = torch.full((1, OUTPUTS, 32, 32), -6.0)
    out[0, 1:3] = 0.0
    out[0, HEAT, 13, 10] = out[0, HEAT, 25, 25] = 3.0  # the second is nothing
    losses = []
    for first, second in ((4.0, -4.0), (-4.0, 4.0), (0.0, 0.0)):
        out[0, SCORE, 13, 10], out[0, SCORE, 25, 25] = first, second
        losses.append(float(detection_loss(out, batch).score))
    assert losses[0] == pytest.approx(2 * np.log1p(np.exp(-4.0)), rel=1e-4)
    assert losses[1] == pytest.approx(2 * np.log1p(np.exp(4.0)), rel=1e-4)
    assert losses[2] == pytest.approx(2 * np.log(2.0), rel=1e-4)


def test_one_source_makes_one_candidate_real() -> None:
    out = np.full((OUTPUTS, 40, 40), -9.0, np.float32)
    out[1:3] = 0.0
    for row, column in ((10, 10), (10, 13), (30, 30)):
        out[HEAT, row, column] = 2.0
    found = find_candidates(out, 3.0, 0.05, 0.3)
    assert found.row.tolist() == [10, 10, 30]
    assert real_candidates(found, _crop([12.0, 30.0], [10.0, 30.0], [5.0, 0.5])).tolist() == [
        False,
        True,
        False,
    ]
    # Within half a FWHM of each other only the warmer stays.
    out[HEAT, 10, 13] = 1.0
    assert find_candidates(out, 7.0, 0.05, 0.5).column.tolist() == [10, 30]


def test_working_point_is_where_the_list_is_as_pure_as_asked() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert working_point(score, np.array([1, 1, 0, 1, 0], bool), 0.75) == 0.6
    assert working_point(score, np.zeros(5, bool)) == 0.5
    rng = np.random.default_rng(3)
    logit = rng.normal(0, 3, 20000)
    real = rng.random(logit.size) < 1 / (1 + np.exp(-logit / 2))
    nodes, probability = calibration(logit, real)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-nodes / 2)), atol=0.06)


def test_a_killed_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMOKE, steps=4, samples=2, validation=1)
    whole = torch.load(train_detection(recipe, tmp_path / "whole", workers=1), weights_only=True)
    # Every step leaves a checkpoint here; that of the second is all that a kill would leave.
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "samples").symlink_to(tmp_path / "whole" / "samples")
    original, count = Progress.judged, 0

    class Killed(Exception):
        pass

    def dying(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise Killed
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Progress, "judged", dying)
    with pytest.raises(Killed):
        train_detection(recipe, parts, workers=1)
    monkeypatch.undo()
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["step"] == 2
    again = torch.load(train_detection(recipe, parts, workers=1, resume=True), weights_only=True)
    for name, value in whole["average"].items():
        torch.testing.assert_close(again["average"][name], value, rtol=1e-4, atol=1e-5)
    steps = [json.loads(line)["step"] for line in (parts / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_what_was_best_is_kept_and_training_stops_when_nothing_is(tmp_path: Path) -> None:
    recipe = replace(SMOKE, patience=2, width=8)
    progress, network = Progress(recipe, tmp_path), DetectionNet(8)
    optimiser = torch.optim.AdamW(network.parameters())
    for step, loss in enumerate((3.0, 2.0, 2.5, 2.4)):
        assert not progress.stale
        average = {"weight": torch.full((2,), float(step))}
        progress.judged(step, np.ones(4), np.array([loss, 0, 0, 0]), network, optimiser, average)
    assert progress.stale
    state = torch.load(progress.checkpoint, weights_only=True)
    assert state["best"]["weight"].tolist() == [1.0, 1.0]
    assert state["average"]["weight"].tolist() == [3.0, 3.0]
    assert (state["least"], state["since"]) == (2.0, 2)


def _stored(store: SampleStore, folder: Path, crops: list[Crop]) -> None:
    """Put samples with these sources into a store; its maps are noise."""
    rng, side = np.random.default_rng(2), store.side
    planes = rng.normal(size=(len(crops), PLANES, side, side)).astype(np.float16)
    for own, crop in zip(planes, crops, strict=True):
        own[FEATURES], own[FEATURES + 1 :] = targets(crop, (side, side))
    planes.tofile(folder / "pack.f16")
    places = [np.stack([c.x[c.light >= 1], c.y[c.light >= 1]], axis=1).astype(np.float32) for c in crops]
    fwhm, reach = (np.array(v, np.float32) for v in ([c.fwhm for c in crops], [c.reach for c in crops]))
    store.add(
        ViewPack(folder / "pack.f16", np.zeros((len(crops), CONDITIONS), np.float32), fwhm, reach, places)
    )


def test_losses_on_the_device_are_those_of_the_processor(tmp_path: Path) -> None:
    rng, side = np.random.default_rng(1), 48
    crops = [
        _crop(*(list(v) for v in (*rng.uniform(0, side, (2, 30)), rng.uniform(0.5, 9, 30))), fwhm=fwhm)
        for fwhm in (2.0, 4.5)
    ]
    store = SampleStore(2, side, torch.device("cpu"))
    _stored(store, tmp_path, crops)
    assert not (tmp_path / "pack.f16").exists()
    batch = store.whole(0, 2)
    answer = torch.from_numpy(rng.normal(-2.5, 2, (2, OUTPUTS, side, side)).astype(np.float32))
    answer[:, HEAT] = -7.0
    for one in answer:
        row, column = rng.integers(0, side, (2, 30))
        one[HEAT, row, column] = torch.from_numpy(rng.normal(0, 1, 30).astype(np.float32))
    heat, place = zip(*(targets(crop, (side, side)) for crop in crops), strict=True)
    own = Batch(
        batch.maps,
        batch.conditions,
        torch.from_numpy(np.stack(heat)),
        torch.from_numpy(np.stack(place)),
        crops,
    )
    expected = detection_loss(answer, own).values()
    assert expected[2] > 0.3
    np.testing.assert_allclose(device_losses(answer, batch).values(), expected, rtol=1e-3)


def test_crops_on_the_device_keep_maps_and_sources_together(tmp_path: Path) -> None:
    crop = _crop([10.3, 30.0, 41.8], [12.8, 20.2, 40.0], [9.0, 20.0, 5.0])
    store = SampleStore(1, 64, torch.device("cpu"))
    _stored(store, tmp_path, [crop])
    store.planes[0, 3] = store.planes[0, FEATURES]  # one of the maps shows the sources
    batch = store.draw(40, 48, torch.Generator().manual_seed(1))
    seen = set()
    for n in range(40):
        torch.testing.assert_close(batch.maps[n, 3].float(), batch.heat[n])
        for x, y in batch.sources[n].tolist():
            column, row = round(x), round(y)
            if 0 <= column < 48 and 0 <= row < 48:
                assert batch.heat[n, row, column] == 1
                offset = batch.place[n, :2, row, column].tolist()
                assert offset == pytest.approx([x - column, y - row], abs=2e-3)
                seen.add((round(offset[0], 1), round(offset[1], 1)))
    assert len(seen) > 8  # some of the eight ways in which each may lie


def test_training_on_the_device_ends_by_its_seconds_and_goes_on(tmp_path: Path) -> None:
    recipe = replace(SMOKE, samples=4, validation=1, calibration=1, steps=4, views=1, width=8)
    place = torch.device("cpu")
    first = torch.load(train_on_device(recipe, tmp_path, place, workers=1), weights_only=True)
    assert first["step"] == 4
    assert list((tmp_path / "samples").glob("*-plain.npz"))  # for the calibration
    assert not (tmp_path / "views").exists()
    longer = replace(recipe, steps=100_000, seconds=1e-3)
    again = torch.load(train_on_device(longer, tmp_path, place, workers=1, resume=True), weights_only=True)
    assert 4 <= again["step"] < 1000
    card = write_weights(tmp_path / "checkpoint.pt", tmp_path, workers=1)
    assert load_network(folder=str(card.parent)).network.width == 8


def test_isotonic_pools_what_falls() -> None:
    value = np.array([0.1, 0.2, 0.3, 0.4])
    nodes, probability = isotonic(value, np.array([False, True, False, True]))
    np.testing.assert_allclose(nodes, [0.1, 0.25, 0.4])
    np.testing.assert_allclose(probability, [0.0, 0.5, 1.0])


def test_the_command_writes_weights_that_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[detection]\nwidth = 8\n")
    assert main(["train", str(recipe), "--smoke", "-o", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "weights and card:" in capsys.readouterr().out
    trained = load_network(folder=str(tmp_path / "out"))
    assert isinstance(trained.network, DetectionNet)
    assert trained.network.width == 8
    assert np.all(np.diff(trained.probability) >= 0)
    damaged = (tmp_path / "out" / "detection.safetensors").read_bytes()[:-10]
    (tmp_path / "out" / "detection.safetensors").write_bytes(damaged)
    with pytest.raises(InputError, match="checksum"):
        load_network(folder=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[detector]\n", "tables detector; expected one of detection"),
        ("[detection]\nstep = 3\n", "detection.step is unknown"),
        ("[detection]\ncrop = 60\n", "multiples of 8"),
        ("nonsense", "the recipe cannot be read"),
    ],
)
def test_bad_recipes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    assert main(["train", str(tmp_path / "recipe.toml"), "-o", str(tmp_path / "out")]) != 0
    assert message in capsys.readouterr().err


def test_recipes_refuse_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="expected positive numbers"):
        DetectionRecipe(steps=0)
    with pytest.raises(
        ConfigError, match=r"seconds is -1, decay 0\.0001; expected numbers that are not negative"
    ):
        DetectionRecipe(seconds=-1)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A tile with its truth, as `imcat simulate` writes it."""
    from imcat.simulate.scene import Models
    from imcat.simulate.settings import SimulateSettings
    from imcat.simulate.tiles import observe, write_tile

    observation = observe("sdss", 0, 7, SimulateSettings(), shape=(160, 200))
    write_tile(tmp_path / "field", observation, SimulateSettings(), Models.load(), 7)
    return tmp_path / "field"


def test_a_labelled_tile_becomes_a_sample(labelled: Path) -> None:
    import pyarrow.parquet as pq

    sample = labelled_sample(labelled)
    assert sample.signal.shape == (5, 160, 200)
    seen = view(sample)
    bright = (seen.snr > 20) & (seen.x > 5) & (seen.x < 194) & (seen.y > 5) & (seen.y < 154)
    assert bright.any()
    column, row = np.rint(seen.x[bright]).astype(int), np.rint(seen.y[bright]).astype(int)
    assert np.all(np.sinh(seen.maps[FILTERED, row, column].astype(float)) > 5)
    # Places on the sky will do as well.
    table = pq.read_table(labelled / "truth.parquet")
    pq.write_table(table.drop_columns(["x", "y", "half_light_radius"]), labelled / "truth.parquet")
    again = labelled_sample(labelled)
    np.testing.assert_allclose(again.x, sample.x, atol=0.02)
    assert not again.half_light.any()
    pq.write_table(table.drop_columns(["g_mag"]), labelled / "truth.parquet")
    with pytest.raises(InputError, match="no column g_mag"):
        labelled_sample(labelled)
    (labelled / "truth.parquet").unlink()
    with pytest.raises(InputError, match="the truth of a labelled tile cannot be read"):
        labelled_sample(labelled)


def test_fine_tuning_starts_from_weights_and_takes_crops_of_labelled_tiles(
    labelled: Path, tmp_path: Path
) -> None:
    first = replace(SMOKE, steps=2, samples=2, validation=1, calibration=1, width=8)
    write_weights(train_detection(first, tmp_path / "one", workers=1), tmp_path / "one", workers=1)
    start = load_network(folder=str(tmp_path / "one")).network.state_dict()
    second = replace(
        first, start=str(tmp_path / "one"), tiles=(str(labelled),), share=1.0, rate=1e-9, name="mine"
    )
    state = torch.load(train_detection(second, tmp_path / "two", workers=1), weights_only=True)
    for name, value in start.items():
        torch.testing.assert_close(state["average"][name], value, rtol=1e-3, atol=1e-5)
    with pytest.raises(ConfigError, match=r"detection\.width is 16, that of the weights to start from 8"):
        train_detection(replace(second, width=16), tmp_path / "three", workers=1)
    with pytest.raises(ConfigError, match="share is 0"):
        replace(second, share=0.0)


def test_lobes_are_faint_images_beside_a_source() -> None:
    from imcat.train.detection_samples import lobed

    sample = next(sample_stream("sdss", 5, 128))
    signal = np.zeros_like(sample.signal)
    signal[:, 60, 64] = 1000.0
    sample = replace(sample, signal=signal, valid=np.ones_like(sample.valid))
    for seed in range(5):
        changed = lobed(sample, np.random.default_rng(seed), 0.02).signal.astype(float)
        assert np.all(changed[:, 60, 64] == 1000)
        changed[:, 60, 64] = 0
        row, column = np.nonzero(changed[2])
        assert 1 <= row.size <= 5
        distance = np.hypot(row - 60, column - 64) / np.median(sample.fwhm)
        assert distance.min() > 0.6
        assert distance.max() < 3.3
        assert 0 < changed.max() < 200
        # The same places in all bands.
        assert all(np.array_equal(np.nonzero(band), (row, column)) for band in changed)
