"""Names of SDSS and of SExtractor for exported catalogues.

One table for each convention says, for every exported column, which columns
of imcat it is made of and how. A column whose sources a catalogue lacks is
left out, and so is whatever has no counterpart in the convention.

SDSS (names and units of the table PhotoObj)
    ``objID`` is imcat's ``source_id``. Magnitudes of u, g, r, i, z are asinh
    magnitudes with the survey's softening (Lupton, Gunn & Szalay 1999, AJ 118,
    1406); other bands have the same names with Pogson magnitudes, NaN where the
    flux is not positive. ``deVRad`` and ``expRad`` are half-light radii of the profiles as drawn, 0.89 and 0.98
    of SDSS's; ``kronMag`` stands beside them because SDSS has no Kron magnitude. Fluxes
    are nanomaggies with inverse variances. ``rowc``, ``colc`` are those of the
    reference band, whose pixel centres have the coordinates n + 0.5. Bits of
    ``flags`` are those of SDSS (flags 1 and 2 as one number).

SExtractor (names and units of its manual)
    Pixel coordinates begin with 1. ``FLUX_*`` stay in nJy, ``MAG_*`` are AB, NaN where
    the flux is not positive. Lengths in pixels are there when the catalogue knows
    its pixel scale. ``FLUX_RADIUS`` is the semi-major axis of the ellipse with half of
    the flux. ``*_WORLD`` errors are along right ascension and declination.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX, FieldTable, fields_of, parameters_of
from imcat.catalogue.table import Catalogue
from imcat.errors import UsageError
from imcat.flags import SourceFlag
from imcat.schema import Column, aperture_label

__all__ = ["CONVENTIONS", "Renamed", "asinh_magnitude", "pogson_magnitude", "rename"]

Array = NDArray[Any]

#: Softening b of asinh magnitudes, in maggies (SDSS DR17, algorithms, "magnitudes", table 1).
SDSS_SOFTENING = {"u": 1.4e-10, "g": 0.9e-10, "r": 1.2e-10, "i": 1.8e-10, "z": 7.4e-10}
#: Objects types of SDSS (PhotoType): 3 galaxy, 6 star; a quasar is a point source.
SDSS_TYPES = {"star": 6, "quasar": 6, "galaxy": 3}
#: SDSS flags (OBJECT1 of the photo pipeline, phObjc.h) by imcat's; what is missing has no counterpart.
SDSS_FLAGS = {
    SourceFlag.SATURATED: 0x40000,  # SATUR
    SourceFlag.EDGE: 0x4,  # EDGE
    SourceFlag.BAD_PIXEL: 0x20000,  # INTERP
    SourceFlag.BLENDED: 0x10,  # CHILD
    SourceFlag.OUTSIDE: 0x80000,  # NOTCHECKED
    SourceFlag.TRUNCATED: 0x1000000,  # TOO_LARGE
    SourceFlag.MOVING: 0x80000000,  # MOVED
    SourceFlag.NOT_MEASURED: 0x80,  # NOPROFILE
    SourceFlag.CENTROID_FALLBACK: 0x20,  # PEAKCENTER
    SourceFlag.INTERPOLATED: 0x20000,  # INTERP
    SourceFlag.COSMIC_RAY: 0x1000,  # CR
}
#: SExtractor's FLAGS by imcat's (SExtractor manual, "Flagging").
SEXTRACTOR_FLAGS = {
    SourceFlag.NEIGHBOUR: 1,
    SourceFlag.BLENDED: 2,
    SourceFlag.SATURATED: 4,
    SourceFlag.EDGE: 8,
    SourceFlag.BAD_PIXEL: 16,
    SourceFlag.OUTSIDE: 16,
    SourceFlag.NOT_MEASURED: 16,
    SourceFlag.TRUNCATED: 32,
}
#: A name of an SDSS tile ends in run, camera column and field.
_SDSS_TILE = re.compile(r"(\d+)-(\d)-(\d+)$")
#: nJy of one nanomaggy.
_NANOMAGGY = AB_FLUX * 1e-9
# No standard knows the maggy, but a VOUnit may have a factor (a FITS unit may not, and is left out).
_NANOMAGGY_UNIT = f"{_NANOMAGGY:.0f}nJy"


@dataclass(frozen=True)
class Context:
    """What a transformation may need besides the columns it is given."""

    catalogue: Catalogue
    band: str

    def pixel_scale(self) -> Array | None:
        """Side of a pixel in arcsec of each source's tile; None where one is unknown."""
        meta = self.catalogue.meta
        tiles = meta.get("tiles") or {}
        names, inverse = np.unique(self.catalogue["tile"], return_inverse=True)
        default = meta.get("pixel_scale")
        found = [tiles.get(name, {}).get("pixel_scale", default) for name in names.tolist()]
        if None in found:
            return None
        return np.asarray(np.asarray(found, dtype=float)[inverse])


