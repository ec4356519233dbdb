"""The detection network in use: input, windows, footprints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from imcat.detect.network import HEAT, OUTPUTS, SCORE, STRIDE, DetectionNet
from imcat.detect.network_input import CONDITIONS, FEATURES, FILTERED, SHARE, BandSet, features
from imcat.detect.network_search import TrainedNetwork, detect_network, ready
from imcat.detect.network_settings import NetworkSettings
from imcat.errors import ConfigError
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import stream
from imcat.train.detection_samples import tile_reader


class Peaks(DetectionNet):
    """Stands in for a trained network: the heat is a function of the filtered sum."""

    def forward(self, maps: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(maps), OUTPUTS, *maps.shape[2:])
        out[:, HEAT] = 2 * maps[:, FILTERED] - 5.0
        out[:, SCORE] = maps[:, FILTERED] - 1.0
        return out


def _trained() -> TrainedNetwork:
    return TrainedNetwork(Peaks(8), np.array([-3.0, 3.0]), np.array([0.0, 1.0]), 0.5, (1000.0, 12000.0), {})


def test_shapes_and_first_answer() -> None:
    network = DetectionNet(8)
    out = network(torch.zeros(2, FEATURES, 5 * STRIDE, 3 * STRIDE), torch.zeros(2, CONDITIONS))
    assert out.shape == (2, OUTPUTS, 5 * STRIDE, 3 * STRIDE)
    # Before training nothing is likely to be a source.
    assert torch.sigmoid(out[:, 0]).max() < 0.1


def test_sums_have_unit_noise_and_masked_pixels_say_nothing() -> None:
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(3, 200, 200)).astype(np.float32)
    valid = np.ones_like(signal)
    valid[0, :, :50] = 0
    signal[0, :, :50] = 1e6
    valid[:, 150:] = 0
    bands = BandSet(
        np.array([4770.0, 6231.0, 7625.0]), np.array([3.5, 3.3, 3.1]), np.array([60.0, 97.0, 150.0])
    )
    np.testing.assert_allclose((bands.weights**2).sum(axis=1), 1)
    maps, _, denominator = features(signal * valid, valid, bands)
    assert np.all(maps[:3, 150:] == 0)
    assert np.all(maps[SHARE, 150:] == 0)
    assert maps[:3, :150].std(axis=(1, 2)) == pytest.approx([1, 1, 1], abs=0.02)
    assert maps[3:6, 8:140, 60:190].std(axis=(1, 2)) == pytest.approx([1, 1, 1], abs=0.05)
    assert maps[6, 15:135, 70:180].std() == pytest.approx(1, abs=0.1)
    assert np.abs(maps[-1, :150].mean()) < 0.05
    np.testing.assert_array_equal(denominator[150:], 0)


@pytest.mark.parametrize(("fast", "asked"), [(True, True), (True, False), (False, True)])
def test_half_precision_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, fast: bool, asked: bool
) -> None:
    monkeypatch.setattr("imcat.detect.network_search.half_precision_is_fast", lambda: fast)
    network = ready(DetectionNet(8), NetworkSettings(half_precision=asked))
    wanted = torch.bfloat16 if fast and asked else torch.float32
    assert {p.dtype for p in network.parameters()} == {wanted}


def test_a_missing_band_costs_depth_only() -> None:
    two = BandSet(np.array([4770.0, 6231.0]), np.array([3.5, 3.3]), np.array([60.0, 97.0]))
    signal = np.zeros((2, 64, 64), np.float32)
    signal[:, 32, 32] = 30.0
    valid = np.ones_like(signal)
    both = features(signal, valid, two)[0]
    valid[0] = 0
    one = features(signal * valid, valid, two)[0]
    assert 0 < one[FILTERED, 32, 32] < both[FILTERED, 32, 32]


def test_windows_do_not_change_the_result() -> None:
    item = next(stream("sdss", 8, (300, 340), SimulateSettings(depth_below_limit=1.0)))
    found = []
    for size in (320, 128, 64):
        reader, _ = tile_reader(item.tile)
        found.append(
            detect_network(reader, _trained(), NetworkSettings(window_size=size, half_precision=False))
        )
    assert len(found[0]) > 20
    for other in found[1:]:
        np.testing.assert_array_equal(other.peak, found[0].peak)
        np.testing.assert_allclose(other.x, found[0].x)
        np.testing.assert_allclose(other.score, found[0].score, rtol=1e-5)
        np.testing.assert_allclose(other.error, found[0].error, rtol=1e-5)
    # The stand-in says 1 pixel everywhere.
    np.testing.assert_array_equal(found[0].error, 1.0)
    # Sources lie where the truth has bright ones.
    bright = item.truth["r_mag"] < 20.5
    inside = (
        bright
        & (item.truth["x"] > 8)
        & (item.truth["x"] < 331)
        & (item.truth["y"] > 8)
        & (item.truth["y"] < 291)
    )
    distance = np.hypot(
        item.truth["x"][inside][:, None] - found[0].x, item.truth["y"][inside][:, None] - found[0].y
    ).min(axis=1)
    assert np.median(distance) < 1.0


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"network\.window_size is 100; expected a multiple of 8"):
        NetworkSettings(window_size=100)
    with pytest.raises(ConfigError, match=r"network\.overlap is 40"):
        NetworkSettings(overlap=40)


def test_torch_stays_away_without_the_network(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import imcat.pipeline, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
