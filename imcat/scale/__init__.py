"""Many tiles: executors, the ledger, and going on after a kill.

Names are imported when they are asked for: `imcat.scale.executor` must be
able to set the environment before anything imports numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imcat.scale.executor import InProcess, LocalPool, WorkerLost, dask_executor
    from imcat.scale.folder import OutputFolder
    from imcat.scale.job import TileJob, TileOutcome, run_job
    from imcat.scale.ledger import Ledger, read_ledger, without_times
    from imcat.scale.progress import Progress, TileEvent, make_progress
    from imcat.scale.runner import RunSummary, run

__all__ = [
    "InProcess",
    "Ledger",
    "LocalPool",
    "OutputFolder",
    "Progress",
    "RunSummary",
    "TileEvent",
    "TileJob",
    "TileOutcome",
    "WorkerLost",
    "dask_executor",
    "make_progress",
    "read_ledger",
    "run",
    "run_job",
    "without_times",
]

_MODULES = {
    "executor": ("InProcess", "LocalPool", "WorkerLost", "dask_executor"),
    "folder": ("OutputFolder",),
    "job": ("TileJob", "TileOutcome", "run_job"),
    "ledger": ("Ledger", "read_ledger", "without_times"),
    "progress": ("Progress", "TileEvent", "make_progress"),
    "runner": ("RunSummary", "run"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"imcat.scale.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
