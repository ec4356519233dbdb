"""Real tables with spectra, as the classifier's training takes them: magnitudes as they stand there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.classify.photometry import Photometry, table_photometry
from imcat.simulate.filters import FilterSet
from imcat.simulate.population_tables import read_parquet
from imcat.simulate.sources import Kind
from imcat.simulate.split import split_rows

__all__ = ["TABLES", "SpectroscopicTable", "read_table"]

_BANDS = "ugriz"
#: Tables that `read_table` knows, by name.
TABLES = ("sdss17", "dr7", "dr10", "quasars", "boss", "main", "ugriz", "2slaq", "vvds")
_UNKNOWN = -1
# Effective wavelengths of CFH12K B, V, R, I, Å (Le Fèvre et al. 2004, A&A 417, 839).
_CFH12K = {"B": 4390.0, "V": 5385.0, "R": 6555.0, "I": 8145.0}


@dataclass(frozen=True, eq=False)
class SpectroscopicTable:
    """A table.

    Attributes
    ----------
    name : str
        One of `TABLES`.
    photometry : Photometry
        Of n sources.
    kind : int8 array ``[n]``
        `imcat.simulate.sources.Kind`; -1 where the table does not tell kinds apart, and so says nothing on their mix.
    known : int8 array ``[n]``
        The kind, also where all rows are of one.
    redshift : float32 array ``[n]``
        NaN for stars.
    split : int8 array ``[n]``
        `imcat.simulate.split.Split`.
    """

    name: str
    photometry: Photometry
    kind: NDArray[np.int8]
    known: NDArray[np.int8]
    redshift: NDArray[np.float32]
    split: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, rows: NDArray[Any]) -> SpectroscopicTable:
        """Some of the rows."""
        return SpectroscopicTable(
            self.name,
            self.photometry.take(rows),
            self.kind[rows],
            self.known[rows],
            self.redshift[rows],
            self.split[rows],
        )


def read_table(name: str, data: Path) -> SpectroscopicTable:
    """Read one of `TABLES`.

    Parameters
    ----------
    name : str
        Which.
    data : path
        The folder of real data (`imcat.simulate.population_tables.data_folder`).
    """
    return _READERS[name](data / "populations")


def _make(
    name: str, raw: NDArray[np.float64], redshift: Any, known: Any, *, told: bool = False, **columns: Any
) -> SpectroscopicTable:
    """A table of ugriz magnitudes; `told`: whether its rows tell kinds apart."""
    wavelengths = columns.pop("wavelengths", FilterSet.named("sdss").wavelengths)
    mag = _clean(raw)
    known = np.broadcast_to(np.asarray(known, np.int8), len(mag)).copy()
    z = np.asarray(redshift, np.float32)
    z = np.where((known != Kind.STAR) & (z > 0.0005), z, np.nan).astype(np.float32)
    error = columns.pop("error", None)
    if error is not None:
        error = np.where((error > 0) & (error < 5), error, np.nan)
    photometry = table_photometry(wavelengths, mag, error, **columns)
    kind = known if told else np.full(len(mag), _UNKNOWN, np.int8)
    return SpectroscopicTable(name, photometry, kind, known, z, split_rows(raw))


def _clean(mag: Any) -> NDArray[np.float64]:
    values = np.asarray(mag, np.float64)
    with np.errstate(invalid="ignore"):
        return np.where((values > 5) & (values < 35), values, np.nan)


def _stack(table: dict[str, NDArray[Any]], pattern: str, bands: str = _BANDS) -> NDArray[np.float64]:
    return np.stack([np.asarray(table[pattern.format(b)], np.float64) for b in bands], 1)


_CLASSES = {"STAR": Kind.STAR, "GALAXY": Kind.GALAXY, "QSO": Kind.QUASAR}


def _classes(values: Any) -> NDArray[np.int8]:
    return np.array([_CLASSES[str(v)] for v in values], np.int8)


def _sdss17(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "sdss17_ugriz_class_z.parquet")
    return _make("sdss17", _stack(t, "{}"), t["redshift"], _classes(t["class"]), told=True)


def _dr7(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "sdss_dr7_psf_petro_class_z.parquet")
    with np.errstate(invalid="ignore"):
        size = np.log(np.maximum(np.asarray(t["petroRad_r"], float), 0.01))
    return _make(
        "dr7", _stack(t, "petroMag_{}"), t["Redshift"], _classes(t["class"]), told=True,
        psf=_clean(_stack(t, "psfMag_{}")), extra={"log_petrosian": size},
    )  # fmt: skip


def _dr10(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "sdss_dr10_star_galaxy_psf_model_petro_r.parquet")
    r50, r90 = (np.asarray(t[f"petroR{k}_r"], float) for k in (50, 90))
    good = (r50 > 0) & (r90 > 0)
    half, outer = np.where(good, r50, np.nan), np.where(good, r90, np.nan)
    return _make(
        "dr10", np.asarray(t["modelMag_r"], float)[:, None], t["z"], _classes(t["class"]), told=True,
        wavelengths=FilterSet.named("sdss").wavelengths[2:3],
        psf=_clean(t["psfMag_r"])[:, None], aperture=_clean(t["fiberMag_r"])[:, None],
        extra={
            "log_petrosian": np.log(np.maximum(np.asarray(t["petroRad_r"], float), 0.01)),
            "log_r50": np.log(half), "concentration": outer / half,
            "extended": np.arcsinh(2 * (np.maximum(t["lnLExp_r"], t["lnLDeV_r"]) - np.asarray(t["lnLStar_r"], float))),
        },
    )  # fmt: skip


def _quasars(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "sdss_quasars_ugriz_z.parquet")
    return _make("quasars", _stack(t, "{}_mag"), t["z"], Kind.QUASAR, error=_stack(t, "sig_{}_mag"))


def _boss(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "boss_dr10_photoz_train.parquet")
    return _make("boss", _stack(t, "mag_{}"), t["z"], Kind.GALAXY, error=_stack(t, "magerr_{}"))


def _main(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "sdss_main_galaxies_photoz_train.parquet")
    return _make("main", _stack(t, "{}"), t["zs"], Kind.GALAXY, error=_stack(t, "e{}"))


def _ugriz(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "sdss_ugriz_photoz_train.parquet")
    return _make("ugriz", _stack(t, "{}"), t["redshift"], Kind.GALAXY, error=_stack(t, "e{}"))


def _two_slaq(folder: Path) -> SpectroscopicTable:
    t = read_parquet(folder / "2slaq_lrg_photoz.parquet")
    return _make("2slaq", _stack(t, "mag_{}"), t["redshift"], Kind.GALAXY)


def _vvds(folder: Path) -> SpectroscopicTable:
    """Secure redshifts only (flags 3, 4, 23, 24), in B, V, R and I."""
    t = read_parquet(folder / "vvds_wide_photoz.parquet")
    secure = np.isin(np.asarray(t["ds_spectra.ZFLAGS"], float), (3, 4, 23, 24))
    t = {name: values[secure] for name, values in t.items()}
    return _make(
        "vvds", _stack(t, "ds_cfh12k.MAG_AUTO_{}", "BVRI"), t["ds_spectra.Z"], Kind.GALAXY,
        wavelengths=np.array(list(_CFH12K.values())), error=_stack(t, "ds_cfh12k.MAGERR_AUTO_{}", "BVRI"),
    )  # fmt: skip


_READERS = dict(
    zip(TABLES, (_sdss17, _dr7, _dr10, _quasars, _boss, _main, _ugriz, _two_slaq, _vvds), strict=True)
)
