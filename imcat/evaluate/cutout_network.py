"""A small convolutional network that tells real cutouts from simulated ones, fixed once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.evaluate.two_sample import Sample

__all__ = ["network_scores"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# The network: channels of its convolutions, hidden units, and how it is trained.
_CHANNELS = (24, 32, 48, 64)
_STRIDES = (2, 2, 2, 1)
_KERNELS = (5, 3, 3, 3)
_HIDDEN = 32
_STEPS = 320
_BATCH = 64
_RATE = 3e-3
_DECAY = 1e-3
_SEED = 1


def network_scores(training: Sequence[Sample], test: Sample) -> Float64:
    """Scores of the test cutouts by a small convolutional network, about 60,000 parameters.

    Four convolutions with batch normalisation; mean, maximum and centre of the last map; one hidden layer.
    A batch comes from one pair, both sides mixed, and the statistics of the batch normalisation in the
    test are those of the test pair's cutouts, so that a channel says how a cutout differs from the others
    of its pair. Turning over in x and y is the only augmentation.

    Parameters
    ----------
    training : sequence of Sample
        Pairs to learn from.
    test : Sample
        The pair to judge.
    """
    import torch

    torch.set_num_threads(1)  # small convolutions gain nothing from more, and folds run side by side
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = _build(test.pixels.shape[1])
    _train(network, training)
    return _judge(network, test)


_SEEDING = threading.Lock()  # torch draws first weights from a generator that all threads share


def _build(bands: int) -> tuple[Any, Any]:
    """Convolutions and head of the network."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    before = bands
    for channels, stride, size in zip(_CHANNELS, _STRIDES, _KERNELS, strict=True):
        layers += [
            nn.Conv2d(before, channels, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        before = channels
    trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = nn.Sequential(nn.Linear(3 * before, _HIDDEN), nn.ReLU(inplace=True), nn.Linear(_HIDDEN, 1))
    return trunk, head


def _logits(network: tuple[Any, Any], pixels: Any) -> Any:
    """Score of each cutout: tensor [n, band, y, x] to tensor [n]."""
    import torch

    trunk, head = network
    maps = trunk(pixels.contiguous(memory_format=torch.channels_last))
    middle = maps.shape[-1] // 2
    centre = maps[:, :, middle - 1 : middle + 1, middle - 1 : middle + 1].mean((2, 3))
    return head(torch.cat([maps.mean((2, 3)), maps.amax((2, 3)), centre], dim=1))[:, 0]


def _train(network: tuple[Any, Any], training: Sequence[Sample]) -> None:
    """Fit the network to the labels, one pair to a batch."""
    import torch

    rng = np.random.default_rng(_SEED)
    parameters = [p for part in network for p in part.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=_STEPS)
    for sample, rows in _batches(training, rng):
        pixels = torch.from_numpy(sample.pixels[rows])
        flips = [axis for axis in (2, 3) if rng.random() < 0.5]
        if flips:
            pixels = pixels.flip(flips)
        label = torch.from_numpy(sample.label[rows].astype(np.float32))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(_logits(network, pixels), label)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _batches(training: Sequence[Sample], rng: np.random.Generator) -> Iterator[tuple[Sample, Int64]]:
    """Shuffled batches, each of one pair, until the number of steps is reached."""
    step = 0
    while True:
        batches = [
            (sample, part)
            for sample in training
            for part in np.array_split(rng.permutation(len(sample)), -(-len(sample) // _BATCH))
        ]
        for j in rng.permutation(len(batches)):
            if step == _STEPS:
                return
            yield batches[j]
            step += 1


def _judge(network: tuple[Any, Any], test: Sample) -> Float64:
    """Scores, with the channels normalised over the test cutouts."""
    import torch

    rng = np.random.default_rng(_SEED)
    parts = np.array_split(rng.permutation(len(test)), -(-len(test) // (2 * _BATCH)))
    pixels = [torch.from_numpy(test.pixels[rows]) for rows in parts]
    trunk = network[0]
    for layer in trunk:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over what follows
    scores = np.empty(len(test))
    with torch.no_grad():
        for part in pixels:
            trunk(part)
        trunk.eval()
        for rows, part in zip(parts, pixels, strict=True):
            scores[rows] = _logits(network, part).numpy()
    return scores
