"""Tables of magnitudes, of users or of catalogues, as photometry."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.catalogue.user_tables import numbers
from imcat.classify.photometry import Photometry, catalogue_photometry, table_photometry
from imcat.errors import ConfigError, InputError
from imcat.simulate.filters import FilterSet
from imcat.surveys.extinction import band_extinction

__all__ = ["TableMagnitudes", "read_magnitudes"]

_SURVEYS = ("sdss", "csst")
_BRIGHTEST, _FAINTEST = 5.0, 35.0  # magnitudes outside are marks for missing values
_SHORTEST = 500.0  # angstrom: a wavelength in nm or micrometres is below
_DUSTIEST = 9.0  # E(B - V); 99 and the like are marks
_CSST_FWHM = 0.14  # arcsec, of the PSF: about two pixels
_SMALLEST = 0.01  # arcsec
_SHAPES = (
    "half_light_radius", "semi_minor", "semi_major", "petrosian_radius", "petrosian_r50", "petrosian_r90", "spread_model",
    "spread_model_err", "model_radius",
)  # fmt: skip
_TOTALS = ("cmodel_flux", "model_flux", "kron_flux")
_EXTRA = {
    "petrosian_radius": "log_petrosian", "petrosian_r50": "log_r50", "half_light_radius": "log_half_light",
    "model_radius": "log_radius",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class TableMagnitudes:
    """What a table says of its sources.

    Attributes
    ----------
    wavelengths : dict of str to float
        Of the bands that are used, Å.
    photometry : Photometry
        A row for each of the table's.
    warnings : tuple of str
        What a user should know.
    """

    wavelengths: dict[str, float]
    photometry: Photometry
    warnings: tuple[str, ...]


def read_magnitudes(
    rows: Any, filters: str | None, limits: tuple[float, float], path: Path
) -> TableMagnitudes:
    """Magnitudes, dust and sizes of a table.

    Parameters
    ----------
    rows : astropy.table.Table
        With ``{b}_mag`` and optionally ``{b}_mag_err`` (AB), or the flux columns of a catalogue; optionally ``ebv``,
        ``{b}_psf_mag`` and sizes of a catalogue.
    filters : str or None
        ``sdss``, ``csst``, or a TOML file with the effective wavelength of each band in angstrom; None: the survey
        whose bands the table has.
    limits : (float, float)
        Wavelengths that can be used, Å.
    path : path
        Of the table, for messages.

    Raises
    ------
    InputError
        If there are no magnitudes.
    ConfigError
        If the filters are unknown.
    """
    waves, survey = _filters(filters, rows.colnames)
    bands = [b for b in waves if _total(rows.colnames, b)]
    if not bands:
        raise InputError(
            f"the table has no magnitudes of {', '.join(waves)} (it has {', '.join(rows.colnames[:8])})", path=path,
            expected="columns such as r_mag, or r_model_flux of a catalogue",
            hint="--filters names the bands of other cameras",
        )  # fmt: skip
    low, high = limits
    outside = [b for b in bands if not low <= waves[b] <= high]
    warnings = tuple(
        f"band {b} at {waves[b]:g} angstrom lies outside {low:g} to {high:g}: it is not used" for b in outside
    )
    bands = [b for b in bands if b not in outside]
    if not bands:
        raise InputError(
            "no band lies where the classifier was trained",
            path=path,
            expected=f"{low:g} to {high:g} angstrom",
        )
    photometry = _photometry(rows, bands, waves, survey, path)
    return TableMagnitudes({b: waves[b] for b in bands}, photometry, warnings)


def _filters(named: str | None, columns: list[str]) -> tuple[dict[str, float], str]:
    """Wavelengths of the bands, and the survey whose they are."""
    if named is None:
        # The bands that only CSST has decide; ugriz alone is taken for SDSS.
        named = "csst" if any(_total(columns, b) for b in ("nuv", "y")) else "sdss"
    if named in _SURVEYS:
        chosen = FilterSet.named(named)
        return dict(zip(chosen.names, chosen.wavelengths.tolist(), strict=True)), named
    try:
        content = tomllib.loads(Path(named).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--filters {named}: cannot be read ({error}); expected sdss, csst or a TOML file"
        ) from None
    table = content.get("filters", content)
    table = table if isinstance(table, dict) else {}
    waves = {str(k).lower(): v for k, v in table.items()}
    if not waves or not all(
        isinstance(v, int | float) and math.isfinite(v) and v >= _SHORTEST for v in waves.values()
    ):
        raise ConfigError(
            f"--filters {named}: expected lines such as r = 6166, effective wavelengths in angstrom"
        )
    return {k: float(v) for k, v in waves.items()}, "generic"


def _total(columns: list[str], band: str) -> str | None:
    """The column of a band's total."""
    for name in (f"{band}_mag", *(f"{band}_{kind}" for kind in _TOTALS)):
        if name in columns:
            return name
    return None


