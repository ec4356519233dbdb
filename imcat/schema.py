"""Every column of a catalogue, declared once.

A declaration gives name, dtype, unit, UCD and description. Columns that exist
once per band are declared with ``{b}`` in their name, aperture columns with
``{d}`` (the diameter in arcsec) too. A `Schema` is the set of concrete columns
for a list of bands and apertures; readers, writers and the documentation look
columns up in it and never take a name apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from imcat.errors import SchemaError

__all__ = ["COLUMNS", "Column", "Schema", "aperture_label"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name : str
        Name, or template with ``{b}`` and ``{d}``.
    dtype : str
        ``int64``, ``int32``, ``float64``, ``float32``, ``bool`` or ``str``.
    unit : str
        In the VOUnit/FITS spelling; empty where there is none.
    ucd : str
        UCD1+; ``{em}`` stands for the band's place in the spectrum.
    description : str
        A sentence for the header.
    required : bool
        Whether every catalogue has it.
    template : str
        The declared name a concrete column came from.
    band : str or None
        The band of a concrete column.
    """

    name: str
    dtype: str
    unit: str
    ucd: str
    description: str
    required: bool = False
    template: str = ""
    band: str | None = None


def _c(name: str, dtype: str, unit: str, ucd: str, description: str, required: bool = False) -> Column:
    return Column(name, dtype, unit, ucd, description, required, template=name)


def _with_error(name: str, unit: str, ucd: str, description: str) -> tuple[Column, Column]:
    """A column of numbers and that of its error."""
    error = _c(f"{name}_err", "float32", unit, f"stat.error;{ucd}", f"Error of {name}, 1 sigma.")
    return _c(name, "float32", unit, ucd, description), error


def _fluxes(name: str, description: str) -> tuple[Column, Column]:
    """A flux and its error."""
    return _with_error(name, "nJy", "phot.flux.density;{em}", description)


def _shape(prefix: str, what: str) -> tuple[Column, ...]:
    """Radius, axis ratio and angle of a fitted profile, with errors."""
    return (
        *_with_error(f"{prefix}_radius", "arcsec", "phys.angSize",
                     f"Half-light radius of the {what}, along the major axis, before the PSF."),
        *_with_error(f"{prefix}_axis_ratio", "", "phys.size.axisRatio", f"Minor over major axis of the {what}."),
        *_with_error(f"{prefix}_angle", "deg", "pos.posAng", f"Major axis of the {what}, east of north, 0 to 180."),
    )  # fmt: skip


_R = True  # every catalogue has it

