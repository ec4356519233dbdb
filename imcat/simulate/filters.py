"""Filters as weights on the wavelength grid of the template spectra.

Which side is which: a *system* magnitude is what a survey's catalogues and frames hold; it is AB for
every filter set here but SDSS, whose u and z are off by a known constant. `FilterSet.ab_offset` is the
one place of that constant: AB = system + offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.errors import InputError
from imcat.simulate.spectra_file import GRID_STEP, grid_wavelengths, read_spectra
from imcat.surveys.curves import pivot_wavelength, throughput
from imcat.surveys.extinction import band_extinction

__all__ = ["FILTER_RANGE", "SDSS_AB_OFFSET", "FilterSet"]

Float64 = NDArray[np.float64]

#: Å; a filter lies inside, since the stellar templates are measured there.
FILTER_RANGE = (1200.0, 23500.0)
#: AB minus SDSS magnitude of u, g, r, i, z: u_AB = u - 0.04, z_AB = z + 0.02 (SDSS, "SDSS flux calibration
#: and AB magnitudes", https://www.sdss4.org/dr17/algorithms/fluxcal; Bohlin, Gordon & Tremblay 2014).
SDSS_AB_OFFSET = {"u": -0.04, "g": 0.0, "r": 0.0, "i": 0.0, "z": 0.02}

_CSST = ("nuv", "u", "g", "r", "i", "z", "y")
_EDGE = 1e-3  # of the peak: a curve's tail below counts as outside of the band
_LEAST_POINTS = 2


@dataclass(frozen=True, eq=False)
class FilterSet:
    """The bands of a camera.

    Attributes
    ----------
    names : tuple of str
        Bands.
    wavelengths : float64 array, ``[b]``
        Pivot wavelength, Å.
    weights : float64 array, ``[b, grid]``
        Share of each grid point in the mean of f_nu over the band; a row sums to 1.
    ab_offset : float64 array, ``[b]``
        AB minus system magnitude.
    survey : str
        Whose published extinction coefficients hold: ``sdss``, else those of the law are taken.

    Examples
    --------
    >>> FilterSet.named("csst").names
    ('nuv', 'u', 'g', 'r', 'i', 'z', 'y')
    """

    names: tuple[str, ...]
    wavelengths: Float64
    weights: Float64
    ab_offset: Float64
    survey: str = ""

    def __len__(self) -> int:
        return len(self.names)

    @staticmethod
    def named(survey: str) -> FilterSet:
        """The filters of a survey: ``sdss`` or ``csst``.

        Raises
        ------
        InputError
            For another one.
        """
        if survey not in ("sdss", "csst"):
            raise InputError(
                f"no filters of survey {survey!r} are known",
                expected="sdss or csst",
                hint="give the curves of another camera with FilterSet.from_curves",
            )
        return _named(survey)

    @staticmethod
    def from_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> FilterSet:
        """Filters of any camera; their magnitudes are AB.

        Parameters
        ----------
        curves : mapping of str to (wavelength, transmission)
            Å, rising; electrons per photon, on any scale. Outside of the wavelengths nothing passes.

        Raises
        ------
        InputError
            If a curve is no curve, passes nothing, or lies outside of what the templates cover.
        """
        if not curves:
            raise InputError("a filter set without bands", expected="at least one")
        checked = {name: _check_curve(name, *curve) for name, curve in curves.items()}
        return _build(checked, dict.fromkeys(checked, 0.0), "")

    def extinction(self, ebv: ArrayLike) -> Float64:
        """Extinction by dust of the Milky Way, magnitudes.

        One coefficient a band, at its pivot wavelength: good to some 2 % of the extinction in the
        optical, whatever the spectrum.

        Parameters
        ----------
        ebv : float or array, ``[n]``
            E(B-V) on the scale of the 1998 map.

        Returns
        -------
        array, ``[b]`` or ``[n, b]``

        Raises
        ------
        InputError
            If an E(B-V) is negative or not finite.
        """
        value = np.asarray(ebv, np.float64)
        if not np.all(np.isfinite(value) & (value >= 0)):
            raise InputError("an E(B-V) that is negative or not finite", expected="0 or more")
        if not value.any():  # spares the import of the extinction law
            return np.zeros((*value.shape, len(self)))
        return value[..., None] * self._coefficients

    @cached_property
    def _coefficients(self) -> Float64:
        pivots = dict(zip(self.names, map(float, self.wavelengths), strict=True))
        per_band = band_extinction(self.survey, pivots, 1.0)
        return np.array([per_band[name] for name in self.names])

    @cached_property
    def key(self) -> bytes:
        """Equal for filter sets that give the same magnitudes."""
        return self.weights.tobytes() + self.ab_offset.tobytes()


@cache
def _named(survey: str) -> FilterSet:
    if survey == "sdss":
        return _build(read_spectra().curves, SDSS_AB_OFFSET, "sdss")
    curves = {band: throughput("csst", band) for band in _CSST}
    return _build(curves, dict.fromkeys(_CSST, 0.0), "csst")


def _build(
    curves: Mapping[str, tuple[Float64, Float64]], offsets: Mapping[str, float], survey: str
) -> FilterSet:
    return FilterSet(
        names=tuple(curves),
        wavelengths=np.array([pivot_wavelength(*curve) for curve in curves.values()]),
        weights=np.array([_on_grid(*curve) for curve in curves.values()]),
        ab_offset=np.array([offsets[name] for name in curves]),
        survey=survey,
    )


def _on_grid(wavelength: Float64, transmission: Float64) -> Float64:
    """Weights of the grid points, ``[grid]``.

    A photon-counting band averages f_nu with ``T dν/ν``, so with T in logarithmic wavelength: the weight
    of a grid point is the integral of T over its bin, exact for a curve that is linear between its points.
    """
    grid = grid_wavelengths()
    edges = np.append(grid * np.exp(-GRID_STEP / 2), grid[-1] * np.exp(GRID_STEP / 2))
    knots = np.union1d(edges, wavelength)
    values = np.interp(knots, wavelength, transmission, left=0.0, right=0.0)
    steps = np.diff(np.log(knots)) * (values[1:] + values[:-1]) / 2
    total = np.interp(edges, knots, np.concatenate([[0.0], np.cumsum(steps)]))
    weights: Float64 = np.diff(total)
    weights /= weights.sum()
    return weights


def _check_curve(name: str, wavelength: Any, transmission: Any) -> tuple[Float64, Float64]:
    """A user's curve as two arrays, or an error that says what is wrong with it."""
    try:
        x, y = np.asarray(wavelength, np.float64), np.asarray(transmission, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"the curve of band {name!r} is not numeric", expected="wavelength in Å and transmission"
        ) from None
    if x.ndim != 1 or x.shape != y.shape or len(x) < _LEAST_POINTS:
        raise InputError(
            f"the curve of band {name!r} has wavelengths of shape {x.shape} and transmissions of shape {y.shape}",
            expected=f"two arrays of one length, at least {_LEAST_POINTS}",
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"the curve of band {name!r} holds values that are not finite")
    if np.any(np.diff(x) <= 0):
        raise InputError(f"the wavelengths of band {name!r} do not rise", expected="Å, strictly rising")
    if np.any(y < 0):
        raise InputError(
            f"the transmission of band {name!r} falls to {y.min():g}", expected="0 or more everywhere"
        )
    if y.max() == 0:
        raise InputError(
            f"band {name!r} passes no light: its transmission is 0 everywhere",
            hint="leave the band out or give its curve",
        )
    passing = x[y > _EDGE * y.max()]
    low, high = FILTER_RANGE
    if passing[0] < low or passing[-1] > high:
        raise InputError(
            f"band {name!r} reaches from {passing[0]:g} to {passing[-1]:g} Å, outside of the template spectra",
            expected=f"{low:g} to {high:g} Å",
            hint="check that its wavelengths are in Å",
        )
    return x, y
