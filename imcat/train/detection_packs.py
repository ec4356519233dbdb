"""Files of samples for the detection network, made by worker processes of one thread each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.augment.assembly import generators_key
from imcat.catalogue.files import atomic_path
from imcat.detect.network_input import FEATURES
from imcat.processes import follow_parent, single_threads
from imcat.train.detection_recipe import DetectionRecipe
from imcat.train.detection_samples import Sample, View, lobed, sample_stream, some_bands, view
from imcat.train.detection_targets import REAL, Crop, targets

__all__ = [
    "PLANES",
    "ViewJob",
    "ViewPack",
    "load_views",
    "make_views",
    "sample_jobs",
    "simulate_pack",
    "simulate_samples",
    "view_jobs",
    "worker_pool",
]

#: Planes of a sample as `make_views` writes them: the network's maps, the heat, and the four of `targets`.
PLANES = FEATURES + 5

_NAMES = tuple(Sample.__dataclass_fields__)
_LOBED = 0.7  # share of the samples whose PSFs have lobes
_PACK = 25  # samples of one file
_FEW = 4  # and where training waits for them

#: Arguments of `simulate_pack`: file, survey, seed, side, number of the pack, samples, whether skies vary, share of
#: augmented tiles, folder of the generators.
SampleJob = tuple[Path, str, int, int, int, int, bool, float, str]


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that simulate; to be used within `single_threads`."""
    return ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn"), initializer=_begin)


@contextmanager
def _one_thread() -> Iterator[None]:
    """While this holds, torch works with one thread, as in the processes of a pool."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin() -> None:
    import torch

    follow_parent()
    torch.set_num_threads(1)


def simulate_samples(
    recipe: DetectionRecipe,
    folder: Path,
    workers: int,
    count: int,
    seed: int,
    *,
    varied: bool = True,
    augmented: bool = False,
) -> list[Path]:
    """Simulate samples into files of some dozen each; those that are there stay.

    Parameters
    ----------
    recipe : DetectionRecipe
        What is simulated.
    folder : path
        Of the files.
    workers : int
        Processes.
    count, seed : int
        Number of samples; decides them.
    varied : bool
        Whether skies vary more than a survey's.
    augmented : bool
        Whether the recipe's share of them are augmented tiles.

    Returns
    -------
    list of path
    """
    jobs = sample_jobs(recipe, folder, count, seed, varied=varied, augmented=augmented)
    missing = [job for job in jobs if not job[0].is_file()]
    if min(workers, len(missing)) > 1:
        with single_threads(), worker_pool(min(workers, len(missing))) as pool:
            list(pool.map(simulate_pack, missing))
    else:  # a process of its own would take longer to begin than a few samples take
        with _one_thread():
            for job in missing:
                simulate_pack(job)
    return [job[0] for job in jobs]


def sample_jobs(
    recipe: DetectionRecipe,
    folder: Path,
    count: int,
    seed: int,
    *,
    varied: bool = True,
    augmented: bool = False,
) -> list[SampleJob]:
    """What `simulate_samples` has to do, one job for each file."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[SampleJob] = []
    generated = recipe.generated if augmented else 0.0
    for pack in range(math.ceil(count / _PACK)):
        survey = recipe.surveys[pack % len(recipe.surveys)]
        number = min(_PACK, count - pack * _PACK)
        kind = "" if varied else "-plain"
        if generated:
            kind += f"-generated-{generated:g}-{generators_key(survey, recipe.generators or None)}"
        jobs.append(
            (
                folder / f"{survey}-{seed}-{recipe.side}-{pack:04d}{kind}.npz",
                survey,
                seed,
                recipe.side,
                pack,
                number,
                varied,
                generated,
                recipe.generators,
            )
        )
    return jobs


def simulate_pack(job: SampleJob) -> None:
    """Simulate the samples of one file."""
    path, survey, seed, side, pack, number, varied, generated, generators = job
    samples = sample_stream(
        survey, seed, side, start=pack * _PACK, varied=varied, generated=generated, generators=generators
    )
    values: dict[str, NDArray[Any]] = {}
    for k in range(number):
        for name, value in vars(next(samples)).items():
            values[f"{name}_{k}"] = value
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **values)  # type: ignore[arg-type]


