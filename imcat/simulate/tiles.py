"""Simulated tiles: in memory, on disk, and as an endless stream for training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import Parameter
from imcat.errors import OutputError, UsageError
from imcat.schema import Column
from imcat.simulate.csst_camera import csst_observation
from imcat.simulate.expose import Exposed, expose
from imcat.simulate.observation import ExposureModel, Observation
from imcat.simulate.parts import Parts
from imcat.simulate.scene import Models, Scene, draw_exposure, make_scene
from imcat.simulate.sdss_camera import sdss_observation
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Sources
from imcat.simulate.truth import write_truth
from imcat.simulate.truth_columns import truth_columns
from imcat.simulate.write import write_exposure
from imcat.surveys.sdss_constants import FIELD_SHAPE
from imcat.tile import ArrayPixels, Band, Exposure, Tile

__all__ = [
    "DEFAULT_SHAPE",
    "FULL_SHAPE",
    "StreamItem",
    "observe",
    "simulate_tile",
    "stream",
    "stream_item",
    "write_exposures",
    "write_tile",
    "write_tile_truth",
]

_T = TypeVar("_T")

#: Rows and columns of a tile where no size is asked for, and of a whole detector.
DEFAULT_SHAPE = {"sdss": FIELD_SHAPE, "csst": (1024, 1024)}
FULL_SHAPE = {"sdss": FIELD_SHAPE, "csst": (9232, 9216)}
_SMALLEST = 64  # pixels: smaller tiles than this hold no PSF with its wings

# Purposes of the random streams of a tile.
_CONDITIONS, _SKY, _EXPOSURES = range(3)


def _seed(seed: int, index: int, purpose: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(index, purpose))


def observe(
    survey: str, index: int, seed: int, settings: SimulateSettings, shape: tuple[int, int] | None = None
) -> Observation:
    """Draw place and conditions of a tile.

    Parameters
    ----------
    survey : str
        ``sdss`` or ``csst``.
    index : int
        Number of the tile, 0-based.
    seed : int
        Of the whole set of tiles.
    settings : SimulateSettings
        What is not drawn.
    shape : (int, int), optional
        Rows and columns; default: the survey's.

    Raises
    ------
    UsageError
        If there is no such survey, or the size is impossible.
    """
    cameras = {"sdss": sdss_observation, "csst": csst_observation}
    if survey not in cameras:
        raise UsageError(f"there is no camera of survey {survey!r}; expected one of {', '.join(cameras)}")
    rows, columns = shape or DEFAULT_SHAPE[survey]
    largest = FULL_SHAPE[survey]
    if not (_SMALLEST <= rows <= largest[0] and _SMALLEST <= columns <= largest[1]):
        raise UsageError(
            f"a tile of {columns}x{rows} pixels is impossible for {survey}; expected {_SMALLEST}x{_SMALLEST} to "
            f"{largest[1]}x{largest[0]}"
        )
    rng = np.random.default_rng(_seed(seed, index, _CONDITIONS))
    return cameras[survey](index, (rows, columns), settings, rng)


def simulate_tile(
    observation: Observation,
    settings: SimulateSettings,
    models: Models,
    seed: int,
    index: int = 0,
    threads: int = 1,
    added: Sources | None = None,
    parts: Parts | None = None,
) -> tuple[Tile, Scene]:
    """Simulate a tile in memory.

    Parameters
    ----------
    observation : Observation
        From `observe`, or the twin of a real tile.
    settings : SimulateSettings
        What the sky holds.
    models : Models
        Population and spectra.
    seed, index : int
        Decide every random number.
    threads : int
        Exposures that are drawn side by side.
    added : Sources, optional
        Sources beyond those of the sky, anywhere on the tile.
    parts : Parts, optional
        More than that: places, light and skies that the simulator does not make.

    Returns
    -------
    tile : Tile
        As a reader would make it, without the rounding of files.
    scene : Scene
        The truth.
    """
    parts = parts or Parts(added)
    scene = make_scene(observation, settings, models, _seed(seed, index, _SKY), parts)
    exposed = _each_exposure(
        scene,
        observation,
        settings,
        _seed(seed, index, _EXPOSURES),
        threads,
        lambda model, pixels: (model, pixels),
        parts.skies,
    )
    by_band: dict[str, list[Exposure]] = {name: [] for name in observation.bands}
    for model, pixels in exposed:
        by_band[model.band].append(_exposure(model, pixels))
    wavelengths = dict(zip(observation.filters.names, observation.filters.wavelengths, strict=True))
    bands = tuple(Band(name, float(wavelengths[name]), tuple(found)) for name, found in by_band.items())
    tile = Tile(observation.name, observation.survey, observation.number, bands, observation.reference)
    return tile, scene


def write_tile(
    folder: Path,
    observation: Observation,
    settings: SimulateSettings,
    models: Models,
    seed: int,
    index: int = 0,
    threads: int = 1,
) -> int:
    """Simulate a tile and write it: the survey's files, then ``truth.parquet``.

    The truth is written last; a folder that has one is complete. No more than `threads` exposures
    are in memory at a time.

    Returns
    -------
    int
        Sources in the truth.
    """
    scene = write_exposures(folder, observation, settings, models, seed, index, threads)
    columns = truth_columns(scene, observation, settings)
    write_tile_truth(folder, observation, columns, seed, index)
    return len(columns["ra"])


def write_exposures(
    folder: Path,
    observation: Observation,
    settings: SimulateSettings,
    models: Models,
    seed: int,
    index: int = 0,
    threads: int = 1,
    parts: Parts | None = None,
    *,
    packed: bool = False,
) -> Scene:
    """Simulate a tile and write all of it but the truth, see `write_tile`.

    Parameters
    ----------
    parts : Parts, optional
        What the simulator does not make itself.
    packed : bool
        Whether maps that hold little (weights, flags) are compressed.
    """
    parts = parts or Parts()
    scene = make_scene(observation, settings, models, _seed(seed, index, _SKY), parts)

    def write(model: ExposureModel, pixels: Exposed) -> None:
        write_exposure(folder, observation, model, pixels, packed=packed)

    exposures = _seed(seed, index, _EXPOSURES)
    for _ in _each_exposure(scene, observation, settings, exposures, threads, write, parts.skies):
        pass
    return scene


def write_tile_truth(
    folder: Path,
    observation: Observation,
    columns: dict[str, NDArray[Any]],
    seed: int,
    index: int,
    more: tuple[Column, ...] = (),
    parameters: tuple[Parameter, ...] = (),
) -> None:
    """Write the truth of a tile, which makes its folder complete.

    Parameters
    ----------
    folder : path
        Of the tile.
    observation : Observation
        Of the tile.
    columns : dict of array
        From `imcat.simulate.truth_columns.truth_columns`, and those of `more`.
    seed, index : int
        Of the tile.
    more : tuple of Column
        Declares further columns.
    parameters : tuple of Parameter
        Further facts that hold for the whole table.
    """
    standard = (
        Parameter("survey", observation.survey, "", "meta.dataset", "Survey that is simulated."),
        Parameter("tile_name", observation.name, "", "meta.id;obs.field", "Name of the tile."),
        Parameter("reference", observation.reference, "", "meta.id;instr.filter", "Band of x and y."),
        Parameter("seed", seed, "", "meta.number", "Seed of the set of tiles."),
        Parameter("tile_index", index, "", "meta.number", "Number of the tile in the set, 0-based."),
    )
    write_truth(folder / "truth.parquet", columns, observation.bands, (*standard, *parameters), more)


@dataclass(frozen=True, eq=False)
class StreamItem:
    """One tile of a training stream.

    Attributes
    ----------
    bands : tuple of str
        Names, in the order of `pixels`.
    wavelengths : float64 array, ``[bands]``
        Å.
    pixels : float32 array, ``[bands, y, x]``
        nJy, first exposure of each band on its own grid.
    variance : float32 array, ``[bands, y, x]``
        nJy², sky and detector.
    mask : uint16 array, ``[bands, y, x]``
        Bits of `imcat.flags.PixelFlag`.
    psf_fwhm : float64 array, ``[bands]``
        arcsec.
    truth : dict of array
        Columns of the truth table.
    tile : Tile
        The same as a tile, with all exposures and their world coordinates.
    """

    bands: tuple[str, ...]
    wavelengths: NDArray[np.float64]
    pixels: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.uint16]
    psf_fwhm: NDArray[np.float64]
    truth: dict[str, NDArray[Any]]
    tile: Tile


def stream(
    survey: str,
    seed: int,
    shape: tuple[int, int] = (256, 256),
    settings: SimulateSettings | None = None,
    models: Models | None = None,
    start: int = 0,
    step: int = 1,
) -> Iterator[StreamItem]:
    """Tiles without end, none of which touches a disk.

    Parameters
    ----------
    survey : str
        ``sdss`` or ``csst``.
    seed : int
        Decides all tiles.
    shape : (int, int)
        Rows and columns.
    settings : SimulateSettings, optional
        What the skies hold.
    models : Models, optional
        Default: those that come with imcat.
    start, step : int
        Tiles ``start``, ``start + step`` …: workers that begin at 0 … n − 1 with step n share a stream.

    Yields
    ------
    StreamItem
    """
    settings, models = settings or SimulateSettings(), models or Models.load()
    index = start
    while True:
        observation = observe(survey, index, seed, settings, shape)
        tile, scene = simulate_tile(observation, settings, models, seed, index)
        yield stream_item(tile, truth_columns(scene, observation, settings))
        index += step


def stream_item(tile: Tile, truth: dict[str, NDArray[Any]]) -> StreamItem:
    """A simulated tile and its truth as an item of a stream."""
    first = [band.exposures[0] for band in tile.bands]
    return StreamItem(
        bands=tuple(band.name for band in tile.bands),
        wavelengths=np.array([band.wavelength for band in tile.bands]),
        pixels=np.stack([e.image.array for e in first]),  # type: ignore[attr-defined]
        variance=np.stack([e.variance.array for e in first]),  # type: ignore[union-attr]
        mask=np.stack([e.mask.array for e in first]),  # type: ignore[union-attr]
        psf_fwhm=np.array([e.psf_fwhm for e in first]),
        truth=truth,
        tile=tile,
    )


def record(folder: Path, contents: dict[str, Any]) -> None:
    """Note in a folder what is being simulated there, or check that it is the same.

    Raises
    ------
    OutputError
        If the folder holds something else.
    """
    from imcat.catalogue.files import atomic_path

    path = folder / "simulation.json"
    text = json.dumps(contents, indent=1, sort_keys=True) + "\n"
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise OutputError(f"{folder} holds another simulation (see {path}); expected another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty and holds no simulation; expected a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from None


def recorded_settings(settings: SimulateSettings) -> dict[str, Any]:
    """Settings as `record` notes them."""
    return asdict(settings)


def _each_exposure(
    scene: Scene,
    observation: Observation,
    settings: SimulateSettings,
    seed: np.random.SeedSequence,
    threads: int,
    use: Callable[[ExposureModel, Exposed], _T],
    skies: tuple[NDArray[np.float32] | None, ...] = (),
) -> Iterator[_T]:
    """What `use` makes of each exposure, in order; as many at a time in memory as there are threads."""
    count = len(observation.exposures)
    jobs = list(zip(observation.exposures, seed.spawn(count), skies or (None,) * count, strict=True))

    def one(job: tuple[ExposureModel, np.random.SeedSequence, NDArray[np.float32] | None]) -> _T:
        model, own, sky = job
        return use(model, expose(draw_exposure(scene, observation, model, settings), model, own, sky))

    if threads <= 1:
        yield from map(one, jobs)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(one, jobs)


def _exposure(model: ExposureModel, pixels: Exposed) -> Exposure:
    from imcat.window import Window

    electrons = model.sky.read(Window.whole(model.shape)) + np.float32(model.read_variance)
    variance = electrons * (model.noise_scale / model.electrons_per_njy) ** 2
    return Exposure(
        name=model.name,
        image=ArrayPixels(pixels.image),
        wcs=model.wcs,
        variance=ArrayPixels(variance.astype(np.float32)),
        mask=ArrayPixels(pixels.mask),
        zero_point=22.5,
        gain=float(np.median(model.electrons_per_njy)),
        psf_fwhm=model.psf.fwhm * model.pixel_scale,
        mjd=model.mjd,
        variance_source="variance",
    )
