"""Training of the detection network on a GPU, while its samples are still being simulated.

The samples lie in the GPU's memory; crops, candidates, their matches with sources and the losses are computed there, so
that no step waits for the processor, whose cores simulate. Training begins with the first samples and takes in others as
they come. What it has seen at a step depends on how fast that goes: unlike on a processor, two runs are alike but not the
same to the last bit.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imcat.detect.network import HEAT, OFFSET_X, OFFSET_Y, SCORE, DetectionNet
from imcat.detect.network_peaks import FARTHEST, SHOULDER
from imcat.processes import single_threads
from imcat.train.detection import CLIP, JUDGED, Progress, learning_rate, new_network
from imcat.train.detection_packs import (
    ViewPack,
    make_views,
    sample_jobs,
    simulate_pack,
    view_jobs,
    worker_pool,
)
from imcat.train.detection_recipe import DetectionRecipe
from imcat.train.detection_store import DeviceBatch, SampleStore
from imcat.train.detection_targets import MIN_HEAT, SEPARATION, Losses, inside_edge, map_losses

__all__ = ["device_losses", "flattened", "peaks", "real_peaks", "train_on_device"]

_AVERAGE = 0.999  # weight of the past in the average of the network over steps
_AREA = 64  # pixels of a crop for each candidate that is scored
_ROUNDS = 6  # of mutual nearest neighbours
_FIRST = 0.03  # share of the samples with which training begins
_LATE = 0.2  # share of the samples that are simulated before those for calibration
_JUDGED_BATCH = 8


@torch.no_grad()
def peaks(answer: Tensor, fwhm: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Candidates as `imcat.detect.network_peaks.find_candidates` finds them, for many crops at once.

    Parameters
    ----------
    answer : float Tensor ``[n, OUTPUTS, y, x]``
        Of the network.
    fwhm : Tensor ``[n]``
        Of the PSFs, pixels.

    Returns
    -------
    at : int64 Tensor ``[n, k]``
        Pixels of the warmest peaks, ``row * columns + column``.
    x, y : Tensors ``[n, k]``
        Their places.
    kept : bool Tensor ``[n, k]``
        Whether they are warm enough and have no warmer one too near.
    """
    rows, columns = answer.shape[2:]
    heat = torch.sigmoid(answer[:, HEAT])
    wide = nn.functional.pad(heat, (1, 1, 1, 1))
    wide = wide[:, 1:-1] + SHOULDER * (wide[:, :-2] + wide[:, 2:])
    warmth = wide[:, :, 1:-1] + SHOULDER * (wide[:, :, :-2] + wide[:, :, 2:])
    top = (warmth >= MIN_HEAT) & (warmth == nn.functional.max_pool2d(warmth[:, None], 3, 1, 1)[:, 0])
    most = max(16, rows * columns // _AREA)
    value, at = torch.where(top, warmth, 0.0).flatten(1).topk(most, dim=1)
    offset = [answer[:, k].flatten(1).gather(1, at).clamp(-FARTHEST, FARTHEST) for k in (OFFSET_X, OFFSET_Y)]
    x, y = at % columns + offset[0], at // columns + offset[1]
    near = (x[:, :, None] - x[:, None]) ** 2 + (y[:, :, None] - y[:, None]) ** 2
    near = near <= ((SEPARATION * fwhm) ** 2)[:, None, None]
    # They are in the order of their warmth: of a pair the earlier one stays.
    order = torch.arange(most, device=at.device)
    warmer = order[:, None] > order
    real = value > 0
    kept = real & ~(near & warmer & real[:, None]).any(dim=2)
    return at, x, y, kept


@torch.no_grad()
def real_peaks(x: Tensor, y: Tensor, kept: Tensor, sources: Tensor, reach: Tensor) -> Tensor:
    """Which candidates are matched with a source, one to one and nearest first.

    Pairs that are each other's nearest are matched and leave; what is left is looked at again, a few times.

    Parameters
    ----------
    x, y : Tensors ``[n, k]``
        Of the candidates.
    kept : bool Tensor ``[n, k]``
        Those that take part.
    sources : Tensor ``[n, m, 2]``
        Places of the sources.
    reach : Tensor ``[n]``
        Largest distance of a match.
    """
    square = (x[:, :, None] - sources[:, None, :, 0]) ** 2 + (y[:, :, None] - sources[:, None, :, 1]) ** 2
    far = ~kept[:, :, None] | (square > (reach**2)[:, None, None])
    square = square.masked_fill(far, torch.inf)
    matched = torch.zeros_like(kept)
    own = torch.arange(x.shape[1], device=x.device)
    for _ in range(_ROUNDS):
        distance, source = square.min(dim=2)
        candidate = square.argmin(dim=1)
        mutual = (candidate.gather(1, source) == own) & torch.isfinite(distance)
        matched |= mutual
        taken = torch.zeros(square.shape[::2], device=x.device).scatter_add_(1, source, mutual.float()) > 0
        square = square.masked_fill(mutual[:, :, None] | taken[:, None], torch.inf)
    return matched


def device_losses(answer: Tensor, batch: DeviceBatch) -> Losses:
    """The same as `imcat.train.detection_targets.detection_loss`."""
    at, x, y, kept = peaks(answer.detach(), batch.fwhm)
    real = real_peaks(x, y, kept, batch.sources, batch.reach)
    scored = kept & inside_edge(x, y, answer.shape[2], answer.shape[3])
    logit = answer[:, SCORE].flatten(1).gather(1, at)
    crossed = nn.functional.binary_cross_entropy_with_logits(logit, real.float(), reduction="none")
    return map_losses(answer, batch.heat, batch.place, (crossed * scored).sum())


def train_on_device(
    recipe: DetectionRecipe, out: Path, place: torch.device, *, workers: int = 2, resume: bool = False
) -> Path:
    """Train the network while other processes simulate.

    Parameters
    ----------
    recipe : DetectionRecipe
        What and how; `DetectionRecipe.seconds` may end it early.
    out : path
        Folder for log and checkpoint, and for the samples on their way to the device.
    place : torch.device
        Where it trains.
    workers : int
        Processes that simulate.
    resume : bool
        Continue from the last checkpoint; samples are simulated anew.

    Returns
    -------
    path
        Of the last checkpoint.
    """
    begun = time.monotonic()
    store = SampleStore(recipe.samples * recipe.views, recipe.side, place)
    judged = SampleStore(recipe.validation, recipe.side, place)
    with single_threads(), worker_pool(workers) as pool:
        filling = _Filling(recipe, out, pool, store, judged)
        try:
            network = new_network(recipe, place)
            _train(recipe, network, filling, Progress(recipe, out), begun, resume=resume)
        finally:
            filling.end()
    shutil.rmtree(out / "views", ignore_errors=True)
    return out / "checkpoint.pt"


class _Filling:
    """Simulates in the background, and brings samples to the device as they come.

    Parameters
    ----------
    recipe : DetectionRecipe
        What is simulated.
    out : path
        Folder of the samples.
    pool : ProcessPoolExecutor
        Who simulates.
    store, judged : SampleStore
        Of the samples to train on, and to judge by.
    """

    def __init__(
        self,
        recipe: DetectionRecipe,
        out: Path,
        pool: ProcessPoolExecutor,
        store: SampleStore,
        judged: SampleStore,
    ) -> None:
        self.store, self.judged = store, judged
        self.error: BaseException | None = None
        self.jobs: list[Future[ViewPack]] = []
        self.other: list[Future[None]] = []
        self._ready: queue.SimpleQueue[Future[ViewPack] | None] = queue.SimpleQueue()
        shutil.rmtree(out / "views", ignore_errors=True)
        (out / "views").mkdir(parents=True)
        judging = view_jobs(recipe, out / "views", recipe.validation, recipe.seed + 1, 1)
        training = view_jobs(recipe, out / "views", recipe.samples, recipe.seed, recipe.views, augmented=True)
        soon = round(_LATE * len(training))
        self._judging = {self._submit(pool, job) for job in judging}
        for job in training[:soon]:
            self._submit(pool, job)
        # Those that the card's calibration will want.
        plain = sample_jobs(recipe, out / "samples", recipe.calibration, recipe.seed + 2, varied=False)
        self.other = [pool.submit(simulate_pack, own) for own in plain if not own[0].is_file()]
        for job in training[soon:]:
            self._submit(pool, job)
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _submit(self, pool: ProcessPoolExecutor, job: object) -> Future[ViewPack]:
        future = pool.submit(make_views, job)  # type: ignore[arg-type]
        self.jobs.append(future)
        future.add_done_callback(self._ready.put)
        return future

    def _fill(self) -> None:
        try:
            for _ in range(len(self.jobs)):
                future = self._ready.get()
                if future is None:
                    return
                (self.judged if future in self._judging else self.store).add(future.result())
        except BaseException as error:  # told to who waits
            self.error = error

    def wait(self, number: int) -> None:
        """Return when there are so many samples, and all to judge by."""
        while self.store.count < number or self.judged.count < len(self.judged.fwhm):
            self.check()
            time.sleep(0.05)

    def check(self) -> None:
        """Raise what went wrong in the background."""
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """Give up what has not begun; the samples for calibration are made in any case."""
        self._ready.put(None)
        for future in self.jobs:
            future.cancel()
        self._thread.join()


def _train(
    recipe: DetectionRecipe,
    network: DetectionNet,
    filling: _Filling,
    progress: Progress,
    begun: float,
    *,
    resume: bool,
) -> None:
    """Steps until the recipe's number, its seconds, or its patience are over."""
    store, place = filling.store, filling.store.planes.device
    weights, gradient, average, kept = flattened(network)
    optimiser = torch.optim.AdamW([weights], lr=recipe.rate, weight_decay=recipe.decay)
    if place.type == "cuda":
        torch.backends.cudnn.benchmark = True  # crops are all of one size
    if resume:
        progress.resume(network, optimiser, kept, place)
    filling.wait(max(1, round(_FIRST * len(store.fwhm))))
    generator = torch.Generator(place).manual_seed(recipe.seed + progress.step)
    first, waited = progress.step, time.monotonic() - begun
    total, seen, next_judgement = torch.zeros(4, device=place), 0, (first / recipe.steps) + 1 / JUDGED
    step = first
    while step < recipe.steps and not progress.stale:
        done = step / recipe.steps
        if recipe.seconds > 0:
            elapsed = time.monotonic() - begun - waited
            done = max(done, first / recipe.steps + elapsed / max(recipe.seconds - waited, 1.0))
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, done)
        batch = store.draw(recipe.batch, recipe.crop, generator)
        parts = device_losses(_answer(network, batch), batch)
        gradient.zero_()
        parts.total(recipe.offset_weight).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([weights], CLIP)
        optimiser.step()
        with torch.no_grad():
            keep = min(_AVERAGE, step / (step + 10))
            average.lerp_(weights, 1 - keep)
            total += torch.stack([v.detach() for v in (parts.heat, parts.place, parts.score, parts.size)])
        seen, step = seen + 1, step + 1
        if done >= next_judgement:
            filling.check()
            next_judgement = done + 1 / JUDGED
            progress.judged(
                step, _numbers(total / seen), _judge(recipe, kept, filling.judged), network, optimiser, kept
            )
            total, seen = torch.zeros(4, device=place), 0
    if seen or not progress.checkpoint.is_file():
        loss = _numbers(total / max(seen, 1))
        progress.judged(step, loss, _judge(recipe, kept, filling.judged), network, optimiser, kept)


