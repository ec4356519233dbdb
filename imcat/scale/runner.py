"""A run: many tiles in, a folder of source files, a ledger and a report out."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imcat.config import Config
from imcat.errors import OutputError, UsageError
from imcat.registry import weights_folder
from imcat.scale.executor import InProcess, LocalPool, WorkerLost, available_cores, dask_executor, warm_up
from imcat.scale.folder import OutputFolder, lock_folder
from imcat.scale.job import DrawJob, DrawOutcome, TileJob, TileOutcome, draw_job, run_job
from imcat.scale.ledger import Ledger
from imcat.scale.progress import Progress, Silent, TileEvent
from imcat.scale.report import summarise, write_report

if TYPE_CHECKING:
    from imcat.surveys import TileSource

__all__ = ["RunSummary", "run"]

_log = logging.getLogger("imcat.scale")
#: Jobs that wait in an executor, for each of its workers: enough to keep it busy, few enough
#: that a survey of a million tiles is not queued at once.
_QUEUED = 4


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes
    ----------
    out : pathlib.Path
        Output folder.
    tiles, ok, failed : int
        Tiles of the run, and how many of them were written and failed.
    done_before : int
        Of those written, how many an earlier run had finished.
    sources : int
        Rows in all source files.
    failures : dict
        Reasons by tile.
    warnings : int
        Number of warnings in the ledger.
    seconds : float
        Wall time.
    """

    out: Path
    tiles: int
    ok: int
    failed: int
    done_before: int
    sources: int
    failures: dict[str, str] = field(default_factory=dict)
    warnings: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0: all tiles written, 1: some failed, 2: nothing written."""
        return 0 if not self.failed else 1 if self.ok else 2


def run(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    survey: str = "auto",
    bands: Sequence[str] | None = None,
    config: Config | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    images: Sequence[str] = (),
    report: bool = True,
    inject: int = 0,
    progress: Progress | None = None,
) -> RunSummary:
    """Make the catalogue of many tiles.

    Parameters
    ----------
    inputs : sequence of path
        Folders, files and globs.
    out : path
        Output folder.
    survey : str
        ``auto``, ``sdss``, ``csst`` or ``generic``.
    bands : sequence of str, optional
        Bands to use; replaces those of `config`.
    config : Config, optional
        All other settings.
    workers : int
        Processes on this machine; one works in this process.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers see the same files.
    resume : bool
        Go on with the run that `out` holds.
    images : sequence of str
        Kinds of images to write (`imcat.products.IMAGE_KINDS`).
    report : bool
        Draw figures and write a summary.
    inject : int
        Look, too, for so many simulated sources in a copy of each tile; how many come back, and with which fluxes,
        stands in ledger and report.
    progress : Progress, optional
        Who listens.

    Returns
    -------
    RunSummary
        What was done. A tile that fails is in it; it raises nothing. If no tile was
        written at all, the output folder is left as it was.

    Raises
    ------
    InputError
        If an input is missing or holds no tile.
    OutputError
        If `out` must not or cannot be written to.
    UsageError
        If the arguments contradict each other.
    """
    begin = time.monotonic()
    config = config or Config()
    if bands is not None:
        config = config.replace(bands=tuple(bands))
    _check_arguments(config, workers, scheduler, images, inject)
    folder = OutputFolder(Path(out).absolute())
    folder.check(resume)
    if workers > 1:
        warm_up(config.fit_models, config.detector == "network", config.classify_sources)
    sources = _find(inputs, survey, config)
    listener = progress or Silent()
    with (
        _executor(workers, scheduler) as engine,
        _opened(folder, sources, config, images, report) as (ledger, existed),
    ):
        todo = [source for source in sources if not ledger.finished(source.name)]
        before, threads = len(sources) - len(todo), engine.threads(len(todo))
        jobs = [
            TileJob(source, config, folder.root, tuple(images), report, inject, threads) for source in todo
        ]
        told: dict[str, Any] = {}
        try:
            listener.start(len(sources), before, engine.workers, str(folder.root))
            _Loop(engine, ledger, folder, listener, len(sources), before).do(jobs, report)
            told = _close(folder, ledger, existed, report)
            seconds = time.monotonic() - begin
            summary = RunSummary(
                folder.root, len(sources), told["ok"], told["failed"], before, told["sources"],
                told["failures"], sum(map(len, told["warnings"].values())), seconds,
            )  # fmt: skip
            told |= {"exit_code": summary.exit_code, "seconds": round(seconds, 3), "out": str(folder.root)}
        finally:
            listener.end(told)
    return summary


def _check_arguments(
    config: Config, workers: int, scheduler: str | None, images: Sequence[str], inject: int
) -> None:
    if config.detector == "network" and not weights_folder().joinpath("detection.safetensors").is_file():
        raise UsageError("no detection network comes with this version; use --detector threshold")
    if config.classify_sources and not weights_folder().joinpath("classifier.safetensors").is_file():
        raise UsageError("no classifier comes with this version; use --no-classify")
    if inject < 0:
        raise UsageError(f"--inject is {inject}; expected a number of sources, 0 or more")
    if workers < 1:
        raise UsageError(f"--workers is {workers}; expected at least 1")
    if scheduler is not None and workers > 1:
        raise UsageError("--workers and --scheduler exclude each other: a scheduler has workers of its own")
    if images:
        from imcat.products import IMAGE_KINDS

        for kind in images:
            if kind not in IMAGE_KINDS:
                raise UsageError(f"no image is called {kind!r}; expected some of {', '.join(IMAGE_KINDS)}")


def _find(inputs: Sequence[str | Path], survey: str, config: Config) -> list[TileSource]:
    from imcat.surveys import find_tiles

    # Absolute, since workers on a cluster run elsewhere.
    return find_tiles([Path(item).absolute() for item in inputs], survey, config.bands, config.surveys)


@contextmanager
def _opened(
    folder: OutputFolder, sources: Sequence[TileSource], config: Config, images: Sequence[str], report: bool
) -> Iterator[tuple[Ledger, bool]]:
    """Hold the output folder and its ledger; tells whether the folder was there before."""
    existed = folder.root.exists()
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder.root}: the folder cannot be made ({error.strerror})") from None
    lock = lock_folder(folder.root)
    try:
        ledger = Ledger(folder, sources, config, images)
        ledger.resume()
        folder.create(bool(images), report)
        folder.remove_leftovers()
        for source in sources:
            if not ledger.finished(source.name):
                # Written, but killed before the ledger knew: made again, so that no file
                # can be there without its entry.
                folder.source(source.name).unlink(missing_ok=True)
                folder.preview(source.name).unlink(missing_ok=True)
        ledger.write()
        yield ledger, existed
    finally:
        if lock is not None:
            os.close(lock)


def _close(folder: OutputFolder, ledger: Ledger, existed: bool, report: bool) -> dict[str, Any]:
    """Write what is left to write, or remove a run that wrote nothing; returns its summary."""
    summary = summarise(ledger.tiles)
    if not summary["ok"]:
        folder.remove_run(keep_root=existed)
        return summary
    folder.remove_leftovers()  # of workers that were killed
    ledger.close()
    if report:
        write_report(folder, ledger.tiles)
    return summary


@dataclass(frozen=True)
class _Engine:
    """An executor, how many jobs it does at a time, and how many to hand over at a time."""

    executor: Executor
    workers: int
    queued: int
    here: bool = True

    def threads(self, jobs: int) -> int:
        """Threads for each of so many jobs."""
        return max(1, available_cores() // max(1, min(self.workers, jobs))) if self.here else 1


@contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[_Engine]:
    if scheduler is not None:
        with dask_executor(scheduler) as (cluster, slots):
            yield _Engine(cluster, slots, _QUEUED * slots, here=False)
        return
    if workers == 1:
        yield _Engine(InProcess(), 1, 1)
        return
    pool = LocalPool(workers)
    try:
        yield _Engine(pool, workers, _QUEUED * workers)
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


class _Loop:
    """Feeds an executor: all tiles in order first, then figures."""

    def __init__(
        self, engine: _Engine, ledger: Ledger, folder: OutputFolder, listener: Progress, total: int, done: int
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._folder = folder
        self._listener = listener
        self._total = total
        self._done = done
        self._drawings: deque[DrawJob] = deque()

    def do(self, jobs: Sequence[TileJob], report: bool) -> None:
        """Run all jobs; the ledger is written before this returns or raises."""
        tiles = deque(jobs)
        if report:
            self._drawings.extend(self._undrawn())
        running: dict[Future[Any], TileJob | DrawJob] = {}
        try:
            while tiles or self._drawings or running:
                while len(running) < self._engine.queued and (tiles or self._drawings):
                    job = tiles.popleft() if tiles else self._drawings.popleft()
                    running[self._submit(job)] = job
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._take(running.pop(future), future)
        finally:
            for future in running:
                future.cancel()
            self._ledger.write()

    def _undrawn(self) -> list[DrawJob]:
        """Finished tiles whose figure an earlier run did not get to."""
        names = [name for name in sorted(self._ledger.tiles) if self._ledger.finished(name)]
        return [DrawJob(n, self._folder.root) for n in names if self._folder.preview(n).exists()]

    def _submit(self, job: TileJob | DrawJob) -> Future[Any]:
        if isinstance(job, DrawJob):
            return self._engine.executor.submit(draw_job, job)
        return self._engine.executor.submit(run_job, job)

    def _take(self, job: TileJob | DrawJob, future: Future[Any]) -> None:
        if isinstance(job, DrawJob):
            self._drawn(_result(future, lambda reason: DrawOutcome(job.tile, ok=False, reason=reason)))
        else:
            name = job.source.name
            self._written(job, _result(future, lambda reason: TileOutcome(name, ok=False, reason=reason)))

    def _written(self, job: TileJob, outcome: TileOutcome) -> None:
        self._ledger.record(outcome)
        self._done += 1
        if outcome.detail:
            _log.debug("tile %s\n%s", outcome.tile, outcome.detail)
        status, seconds = "ok" if outcome.ok else "failed", outcome.timings.get("total", 0.0)
        self._listener.tile(
            TileEvent(outcome.tile, status, outcome.reason, outcome.rows, seconds, self._done, self._total)
        )
        if outcome.ok and job.report and self._folder.preview(outcome.tile).exists():
            self._drawings.append(DrawJob(outcome.tile, self._folder.root))

    def _drawn(self, outcome: DrawOutcome) -> None:
        if outcome.ok:
            return
        if outcome.detail:
            _log.debug("figure of tile %s\n%s", outcome.tile, outcome.detail)
        self._folder.preview(outcome.tile).unlink(missing_ok=True)
        self._listener.warn(f"no figure of tile {outcome.tile}: {outcome.reason}")


def _result(future: Future[Any], failed: Callable[[str], Any]) -> Any:
    """What a job returned, or the outcome of one that could not return anything."""
    try:
        return future.result()
    except WorkerLost as error:
        return failed(str(error))
    except (Exception, CancelledError) as error:
        # Dask names the worker's address, which is of no use afterwards and differs from run to run.
        if type(error).__name__ == "KilledWorker":
            return failed("its worker processes were killed; is there enough memory?")
        return failed(f"its result was lost: {type(error).__name__}: {' '.join(str(error).split())}")
