"""The PSF of an SDSS field, from a ``psField`` file.

PHOTO models the PSF as a sum of eigenimages whose coefficients are polynomials in row and column
(Lupton et al. 2001, ASP Conf. 238, 269; format: https://www.sdss4.org/dr17/imaging/images/#psf).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.surveys.fits_io import FitsFile
from imcat.surveys.sdss_constants import BANDS

__all__ = ["FieldPsf", "double_gaussian_fwhm", "read_field_psf"]

# Rows and columns enter the polynomials in units of 1000 pixels.
_COORDINATE_SCALE = 1e-3
_SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True, eq=False)
class FieldPsf:
    """The PSF of one band of one field.

    Attributes
    ----------
    eigenimages : float64 array, ``[k, y, x]``
        Odd sides, the centre of the PSF in the middle pixel.
    coefficients : float64 array, ``[k, i, j]``
        Of row^i column^j, both in units of 1000 pixels.
    """

    eigenimages: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    def image(self, x: float, y: float) -> NDArray[np.float64]:
        """The PSF at a position.

        Parameters
        ----------
        x, y : float
            Pixels; 0 is the centre of the first pixel (SDSS counts from its lower edge: +0.5).

        Returns
        -------
        float64 array, ``[y, x]``
            Sums to 1.
        """
        rows, columns = self.coefficients.shape[1:]
        row = ((y + 0.5) * _COORDINATE_SCALE) ** np.arange(rows)
        column = ((x + 0.5) * _COORDINATE_SCALE) ** np.arange(columns)
        weights = np.einsum("kij,i,j->k", self.coefficients, row, column)
        image = np.einsum("k,kyx->yx", weights, self.eigenimages)
        return np.asarray(image / image.sum())

    def simpler(self) -> FieldPsf | None:
        """The PSF without its last eigenimage, which tells least; None if it has one only."""
        if len(self.eigenimages) == 1:
            return None
        return FieldPsf(self.eigenimages[:-1], self.coefficients[:-1])


def read_field_psf(path: str | Path, band: str) -> FieldPsf:
    """The PSF of a band from a psField file.

    Parameters
    ----------
    path : path
        ``psField-RRRRRR-C-FFFF.fit``.
    band : str
        One of ``u g r i z`` (HDU 1 to 5).

    Raises
    ------
    InputError
        If the file is damaged or holds no PSF of that band.
    """
    index = BANDS.index(band) + 1
    table = FitsFile(path).table(index)
    shapes = np.stack([table.column("RNROW"), table.column("RNCOL")], axis=1)
    orders = np.stack([table.column("NROW_B"), table.column("NCOL_B")], axis=1)
    terms = table.column("C").astype(np.float64)
    sides = tuple(int(v) for v in shapes[0]) if len(table) else (0, 0)
    if (
        not len(table)
        or (shapes != shapes[0]).any()
        or min(sides) < 3
        or max(sides) > 1001
        or terms.ndim != 3
    ):
        raise InputError("the PSF has no eigenimages of one size", path=path, hdu=index)
    eigenimages, coefficients = [], np.zeros_like(terms)
    for row in range(len(table)):
        values = table.array("RROWS", row)
        if values.size != sides[0] * sides[1]:
            raise InputError(f"eigenimage {row} has {values.size} pixels", path=path, hdu=index)
        eigenimages.append(values.reshape(sides))
        i, j = (int(v) for v in orders[row])
        coefficients[row, :i, :j] = terms[row, :i, :j]  # the rest was never set
    psf = FieldPsf(np.array(eigenimages, dtype=np.float64), coefficients)
    with np.errstate(all="ignore"):
        if not np.isfinite(psf.image(1024.0, 744.0)).all():
            raise InputError("the PSF is not finite", path=path, hdu=index)
    return psf


def double_gaussian_fwhm(sigma1: float, sigma2: float, ratio: float) -> float:
    """Full width at half maximum of the sum of two Gaussians.

    Parameters
    ----------
    sigma1, sigma2 : float
        Widths (any unit).
    ratio : float
        Peak of the second relative to that of the first.

    Returns
    -------
    float
        In the unit of the widths; NaN where the parameters make no sense.

    Examples
    --------
    >>> round(double_gaussian_fwhm(1.0, 3.0, 0.0), 4)
    2.3548
    """
    if not (sigma1 > 0 and sigma2 > 0 and 0 <= ratio < 10):
        return float("nan")
    low, high = 0.0, _SIGMA_TO_FWHM * max(sigma1, sigma2)
    for _ in range(60):
        radius = 0.5 * (low + high)
        value = np.exp(-0.5 * (radius / sigma1) ** 2) + ratio * np.exp(-0.5 * (radius / sigma2) ** 2)
        low, high = (radius, high) if value > 0.5 * (1 + ratio) else (low, radius)
    return float(low + high)
