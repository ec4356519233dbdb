"""A user's labels as training takes them: stamps of an NPZ file, or rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.backbones.choice import BackboneSettings
from imcat.catalogue.user_tables import read_table
from imcat.classify.network import measured
from imcat.classify.own_classes import stamp_tensors
from imcat.classify.table import read_magnitudes
from imcat.errors import InputError
from imcat.stamps.given import given_stamps, read_arrays, read_images
from imcat.train.fine_tuning import FineTuneRecipe, Labelled

__all__ = ["OwnData", "read_stamps", "read_rows"]

_LEAST = 10  # rows with a label


class OwnData:
    """Labelled rows with the names of their classes.

    Parameters
    ----------
    rows : Labelled
        What is learned from.
    classes : list of str
        By index of the label.
    objects : array ``[n]`` or None
        Name of the object of each row.
    card : dict
        What it takes to read other data alike.
    """

    def __init__(
        self, rows: Labelled, classes: list[str], objects: NDArray[Any] | None, card: dict[str, Any]
    ) -> None:
        self.rows, self.classes, self.objects, self.card = rows, classes, objects, card


def read_stamps(path: Path, recipe: FineTuneRecipe, backbone: BackboneSettings) -> OwnData:
    """Stamps with labels of an NPZ file.

    Raises
    ------
    InputError
        If an array is absent, or does not fit the others.
    """
    images = read_images(path, recipe.images, len(recipe.wavelengths))
    arrays = read_arrays(path)
    label, classes, kept = _labels(arrays, recipe.labels, len(images), path)
    objects = _objects(arrays, recipe.objects, len(images), path)[kept] if recipe.objects else None
    stamps = given_stamps(
        images[kept], recipe.wavelengths, recipe.pixel, backbone.size, middle=recipe.middle or None
    )
    card = {
        "images": recipe.images, "wavelengths": list(recipe.wavelengths), "pixel": recipe.pixel, "middle": recipe.middle,
    }  # fmt: skip
    return OwnData(Labelled(stamp_tensors(stamps), torch.from_numpy(label)), classes, objects, card)


def read_rows(path: Path, recipe: FineTuneRecipe, limits: tuple[float, float]) -> OwnData:
    """Rows of a table with magnitudes and labels.

    Raises
    ------
    InputError
        If the table has no magnitudes, or no such column.
    """
    table = read_table(path, "a table of magnitudes with a column of classes")
    columns = {name: _filled(table[name]) for name in table.colnames}
    label, classes, kept = _labels(columns, recipe.labels, len(table), path)
    objects = _objects(columns, recipe.objects, len(table), path)[kept] if recipe.objects else None
    known = read_magnitudes(table, recipe.filters or None, limits, path)
    rows = Labelled(measured(known.photometry.take(kept)), torch.from_numpy(label))
    return OwnData(rows, classes, objects, {"filters": recipe.filters, "limits": list(limits)})


def _filled(column: Any) -> NDArray[Any]:
    """A column without mask: what is masked is empty text, or not a number."""
    mask = np.ma.getmaskarray(column) if hasattr(column, "filled") else np.zeros(len(column), bool)
    if not mask.any():
        return np.ma.filled(column)
    if column.dtype.kind == "f":
        return np.ma.filled(column.astype(float), np.nan)
    texts = [str(value) for value in np.ma.getdata(column).tolist()]
    return np.where(mask, "", np.array(texts)) if column.ndim == 1 else np.ma.filled(column)


def _column(columns: dict[str, Any], name: str, rows: int, path: Path) -> NDArray[Any]:
    if name not in columns:
        raise InputError(f"there is no column {name!r}", path=path, expected=f"one of {', '.join(columns)}")
    values = np.asarray(columns[name])
    if values.shape != (rows,):
        raise InputError(f"column {name!r} has shape {values.shape}", path=path, expected=f"{rows} values")
    return values


def _objects(columns: dict[str, Any], name: str, rows: int, path: Path) -> NDArray[Any]:
    """Names of the objects; a row without one is an object of its own."""
    text = np.array([str(v).strip() for v in _column(columns, name, rows, path).tolist()])
    own = np.array([f"row {k} without a name" for k in range(rows)])
    return np.where(np.isin(text, ("", "nan")), own, text)


def _labels(
    columns: dict[str, Any], name: str, rows: int, path: Path
) -> tuple[NDArray[np.int64], list[str], NDArray[np.int64]]:
    """Index of the class of each labelled row, names of the classes, and which rows have a label."""
    values = _column(columns, name, rows, path)
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, np.nan)
        text = np.array(["" if np.isnan(v) else f"{v:g}" for v in values.tolist()])
    else:
        text = np.array([str(v).strip().lower() for v in values.tolist()])
    kept = np.flatnonzero(text != "")
    classes, label = np.unique(text[kept], return_inverse=True)
    if len(kept) < _LEAST or len(classes) < 2 or len(classes) > len(kept) // 2:
        raise InputError(
            f"column {name!r} has {len(kept)} labels of {len(classes)} classes", path=path,
            expected=f"at least {_LEAST} rows and two classes, each with several rows",
        )  # fmt: skip
    return label.ravel().astype(np.int64), [str(c) for c in classes.tolist()], kept
