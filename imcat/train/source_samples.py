"""Samples for the classifiers: simulated sources as `imcat run` finds and measures them, with stamps and truth.

A simulated tile gets, beside what its sky holds, as many stars, galaxies and quasars of every magnitude, and goes
through the main job: what the networks learn from is what they will see, blends, wrong centres and failed fits included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.augment.assembly import Augmenter, generators_key
from imcat.augment.assembly_settings import AugmentSettings
from imcat.catalogue.fields import AB_FLUX
from imcat.catalogue.files import atomic_path
from imcat.config import Config
from imcat.errors import ConfigError
from imcat.evaluate.detection import match_lists
from imcat.pipeline import process_tile
from imcat.processes import follow_parent
from imcat.simulate.balanced import balanced_sources
from imcat.simulate.parts import Parts
from imcat.simulate.scene import Models
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Kind, Sources
from imcat.simulate.tiles import observe, simulate_tile
from imcat.simulate.truth_columns import truth_columns
from imcat.stamps import Stamps, StampSettings, compress, expand
from imcat.tile import Tile
from imcat.train.real_tiles import kept_for_tiles

__all__ = [
    "SampleSettings",
    "SourceSample",
    "build_samples",
    "pack",
    "read_sample",
    "read_samples",
    "real_samples",
    "unpack",
]

#: What samples are for.
ROLES = ("training", "calibration", "lenses")
_STEP = 0.1  # of compressed pixels as they are stored, well below the noise
_RADIUS = {"sdss": 1.0, "csst": 0.3}  # arcsec, of a match
_WRONG = (
    1.5  # magnitudes: a source measured so far from the truth is a blend with another, and teaches nothing
)
_SPAWN = 91


@dataclass(frozen=True)
class SampleSettings:
    """Which tiles are simulated.

    Attributes
    ----------
    survey : str
        ``sdss`` or ``csst``.
    tiles, start, seed : int
        How many, from which one on, of which set.
    width, height : int
        Pixels.
    stars, galaxies, quasars : int
        Added to each tile.
    bright, faint : float
        Their range in r.
    slope : float
        Of the logarithm of their number with magnitude: bright galaxies are wide, and slow to fit.
    lenses, lookalikes : float
        On a square degree.
    role : str
        ``training``; ``calibration``: only probabilities and intervals are fitted to these, no weights; ``lenses``: only
        stamps of lenses, look-alikes and some other sources, cut at their true places (`imcat.train.lens_samples`).
    spacing : float
        Of lenses and look-alikes in tiles of the role ``lenses``, arcsec.
    generated : float
        Share of the tiles that are augmented (`imcat.augment.assembly`): half of their galaxies are generated, of SDSS also
        half of their skies, and they hold mergers and close pairs besides.
    generators : str
        Folder of the weights of the generators; empty: those that come with imcat.
    binning : int
        Of the stamps of these (`imcat.stamps.StampSettings`).
    fit_models : bool
        Whether PSF and model fluxes are measured: with the many exposures of CSST that takes most of the time.
    """

    survey: str = "sdss"
    tiles: int = 40
    start: int = 0
    seed: int = 71
    width: int = 2048
    height: int = 1489
    stars: int = 700
    galaxies: int = 900
    quasars: int = 800
    bright: float = 14.0
    faint: float = 24.0
    slope: float = 0.12
    lenses: float = 3000.0
    lookalikes: float = 3000.0
    fit_models: bool = True
    role: str = "training"
    spacing: float = 0.0
    binning: int = 1
    generated: float = 0.0
    generators: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ConfigError(f"samples.role is {self.role!r}; expected one of {', '.join(ROLES)}")
        if self.role == "lenses" and not self.spacing > 0:
            raise ConfigError(
                f"samples.spacing is {self.spacing}; expected arcsec between lenses where role is lenses"
            )
        if not 0 <= self.generated <= 1 or (self.role == "lenses" and self.generated):
            raise ConfigError(
                f"samples.generated is {self.generated}; expected a share of the tiles, 0 to 1, and 0 where role is lenses"
            )

    def smoke(self) -> SampleSettings:
        """The same, for a minute."""
        return replace(self, tiles=2, width=320, height=320, stars=20, galaxies=30, quasars=20)

    @property
    def name(self) -> str:
        """Of the files: other settings, other files."""
        plain = {
            k: v for k, v in asdict(self).items() if k not in ("tiles", "start", "role", "spacing", "binning")
        }
        if self.generated:  # by what they are, not by where they lie
            plain["generators"] = generators_key(self.survey, self.generators or None)
        else:  # then the samples are those of settings that do not know it
            plain = {k: v for k, v in plain.items() if k not in ("generated", "generators")}
        if self.role == "lenses":
            plain |= {"spacing": self.spacing, "binning": self.binning}
        text = repr(sorted(plain.items()))
        return f"{self.survey}-{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, eq=False)
class SourceSample:
    """Measured sources of one tile.

    Attributes
    ----------
    columns : dict of arrays ``[n]``
        Of the catalogue.
    truth : dict of arrays ``[n]``
        Of the truth table; empty for real tiles.
    bands : tuple of str
        Names.
    wavelength, fwhm : float64 arrays ``[bands]``
        Å; arcsec.
    packed : int8 array ``[n, bands, y, x]``
        Stamps (`pack`).
    noise : float32 array ``[n, bands]``
        Of a pixel, nJy.
    pixel : float
        arcsec.
    """

    columns: dict[str, NDArray[Any]]
    truth: dict[str, NDArray[Any]]
    bands: tuple[str, ...]
    wavelength: NDArray[np.float64]
    fwhm: NDArray[np.float64]
    packed: NDArray[np.int8]
    noise: NDArray[np.float32]
    pixel: float

    def __len__(self) -> int:
        return len(self.packed)


def pack(stamps: Stamps) -> NDArray[np.int8]:
    """Compressed pixels in a byte each; -128 stands for no data."""
    values = np.clip(np.rint(compress(stamps.signal) / _STEP), -127, 127).astype(np.int8)
    return np.where(stamps.valid > 0, values, np.int8(-128))


def unpack(packed: NDArray[np.int8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compressed pixels and 1 where there are data, of what `pack` made."""
    valid = packed != -128
    return np.where(valid, packed, 0).astype(np.float32) * np.float32(_STEP), valid.astype(np.float32)