Transform = Callable[..., Array | None]


@dataclass(frozen=True)
class Renamed:
    """One exported column.

    Attributes
    ----------
    name : str
        New name, with ``{b}`` and ``{d}`` for columns of a band or an aperture, ``{r}`` for
        the reference band.
    sources : tuple of str
        Columns (templates of the schema) that it is made of, all of which must be there.
        The first one gives UCD and band.
    transform : callable
        Takes a `Context` and the source columns and returns the values, or None
        where something is missing.
    unit : str or None
        None: that of the first source.
    dtype : str or None
        None: that of the first source.
    description : str
        Empty: that of the first source.
    ucd : str or None
        None: that of the first source.
    """

    name: str
    sources: tuple[str, ...]
    transform: Transform
    unit: str | None = None
    dtype: str | None = None
    description: str = ""
    ucd: str | None = None


def pogson_magnitude(flux: Array) -> Array:
    """AB magnitude of a flux.

    Parameters
    ----------
    flux : array
        nJy.

    Returns
    -------
    array
        NaN where the flux is not positive.
    """
    return np.asarray(-2.5 * np.log10(np.where(flux > 0, flux, np.nan) / AB_FLUX))


def asinh_magnitude(flux: Array, softening: float) -> Array:
    """Asinh magnitude of a flux (Lupton, Gunn & Szalay 1999, AJ 118, 1406, equation 3).

    Parameters
    ----------
    flux : array
        nJy; any sign.
    softening : float
        b, in maggies.
    """
    maggies = np.asarray(flux, dtype=float) / AB_FLUX
    return np.asarray(-2.5 / np.log(10) * (np.arcsinh(maggies / (2 * softening)) + np.log(softening)))


def _same(_: Context, values: Array) -> Array:
    return values


def _plus(offset: float) -> Transform:
    return lambda _, values: values + offset


def _number(context: Context, _: Array) -> Array:
    return np.arange(1, len(context.catalogue) + 1)


def _mapped_flags(table: Mapping[SourceFlag, int]) -> Transform:
    def transform(_: Context, flags: Array) -> Array:
        mapped = np.zeros(len(flags), dtype=np.int64)
        for bit, target in table.items():
            mapped[(flags & int(bit)) != 0] |= target
        return mapped

    return transform


def _magnitude_asinh(context: Context, flux: Array) -> Array:
    softening = SDSS_SOFTENING.get(context.band)
    return pogson_magnitude(flux) if softening is None else asinh_magnitude(flux, softening)


def _magnitude_asinh_error(context: Context, flux: Array, error: Array) -> Array:
    softening = SDSS_SOFTENING.get(context.band)
    if softening is None:
        return _magnitude_pogson_error(context, flux, error)
    maggies, sigma = np.asarray(flux, dtype=float) / AB_FLUX, np.asarray(error, dtype=float) / AB_FLUX
    return np.asarray(2.5 / np.log(10) * sigma / np.hypot(maggies, 2 * softening))


def _magnitude_pogson(_: Context, flux: Array) -> Array:
    return pogson_magnitude(flux)


def _magnitude_pogson_error(_: Context, flux: Array, error: Array) -> Array:
    return np.asarray(2.5 / np.log(10) * error / np.where(flux > 0, flux, np.nan))


def _nanomaggies(_: Context, flux: Array) -> Array:
    return np.asarray(flux / _NANOMAGGY)


def _inverse_variance(_: Context, error: Array) -> Array:
    sigma = np.asarray(error, dtype=float) / _NANOMAGGY
    return np.asarray(np.where(sigma > 0, sigma, np.inf) ** -2.0)


def _sdss_tile(group: int) -> Transform:
    def transform(context: Context, tiles: Array) -> Array | None:
        names, inverse = np.unique(tiles, return_inverse=True)
        found = [_SDSS_TILE.search(name) for name in names.tolist()]
        if context.catalogue.meta.get("survey") != "sdss" or None in found:
            return None
        return np.array([int(m[group]) for m in found if m], dtype=np.int64)[inverse]

    return transform


