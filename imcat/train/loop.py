"""What every training loop does: a rate that rises and falls, an average of the weights, checkpoints, a log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imcat.catalogue.files import atomic_path
from imcat.registry import half_precision_is_fast

__all__ = [
    "Average",
    "Log",
    "cosine_rate",
    "half_precision",
    "load_checkpoint",
    "parameter_groups",
    "save_checkpoint",
    "training_device",
    "use_all_cores",
]


def training_device(name: str | None = None) -> torch.device:
    """The device of that name; a GPU where none is named and there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def use_all_cores() -> None:
    """Let torch use every core, or as many as ``IMCAT_THREADS`` says: jobs that work window by window leave it one."""
    given = os.environ.get("IMCAT_THREADS", "")
    torch.set_num_threads(int(given) if given.isdigit() and int(given) else os.cpu_count() or 1)


def half_precision(place: torch.device) -> torch.autocast:
    """Multiply in bfloat16 on a GPU and on processors with instructions for it; without them it takes several times as long."""
    fast = place.type == "cuda" or half_precision_is_fast()
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=fast)


def cosine_rate(highest: float, step: int, steps: int, warm: float = 0.05) -> float:
    """Learning rate of a step: a linear rise over the share `warm` of the steps, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1.0, warm * steps))
    return highest * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))))


def parameter_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights that decay, and those that do not: biases, norms and embeddings."""
    learned = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in learned if p.ndim in (2, 4)]
    others = [p for p in learned if p.ndim not in (2, 4)]
    return [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


class Average:
    """The exponential average of a network's weights, which judges and answers better than the last step's.

    Parameters
    ----------
    network : torch.nn.Module
        Whose weights.
    keep : float
        Weight of the past; less of it in the first steps.
    """

    def __init__(self, network: nn.Module, keep: float = 0.999) -> None:
        self.keep = keep
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights of a step."""
        keep = min(self.keep, (step + 1) / (step + 10))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].mul_(keep).add_(value, alpha=1 - keep)
            else:
                self.state[name].copy_(value)


class Log:
    """A file of one JSON object a line.

    Parameters
    ----------
    path : path
        Lines are added to it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.begun = path, time.monotonic()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line: the step, the values, and seconds since the start."""
        line = {"step": step, **{k: round(float(v), 5) for k, v in values.items()}}
        line["seconds"] = round(time.monotonic() - self.begun, 1)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def save_checkpoint(path: Path, step: int, network: nn.Module, average: Average, optimiser: Any) -> None:
    """Write all that training needs to go on, aside and renamed."""
    state = {
        "step": step, "network": network.state_dict(), "average": average.state, "optimiser": optimiser.state_dict()
    }  # fmt: skip
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    path: Path, network: nn.Module, average: Average, optimiser: Any, place: torch.device | str
) -> int:
    """Go on from a checkpoint; the step that is next."""
    state: dict[str, Any] = torch.load(path, map_location=place, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    averaged: dict[str, Tensor] = state["average"]
    average.state = averaged
    return int(state["step"])
