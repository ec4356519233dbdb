"""Recipes: TOML files that say which network is trained, and how."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from imcat.config import build_settings
from imcat.errors import ConfigError, InputError

__all__ = ["run_recipe"]

_T = TypeVar("_T")
_KINDS = ("detection", "pretraining", "classification", "fine_tuning", "light", "sky")
_SIMULATED = ("pretraining", "classification")


def run_recipe(
    path: str | Path,
    out: str | Path | None = None,
    *,
    smoke: bool = False,
    resume: bool = False,
    workers: int = 1,
) -> Path:
    """Train what a recipe names.

    Parameters
    ----------
    path : path
        A TOML file with one of the tables ``detection``, ``pretraining``, ``classification``, ``fine_tuning``, ``light`` and
        ``sky``;
        ``pretraining`` and ``classification`` have an array of tables ``samples`` besides
        (`imcat.train.source_samples.SampleSettings`).
    out : path, optional
        Folder for log, checkpoints and weights; default: ``build/train`` and the network's name.
    smoke : bool
        Train for a minute only.
    resume : bool
        Continue from the last checkpoint.
    workers : int
        Processes that simulate.

    Returns
    -------
    path
        Of the card; the weights lie beside it.

    Raises
    ------
    InputError
        If the file cannot be read.
    ConfigError
        If it names nothing that can be trained, or settings that do not exist.
    """
    tables = _read(Path(path))
    named = [kind for kind in _KINDS if kind in tables]
    allowed = {*named, "samples"} if named and named[0] in _SIMULATED else set(named)
    if len(named) != 1 or set(tables) - allowed:
        raise ConfigError(
            f"{path}: tables {', '.join(sorted(tables)) or 'none'}; expected one of {', '.join(_KINDS)}, and samples for "
            f"{' and '.join(_SIMULATED)}"
        )
    if not isinstance(tables[named[0]], dict):
        raise ConfigError(f"{path}: {named[0]} is no table; expected lines below [{named[0]}]")
    samples = tables.get("samples", [])
    if not isinstance(samples, list) or not all(isinstance(s, dict) for s in samples):
        raise ConfigError(f"{path}: samples is no array of tables; expected lines below [[samples]]")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in tables[named[0]].items()}
    if named[0] == "detection":
        return _detection(Path(path), values, out, smoke=smoke, resume=resume, workers=workers)
    if named[0] == "fine_tuning":
        return _fine_tuning(Path(path), values, out, smoke=smoke)
    if named[0] in ("light", "sky"):
        return _generator(Path(path), named[0], values, out, smoke=smoke, resume=resume)
    return _sources(
        Path(path),
        named[0],
        values,
        samples,
        out,
        smoke=smoke,
        resume=resume,
        workers=workers,
    )


def _detection(
    path: Path, values: dict[str, Any], out: str | Path | None, *, smoke: bool, resume: bool, workers: int
) -> Path:
    from imcat.train.detection import DetectionRecipe, train_detection
    from imcat.train.detection_card import write_weights

    # Paths in a recipe are relative to it.
    if isinstance(values.get("tiles"), tuple):
        values["tiles"] = tuple(str(path.parent / str(tile)) for tile in values["tiles"])
    recipe = _build(DetectionRecipe, values, path, "detection")
    if smoke:
        recipe = recipe.smoke()
    folder = _folder(out, recipe.name)
    checkpoint = train_detection(recipe, folder, workers=workers, resume=resume)
    return write_weights(checkpoint, folder, workers=workers)


def _fine_tuning(path: Path, values: dict[str, Any], out: str | Path | None, *, smoke: bool) -> Path:
    from imcat.train.fine_tuning import FineTuneRecipe
    from imcat.train.source_training import run_fine_tuning

    recipe = _build(FineTuneRecipe, values, path, "fine_tuning")
    recipe = recipe.smoke() if smoke else recipe
    return run_fine_tuning(recipe, path.parent, _folder(out, recipe.name))


def _generator(
    path: Path, kind: str, values: dict[str, Any], out: str | Path | None, *, smoke: bool, resume: bool
) -> Path:
    if kind == "light":
        from imcat.train.light_training import LightRecipe, train_light

        light = _build(LightRecipe, values, path, kind)
        light = light.smoke() if smoke else light
        return train_light(light, _folder(out, light.name), resume=resume)
    from imcat.train.sky_training import SkyRecipe, train_sky

    sky = _build(SkyRecipe, values, path, kind)
    sky = sky.smoke() if smoke else sky
    return train_sky(sky, _folder(out, sky.name), resume=resume)


def _sources(
    path: Path,
    kind: str,
    values: dict[str, Any],
    samples: Any,
    out: str | Path | None,
    *,
    smoke: bool,
    resume: bool,
    workers: int,
) -> Path:
    from imcat.train.classification import ClassifierRecipe
    from imcat.train.pretrain import PretrainRecipe
    from imcat.train.source_samples import SampleSettings
    from imcat.train.source_training import run_classification, run_pretraining

    skies = [_build(SampleSettings, dict(s), path, "samples") for s in samples]
    if not skies:
        raise ConfigError(f"{path}: no samples; expected at least one table [[samples]]")
    if smoke:
        skies = [sky.smoke() for sky in skies[:1]]
    if kind == "pretraining":
        pretraining = _build(PretrainRecipe, values, path, kind)
        pretraining = pretraining.smoke() if smoke else pretraining
        return run_pretraining(
            pretraining, skies, _folder(out, pretraining.name), workers=workers, resume=resume
        )
    recipe = _build(ClassifierRecipe, values, path, kind)
    recipe = recipe.smoke() if smoke else recipe
    return run_classification(recipe, skies, _folder(out, recipe.name), workers=workers, resume=resume)


def _folder(out: str | Path | None, name: str) -> Path:
    return Path(out) if out is not None else Path("build") / "train" / name


def _build(recipe: type[_T], values: Mapping[str, Any], path: Path, table: str) -> _T:
    """A recipe of the values of a table, of the right types, and none of them impossible everywhere."""
    known: dict[str, Any] = recipe.__dataclass_fields__  # type: ignore[attr-defined]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{path}: {table}.{unknown[0]} is unknown; expected one of {', '.join(known)}")
    try:
        made = build_settings(recipe, values, (table,))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    for name in known:
        value = getattr(made, name)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{path}: {table}.{name} is {value}; expected a number that is not negative")
    name = getattr(made, "name", "")
    if "name" in known and (name in ("", ".", "..") or Path(name).name != name):
        raise ConfigError(f"{path}: {table}.name is {name!r}; expected the name of a file, without a folder")
    return made


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the recipe cannot be read ({error})",
            path=path,
            expected="a TOML file such as weights/recipes/detection.toml",
        ) from None
