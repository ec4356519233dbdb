"""One tile of a run: read, process, write.

`run_job` is the one function that every executor calls, in this process, in
a pool or on a cluster. It returns an outcome and never raises: a tile that
fails costs no other tile.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imcat import __version__
from imcat.catalogue import atomic_path
from imcat.config import Config
from imcat.errors import ImcatError, InputError
from imcat.scale.folder import OutputFolder

if TYPE_CHECKING:
    from imcat.pipeline import ImageProduct, TileResult
    from imcat.surveys import TileSource
    from imcat.tile import Exposure, Tile

__all__ = ["DrawJob", "DrawOutcome", "TileJob", "TileOutcome", "checksum", "draw_job", "run_job"]

Corners = tuple[tuple[float, float], ...]
_CHUNK = 1 << 20  # bytes; hashlib lets other threads run while it digests a chunk this big


@dataclass(frozen=True)
class TileJob:
    """What a worker needs to make the source file of one tile.

    Attributes
    ----------
    source : TileSource
        The tile's files.
    config : Config
        The configuration of the run.
    out : pathlib.Path
        Output folder, absolute; workers on other machines must see it too.
    images : tuple of str
        Kinds of images to write.
    report : bool
        Whether to leave the arrays that the overview figure is drawn from.
    inject : int
        Simulated sources to look for in a copy of the tile.
    threads : int
        Threads that the tile may use.
    version : str
        Version of imcat that the run was started with.
    """

    source: TileSource
    config: Config
    out: Path
    images: tuple[str, ...] = ()
    report: bool = True
    inject: int = 0
    threads: int = 1
    version: str = __version__


@dataclass(frozen=True)
class TileOutcome:
    """What became of a tile.

    Attributes
    ----------
    tile : str
        Its name.
    ok : bool
        Whether its source file was written.
    reason : str
        One line that says why not.
    rows : int
        Sources in the file.
    survey, reference : str
        As in the tile.
    bands : tuple of str
        In order of wavelength.
    footprint : tuple of (float, float)
        Corners of the reference image (outer edges of its pixels), ICRS degrees.
    primary_footprint : tuple of (float, float)
        Corners of the part in which the survey's own rule makes sources primary;
        empty where the survey has no such rule.
    counts : dict
        Counts of the pipeline.
    warnings : tuple of str
        What a user should know, each once.
    inputs : dict
        SHA-256 of every file read, by path.
    images : tuple of str
        Names of the images written.
    source_sha256 : str
        Of the source file.
    timings : dict
        Seconds of wall time in each step.
    injection : dict
        Injected sources that came back; empty without.
    detail : str
        Traceback of an unexpected failure.
    """

    tile: str
    ok: bool
    reason: str = ""
    rows: int = 0
    survey: str = ""
    reference: str = ""
    bands: tuple[str, ...] = ()
    footprint: Corners = ()
    primary_footprint: Corners = ()
    counts: dict[str, int | float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    source_sha256: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    injection: dict[str, Any] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True)
class DrawJob:
    """What a worker needs to draw the overview figure of one tile."""

    tile: str
    out: Path


@dataclass(frozen=True)
class DrawOutcome:
    """Whether a figure was drawn, and why not."""

    tile: str
    ok: bool
    reason: str = ""
    detail: str = ""


def run_job(job: TileJob) -> TileOutcome:
    """Read, process and write one tile.

    Parameters
    ----------
    job : TileJob
        The tile and how to treat it.

    Returns
    -------
    TileOutcome
        Also for a tile that fails, whatever the cause.
    """
    clock = _Clock()
    written: list[Path] = []
    try:
        return _run(job, clock, written)
    except Exception as error:
        reason, detail = _explain(error)
        for path in written:
            path.unlink(missing_ok=True)
        return TileOutcome(job.source.name, ok=False, reason=reason, timings=clock.timings(), detail=detail)


def draw_job(job: DrawJob) -> DrawOutcome:
    """Draw the overview figure of a tile that has been written.

    The arrays it is drawn from are removed when the figure is there.

    Parameters
    ----------
    job : DrawJob
        The tile.

    Returns
    -------
    DrawOutcome
        A figure that cannot be drawn is reported, never raised.
    """
    folder = OutputFolder(job.out)
    try:
        from imcat.catalogue import read_parquet
        from imcat.evaluate.disagreement import draw_disagreement
        from imcat.evaluate.overview import Preview, draw_overview

        preview = Preview.load(folder.preview(job.tile))
        catalogue = read_parquet(folder.source(job.tile))
        draw_overview(folder.figure(job.tile), catalogue, preview)
        if preview.disagreement is not None:
            draw_disagreement(folder.engines_figure(job.tile), job.tile, preview.disagreement)
        folder.preview(job.tile).unlink(missing_ok=True)
    except Exception as error:
        reason, detail = _explain(error)
        return DrawOutcome(job.tile, ok=False, reason=reason, detail=detail)
    return DrawOutcome(job.tile, ok=True)


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", path=path) from None
    return digest.hexdigest()


def _run(job: TileJob, clock: _Clock, written: list[Path]) -> TileOutcome:
    """Make the tile's files; `written` collects what a failure must not leave behind."""
    if job.version != __version__:
        raise ImcatError(
            f"the worker has imcat {__version__}, the run was started with {job.version}; install one version everywhere"
        )
    # Imported here: the process that starts a pool needs none of it.
    from imcat.catalogue import write_parquet
    from imcat.pipeline import process_tile
    from imcat.surveys import read_tile

    folder = OutputFolder(job.out)
    with ThreadPoolExecutor(1, thread_name_prefix="checksum") as side:
        sums = {path: side.submit(checksum, path) for path in job.source.files}
        tile = read_tile(job.source, job.config.surveys, threads=job.threads)
        sums |= {path: side.submit(checksum, path) for path in tile.files if path not in sums}
        clock.lap("read")
        result = process_tile(
            tile, job.config, threads=job.threads, images=job.images, preview=job.report, inject=job.inject
        )
        clock.lap("process")
        inputs = {path: future.result() for path, future in sorted(sums.items())}
    images = _write_images(folder, tile.name, result.images, written)
    if job.report and result.preview is not None:
        written.append(folder.preview(tile.name))
        result.preview.save(folder.preview(tile.name))
    # Last, and after everything it stands for: the ledger counts a tile that has this file.
    write_parquet(result.catalogue, folder.source(tile.name))
    source_sum = checksum(folder.source(tile.name))
    clock.lap("write")
    return _outcome(tile, result, inputs, images, source_sum, clock)