def flattened(network: nn.Module) -> tuple[nn.Parameter, Tensor, Tensor, dict[str, Tensor]]:
    """Put all weights of a network, and their gradients, into one vector each: a step then takes few calls.

    Returns
    -------
    weights : Parameter ``[n]``
        All of the network's, which are views of it from now on; its gradient is the next.
    gradient : Tensor ``[n]``
        To be set to zero before each step; the weights keep their views of it.
    average : Tensor ``[n]``
        A copy of the weights.
    views : dict of Tensor
        Parts of `average` by their names in the network.
    """
    named = dict(network.named_parameters())
    size = sum(value.numel() for value in named.values())
    like = next(iter(named.values()))
    flat = torch.empty(size, device=like.device, dtype=like.dtype)
    gradient, average = torch.zeros_like(flat), torch.empty_like(flat)
    views, begin = {}, 0
    for name, value in named.items():
        end, old = begin + value.numel(), value.detach()
        parts = [_as_channels_last(part[begin:end], old.shape) for part in (flat, gradient, average)]
        parts[0].copy_(old)
        value.data, value.grad, views[name] = parts
        begin = end
    average.copy_(flat)
    weights = nn.Parameter(flat)
    weights.grad = gradient
    return weights, gradient, average, views


def _as_channels_last(part: Tensor, shape: torch.Size) -> Tensor:
    """A vector as a tensor of this shape, the weights of a convolution with their channels last."""
    if len(shape) != 4:
        return part.view(shape)
    return part.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)


def _answer(network: DetectionNet, batch: DeviceBatch) -> Tensor:
    with torch.autocast(batch.maps.device.type, dtype=torch.bfloat16):
        maps = batch.maps.to(torch.bfloat16, memory_format=torch.channels_last)
        return network(maps, batch.conditions).float()  # type: ignore[no-any-return]


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return np.asarray(values.double().cpu().numpy())


@torch.no_grad()
def _judge(recipe: DetectionRecipe, average: dict[str, Tensor], store: SampleStore) -> NDArray[np.float64]:
    """Parts of the loss of the averaged network on whole validation samples."""
    network = DetectionNet(recipe.width).to(store.planes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.load_state_dict(average)
    network.eval()
    parts: Sequence[NDArray[np.float64]] = []
    for begin in range(0, store.count, _JUDGED_BATCH):
        batch = store.whole(begin, begin + _JUDGED_BATCH)
        parts = [*parts, device_losses(_answer(network, batch), batch).values() * len(batch.fwhm)]
    return np.asarray(np.sum(parts, axis=0) / max(store.count, 1))