#: Declarations in the order of the columns in a file.
COLUMNS: tuple[Column, ...] = (
    _c(
        "source_id",
        "int64",
        "",
        "meta.id;meta.main",
        "Identifier: survey, tile and rank in the tile by position.",
        _R,
    ),
    _c("tile", "str", "", "meta.id;obs.field", "Name of the tile.", _R),
    _c("ra", "float64", "deg", "pos.eq.ra;meta.main", "Right ascension (ICRS).", _R),
    _c("dec", "float64", "deg", "pos.eq.dec;meta.main", "Declination (ICRS).", _R),
    _c(
        "ra_err",
        "float32",
        "arcsec",
        "stat.error;pos.eq.ra",
        "Error of the right ascension on the sky, 1 sigma.",
        _R,
    ),
    _c("dec_err", "float32", "arcsec", "stat.error;pos.eq.dec", "Error of the declination, 1 sigma.", _R),
    _c(
        "ra_dec_cov",
        "float32",
        "arcsec2",
        "stat.covariance;pos.eq",
        "Covariance of right ascension (on the sky) and declination.",
    ),
    _c(
        "x",
        "float64",
        "pix",
        "pos.cartesian.x;instr.det",
        "Column in the reference band; 0 is the centre of the first pixel.",
        _R,
    ),
    _c(
        "y",
        "float64",
        "pix",
        "pos.cartesian.y;instr.det",
        "Row in the reference band; 0 is the centre of the first pixel.",
        _R,
    ),
    _c(
        "position_source",
        "str",
        "",
        "meta.note;pos",
        "Where the position comes from: model, psf, windowed or detection.",
        _R,
    ),
    _c("detection_score", "float32", "", "stat.probability;src", "Probability that the source is real.", _R),
    _c(
        "detection_snr",
        "float32",
        "",
        "stat.snr;src",
        "Peak signal-to-noise ratio in the filtered sum of the bands.",
        _R,
    ),
    _c("detector", "str", "", "meta.code;src", "Engine that found the source: threshold or network.", _R),
    _c(
        "parent_id",
        "int64",
        "",
        "meta.id.parent",
        "source_id of the brightest source of the same footprint; its own when alone.",
        _R,
    ),
    _c(
        "is_primary",
        "bool",
        "",
        "meta.code.status",
        "True in the one tile where this patch of sky is counted.",
        _R,
    ),
    _c("flags", "int32", "", "meta.code.qual", "Flag bits of the source (see the table of flags).", _R),
    _c(
        "semi_major",
        "float32",
        "arcsec",
        "phys.angSize.smajAxis",
        "Rms length of the footprint along its major axis, as seen.",
        _R,
    ),
    _c(
        "semi_minor",
        "float32",
        "arcsec",
        "phys.angSize.sminAxis",
        "Rms length of the footprint along its minor axis, as seen.",
        _R,
    ),
    _c("position_angle", "float32", "deg", "pos.posAng", "Major axis, east of north, 0 to 180.", _R),
    _c(
        "half_light_radius",
        "float32",
        "arcsec",
        "phys.angSize;stat.median",
        "Semi-major axis of the ellipse with half of the Kron flux, as seen.",
        _R,
    ),
    _c("kron_radius", "float32", "arcsec", "phys.angSize", "Semi-major axis of the Kron ellipse."),
    _c(
        "motion_offset",
        "float32",
        "arcsec",
        "pos.pm;arith.diff",
        "Shift of a moving source between the first and the last band.",
    ),
    _c("motion_offset_err", "float32", "arcsec", "stat.error;pos.pm", "Error of motion_offset, 1 sigma."),
    _c("{b}_flags", "int32", "", "meta.code.qual;{em}", "Flag bits in {b}.", _R),
    _c(
        "{b}_n_exposures",
        "int32",
        "",
        "meta.number;obs.exposure;{em}",
        "Exposures in {b} that the source lies on.",
        _R,
    ),
    _c("{b}_mjd", "float64", "d", "time.epoch;{em}", "Modified Julian date (TAI) of the observation in {b}."),
    _c(
        "{b}_extinction",
        "float32",
        "mag",
        "phys.absorption.gal;{em}",
        "Galactic extinction in {b}; fluxes are not corrected for it.",
    ),
    _c(
        "{b}_kron_flux",
        "float32",
        "nJy",
        "phot.flux.density;{em}",
        "Flux in the Kron ellipse of the reference band, in {b}.",
        _R,
    ),
    _c(
        "{b}_kron_flux_err",
        "float32",
        "nJy",
        "stat.error;phot.flux.density;{em}",
        "Error of {b}_kron_flux, 1 sigma.",
        _R,
    ),
    _c(
        "{b}_aper_flux_{d}",
        "float32",
        "nJy",
        "phot.flux.density;{em}",
        "Flux in a circle of {d} arcsec diameter, in {b}.",
    ),
    _c(
        "{b}_aper_flux_{d}_err",
        "float32",
        "nJy",
        "stat.error;phot.flux.density;{em}",
        "Error of {b}_aper_flux_{d}, 1 sigma.",
    ),
    *_fluxes(
        "{b}_color_flux", "Flux in a Gaussian aperture matched between the bands' PSFs, for colours, in {b}."
    ),
    *_fluxes("{b}_psf_flux", "PSF flux in {b}."),
    *_fluxes(
        "{b}_model_flux",
        "Flux of the better of exponential and de Vaucouleurs profile of the reference band, in {b}.",
    ),
    *_fluxes(
        "{b}_cmodel_flux",
        "Flux of the best non-negative mix of the exponential and de Vaucouleurs profiles, in {b}.",
    ),
    _c(
        "{b}_fracdev",
        "float32",
        "",
        "stat.fit.param;{em}",
        "Fraction of {b}_cmodel_flux in the de Vaucouleurs profile.",
    ),
    *_fluxes("{b}_petrosian_flux", "Flux within two Petrosian radii of the reference band, in {b}."),
    _c("{b}_psf_chi2", "float32", "", "stat.fit.chi2;{em}", "Chi squared of the point source in {b}."),
    _c(
        "{b}_model_chi2",
        "float32",
        "",
        "stat.fit.chi2;{em}",
        "Chi squared of the profile of {b}_model_flux in {b}, on the same pixels.",
    ),
    _c("{b}_model_pixels", "int32", "pix", "meta.number;{em}", "Pixels of {b} that the fits used."),
    *_fluxes(
        "{b}_fiber_flux", "Flux that a fibre of 3 arcsec would collect in a seeing of 2 arcsec, in {b}."
    ),
    *_fluxes(
        "{b}_fiber2_flux", "Flux that a fibre of 2 arcsec would collect in a seeing of 2 arcsec, in {b}."
    ),
    *_with_error("petrosian_radius", "arcsec", "phys.angSize", "Petrosian radius in the reference band."),
    *_with_error("petrosian_r50", "arcsec", "phys.angSize", "Radius with half of the Petrosian flux."),
    *_with_error("petrosian_r90", "arcsec", "phys.angSize", "Radius with nine tenths of the Petrosian flux."),
    _c(
        "adaptive_xx",
        "float32",
        "arcsec**2",
        "phys.angSize",
        "Adaptive second moment along east, PSF included.",
    ),
    _c("adaptive_xy", "float32", "arcsec**2", "phys.angSize", "Adaptive mixed moment of east and north."),
    _c("adaptive_yy", "float32", "arcsec**2", "phys.angSize", "Adaptive second moment along north."),
    _c(
        "adaptive_size_err",
        "float32",
        "",
        "stat.error;phys.angSize",
        "Relative error of adaptive_xx + adaptive_yy, 1 sigma.",
    ),
    _c(
        "adaptive_e1",
        "float32",
        "",
        "src.ellipticity",
        "Adaptive ellipticity along columns and rows, (xx - yy) / (xx + yy).",
    ),
    _c(
        "adaptive_e2",
        "float32",
        "",
        "src.ellipticity",
        "Adaptive ellipticity along the diagonals, 2 xy / (xx + yy).",
    ),
    _c("adaptive_e_err", "float32", "", "stat.error;src.ellipticity", "Error of either, 1 sigma."),
    _c(
        "adaptive_rho4",
        "float32",
        "",
        "src.morph.param",
        "Mean fourth power of the elliptical radius under the adaptive weight: 2 for a Gaussian.",
    ),
    *_fluxes(
        "{b}_exponential_flux",
        "Flux of the exponential profile whose shape was fitted in the reference band, in {b}.",
    ),
    *_fluxes(
        "{b}_de_vaucouleurs_flux",
        "Flux of the de Vaucouleurs profile whose shape was fitted in the reference band, in {b}.",
    ),
    *_shape("exponential", "exponential profile"),
    *_shape("de_vaucouleurs", "de Vaucouleurs profile"),
    _c(
        "model",
        "str",
        "",
        "meta.code;stat.fit",
        "Profile of the model fluxes: exponential or de Vaucouleurs, whichever fits better in the reference band.",
    ),
    *_shape("model", "model"),
    *_with_error("sersic_index", "", "stat.fit.param", "Index of the Sersic profile."),
    *_shape("sersic", "Sersic profile"),
    _c(
        "spread_model",
        "float32",
        "",
        "src.class.starGalaxy",
        "How much more a source wider than the PSF resembles it than the PSF does; 0 for stars, above for galaxies.",
    ),
    _c(
        "spread_model_err",
        "float32",
        "",
        "stat.error;src.class.starGalaxy",
        "Error of spread_model, 1 sigma.",
    ),
    _c(
        "psf_minus_model",
        "float32",
        "mag",
        "phot.mag;arith.diff",
        "PSF minus cModel magnitude in the reference band; 0 for stars, above for galaxies.",
    ),
    _c("p_star", "float32", "", "stat.probability;src.class", "Probability of being a star."),
    _c("p_galaxy", "float32", "", "stat.probability;src.class", "Probability of being a galaxy."),
    _c("p_quasar", "float32", "", "stat.probability;src.class", "Probability of being a quasar."),
    _c("class", "str", "", "src.class", "Most probable class: star, galaxy or quasar."),
    _c(
        "p_lens",
        "float32",
        "",
        "stat.probability;src.class",
        "Probability of being a strong gravitational lens.",
    ),
    _c(
        "z_phot",
        "float32",
        "",
        "src.redshift.phot",
        "Photometric redshift given the more probable of galaxy and quasar.",
    ),
    _c(
        "z_phot_lower",
        "float32",
        "",
        "src.redshift.phot;stat.min",
        "Lower end of the 68 % interval of z_phot.",
    ),
    _c(
        "z_phot_upper",
        "float32",
        "",
        "src.redshift.phot;stat.max",
        "Upper end of the 68 % interval of z_phot.",
    ),
    _c("z_phot_galaxy", "float32", "", "src.redshift.phot", "Median photometric redshift, were it a galaxy."),
    _c(
        "z_phot_galaxy_lower",
        "float32",
        "",
        "src.redshift.phot;stat.min",
        "Lower end of the 68 % interval of z_phot_galaxy.",
    ),
    _c(
        "z_phot_galaxy_upper",
        "float32",
        "",
        "src.redshift.phot;stat.max",
        "Upper end of the 68 % interval of z_phot_galaxy.",
    ),
    _c(
        "z_phot_quasar",
        "float32",
        "",
        "src.redshift.phot",
        "Highest mode of the photometric redshift, were it a quasar.",
    ),
    _c(
        "z_phot_quasar_lower",
        "float32",
        "",
        "src.redshift.phot;stat.min",
        "Lower end of the 68 % interval of z_phot_quasar.",
    ),
    _c(
        "z_phot_quasar_upper",
        "float32",
        "",
        "src.redshift.phot;stat.max",
        "Upper end of the 68 % interval of z_phot_quasar.",
    ),
    *(
        _c(f"class_loglike_{k}", "float32", "", "stat.likelihood;src.class", f"Logarithm of the likelihood of a {k}, whatever the prior; the three likelihoods sum to one.")
        for k in ("star", "galaxy", "quasar")
    ),
    _c("class_set", "str", "", "meta.code.class;src.class", "Classes that are not ruled out, joined by commas: 90 % of the sources of each class have it in their set; empty where the source is like none of them."),
    _c("lens_loglike", "float32", "", "stat.likelihood;src.class", "Logarithm of the likelihood ratio of a strong lens."),
    *(
        _c(f"morph_{m}", "float32", "", "stat.probability;src.morph.type", f"Probability that it looks {text}.")
        for m, text in (
            ("smooth", "smooth"), ("disc", "like a plain disc"), ("spiral", "spiral"), ("barred", "barred"),
            ("edge_on", "like a disc seen edge-on"), ("irregular", "irregular"), ("merging", "merging"),
            ("point_like", "like a point"),
        )
    ),
    *_with_error("morph_bulge_fraction", "", "phot.flux;arith.ratio", "Share of the bulge in the light, seen in the stamp."),
    *_with_error("morph_sersic_index", "", "src.morph.param", "Sersic index of bulge (4) and disc (1) together, by their shares, seen in the stamp."),
    _c("unlike_training", "float32", "", "stat.value;src.class", "Share of the sources of the training's kind that are less unusual: 1 for what the classifier has not met."),
)  # fmt: skip

