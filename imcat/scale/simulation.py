"""Many simulated tiles: one job each, on one or more worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from imcat import __version__
from imcat.errors import ImcatError, UsageError
from imcat.scale.executor import InProcess, LocalPool, available_cores
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import FULL_SHAPE, observe, record, recorded_settings, write_tile
from imcat.surveys import TileSource, find_tiles

__all__ = ["SimulationSummary", "parse_size", "run_simulation"]

#: File that is written last into the folder of a tile.
_TRUTH = "truth.parquet"


@dataclass(frozen=True)
class SimulationJob:
    """One tile to write.

    Attributes
    ----------
    survey : str
        ``sdss`` or ``csst``.
    index : int
        Number of the tile, 0-based.
    seed : int
        Of the set.
    folder : pathlib.Path
        Of the tile.
    shape : (int, int) or None
        Rows and columns.
    settings : SimulateSettings
        What the sky holds.
    like : TileSource or None
        The real tile whose twin it is.
    threads : int
        Exposures that are drawn side by side; changes no byte.
    """

    survey: str
    index: int
    seed: int
    folder: Path
    shape: tuple[int, int] | None
    settings: SimulateSettings
    like: TileSource | None
    threads: int = 1


@dataclass(frozen=True)
class SimulationSummary:
    """What became of a simulation.

    Attributes
    ----------
    written : tuple of pathlib.Path
        Folders of tiles that are complete.
    sources : int
        Of those written now.
    failed : dict of str to str
        Reason by folder.
    """

    written: tuple[Path, ...]
    sources: int
    failed: dict[str, str]

    @property
    def exit_code(self) -> int:
        """0 all written, 1 some failed, 2 none written."""
        return (1 if self.written else 2) if self.failed else 0


def parse_size(text: str | None, survey: str) -> tuple[int, int] | None:
    """Rows and columns from ``WIDTHxHEIGHT`` or ``full``.

    Raises
    ------
    UsageError
        If it is neither.

    Examples
    --------
    >>> parse_size("640x480", "sdss")
    (480, 640)
    """
    if text is None:
        return None
    if text == "full":
        return FULL_SHAPE[survey]
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size is {text!r}; expected WIDTHxHEIGHT in pixels, as in 1024x1024, or full")
    return int(height), int(width)


def run_simulation(
    survey: str,
    count: int,
    seed: int,
    out: Path,
    *,
    shape: tuple[int, int] | None = None,
    settings: SimulateSettings | None = None,
    like: Sequence[str | Path] = (),
    workers: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> SimulationSummary:
    """Simulate tiles into ``out/tile-0001`` and so on.

    Tiles that are there already, complete and of the same simulation, are left as they are.

    Parameters
    ----------
    survey : str
        ``sdss`` or ``csst``.
    count : int
        Tiles; with `like`, twins of each real tile.
    seed : int
        Decides every byte.
    out : path
        Folder; new, or of the same simulation.
    shape : (int, int), optional
        Rows and columns.
    settings : SimulateSettings, optional
        What the skies hold.
    like : sequence of path
        Real tiles whose twins to make.
    workers : int, optional
        Processes; default: one for each core.
    progress : callable
        Takes a line for each tile.

    Raises
    ------
    UsageError
        If what is asked for is impossible. Nothing is written then.
    """
    settings = settings or SimulateSettings()
    if count < 1:
        raise UsageError(f"-n is {count}; expected at least 1 tile")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; expected a whole number that is not negative")
    jobs = _jobs(survey, count, seed, out, shape, settings, like)
    record(
        out,
        {
            "survey": survey, "seed": seed, "size": list(shape) if shape else None, "version": __version__,
            "settings": recorded_settings(settings), "like": [source.name for source in _twins(jobs)],
        },
    )  # fmt: skip
    todo = [job for job in jobs if not (job.folder / _TRUTH).exists()]
    workers = workers or available_cores()
    if len(todo) < workers:
        threads = max(1, workers // max(1, len(todo)))
        todo, workers = [replace(job, threads=threads) for job in todo], max(1, len(todo))
    failed: dict[str, str] = {}
    sources = 0
    executor: Executor = InProcess() if workers == 1 else LocalPool(workers)
    with executor:
        futures = {executor.submit(write_job, job): job for job in todo}
        for done, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            try:
                found = future.result()
            except (ImcatError, OSError, MemoryError) as error:
                failed[str(job.folder)] = str(error)
                progress(f"{done}/{len(todo)} {job.folder.name}: failed: {error}")
                continue
            sources += found
            progress(f"{done}/{len(todo)} {job.folder.name}: {found} sources")
    written = tuple(job.folder for job in jobs if str(job.folder) not in failed)
    return SimulationSummary(written, sources, failed)


def write_job(job: SimulationJob) -> int:
    """Simulate one tile; returns the number of sources in its truth."""
    from imcat.simulate.scene import Models

    if job.like is None:
        observation = observe(job.survey, job.index, job.seed, job.settings, job.shape)
    else:
        from imcat.simulate.twin_observation import twin_of

        observation = twin_of(job.like, job.settings, job.seed, job.index)
    return write_tile(
        job.folder, observation, job.settings, Models.load(), job.seed, job.index, threads=job.threads
    )


def _jobs(
    survey: str,
    count: int,
    seed: int,
    out: Path,
    shape: tuple[int, int] | None,
    settings: SimulateSettings,
    like: Sequence[str | Path],
) -> list[SimulationJob]:
    sources: list[TileSource | None] = [None]
    if like:
        if shape is not None:
            raise UsageError("--size and --like were both given; a twin has the size of its tile")
        found = find_tiles(like)
        other = [source.name for source in found if source.survey != survey]
        if other:
            raise UsageError(f"{other[0]} is no tile of {survey}; expected --like tiles of that survey")
        sources = list(found)
    else:
        observe(
            survey, count - 1, seed, settings, shape
        )  # refuses what is impossible before anything is written
    number = len(str(max(9999, count * len(sources))))
    return [
        SimulationJob(survey, index, seed, out / f"tile-{index + 1:0{number}d}", shape, settings, source)
        for index, source in enumerate(source for source in sources for _ in range(count))
    ]


def _twins(jobs: Sequence[SimulationJob]) -> list[TileSource]:
    return [job.like for job in jobs if job.like is not None]