def stamps_of(sample: SourceSample, rows: NDArray[np.int64]) -> Stamps:
    """Some of the stamps as they were cut."""
    values, valid = unpack(sample.packed[rows])
    return Stamps(
        expand(values) * valid,
        valid.astype(np.uint8),
        sample.noise[rows],
        sample.wavelength,
        sample.fwhm,
        sample.pixel,
    )


def simulated_sample(
    settings: SampleSettings,
    index: int,
    models: Models,
    stamps: StampSettings,
    added: Sources | None = None,
) -> SourceSample:
    """Simulate a tile, measure it, and keep what was found and is real.

    Parameters
    ----------
    settings : SampleSettings
        What the tiles hold.
    index : int
        Number of the tile.
    models : Models
        Of the simulator.
    stamps : StampSettings
        Size of the stamps.
    added : Sources, optional
        In place of those that the settings ask for, beside the sky's own.
    """
    rng = np.random.default_rng([settings.seed, index, _SPAWN])
    sky = sky_of(settings, rng)
    observation = observe(settings.survey, index, settings.seed, sky, (settings.height, settings.width))
    numbers = {Kind.STAR: settings.stars, Kind.GALAXY: settings.galaxies, Kind.QUASAR: settings.quasars}
    if added is None:
        added = balanced_sources(
            models.population, rng, numbers, settings.bright, settings.faint, observation.latitude,
            observation.longitude, settings.slope,
        )  # fmt: skip
    parts = Parts(added)
    if settings.generated and rng.random() < settings.generated:
        augmenter = _augmenter(settings.survey, settings.generators or None)
        parts, _ = augmenter.parts(observation, models, settings.seed, index, added)
    tile, scene = simulate_tile(observation, sky, models, settings.seed, index, parts=parts)
    truth = truth_columns(scene, observation, sky)
    return _sample(
        tile,
        truth,
        stamps,
        Config(fit_models=settings.fit_models, classify_sources=False),
        _RADIUS[settings.survey],
    )


@cache
def _augmenter(survey: str, folder: str | None) -> Augmenter:
    """Of the survey's own mix, once for a process; quasars are added anyway."""
    return Augmenter.load(survey, AugmentSettings.of_survey(survey, quasars=0.0), folder)


def sky_of(settings: SampleSettings, rng: np.random.Generator) -> SimulateSettings:
    """Conditions of one tile: seeing, stars, lenses."""
    return SimulateSettings(
        lenses_per_deg2=settings.lenses,
        lookalikes_per_deg2=settings.lookalikes,
        lens_spacing=settings.spacing,
        star_density=float(np.exp(rng.uniform(np.log(0.5), np.log(3.0)))),
        seeing=float(rng.uniform(0.9, 1.8)) if settings.survey == "sdss" else 0.0,
        psf_stretch=float(rng.uniform(1.0, 1.5)) if settings.survey == "csst" else 1.0,
        trails_per_tile=0.05,
    )


