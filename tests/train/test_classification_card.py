"""What is fitted to make probabilities and errors hold: of morphology, against answers whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logit
from torch import Tensor

from imcat.classify.calibration import MODES, Calibration
from imcat.classify.network import MORPHOLOGIES, Answer
from imcat.classify.predict import structure_of
from imcat.classify.prior import EDGES
from imcat.simulate.sources import Kind
from imcat.train.classification_card import _fit
from imcat.train.classification_data import Labels

N = 6000
MAGNITUDE = np.random.default_rng(6).uniform(18.0, 18.5, N)  # of one bin


def faulty(seed: int = 5) -> tuple[Answer, Labels]:
    """Galaxies and a few stars, told apart well; looks too sure by two, errors of the structure twice and half of what they are.

    Of the first thousand residuals are a third as large: sources stand in the order of their tiles.
    """
    rng = np.random.default_rng(seed)
    kind = np.where(rng.random(N) < 0.9, Kind.GALAXY, Kind.STAR)
    true = log_softmax(rng.normal(0, 1.5, (N, len(MORPHOLOGIES))), axis=1)
    look = (rng.random(N)[:, None] > np.exp(true).cumsum(axis=1)).sum(axis=1)
    look[::50] = -1
    scatter = np.array([0.03, 0.2])
    off = rng.normal(0, 1, (N, 2)) * scatter * np.where(np.arange(N) < 1000, 0.3, 1.0)[:, None]
    fraction, index = np.full(N, 0.5), np.full(N, np.log(2.0))
    structure = np.stack([fraction, index], axis=1) - off
    structure[kind != Kind.GALAXY] = np.nan
    stated = np.tile([2 * scatter[0] / 0.25, 0.5 * scatter[1]], (N, 1))

    def tensor(values: object) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32))

    answer = Answer(
        kind=tensor(8 * np.eye(3)[kind]),
        lens=torch.zeros(N),
        morphology=tensor(2 * true),
        structure=tensor(
            np.concatenate([np.stack([logit(fraction), index], axis=1), np.log(stated)], axis=1)
        ),
        redshift=torch.zeros(N, 2, 3, 4),
        vector=tensor(rng.normal(size=(N, 4))),
    )
    labels = Labels(
        kind=torch.from_numpy(kind.astype(np.int64)),
        known=torch.full((N,), -1),
        mix=torch.log(torch.tensor([0.1, 0.8, 0.1])).expand(N, 3),
        redshift=torch.full((N,), torch.nan),
        lens=torch.zeros(N),
        lens_mix=torch.zeros(N),
        morphology=torch.from_numpy(look),
        structure=tensor(structure),
    )
    return answer, labels


@pytest.mark.parametrize("known", [True, False])
def test_faults_of_morphology_are_found(known: bool) -> None:
    answer, labels = faulty()
    mode = _fit([answer], [labels], [MAGNITUDE], by_magnitude=known)
    calibration = Calibration.from_arrays(
        Calibration.none(4).arrays()
        | {
            "looks": np.tile(mode.looks, (len(MODES), 1)),
            "structure": np.tile(mode.structure, (len(MODES), 1, 1)),
        }
    )
    at = np.full(N, 18.25 if known else np.nan)
    looks, factor = calibration.shapes(np.zeros(N, int), at)
    # The weak prior and neighbouring bins without sources leave a few per cent.
    np.testing.assert_allclose(looks, 2.0, rtol=0.08)
    value, error = structure_of(answer)
    galaxy = labels.kind.numpy() == Kind.GALAXY
    off = np.stack(
        [value[:, 0] - labels.structure[:, 0].numpy(), np.log(value[:, 1]) - labels.structure[:, 1].numpy()],
        axis=1,
    )
    stated = np.stack([error[:, 0], error[:, 1] / value[:, 1]], axis=1) * factor
    held = (np.abs(off) < stated)[galaxy].mean(axis=0)
    np.testing.assert_allclose(held, 0.6827, atol=0.012)
    # Were all residuals as large as those after the first thousand, 0.5 and 2.
    assert (factor[0] < [0.5, 2.0]).all()
    np.testing.assert_allclose(factor[0], [0.5, 2.0], rtol=0.15)


def test_bins_far_from_all_sources_take_the_nearest() -> None:
    answer, labels = faulty()
    mode = _fit([answer], [labels], [MAGNITUDE], by_magnitude=True)
    assert mode.structure.shape == (EDGES.size - 1, 2)
    np.testing.assert_allclose(mode.structure[[0, -1]], [[0.5, 2.0]] * 2, rtol=0.25)


def test_labels_without_looks_change_nothing() -> None:
    answer, labels = faulty()
    bare = labels.take(torch.arange(N))
    bare.morphology[:] = -1
    mode = _fit([answer], [bare], [MAGNITUDE], by_magnitude=True)
    np.testing.assert_array_equal(mode.looks, 1.0)
    np.testing.assert_array_equal(mode.structure, 1.0)
