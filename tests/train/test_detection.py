"""Training of the detection network: samples, targets, loss, checkpoints, calibration, weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imcat.cli import main
from imcat.detect.network import OUTPUTS, DetectionNet
from imcat.detect.network_input import CONDITIONS, FEATURES
from imcat.detect.network_search import load_network
from imcat.errors import ConfigError, InputError
from imcat.train.detection import DetectionRecipe, detection_loss, targets, train_detection
from imcat.train.detection_card import isotonic
from imcat.train.detection_samples import sample_stream, truth_snr

SMOKE = DetectionRecipe().smoke()


def test_samples_hold_sources_where_the_truth_has_them() -> None:
    sample = next(sample_stream("sdss", 5, 128))
    assert sample.maps.shape == (FEATURES, 128, 128)
    assert sample.conditions.shape == (CONDITIONS,)
    assert np.isfinite(sample.maps.astype(np.float32)).all()
    inner = (sample.snr > 10) & (np.abs(sample.x - 64) < 58) & (np.abs(sample.y - 64) < 58)
    assert inner.any()
    column, row = np.rint(sample.x[inner]).astype(int), np.rint(sample.y[inner]).astype(int)
    # The filtered sum is at least half of what an isolated source of that light would have.
    assert np.all(np.sinh(sample.maps[3, row, column].astype(float)) > 0.3 * sample.snr[inner])


def test_snr_is_that_of_a_filtered_gaussian() -> None:
    sigma, noise, side = 1.5, 2.0, 61
    y, x = np.mgrid[:side, :side] - side // 2
    psf = np.exp(-0.5 * (x**2 + y**2) / sigma**2) / (2 * np.pi * sigma**2)
    galaxy_sigma = 2.0
    total = sigma**2 + galaxy_sigma**2
    image = 100 * np.exp(-0.5 * (x**2 + y**2) / total) / (2 * np.pi * total)
    for source, half_light in ((100 * psf, 0.0), (image, galaxy_sigma * 1.1774)):
        exact = np.sum(source * psf) / (noise * np.sqrt(np.sum(psf**2)))
        found = truth_snr(
            np.array([[100.0]]), np.array([half_light]), np.ones(1), np.ones(1), np.array([noise]), sigma
        )
        assert found[0] == pytest.approx(exact, rel=0.01)


def test_targets_are_one_at_centres_and_know_the_places() -> None:
    x, y, snr = (
        np.array([10.3, 20.0, 40.0, -2.0]),
        np.array([12.8, 20.0, 5.0, 3.0]),
        np.array([9.0, 2.5, 1.0, 50.0]),
    )
    heat, place = targets(x, y, snr, 48)
    assert set(zip(*np.nonzero(heat == 1), strict=True)) == {(13, 10), (20, 20)}
    np.testing.assert_allclose(place[:, 13, 10], [0.3, -0.2, 1.0], atol=1e-6)
    assert place[2].sum() == 1  # the faint one's place is not learned, the one outside is not there
    assert heat[3, 0] > 0  # its light is


def test_loss_falls_with_the_right_answer() -> None:
    heat, place = targets(np.array([10.3]), np.array([12.8]), np.array([9.0]), 32)
    shown, at = torch.from_numpy(heat)[None], torch.from_numpy(place)[None]
    wrong = torch.full((1, OUTPUTS, 32, 32), -3.0)
    right = wrong.clone()
    right[0, 0, 13, 10] = 5.0
    right[0, 1, 13, 10], right[0, 2, 13, 10] = 0.3, -0.2
    assert detection_loss(right, shown, at, 0.1) < detection_loss(wrong, shown, at, 0.1) - 1
    assert detection_loss(wrong, shown, at, 0.0) < detection_loss(-wrong, shown, at, 0.0)


def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    recipe = replace(SMOKE, steps=4, samples=2, validation=1)
    whole = torch.load(train_detection(recipe, tmp_path / "whole", workers=1), weights_only=True)
    # Every step leaves a checkpoint here; that of the second is all that a kill would leave.
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "samples").symlink_to(tmp_path / "whole" / "samples")
    import imcat.train.detection as module

    original, count = module._log, 0

    class Killed(Exception):
        pass

    def dying(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise Killed
        original(*arguments)  # type: ignore[arg-type]

    module._log = dying  # type: ignore[assignment]
    try:
        with pytest.raises(Killed):
            train_detection(recipe, parts, workers=1)
    finally:
        module._log = original
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["step"] == 2
    again = torch.load(train_detection(recipe, parts, workers=1, resume=True), weights_only=True)
    for name, value in whole["average"].items():
        torch.testing.assert_close(again["average"][name], value, rtol=1e-4, atol=1e-5)
    steps = [json.loads(line)["step"] for line in (parts / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


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
        ("[detector]\n", "tables detector; expected one: detection"),
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