def _outcome(
    tile: Tile,
    result: TileResult,
    inputs: dict[str, str],
    images: Iterable[str],
    source_sum: str,
    clock: _Clock,
) -> TileOutcome:
    # The pipeline may have taken fewer bands than the tile has, and then another reference.
    meta = result.catalogue.meta
    reference = str(meta["reference"])
    exposure = tile.band(reference).exposures[0]
    return TileOutcome(
        tile=tile.name,
        ok=True,
        rows=len(result.catalogue),
        survey=tile.survey,
        reference=reference,
        bands=tuple(meta["bands"]),
        footprint=_corners(exposure, -0.5, exposure.shape[0] - 0.5),
        primary_footprint=() if tile.primary_rows is None else _corners(exposure, *tile.primary_rows),
        counts=dict(result.counts),
        warnings=tuple(dict.fromkeys(result.warnings)),
        inputs=inputs,
        images=tuple(images),
        source_sha256=source_sum,
        timings=clock.timings() | _extra_timings(result),
        injection=result.injection or {},
    )


def _extra_timings(result: TileResult) -> dict[str, float]:
    """What of the processing the catalogue does not need."""
    extra = {}
    if result.preview is not None and result.preview.disagreement is not None:
        extra["other_engine"] = result.preview.disagreement.seconds
    if result.injection is not None:
        extra["injection"] = float(result.injection["seconds"])
    return extra


def _write_images(
    folder: OutputFolder, tile: str, products: Sequence[ImageProduct], written: list[Path]
) -> list[str]:
    """Write images tile-compressed: whole numbers as they are, others to a step of `_step`."""
    if not products:
        return []
    from astropy.io import fits

    names = []
    for product in products:
        path = folder.image(tile, product.band, product.kind)
        data, level = product.data, 0.0
        if data.dtype.kind == "f":
            data = np.where(np.isfinite(data), data, np.float32(np.nan))
            # A negative level is the step itself. Without dither: its default seed is the clock.
            level = -_step(data)
        image = fits.CompImageHDU(
            data, product.header, compression_type="RICE_1", quantize_level=level, quantize_method=-1
        )
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            fits.HDUList([fits.PrimaryHDU(), image]).writeto(stream)
        written.append(path)
        names.append(path.name)
    return sorted(names)


def _step(data: NDArray[np.float32]) -> float:
    """Step to which an image is rounded when it is compressed.

    A sixteenth of the noise, which loses nothing that matters (Pence, White & Seaman 2010, PASP
    122, 1065), here of the median difference of neighbours; in a smooth map 1/4096 of its median.
    Chosen here, and wide enough for the largest values, since a row that the library cannot
    quantise goes through gzip, which writes the time of day into the file.
    """
    finite = data[np.isfinite(data)]
    steps = np.abs(np.diff(data, axis=1))
    steps = steps[np.isfinite(steps)]
    if not finite.size:
        return 1.0
    noise = float(np.median(steps)) / 16 if steps.size else 0.0
    smooth = float(np.median(np.abs(finite))) / 4096
    widest = (float(finite.max()) - float(finite.min())) / 2**31
    return max(noise, smooth, widest) or 1.0


def _corners(exposure: Exposure, y0: float, y1: float) -> Corners:
    """Corners on the sky (ICRS degrees) of the rows ``y0`` to ``y1`` of an image."""
    columns = exposure.shape[1]
    x = np.array([-0.5, columns - 0.5, columns - 0.5, -0.5])
    ra, dec = exposure.wcs.pixel_to_world_values(x, np.array([y0, y0, y1, y1], dtype=float))
    return tuple((float(a), float(d)) for a, d in zip(ra, dec, strict=True))


def _explain(error: Exception) -> tuple[str, str]:
    """One line for the user, and the traceback of what nobody expected."""
    if isinstance(error, ImcatError):
        return " ".join(str(error).split()), ""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", "".join(traceback.format_exception(error))
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    text = " ".join(str(error).split())
    detail = "".join(traceback.format_exception(error))
    return f"unexpected {type(error).__name__}: {text}{place}", detail


class _Clock:
    """Wall time of each step, in seconds."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def timings(self) -> dict[str, float]:
        total = time.perf_counter() - self._start
        return {name: round(seconds, 3) for name, seconds in {**self._laps, "total": total}.items()}