# Edges in angstrom of the UCD1+ bands em.UV ... em.IR (IVOA UCD1+ list 1.5).
_SPECTRUM: tuple[tuple[float, str], ...] = (
    (2000.0, "em.UV.100-200nm"),
    (3000.0, "em.UV.200-300nm"),
    (4000.0, "em.opt.U"),
    (5000.0, "em.opt.B"),
    (6000.0, "em.opt.V"),
    (7500.0, "em.opt.R"),
    (10000.0, "em.opt.I"),
    (15000.0, "em.IR.J"),
    (20000.0, "em.IR.H"),
    (30000.0, "em.IR.K"),
)


def _place_in_spectrum(wavelength: float | None) -> str:
    if wavelength is None:
        return "em"
    for edge, name in _SPECTRUM:
        if wavelength < edge:
            return name
    return "em.IR"


def aperture_label(diameter: float) -> str:
    """The ``{d}`` of an aperture column: ``3`` for 3.0, ``7p43`` for 7.43 arcsec.

    Raises
    ------
    SchemaError
        If the diameter is not positive.
    """
    if not diameter > 0:
        raise SchemaError(f"an aperture of {diameter} arcsec is impossible; expected a positive diameter")
    return f"{diameter:g}".replace(".", "p")


class Schema:
    """The columns that a catalogue with given bands may have, in order.

    Parameters
    ----------
    bands : dict or sequence of str
        Names of the bands; as a dictionary with their effective wavelengths in Å.
    apertures : sequence of float
        Diameters of the circular apertures, arcsec.
    """

    def __init__(self, bands: dict[str, float] | Sequence[str], apertures: Iterable[float] = (3.0,)) -> None:
        wavelengths = dict(bands) if isinstance(bands, dict) else dict.fromkeys(bands)
        self.bands: tuple[str, ...] = tuple(wavelengths)
        self.apertures: tuple[float, ...] = tuple(float(d) for d in apertures)
        labels = [aperture_label(d) for d in self.apertures]
        columns: list[Column] = []
        per_band = [c for c in COLUMNS if "{b}" in c.name]
        first = COLUMNS.index(per_band[0])
        for column in COLUMNS[:first]:
            columns.append(column)
        for band, wavelength in wavelengths.items():
            em = _place_in_spectrum(wavelength)
            for column in per_band:
                for label in labels if "{d}" in column.name else [""]:
                    columns.append(_concrete(column, band, label, em))
        columns += [c for c in COLUMNS[first:] if "{b}" not in c.name]
        self._columns = {column.name: column for column in columns}

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Column:
        try:
            return self._columns[name]
        except KeyError:
            raise SchemaError(f"no column {name!r} in the schema") from None

    def __iter__(self) -> Iterator[Column]:
        return iter(self._columns.values())

    def __len__(self) -> int:
        return len(self._columns)

    def names(self, template: str | None = None) -> list[str]:
        """Names of all columns, or of those declared with a template, in order.

        Examples
        --------
        >>> Schema(["g", "r"]).names("{b}_kron_flux")
        ['g_kron_flux', 'r_kron_flux']
        """
        return [c.name for c in self if template is None or c.template == template]

    @property
    def required(self) -> list[str]:
        """Names of the columns that every catalogue has."""
        return [c.name for c in self if c.required]


def _concrete(column: Column, band: str, label: str, em: str) -> Column:
    def fill(text: str) -> str:
        return text.replace("{b}", band).replace("{d}", label).replace("{em}", em)

    # The diameter as a number; inside the name of another column it stays a label.
    diameter = label.replace("p", ".")
    description = fill(column.description.replace("{d} arcsec", f"{diameter} arcsec"))
    required = column.required or (label == "3" and "{d}" in column.name)
    return replace(
        column,
        name=fill(column.name),
        ucd=fill(column.ucd),
        description=description,
        required=required,
        band=band,
    )
