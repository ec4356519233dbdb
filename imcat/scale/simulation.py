"""Many simulated tiles, augmented ones among them: one job each, on one or more worker processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from imcat import __version__
from imcat.augment.assembly_settings import RARE, AugmentSettings
from imcat.catalogue.files import is_leftover
from imcat.errors import ImcatError, UsageError
from imcat.scale.executor import InProcess, LocalPool, available_cores, warm_up
from imcat.scale.space import check_space, in_words, tile_bytes
from imcat.simulate.observation import Observation
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import FULL_SHAPE, observe, record, recorded_settings, write_tile
from imcat.surveys import TileSource, find_tiles

if TYPE_CHECKING:
    from imcat.augment.assembly import Augmenter
    from imcat.simulate.scene import Models

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
    augment : AugmentSettings or None
        The mix of an augmented tile.
    weights : str or None
        Folder of the generators' weights.
    """

    survey: str
    index: int
    seed: int
    folder: Path
    shape: tuple[int, int] | None
    settings: SimulateSettings
    like: TileSource | None
    threads: int = 1
    augment: AugmentSettings | None = None
    weights: str | None = None


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
    tiles : int
        Written now.
    seconds : float
        That this took.
    """

    written: tuple[Path, ...]
    sources: int
    failed: dict[str, str]
    tiles: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> str:
        """What was written now, and how fast, in words."""
        rate = _rate(self.tiles, self.sources, self.seconds)
        return f"{self.sources} sources in those written now" + (f": {rate}" if rate else "")

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
    augment: AugmentSettings | None = None,
    weights: str | None = None,
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
    augment : AugmentSettings, optional
        Write augmented tiles of this mix.
    weights : str, optional
        Folder of the generators' weights; default: those that come with imcat.

    Raises
    ------
    UsageError
        If what is asked for is impossible. Nothing is written then.
    InputError
        If the generators' weights are absent, or were not trained on what is asked for.
    OutputError
        If the folder holds something else, or there is no room for the tiles.
    """
    settings = settings or SimulateSettings()
    if count < 1:
        raise UsageError(f"-n is {count}; expected at least 1 tile")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; expected a whole number that is not negative")
    twins, example = _first_look(survey, count, seed, shape, settings, like, augment)
    augmenter = _augmenter(survey, augment, weights) if augment is not None else None
    if augmenter is not None:
        for bands in {_bands(source) for source in twins} | ({example.bands} if example else set()):
            augmenter.check(bands)
    needed = _space(out, count, twins, example, packed=augment is not None)
    free = check_space(out, needed)
    contents = {
        "survey": survey, "seed": seed, "size": list(shape) if shape else None, "version": __version__,
        "settings": recorded_settings(settings), "like": [source.name for source in twins for _ in range(count)],
    }  # fmt: skip
    if augmenter is not None:
        contents["augment"] = augmenter.recorded()
    record(out, contents)
    number = len(str(max(9999, count * max(1, len(twins)))))
    like_what: list[TileSource | None] = [*twins] or [None]
    jobs = [
        SimulationJob(
            survey, index, seed, out / f"tile-{index + 1:0{number}d}", shape, settings, source,
            augment=augment, weights=weights,
        )
        for index, source in enumerate(source for source in like_what for _ in range(count))
    ]  # fmt: skip
    todo = [job for job in jobs if not (job.folder / _TRUTH).exists()]
    if augment is not None and todo:
        progress(f"{len(todo)} tiles to write, about {in_words(needed)}; {in_words(free)} are free")
        if example is not None:
            progress(_expected(augment, example))
    return _write_all(jobs, todo, workers or available_cores(), progress)