def load_views(
    paths: Sequence[Path], recipe: DetectionRecipe, lobes: float = 0.0, workers: int = 1
) -> list[View]:
    """Read the files of `simulate_samples`, and choose for each sample the bands and the PSF that the network sees."""

    def read(number: int) -> list[View]:
        rng = np.random.default_rng([recipe.seed, 78, number])
        with np.load(paths[number]) as file:
            count = sum(name.startswith("signal_") for name in file.files)
            samples = (Sample(**{n: file[f"{n}_{k}"] for n in _NAMES}) for k in range(count))
            return [_chosen(sample, rng, lobes) for sample in samples]

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return [one for views in pool.map(read, range(len(paths))) for one in views]


def _chosen(sample: Sample, rng: np.random.Generator, lobes: float) -> View:
    chosen = some_bands(rng, len(sample.wavelength))
    if lobes > 0 and rng.random() < _LOBED:
        sample = lobed(sample, rng, lobes)
    return view(sample, chosen)


@dataclass(frozen=True)
class ViewJob:
    """What `make_views` has to do.

    Attributes
    ----------
    path : path
        Of the file.
    survey : str
        Whose camera.
    seed, choice : int
        Decide the skies; bands and PSFs.
    side : int
        Of the samples, pixels.
    first, number : int
        Of the samples.
    views : int
        Of each.
    lobes : float
        See `DetectionRecipe`.
    generated, generators : float, str
        Likewise.
    """

    path: Path
    survey: str
    seed: int
    choice: int
    side: int
    first: int
    number: int
    views: int
    lobes: float
    generated: float = 0.0
    generators: str = ""


@dataclass(frozen=True, eq=False)
class ViewPack:
    """Views of some samples with their targets.

    Attributes
    ----------
    path : path
        Of the planes: float16 array ``[n, PLANES, y, x]`` as bytes.
    conditions : float32 array ``[n, CONDITIONS]``
        See `View`.
    fwhm, reach : float32 arrays ``[n]``
        Of the PSF; radius within which a candidate and a source are one, pixels.
    places : list of float32 arrays ``[m, 2]``
        x and y of the sources that make a candidate real, brightest first.
    """

    path: Path
    conditions: NDArray[np.float32]
    fwhm: NDArray[np.float32]
    reach: NDArray[np.float32]
    places: list[NDArray[np.float32]]


def view_jobs(
    recipe: DetectionRecipe, folder: Path, count: int, seed: int, views: int, *, augmented: bool = False
) -> list[ViewJob]:
    """Jobs that make so many samples, some at a time; `augmented` as of `simulate_samples`."""
    jobs = []
    generated = recipe.generated if augmented else 0.0
    for pack in range(math.ceil(count / _FEW)):
        survey = recipe.surveys[pack % len(recipe.surveys)]
        number = min(_FEW, count - pack * _FEW)
        path = folder / f"{survey}-{seed}-{pack:04d}.f16"
        jobs.append(
            ViewJob(
                path, survey, seed, recipe.seed, recipe.side, pack * _FEW, number, views, recipe.lobes,
                generated, recipe.generators,
            )
        )  # fmt: skip
    return jobs


def make_views(job: ViewJob) -> ViewPack:
    """Simulate samples, see each in some choices of bands and PSFs, and write them with their targets."""
    samples = sample_stream(
        job.survey, job.seed, job.side, start=job.first, generated=job.generated, generators=job.generators
    )
    seen: list[View] = []
    for k in range(job.number):
        sample, rng = next(samples), np.random.default_rng([job.choice, 79, job.first + k])
        seen += [_chosen(sample, rng, job.lobes) for _ in range(job.views)]
    planes = np.empty((len(seen), PLANES, job.side, job.side), np.float16)
    places = []
    for own, one in zip(planes, seen, strict=True):
        heat, place = targets(Crop.of(one), (job.side, job.side))
        own[:FEATURES], own[FEATURES], own[FEATURES + 1 :] = one.maps, heat, place
        real = np.flatnonzero(one.light >= REAL)
        real = real[np.argsort(-one.light[real], kind="stable")]
        places.append(np.stack([one.x[real], one.y[real]], axis=1).astype(np.float32))
    job.path.parent.mkdir(parents=True, exist_ok=True)
    planes.tofile(job.path)  # read once and removed
    return ViewPack(
        job.path,
        np.stack([one.conditions for one in seen]),
        np.array([one.fwhm for one in seen], np.float32),
        np.array([Crop.of(one).reach for one in seen], np.float32),
        places,
    )
