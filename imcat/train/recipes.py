"""Recipes: TOML files that say which network is trained, and how."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from imcat.errors import ConfigError, InputError

__all__ = ["run_recipe"]


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
        A TOML file with one table, ``detection``.
    out : path, optional
        Folder for samples, log, checkpoints and weights; default: ``build/train`` and the network's name.
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
    from imcat.train.detection import DetectionRecipe, train_detection
    from imcat.train.detection_card import write_weights

    tables = _read(Path(path))
    if set(tables) != {"detection"}:
        raise ConfigError(f"{path}: tables {', '.join(sorted(tables)) or 'none'}; expected one: detection")
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in tables["detection"].items()
    }
    known = DetectionRecipe.__dataclass_fields__
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{path}: detection.{unknown[0]} is unknown; expected one of {', '.join(known)}")
    # Paths in a recipe are relative to it.
    if isinstance(values.get("tiles"), tuple):
        values["tiles"] = tuple(str(Path(path).parent / str(tile)) for tile in values["tiles"])
    recipe = DetectionRecipe(**values)
    if smoke:
        recipe = recipe.smoke()
    folder = Path(out) if out is not None else Path("build") / "train" / recipe.name
    checkpoint = train_detection(recipe, folder, workers=workers, resume=resume)
    return write_weights(checkpoint, folder, workers=workers)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the recipe cannot be read ({error})",
            path=path,
            expected="a TOML file such as weights/recipes/detection.toml",
        ) from None
