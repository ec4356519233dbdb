"""`imcat measure`: a table of positions in, the same table with fluxes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.user_tables import check_columns, check_format, numbers, read_table, write_table
from imcat.config import Config
from imcat.errors import InputError, UsageError
from imcat.measure.forced import GivenShapes
from imcat.measure.model_columns import MODEL_NAMES
from imcat.measure.models import Shape
from imcat.schema import Schema

__all__ = ["ForcedSummary", "run_forced"]

_SHAPE = ("model_radius", "model_axis_ratio", "model_angle")


@dataclass(frozen=True)
class ForcedSummary:
    """What was done.

    Attributes
    ----------
    positions : int
        Rows of the table.
    inside : int
        Those that lie on the tile.
    tile : str
        Its name.
    warnings : tuple of str
        What a user should know.
    """

    positions: int
    inside: int
    tile: str
    warnings: tuple[str, ...]


def run_forced(
    tile: str, positions: str | Path, out: str | Path, config: Config | None = None, *, threads: int = 1
) -> ForcedSummary:
    """Measure a tile at the positions of a table.

    Parameters
    ----------
    tile : str
        A tile's folder, files or TOML file, as for ``imcat run``.
    positions : path
        A table with ``ra`` and ``dec`` in degrees; ``model_radius`` (arcsec), ``model_axis_ratio``, ``model_angle``
        (degrees) and optionally ``model`` ask for model fluxes. Other columns pass through; those whose names are
        needed for what is measured are kept as ``input_`` and their name.
    out : path
        The table to write; its ending tells the format.
    config : Config, optional
        Settings.
    threads : int
        Threads.

    Raises
    ------
    InputError
        If the table cannot be read, has no positions, or none lies on the tile.
    UsageError
        If the ending of `out` is unknown, or `tile` is several tiles.
    """
    from imcat.pipeline import measure_positions
    from imcat.surveys import find_tiles, read_tile

    path, target = Path(positions), Path(out)
    check_format(target)
    table = read_table(path, "a table with columns ra and dec")
    ra, dec = (_degrees(table, name, path) for name in ("ra", "dec"))
    shapes = _shapes(table, path)
    check_columns(table, target)
    sources = find_tiles([tile])
    if len(sources) != 1:
        raise UsageError(f"{tile} is {len(sources)} tiles; expected one")
    columns, warnings = measure_positions(
        read_tile(sources[0]), config or Config(), ra, dec, shapes, threads=threads
    )
    inside = np.any([columns[name] > 0 for name in columns if name.endswith("_n_exposures")], axis=0)
    if len(table) and not inside.any():
        raise InputError(
            f"none of its {len(table)} positions lies on tile {sources[0].name}",
            path=path,
            expected="ra and dec in degrees (ICRS) within the tile",
        )
    added = {"tile": np.full(len(table), sources[0].name), **columns}
    warnings += [f"{path}: {text}" for text in write_table(table, added, target, _schema(columns))]
    impossible = 0 if shapes is None else int((~np.isfinite(shapes.shape.radius) & inside).sum())
    if impossible:
        warnings.append(
            f"{path}: {impossible} rows have no possible shape (radius of 0 or more, axis ratio above 0 and at most 1, an "
            "angle): their model fluxes are NaN"
        )
    return ForcedSummary(len(table), int(inside.sum()), sources[0].name, tuple(warnings))


def _degrees(table: Any, name: str, path: Path) -> NDArray[np.float64]:
    lower = {column.lower(): column for column in table.colnames}
    if name not in lower:
        raise InputError(
            f"the table has no column {name} (it has {', '.join(table.colnames[:8])})",
            path=path,
            expected="ra and dec in degrees",
        )
    return numbers(table, lower[name], path)


def _shapes(table: Any, path: Path) -> GivenShapes | None:
    lower = {column.lower(): column for column in table.colnames}
    there = [name for name in _SHAPE if name in lower]
    if not there:
        return None
    missing = sorted(set(_SHAPE) - set(there))
    if missing:
        raise InputError(
            f"the table has {', '.join(there)} but not {', '.join(missing)}",
            path=path,
            expected="all three, or none",
        )
    radius, ratio, angle = (numbers(table, lower[name], path) for name in _SHAPE)
    model = np.zeros(len(table), np.int8)
    if "model" in lower:
        names = [str(value).strip().lower() for value in table[lower["model"]]]
        known = [name.lower() for name in MODEL_NAMES]
        wrong = sorted(set(names) - set(known) - {"", "--"})
        if wrong:
            raise InputError(f"column model holds {wrong[0]!r}", path=path, expected=" or ".join(MODEL_NAMES))
        model = np.array([max(known.index(name), 0) if name in known else 0 for name in names], np.int8)
    with np.errstate(invalid="ignore"):
        good = (radius >= 0) & (ratio > 0) & (ratio <= 1) & np.isfinite(angle)
    zero = np.zeros(len(table))
    shape = Shape(
        np.where(good, radius, np.nan),
        zero,
        np.where(good, ratio, 1.0),
        zero,
        np.where(good, angle, 0.0),
        zero,
    )
    return GivenShapes(shape, model)


def _schema(columns: dict[str, Any]) -> Schema:
    """Of the bands and apertures that the columns have."""
    bands = {name.removesuffix("_psf_flux"): None for name in columns if name.endswith("_psf_flux")}
    apertures = [
        float(name.rsplit("_", 1)[1].replace("p", "."))
        for name in columns
        if "_aper_flux_" in name and not name.endswith("_err") and name.startswith(f"{next(iter(bands))}_")
    ]
    return Schema(bands, apertures)  # type: ignore[arg-type]