def _write_all(
    jobs: list[SimulationJob], todo: list[SimulationJob], workers: int, progress: Callable[[str], None]
) -> SimulationSummary:
    """Write what is to be written, with a line for each tile."""
    total = len(todo)
    for job in todo:
        _remove_leftovers(job.folder)
    if total < workers:
        threads = max(1, workers // max(1, total))
        todo, workers = [replace(job, threads=threads) for job in todo], max(1, total)
    failed: dict[str, str] = {}
    sources, began = 0, time.monotonic()
    for done, (job, found) in enumerate(_finished(todo, workers), 1):
        if isinstance(found, Exception):
            failed[str(job.folder)] = str(found)
            progress(f"{done}/{total} {job.folder.name}: failed: {found}")
            continue
        sources += found
        rate = _rate(done - len(failed), sources, time.monotonic() - began)
        progress(f"{done}/{total} {job.folder.name}: {found} sources ({rate})")
    written = tuple(job.folder for job in jobs if str(job.folder) not in failed)
    return SimulationSummary(written, sources, failed, total - len(failed), time.monotonic() - began)


def _finished(
    todo: list[SimulationJob], workers: int
) -> Iterator[tuple[SimulationJob, int | ImcatError | OSError | MemoryError]]:
    """Jobs as they are done, with the number of sources or what went wrong."""
    if workers == 1:
        executor = InProcess()
        for job in todo:  # one after the other, so that each is told when it is done
            yield job, _outcome(executor.submit(write_job, job))
        return
    warm_up(fits=False)  # workers need nothing of what measuring takes
    with LocalPool(workers) as pool:
        futures = {pool.submit(write_job, job): job for job in todo}
        for future in as_completed(futures):
            yield futures.pop(future), _outcome(future)


def _outcome(future: Future[int]) -> int | ImcatError | OSError | MemoryError:
    try:
        return future.result()
    except (ImcatError, OSError, MemoryError) as error:
        return error


def _rate(tiles: int, sources: int, seconds: float) -> str:
    if tiles == 0 or seconds <= 0:
        return ""
    return f"{tiles / seconds:.3g} tiles/s, {sources / seconds:.3g} sources/s"


def _expected(augment: AugmentSettings, observation: Observation) -> str:
    """Mean numbers of rare sources in a tile, in words."""
    reference = observation.reference_exposure
    area = reference.shape[0] * reference.shape[1] * (reference.pixel_scale / 3600.0) ** 2
    numbers = ", ".join(f"{getattr(augment, name) * area:.2g} {name}" for name in RARE)
    return f"in a tile, on average: {numbers}"


def _remove_leftovers(folder: Path) -> None:
    """Delete half-written files of a run that was killed."""
    if folder.is_dir():
        for path in folder.iterdir():
            if is_leftover(path):
                path.unlink(missing_ok=True)


def _space(
    out: Path, count: int, twins: Sequence[TileSource], example: Observation | None, *, packed: bool
) -> int:
    """About how many bytes the tiles that are not there yet take."""
    there = sum(1 for _ in out.glob(f"*/{_TRUTH}"))
    if example is not None:
        return max(0, count - there) * tile_bytes(example, packed=packed)
    # A twin has the size of its tile.
    whole = count * sum(Path(name).stat().st_size for source in twins for name in source.files)
    return round(whole * max(0.0, 1 - there / (count * len(twins))))


@cache
def _augmenter(survey: str, settings: AugmentSettings, weights: str | None) -> Augmenter:
    # Jobs of one process share it.
    from imcat.augment.assembly import Augmenter

    return Augmenter.load(survey, settings, weights)


@cache
def _models() -> Models:
    from imcat.simulate.scene import Models

    return Models.load()


def write_job(job: SimulationJob) -> int:
    """Simulate one tile; returns the number of sources in its truth."""
    if job.like is None:
        observation = observe(job.survey, job.index, job.seed, job.settings, job.shape)
    else:
        from imcat.simulate.twin_observation import twin_of

        observation = twin_of(job.like, job.settings, job.seed, job.index)
    where, how = (job.folder, observation, job.settings, _models()), (job.seed, job.index, job.threads)
    if job.augment is None:
        return write_tile(*where, *how)
    return _augmenter(job.survey, job.augment, job.weights).write(*where, *how)


def _first_look(
    survey: str,
    count: int,
    seed: int,
    shape: tuple[int, int] | None,
    settings: SimulateSettings,
    like: Sequence[str | Path],
    augment: AugmentSettings | None,
) -> tuple[list[TileSource], Observation | None]:
    """The tiles whose twins are asked for, or an observation that shows what the tiles are like.

    Refuses what is impossible before anything is written.
    """
    if not like:
        example = observe(survey, count - 1, seed, settings, shape)
        return [], augment.some_bands(example) if augment else example
    if shape is not None:
        raise UsageError("--size and --like were both given; a twin has the size of its tile")
    found = find_tiles(like, bands=augment.bands or None if augment else None)
    other = [source.name for source in found if source.survey != survey]
    if other:
        raise UsageError(f"{other[0]} is no tile of {survey}; expected --like tiles of that survey")
    return found, None


def _bands(source: TileSource) -> tuple[str, ...]:
    return tuple(dict.fromkeys(band for band, _ in source.parts))
