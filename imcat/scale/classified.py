"""`imcat classify`: a table of magnitudes in, the same table with classes and redshifts out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from imcat.catalogue.user_tables import check_columns, check_format, numbers, read_table, write_table
from imcat.classify.network import measured
from imcat.classify.own_classes import load_own
from imcat.classify.predict import Prior, classify
from imcat.classify.settings import ClassifySettings
from imcat.classify.table import TableMagnitudes, read_magnitudes
from imcat.classify.trained import load_classifier
from imcat.errors import InputError
from imcat.schema import Schema
from imcat.stamps.given import given_stamps, read_images

__all__ = ["ClassifySummary", "classify_with", "run_classify"]


@dataclass(frozen=True)
class ClassifySummary:
    """What was done.

    Attributes
    ----------
    rows : int
        Of the table.
    classified : int
        Those with at least one magnitude.
    bands : tuple of str
        That were used.
    warnings : tuple of str
        What a user should know.
    """

    rows: int
    classified: int
    bands: tuple[str, ...]
    warnings: tuple[str, ...]


def run_classify(
    table: str | Path, out: str | Path, filters: str | None = None, prior: str | None = None
) -> ClassifySummary:
    """Classify the sources of a table by their photometry.

    Parameters
    ----------
    table : path
        With ``{b}_mag`` and optionally ``{b}_mag_err`` (AB), or the flux columns of a catalogue; optionally ``ebv``,
        ``{b}_psf_mag``, sizes of a catalogue, and ``ra``, ``dec`` for the prior. Rows, their order and other columns
        are kept; those with a name that is written here as ``input_`` and that name, unless the table has all of these: then
        it was classified before, and they are replaced.
    out : path
        The table to write; its ending tells the format.
    filters : str, optional
        ``sdss``, ``csst``, or a TOML file with the effective wavelength of each band in angstrom; default: the survey
        whose bands the table has.
    prior : str, optional
        ``sky``, ``flat`` or ``spectroscopic``; default: ``sky``.

    Raises
    ------
    InputError
        If the table cannot be read or has no magnitudes.
    ConfigError
        If the filters or the prior are unknown.
    """
    path, target = Path(table), Path(out)
    settings = ClassifySettings(prior or "sky")
    check_format(target)
    rows = read_table(path, "a table of magnitudes")
    check_columns(rows, target)
    trained = load_classifier()
    known = read_magnitudes(rows, filters, trained.wavelengths, path)
    warnings = list(known.warnings)
    latitude = _latitude(rows, path) if settings.prior == "sky" else None
    if settings.prior == "sky" and latitude is None:
        warnings.append("the table has no ra and dec: the prior is the mean over the sky")
    columns = classify(trained, known.photometry, None, Prior(settings.prior, latitude))
    columns = {
        name: values for name, values in columns.items() if not name.startswith(("morph_", "p_lens", "lens_"))
    }
    warnings += write_table(_unanswered(rows, columns), columns, target, Schema(known.wavelengths, ()))
    return _summary(len(rows), known, warnings)


def classify_with(
    data: str | Path, out: str | Path, model: str | Path, filters: str | None = None
) -> ClassifySummary:
    """Sort stamps, or the sources of a table, into a user's own classes.

    Parameters
    ----------
    data : path
        What the classes were learned from: an NPZ file with an array of stamps, or a table of magnitudes.
    out : path
        The table to write: ``class`` and ``p_NAME`` for each class, beside the columns of the table, or the row's number
        in the array.
    model : path
        Card that `imcat train` wrote of a recipe with a table ``[fine_tuning]``.
    filters : str, optional
        As of `run_classify`.

    Raises
    ------
    InputError
        If stamps, table or model cannot be read, or do not belong together.
    """
    path, target, own = Path(data), Path(out), load_own(model)
    check_format(target)
    check_columns(
        Table(
            {"class": list(own.classes), **{f"p_{name}": [0.0] * len(own.classes) for name in own.classes}}
        ),
        target,
    )
    if own.network.reads_stamps != (path.suffix.lower() == ".npz"):
        raise InputError(
            f"{Path(model).name} was trained on {'stamps' if own.network.reads_stamps else 'a table'}", path=path,
            expected="an NPZ file with stamps" if own.network.reads_stamps else "a table of magnitudes",
        )  # fmt: skip
    if own.network.reads_stamps:
        size = own.network.body.settings.size  # type: ignore[union-attr]
        images = read_images(path, str(own.card["images"]), len(own.card["wavelengths"]))
        stamps = given_stamps(
            images, own.card["wavelengths"], float(own.card["pixel"]), int(size),
            middle=int(own.card.get("middle", 0)) or None,
        )  # fmt: skip
        shares = own.probabilities(stamps)
        shares[~stamps.valid.any(axis=(1, 2, 3))] = np.nan
        rows = Table({"row": np.arange(len(images))})
        summary = ClassifySummary(len(images), len(images), (), ())
    else:
        rows = read_table(path, "a table of magnitudes")
        check_columns(rows, target)
        low, high = own.card["limits"]
        known = read_magnitudes(rows, filters or str(own.card["filters"]) or None, (low, high), path)
        shares = own.probabilities(measured(known.photometry))
        shares[~np.isfinite(known.photometry.total).any(axis=1)] = np.nan
        summary = _summary(len(rows), known, list(known.warnings))
    best = np.where(np.isfinite(shares).all(axis=1), np.nan_to_num(shares).argmax(axis=1), len(own.classes))
    columns: dict[str, NDArray[Any]] = {"class": np.array([*own.classes, ""])[best]}
    columns |= {f"p_{name}": shares[:, k].astype(np.float32) for k, name in enumerate(own.classes)}
    clashes = write_table(_unanswered(rows, columns), columns, target, Schema({}, ()))
    return replace(summary, warnings=(*summary.warnings, *clashes))


def _unanswered(rows: Any, columns: dict[str, NDArray[Any]]) -> Any:
    """The table without the answers of an earlier time; a column of a user's that only bears one of the names stays."""
    if not set(columns) <= set(rows.colnames):
        return rows
    rows = rows.copy()
    rows.remove_columns(list(columns))
    return rows


def _summary(rows: int, known: TableMagnitudes, warnings: list[str]) -> ClassifySummary:
    classified = int(np.isfinite(known.photometry.total).any(axis=1).sum())
    return ClassifySummary(rows, classified, tuple(known.wavelengths), tuple(warnings))


def _latitude(rows: Any, path: Path) -> NDArray[np.float64] | None:
    """Galactic latitude, degrees; NaN where a row has no place."""
    if not {"ra", "dec"} <= set(rows.colnames):
        return None
    from astropy.coordinates import SkyCoord

    ra, dec = numbers(rows, "ra", path), numbers(rows, "dec", path)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(ra) & (np.abs(dec) <= 90)
    out = np.full(len(rows), np.nan)
    if good.any():
        place = SkyCoord(ra[good], dec[good], unit="deg", frame="icrs").galactic
        out[good] = place.b.deg
    return out