def real_samples(names: Sequence[str], folder: Path, stamps: StampSettings) -> list[Path]:
    """The sources of real tiles, without truth: for training that needs no labels.

    Parameters
    ----------
    names : sequence of str
        Folders of tiles below that of real data (``IMCAT_DATA``).
    folder : path
        For the files; those that are there stay.
    stamps : StampSettings
        Size of the stamps.
    """

    def make(tile: Tile, path: Path) -> None:
        write_sample(path, _sample(tile, None, stamps, Config(classify_sources=False), 0.0))

    return kept_for_tiles(names, folder, f"real-{{}}-{stamps.size}", make)


def _sample(
    tile: Tile, truth: dict[str, NDArray[Any]] | None, stamps: StampSettings, config: Config, radius: float
) -> SourceSample:
    done = process_tile(tile, config, stamps=stamps)
    catalogue, cut = done.catalogue, done.stamps
    assert cut is not None
    rows, kept = np.arange(len(catalogue)), {}
    if truth is not None:
        pixel = float(cut.pixel) if not stamps.pixel else _scale(tile)
        pairs = match_lists(catalogue["x"], catalogue["y"], truth["x"], truth["y"], radius / pixel)
        with np.errstate(invalid="ignore", divide="ignore"):
            kind = "cmodel" if config.fit_models else "kron"
            flux = np.asarray(catalogue[f"{tile.reference}_{kind}_flux"])[pairs.first]
            measured = -2.5 * np.log10(flux / AB_FLUX)
            off = np.abs(measured - truth[f"{tile.reference}_mag"][pairs.second])
        good = ~(off > _WRONG)
        rows, partner = pairs.first[good], pairs.second[good]
        kept = {name: values[partner] for name, values in truth.items()}
    columns = {name: np.asarray(catalogue[name])[rows] for name in catalogue.columns}
    return SourceSample(
        columns, kept, tile.band_names, cut.wavelength, cut.fwhm, pack(cut)[rows], cut.noise[rows], cut.pixel
    )


def _scale(tile: Tile) -> float:
    from astropy.wcs.utils import proj_plane_pixel_scales

    return float(np.sqrt(np.prod(proj_plane_pixel_scales(tile.reference_exposure.wcs))) * 3600)


def build_samples(
    folder: Path, settings: SampleSettings, stamps: StampSettings, workers: int = 1
) -> Iterator[Path]:
    """Simulate what is not there yet, one file for each tile.

    Parameters
    ----------
    folder : path
        For the files.
    settings : SampleSettings
        Which tiles.
    stamps : StampSettings
        Size of the stamps.
    workers : int
        Processes.

    Yields
    ------
    path
        Of each file, as it is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for index in range(settings.start, settings.start + settings.tiles):
        path = folder / f"{settings.name}-{stamps.size}-{index:04d}.npz"
        if path.exists():
            yield path
        else:
            jobs.append((path, settings, index, stamps))
    if workers <= 1:
        yield from map(_job, jobs)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("forkserver"), initializer=follow_parent
    ) as pool:
        yield from pool.map(_job, jobs)


_models: list[Models] = []


def _job(job: tuple[Path, SampleSettings, int, StampSettings]) -> Path:
    path, settings, index, stamps = job
    if not _models:
        _models.append(Models.load())
    if settings.role == "lenses":
        from imcat.train.lens_samples import lens_sample

        write_sample(path, lens_sample(settings, index, _models[0], stamps))
        return path
    write_sample(path, simulated_sample(settings, index, _models[0], stamps))
    return path


def write_sample(path: Path, sample: SourceSample) -> None:
    """Write a sample."""
    arrays: dict[str, Any] = {f"columns.{k}": v for k, v in sample.columns.items()}
    arrays |= {f"truth.{k}": v for k, v in sample.truth.items()}
    arrays |= {
        "bands": np.array(sample.bands), "wavelength": sample.wavelength, "fwhm": sample.fwhm,
        "packed": sample.packed, "noise": sample.noise, "pixel": np.array(sample.pixel),
    }  # fmt: skip
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def read_sample(path: Path) -> SourceSample:
    """Read what `write_sample` wrote."""
    with np.load(path) as file:
        arrays = dict(file)
    groups: dict[str, dict[str, NDArray[Any]]] = {"columns": {}, "truth": {}}
    for name, values in arrays.items():
        group, _, column = name.partition(".")
        if group in groups:
            groups[group][column] = values
    return SourceSample(
        groups["columns"], groups["truth"], tuple(arrays["bands"].tolist()), arrays["wavelength"], arrays["fwhm"],
        arrays["packed"], arrays["noise"], float(arrays["pixel"]),
    )  # fmt: skip


def read_samples(paths: Sequence[Path]) -> list[SourceSample]:
    """Several samples."""
    return [read_sample(path) for path in paths]


def recorded(settings: SampleSettings) -> dict[str, Any]:
    """Settings as a card has them."""
    return asdict(replace(settings))
