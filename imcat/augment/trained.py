"""Trained generators with their cards: light of galaxies, empty sky."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.augment.conditions import Conditions, Ranges
from imcat.augment.light import LightGenerator, LightSettings, components_of
from imcat.augment.sky import SkyGenerator, SkySettings
from imcat.errors import InputError
from imcat.registry import read_weights
from imcat.render.components import Components

__all__ = [
    "LIGHT_FORMAT",
    "SKY_FORMAT",
    "TrainedLight",
    "TrainedSky",
    "load_light",
    "load_sky",
    "ranges_card",
]

#: Versions of the formats of the weights.
LIGHT_FORMAT = 1
SKY_FORMAT = 1
_AT_ONCE = 2048  # galaxies


@dataclass(frozen=True, eq=False)
class TrainedLight:
    """A generator of galaxies.

    Attributes
    ----------
    generator : LightGenerator
        With its weights.
    ranges : Ranges
        What it may be asked for.
    card : dict
        What its card says.
    """

    generator: LightGenerator
    ranges: Ranges
    card: dict[str, Any]

    @torch.no_grad()
    def components(self, asked: Conditions, chance: torch.Generator) -> Components:
        """Light of n galaxies, sources 0 to n − 1, as `imcat.render` draws it.

        Parameters
        ----------
        asked : Conditions
            What they are; fluxes and half-light radii come out as asked for.
        chance : torch.Generator
            Source of randomness.

        Raises
        ------
        InputError
            If something lies outside of what the generator was trained on.
        """
        self.ranges.check(asked)
        parts = []
        for start in range(0, len(asked), _AT_ONCE):
            own = asked.take(np.arange(start, min(start + _AT_ONCE, len(asked))))
            made = components_of(self.generator(own, self.generator.draw(len(own), chance)), own)
            parts.append(
                Components(made.source + start, made.flux, made.xi, made.eta, made.xx, made.xy, made.yy)
            )
        if not parts:
            none = np.zeros(0)
            return Components(none.astype(np.int64), np.zeros((0, len(asked.wavelength))), *([none] * 5))
        return Components.concatenate(parts)


@dataclass(frozen=True, eq=False)
class TrainedSky:
    """A generator of empty sky.

    Attributes
    ----------
    generator : SkyGenerator
        With its weights.
    bands : tuple of str
        That it makes, in order.
    card : dict
        What its card says.
    """

    generator: SkyGenerator
    bands: tuple[str, ...]
    card: dict[str, Any]

    def sky(self, rows: int, columns: int, seed: int) -> NDArray[np.float32]:
        """One image ``[bands, rows, columns]`` in units of the noise of a pixel; `seed` decides every pixel."""
        return self.generator.sky(rows, columns, seed)


def load_light(name: str = "light_sdss", folder: str | None = None) -> TrainedLight:
    """The generator of galaxies that comes with imcat (``light_sdss``, ``light_csst``), or one of a folder.

    Raises
    ------
    InputError
        If the weights are absent, damaged, of another version, or not those of their card.
    """
    data, card = read_weights(name, LIGHT_FORMAT, f"imcat augment train weights/recipes/{name}.toml", folder)
    with _described(name, "galaxies", folder):
        generator = LightGenerator(LightSettings(**card["generator"]))
        generator.load_state_dict(_tensors(data))
        values = card["ranges"]
        ranges = Ranges(**{name: tuple(own) for name, own in values.items()})
    return TrainedLight(generator.eval(), ranges, card)


def load_sky(name: str = "sky_sdss", folder: str | None = None) -> TrainedSky:
    """The generator of empty sky that comes with imcat, or one of a folder; raises as `load_light`."""
    data, card = read_weights(name, SKY_FORMAT, f"imcat augment train weights/recipes/{name}.toml", folder)
    with _described(name, "sky", folder):
        generator = SkyGenerator(SkySettings(**card["generator"]))
        generator.load_state_dict(_tensors(data))
        bands = tuple(str(b) for b in card["bands"])
    return TrainedSky(generator.eval(), bands, card)


def ranges_card(ranges: Ranges) -> dict[str, Any]:
    """Ranges as a card holds them."""
    return {k: list(v) for k, v in asdict(ranges).items()}


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(data)


@contextmanager
def _described(name: str, what: str, folder: str | None) -> Iterator[None]:
    """Turns what goes wrong with weights and cards into one line."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the weights are not those of a generator of {what} ({str(error).splitlines()[0]})",
            path=str(Path(folder or "") / f"{name}.safetensors"),
            expected="a file and a card that imcat augment train wrote",
        ) from None
