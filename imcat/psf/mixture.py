"""Point-spread functions as sums of elliptical Gaussians.

The mixture is the **effective** PSF: the response of the pixel is part of it, so that its value at
the centre of a pixel is the light that the pixel receives.

A Gaussian much narrower than a pixel, convolved with the pixel, is no Gaussian. A mixture of an
undersampled PSF therefore has ``subpixels`` > 1: it stands for the light before the pixel. Each pixel
is then integrated as ``subpixels``² smaller ones, and each of those is replaced by a Gaussian of the
same variance, 1/(12 subpixels²) along each axis. With two, fourth moments of the pixel are right to 6 %
of themselves and the flux is the same at any phase until the second harmonic of the sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.psf.gaussian_fit import fit_gaussians, moffat_gaussians

__all__ = [
    "PIXEL_VARIANCE",
    "PsfMixture",
    "fit_mixture",
    "moffat_mixture",
    "polynomial_terms",
    "resolved_variance",
    "subpixel_offsets",
]

Float64 = NDArray[np.float64]

#: Variance of a uniform distribution over a pixel, along one axis, pixels².
PIXEL_VARIANCE = 1.0 / 12.0
_PLACES = 17  # along each side, where a PSF that varies is looked at
_CALMING = 20  # steps by which a variation is made smaller
#: FWHM in pixels below which a Moffat profile is drawn by parts of a pixel; at this width the pixel as a
#: Gaussian changes the peak by half a per cent.
_SHARP_FWHM = 2.0


def subpixel_offsets(subpixels: int) -> Float64:
    """Centres of the parts of a pixel along one axis, pixels, ``[subpixels]``."""
    return np.asarray((np.arange(subpixels) + 0.5) / subpixels - 0.5, np.float64)


@dataclass(frozen=True, eq=False)
class PsfMixture:
    """An effective PSF as a sum of k elliptical Gaussians.

    Attributes
    ----------
    weights : float64 array, ``[k]``
        Share of the flux; they sum to 1. Some may be negative.
    covariances : float64 array, ``[k, 3]``
        xx, xy, yy in pixels², at the centre of the image, pixel included.
    variation : float64 array, ``[k, 3, m]``, optional
        Coefficients of a polynomial over the image that is added to the covariances: its terms are
        ``x'``, ``y'``, ``x'²``, ``x'y'``, ``y'²``, ``x'³`` … without the constant (m = 2, 5 or 9),
        x' and y' run from -1 to 1 over the image.
    shape : (int, int), optional
        Rows and columns of the image; needed with `variation`.
    subpixels : int
        1: each Gaussian holds as it stands. More: each is the light before the pixel plus the
        variance of the pixel, and is drawn as the sum over that many parts of the pixel along each axis.
    offsets : float64 array, ``[k, 2]``, optional
        x and y of the centre of each from the position of the source, pixels; default: none. The
        position of a source is the centroid of its light.

    Raises
    ------
    InputError
        If the arrays do not fit together, or a covariance is not positive definite somewhere.
    """

    weights: Float64
    covariances: Float64
    variation: Float64 | None = None
    shape: tuple[int, int] | None = None
    subpixels: int = 1
    offsets: Float64 | None = None

    def __post_init__(self) -> None:
        k = len(self.weights)
        if self.weights.shape != (k,) or self.covariances.shape != (k, 3):
            raise InputError(
                f"a PSF mixture with weights {self.weights.shape} and covariances {self.covariances.shape}",
                expected=f"shapes ({k},) and ({k}, 3)",
            )
        if self.offsets is not None and self.offsets.shape != (k, 2):
            raise InputError(f"offsets of a PSF of shape {self.offsets.shape}", expected=f"({k}, 2)")
        if not math.isclose(float(self.weights.sum()), 1.0, abs_tol=1e-6):
            raise InputError(f"weights of a PSF that sum to {self.weights.sum():.6g}", expected="1")
        if self.variation is not None:
            if self.shape is None:
                raise InputError("a PSF that varies over an image of unknown size", expected="its shape")
            if self.variation.shape[:2] != (k, 3) or self.variation.shape[2] not in _TERMS:
                raise InputError(
                    f"variation of a PSF of shape {self.variation.shape}",
                    expected=f"({k}, 3, m) with m one of {', '.join(map(str, _TERMS))}",
                )
        xx, xy, yy = np.moveaxis(self.at(*grid_places(self.shape or (1, 1))), -1, 0)
        narrow = PIXEL_VARIANCE if self.subpixels > 1 else 0.0
        good = (xx > narrow) & (yy > narrow) & ((xx - narrow) * (yy - narrow) > xy**2)
        if not good.all():
            k_bad = int(np.argmin(good.all(axis=0)))
            raise InputError(
                f"the covariance of Gaussian {k_bad} of a PSF is not that of a Gaussian everywhere",
                expected="positive definite" + (", wider than the pixel" if narrow else ""),
            )

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def centres(self) -> Float64:
        """X and y of each Gaussian from the position of the source, pixels, ``[k, 2]``."""
        return np.zeros((len(self), 2)) if self.offsets is None else self.offsets

    def at(self, x: Float64, y: Float64) -> Float64:
        """Covariances at some positions; beyond the image those of its edge, since a polynomial runs away there.

        Parameters
        ----------
        x, y : float64 array, ``[n]``
            Pixels.

        Returns
        -------
        float64 array, ``[n, k, 3]``
            xx, xy, yy in pixels².
        """
        x, y = np.atleast_1d(x), np.atleast_1d(y)
        if self.variation is None or self.shape is None:
            return np.broadcast_to(self.covariances, (len(x), *self.covariances.shape))
        rows, columns = self.shape
        x, y = np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
        terms = polynomial_terms(x, y, self.shape, self.variation.shape[2])
        return np.asarray(self.covariances + np.einsum("kcm,mn->nkc", self.variation, terms))

    def image(self, size: int, x: float | None = None, y: float | None = None) -> Float64:
        """The PSF as an image, centred on its middle, with a sum of 1.

        Parameters
        ----------
        size : int
            Rows and columns; with an even number the centre lies between pixels.
        x, y : float, optional
            Where in the image it holds, pixels; default: the centre.

        Returns
        -------
        float64 array, ``[size, size]``
        """
        position = self._position(x, y)
        pixel = np.arange(size) - (size - 1) / 2
        dx, dy = pixel[None, :, None] - self.centres[:, 0], pixel[:, None, None] - self.centres[:, 1]
        result = np.zeros((size, size))
        part = subpixel_offsets(self.subpixels)
        weights, covariances = self.weights, self.at(*position)[0]
        if self.subpixels > 1:
            covariances = covariances - np.array([1.0, 0.0, 1.0]) * resolved_variance(self.subpixels)
        xx, xy, yy = covariances.T
        determinant = xx * yy - xy**2
        height = weights / (2 * np.pi * np.sqrt(determinant) * self.subpixels**2)
        for shift_y in part:
            for shift_x in part:
                u, v = dx - shift_x, dy - shift_y
                distance = (yy * u**2 - 2 * xy * u * v + xx * v**2) / determinant
                result += np.exp(-0.5 * distance) @ height
        return np.asarray(result / result.sum())

    def encircled_energy(self, radius: Float64, x: float | None = None, y: float | None = None) -> Float64:
        """Share of the flux within circles.

        Parameters
        ----------
        radius : float64 array, ``[n]``
            Pixels.
        x, y : float, optional
            Where in the image it holds, pixels; default: the centre.

        Returns
        -------
        float64 array, ``[n]``
        """
        r = np.atleast_1d(np.asarray(radius, np.float64))
        major, minor = _axes(self.at(*self._position(x, y))[0])
        # Flux of an elliptical Gaussian in a circle: the mean over angles of that of a round one
        # whose variance is the one along that angle in the sense of the inverse covariance.
        angle = (np.arange(64) + 0.5) * np.pi / 64
        inverse = np.cos(angle)[:, None] ** 2 / major + np.sin(angle)[:, None] ** 2 / minor  # [angle, k]
        share = (1 - np.exp(-0.5 * r[:, None, None] ** 2 * inverse)) / inverse
        each = share.mean(axis=1) / np.sqrt(major * minor)
        return np.asarray(each @ self.weights)

    @property
    def fwhm(self) -> float:
        """Full width at half maximum at the centre of the image, pixels."""
        return self.fwhm_at()

    def fwhm_at(self, x: float | None = None, y: float | None = None) -> float:
        """Full width at half maximum in pixels: geometric mean of the major and the minor axis; NaN without a peak.

        Parameters
        ----------
        x, y : float, optional
            Where in the image it holds, pixels; default: the centre.
        """
        covariances = self.at(*self._position(x, y))[0]
        xx, xy, yy = covariances.T
        determinant = xx * yy - xy**2
        height = self.weights / np.sqrt(determinant)
        # The widths along two perpendicular axes of the flux-weighted ellipse.
        mean = (self.weights * height) @ covariances
        angle = 0.5 * math.atan2(2 * mean[1], mean[0] - mean[2])
        widths = []
        for direction in (angle, angle + math.pi / 2):
            c, s = math.cos(direction), math.sin(direction)
            slope = 0.5 * (yy * c * c - 2 * xy * c * s + xx * s * s) / determinant
            widths.append(_half_width(height, slope))
        return 2 * math.sqrt(widths[0] * widths[1])

    def _position(self, x: float | None, y: float | None) -> tuple[Float64, Float64]:
        rows, columns = self.shape or (1, 1)
        return (
            np.array([(columns - 1) / 2 if x is None else x]),
            np.array([(rows - 1) / 2 if y is None else y]),
        )


def fit_mixture(
    image: NDArray[np.floating],
    oversampling: int = 1,
    components: int = 4,
    *,
    subpixels: int = 1,
    softening: float = 0.1,
    concentric: bool = True,
    signed: bool = False,
) -> PsfMixture:
    """Fit a mixture to the image of a PSF.

    Parameters
    ----------
    image : array, ``[y, x]``
        Effective PSF: the response of the (native) pixel is in it. The centre is fitted and need
        not be that of the image. The weights stand for the flux inside the image.
    oversampling : int
        Samples of the image per native pixel along each axis.
    components : int
        Gaussians.
    subpixels : int
        Parts of a pixel along each axis, see `PsfMixture`; 2 for a FWHM below two pixels.
    softening : float
        Brightness relative to the peak below which residuals count equally.
    concentric : bool
        Whether all Gaussians have one centre. Otherwise an image of little noise is followed more
        closely: CSST's within 0.3 to 1.2 % of the peak with five Gaussians, instead of 0.8 to 1.3 %.
    signed : bool
        Whether weights may be negative, as the dark rings of a diffraction-limited PSF need.

    Returns
    -------
    PsfMixture
        In native pixels, the same over the whole image.

    Raises
    ------
    InputError
        If the image holds no source, or is too small.
    """
    data = np.asarray(image, np.float64)
    if data.ndim != 2 or min(data.shape) < 5:
        raise InputError(f"a PSF image of shape {data.shape}", expected="two axes of at least 5 pixels")
    if not np.isfinite(data).all() or data.sum() <= 0:
        raise InputError("a PSF image without a positive, finite sum", expected="a source on zero background")
    data = data / data.sum() * oversampling**2
    parts = subpixel_offsets(subpixels)
    weights, covariances, centres = fit_gaussians(
        data, oversampling, components, parts, softening, concentric=concentric, signed=signed
    )
    keep = abs(weights) > 1e-6 * weights.sum()
    weights = weights[keep] / weights[keep].sum()
    offsets = None if concentric else centres[keep] - weights @ centres[keep]
    return PsfMixture(weights, covariances[keep], subpixels=subpixels, offsets=offsets)


def moffat_mixture(
    fwhm_pixels: float,
    beta: float,
    ellipticity: tuple[float, float] = (0.0, 0.0),
    components: int = 4,
) -> PsfMixture:
    """Mixture for a Moffat profile seen through a pixel.

    ``I(r) ∝ (1 + (r / α)²)^(-β)`` (Moffat 1969, A&A 3, 455), on ellipses, convolved with the pixel.

    Parameters
    ----------
    fwhm_pixels : float
        Full width at half maximum before the pixel, geometric mean of both axes, pixels.
    beta : float
        Exponent, above 1.5 (below, much of the light is in wings without end).
    ellipticity : (float, float)
        (a² - b²) / (a² + b²) times the cosine and the sine of twice the angle of the major axis from x to y.
    components : int
        Gaussians.

    Raises
    ------
    InputError
        If a parameter is impossible.
    """
    e1, e2 = ellipticity
    if not (fwhm_pixels > 0 and beta > 1.5 and math.hypot(e1, e2) < 1 and components > 0):
        raise InputError(
            f"a Moffat profile of FWHM {fwhm_pixels} pixels, beta {beta}, ellipticity ({e1}, {e2})",
            expected="FWHM above 0, beta above 1.5, ellipticity below 1",
        )
    weights, variances = moffat_gaussians(float(beta), components)
    shape = np.array([1 + e1, e2, 1 - e1]) / math.sqrt(1 - e1**2 - e2**2)
    covariances = variances[:, None] * fwhm_pixels**2 * shape
    covariances[:, [0, 2]] += PIXEL_VARIANCE
    return PsfMixture(weights, covariances, subpixels=1 if fwhm_pixels >= _SHARP_FWHM else 2)


#: Numbers of terms of polynomials of degree 1, 2, 3 in two variables without the constant.
_TERMS = (2, 5, 9)


def grid_places(shape: tuple[int, int]) -> tuple[Float64, Float64]:
    """X and y of places all over an image of that shape, its edges among them; a cubic does little between them."""
    rows, columns = shape
    y, x = np.meshgrid(np.linspace(0, rows - 1, _PLACES), np.linspace(0, columns - 1, _PLACES))
    return x.ravel(), y.ravel()


def calmed(covariances: Float64, variation: Float64, shape: tuple[int, int]) -> Float64:
    """Variation of a mixture, less where it would leave a Gaussian without width somewhere in the image.

    Parameters
    ----------
    covariances, variation, shape
        As of `PsfMixture`.

    Returns
    -------
    float64 array
        Like `variation`. A Gaussian keeps so much of its own that its area is nowhere below a hundredth of that of its mean.
    """
    terms = polynomial_terms(*grid_places(shape), shape, variation.shape[2])
    result = variation.copy()
    for k, (mean, slope) in enumerate(zip(covariances, variation, strict=True)):
        least = 1e-4 * (mean[0] * mean[2] - mean[1] ** 2)
        for _ in range(_CALMING):
            xx, xy, yy = mean[:, None] + result[k] @ terms
            if ((xx > 0) & (yy > 0) & (xx * yy - xy**2 > least)).all():
                break
            result[k] = 0.7 * result[k]
        else:
            result[k] = 0.0 * slope
    return result


def polynomial_terms(x: Float64, y: Float64, shape: tuple[int, int], terms: int) -> Float64:
    """Terms of a polynomial over an image.

    Parameters
    ----------
    x, y : float64 array, ``[n]``
        Pixels.
    shape : (int, int)
        Rows and columns of the image; places are scaled to run from -1 to 1 over it.
    terms : int
        2, 5 or 9, for degree 1, 2 or 3.

    Returns
    -------
    float64 array, ``[terms, n]``
        x, y, x², xy, y², x³ … without the constant.
    """
    u = 2 * x / max(shape[1] - 1, 1) - 1
    v = 2 * y / max(shape[0] - 1, 1) - 1
    degree = _TERMS.index(terms) + 1
    return np.array([u ** (d - p) * v**p for d in range(1, degree + 1) for p in range(d + 1)])


def resolved_variance(subpixels: int) -> float:
    """What the parts of a pixel take from its variance when each is drawn at its own place."""
    return PIXEL_VARIANCE * (1 - 1 / subpixels**2)


def _axes(covariances: Float64) -> tuple[Float64, Float64]:
    """Variances along the major and the minor axis, ``[k]`` each."""
    xx, xy, yy = covariances.T
    mean, half = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    return mean + half, mean - half


def _half_width(height: Float64, slope: Float64) -> float:
    """Radius at which a sum of ``height * exp(-slope r²)`` has fallen to half; NaN where its middle is no peak."""
    half = 0.5 * float(height.sum())
    if not half > 0:
        return math.nan
    inner, outer = 0.0, 1.0
    while float(height @ np.exp(-slope * outer**2)) > half:
        outer *= 2
    for _ in range(60):
        middle = 0.5 * (inner + outer)
        if float(height @ np.exp(-slope * middle**2)) > half:
            inner = middle
        else:
            outer = middle
    return 0.5 * (inner + outer)
