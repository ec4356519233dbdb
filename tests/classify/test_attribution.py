"""Attributions add up to what the stamp changed, and name the pixels that matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imcat.backbones.vit import VitSettings
from imcat.classify.attribution import attribute, deletion_curve
from imcat.classify.calibration import Calibration
from imcat.classify.network import ClassifierSettings, Seeing
from imcat.classify.photometry import Photometry, table_photometry
from imcat.classify.prior import EDGES, MixByMagnitude, SkyMix
from imcat.classify.trained import TrainedClassifier
from imcat.stamps import Stamps


@pytest.fixture(scope="module")
def trained() -> TrainedClassifier:
    torch.manual_seed(1)
    network = Seeing(
        VitSettings(size=16, patch=8, width=32, depth=1, heads=2),
        ClassifierSettings(vision=64, width=32, depth=1, heads=2, components=4),
    ).eval()
    bins = EDGES.size - 1
    sky = SkyMix(np.array([20.0, 90.0]), np.full((2, bins, 3), 1 / 3), np.full(bins, 1e-4))
    return TrainedClassifier(network, sky, MixByMagnitude.flat(), Calibration.none(32), (3000.0, 10000.0), {})


@pytest.fixture(scope="module")
def stamps() -> Stamps:
    signal = np.random.default_rng(2).normal(0, 3, (5, 2, 16, 16)).astype(np.float32)
    return Stamps(
        signal, np.ones(signal.shape, np.uint8), np.ones((5, 2), np.float32), np.array([5000.0, 7000.0]),
        np.array([1.2, 1.1]), 0.4,
    )  # fmt: skip


def photometry() -> Photometry:
    return table_photometry([5000.0, 7000.0], np.full((5, 2), 19.0), np.full((5, 2), 0.05))


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("classes", [[0, 1, 2, 1, 0], None])
def test_attributions_add_up(
    trained: TrainedClassifier, stamps: Stamps, classes: list[int] | None, measured: bool
) -> None:
    found = attribute(trained, stamps, photometry() if measured else None, classes, steps=200)
    change = found.answer - found.empty
    assert np.abs(change).max() > 1e-3
    assert found.maps.sum(axis=(1, 2, 3)) == pytest.approx(change, abs=0.02 * np.abs(change).max())


def test_masked_pixels_have_none(trained: TrainedClassifier, stamps: Stamps) -> None:
    valid = stamps.valid.copy()
    valid[:, :, 4:9, 3:6] = 0
    hidden = Stamps(stamps.signal, valid, stamps.noise, stamps.wavelength, stamps.fwhm, stamps.pixel)
    found = attribute(trained, hidden, None, [1] * 5)
    assert (found.maps[:, :, 4:9, 3:6] == 0).all()
    assert (found.maps != 0).any()


def test_deletion_begins_at_the_answer_and_ends_at_the_empty_stamp(
    trained: TrainedClassifier, stamps: Stamps
) -> None:
    found = attribute(trained, stamps, None, [2] * 5)
    curve = deletion_curve(trained, stamps, None, [2] * 5, found.maps.sum(1), (0.0, 0.25, 1.0))
    assert curve[:, 0] == pytest.approx(found.answer, abs=1e-5)
    assert curve[:, 2] == pytest.approx(found.empty, abs=1e-5)
    # What speaks for the class goes first: its odds fall below those without what spoke against it.
    against = deletion_curve(trained, stamps, None, [2] * 5, -found.maps.sum(1), (0.0, 0.25, 1.0))
    assert (curve[:, 1] < against[:, 1]).all()
