"""Files of SDSS that may lie beside the frames of a field: used where they are, never required."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imcat.surveys.fits_io import FITS_SUFFIXES, FitsFile
from imcat.surveys.fits_table import FitsTable
from imcat.surveys.sdss_constants import BANDS, SOFT_BIAS
from imcat.surveys.sdss_psf import FieldPsf, double_gaussian_fwhm, read_field_psf

__all__ = ["FieldFacts", "companion_files", "find_companion", "read_facts"]

#: arcsec per pixel of the corrected frames (York et al. 2000).
_PIXEL_SCALE = 0.396


@dataclass(frozen=True)
class FieldFacts:
    """What the companions of a field say, by band.

    Attributes
    ----------
    psf_fwhm : dict
        arcsec.
    psf : dict
        PSF models.
    saturation : dict
        Counts above the soft bias.
    extinction : dict
        Median Galactic extinction of the field's objects, magnitudes.
    """

    psf_fwhm: dict[str, float] = field(default_factory=dict)
    psf: dict[str, FieldPsf] = field(default_factory=dict)
    saturation: dict[str, float] = field(default_factory=dict)
    extinction: dict[str, float] = field(default_factory=dict)


def find_companion(folders: list[str], stem: str) -> str | None:
    """The file ``stem.fit[s][.gz|.bz2|.fz]`` in the first folder that has one."""
    for folder in folders:
        for suffix in FITS_SUFFIXES:
            path = Path(folder) / f"{stem}{suffix}"
            if path.is_file():
                return str(path)
    return None


def companion_files(folders: list[str], run: int, camcol: int, number: int) -> dict[str, str]:
    """Companions of a field that are there.

    Parameters
    ----------
    folders : list of str
        Where the frames lie.
    run, camcol, number : int
        The field.

    Returns
    -------
    dict
        ``psField``, ``photoField``, ``photoObj`` and ``fpM-u`` … ``fpM-z`` to paths.
    """
    stems = {
        "psField": f"psField-{run:06d}-{camcol}-{number:04d}",
        "photoField": f"photoField-{run:06d}-{camcol}",
        "photoObj": f"photoObj-{run:06d}-{camcol}-{number:04d}",
        **{f"fpM-{b}": f"fpM-{run:06d}-{b}{camcol}-{number:04d}" for b in BANDS},
    }
    found = {kind: find_companion(folders, stem) for kind, stem in stems.items()}
    return {kind: path for kind, path in found.items() if path is not None}


def read_facts(companions: dict[str, str], number: int, bands: list[str]) -> FieldFacts:
    """Read the companions of a field.

    Parameters
    ----------
    companions : dict
        From `companion_files`.
    number : int
        The field, to find its row in the photoField file.
    bands : list of str
        Those that have frames.

    Raises
    ------
    InputError
        If one of the files is damaged.
    """
    facts = FieldFacts()
    if "photoField" in companions:
        table = FitsFile(companions["photoField"]).table(1)
        rows = np.flatnonzero(table.column("FIELD") == number)
        if rows.size:
            row = int(rows[0])
            _take_widths(facts, table, row)
            for band, level in zip(BANDS, _row(table, "SATURATION_LEVEL", row), strict=False):
                if level > SOFT_BIAS:
                    facts.saturation[band] = float(level) - SOFT_BIAS
    if "psField" in companions:
        _take_widths(facts, FitsFile(companions["psField"]).table(6), 0)
        for band in bands:
            facts.psf[band] = read_field_psf(companions["psField"], band)
    if "photoObj" in companions:
        table = FitsFile(companions["photoObj"]).table(1)
        values = table.column("EXTINCTION")
        if values.ndim == 2 and len(table):
            for band, value in zip(BANDS, np.nanmedian(values, axis=0), strict=False):
                if np.isfinite(value) and value >= 0:
                    facts.extinction[band] = float(value)
    return facts


def _take_widths(facts: FieldFacts, table: FitsTable, row: int) -> None:
    """FWHM from the double Gaussian that PHOTO fitted to the stars of a field.

    Its widths are in pixels. ``PSF_WIDTH`` beside it is the width of the Gaussian with the same
    effective area, which the wings make a sixth larger than the FWHM.
    """
    columns = [_row(table, f"PSF_{name}_2G", row) for name in ("SIGMA1", "SIGMA2", "B")]
    for band, sigma1, sigma2, ratio in zip(BANDS, *columns, strict=False):
        fwhm = _PIXEL_SCALE * double_gaussian_fwhm(float(sigma1), float(sigma2), float(ratio))
        if 0.3 < fwhm < 10:
            facts.psf_fwhm[band] = fwhm


def _row(table: FitsTable, name: str, row: int) -> list[Any]:
    if name not in table or row >= len(table):
        return []
    return list(np.atleast_1d(table.column(name)[row]).tolist())