def _sdss_type(_: Context, classes: Array) -> Array:
    names, inverse = np.unique(classes, return_inverse=True)
    return np.array([SDSS_TYPES.get(name, 0) for name in names.tolist()], dtype=np.int64)[inverse]


def _sdss_mode(_: Context, primary: Array) -> Array:
    return np.where(primary, 1, 2)


def _pixels(context: Context, arcsec: Array) -> Array | None:
    scale = context.pixel_scale()
    return None if scale is None else np.asarray(arcsec / scale)


def _degrees(_: Context, arcsec: Array) -> Array:
    return np.asarray(arcsec / 3600)


def _square_degrees(_: Context, arcsec: Array) -> Array:
    return np.asarray((np.asarray(arcsec, dtype=float) / 3600) ** 2)


def _covariance_degrees(_: Context, arcsec2: Array) -> Array:
    return np.asarray(np.asarray(arcsec2, dtype=float) / 3600**2)


def _half_turn(_: Context, angle: Array) -> Array:
    # SExtractor's angles run from -90 to 90 degrees.
    return np.asarray((angle + 90) % 180 - 90)


def _ratio(_: Context, a: Array, b: Array) -> Array:
    return np.asarray(a / np.where(b > 0, b, np.nan))


def _ellipticity(_: Context, a: Array, b: Array) -> Array:
    return np.asarray(1 - b / np.where(a > 0, a, np.nan))


def _windowed(offset: float) -> Transform:
    return lambda _, values, source: np.where(source == "windowed", values + offset, np.nan)


def _sdss_photometry() -> Iterator[Renamed]:
    kinds = {
        "psf": "{b}_psf_flux",
        "model": "{b}_model_flux",
        "cModel": "{b}_cmodel_flux",
        "petro": "{b}_petrosian_flux",
        "fiber": "{b}_fiber_flux",
        "fiber2": "{b}_fiber2_flux",
        "deV": "{b}_de_vaucouleurs_flux",
        "exp": "{b}_exponential_flux",
        "kron": "{b}_kron_flux",
    }
    for kind, flux in kinds.items():
        error = f"{flux}_err"
        name = f"{kind}Mag_{{b}}"
        yield Renamed(
            name, (flux,), _magnitude_asinh, "mag", "float32", f"Magnitude of {flux}.", "phot.mag;{em}"
        )
        yield Renamed(
            f"{kind}MagErr_{{b}}",
            (flux, error),
            _magnitude_asinh_error,
            "mag",
            "float32",
            f"Error of {name}, 1 sigma.",
            "stat.error;phot.mag;{em}",
        )
        name = f"{kind}Flux_{{b}}"
        yield Renamed(
            name, (flux,), _nanomaggies, _NANOMAGGY_UNIT, "float32", f"{flux} in nanomaggies (3631 nJy)."
        )
        yield Renamed(
            f"{kind}FluxIvar_{{b}}", (error,), _inverse_variance,
            "", "float32", f"Inverse variance of {name}, in nanomaggies to the power of -2.", "stat.weight;{em}",
        )  # fmt: skip


def _sdss_shape(prefix: str, profile: str) -> Iterator[Renamed]:
    """Radius (half-light, as drawn), axis ratio and angle of a profile, with errors."""
    for name, column in (("Rad", "radius"), ("AB", "axis_ratio"), ("Phi", "angle")):
        yield Renamed(f"{prefix}{name}_{{r}}", (f"{profile}_{column}",), _same)
        if column != "angle":
            yield Renamed(f"{prefix}{name}Err_{{r}}", (f"{profile}_{column}_err",), _same)


def _sextractor_photometry() -> Iterator[Renamed]:
    kinds = {
        "AUTO_{b}": "{b}_kron_flux",
        "APER_{d}_{b}": "{b}_aper_flux_{d}",
        "PSF_{b}": "{b}_psf_flux",
        "MODEL_{b}": "{b}_model_flux",
        "PETRO_{b}": "{b}_petrosian_flux",
    }
    for kind, flux in kinds.items():
        error = f"{flux}_err"
        yield Renamed(f"FLUX_{kind}", (flux,), _same)
        yield Renamed(f"FLUXERR_{kind}", (error,), _same, description=f"Error of FLUX_{kind}, 1 sigma.")
        yield Renamed(
            f"MAG_{kind}",
            (flux,),
            _magnitude_pogson,
            "mag",
            "float32",
            f"AB magnitude of FLUX_{kind}.",
            "phot.mag;{em}",
        )
        yield Renamed(
            f"MAGERR_{kind}", (flux, error), _magnitude_pogson_error,
            "mag", "float32", f"Error of MAG_{kind}, 1 sigma.", "stat.error;phot.mag;{em}",
        )  # fmt: skip


