"""What the trainings of generators share: steps, checks on validation data, checkpoints, and the nearest generator kept."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from imcat.catalogue.files import atomic_path
from imcat.train.loop import Average, Log, cosine_rate

__all__ = ["Best", "GeneratorTrainer", "Schedule", "train_generator"]

G = TypeVar("G", bound=nn.Module)

_CHECKS = 20  # in a training
_KEEP = 0.998  # weight of the past in the averaged generator


@dataclass(frozen=True)
class Schedule:
    """How long a training goes on, and how fast.

    Attributes
    ----------
    steps : int
        Of the optimisers.
    fall : int
        Steps over which the rates fall.
    rates : dict
        Largest learning rate of each optimiser, by its name.
    seed : int
        Of all random numbers.
    """

    steps: int
    fall: int
    rates: dict[str, float]
    seed: int


class GeneratorTrainer(ABC, Generic[G]):
    """A generator with its average, its optimisers, and whatever learns along with it.

    Parameters
    ----------
    generator : Module
        What is trained.
    place : torch.device
        Where.
    seed : int
        Of `chance`, which is set anew in every step.
    """

    def __init__(self, generator: G, place: torch.device, seed: int) -> None:
        self.generator, self.place = generator, place
        self.average = Average(generator, _KEEP)
        self.chance = torch.Generator().manual_seed(seed)
        self.modules: dict[str, nn.Module] = {"generator": generator}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    @abstractmethod
    def step(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        """One step of the optimisers; losses by name."""

    @abstractmethod
    def finished(self) -> G:
        """The averaged generator, ready to be used."""

    def averaged(self) -> G:
        """The averaged generator."""
        own = copy.deepcopy(self.generator)
        own.load_state_dict(self.average.state)
        return own.eval()

    def state(self) -> dict[str, Any]:
        """All that training needs to go on."""
        return {
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "optimisers": {k: o.state_dict() for k, o in self.optimisers.items()},
            "average": self.average.state,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on."""
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.average.state = state["average"]


@dataclass
class Best(Generic[G]):
    """The generator that was nearest to the validation data.

    Attributes
    ----------
    generator : Module
        With averaged weights.
    distance : float
        From the validation data.
    step : int
        Steps that it took.
    """

    generator: G
    distance: float
    step: int


def train_generator(
    trainer: GeneratorTrainer[G],
    schedule: Schedule,
    judge: Callable[[G], tuple[float, dict[str, float]]],
    folder: Path,
    *,
    resume: bool,
) -> Best[G]:
    """Take the steps; every so often judge the averaged generator, keep the nearest, and write a checkpoint.

    Parameters
    ----------
    trainer : GeneratorTrainer
        What takes the steps. A step is the same whenever training went on.
    schedule : Schedule
        How many, and their rates.
    judge : callable
        Distance of a generator from the validation data, and other numbers for the log.
    folder : path
        For ``log.jsonl`` and ``checkpoint.pt``.
    resume : bool
        Go on from the checkpoint there.
    """
    checkpoint, log, begin = folder / "checkpoint.pt", Log(folder / "log.jsonl"), 0
    best = Best(trainer.averaged(), float("inf"), 0)
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, map_location=trainer.place, weights_only=True)
        trainer.load(state["trainer"])
        begin, best.distance, best.step = state["step"], state["distance"], state["best_step"]
        best.generator.load_state_dict(state["best"])
    every, told, count = max(1, schedule.steps // _CHECKS), dict[str, float](), 0
    for step in range(begin, schedule.steps):
        rng = np.random.default_rng([schedule.seed, step])
        trainer.chance.manual_seed(int(rng.integers(1 << 62)))
        for name, optimiser in trainer.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = cosine_rate(schedule.rates[name], step, schedule.fall)
        for name, value in trainer.step(step, rng).items():
            told[name] = told.get(name, 0.0) + value
        trainer.average.update(trainer.generator, step)
        count += 1
        if (step + 1) % every == 0 or step + 1 == schedule.steps:
            made = trainer.finished()
            distance, others = judge(made)
            if distance < best.distance:
                best = Best(made, distance, step + 1)
            log.write(step + 1, {k: v / count for k, v in told.items()} | {"distance": distance} | others)
            told, count = {}, 0
            with atomic_path(checkpoint) as temporary:
                torch.save(
                    {"trainer": trainer.state(), "step": step + 1, "best": best.generator.state_dict(),
                     "distance": best.distance, "best_step": best.step},
                    temporary,
                )  # fmt: skip
    return best
