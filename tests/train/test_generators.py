"""Training of the generators: recipes, weights that load, training that goes on where it was stopped, stamps and patches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imcat.augment.looks import distance_ratios
from imcat.augment.texture import texture_of
from imcat.augment.trained import load_light, load_sky
from imcat.config import Config
from imcat.errors import ConfigError, InputError
from imcat.pipeline import catalogue_tile
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import stream
from imcat.train.light_data import SIZE, sharp_stamps, tile_stamps
from imcat.train.light_training import LightRecipe, made_looks, stamp_looks, train_light
from imcat.train.loop import Log
from imcat.train.recipes import run_recipe
from imcat.train.sky_data import PATCH, SkyPatches, tile_sky
from imcat.train.sky_training import SkyRecipe, train_sky

RECIPES = Path(__file__).resolve().parents[2] / "weights" / "recipes"
LIGHT = replace(LightRecipe(survey="csst", name="made").smoke(), galaxies=40, batch=4, patches=2)


class Stopped(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The log of a step is as far as a training gets."""
    plain = Log.write

    def write(self: Log, number: int, values: dict[str, float]) -> None:
        if number == step:
            raise Stopped
        plain(self, number, values)

    monkeypatch.setattr(Log, "write", write)


@pytest.mark.parametrize("method", ["gan", "vae"])
def test_training_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    recipe = replace(LIGHT, method=method)
    whole = train_light(recipe, tmp_path / "whole", device="cpu")
    with monkeypatch.context() as context:
        stop_at(context, 3)
        with pytest.raises(Stopped):
            train_light(recipe, tmp_path / "part", device="cpu")
    later = train_light(recipe, tmp_path / "part", resume=True, device="cpu")
    assert later.read_text() == whole.read_text()  # the checksum of the weights is in it
    lines = [json.loads(v) for v in (tmp_path / "part" / "log.jsonl").read_text().splitlines()]
    assert [v["step"] for v in lines] == [1, 2, 3, 4]
    light = load_light("made", str(whole.parent))
    stamps = sharp_stamps(6, 9)
    fine = light.ranges.inside(stamps.asked)
    made = light.components(stamps.asked.take(fine), torch.Generator().manual_seed(1))
    np.testing.assert_allclose(made.total(int(fine.sum())), stamps.asked.flux[fine], rtol=1e-9)


def test_sky_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = SkyRecipe().smoke()
    whole = train_sky(recipe, tmp_path / "whole", device="cpu")
    with monkeypatch.context() as context:
        stop_at(context, 3)
        with pytest.raises(Stopped):
            train_sky(recipe, tmp_path / "part", device="cpu")
    later = train_sky(recipe, tmp_path / "part", resume=True, device="cpu")
    assert later.read_text() == whole.read_text()
    sky = load_sky("sky_sdss", str(whole.parent))
    assert sky.bands == tuple("ugriz")
    made = sky.sky(70, 90, 3)
    np.testing.assert_array_equal(made, sky.sky(70, 90, 3))
    # Levels are set to those of the sky it learned from: white noise of unit rms.
    assert made.std() == pytest.approx(1.0, abs=0.1)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    card = train_sky(SkyRecipe().smoke(), tmp_path, device="cpu")
    with pytest.raises(InputError, match="not those of a generator of galaxies"):
        load_light("sky_sdss", str(tmp_path))
    card.with_suffix(".safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="checksum"):
        load_sky("sky_sdss", str(tmp_path))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("light_*.toml")) + sorted(RECIPES.glob("sky_*.toml")), ids=lambda p: p.stem)  # fmt: skip
def test_every_recipe_can_be_read(path: Path) -> None:
    import tomllib

    table = tomllib.loads(path.read_text())
    (kind,) = table
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table[kind].items()}
    recipe = (LightRecipe if kind == "light" else SkyRecipe)(**values)
    assert recipe.name == path.stem


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"survey": "hubble"}, "survey is 'hubble'"),
        ({"method": "flow"}, "method is 'flow'"),
        ({"real": ("a",)}, "real and validation"),
        ({"steps": 0}, "positive"),
    ],
)
def test_what_a_recipe_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LightRecipe(**values)  # type: ignore[arg-type]


