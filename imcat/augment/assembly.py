"""Augmented tiles: the simulator's, with generated galaxies and sky among the analytic ones, and rare sources.

A tile depends on the seed of its set, its number, the settings and the generators' weights, and on nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imcat.augment.assembly_rare import RareSources, draw_rare
from imcat.augment.assembly_settings import AugmentSettings
from imcat.augment.assembly_truth import AUGMENTED_COLUMNS, augmented_truth
from imcat.catalogue.fields import Parameter
from imcat.simulate.filters import FilterSet
from imcat.simulate.observation import Observation
from imcat.simulate.parts import Parts
from imcat.simulate.scene import Models, Scene
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Sources
from imcat.simulate.tiles import (
    StreamItem,
    observe,
    simulate_tile,
    stream_item,
    write_exposures,
    write_tile_truth,
)
from imcat.tile import Tile

if TYPE_CHECKING:
    from imcat.augment.trained import TrainedLight, TrainedSky

__all__ = ["Augmenter", "augmented_stream", "generators_key"]

# Purposes of the random streams of a tile, beside those of `imcat.simulate.tiles`.
_RARE, _LIGHT, _CANVAS = range(10, 13)


@dataclass(frozen=True, eq=False)
class Augmenter:
    """Makes augmented tiles of a survey.

    Attributes
    ----------
    survey : str
        ``sdss`` or ``csst``.
    settings : AugmentSettings
        The mix.
    light : TrainedLight or None
        Generator of galaxies; needed where some are to be generated.
    sky : TrainedSky or None
        Generator of sky; needed where some is to be generated.
    """

    survey: str
    settings: AugmentSettings
    light: TrainedLight | None = None
    sky: TrainedSky | None = None

    @classmethod
    def load(cls, survey: str, settings: AugmentSettings, folder: str | None = None) -> Augmenter:
        """Read the generators that the settings need.

        Parameters
        ----------
        survey : str
            ``sdss`` or ``csst``.
        settings : AugmentSettings
            The mix.
        folder : str, optional
            Where ``light_SURVEY`` and ``sky_SURVEY`` lie, or one of them; default, and for the other: those that come
            with imcat.

        Raises
        ------
        InputError
            If weights are absent or damaged.
        """
        light = sky = None
        names = [f"{kind}_{survey}" for kind in ("light", "sky")]
        there = [folder is not None and Path(folder, f"{name}.toml").exists() for name in names]
        # A folder with neither is a mistake, of which reading it tells.
        places = [folder if found or not any(there) else None for found in there]
        if settings.generated > 0:
            from imcat.augment.trained import load_light

            light = load_light(names[0], places[0])
        if settings.generated_sky > 0:
            from imcat.augment.trained import load_sky

            sky = load_sky(names[1], places[1])
        return cls(survey, settings, light, sky)

    def recorded(self) -> dict[str, Any]:
        """What stands in the record of a set of tiles: settings and checksums of the weights."""
        used = {"light": self.light, "sky": self.sky}
        return {
            **self.settings.recorded(),
            "weights": {name: model.card.get("sha256", "") for name, model in used.items() if model},
        }

    def check(self, bands: Sequence[str]) -> None:
        """Refuse what the generators were not trained on.

        Parameters
        ----------
        bands : sequence of str
            Of the tiles.

        Raises
        ------
        InputError
            With the range that is allowed.
        """
        filters = FilterSet.named(self.survey)
        used = [band for band in filters.names if band in (self.settings.bands or bands)]
        if self.light is not None:
            from imcat.augment.assembly_light import check_bands

            at = [filters.names.index(band) for band in used]
            check_bands(self.light.ranges, filters.wavelengths[at], self.settings.magnitudes)
        if self.sky is not None:
            from imcat.augment.assembly_sky import check_sky_bands

            check_sky_bands(self.sky, used)

    def parts(
        self, observation: Observation, models: Models, seed: int, index: int, added: Sources | None = None
    ) -> tuple[Parts, RareSources]:
        """Rare sources, light and sky of a tile.

        Parameters
        ----------
        observation : Observation
            In the bands of the settings.
        models : Models
            Population of the rare sources.
        seed, index : int
            Decide every random number.
        added : Sources, optional
            Sources beyond those of the sky and the rare ones, anywhere on the tile.
        """
        streams = {n: np.random.SeedSequence(seed, spawn_key=(index, n)) for n in (_RARE, _LIGHT, _CANVAS)}
        rng = np.random.default_rng(streams[_RARE])
        rare = draw_rare(models.population, self.settings, observation, rng)
        if added is not None:
            rare = rare.with_others(added, observation, rng)
        light = None
        if self.light is not None and self.settings.generated > 0:
            from imcat.augment.assembly_light import GeneratedLight

            light = GeneratedLight(
                self.light, self.settings.generated, streams[_LIGHT], self.settings.magnitudes
            )
        skies: tuple[NDArray[np.float32] | None, ...] = ()
        chance = np.random.default_rng(streams[_CANVAS])
        if self.sky is not None and chance.random() < self.settings.generated_sky:
            from imcat.augment.assembly_sky import blank_skies

            skies = blank_skies(self.sky, observation, int(chance.integers(1 << 62)))
        return Parts(rare.sources, (rare.x, rare.y), light, skies), rare

    def simulate(
        self,
        observation: Observation,
        settings: SimulateSettings,
        models: Models,
        seed: int,
        index: int = 0,
        threads: int = 1,
    ) -> tuple[Tile, Scene, dict[str, NDArray[Any]]]:
        """A tile in memory, its scene and its truth; parameters as of `imcat.simulate.tiles.simulate_tile`."""
        observation, settings = self.settings.some_bands(observation), self.settings.skies(settings)
        parts, rare = self.parts(observation, models, seed, index)
        tile, scene = simulate_tile(observation, settings, models, seed, index, threads, parts=parts)
        return tile, scene, augmented_truth(scene, observation, settings, rare)

    def write(
        self,
        folder: Path,
        observation: Observation,
        settings: SimulateSettings,
        models: Models,
        seed: int,
        index: int = 0,
        threads: int = 1,
    ) -> int:
        """A tile on disk with its truth; parameters as of `imcat.simulate.tiles.write_tile`.

        Returns
        -------
        int
            Sources in the truth.
        """
        observation, settings = self.settings.some_bands(observation), self.settings.skies(settings)
        parts, rare = self.parts(observation, models, seed, index)
        scene = write_exposures(
            folder, observation, settings, models, seed, index, threads, parts, packed=True
        )
        columns = augmented_truth(scene, observation, settings, rare)
        sky = Parameter(
            "generated_sky", bool(parts.skies), "", "meta.code", "Whether a network generated the empty sky."
        )
        write_tile_truth(folder, observation, columns, seed, index, AUGMENTED_COLUMNS, (sky,))
        return len(columns["ra"])


@cache
def generators_key(survey: str, folder: str | None = None) -> str:
    """Eight digits that tell the generators of a survey, those of a folder or imcat's own, from others.

    Raises
    ------
    InputError
        If weights are absent or damaged.
    """
    used = Augmenter.load(survey, AugmentSettings.of_survey(survey), folder).recorded()["weights"]
    return hashlib.sha256(repr(sorted(used.items())).encode()).hexdigest()[:8]


def augmented_stream(
    survey: str,
    seed: int,
    shape: tuple[int, int] = (256, 256),
    settings: SimulateSettings | None = None,
    augment: AugmentSettings | None = None,
    models: Models | None = None,
    start: int = 0,
    step: int = 1,
    augmenter: Augmenter | None = None,
) -> Iterator[StreamItem]:
    """Augmented tiles without end, none of which touches a disk.

    Parameters
    ----------
    survey : str
        ``sdss`` or ``csst``.
    seed : int
        Decides all tiles.
    shape : (int, int)
        Rows and columns.
    settings : SimulateSettings, optional
        What the skies hold; the rates of lenses and look-alikes are those of the mix.
    augment : AugmentSettings, optional
        The mix; default: that of the survey.
    models : Models, optional
        Default: those that come with imcat.
    start, step : int
        Tiles ``start``, ``start + step`` …, as of `imcat.simulate.tiles.stream`.
    augmenter : Augmenter, optional
        With generators that were read already, in place of `augment`.

    Yields
    ------
    StreamItem
        With the columns of an augmented truth.

    Raises
    ------
    InputError
        If weights are absent, or bands are asked for that the generators were not trained on.
    """
    settings, models = settings or SimulateSettings(), models or Models.load()
    augmenter = augmenter or Augmenter.load(survey, augment or AugmentSettings.of_survey(survey))
    index = start
    while True:
        observation = observe(survey, index, seed, settings, shape)
        if index == start:
            augmenter.check(observation.bands)
        tile, _, truth = augmenter.simulate(observation, settings, models, seed, index)
        yield stream_item(tile, truth)
        index += step