SDSS: tuple[Renamed, ...] = (
    Renamed("objID", ("source_id",), _same),
    Renamed("parentID", ("parent_id",), _same),
    Renamed("run", ("tile",), _sdss_tile(1), "", "int32", "Run number.", "meta.id;obs.sequence"),
    Renamed("camcol", ("tile",), _sdss_tile(2), "", "int32", "Camera column.", "meta.id;instr.det"),
    Renamed("field", ("tile",), _sdss_tile(3), "", "int32", "Field number.", "meta.id;obs.field"),
    Renamed("mode", ("is_primary",), _sdss_mode, "", "int32", "1: primary, 2: secondary."),
    Renamed("type", ("class",), _sdss_type, "", "int32", "0: unknown, 3: galaxy, 6: star or quasar."),
    Renamed("ra", ("ra",), _same),
    Renamed("dec", ("dec",), _same),
    Renamed("raErr", ("ra_err",), _same),
    Renamed("decErr", ("dec_err",), _same),
    Renamed(
        "rowc",
        ("y",),
        _plus(0.5),
        description="Row in the reference band; 0.5 is the centre of the first pixel.",
    ),
    Renamed(
        "colc",
        ("x",),
        _plus(0.5),
        description="Column in the reference band; 0.5 is the centre of the first pixel.",
    ),
    Renamed("flags", ("flags",), _mapped_flags(SDSS_FLAGS), "", "int64", "Bits of SDSS (PhotoFlags)."),
    Renamed(
        "flags_{b}",
        ("{b}_flags",),
        _mapped_flags(SDSS_FLAGS),
        "",
        "int64",
        "Bits of SDSS (PhotoFlags) in {b}.",
    ),
    *_sdss_photometry(),
    Renamed("extinction_{b}", ("{b}_extinction",), _same),
    Renamed("fracDeV_{b}", ("{b}_fracdev",), _same),
    Renamed("petroRad_{r}", ("petrosian_radius",), _same),
    Renamed("petroRadErr_{r}", ("petrosian_radius_err",), _same),
    Renamed("petroR50_{r}", ("petrosian_r50",), _same),
    Renamed("petroR50Err_{r}", ("petrosian_r50_err",), _same),
    Renamed("petroR90_{r}", ("petrosian_r90",), _same),
    Renamed("petroR90Err_{r}", ("petrosian_r90_err",), _same),
    *_sdss_shape("deV", "de_vaucouleurs"),
    *_sdss_shape("exp", "exponential"),
    Renamed("mE1_{r}", ("adaptive_e1",), _same),
    Renamed("mE2_{r}", ("adaptive_e2",), _same),
    Renamed("mCr4_{r}", ("adaptive_rho4",), _same),
    Renamed("mjd_{b}", ("{b}_mjd",), _same),
)

