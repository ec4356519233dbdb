"""What the classifier knows of a source's photometry: any bands, any of several kinds of magnitude, anything missing.

A band has up to three magnitudes (total, PSF, aperture), each with its error. The total is the most complete flux that is
there: of the composite model, else of the better model, else Kron's, else what a table calls the magnitude. A source has,
besides, sizes and the like. What is missing is NaN here, and a zero with a flag beside it in the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX

__all__ = ["GLOBALS", "SHARP", "Photometry", "catalogue_photometry", "soft_magnitude", "table_photometry"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Numbers that describe a source beside those of its bands, in order.
GLOBALS = (
    "log_half_light",  # of the half-light radius as seen, arcsec
    "axis_ratio",  # minor over major axis as seen
    "log_psf",  # of the PSF's FWHM in the reference band, arcsec
    "log_petrosian",  # of the Petrosian radius, arcsec
    "log_r50",  # of the radius of half the Petrosian flux, arcsec
    "concentration",  # R90 over R50
    "spread",  # spread-model over its error, compressed
    "extended",  # chi² by which a galaxy is better than a point, compressed
    "log_radius",  # of the model, arcsec
    "fracdev",  # share of the de Vaucouleurs profile in the reference band
)
#: Arcsec of the PSF's FWHM below which images are sharp.
SHARP = 0.5
_TOTALS = ("cmodel_flux", "model_flux", "kron_flux")


@dataclass(frozen=True, eq=False)
class Photometry:
    """Photometry of n sources in some bands.

    Attributes
    ----------
    wavelength : float64 array ``[bands]``
        Å, effective.
    total, psf, aperture : float32 arrays ``[n, bands]``
        AB magnitudes with the dust of the Milky Way; NaN where there are none. Negative fluxes have a magnitude too
        (`soft_magnitude`).
    total_err, psf_err, aperture_err : float32 arrays ``[n, bands]``
        NaN where unknown.
    extinction : float32 array ``[n, bands]``
        Magnitudes that the Milky Way's dust takes; NaN where unknown.
    extra : float32 array ``[n, len(GLOBALS)]``
        See `GLOBALS`; NaN where there are none.
    """

    wavelength: Float64
    total: Float32
    total_err: Float32
    psf: Float32
    psf_err: Float32
    aperture: Float32
    aperture_err: Float32
    extinction: Float32
    extra: Float32

    def __len__(self) -> int:
        return len(self.total)

    def take(self, rows: NDArray[Any]) -> Photometry:
        """Some of the sources."""
        kept = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "wavelength"}
        return Photometry(wavelength=self.wavelength, **kept)

    def has_shapes(self) -> NDArray[np.bool_]:
        """Whether more than totals is known of each source: PSF or aperture magnitudes, sizes, ``[n]``."""
        sizes = np.delete(self.extra, GLOBALS.index("log_psf"), axis=1)
        return np.asarray(np.isfinite(np.concatenate([self.psf, self.aperture, sizes], axis=1)).any(axis=1))

    def reference_magnitude(self) -> Float64:
        """A magnitude at 6200 Å, by interpolation between the bands that there are; NaN where there is none.

        It stands for r where a prior depends on the magnitude.
        """
        mag = np.asarray(self.total, np.float64)
        order = np.argsort(self.wavelength)
        place = np.log(self.wavelength[order])
        out = np.full(len(mag), np.nan)
        known = np.isfinite(mag[:, order])
        for pattern in np.unique(known, axis=0) if len(mag) else []:
            rows = np.flatnonzero((known == pattern).all(axis=1))
            if pattern.any():
                out[rows] = _interpolate(np.log(6200.0), place[pattern], mag[rows][:, order][:, pattern])
        return out


def _interpolate(at: float, place: Float64, mag: Float64) -> Float64:
    """Linear in `place`, constant beyond its ends."""
    if len(place) == 1 or at <= place[0]:
        return np.asarray(mag[:, 0])
    if at >= place[-1]:
        return np.asarray(mag[:, -1])
    k = int(np.searchsorted(place, at))
    share = (at - place[k - 1]) / (place[k] - place[k - 1])
    return np.asarray((1 - share) * mag[:, k - 1] + share * mag[:, k])


def soft_magnitude(flux: Any, error: Any) -> tuple[Float32, Float32]:
    """Magnitudes that exist for every flux, and their errors.

    ``f`` is replaced by ``(f + sqrt(f² + 4 σ²)) / 2``, which is the flux itself where it is well above its error, the
    error at zero, and falls on below.

    Parameters
    ----------
    flux, error : float arrays
        nJy.
    """
    f, s = np.asarray(flux, np.float64), np.asarray(error, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        root = np.sqrt(f**2 + 4 * s**2)
        # The second form does not cancel where the flux is negative.
        soft = np.where(f >= 0, 0.5 * (f + root), 2 * s**2 / (root - f))
        mag = -2.5 * np.log10(soft / AB_FLUX)
        spread = 1.0857 * s / root
    good = np.isfinite(mag) & (s > 0)
    return np.where(good, mag, np.nan).astype(np.float32), np.where(good, spread, np.nan).astype(np.float32)


def catalogue_photometry(
    columns: Mapping[str, Any],
    bands: Sequence[str],
    wavelengths: Sequence[float],
    reference: str,
    psf_fwhm: float = np.nan,
) -> Photometry:
    """Photometry of a catalogue.

    Parameters
    ----------
    columns : mapping of str to array ``[n]``
        Of the catalogue; those that are absent are taken as not measured.
    bands : sequence of str
        Names.
    wavelengths : sequence of float
        Å.
    reference : str
        The reference band.
    psf_fwhm : float
        Of its PSF, arcsec.
    """
    n = len(next(iter(columns.values())))

    def flux(band: str, kinds: Sequence[str]) -> tuple[Float32, Float32]:
        mag, error = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
        for kind in kinds:
            if f"{band}_{kind}" in columns:
                own, spread = soft_magnitude(
                    columns[f"{band}_{kind}"], columns.get(f"{band}_{kind}_err", np.nan)
                )
                new = np.isnan(mag) & np.isfinite(own)
                mag[new], error[new] = own[new], spread[new]
        return mag, error

    def stack(kinds: Sequence[str]) -> tuple[Float32, Float32]:
        pairs = [flux(band, kinds) for band in bands]
        return np.stack([m for m, _ in pairs], 1), np.stack([e for _, e in pairs], 1)

    # Three arcsec of an image from space are mostly its neighbours.
    kinds = ("color_flux", "aper_flux_3") if psf_fwhm < SHARP else ("aper_flux_3",)
    total, psf, aperture = stack(_TOTALS), stack(("psf_flux",)), stack(kinds)
    dust = np.stack(
        [np.broadcast_to(np.asarray(columns.get(f"{b}_extinction", np.nan), np.float32), n) for b in bands], 1
    )
    return Photometry(
        np.asarray(wavelengths, np.float64),
        *total,
        *psf,
        *aperture,
        dust,
        _extra(columns, n, reference, psf_fwhm),
    )


def table_photometry(
    wavelengths: Sequence[float],
    mag: Any,
    error: Any = None,
    extinction: Any = None,
    psf: Any = None,
    aperture: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> Photometry:
    """Photometry of a table of magnitudes.

    Parameters
    ----------
    wavelengths : sequence of float
        Å.
    mag : float array ``[n, bands]``
        AB, total or of a model; NaN where missing.
    error : float array ``[n, bands]``, optional
        1 sigma.
    extinction : float array ``[n, bands]``, optional
        Of the Milky Way.
    psf, aperture : float array ``[n, bands]``, optional
        PSF magnitudes, and magnitudes in 3 arcsec.
    extra : mapping of str to float array ``[n]``, optional
        Any of `GLOBALS`.
    """
    mag = np.asarray(mag, np.float32)
    missing = np.full(mag.shape, np.nan, np.float32)
    more = np.full((len(mag), len(GLOBALS)), np.nan, np.float32)
    for name, values in (extra or {}).items():
        more[:, GLOBALS.index(name)] = values

    def given(values: Any) -> Float32:
        return (
            missing if values is None else np.where(np.isfinite(mag), np.asarray(values, np.float32), np.nan)
        )

    return Photometry(
        np.asarray(wavelengths, np.float64), mag, given(error), given(psf), missing, given(aperture), missing,
        given(extinction), more,
    )  # fmt: skip


def _extra(columns: Mapping[str, Any], n: int, reference: str, psf_fwhm: float) -> Float32:
    """The columns of `GLOBALS`."""

    def column(name: str) -> Float64:
        return np.broadcast_to(np.asarray(columns.get(name, np.nan), np.float64), n)

    with np.errstate(invalid="ignore", divide="ignore"):
        better = column(f"{reference}_psf_chi2") - column(f"{reference}_model_chi2")
        values = (
            _log(column("half_light_radius")),
            column("semi_minor") / column("semi_major"),
            np.full(n, np.log(psf_fwhm)),
            _log(column("petrosian_radius")),
            _log(column("petrosian_r50")),
            column("petrosian_r90") / column("petrosian_r50"),
            np.arcsinh(column("spread_model") / column("spread_model_err")),
            np.arcsinh(better),
            _log(column("model_radius")),
            column(f"{reference}_fracdev"),
        )
    out = np.stack(values, 1)
    return np.where(np.isfinite(out), out, np.nan).astype(np.float32)


def _log(values: Float64) -> Float64:
    """Logarithm of a length, arcsec; lengths below 0.01 count as that."""
    return np.log(np.maximum(values, 0.01))