def test_an_unknown_setting_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[sky]\nwidht = 4\n")
    with pytest.raises(ConfigError, match=r"own.toml: sky.widht is unknown"):
        run_recipe(tmp_path / "own.toml")


def test_sharp_stamps_hold_the_light_asked_for() -> None:
    stamps = sharp_stamps(30, 4)
    seen = stamps.signal.astype(float).sum((2, 3)) * stamps.noise
    share = seen / stamps.asked.flux
    assert np.median(share) == pytest.approx(0.95, abs=0.08)  # some lies beyond the stamp
    same = sharp_stamps(30, 4)
    np.testing.assert_array_equal(stamps.signal, same.signal)
    looks = stamp_looks(stamps)
    assert distance_ratios(looks, looks)["size"][0] == 0


@pytest.fixture(scope="module")
def field():
    settings = SimulateSettings(density=3.0)
    tile = next(stream("sdss", 31, (512, 512), settings)).tile
    return tile, catalogue_tile(tile, Config(classify_sources=False))


def test_galaxies_of_a_tile_lie_where_they_are_said_to(field) -> None:
    tile, catalogue = field
    stamps = tile_stamps(tile, catalogue)
    assert len(stamps) >= 5
    assert stamps.signal.shape[1:] == (5, SIZE, SIZE)
    band = stamps.asked.reference
    middle = np.hypot(stamps.x[:, band] - SIZE / 2, stamps.y[:, band] - SIZE / 2)
    assert (middle <= 1.0).all()
    rows = np.arange(len(stamps))
    at = stamps.signal[
        rows, band, np.rint(stamps.y[:, band]).astype(int), np.rint(stamps.x[:, band]).astype(int)
    ]
    assert (at > 2).mean() > 0.9
    # Fluxes of the fits are in the stamps, and blank ones are blank.
    flux = (stamps.signal.astype(float) * stamps.valid).sum((2, 3))[:, band] * stamps.noise[:, band]
    assert np.median(flux / stamps.asked.flux[:, band]) == pytest.approx(0.9, abs=0.2)
    assert abs(float(np.median(stamps.blank.astype(float)))) < 0.2
    assert 1.4826 * np.median(np.abs(stamps.blank.astype(float))) == pytest.approx(1.0, abs=0.2)


def test_sky_of_a_tile_is_empty(tmp_path: Path) -> None:
    tile = next(stream("sdss", 32, (512, 512), SimulateSettings(density=0.5, star_density=0.5))).tile
    patches = tile_sky(tile)
    assert len(patches) >= 3
    assert patches.sky.shape[1:] == (5, PATCH, PATCH)
    found = texture_of(torch.from_numpy(patches.pixels()), torch.from_numpy(patches.valid.astype(np.float32)))
    np.testing.assert_allclose(found.rms, 1.0, atol=0.12)
    patches.write(tmp_path / "own.npz")
    back = SkyPatches.read(tmp_path / "own.npz")
    np.testing.assert_array_equal(back.valid, patches.valid)
    np.testing.assert_array_equal(back.sky, patches.sky)


def test_generated_galaxies_are_seen_as_their_stamps_were() -> None:
    from imcat.augment.light import LightGenerator

    torch.manual_seed(1)
    stamps = sharp_stamps(24, 5)
    looks = made_looks(LightGenerator(LIGHT.generator), stamps)
    assert looks.values.shape == (24, 11)
    # Colours are those asked for, whatever the generator is.
    real = stamp_looks(stamps)
    difference = np.nanmedian(np.abs(looks.values[:, 5:] - real.values[:, 5:]))
    assert difference < 0.1
