"""The real tables that populations are fitted to, each with what its magnitudes are taken for.

All magnitudes that leave this module are SDSS u, g, r, i, z without the dust of the Milky Way, NaN
where the table says that a value is missing; errors are 1 sigma. Nothing is copied: files are read
where ``IMCAT_DATA`` points.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import imcat
from imcat.errors import InputError
from imcat.simulate.split import Split, split_rows
from imcat.surveys.extinction import SDSS_COEFFICIENTS

__all__ = [
    "PointSources",
    "Redshifts",
    "Shapes",
    "catsim",
    "data_folder",
    "point_sources",
    "quasars",
    "read_parquet",
    "redshifts",
    "shapes",
    "spectroscopic_stars",
    "training",
]

Float64 = NDArray[np.float64]
_BANDS = "ugriz"
_COEFFICIENTS = np.array([SDSS_COEFFICIENTS[b] for b in _BANDS])
# Errors of zero points and PSF that no table lists (Ivezić et al. 2004, AN 325, 583), mag. They do not go into those
# of stars: what they add to the width of the locus stays in it, as images of a simulated sky have none of them.
_FLOOR = 0.01


@dataclass(frozen=True, eq=False)
class PointSources:
    """Unresolved sources of one field.

    Attributes
    ----------
    name : str
        The table.
    mag, error : float64 arrays, ``[n, 5]``
        PSF magnitudes; NaN where missing.
    split : int8 array, ``[n]``
        `Split`.
    area : float
        Square degrees.
    latitude, longitude : float
        Galactic, degrees.
    complete : (float, float)
        Range in r in which every star of the area is in the table.
    """

    name: str
    mag: Float64
    error: Float64
    split: NDArray[np.int8]
    area: float
    latitude: float
    longitude: float
    complete: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Shapes:
    """Resolved sources of one field.

    Attributes
    ----------
    name : str
        The table.
    mag, error : float64 arrays, ``[n, 5]``
        Magnitudes of the composite model; NaN where missing.
    split : int8 array, ``[n]``
        `Split`.
    bulge_fraction : float64 array, ``[n]``
        Share of the de Vaucouleurs profile in r.
    bulge_radius, disc_radius : float64 arrays, ``[n]``
        Half-light radius along the major axis of the de Vaucouleurs and of the exponential fit, arcsec.
    bulge_axis_ratio, disc_axis_ratio : float64 arrays, ``[n]``
        Of these fits.
    area : float
        Square degrees.
    complete : (float, float)
        Range in r in which every galaxy of the area is in the table.
    measured : float
        Faintest r at which shapes are more than noise.
    """

    name: str
    mag: Float64
    error: Float64
    split: NDArray[np.int8]
    bulge_fraction: Float64
    bulge_radius: Float64
    disc_radius: Float64
    bulge_axis_ratio: Float64
    disc_axis_ratio: Float64
    area: float
    complete: tuple[float, float]
    measured: float


@dataclass(frozen=True, eq=False)
class Redshifts:
    """Sources with a redshift.

    Attributes
    ----------
    name : str
        The table.
    mag, error : float64 arrays, ``[n, 5]``
        NaN where missing.
    redshift : float64 array, ``[n]``
        From spectra.
    split : int8 array, ``[n]``
        `Split`.
    """

    name: str
    mag: Float64
    error: Float64
    redshift: Float64
    split: NDArray[np.int8]


def data_folder() -> Path:
    """The folder of real data.

    Raises
    ------
    InputError
        If it is not there.
    """
    named = os.environ.get("IMCAT_DATA")
    folder = Path(named) if named else Path(imcat.__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "populations").is_dir():
        raise InputError(
            "there is no folder of population tables",
            path=folder,
            expected="a folder with populations/ and sdss/catalogues/",
            hint="set IMCAT_DATA",
        )
    return folder


# Stripe 82 coadds list magnitudes with dust and no E(B-V). These are the values that bring the stars of
# each table onto the locus of calibObj-004510-4 (see population_fit_stars.fit_reddening).
_COADDS = {"coadd_94_1_12.fits": 0.028, "coadd_for_3325_5_110.fit": 0.021, "coadd_for_4263_5_119.fit": 0.028}
_SCAN_FIELD = (2048 * 1361) * (0.396 / 3600) ** 2  # primary part of a field, deg²


def point_sources(folder: Path) -> list[PointSources]:
    """Unresolved sources: SDSS PSF magnitudes.

    ``calibObj-004510-4-star``: a scan at galactic latitude 79°, fluxes in nanomaggies with inverse
    variances and extinction. ``photoObj-003900-6-0269``: PSFMAG and EXTINCTION, survey-primary objects.
    ``coadd_*``: ``psfmag``, with dust, no errors; those of Annis et al. (2014, ApJ 794, 120) are 1 % at r = 20
    and 10 % at r = 23.5 and are taken from there; complete to i = 22.
    """
    out = []
    table = _fits(folder / "sdss/catalogues/calibObj-004510-4-star.fits.gz")
    with np.errstate(all="ignore"):
        flux, ivar = _floats(table["PSFFLUX"]), _floats(table["PSFFLUX_IVAR"])
        mag = np.where((flux > 0) & (ivar > 0), 22.5 - 2.5 * np.log10(flux), np.nan)
        error = 1.0857 / (flux * np.sqrt(ivar))
    fields = len(np.unique(table["FIELD"]))
    out.append(
        PointSources(
            "calibObj-004510-4", mag - table["EXTINCTION"], error, split_rows(mag), fields * _SCAN_FIELD,
            *_galactic(table["RA"], table["DEC"]), (14.5, 20.5),
        )
    )  # fmt: skip
    table = _fits(folder / "sdss/catalogues/photoObj-003900-6-0269.fits")
    star = (table["OBJC_TYPE"] == 6) & (table["MODE"] == 1)
    mag, error = _masked(table["PSFMAG"][star], table["PSFMAGERR"][star])
    out.append(
        PointSources(
            "photoObj-003900-6-0269", mag - table["EXTINCTION"][star], error, split_rows(mag),
            _SCAN_FIELD, *_galactic(table["RA"], table["DEC"]), (14.5, 20.5),
        )
    )  # fmt: skip
    for name, ebv in _COADDS.items():
        table, unique = _coadd(folder / "sdss/catalogues" / name)
        star = unique & (table["probpsf"] > 0.5) & (table["is_saturated"] == 0)
        mag, error = _masked(np.stack([table[f"psfmag_{b}"] for b in _BANDS], 1)[star], None)
        out.append(
            PointSources(
                name.partition(".")[0], mag - ebv * _COEFFICIENTS, _coadd_error(mag), split_rows(mag),
                _coadd_area(table), *_galactic(table["ra"], table["dec"]), (16.0, 21.5),
            )
        )  # fmt: skip
    return out


def shapes(folder: Path) -> list[Shapes]:
    """Resolved sources: SDSS composite-model magnitudes with profiles in r.

    ``photoObj-003900-6-0269``: total fluxes are CMODEL in r, colours are MODEL. ``coadd_*``: the two fits
    combined by ``fracdev_r`` in each band.
    """
    out = []
    table = _fits(folder / "sdss/catalogues/photoObj-003900-6-0269.fits")
    g = (table["OBJC_TYPE"] == 3) & (table["MODE"] == 1)
    model, error = _masked(table["MODELMAG"][g], table["MODELMAGERR"][g])
    total, _ = _masked(table["CMODELMAG"][g], table["CMODELMAGERR"][g])
    mag = model + (total[:, 2] - model[:, 2])[:, None] - table["EXTINCTION"][g]
    out.append(
        Shapes(
            name="photoObj-003900-6-0269",
            mag=mag,
            error=np.hypot(error, _FLOOR),
            split=split_rows(model),
            bulge_fraction=_floats(table["FRACDEV"][g][:, 2]),
            bulge_radius=_floats(table["THETA_DEV"][g][:, 2]),
            disc_radius=_floats(table["THETA_EXP"][g][:, 2]),
            bulge_axis_ratio=_floats(table["AB_DEV"][g][:, 2]),
            disc_axis_ratio=_floats(table["AB_EXP"][g][:, 2]),
            area=_SCAN_FIELD,
            complete=(16.0, 21.0),
            measured=20.5,
        )
    )
    for name, ebv in _COADDS.items():
        table, unique = _coadd(folder / "sdss/catalogues" / name)
        g = unique & (table["probpsf"] < 0.5) & (table["is_saturated"] == 0)
        dev, _ = _masked(np.stack([table[f"devmag_{b}"] for b in _BANDS], 1)[g], None)
        exp, _ = _masked(np.stack([table[f"expmag_{b}"] for b in _BANDS], 1)[g], None)
        share = np.clip(_floats(table["fracdev_r"][g]), 0, 1)
        with np.errstate(invalid="ignore"):
            observed = -2.5 * np.log10(
                share[:, None] * 10 ** (-0.4 * dev) + (1 - share[:, None]) * 10 ** (-0.4 * exp)
            )
        out.append(
            Shapes(
                name=name.partition(".")[0],
                mag=observed - ebv * _COEFFICIENTS,
                error=np.hypot(_coadd_error(observed) * 1.5, _FLOOR),
                split=split_rows(observed),
                bulge_fraction=share,
                bulge_radius=_floats(table["devrad_r"][g]),
                disc_radius=_floats(table["exprad_r"][g]),
                bulge_axis_ratio=_floats(table["devab_r"][g]),
                disc_axis_ratio=_floats(table["expab_r"][g]),
                area=_coadd_area(table),
                complete=(16.0, 21.7),
                measured=22.0,
            )
        )
    return out


#: Mean E(B-V) of the SDSS footprint (Schlegel et al. 1998 map, |b| > 30°): what tables with dust and without
#: E(B-V) are corrected for.
_MEAN_EBV = 0.03


def redshifts(folder: Path) -> list[Redshifts]:
    """Galaxies with spectroscopic redshifts.

    ``sdss_main_galaxies`` and ``sdss_ugriz_photoz_train``: model magnitudes without dust (main sample, and
    with luminous red galaxies). ``boss_dr10``, ``2slaq``: model magnitudes without dust. ``sdss17`` and
    ``sdss_dr7`` (Petrosian): as observed; corrected for the mean dust of the footprint. ``vvds_wide``: CFH12K
    BVRI (AB); g, r, i by interpolation in the logarithm of wavelength, flags 3, 4, 23, 24 (secure).
    """
    p = folder / "populations"
    out = []
    t = read_parquet(p / "sdss_main_galaxies_photoz_train.parquet")
    mag = np.stack([t[b] for b in _BANDS], 1)
    out.append(_redshift("main", mag, np.stack([t["e" + b] for b in _BANDS], 1), t["zs"]))
    t = read_parquet(p / "sdss_ugriz_photoz_train.parquet")
    mag = np.stack([t[b] for b in _BANDS], 1)
    out.append(_redshift("ugriz", mag, np.stack([t["e" + b] for b in _BANDS], 1), t["redshift"]))
    t = read_parquet(p / "boss_dr10_photoz_train.parquet")
    mag = np.stack([t["mag_" + b] for b in _BANDS], 1)
    out.append(_redshift("boss", mag, np.stack([t["magerr_" + b] for b in _BANDS], 1), t["z"]))
    t = read_parquet(p / "2slaq_lrg_photoz.parquet")
    mag = np.stack([t["mag_" + b] for b in _BANDS], 1)
    out.append(_redshift("2slaq", mag, None, t["redshift"]))
    t = read_parquet(p / "sdss17_ugriz_class_z.parquet")
    galaxy = t["class"] == "GALAXY"
    mag = np.stack([t[b][galaxy] for b in _BANDS], 1)
    out.append(_redshift("sdss17", mag, None, t["redshift"][galaxy], _MEAN_EBV))
    t = read_parquet(p / "sdss_dr7_psf_petro_class_z.parquet")
    galaxy = t["class"] == "GALAXY"
    mag = np.stack([t["petroMag_" + b][galaxy] for b in _BANDS], 1)
    out.append(_redshift("dr7", mag, None, t["Redshift"][galaxy], _MEAN_EBV))
    t = read_parquet(p / "vvds_wide_photoz.parquet")
    names = {c.rpartition("_")[2]: c for c in t if c.startswith("ds_cfh12k.MAG_AUTO")}
    bvri, _ = _masked(np.stack([t[names[b]] for b in "BVRI"], 1), None)
    out.append(_redshift("vvds", _sdss_from_bvri(bvri), None, t["ds_spectra.Z"]))
    return out


def quasars(folder: Path) -> list[Redshifts]:
    """Quasars: PSF magnitudes as observed, corrected for the mean dust of the footprint."""
    p = folder / "populations"
    t = read_parquet(p / "sdss_quasars_ugriz_z.parquet")
    mag = np.stack([t[f"{b}_mag"] for b in _BANDS], 1)
    error = np.stack([t[f"sig_{b}_mag"] for b in _BANDS], 1)
    first = _redshift("sdss_quasars", mag, error, t["z"], _MEAN_EBV, least=0.05)
    t = read_parquet(p / "sdss17_ugriz_class_z.parquet")
    quasar = t["class"] == "QSO"
    mag = np.stack([t[b][quasar] for b in _BANDS], 1)
    return [first, _redshift("sdss17", mag, None, t["redshift"][quasar], _MEAN_EBV, least=0.05)]


def spectroscopic_stars(folder: Path) -> Float64:
    """Stars with spectra: PSF magnitudes in u, g, r, i, z, train rows, mean dust taken off."""
    t = read_parquet(folder / "populations/sdss17_ugriz_class_z.parquet")
    raw = np.stack([t[b][t["class"] == "STAR"] for b in _BANDS], 1)
    return (_masked(raw, None)[0] - _MEAN_EBV * _COEFFICIENTS)[training(split_rows(raw))]


def catsim(folder: Path) -> tuple[Float64, Float64]:
    """Simulated galaxies of CatSim, for magnitudes that no real table reaches: ugriz (AB) and redshift."""
    t = _fits(folder / "populations/lsst_catsim_galaxies.fits")
    return np.stack([_floats(t[f"{b}_ab"]) for b in _BANDS], 1), _floats(t["redshift"])


# Effective wavelengths in Å of CFH12K B, V, R, I (Le Fèvre et al. 2004, A&A 417, 839) and SDSS g, r, i.
_CFH12K = np.log([4390.0, 5385.0, 6555.0, 8145.0])
_SDSS_GRI = np.log([4702.0, 6175.0, 7489.0])


def _sdss_from_bvri(mag: Float64) -> Float64:
    """SDSS magnitudes by interpolation in the logarithm of wavelength; u and z are NaN."""
    out = np.full((len(mag), 5), np.nan)
    for k, at in enumerate(_SDSS_GRI):
        j = int(np.clip(np.searchsorted(_CFH12K, at) - 1, 0, 2))
        share = (at - _CFH12K[j]) / (_CFH12K[j + 1] - _CFH12K[j])
        out[:, k + 1] = (1 - share) * mag[:, j] + share * mag[:, j + 1]
    return out


def _redshift(
    name: str, mag: Any, error: Any, redshift: Any, ebv: float = 0.0, least: float = 0.002
) -> Redshifts:
    raw = np.asarray(mag, np.float64)
    clean, clean_error = _masked(raw, error)
    if error is None:
        clean_error = _scan_error(clean)
    z = np.asarray(redshift, np.float64)
    use = np.isfinite(z) & (z > least) & np.isfinite(clean[:, 2])
    return Redshifts(
        name,
        (clean - ebv * _COEFFICIENTS)[use],
        np.hypot(clean_error, _FLOOR)[use],
        z[use],
        split_rows(raw)[use],
    )


def _masked(mag: Any, error: Any) -> tuple[Float64, Float64]:
    """Magnitudes and errors with NaN for what is no magnitude.

    The tables mark missing values with -9999, -666, 0 and ±99.9; a magnitude outside 5 to 30 or with an
    error above 10 (or one that is not positive) is none either.
    """
    mag = np.asarray(mag, np.float64)
    error = np.full(mag.shape, 0.02) if error is None else np.asarray(error, np.float64)
    with np.errstate(invalid="ignore"):
        good = (mag > 5) & (mag < 30) & (error >= 0) & (error < 10)
    return np.where(good, mag, np.nan), np.where(good, error, np.nan)


# 5 sigma limits for points (0.2 mag error): a single SDSS scan (York et al. 2000, AJ 120, 1579) and the Stripe 82
# coadd (Annis et al. 2014).
_SCAN_LIMIT = np.array([22.3, 23.3, 23.1, 22.3, 20.8])
_COADD_LIMIT = np.array([23.9, 25.1, 24.6, 24.1, 22.8])


def _scan_error(mag: Float64) -> Float64:
    error: Float64 = 0.2 * 10 ** (0.4 * (mag - _SCAN_LIMIT))
    return np.hypot(error, 0.01)


def _coadd_error(mag: Float64) -> Float64:
    error: Float64 = 0.2 * 10 ** (0.4 * (mag - _COADD_LIMIT))
    return error


def _coadd(path: Path) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """A coadd table, and which rows are the first at their position (overlaps of columns repeat sources)."""
    table = _fits(path)
    place = np.round(np.stack([table["ra"], table["dec"]], 1) * 3600 / 0.8).astype(np.int64)
    unique = np.zeros(len(place), bool)
    unique[np.unique(place, axis=0, return_index=True)[1]] = True
    return table, unique


def _coadd_area(table: dict[str, NDArray[Any]]) -> float:
    ra, dec = _floats(table["ra"]), _floats(table["dec"])
    return float(np.ptp(ra) * np.cos(np.deg2rad(dec.mean())) * np.ptp(dec))


def _galactic(ra: Any, dec: Any) -> tuple[float, float]:
    from astropy.coordinates import SkyCoord

    at = SkyCoord(float(np.median(ra)), float(np.median(dec)), unit="deg").galactic
    return float(at.b.deg), float(at.l.deg)


def _fits(path: Path) -> dict[str, NDArray[Any]]:
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        return {name: np.array(file[1].data[name]) for name in file[1].columns.names}


def read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of a table, as they stand."""
    from pyarrow import parquet

    return {name: column.to_numpy() for name, column in zip(*_columns(parquet.read_table(path)), strict=True)}


def _columns(table: Any) -> tuple[list[str], list[Any]]:
    return table.column_names, table.columns


def training(rows: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which rows may be fitted to."""
    result: NDArray[np.bool_] = rows == Split.TRAIN
    return result


def _floats(values: Any) -> Float64:
    return np.asarray(values, np.float64)