SEXTRACTOR: tuple[Renamed, ...] = (
    Renamed("NUMBER", ("source_id",), _number, "", "int32", "Running number.", "meta.record"),
    Renamed("X_IMAGE", ("x",), _plus(1), description="Column in the reference band; 1 is the centre of the first pixel."),
    Renamed("Y_IMAGE", ("y",), _plus(1), description="Row in the reference band; 1 is the centre of the first pixel."),
    Renamed("XWIN_IMAGE", ("x", "position_source"), _windowed(1), description="X_IMAGE where it is a windowed centroid."),
    Renamed("YWIN_IMAGE", ("y", "position_source"), _windowed(1), description="Y_IMAGE where it is a windowed centroid."),
    Renamed("ALPHA_J2000", ("ra",), _same),
    Renamed("DELTA_J2000", ("dec",), _same),
    Renamed("ERRX2_WORLD", ("ra_err",), _square_degrees, "deg**2", "float64", "Variance of the right ascension on the sky.", "stat.variance;pos.eq.ra"),
    Renamed("ERRY2_WORLD", ("dec_err",), _square_degrees, "deg**2", "float64", "Variance of the declination.", "stat.variance;pos.eq.dec"),
    Renamed("ERRXY_WORLD", ("ra_dec_cov",), _covariance_degrees, "deg**2", "float64"),
    Renamed("A_IMAGE", ("semi_major",), _pixels, "pix"),
    Renamed("B_IMAGE", ("semi_minor",), _pixels, "pix"),
    Renamed("A_WORLD", ("semi_major",), _degrees, "deg"),
    Renamed("B_WORLD", ("semi_minor",), _degrees, "deg"),
    Renamed("THETA_SKY", ("position_angle",), _half_turn, description="Major axis, east of north, -90 to 90."),
    Renamed("THETA_J2000", ("position_angle",), _half_turn, description="Major axis, east of north, -90 to 90."),
    Renamed("ELONGATION", ("semi_major", "semi_minor"), _ratio, "", None, "A_IMAGE / B_IMAGE.", "src.ellipticity"),
    Renamed("ELLIPTICITY", ("semi_major", "semi_minor"), _ellipticity, "", None, "1 - B_IMAGE / A_IMAGE.", "src.ellipticity"),
    Renamed("KRON_RADIUS", ("kron_radius", "semi_major"), _ratio, "", None, "Kron radius in units of A_IMAGE.", "phys.angSize"),
    Renamed("FLUX_RADIUS", ("half_light_radius",), _pixels, "pix"),
    Renamed("FLAGS", ("flags",), _mapped_flags(SEXTRACTOR_FLAGS), "", "int32", "Bits of SExtractor: 1 neighbours, 2 blended, 4 saturated, 8 at the edge, 16 and 32 incomplete data."),
    Renamed("FLAGS_{b}", ("{b}_flags",), _mapped_flags(SEXTRACTOR_FLAGS), "", "int32", "Bits of SExtractor in {b}."),
    Renamed("CLASS_STAR", ("p_star",), _same),
    *_sextractor_photometry(),
    Renamed("SOURCE_ID", ("source_id",), _same),
)  # fmt: skip

#: Names on export; ``imcat`` are the catalogue's own.
CONVENTIONS: dict[str, tuple[Renamed, ...] | None] = {"imcat": None, "sdss": SDSS, "sextractor": SEXTRACTOR}


def rename(catalogue: Catalogue, names: str) -> FieldTable:
    """A catalogue under the names of a convention.

    Parameters
    ----------
    catalogue : Catalogue
        What to rename.
    names : str
        A key of `CONVENTIONS`.

    Raises
    ------
    UsageError
        If there is no such convention.
    """
    if names not in CONVENTIONS:
        raise UsageError(f"no convention of names {names!r}; expected one of {', '.join(CONVENTIONS)}")
    table = CONVENTIONS[names]
    if table is None:
        return fields_of(catalogue)
    columns: dict[str, Array] = {}
    fields: list[Column] = []
    for renamed in table:
        for field, values in _exported(catalogue, renamed):
            columns[field.name] = values
            fields.append(field)
    return FieldTable(columns, tuple(fields), parameters_of(catalogue.meta))


def _exported(catalogue: Catalogue, renamed: Renamed) -> Iterator[tuple[Column, Array]]:
    for band in catalogue.schema.bands if "{b}" in renamed.sources[0] else ("",):
        for diameter in catalogue.schema.apertures if "{d}" in renamed.sources[0] else (None,):
            label = "" if diameter is None else aperture_label(diameter)
            fill = _filler(band, label, str(catalogue.meta.get("reference", "")))
            sources = [fill(source) for source in renamed.sources]
            if not all(source in catalogue for source in sources):
                continue
            values = renamed.transform(Context(catalogue, band), *(catalogue[s] for s in sources))
            if values is None:
                continue
            field = _declare(catalogue.schema[sources[0]], renamed, fill)
            yield field, values.astype(field.dtype, copy=False)


def _filler(band: str, label: str, reference: str) -> Callable[[str], str]:
    places = {"{b}": band, "{d}": label, "{r}": reference}

    def fill(text: str) -> str:
        for place, value in places.items():
            text = text.replace(place, value)
        return text.rstrip("_")

    return fill


def _declare(source: Column, renamed: Renamed, fill: Callable[[str], str]) -> Column:
    # The place in the spectrum is the last word of a band column's UCD.
    spectrum = source.ucd.rsplit(";", 1)[-1]
    ucd = source.ucd if renamed.ucd is None else renamed.ucd.replace("{em}", spectrum)
    return replace(
        source,
        name=fill(renamed.name),
        dtype=renamed.dtype or source.dtype,
        unit=source.unit if renamed.unit is None else renamed.unit,
        ucd=ucd,
        description=fill(renamed.description) or source.description,
    )