def _photometry(rows: Any, bands: list[str], waves: dict[str, float], survey: str, path: Path) -> Photometry:
    dust = _dust(rows, bands, waves, survey, path)
    if all(f"{b}_mag" not in rows.colnames for b in bands):
        return _of_catalogue(rows, bands, waves, survey, dust, path)
    missing = np.full(len(rows), np.nan)

    def magnitudes(stem: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Magnitudes and errors of ``{stem}_mag``."""
        name, error = f"{stem}_mag", f"{stem}_mag_err"
        if name not in rows.colnames:
            return _of_flux(rows, stem, path)
        return _clean(
            numbers(rows, name, path), numbers(rows, error, path) if error in rows.colnames else missing
        )

    total, psf = [magnitudes(b) for b in bands], [magnitudes(f"{b}_psf")[0] for b in bands]
    extra = {}
    for name, own in _EXTRA.items():
        if name in rows.colnames:
            value = numbers(rows, name, path)
            extra[own] = np.log(np.maximum(np.where(value > 0, value, np.nan), _SMALLEST))
    if {"petrosian_r90", "petrosian_r50"} <= set(rows.colnames):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = numbers(rows, "petrosian_r90", path) / numbers(rows, "petrosian_r50", path)
        extra["concentration"] = np.where(np.isfinite(ratio), ratio, np.nan)
    if survey == "csst":
        extra["log_psf"] = np.full(len(rows), math.log(_CSST_FWHM))
    return table_photometry(
        [waves[b] for b in bands], np.stack([m for m, _ in total], 1), np.stack([e for _, e in total], 1), dust,
        np.stack(psf, 1), None, extra,
    )  # fmt: skip


def _of_catalogue(
    rows: Any, bands: list[str], waves: dict[str, float], survey: str, dust: Any, path: Path
) -> Photometry:
    """Photometry of a catalogue's flux columns; as `imcat run` has it, but for the width of the PSF."""
    columns = {
        name: numbers(rows, name, path)
        for name in rows.colnames
        if name in _SHAPES
        or (
            any(name.startswith(f"{b}_") for b in bands)
            and rows[name].dtype.kind in "fiu"
            and rows[name].ndim == 1
        )
    }
    for name, values in columns.items():
        if "_flux" in name:
            columns[name] = values * _in_njy(rows, name, path)
    for band in bands:
        total = _total(rows.colnames, band)
        if total is not None and f"{total}_err" not in columns:
            raise InputError(
                f"{total} has no errors",
                path=path,
                expected=f"a column {total}_err (nJy), or magnitudes: {band}_mag",
            )
    if dust is not None:
        columns |= {f"{b}_extinction": dust[:, k] for k, b in enumerate(bands)}
    reference = "r" if "r" in bands else bands[len(bands) // 2]
    fwhm = _CSST_FWHM if survey == "csst" else np.nan
    return catalogue_photometry(columns, bands, [waves[b] for b in bands], reference, fwhm)


def _of_flux(rows: Any, band: str, path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Magnitudes and errors of a band of which the table has fluxes only, NaN where it has neither."""
    name = _total(rows.colnames, band)
    if name is None:
        return np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    unit = _in_njy(rows, name, path)
    flux = numbers(rows, name, path) * unit
    error = numbers(rows, f"{name}_err", path) * unit if f"{name}_err" in rows.colnames else np.nan * flux
    with np.errstate(invalid="ignore", divide="ignore"):
        mag = 2.5 * np.log10(AB_FLUX / flux)
        return _clean(mag, 2.5 / math.log(10) * error / flux)


def _in_njy(rows: Any, name: str, path: Path) -> float:
    """What a column of fluxes is multiplied with; without a unit it is in nJy."""
    unit = getattr(rows[name], "unit", None)
    if unit is None:
        return 1.0
    from astropy import units

    try:
        return float((1 * unit).to(units.nJy, units.zero_point_flux(AB_FLUX * units.nJy)).value)
    except (ValueError, TypeError):  # what cannot be converted, and what astropy does not know
        raise InputError(
            f"{name} is in {unit}", path=path, expected="nJy, or another unit of flux density"
        ) from None


def _clean(mag: NDArray[Any], error: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    with np.errstate(invalid="ignore"):
        good = (mag >= _BRIGHTEST) & (mag <= _FAINTEST)
        return np.where(good, mag, np.nan), np.where(good & (error > 0) & (error < 10), error, np.nan)


def _dust(rows: Any, bands: list[str], waves: dict[str, float], survey: str, path: Path) -> Any:
    """Extinction from ``ebv``, or from the columns of a catalogue; None where the table says nothing."""
    if "ebv" in rows.colnames:
        unit = band_extinction(survey, {b: waves[b] for b in bands}, 1.0)
        ebv = numbers(rows, "ebv", path)
        return _plausible(ebv, _DUSTIEST)[:, None] * np.array([unit[b] for b in bands])
    named = [f"{b}_extinction" for b in bands]
    if any(name in rows.colnames for name in named):
        missing = np.full(len(rows), np.nan)
        given = [numbers(rows, n, path) if n in rows.colnames else missing for n in named]
        return _plausible(np.stack(given, 1), 10 * _DUSTIEST)
    return None


def _plausible(values: NDArray[Any], most: float) -> NDArray[Any]:
    """Values from zero to `most`; others are marks for missing ones."""
    with np.errstate(invalid="ignore"):
        return np.where((values >= 0) & (values <= most), values, np.nan)
