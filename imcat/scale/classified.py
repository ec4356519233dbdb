"""`imcat classify`: a table of magnitudes in, the same table with classes and redshifts out."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.classify.photometry import Photometry, soft_magnitude, table_photometry
from imcat.classify.predict import Prior, classify
from imcat.classify.settings import ClassifySettings
from imcat.classify.trained import load_classifier
from imcat.errors import ConfigError, InputError
from imcat.scale.tables import check_format, numbers, read_table, write_table
from imcat.schema import Schema
from imcat.simulate.filters import FilterSet
from imcat.surveys.extinction import band_extinction

__all__ = ["ClassifySummary", "run_classify"]

_SURVEYS = ("sdss", "csst")
_BRIGHTEST, _FAINTEST = 5.0, 35.0  # magnitudes outside are marks for missing values
_TOTALS = ("cmodel_flux", "model_flux", "kron_flux")
_EXTRA = {
    "petrosian_radius": "log_petrosian", "petrosian_r50": "log_r50", "half_light_radius": "log_half_light",
    "model_radius": "log_radius",
}  # fmt: skip


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
        are kept.
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
    waves, survey = _filters(filters, rows.colnames)
    bands = [b for b in waves if _kind(rows.colnames, b)]
    if not bands:
        raise InputError(
            f"the table has no magnitudes of {', '.join(waves)} (it has {', '.join(rows.colnames[:8])})", path=path,
            expected="columns such as r_mag, or r_model_flux of a catalogue",
            hint="--filters names the bands of other cameras",
        )  # fmt: skip
    trained = load_classifier()
    warnings: list[str] = []
    low, high = trained.wavelengths
    for band in [b for b in bands if not low <= waves[b] <= high]:
        warnings.append(
            f"band {band} at {waves[band]:g} angstrom lies outside {low:g} to {high:g}: it is not used"
        )
        bands.remove(band)
    if not bands:
        raise InputError(
            "no band lies where the classifier was trained",
            path=path,
            expected=f"{low:g} to {high:g} angstrom",
        )
    photometry = _photometry(rows, bands, waves, survey, path)
    latitude = _latitude(rows, path) if settings.prior == "sky" else None
    if settings.prior == "sky" and latitude is None:
        warnings.append("the table has no ra and dec: the prior is the mean over the sky")
    columns = classify(trained, photometry, None, Prior(settings.prior, latitude))
    columns = {
        name: values for name, values in columns.items() if not name.startswith(("morph_", "p_lens", "lens_"))
    }
    write_table(rows, columns, target, Schema({b: waves[b] for b in bands}, ()))
    known = int(np.isfinite(photometry.total).any(axis=1).sum())
    return ClassifySummary(len(rows), known, tuple(bands), tuple(warnings))


def _filters(named: str | None, columns: list[str]) -> tuple[dict[str, float], str]:
    """Wavelengths of the bands, and the survey whose they are."""
    if named is None:
        # The bands that only CSST has decide; ugriz alone is taken for SDSS.
        named = "csst" if any(_kind(columns, b) for b in ("nuv", "y")) else "sdss"
    if named in _SURVEYS:
        chosen = FilterSet.named(named)
        return dict(zip(chosen.names, chosen.wavelengths.tolist(), strict=True)), named
    try:
        content = tomllib.loads(Path(named).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--filters {named}: cannot be read ({error}); expected sdss, csst or a TOML file"
        ) from None
    content = content.get("filters", content)
    waves = {str(k).lower(): v for k, v in content.items() if isinstance(v, int | float)}
    if not waves or min(waves.values()) < 500:
        raise ConfigError(
            f"--filters {named}: expected lines such as r = 6166, effective wavelengths in angstrom"
        )
    return {k: float(v) for k, v in waves.items()}, "generic"


def _kind(columns: list[str], band: str) -> str | None:
    """The column of a band's total."""
    for name in (f"{band}_mag", *(f"{band}_{kind}" for kind in _TOTALS)):
        if name in columns:
            return name
    return None


def _photometry(rows: Any, bands: list[str], waves: dict[str, float], survey: str, path: Path) -> Photometry:
    names = rows.colnames
    totals, errors, psfs, apertures = [], [], [], []
    missing = np.full(len(rows), np.nan)

    def magnitudes(stem: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Magnitudes and errors of ``{stem}_mag`` or ``{stem}_flux``."""
        for name, error in ((f"{stem}_mag", f"{stem}_mag_err"), (f"{stem}_flux", f"{stem}_flux_err")):
            if name in names:
                value = numbers(rows, name, path)
                spread = numbers(rows, error, path) if error in names else missing
                return _clean(value, spread) if name.endswith("_mag") else soft_magnitude(value, spread)
        return missing, missing

    for band in bands:
        total = _kind(names, band) or ""
        mag, err = magnitudes(band if total == f"{band}_mag" else total.removesuffix("_flux"))
        totals.append(mag)
        errors.append(err)
        psfs.append(magnitudes(f"{band}_psf")[0])
        aperture = f"{band}_aper_flux_3"
        apertures.append(
            soft_magnitude(numbers(rows, aperture, path), numbers(rows, f"{aperture}_err", path))[0]
            if aperture in names and f"{aperture}_err" in names
            else missing
        )
    extra = {}
    for name, own in _EXTRA.items():
        if name in names:
            value = numbers(rows, name, path)
            extra[own] = np.log(np.where(value > 0, value, np.nan))
    if "petrosian_r90" in names and "petrosian_r50" in names:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = numbers(rows, "petrosian_r90", path) / numbers(rows, "petrosian_r50", path)
        extra["concentration"] = np.where(np.isfinite(ratio), ratio, np.nan)
    return table_photometry(
        [waves[b] for b in bands], np.stack(totals, 1), np.stack(errors, 1), _dust(rows, bands, waves, survey, path),
        np.stack(psfs, 1), np.stack(apertures, 1), extra,
    )  # fmt: skip


def _clean(mag: NDArray[Any], error: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    with np.errstate(invalid="ignore"):
        good = (mag >= _BRIGHTEST) & (mag <= _FAINTEST)
        return np.where(good, mag, np.nan), np.where(good & (error > 0) & (error < 10), error, np.nan)


def _dust(rows: Any, bands: list[str], waves: dict[str, float], survey: str, path: Path) -> Any:
    """Extinction from ``ebv``, or from the columns of a catalogue; None where the table says nothing."""
    if "ebv" in rows.colnames:
        unit = band_extinction(survey, {b: waves[b] for b in bands}, 1.0)
        return numbers(rows, "ebv", path)[:, None] * np.array([unit[b] for b in bands])
    named = [f"{b}_extinction" for b in bands]
    if any(name in rows.colnames for name in named):
        missing = np.full(len(rows), np.nan)
        return np.stack([numbers(rows, n, path) if n in rows.colnames else missing for n in named], 1)
    return None


def _latitude(rows: Any, path: Path) -> NDArray[np.float64] | None:
    if not {"ra", "dec"} <= set(rows.colnames):
        return None
    from astropy.coordinates import SkyCoord

    ra, dec = numbers(rows, "ra", path), numbers(rows, "dec", path)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(ra) & (np.abs(dec) <= 90)
    out = np.full(len(rows), 45.0)
    if good.any():
        place = SkyCoord(ra[good], dec[good], unit="deg", frame="icrs").galactic
        out[good] = place.b.deg
    return out
